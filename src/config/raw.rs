//! What the sources say, before anyone judges it: the file's values with their places, the
//! environment's and the flags' words, all under the key they set.
//!
//! Decides which keys exist and which TOML value stands where; leaves types, ranges and precedence
//! to [`Setting`](super::setting::Setting). Values that a higher source overrides are kept, so that
//! a mistake in the file is reported even where a flag hides it today.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem, Source, nearest, shown};
use super::setting::{HIDDEN, Setting};
use super::{File, Flags, Sources};

/// A value as written. `Display` is TOML, cut to a readable length.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// From the environment or a flag, where everything is a word.
    Word(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer; `None` where it is negative or needs more than 64 bits.
    Integer(Option<u64>, String),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML array.
    Array(Vec<Item>),
    /// A TOML table.
    Table(Vec<(String, Item)>),
    /// A TOML value that no key takes: a float or a date.
    Other(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(&shown(word)),
            Self::Text(text) => write!(f, "\"{}\"", shown(text)),
            Self::Integer(_, written) | Self::Other(written) => f.write_str(&shown(written)),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Array(items) => write!(f, "[{} items]", items.len()),
            Self::Table(_) => f.write_str("{ a table }"),
        }
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) value: Value,
    pub(super) source: Source,
}

/// All values given for all keys.
#[derive(Debug, Default)]
pub(super) struct RawConfig {
    /// In rising order of precedence: file, environment, flags.
    entries: Vec<(&'static str, Item)>,
    /// Unknown keys, and what is not TOML.
    pub(super) errors: Vec<ConfigError>,
    /// Whether the file could not be read to its end, so that what it meant is unknown.
    pub(super) is_partial: bool,
}

impl RawConfig {
    /// Collects what `sources` say about the keys of `settings`.
    pub(super) fn gather(sources: &Sources<'_>, settings: &[Setting<'_>]) -> Self {
        let mut raw = Self::default();
        let known: Vec<_> = settings.iter().map(|setting| setting.key).collect();
        if let Some(file) = &sources.file {
            raw.read_file(file, &known);
        }
        let in_environment = settings.iter().filter(|setting| setting.has_variable());
        let in_environment: Vec<_> = in_environment.map(|setting| setting.key).collect();
        raw.read_environment(&sources.environment, &in_environment);
        raw.read_flags(&sources.flags);
        raw
    }

    /// The values given for `key`; the last one counts.
    pub(super) fn of(&self, key: &str) -> impl Iterator<Item = &Item> {
        self.entries
            .iter()
            .filter(move |(name, _)| *name == key)
            .map(|(_, item)| item)
    }

