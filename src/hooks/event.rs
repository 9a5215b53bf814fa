//! What a backend is asked about, as JSON.
//!
//! ```json
//! {"event":"message","id":"68a0c3…-17","timestamp":1800000000,"connection":"0100000000000002",
//!  "route":"/ws/projects/{project_id}/","parameters":{"project_id":"7"},"address":"203.0.113.9",
//!  "user":"42","claims":{"role":"Admin"},"data":{"action":"get_status"}}
//! ```
//!
//! `data` is a client's message where it is JSON; one that is not stands as text in `text`, and a binary
//! one as base64 in `binary`. A close has `reason`. What clients chose is serialised, never pasted (G5).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::admission::claim::{ClaimValue, Claims, Scalar};
use crate::json;
use crate::metrics::hook::HOOK_EVENTS;
use crate::ws::Message;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Somebody has come, and waits to be let in.
    Authorise,
    /// Somebody has been let in.
    Open,
    /// A message of a client has come.
    Message,
    /// A connection has ended that had been let in.
    Close,
}

impl Event {
    /// All of them, in the order of [`Event::index`].
    pub const ALL: [Self; 4] = [Self::Authorise, Self::Open, Self::Message, Self::Close];

    /// The event's name, in requests and as a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        HOOK_EVENTS[self.index()]
    }

    /// The event's place in [`Event::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What is said of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The call's id: the same for each attempt at it.
    pub id: &'a str,
    /// When it happened, in seconds since 1970.
    pub timestamp: u64,
    /// The connection.
    pub connection: crate::conn::ConnectionId,
    /// The route's path, as the configuration writes it.
    pub route: &'a str,
    /// What the path captured, by name.
    pub parameters: &'a [(&'a str, &'a str)],
    /// The client's address.
    pub address: std::net::IpAddr,
    /// The user of the token.
    pub user: Option<&'a str>,
    /// What is kept of the token.
    pub claims: Option<&'a Claims>,
}

/// What is said of an event beside the connection.
#[derive(Clone, Copy, Debug)]
pub enum Detail<'a> {
    /// Nothing.
    None,
    /// What the client has sent.
    Message(&'a Message<'a>),
    /// Why the connection ended, as the metric `tidegate_connections_closed` says it.
    Close(&'a str),
}

/// Writes the request's body.
#[must_use]
pub fn write(event: Event, facts: &Facts<'_>, detail: &Detail<'_>) -> Vec<u8> {
    let mut body = Body {
        event: event.name(),
        id: facts.id,
        timestamp: facts.timestamp,
        connection: facts.connection.to_string(),
        route: facts.route,
        parameters: Pairs(facts.parameters),
        address: facts.address.to_string(),
        user: facts.user,
        claims: Kept(facts.claims),
        data: None,
        text: None,
        binary: None,
        reason: None,
    };
    match detail {
        Detail::None => {}
        Detail::Message(Message::Text(text)) => match serde_json::from_str(text) {
            Ok(data) if !json::is_deeper_than(text, DEPTH_MAX) => body.data = Some(data),
            _ => body.text = Some(text),
        },
        Detail::Message(Message::Binary(bytes)) => body.binary = Some(STANDARD.encode(bytes)),
        Detail::Close(reason) => body.reason = Some(reason),
    }
    // Every part has a form in JSON, and writing to memory cannot fail.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// Deepest nesting of a client's JSON that is handed on as JSON: a backend's parser may be recursive.
/// Deeper ones are handed on as text.
pub const DEPTH_MAX: usize = 32;

#[derive(Serialize)]
struct Body<'a> {
    event: &'static str,
    id: &'a str,
    timestamp: u64,
    connection: String,
    route: &'a str,
    parameters: Pairs<'a>,
    address: String,
    user: Option<&'a str>,
    claims: Kept<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

struct Pairs<'a>(&'a [(&'a str, &'a str)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// Claims by name; of a nested one, the names with dots between.
struct Kept<'a>(Option<&'a Claims>);

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (path, value) in self.0.into_iter().flat_map(Claims::iter) {
            let name: Vec<&str> = path.names().collect();
            match value {
                ClaimValue::One(scalar) => map.serialize_entry(&name.join("."), &One(scalar))?,
                ClaimValue::Many(list) => {
                    let list: Vec<_> = list.iter().map(One).collect();
                    map.serialize_entry(&name.join("."), &list)?;
                }
            }
        }
        map.end()
    }
}

