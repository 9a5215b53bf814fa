//! What a backend may answer, and what of it is refused (G6).
//!
//! ```json
//! {"reply":[{"type":"project_status","data":{}}],
//!  "publish":[{"channel":"project_7","data":{"type":"project_update"}}],
//!  "join":["project_7"], "leave":[], "close":{"code":4000,"reason":"bye"}}
//! ```
//!
//! Each element of `reply`, and each `data`, is sent as one text message, as it is written. An empty
//! body says nothing. `allow` answers the question of [`Event::Authorise`], and that one only.
//!
//! An answer is taken whole or not at all: a backend that makes a mistake hears of it in the log, and no
//! client sees a half of what was meant.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::event::{DEPTH_MAX, Event};
use crate::hub::{Channel, ChannelError};
use crate::json;
use crate::ws::CloseCode;
use crate::ws::close::REASON_BYTES_MAX;

/// Longest answer in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Most elements of each list of an answer.
pub const LIST_MAX: usize = 64;

/// What a backend answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether the connection is let in. Of [`Event::Authorise`] only.
    pub allow: bool,
    /// Messages to the client, in their order.
    pub reply: Vec<Box<str>>,
    /// Messages to channels, in their order.
    pub publish: Vec<(Channel, Box<str>)>,
    /// Channels to subscribe the connection to.
    pub join: Vec<Channel>,
    /// Channels whose subscription ends.
    pub leave: Vec<Channel>,
    /// The end of the connection, after all that.
    pub close: Option<(CloseCode, Box<str>)>,
}

impl Answer {
    /// Memory that the answer holds, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let replies: usize = self.reply.iter().map(|text| text.len()).sum();
        let published: usize = self.publish.iter().map(|(_, text)| text.len()).sum();
        replies + published
    }
}

/// Why an answer is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// It is no JSON object of the fields above; why and where, and nothing of what stands there.
    Json(Box<str>),
    /// It is nested more deeply than [`DEPTH_MAX`].
    Depth,
    /// It does not say whether the connection is let in, or says so unasked.
    Allow,
    /// A list has more than [`LIST_MAX`] elements.
    List(&'static str),
    /// What it names is no channel.
    Name(ChannelError),
    /// The channel is not one of the route's.
    Channel(Channel),
    /// The close code is not one that it may choose.
    CloseCode(u16),
    /// The close reason is longer than 123 bytes.
    CloseReason,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(words) => write!(f, "the answer is not what is expected: {words}"),
            Self::Depth => write!(f, "the answer is nested more than {DEPTH_MAX} deep"),
            Self::Allow => {
                f.write_str("\"allow\" answers an authorise call, which needs it, and no other")
            }
            Self::List(name) => write!(f, "\"{name}\" has more than {LIST_MAX} elements"),
            Self::Name(error) => write!(f, "not a channel: {error}"),
            Self::Channel(channel) => {
                write!(
                    f,
                    "the channel {channel} is not one of the route's; see route.hook_channels"
                )
            }
            Self::CloseCode(code) => write!(
                f,
                "the close code {code} is not one of 1000, 1008, 1011, 1012, 1013, 3000 to 4999"
            ),
            Self::CloseReason => write!(
                f,
                "the close reason is longer than {REASON_BYTES_MAX} bytes"
            ),
        }
    }
}

impl std::error::Error for AnswerError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    allow: Option<bool>,
    #[serde(borrow)]
    reply: Option<Vec<&'a RawValue>>,
    publish: Option<Vec<Publication<'a>>>,
    join: Option<Vec<Cow<'a, str>>>,
    leave: Option<Vec<Cow<'a, str>>>,
    close: Option<Close<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    data: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Close<'a> {
    code: u16,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
}

