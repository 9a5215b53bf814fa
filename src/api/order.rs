//! What a request asks for: its JSON becomes commands for the hub.
//!
//! `data` is passed on as the JSON text it is; only line breaks between its parts are taken out, so that
//! a publication stays one line. Fields that are not known are passed over, as Centrifugo does.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::{ApiError, Refusal};
use crate::conn::ConnectionId;
use crate::hub::Channel;
use crate::hub::command::{
    Command, Disconnect, Epoch, HistoryQuery, Pattern, Publish, PublishOptions, Refresh, Since,
    Whom,
};
use crate::hub::idempotency::KEY_BYTES_MAX;
use crate::metrics::ApiMethod;
use crate::ws::{CloseCode, Message};

/// What one request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Channels in one broadcast. Default 1,000. More are answered 400.
    pub channels_max: usize,
    /// Commands in one batch. Default 1,000. More are answered 400.
    pub commands_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels_max: 1000,
            commands_max: 1000,
        }
    }
}

/// Most bytes that one broadcast may make of its data: they are framed for each channel. 16 MiB; each
/// channel of one that makes more is answered with error 106.
pub(super) const BROADCAST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a request asks for.
#[derive(Debug)]
pub(super) struct Order<'a> {
    /// Whether the next command need not wait for what came of the one before.
    pub(super) is_parallel: bool,
    /// How the answer is put together.
    pub(super) shape: Shape,
    /// The commands, in their order.
    pub(super) tasks: Vec<Task<'a>>,
}

/// One command, or why there is none.
#[derive(Debug)]
pub(super) enum Task<'a> {
    /// A publication, whose data is still where it was read.
    Publish(Publication<'a>),
    /// Anything else for the hub.
    Ask(Command),
    /// Nothing can be done.
    Fail(ApiError),
}

/// A publication that is asked for.
#[derive(Debug)]
pub(super) struct Publication<'a> {
    pub(super) channel: Channel,
    pub(super) message: Message<'a>,
    pub(super) options: PublishOptions,
}

impl Publication<'_> {
    /// As the hub takes it.
    pub(super) fn into_command(self) -> Command {
        Command::Publish(Publish {
            channel: self.channel,
            message: owned(self.message),
            options: self.options,
        })
    }
}

impl Task<'_> {
    /// The same, to be kept after the request's bytes have gone.
    pub(super) fn into_owned(self) -> Task<'static> {
        match self {
            Self::Publish(Publication {
                channel,
                message,
                options,
            }) => Task::Publish(Publication {
                channel,
                message: owned(message),
                options,
            }),
            Self::Ask(command) => Task::Ask(command),
            Self::Fail(error) => Task::Fail(error),
        }
    }
}

impl From<Result<Command, ApiError>> for Task<'_> {
    fn from(asked: Result<Command, ApiError>) -> Self {
        match asked {
            Ok(command) => Self::Ask(command),
            Err(error) => Self::Fail(error),
        }
    }
}

fn owned(message: Message<'_>) -> Message<'static> {
    match message {
        Message::Text(text) => Message::Text(text.into_owned().into()),
        Message::Binary(bytes) => Message::Binary(bytes.into_owned().into()),
    }
}

/// How the answers to commands become the answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One command, one result.
    One(ApiMethod),
    /// A publication to each of so many channels.
    Broadcast(usize),
    /// Each item is one of the above.
    Batch(Vec<Self>),
}

impl<'a> Order<'a> {
    /// Reads the body of a request for this method.
    ///
    /// # Errors
    /// What is wrong with it as a whole. What is wrong with a single command is its [`Task`]'s.
    pub(super) fn read(method: ApiMethod, body: &'a str, limits: &Limits) -> Result<Self, Refusal> {
        let mut tasks = Vec::new();
        let mut is_parallel = true;
        let shape = if method == ApiMethod::Batch {
            let batch: BatchFields<'_> = serde_json::from_str(body)?;
            is_parallel = batch.parallel.unwrap_or(false);
            if batch.commands.len() > limits.commands_max {
                return Err(Refusal::TooMany {
                    what: "commands",
                    max: limits.commands_max,
                });
            }
            let mut items = Vec::with_capacity(batch.commands.len());
            for command in batch.commands {
                items.push(read_item(&command, limits, &mut tasks)?);
            }
            Shape::Batch(items)
        } else {
            read_tasks(method, body, limits, &mut tasks)?
        };
        Ok(Self {
            is_parallel,
            shape,
            tasks,
        })
    }
}