struct One<'a>(&'a Scalar);

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Scalar::Text(text) => serializer.serialize_str(text),
            Scalar::Integer(number) => serializer.serialize_i64(*number),
            Scalar::Bool(truth) => serializer.serialize_bool(*truth),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::admission::claim::ClaimPath;
    use crate::conn::ConnectionId;

    fn facts<'a>(parameters: &'a [(&'a str, &'a str)], claims: Option<&'a Claims>) -> Facts<'a> {
        Facts {
            id: "a-1",
            timestamp: 1_800_000_000,
            connection: ConnectionId::new(1, 0, 2),
            route: "/ws/projects/{project_id}/",
            parameters,
            address: "203.0.113.9".parse().unwrap(),
            user: Some("42"),
            claims,
        }
    }

    fn read(event: Event, facts: &Facts<'_>, detail: &Detail<'_>) -> Value {
        serde_json::from_slice(&write(event, facts, detail)).unwrap()
    }

    #[test]
    fn a_request_says_who_where_and_what() {
        let nested = ClaimPath::new(["realm", "roles"]).unwrap();
        let paths: Arc<[ClaimPath]> = Arc::new([
            ClaimPath::top_level("role"),
            nested,
            ClaimPath::top_level("absent"),
        ]);
        let claims = Claims::new(&paths, |path| match path.first() {
            "role" => Some(ClaimValue::One(Scalar::Text("Admin".into()))),
            "realm" => Some(ClaimValue::Many(
                vec![Scalar::Integer(7), Scalar::Bool(true)].into(),
            )),
            _ => None,
        });
        let message = Message::from(r#"{"action" : "get_status"}"#);
        let text = write(
            Event::Message,
            &facts(&[("project_id", "7")], Some(&claims)),
            &Detail::Message(&message),
        );
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"{"event":"message","id":"a-1","timestamp":1800000000,"connection":"0100000000000002","#
                .to_owned()
                + r#""route":"/ws/projects/{project_id}/","parameters":{"project_id":"7"},"#
                + r#""address":"203.0.113.9","user":"42","#
                + r#""claims":{"role":"Admin","realm.roles":[7,true]},"#
                + r#""data":{"action" : "get_status"}}"#
        );
        let close = Detail::Close("peer_closed");
        let value = read(Event::Close, &facts(&[], None), &close);
        assert_eq!(value["reason"], "peer_closed");
        assert_eq!(value["claims"], serde_json::json!({}));
        assert!(value.get("data").is_none());
    }

    #[test]
    fn g5_what_a_client_wrote_stays_where_it_belongs() {
        for text in [
            r#"","event":"open"#,
            r#"{"a":1},"user":"root""#,
            r#"{"a":1}}"#,
            "\u{2028}\u{0}",
            "not JSON",
            "",
        ] {
            let message = Message::from(text);
            let value = read(
                Event::Message,
                &facts(&[], None),
                &Detail::Message(&message),
            );
            assert_eq!(value["text"], text);
            assert_eq!(
                (&value["event"], &value["user"]),
                (&"message".into(), &"42".into())
            );
            assert!(value.get("data").is_none(), "{text}");
        }
        let message = Message::from(vec![0_u8, 255]);
        let value = read(
            Event::Message,
            &facts(&[], None),
            &Detail::Message(&message),
        );
        assert_eq!(value["binary"], "AP8=");
    }

    #[test]
    fn json_that_is_too_deep_is_handed_on_as_text() {
        for (depth, is_data) in [(DEPTH_MAX, true), (DEPTH_MAX + 1, false), (60_000, false)] {
            let text = "[".repeat(depth) + &"]".repeat(depth);
            let message = Message::from(&*text);
            let body = write(
                Event::Message,
                &facts(&[], None),
                &Detail::Message(&message),
            );
            let body = String::from_utf8(body).unwrap();
            assert_eq!(body.contains(r#""data":["#), is_data, "{depth}");
            assert_eq!(body.contains(r#""text":"["#), !is_data, "{depth}");
        }
    }

    proptest! {
        #[test]
        fn g5_any_text_comes_back_as_it_was(text in any::<String>(), name in any::<String>()) {
            let parameters = [("room", &*name)];
            let message = Message::from(&*text);
            let value = read(Event::Message, &facts(&parameters, None), &Detail::Message(&message));
            let found = match value.get("text") {
                Some(found) => found.as_str().unwrap().to_owned(),
                None => {
                    let parsed: Value = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(&value["data"], &parsed);
                    text.clone()
                }
            };
            prop_assert_eq!(found, text);
            prop_assert_eq!(value["parameters"]["room"].as_str(), Some(&*name));
        }
    }
}
