//! The words for who comes and goes: what is known of a member is written down when it joins, and put
//! behind the type of each announcement.
//!
//! | type | is said of |
//! | --- | --- |
//! | `user_joined`, `user_left` | one member: the fields that the route announces |
//! | `members_changed` | many at once, when they storm: how many `joined` and `left`, and how many `members` there are |

use std::fmt;
use std::sync::Arc;

use crate::admission::claim::{ClaimPath, ClaimValue};
use crate::hub::command::Present;
use crate::hub::{Announcement, Announcer};
use crate::metrics::calendar;

use super::pattern::Facts;
use super::stamp::{self, Scene, Stamp};

/// What a route announces.
#[derive(Clone)]
pub struct Announced {
    /// Fields of a member that stay as they are.
    kept: Box<[Stamp]>,
    words: Arc<Words>,
}

/// Finds the words.
struct Words {
    /// Fields that say when.
    timed: Box<[Stamp]>,
}

impl Announced {
    /// These fields. Of those that say when, only the user and the connection are known beside it.
    #[must_use]
    pub fn new(fields: Vec<Stamp>) -> Self {
        let fields = fields.into_iter().filter(|field| field.name() != "type");
        let (timed, kept): (Vec<_>, Vec<_>) = fields.partition(|f| f.value().asks_for_time());
        Self {
            kept: kept.into(),
            words: Arc::new(Words {
                timed: timed.into(),
            }),
        }
    }

    /// What is to be kept of a member: an object.
    #[must_use]
    pub fn info(&self, scene: Scene<'_>) -> Arc<str> {
        stamp::object(&self.kept, scene).into()
    }

    /// Who finds the words.
    #[must_use]
    pub fn announcer(&self) -> Arc<dyn Announcer> {
        Arc::clone(&self.words) as Arc<dyn Announcer>
    }
}

impl fmt::Debug for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announced")
            .field("kept", &self.kept)
            .field("timed", &self.words.timed)
            .finish()
    }
}

impl Announcer for Words {
    fn announce(&self, event: &Announcement<'_>) -> Option<String> {
        let (kind, member, wall) = match *event {
            Announcement::Joined(member, wall) => ("user_joined", member, wall),
            Announcement::Left(member, wall) => ("user_left", member, wall),
            Announcement::Many {
                joined,
                left,
                clients,
                wall,
            } => {
                let time = calendar::timestamp(wall);
                return Some(format!(
                    r#"{{"type":"members_changed","joined":{joined},"left":{left},"members":{clients},"timestamp":"{time}"}}"#
                ));
            }
        };
        // Who came by a route that announces nobody has brought no fields, and is not announced.
        let fields = member.info.as_deref()?;
        let fields = fields.strip_prefix('{')?.strip_suffix('}')?;
        let comma = if fields.is_empty() { "" } else { "," };
        let mut out = format!(r#"{{"type":"{kind}"{comma}{fields}"#).into_bytes();
        let scene = Scene {
            facts: &Known(member),
            connection: member.client,
            time: &calendar::timestamp(wall),
        };
        for stamp in &self.timed {
            stamp.write(scene, true, &mut out);
        }
        out.push(b'}');
        String::from_utf8(out).ok()
    }
}

/// What is known of a member where it is announced.
struct Known<'m>(&'m Present);

impl Facts for Known<'_> {
    fn user(&self) -> Option<&str> {
        Some(&*self.0.user).filter(|user| !user.is_empty())
    }

    fn claim(&self, _path: &ClaimPath) -> Option<&ClaimValue> {
        None
    }

    fn capture(&self, _name: &str) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::channels::tests::Somebody;
    use super::*;
    use crate::conn::ConnectionId;

    fn announced(fields: &[(&str, &str)]) -> Announced {
        let stamps = fields.iter().map(|(name, value)| Stamp::new(name, value));
        Announced::new(stamps.map(Result::unwrap).collect())
    }

    fn member(announced: &Announced, user: &str) -> Present {
        let client = ConnectionId::new(0, 1, 2);
        let who = Somebody {
            user: Some(user.into()),
            ..Somebody::default()
        };
        let scene = Scene {
            facts: &who,
            connection: client,
            time: "never",
        };
        Present {
            client,
            user: user.into(),
            info: Some(announced.info(scene)),
            since: 0,
        }
    }

    fn said(announced: &Announced, event: &Announcement<'_>) -> Option<Value> {
        let text = announced.announcer().announce(event)?;
        Some(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn g5_comings_and_goings_are_told_with_fields_that_nobody_breaks_out_of() {
        let hostile = "a\",\"type\":\"admin\",\"x\":\"{}";
        let fields = [
            ("user", "{user}"),
            ("type", "forged"),
            ("timestamp", "{time}"),
            ("line", "{user} at {time}"),
            ("name", "{claims.name?}"),
        ];
        let announced = announced(&fields);
        let member = member(&announced, hostile);
        let time = "2025-11-10T12:00:00Z";
        let line = format!("{hostile} at {time}");
        let expected =
            |kind| json!({"type": kind, "user": hostile, "timestamp": time, "line": line});
        let joined = said(&announced, &Announcement::Joined(&member, 1_762_776_000));
        assert_eq!(joined, Some(expected("user_joined")));
        let left = said(&announced, &Announcement::Left(&member, 1_762_776_000));
        assert_eq!(left, Some(expected("user_left")));
    }

    #[test]
    fn many_are_told_by_their_number_and_who_brings_no_fields_is_not_told() {
        let announced = announced(&[]);
        let many = Announcement::Many {
            joined: 40,
            left: 2,
            clients: 39,
            wall: 0,
        };
        let expected = json!({
            "type": "members_changed", "joined": 40, "left": 2, "members": 39,
            "timestamp": "1970-01-01T00:00:00Z",
        });
        assert_eq!(said(&announced, &many), Some(expected));
        let mut member = member(&announced, "1");
        let joined = said(&announced, &Announcement::Joined(&member, 0));
        assert_eq!(joined, Some(json!({"type": "user_joined"})));
        member.info = None;
        assert_eq!(said(&announced, &Announcement::Joined(&member, 0)), None);
    }
}