/// Reads an answer to `event`; `is_own` says whether a channel is one of the route's.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read(
    event: Event,
    body: &[u8],
    is_own: &dyn Fn(&Channel) -> bool,
) -> Result<Answer, AnswerError> {
    let text = std::str::from_utf8(body).map_err(|_| AnswerError::Json("not UTF-8".into()))?;
    let text = match text.trim_ascii() {
        "" => "{}",
        text => text,
    };
    if json::is_deeper_than(text, DEPTH_MAX) {
        return Err(AnswerError::Depth);
    }
    let written: Written<'_> = serde_json::from_str(text).map_err(misread)?;
    let allow = match (event, written.allow) {
        (Event::Authorise, Some(allow)) => allow,
        (Event::Authorise, None) | (_, Some(_)) => return Err(AnswerError::Allow),
        (_, None) => false,
    };
    let channel = |name: &str| {
        let channel = Channel::new(name).map_err(AnswerError::Name)?;
        match is_own(&channel) {
            true => Ok(channel),
            false => Err(AnswerError::Channel(channel)),
        }
    };
    let channels = |list: Option<Vec<Cow<'_, str>>>, name| -> Result<Vec<Channel>, AnswerError> {
        let list = short(list, name)?;
        list.iter().map(|name| channel(name)).collect()
    };
    Ok(Answer {
        allow,
        reply: (short(written.reply, "reply")?.iter())
            .map(|value| value.get().into())
            .collect(),
        publish: (short(written.publish, "publish")?.iter())
            .map(|one| Ok((channel(&one.channel)?, one.data.get().into())))
            .collect::<Result<_, _>>()?,
        join: channels(written.join, "join")?,
        leave: channels(written.leave, "leave")?,
        close: written.close.map(close).transpose()?,
    })
}

/// The parser's own words quote what it has found, which may be a secret, and this is logged.
fn misread(error: serde_json::Error) -> AnswerError {
    let what = match error.classify() {
        Category::Data => "JSON, but not of the fields and types of an answer",
        Category::Syntax | Category::Eof | Category::Io => "not JSON",
    };
    let (line, column) = (error.line(), error.column());
    AnswerError::Json(format!("{what}: line {line}, column {column}").into())
}

fn short<T>(list: Option<Vec<T>>, name: &'static str) -> Result<Vec<T>, AnswerError> {
    let list = list.unwrap_or_default();
    match list.len() <= LIST_MAX {
        true => Ok(list),
        false => Err(AnswerError::List(name)),
    }
}