/// Reads an item of a batch: an object whose one key is the method.
fn read_item<'a>(
    command: &BTreeMap<Cow<'a, str>, &'a RawValue>,
    limits: &Limits,
    tasks: &mut Vec<Task<'a>>,
) -> Result<Shape, Refusal> {
    let mut pairs = command.iter();
    let (Some((name, request)), None) = (pairs.next(), pairs.next()) else {
        tasks.push(Task::Fail(ApiError::BAD_REQUEST));
        return Ok(Shape::One(ApiMethod::Unknown));
    };
    match ApiMethod::of(name) {
        Some(ApiMethod::Batch) => tasks.push(Task::Fail(ApiError::BAD_REQUEST)),
        Some(method) => return read_tasks(method, request.get(), limits, tasks),
        None => tasks.push(Task::Fail(ApiError::NOT_FOUND)),
    }
    Ok(Shape::One(ApiMethod::Unknown))
}

/// Reads the fields of any method but batch, and appends its commands; says how they are answered.
fn read_tasks<'a>(
    method: ApiMethod,
    body: &'a str,
    limits: &Limits,
    tasks: &mut Vec<Task<'a>>,
) -> Result<Shape, Refusal> {
    let asked = match method {
        ApiMethod::Publish => {
            let mut fields: PublishFields<'_> = serde_json::from_str(body)?;
            let name = std::mem::take(&mut fields.channel);
            let publication = fields.publication();
            let to_one = publication.and_then(|(message, options)| to(&name.0, message, options));
            tasks.push(to_one.unwrap_or_else(Task::Fail));
            return Ok(Shape::One(method));
        }
        ApiMethod::Broadcast => return read_broadcast(body, limits, tasks),
        ApiMethod::Presence => of_channel(body, Command::Presence)?,
        ApiMethod::PresenceStats => of_channel(body, Command::PresenceStats)?,
        ApiMethod::HistoryRemove => of_channel(body, Command::HistoryRemove)?,
        ApiMethod::History => {
            let fields: HistoryFields<'_> = serde_json::from_str(body)?;
            fields.command()
        }
        ApiMethod::Channels => {
            let fields: ChannelsFields<'_> = serde_json::from_str(body)?;
            let pattern = fields.pattern.given();
            if pattern.is_some_and(|pattern| pattern.len() > Pattern::BYTES_MAX) {
                Err(ApiError::BAD_REQUEST)
            } else {
                Ok(Command::Channels(Pattern(pattern.map(Into::into))))
            }
        }
        ApiMethod::Info => {
            let NoFields {} = serde_json::from_str(body)?;
            Ok(Command::Info)
        }
        ApiMethod::Disconnect
        | ApiMethod::Subscribe
        | ApiMethod::Unsubscribe
        | ApiMethod::Refresh => {
            let fields: WhomFields<'_> = serde_json::from_str(body)?;
            fields.command(method)
        }
        ApiMethod::Batch | ApiMethod::Unknown => Err(ApiError::NOT_FOUND),
    };
    tasks.push(asked.into());
    Ok(Shape::One(method))
}

fn read_broadcast<'a>(
    body: &'a str,
    limits: &Limits,
    tasks: &mut Vec<Task<'a>>,
) -> Result<Shape, Refusal> {
    let mut fields: PublishFields<'_> = serde_json::from_str(body)?;
    let names = std::mem::take(&mut fields.channels).unwrap_or_default();
    if names.len() > limits.channels_max {
        return Err(Refusal::TooMany {
            what: "channels",
            max: limits.channels_max,
        });
    }
    let mut publication = fields.publication();
    if names.is_empty() {
        publication = Err(ApiError::BAD_REQUEST);
    }
    if let Ok((message, _)) = &publication
        && message.len().saturating_mul(names.len()) > BROADCAST_BYTES_MAX
    {
        publication = Err(ApiError::LimitExceeded);
    }
    match publication {
        Ok((message, options)) => {
            let to_each = names.iter().map(|name| {
                to(&name.0, message.clone(), options.clone()).unwrap_or_else(Task::Fail)
            });
            tasks.extend(to_each);
            Ok(Shape::Broadcast(names.len()))
        }
        // What is wrong with all of them is said once.
        Err(error) => {
            tasks.push(Task::Fail(error));
            Ok(Shape::One(ApiMethod::Broadcast))
        }
    }
}