    fn read_file(&mut self, file: &File<'_>, known: &[&'static str]) {
        let places = Places {
            path: file.path.into(),
            text: file.text,
        };
        let (document, errors) = DeTable::parse_recoverable(file.text);
        if !errors.is_empty() {
            self.is_partial = true;
            let end = file.text.len();
            self.errors.extend(errors.iter().map(|error| ConfigError {
                source: places.at(&error.span().unwrap_or(end..end)),
                key: String::new(),
                problem: Problem::Syntax {
                    detail: error.message().to_owned(),
                },
            }));
            // What recovery made of the rest is a guess; judging guesses would bury the cause.
            return;
        }
        self.read_table("", document.get_ref(), &places, known);
    }

    fn read_table(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        places: &Places<'_>,
        known: &[&'static str],
    ) {
        for (name, value) in table {
            let key = join(prefix, name.get_ref());
            if let Some(key) = known.iter().find(|known| **known == key) {
                self.entries.push((key, places.item(value)));
                continue;
            }
            let is_section = known.iter().any(|known| {
                known
                    .strip_prefix(key.as_str())
                    .is_some_and(|rest| rest.starts_with('.'))
            });
            match value.get_ref() {
                // An unknown section is entered too, so that each of its keys gets its own hint.
                DeValue::Table(inner) if is_section || !inner.is_empty() => {
                    self.read_table(&key, inner, places, known);
                }
                found if is_section => self.errors.push(ConfigError {
                    source: places.at(&value.span()),
                    problem: Problem::BadValue {
                        // `token = "…"` may well be a secret in the wrong place.
                        found: if key == "token" {
                            HIDDEN.to_owned()
                        } else {
                            places.value(found, &value.span()).to_string()
                        },
                        why: "this is a section, not a key".to_owned(),
                        accepted: "a table".to_owned(),
                        fix: Some(format!("write [{key}] on a line of its own")),
                    },
                    key,
                }),
                found => {
                    let nearest = if matches!(found, DeValue::Table(_)) {
                        let sections = known.iter().filter_map(|known| known.split_once('.'));
                        format!("[{}]", nearest(&key, sections.map(|(section, _)| section)))
                    } else {
                        nearest(&key, known.iter().copied()).to_owned()
                    };
                    self.errors.push(ConfigError {
                        source: places.at(&name.span()),
                        problem: Problem::UnknownKey { nearest },
                        key,
                    });
                }
            }
        }
    }

    fn read_environment(&mut self, pairs: &[(String, String)], known: &[&'static str]) {
        for (name, value) in pairs {
            if !name.starts_with(ENVIRONMENT_PREFIX)
                || PROGRAM_VARIABLES.contains(&name.as_str())
                || is_service_link(name)
            {
                continue;
            }
            let source = Source::Environment(name.clone());
            if let Some(key) = known.iter().find(|key| environment_name(key) == *name) {
                self.entries.push((
                    key,
                    Item {
                        value: Value::Word(value.clone()),
                        source,
                    },
                ));
            } else {
                let names: Vec<String> = known.iter().map(|key| environment_name(key)).collect();
                let nearest = nearest(name, names.iter().map(String::as_str)).to_owned();
                let problem = Problem::UnknownKey { nearest };
                self.errors.push(ConfigError {
                    source,
                    key: name.clone(),
                    problem,
                });
            }
        }
    }

    fn read_flags(&mut self, flags: &Flags) {
        let word = |text: &str, flag| Item {
            value: Value::Word(text.to_owned()),
            source: Source::Flag(flag),
        };
        let table = |pairs: Vec<(&str, Item)>, flag| Item {
            value: Value::Table(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            source: Source::Flag(flag),
        };
        if let Some(profile) = &flags.profile {
            self.entries.push(("profile", word(profile, "--profile")));
        }
        if let Some(reactors) = &flags.reactors {
            self.entries
                .push(("reactors", word(reactors, "--reactors")));
        }

        let listener = |address: &String, tls, flag| {
            let tls = Item {
                value: Value::Boolean(tls),
                source: Source::Flag(flag),
            };
            table(vec![("address", word(address, flag)), ("tls", tls)], flag)
        };
        let plain = flags
            .listen
            .iter()
            .map(|address| listener(address, false, "--listen"));
        let tls = flags
            .listen_tls
            .iter()
            .map(|address| listener(address, true, "--listen-tls"));
        let listeners: Vec<Item> = plain.chain(tls).collect();
        if let Some(first) = listeners.first() {
            let source = first.source.clone();
            self.entries.push((
                "listen",
                Item {
                    value: Value::Array(listeners),
                    source,
                },
            ));
        }

        let (certificates, keys) = (flags.tls_cert.len(), flags.tls_key.len());
        if certificates != keys {
            self.errors.push(ConfigError {
                source: Source::Flag("--tls-cert"),
                key: "tls.certificates".to_owned(),
                problem: Problem::Conflict {
                    found: format!("{certificates} certificates and {keys} keys"),
                    why: "give one --tls-key for each --tls-cert, in the same order".to_owned(),
                },
            });
        } else if certificates > 0 {
            let pairs = flags
                .tls_cert
                .iter()
                .zip(&flags.tls_key)
                .map(|(certificate, key)| {
                    let certificate = word(certificate, "--tls-cert");
                    table(
                        vec![
                            ("certificate", certificate),
                            ("key", word(key, "--tls-key")),
                        ],
                        "--tls-cert",
                    )
                });
            let value = Value::Array(pairs.collect());
            let source = Source::Flag("--tls-cert");
            self.entries
                .push(("tls.certificates", Item { value, source }));
        }
    }
}

/// The environment variable that sets `key`: `TIDEGATE_SECTION_KEY`.
pub(super) fn environment_name(key: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        key.replace('.', "_").to_uppercase()
    )
}

/// Turns byte offsets of the file into lines and columns.
struct Places<'a> {
    path: Arc<str>,
    text: &'a str,
}

