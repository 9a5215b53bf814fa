//! What of a client's messages reaches the other members of a channel, and in which form.
//!
//! A message is a JSON object. Each [`Relay`] has a rule over its fields; the first one whose rule holds
//! takes it. The fields are passed on as they were written, but for renames, and for those that the
//! server writes itself, which win over the client's own of the same name (G5).
//!
//! Texts that are no JSON object, binary messages, and objects that are too deep, have too many fields,
//! or hold half of a surrogate pair (which strict readers refuse) are nobody's.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::admission::claim::{ClaimPath, ClaimValue, Claims, Scalar};
use crate::admission::rule::Rule;
use crate::json;

use super::channels::LIST_VALUES_MAX;
use super::pattern::Facts;
use super::stamp::{Scene, Stamp};

/// Deepest nesting of a message, its own object counted.
pub const DEPTH_MAX: usize = 8;

/// Most fields of a message.
pub const FIELDS_MAX: usize = 64;

/// A client's message: the top fields of an object, in their order, each once.
#[derive(Debug)]
pub struct Fields<'m> {
    fields: SmallVec<[(Cow<'m, str>, &'m RawValue); 8]>,
}

impl<'m> Fields<'m> {
    /// Takes a message apart; `None` if it is none that can be relayed. Of a name that stands twice the
    /// last value counts, as in a browser. Linear, but for the names, which are few.
    #[must_use]
    pub fn parse(text: &'m str) -> Option<Self> {
        // Nothing else can be one, so most of what is not meant for anybody costs one look.
        if !text.trim_start().starts_with('{') || json::is_deeper_than(text, DEPTH_MAX) {
            return None;
        }
        let fields: Self = serde_json::from_str(text).ok()?;
        // A surrogate in a value has been passed over so far.
        let has_surrogate = ["\\ud", "\\uD"]
            .iter()
            .any(|escape| memchr::memmem::find(text.as_bytes(), escape.as_bytes()).is_some());
        if has_surrogate && serde_json::from_str::<serde_json::Value>(text).is_err() {
            return None;
        }
        Some(fields)
    }

    /// The value of a field, as it was written.
    fn get(&self, name: &str) -> Option<&'m RawValue> {
        (self.fields.iter())
            .find(|(own, _)| own == name)
            .map(|(_, value)| *value)
    }

    /// The value that a path leads to, if a rule can look at it.
    fn value_at(&self, path: &ClaimPath) -> Option<ClaimValue> {
        let raw = self.get(path.first())?.get();
        let mut rest = path.names().skip(1).peekable();
        if rest.peek().is_none() {
            return kept(&serde_json::from_str(raw).ok()?);
        }
        let value: serde_json::Value = serde_json::from_str(raw).ok()?;
        let inner = rest.try_fold(&value, |value, name| value.get(name))?;
        kept(inner)
    }
}