/// A publication to the channel of this name.
fn to<'a>(name: &str, message: Message<'a>, options: PublishOptions) -> Result<Task<'a>, ApiError> {
    Ok(Task::Publish(Publication {
        channel: channel(name)?,
        message,
        options,
    }))
}

/// A command that names a channel and nothing else.
fn of_channel(
    body: &str,
    command: fn(Channel) -> Command,
) -> Result<Result<Command, ApiError>, Refusal> {
    let fields: ChannelFields<'_> = serde_json::from_str(body)?;
    Ok(channel(&fields.channel.0).map(command))
}

/// A channel's name: there is one grammar for names, whoever says them (G1).
fn channel(name: &str) -> Result<Channel, ApiError> {
    Channel::new(name).map_err(|_| ApiError::BAD_REQUEST)
}

/// A text; `null` is an empty one, and empty ones count as absent. Borrowed unless it has escapes.
#[derive(Debug, Default)]
struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    fn given(&self) -> Option<&str> {
        Some(&*self.0).filter(|text| !text.is_empty())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_none<E: Error>(self) -> Result<Text<'de>, E> {
        Ok(Text::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// Any value that is there, `null` too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct BatchFields<'a> {
    #[serde(borrow, default)]
    commands: Vec<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    parallel: Option<bool>,
}

#[derive(Deserialize)]
struct NoFields {}

#[derive(Deserialize)]
struct ChannelFields<'a> {
    #[serde(borrow, default)]
    channel: Text<'a>,
}

#[derive(Deserialize)]
struct ChannelsFields<'a> {
    #[serde(borrow, default)]
    pattern: Text<'a>,
}

/// The fields of publish and broadcast.
#[derive(Deserialize)]
struct PublishFields<'a> {
    #[serde(borrow, default)]
    channel: Text<'a>,
    #[serde(borrow, default)]
    channels: Option<Vec<Text<'a>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b64data: Text<'a>,
    skip_history: Option<bool>,
    #[serde(borrow)]
    tags: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    #[serde(borrow, default)]
    idempotency_key: Text<'a>,
    version: Option<u64>,
}

impl<'a> PublishFields<'a> {
    /// What is published, and how.
    fn publication(&self) -> Result<(Message<'a>, PublishOptions), ApiError> {
        let message = match (self.b64data.given(), self.data) {
            (Some(text), _) => {
                let bytes = STANDARD.decode(text).map_err(|_| ApiError::BAD_REQUEST)?;
                Message::Binary(bytes.into())
            }
            (None, Some(data)) => Message::Text(on_one_line(data.get())),
            (None, None) => return Err(ApiError::BAD_REQUEST),
        };
        // Publications are not told apart by a version of the backend's own here.
        if self.version.is_some_and(|version| version > 0) {
            return Err(ApiError::NOT_AVAILABLE);
        }
        let key = self.idempotency_key.given();
        if key.is_some_and(|key| key.len() > KEY_BYTES_MAX) {
            return Err(ApiError::BAD_REQUEST);
        }
        let tags = self.tags.as_ref().filter(|tags| !tags.is_empty());
        let owned = |(name, value): (&Cow<'_, str>, &Cow<'_, str>)| {
            (name.as_ref().into(), value.as_ref().into())
        };
        Ok((
            message,
            PublishOptions {
                skip_history: self.skip_history.unwrap_or(false),
                exclude: None,
                tags: tags.map(|tags| tags.iter().map(owned).collect()),
                idempotency_key: key.map(Into::into),
            },
        ))
    }
}

#[derive(Deserialize)]
struct HistoryFields<'a> {
    #[serde(borrow, default)]
    channel: Text<'a>,
    limit: Option<i64>,
    #[serde(borrow)]
    since: Option<SinceFields<'a>>,
    reverse: Option<bool>,
}

#[derive(Deserialize)]
struct SinceFields<'a> {
    offset: Option<u64>,
    #[serde(borrow, default)]
    epoch: Text<'a>,
}

impl HistoryFields<'_> {
    fn command(&self) -> Result<Command, ApiError> {
        let since = self.since.as_ref().map(|since| Since {
            offset: since.offset.unwrap_or(0),
            epoch: Epoch::read(&since.epoch.0),
        });
        let reverse = self.reverse.unwrap_or(false);
        if reverse && since.is_some_and(|since| since.offset == 0) {
            return Err(ApiError::BAD_REQUEST);
        }
        let query = HistoryQuery {
            // Negative: all there are.
            limit: usize::try_from(self.limit.unwrap_or(0)).ok(),
            since,
            reverse,
        };
        Ok(Command::History(channel(&self.channel.0)?, query))
    }
}