fn close(written: Close<'_>) -> Result<(CloseCode, Box<str>), AnswerError> {
    if !matches!(written.code, 1000 | 1008 | 1011..=1013 | 3000..=4999) {
        return Err(AnswerError::CloseCode(written.code));
    }
    let reason = written.reason.unwrap_or_default();
    if reason.len() > REASON_BYTES_MAX {
        return Err(AnswerError::CloseReason);
    }
    Ok((CloseCode::from(written.code), reason.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_own(channel: &Channel) -> bool {
        channel.as_str().starts_with("project_")
    }

    fn answer(text: &str) -> Result<Answer, AnswerError> {
        read(Event::Message, text.as_bytes(), &is_own)
    }

    fn channel(name: &str) -> Channel {
        Channel::new(name).unwrap()
    }

    #[test]
    fn an_answer_may_do_everything_within_the_route() {
        let text = r#" {"reply":[{"type" : "a"},"b",1],
            "publish":[{"channel":"project_7","data":{"x":"\ud800"}}],
            "join":["project_7"],"leave":["project_8"],
            "close":{"code":4000,"reason":"bye"}}
        "#;
        let expected = Answer {
            allow: false,
            reply: vec![r#"{"type" : "a"}"#.into(), r#""b""#.into(), "1".into()],
            publish: vec![(channel("project_7"), r#"{"x":"\ud800"}"#.into())],
            join: vec![channel("project_7")],
            leave: vec![channel("project_8")],
            close: Some((CloseCode::from(4000), "bye".into())),
        };
        assert_eq!(answer(text), Ok(expected));
        for nothing in ["", " \n", "{}", r#"{"reply":null,"close":null,"join":[]}"#] {
            assert_eq!(answer(nothing), Ok(Answer::default()), "{nothing:?}");
        }
    }

    #[test]
    fn only_an_authorise_call_is_answered_with_allow() {
        let read = |event, text: &str| read(event, text.as_bytes(), &is_own).map(|a| a.allow);
        assert_eq!(read(Event::Authorise, r#"{"allow":true}"#), Ok(true));
        assert_eq!(read(Event::Authorise, r#"{"allow":false}"#), Ok(false));
        assert_eq!(read(Event::Authorise, ""), Err(AnswerError::Allow));
        assert_eq!(read(Event::Authorise, "{}"), Err(AnswerError::Allow));
        assert_eq!(
            read(Event::Authorise, r#"{"allow":null}"#),
            Err(AnswerError::Allow)
        );
        for event in [Event::Open, Event::Message, Event::Close] {
            assert_eq!(read(event, r#"{"allow":true}"#), Err(AnswerError::Allow));
        }
        for odd in [r#"{"allow":1}"#, r#"{"allow":"true"}"#] {
            assert!(matches!(
                read(Event::Authorise, odd),
                Err(AnswerError::Json(_))
            ));
        }
    }

    #[test]
    fn g6_hostile_answers_are_errors() {
        let json = |text: &str| matches!(answer(text), Err(AnswerError::Json(_)));
        for text in [
            "[]",
            "1",
            "null",
            "<html>",
            "{",
            r#"{"reply":{}}"#,
            r#"{"reply":"x"}"#,
            r#"{"replies":[]}"#,
            r#"{"reply":[],"reply":[]}"#,
            r#"{"reply":[01]}"#,
            r#"{"publish":[{"channel":"project_7"}]}"#,
            r#"{"publish":[{"channel":7,"data":1}]}"#,
            r#"{"publish":[{"channel":"project_7","data":1,"user":"x"}]}"#,
            r#"{"join":"project_7"}"#,
            r#"{"close":4000}"#,
            r#"{"close":{"code":-1}}"#,
            r#"{"close":{"code":65536}}"#,
            r#"{"close":{"reason":"no code"}}"#,
        ] {
            assert!(json(text), "{text}");
        }
        let not_utf8 = read(Event::Open, b"{\"reply\":[\"\xff\"]}", &is_own);
        assert!(matches!(not_utf8, Err(AnswerError::Json(_))));
        for (text, expected) in [
            (
                r#"{"publish":[{"channel":"notifications_all","data":1}]}"#,
                AnswerError::Channel(channel("notifications_all")),
            ),
            (
                r#"{"join":["project_7","other"]}"#,
                AnswerError::Channel(channel("other")),
            ),
            (
                r#"{"leave":["other"]}"#,
                AnswerError::Channel(channel("other")),
            ),
            (
                r#"{"join":[""]}"#,
                AnswerError::Name(Channel::new("").unwrap_err()),
            ),
            (
                r#"{"join":["project_*"]}"#,
                AnswerError::Name(Channel::new("*").unwrap_err()),
            ),
        ] {
            assert_eq!(answer(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn g6_lists_codes_reasons_and_depth_are_bounded() {
        for (count, is_taken) in [
            (LIST_MAX - 1, true),
            (LIST_MAX, true),
            (LIST_MAX + 1, false),
        ] {
            let list = |one: &str| vec![one; count].join(",");
            for (name, one) in [
                ("reply", "1"),
                ("publish", r#"{"channel":"project_7","data":1}"#),
                ("join", r#""project_7""#),
                ("leave", r#""project_7""#),
            ] {
                let text = format!(r#"{{"{name}":[{}]}}"#, list(one));
                assert_eq!(answer(&text).is_ok(), is_taken, "{count} {name}");
            }
        }
        for code in 0..=u16::MAX {
            let text = format!(r#"{{"close":{{"code":{code}}}}}"#);
            let may = matches!(code, 1000 | 1008 | 1011 | 1012 | 1013 | 3000..=4999);
            assert_eq!(answer(&text).is_ok(), may, "{code}");
        }
        for (length, is_taken) in [(122, true), (123, true), (124, false)] {
            let reason = "r".repeat(length);
            let text = format!(r#"{{"close":{{"code":1000,"reason":"{reason}"}}}}"#);
            assert_eq!(answer(&text).is_ok(), is_taken, "{length}");
        }
        // Two of the levels are the answer's own.
        for (depth, is_taken) in [
            (DEPTH_MAX - 2, true),
            (DEPTH_MAX - 1, false),
            (30_000, false),
        ] {
            let nested = "[".repeat(depth) + &"]".repeat(depth);
            let text = format!(r#"{{"reply":[{nested}]}}"#);
            assert_eq!(answer(&text).is_ok(), is_taken, "{depth}");
        }
    }

    proptest! {
        /// Whatever comes is an answer or an error.
        #[test]
        fn g6_no_answer_panics(body in any::<Vec<u8>>(), text in "[{}\\[\\],:\"a-z0-9\\\\]{0,64}") {
            let _ = read(Event::Open, &body, &is_own);
            let _ = read(Event::Authorise, text.as_bytes(), &is_own);
        }
    }
}