/// A value as rules know it.
fn kept(value: &serde_json::Value) -> Option<ClaimValue> {
    use serde_json::Value;
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(Scalar::Text(text.as_str().into())),
        Value::Number(number) => number.as_i64().map(Scalar::Integer),
        Value::Bool(value) => Some(Scalar::Bool(*value)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    match value {
        Value::Array(list) if list.len() <= LIST_VALUES_MAX => {
            Some(ClaimValue::Many(list.iter().filter_map(scalar).collect()))
        }
        value => scalar(value).map(ClaimValue::One),
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields: SmallVec<[(Cow<'de, str>, &'de RawValue); 8]> = SmallVec::new();
                while let Some(Name(name)) = map.next_key()? {
                    let value = map.next_value()?;
                    if let Some(known) = fields.iter_mut().find(|(own, _)| *own == name) {
                        known.1 = value;
                    } else if fields.len() == FIELDS_MAX {
                        return Err(A::Error::custom("too many fields"));
                    } else {
                        fields.push((name, value));
                    }
                }
                Ok(Fields { fields })
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A field's name: borrowed, unless it holds an escape.
#[derive(serde::Deserialize)]
struct Name<'m>(#[serde(borrow)] Cow<'m, str>);

/// Which messages are relayed, and how they are changed. To whom is for the owner of the list to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// What a message has to say. Names are its fields; names behind `claims.` are claims of the
    /// sender's token; names in braces are captures of the path.
    pub when: Rule,
    /// Fields that get another name: from, to.
    pub renames: Vec<(Box<str>, Box<str>)>,
    /// Fields that the server writes.
    pub stamps: Vec<Stamp>,
    /// The field in which the client's own fields are put together; `None`: they stand beside the
    /// server's.
    pub wrap: Option<Box<str>>,
    /// Whether the sender gets the message too.
    pub echo: bool,
}

impl Relay {
    /// Appends the message as the members get it.
    pub fn write(&self, fields: &Fields<'_>, scene: Scene<'_>, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut has_fields = false;
        if let Some(wrap) = &self.wrap {
            has_fields = self.write_stamps(scene, has_fields, out);
            let is_taken = self.stamps.iter().any(|stamp| *stamp.name() == **wrap);
            if !is_taken {
                if has_fields {
                    out.push(b',');
                }
                json::write_text(out, wrap);
                out.extend_from_slice(b":{");
                self.write_fields(fields, &[], out);
                out.push(b'}');
            }
        } else {
            has_fields = self.write_fields(fields, &self.stamps, out);
            self.write_stamps(scene, has_fields, out);
        }
        out.push(b'}');
    }

    fn write_stamps(&self, scene: Scene<'_>, mut has_fields: bool, out: &mut Vec<u8>) -> bool {
        for stamp in &self.stamps {
            has_fields = stamp.write(scene, has_fields, out);
        }
        has_fields
    }

    /// Writes the client's own fields, but for those that `stamps` are to write, and those in whose
    /// place a renamed one stands.
    fn write_fields(&self, fields: &Fields<'_>, stamps: &[Stamp], out: &mut Vec<u8>) -> bool {
        let mut has_fields = false;
        for (own, value) in &fields.fields {
            let renamed = self.renames.iter().find(|(from, _)| **from == **own);
            let name = renamed.map_or(&**own, |(_, to)| to);
            let is_hidden = renamed.is_none()
                && (self.renames.iter())
                    .any(|(from, to)| **to == **own && fields.get(from).is_some());
            if is_hidden || stamps.iter().any(|stamp| stamp.name() == name) {
                continue;
            }
            if has_fields {
                out.push(b',');
            }
            has_fields = true;
            json::write_text(out, name);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        has_fields
    }
}

/// The relays of a route, in their order.
#[derive(Clone, Debug)]
pub struct Relays {
    list: Box<[Relay]>,
    /// What their rules look at.
    paths: Arc<[ClaimPath]>,
}

impl Relays {
    /// A list of relays.
    #[must_use]
    pub fn new(list: Vec<Relay>) -> Self {
        let mut paths: Vec<ClaimPath> = Vec::new();
        for path in list.iter().flat_map(|relay| relay.when.claims()) {
            if !paths.contains(path) {
                paths.push(path.clone());
            }
        }
        Self {
            list: list.into(),
            paths: paths.into(),
        }
    }

    /// The relays.
    #[must_use]
    pub const fn list(&self) -> &[Relay] {
        &self.list
    }

    /// The first relay whose rule holds for a message of somebody of whom this is known.
    #[must_use]
    pub fn choose(&self, fields: &Fields<'_>, facts: &dyn Facts) -> Option<usize> {
        let said = Claims::new(&self.paths, |path| match claim_of(path) {
            Some(claim) => facts.claim(&claim).cloned(),
            None => fields.value_at(path),
        });
        let capture = |name: &str| facts.capture(name);
        (self.list.iter()).position(|relay| relay.when.allows(&said, &capture))
    }
}

/// The claim of a token that a path in a relay's rule means, rather than a field of the message.
#[must_use]
pub fn claim_of(path: &ClaimPath) -> Option<ClaimPath> {
    let mut names = path.names();
    (names.next() == Some("claims"))
        .then(|| ClaimPath::new(names))
        .flatten()
}

#[cfg(test)]
mod tests;
