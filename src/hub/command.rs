//! What can be asked of the hub, and what it answers.
//!
//! A command is asked on any reactor, or from any thread. One about a channel's own state goes to the
//! channel's home, between the publications that were made before and after it; one about connections
//! goes to every reactor, and the outcomes are merged. The answer comes back by mail, also where the
//! asker is the home itself, so there is one order and one code path.

use std::fmt;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Channel;
use crate::conn::ConnectionId;
use crate::ws::{CloseCode, Message};

/// Something asked of the hub.
#[derive(Debug, Clone)]
pub enum Command {
    /// To the channel's home: publishes a message. Outcome [`Outcome::Published`].
    Publish(Publish),
    /// To the channel's home: who is there. Outcome [`Outcome::Presence`].
    Presence(Channel),
    /// To the channel's home: how many are there. Outcome [`Outcome::PresenceStats`].
    PresenceStats(Channel),
    /// To the channel's home: what was published. Outcome [`Outcome::History`].
    History(Channel, HistoryQuery),
    /// To the channel's home: forgets what was published; epoch and offsets go on. Outcome
    /// [`Outcome::Done`].
    HistoryRemove(Channel),
    /// To every reactor: the channels with subscribers. Outcome [`Outcome::Channels`].
    Channels(Pattern),
    /// To every reactor: how much there is of everything. Outcome [`Outcome::Info`].
    Info,
    /// To every reactor: closes connections, when they have got what was published by the asker before.
    /// Outcome [`Outcome::Done`].
    Disconnect(Disconnect),
    /// To every reactor: subscribes connections to a channel. Outcome [`Outcome::Done`].
    Subscribe(Whom, Channel),
    /// To every reactor: ends subscriptions, when they have brought what was published by the asker before,
    /// as far as the connections take it at once. Once it is answered, nothing of the channel is written to
    /// those connections any more (G8). Outcome [`Outcome::Done`].
    Unsubscribe(Whom, Channel),
    /// To every reactor: changes how long connections may stay. Outcome [`Outcome::Done`].
    Refresh(Whom, Refresh),
}

impl Command {
    /// The channel whose home carries the command out; `None` for one that goes to every reactor.
    #[must_use]
    pub const fn home_of(&self) -> Option<&Channel> {
        match self {
            Self::Publish(Publish { channel, .. })
            | Self::Presence(channel)
            | Self::PresenceStats(channel)
            | Self::History(channel, _)
            | Self::HistoryRemove(channel) => Some(channel),
            Self::Channels(_)
            | Self::Info
            | Self::Disconnect(_)
            | Self::Subscribe(..)
            | Self::Unsubscribe(..)
            | Self::Refresh(..) => None,
        }
    }
}

/// A publication, with what is wished for it.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where to.
    pub channel: Channel,
    /// What the subscribers get, as one message.
    pub message: Message<'static>,
    /// What is wished.
    pub options: PublishOptions,
}

/// What is wished for a publication. Default: nothing in particular.
#[derive(Debug, Clone, Default)]
pub struct PublishOptions {
    /// Do not keep it in the channel's history: it gets no offset.
    pub skip_history: bool,
    /// The one subscriber who does not get it: its sender, mostly.
    pub exclude: Option<ConnectionId>,
    /// Kept with it in the history.
    pub tags: Option<Tags>,
    /// A second publication to the channel with the same key, within five minutes, is not made; it is
    /// answered as the first was.
    pub idempotency_key: Option<Box<str>>,
}

/// Names and values that are kept with a publication.
pub type Tags = Arc<[(Box<str>, Box<str>)]>;

/// Connections of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whom {
    /// The user. Empty: somebody without a token; then `client` must say who.
    pub user: Box<str>,
    /// One connection of theirs; `None`: all of them.
    pub client: Option<ConnectionId>,
}

impl Whom {
    /// All connections of a user.
    #[must_use]
    pub fn user(name: &str) -> Self {
        Self {
            user: name.into(),
            client: None,
        }
    }

    /// Whether anybody is meant: nobody without a token can be found but by their connection.
    #[must_use]
    pub const fn is_somebody(&self) -> bool {
        !self.user.is_empty() || self.client.is_some()
    }
}

/// Whom to disconnect, and what to tell them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Whose connections.
    pub whom: Whom,
    /// The close frame's code.
    pub code: CloseCode,
    /// The close frame's reason; at most 123 bytes of it are sent.
    pub reason: Box<str>,
    /// Connections to spare.
    pub whitelist: Box<[ConnectionId]>,
}