/// The fields of what is done to the connections of a user.
#[derive(Deserialize)]
struct WhomFields<'a> {
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    client: Text<'a>,
    #[serde(borrow, default)]
    session: Text<'a>,
    #[serde(borrow, default)]
    channel: Text<'a>,
    #[serde(borrow)]
    whitelist: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    disconnect: Option<DisconnectFields<'a>>,
    expired: Option<bool>,
    expire_at: Option<i64>,
}

#[derive(Deserialize)]
struct DisconnectFields<'a> {
    code: Option<u32>,
    #[serde(borrow, default)]
    reason: Text<'a>,
}

/// The close code of whoever is disconnected without another being given: not to come back.
const FORCE_DISCONNECT: u16 = 3503;

impl WhomFields<'_> {
    /// The connections that are meant.
    fn whom(&self) -> Result<Whom, ApiError> {
        let user = self.user.as_deref().ok_or(ApiError::BAD_REQUEST)?;
        let given = |text: &Text<'_>| text.given().map(|text| text.parse().unwrap_or(NOBODY));
        let whom = Whom {
            user: user.into(),
            // A connection has one session, so that is what a session's name could be.
            client: given(&self.client).or_else(|| given(&self.session)),
        };
        // Those without a token have no name in common that they could be found by.
        if !whom.is_somebody() {
            return Err(ApiError::BAD_REQUEST);
        }
        Ok(whom)
    }

    fn command(&self, method: ApiMethod) -> Result<Command, ApiError> {
        let whom = self.whom()?;
        match method {
            ApiMethod::Subscribe => {
                let channel = channel(&self.channel.0)?;
                // A subscription here ends with its connection; to promise less would be a lie.
                if self.expire_at.is_some_and(|at| at != 0) {
                    return Err(ApiError::NOT_AVAILABLE);
                }
                Ok(Command::Subscribe(whom, channel))
            }
            ApiMethod::Unsubscribe => {
                let channel = channel(&self.channel.0)?;
                Ok(Command::Unsubscribe(whom, channel))
            }
            ApiMethod::Refresh => {
                let until = self.expire_at.filter(|at| *at != 0);
                let refresh = match (self.expired.unwrap_or(false), until) {
                    (true, _) => Refresh::Expired,
                    (false, None) => Refresh::Until(None),
                    (false, Some(at)) => {
                        Refresh::Until(Some(u64::try_from(at).map_err(|_| ApiError::BAD_REQUEST)?))
                    }
                };
                Ok(Command::Refresh(whom, refresh))
            }
            _ => self.disconnect(whom),
        }
    }

    fn disconnect(&self, whom: Whom) -> Result<Command, ApiError> {
        let (code, reason) = match &self.disconnect {
            Some(DisconnectFields {
                code: Some(code @ 1..),
                reason,
            }) => (
                u16::try_from(*code).map_err(|_| ApiError::BAD_REQUEST)?,
                reason.0.as_ref(),
            ),
            _ => (FORCE_DISCONNECT, "force disconnect"),
        };
        // Those below are the protocol's own (RFC 6455 §7.4.2), those above nobody's.
        if !(3000..5000).contains(&code) {
            return Err(ApiError::BAD_REQUEST);
        }
        let spared = self.whitelist.iter().flatten();
        Ok(Command::Disconnect(Disconnect {
            whom,
            code: CloseCode::from(code),
            reason: reason.into(),
            whitelist: spared.filter_map(|id| id.parse().ok()).collect(),
        }))
    }
}

/// An id that no connection has: what a text stands for that is none.
const NOBODY: ConnectionId = ConnectionId::new(u8::MAX, 0, u32::MAX);

/// A JSON text without line breaks between its parts; in its texts there are none, as JSON escapes them.
fn on_one_line(json: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_none() {
        return Cow::Borrowed(json);
    }
    let mut compact = String::with_capacity(json.len());
    let (mut in_text, mut is_escaped) = (false, false);
    for character in json.chars() {
        if in_text {
            in_text = is_escaped || character != '"';
            is_escaped = !is_escaped && character == '\\';
        } else if character.is_ascii_whitespace() {
            continue;
        } else {
            in_text = character == '"';
        }
        compact.push(character);
    }
    Cow::Owned(compact)
}

#[cfg(test)]
mod tests;