impl Places<'_> {
    /// O(length of the file): used for the few values a file has, and for errors.
    fn at(&self, span: &Range<usize>) -> Source {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Source::File {
            path: Arc::clone(&self.path),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn item(&self, value: &Spanned<DeValue<'_>>) -> Item {
        let span = value.span();
        Item {
            value: self.value(value.get_ref(), &span),
            source: self.at(&span),
        }
    }

    fn value(&self, value: &DeValue<'_>, span: &Range<usize>) -> Value {
        let written = || self.text.get(span.clone()).unwrap_or_default().to_owned();
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
                Value::Integer(parsed, written())
            }
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Float(_) | DeValue::Datetime(_) => Value::Other(written()),
            DeValue::Array(items) => Value::Array(items.iter().map(|i| self.item(i)).collect()),
            DeValue::Table(table) => {
                let pair = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, _)| {
                    (key.get_ref().to_string(), self.item(value))
                };
                Value::Table(table.iter().map(pair).collect())
            }
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}

/// Whether an orchestrator set this variable to describe a service that happens to be called
/// tidegate, in the form of Docker links (`TIDEGATE_PORT_8080_TCP_ADDR`, `TIDEGATE_SERVICE_HOST`).
/// Kubernetes gives them to every pod beside such a service; refusing to start would be wrong.
fn is_service_link(name: &str) -> bool {
    let is_port = |rest: &str| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"]
                .iter()
                .any(|known| protocol.starts_with(known))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT")
        || name
            .match_indices("_PORT_")
            .any(|(at, found)| is_port(&name[at + found.len()..]))
}

const ENVIRONMENT_PREFIX: &str = "TIDEGATE_";

/// Variables with the prefix that the program reads, not the configuration: the file's name.
const PROGRAM_VARIABLES: [&str; 1] = ["TIDEGATE_CONFIG"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_are_told_from_keys() {
        for name in [
            "TIDEGATE_SERVICE_HOST",
            "TIDEGATE_SERVICE_PORT",
            "TIDEGATE_SERVICE_PORT_WSS",
            "TIDEGATE_PORT",
            "TIDEGATE_PORT_8080_TCP",
            "TIDEGATE_PORT_8080_TCP_ADDR",
            "TIDEGATE_METRICS_PORT_9090_TCP_PROTO",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for name in [
            "TIDEGATE_REACTORS",
            "TIDEGATE_PORT_X",
            "TIDEGATE_PORT_TIMEOUT",
        ] {
            assert!(!is_service_link(name), "{name}");
        }
        for key in crate::config::keys() {
            assert!(
                !key.environment.as_deref().is_some_and(is_service_link),
                "{} could not be set",
                key.name
            );
        }
    }

    #[test]
    fn places_count_lines_from_one_and_columns_in_characters() {
        let places = Places {
            path: "f".into(),
            text: "a = 1\n\"größe\" = 2\n",
        };
        for (offset, line, column) in [(0, 1, 1), (4, 1, 5), (6, 2, 1), (17, 2, 10), (99, 3, 1)] {
            let expected = Source::File {
                path: "f".into(),
                line,
                column,
            };
            assert_eq!(places.at(&(offset..offset)), expected, "offset {offset}");
        }
    }
}