/// How long connections may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// No longer: they are closed as those whose token has ended are.
    Expired,
    /// Until this time, in seconds since 1970, whatever their token says; `None`: for ever.
    Until(Option<u64>),
}

/// Which publications are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryQuery {
    /// At most so many: the first ones behind `since`. `Some(0)` asks for the position only. `None`: all.
    pub limit: Option<usize>,
    /// Only those behind this position (before it, if `reverse`). Default: all.
    pub since: Option<Since>,
    /// The newest first.
    pub reverse: bool,
}

/// A position to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The last offset that is known.
    pub offset: u64,
    /// The epoch it was known in; `None` for whichever there is.
    pub epoch: Option<Epoch>,
}

impl From<StreamPosition> for Since {
    fn from(position: StreamPosition) -> Self {
        Self {
            offset: position.offset,
            epoch: Some(position.epoch),
        }
    }
}

/// A place in a channel's stream of publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamPosition {
    /// The first publication has offset 1; 0 is in front of it.
    pub offset: u64,
    /// Which stream: one that lost its memory begins anew, with another epoch.
    pub epoch: Epoch,
}

/// Which stream an offset belongs to: eight letters, chosen at random.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 8]);

impl Epoch {
    /// An epoch that no stream has: what a text stands for that is none.
    pub const FOREIGN: Self = Self(*b"--------");

    /// The epoch of a random number.
    #[must_use]
    pub fn of(random: u64) -> Self {
        const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut rest = random;
        Self([(); 8].map(|()| {
            let digit = usize::try_from(rest % 52).unwrap_or(0);
            rest /= 52;
            LETTERS[digit]
        }))
    }

    /// What a client or a backend says an epoch is; `None` for the empty text, which stands for any.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let letters = <[u8; 8]>::try_from(text.as_bytes()).ok();
        let known = letters.filter(|letters| letters.iter().all(u8::is_ascii_alphabetic));
        Some(known.map_or(Self::FOREIGN, Self))
    }

    /// Its letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// A publication as the history keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Its place in the stream.
    pub offset: u64,
    /// What was published.
    pub message: Message<'static>,
    /// What was kept with it.
    pub tags: Option<Tags>,
}

/// Somebody in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Their connection.
    pub client: ConnectionId,
    /// Who they are; empty without a token.
    pub user: Arc<str>,
    /// What their route says of them: a JSON text.
    pub info: Option<Arc<str>>,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// A channel with subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its name.
    pub channel: Channel,
    /// Connections that subscribe to it.
    pub clients: u64,
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Info {
    /// Open connections.
    pub clients: u64,
    /// Users with a connection open. One who is connected to two reactors counts once for each.
    pub users: u64,
    /// Channels with subscribers. One with subscribers on two reactors counts once for each: what is whose
    /// across reactors is known to nobody without a look at all names, which is what
    /// [`Command::Channels`] is for.
    pub channels: u64,
    /// Subscriptions.
    pub subscriptions: u64,
}

/// Which channels are meant: a glob of `*` (any characters), `?` (one) and `{a,b}` (one of these).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pattern(pub Option<Box<str>>);

impl Pattern {
    /// Longest pattern, in bytes; whoever reads one refuses a longer one.
    pub const BYTES_MAX: usize = 256;

    /// Whether a name is meant. Costs O(name × pattern) at most.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some(pattern) = &self.0 else { return true };
        pattern.is_empty() || matches(pattern.as_bytes(), name.as_bytes())
    }
}

/// Compares a name with a glob. All places of the pattern that a beginning of the name can have led to are
/// followed at once, so no pattern makes it go back.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut places = vec![false; pattern.len() + 1];
    places[0] = true;
    widen(pattern, &mut places);
    for byte in name {
        let mut next = vec![false; pattern.len() + 1];
        for (at, _) in places.iter().enumerate().filter(|(_, is_here)| **is_here) {
            match pattern.get(at) {
                Some(b'*') => next[at] = true,
                Some(b'?') => next[at + 1] = true,
                Some(b'{' | b',' | b'}') | None => {}
                Some(literal) if literal == byte => next[at + 1] = true,
                Some(_) => {}
            }
        }
        places = next;
        widen(pattern, &mut places);
    }
    places[pattern.len()]
}

/// Adds the places that are reached without another byte of the name: behind a star, into and out of
/// alternatives.
fn widen(pattern: &[u8], places: &mut [bool]) {
    for at in 0..pattern.len() {
        if !places[at] {
            continue;
        }
        let end = pattern[at..].iter().position(|byte| *byte == b'}');
        match (pattern[at], end.map(|end| at + end)) {
            (b'*', _) => places[at + 1] = true,
            (b'{', Some(end)) => {
                places[at + 1] = true;
                for comma in (at..end).filter(|comma| pattern[*comma] == b',') {
                    places[comma + 1] = true;
                }
            }
            // The end of an alternative: on behind all of them.
            (b',' | b'}', Some(end)) => places[end + 1] = true,
            _ => {}
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was published; where, if the channel keeps a history and this publication is in it.
    Published(Option<StreamPosition>),
    /// Who is there.
    Presence(Vec<Present>),
    /// How many are there.
    PresenceStats {
        /// Connections.
        clients: u64,
        /// Users; all without a token count as one.
        users: u64,
    },
    /// What was published, and where the stream ends.
    History(Vec<Arc<Publication>>, StreamPosition),
    /// The channels with subscribers.
    Channels(Vec<ChannelInfo>),
    /// How much there is of everything.
    Info(Info),
    /// It was done, to so many connections where connections were meant.
    Done(u64),
}

/// Why a command was not carried out. The numbers are Centrifugo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError {
    /// 100: no answer came in time, or a limit was met.
    Internal,
    /// 102: the channel's name is none, or is nobody's.
    UnknownChannel,
    /// 104: there is no such method.
    NotFound,
    /// 107: the request makes no sense.
    BadRequest,
    /// 108: the channel keeps no history, or no presence.
    NotAvailable,
    /// 112: the stream has another epoch by now.
    UnrecoverablePosition,
}

impl CommandError {
    /// Its number.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Internal => 100,
            Self::UnknownChannel => 102,
            Self::NotFound => 104,
            Self::BadRequest => 107,
            Self::NotAvailable => 108,
            Self::UnrecoverablePosition => 112,
        }
    }

    /// Its text.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::UnknownChannel => "unknown channel",
            Self::NotFound => "method not found",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::UnrecoverablePosition => "unrecoverable position",
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for CommandError {}

/// What the asker is told.
pub type Answer = Result<Outcome, CommandError>;

/// Names a command that waits for its answer, within the reactor that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Who wants the answer.
#[derive(Debug, Clone)]
pub enum ReplyTo {
    /// Nobody.
    Nobody,
    /// The endpoint of the asking reactor.
    Endpoint,
    /// The handler of an open connection of the asking reactor, if it still is open then.
    Session(ConnectionId),
    /// A thread.
    Thread(Sender<Answer>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_glob() {
        for (pattern, yes, no) in [
            ("", &["", "a"][..], &[][..]),
            ("*", &["", "a:b"], &[]),
            ("room:*", &["room:", "room:1"], &["room", "xroom:1"]),
            ("r?om", &["room", "rxom"], &["rom", "rooom"]),
            ("*:*:9", &["a:b:9", "::9", "a:b:c:9"], &["a:9", "a:b:99"]),
            ("{a,bc}:x", &["a:x", "bc:x"], &["b:x", "abc:x", ":x"]),
            ("x{a,}y", &["xay", "xy"], &["xaay"]),
            ("{*,b?}z", &["z", "bqz", "qqz"], &["b"]),
            ("{a", &[], &["a"]),
        ] {
            let glob = Pattern(Some(pattern.into()));
            for name in yes {
                assert!(glob.matches(name), "{pattern} and {name}");
            }
            for name in no {
                assert!(!glob.matches(name), "{pattern} and {name}");
            }
        }
        assert!(Pattern(None).matches("anything"));
        // What makes a matcher that goes back take for ever.
        let hard = Pattern(Some("*a".repeat(64).into()));
        assert!(!hard.matches(&"a".repeat(63)) && hard.matches(&"a".repeat(64)));
    }

    #[test]
    fn epochs_are_eight_letters_and_any_other_text_is_foreign() {
        for random in [0, 1, 51, 52, u64::MAX] {
            let epoch = Epoch::of(random);
            assert_eq!(epoch.as_str().len(), 8);
            assert_eq!(Epoch::read(epoch.as_str()), Some(epoch));
        }
        assert_eq!(Epoch::read(""), None);
        for foreign in ["_", "--------", "abcdefg", "abcdefghi", "abcdefg1", "äöüß"] {
            assert_eq!(Epoch::read(foreign), Some(Epoch::FOREIGN), "{foreign}");
        }
        assert_ne!(Epoch::of(1), Epoch::of(2));
    }
}
