//! Values as written become values of fields: words, numbers and units, lists and tables.
//!
//! A refusal says why, and what to write; where the value stood is added by who knows it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::allowance::{Allowance, Fault, Measure};
use super::error::{ConfigError, Problem, Source, nearest, shown_in_place};
use super::listen::{CertificateFiles, Listen};
use super::raw::{Item, Value};
use super::secret::Secret;
use super::setting::{HIDDEN, OFF, Setting, Table, quoted};
use super::text::Form;
use super::units::{self, UnitError};

/// Why a value is not accepted, before it is known where the value stood.
pub(super) struct Refusal {
    why: String,
    fix: Option<String>,
}

impl Refusal {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            fix: None,
        }
    }

    /// Says what to write, quoted if the value comes from a file and must be a string there.
    pub(super) fn fix(self, value: &Value, text: &str) -> Self {
        let text = if matches!(value, Value::Word(_)) {
            text.to_owned()
        } else {
            quoted(text)
        };
        Self {
            fix: Some(format!("write {text}")),
            ..self
        }
    }

    pub(super) fn out_of_range(value: &Value, bound: &str, is_string: bool) -> Self {
        let refusal = Self::new("out of range");
        if is_string {
            refusal.fix(value, bound)
        } else {
            Self {
                fix: Some(format!("write {bound}")),
                ..refusal
            }
        }
    }

    fn into_error(self, key: &str, item: &Item, accepted: String) -> ConfigError {
        self.into_error_of(key, item, accepted, false)
    }

    pub(super) fn into_error_of(
        self,
        key: &str,
        item: &Item,
        accepted: String,
        is_secret: bool,
    ) -> ConfigError {
        let found = if is_secret {
            HIDDEN.to_owned()
        } else {
            item.value.to_string()
        };
        ConfigError {
            source: item.source.clone(),
            key: key.to_owned(),
            problem: Problem::BadValue {
                found,
                why: self.why,
                accepted,
                fix: self.fix,
            },
        }
    }
}

pub(super) fn within<T: Copy + PartialOrd>(
    found: T,
    range: &RangeInclusive<T>,
    value: &Value,
    format: fn(T) -> String,
) -> Result<T, Refusal> {
    if range.contains(&found) {
        return Ok(found);
    }
    let bound = if found < *range.start() {
        *range.start()
    } else {
        *range.end()
    };
    Err(Refusal::out_of_range(value, &format(bound), true))
}

pub(super) fn text(value: &Value) -> Result<&str, Refusal> {
    match value {
        Value::Word(text) | Value::Text(text) => Ok(text),
        _ => Err(Refusal::new("this key takes a string")),
    }
}

pub(super) fn switch(value: &Value) -> Result<bool, Refusal> {
    match value {
        Value::Boolean(value) => Ok(*value),
        Value::Word(word) if matches!(word.as_str(), "true" | "1") => Ok(true),
        Value::Word(word) if matches!(word.as_str(), "false" | "0") => Ok(false),
        Value::Text(text) if matches!(text.as_str(), "true" | "false") => Err(Refusal {
            fix: Some(format!("write {text} without quotes")),
            ..Refusal::new("this key takes a boolean, not a string")
        }),
        _ => Err(Refusal::new("this key takes a boolean")),
    }
}

/// A whole number; one that is negative or needs more than 64 bits is merely out of range.
pub(super) fn count(value: &Value) -> Result<u64, Refusal> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match value {
        Value::Integer(Some(number), _) => Ok(*number),
        Value::Integer(None, written) if written.starts_with('-') => Ok(0),
        Value::Integer(None, _) => Ok(u64::MAX),
        Value::Word(word) if is_digits(word) => Ok(word.parse().unwrap_or(u64::MAX)),
        Value::Text(text) if is_digits(text) => Err(Refusal {
            fix: Some(format!("write {text} without quotes")),
            ..Refusal::new("this key takes a number, not a string")
        }),
        _ => Err(Refusal::new("this key takes a whole number")),
    }
}

pub(super) fn formed<'t>(text: &'t str, form: &Form) -> Result<&'t str, Refusal> {
    (form.fault)(text).map_or(Ok(text), |fault| Err(Refusal::new(fault)))
}

pub(super) fn allowance(value: &Value, measure: Measure) -> Result<Option<Allowance>, Refusal> {
    let written;
    let text = match value {
        Value::Integer(Some(number), _) => {
            written = number.to_string();
            &written
        }
        Value::Integer(None, _) => return Err(Refusal::new("out of range")),
        other => text(other)?,
    };
    if text == OFF {
        return Ok(None);
    }
    let example = measure.example();
    measure.read(text).map(Some).map_err(|fault| {
        Refusal::new(match (fault, measure) {
            (Fault::Range, _) => "out of range".to_owned(),
            (Fault::Period, Measure::Events) => {
                format!("a rate is written with its period, s, m or h: \"{example}\"")
            }
            (Fault::Period, _) => {
                format!("the period is in the key's name; write it like \"{example}\"")
            }
            (Fault::Form, _) => format!("this is written like \"{example}\""),
        })
    })
}

pub(super) fn size(value: &Value) -> Result<u64, Refusal> {
    with_unit(
        value,
        units::parse_size,
        ["B", "KiB", "MiB", "GiB"],
        "a size",
        units::format_size,
    )
}

pub(super) fn duration(value: &Value) -> Result<Duration, Refusal> {
    with_unit(
        value,
        units::parse_duration,
        ["ms", "s", "m", "h"],
        "a duration",
        |number| format!("{number}s"),
    )
}

/// Reads a number with its unit; where only the unit is missing, the fix is the most likely meaning.
fn with_unit<T>(
    value: &Value,
    parse: fn(&str) -> Result<T, UnitError>,
    known: [&str; 4],
    what: &str,
    suggest: fn(u64) -> String,
) -> Result<T, Refusal> {
    let no_unit = |number| {
        Refusal::new(format!(
            "{what} is written with its unit: {}",
            known.join(", ")
        ))
        .fix(value, &suggest(number))
    };
    let parsed = match value {
        Value::Integer(Some(number), _) => return Err(no_unit(*number)),
        Value::Word(text) | Value::Text(text) => parse(text),
        _ => Err(UnitError::NotANumber),
    };
    parsed.map_err(|error| match error {
        UnitError::NoUnit(number) => no_unit(number),
        UnitError::UnknownUnit | UnitError::NotANumber => Refusal::new(format!(
            "{what} is a whole number and one of the units {}",
            known.join(", ")
        )),
        UnitError::TooLarge => Refusal::new("out of range"),
    })
}

/// "off", and zero in any spelling, which other servers use to say the same.
pub(super) fn is_off(value: &Value) -> bool {
    match value {
        Value::Integer(number, _) => *number == Some(0),
        Value::Word(text) | Value::Text(text) => {
            matches!(text.as_str(), OFF | "0") || units::parse_duration(text) == Ok(Duration::ZERO)
        }
        _ => false,
    }
}

/// Reads a list from an array of tables, or from words separated by commas.
pub(super) fn read_list<T>(
    key: &'static str,
    item: &Item,
    read: impl Fn(&'static str, &Item) -> Result<T, Vec<ConfigError>>,
) -> Result<Vec<T>, Vec<ConfigError>> {
    let Some(items) = items_of(item) else {
        let refusal = Refusal {
            fix: Some(format!("begin each one with [[{key}]]")),
            ..Refusal::new("this key takes a list")
        };
        let accepted = "a list of tables".to_owned();
        return Err(vec![refusal.into_error(key, item, accepted)]);
    };
    let mut list = Vec::with_capacity(items.len());
    let mut errors = Vec::new();
    for item in &*items {
        match read(key, item) {
            Ok(value) => list.push(value),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() {
        Ok(list)
    } else {
        Err(errors)
    }
}

/// The items of an array, or the words between commas; `None` for what is no list.
pub(super) fn items_of(item: &Item) -> Option<Cow<'_, [Item]>> {
    match &item.value {
        Value::Array(items) => Some(Cow::Borrowed(items)),
        Value::Word(text) if text.is_empty() => Some(Cow::Borrowed(&[])),
        Value::Word(text) => {
            let word = |word: &str| Item {
                value: Value::Word(word.trim().to_owned()),
                source: item.source.clone(),
            };
            Some(text.split(',').map(word).collect())
        }
        _ => None,
    }
}

/// Reads a list of texts by `set`, and gives each of its faults the place of its text.
pub(super) fn read_texts(
    key: &str,
    item: &Item,
    items: &Option<Cow<'_, [Item]>>,
    accepted: &str,
    is_secret: bool,
    set: impl FnOnce(&[&str]) -> Result<(), Vec<(usize, String)>>,
) -> Result<(), Vec<ConfigError>> {
    let error = |item: &Item, refusal: Refusal| {
        refusal.into_error_of(key, item, accepted.to_owned(), is_secret)
    };
    let Some(items) = items else {
        let refusal = Refusal::new("this key takes a list, in brackets");
        return Err(vec![error(item, refusal)]);
    };
    let mut texts = Vec::with_capacity(items.len());
    let mut errors = Vec::new();
    for item in &**items {
        match text(&item.value) {
            Ok(text) => texts.push(text),
            Err(_) => errors.push(error(
                item,
                Refusal::new("this key takes a list of strings"),
            )),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    set(&texts).map_err(|faults| {
        let place = |at: usize| items.get(at).unwrap_or(item);
        let faults = faults.into_iter();
        faults
            .map(|(at, why)| {
                if why.contains('\n') {
                    spot(key, place(at), &why)
                } else {
                    error(place(at), Refusal::new(why))
                }
            })
            .collect()
    })
}

pub(super) fn text_of<'i>(
    key: &str,
    item: &'i Item,
    accepted: &str,
) -> Result<&'i str, Vec<ConfigError>> {
    text(&item.value).map_err(|refusal| vec![refusal.into_error(key, item, accepted.to_owned())])
}

/// An error whose text has three lines: what is wrong, the text, and a caret under the spot.
pub(super) fn spot(key: &str, item: &Item, error: &str) -> ConfigError {
    let (why, excerpt) = error.split_once('\n').unwrap_or((error, ""));
    ConfigError {
        source: item.source.clone(),
        key: key.to_owned(),
        problem: Problem::Spot {
            why: why.to_owned(),
            excerpt: shown_in_place(excerpt),
        },
    }
}

pub(super) fn read_secrets(texts: &[&str]) -> Result<Vec<Secret>, Vec<(usize, String)>> {
    let (mut secrets, mut faults) = (Vec::new(), Vec::new());
    for (at, text) in texts.iter().enumerate() {
        match Secret::new(text) {
            Ok(secret) => secrets.push(secret),
            Err(fault) => faults.push((at, fault)),
        }
    }
    if faults.is_empty() {
        Ok(secrets)
    } else {
        Err(faults)
    }
}

/// Reads a table of a list over what it is where nothing is written.
pub(super) fn read_table<T: Table>(
    key: &'static str,
    item: &Item,
    mut table: T,
) -> Result<T, Vec<ConfigError>> {
    let Value::Table(pairs) = &item.value else {
        let accepted = format!("a table, begun with [[{key}]]");
        return Err(vec![
            Refusal::new("not a table").into_error(key, item, accepted),
        ]);
    };
    let mut errors = Vec::new();
    let mut settings = table.settings();
    for (name, item) in pairs {
        if let Some(setting) = settings.iter_mut().find(|known| known.name() == name) {
            errors.extend(setting.read(item).err().into_iter().flatten());
            continue;
        }
        let nearest = nearest(name, settings.iter().map(Setting::name));
        errors.push(ConfigError {
            source: item.source.clone(),
            key: format!("{key}.{name}"),
            problem: Problem::UnknownKey {
                nearest: format!("{key}.{nearest}"),
            },
        });
    }
    for setting in &settings {
        if let Some(example) = setting.required
            && !pairs.iter().any(|(name, _)| name == setting.name())
        {
            errors.push(ConfigError {
                source: item.source.clone(),
                key: setting.key.to_owned(),
                problem: Problem::Missing {
                    fix: format!("write {example}"),
                },
            });
        }
    }
    drop(settings);
    if errors.is_empty() {
        Ok(table)
    } else {
        Err(errors)
    }
}

/// A table of `address`, `tls` and `proxy_protocol`, or `ws://ADDRESS` and the like.
pub(super) fn read_listener(key: &'static str, item: &Item) -> Result<Listen, Vec<ConfigError>> {
    if let Value::Word(word) = &item.value {
        let (tls, proxy_protocol, address) = match word.split_once("://") {
            Some(("ws", address)) => (false, false, address),
            Some(("wss", address)) => (true, false, address),
            Some(("ws+proxy", address)) => (false, true, address),
            Some(("wss+proxy", address)) => (true, true, address),
            _ => {
                let refusal = Refusal::new("a listener begins with ws:// or wss://");
                return Err(vec![refusal.into_error(
                    key,
                    item,
                    LISTENER_WORD.to_owned(),
                )]);
            }
        };
        let address = read_address(address)
            .map_err(|refusal| vec![refusal.into_error(key, item, LISTENER_WORD.to_owned())])?;
        return Ok(Listen {
            address,
            tls,
            proxy_protocol,
        });
    }

    let mut fields = Fields::of(key, item, &["address", "tls", "proxy_protocol"])?;
    let address = fields.required("address", "address = \"127.0.0.1:8080\"", |value| {
        text(value).and_then(read_address)
    });
    let tls = fields
        .optional("tls", "true or false", switch)
        .unwrap_or(false);
    let proxy_protocol = fields
        .optional("proxy_protocol", "true or false", switch)
        .unwrap_or(false);
    fields.finish(address.map(|address| Listen {
        address,
        tls,
        proxy_protocol,
    }))
}

fn read_address(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| {
        let refusal = Refusal::new("not an IP address and a port");
        let digits = |port: &&str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        // The likely slips: a port alone, and a name where there is no resolver to ask.
        let port = [":", "localhost:", "*:"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix));
        match port.or(Some(text)).filter(digits) {
            Some(port) => Refusal {
                fix: Some(format!("write 127.0.0.1:{port}")),
                ..refusal
            },
            None => refusal,
        }
    })
}

/// A table of `certificate` and `key`, or `CERTIFICATE:KEY`.
pub(super) fn read_certificate(
    key: &'static str,
    item: &Item,
) -> Result<CertificateFiles, Vec<ConfigError>> {
    let path = |value: &Value| match text(value)? {
        "" => Err(Refusal::new("a file name cannot be empty")),
        name => Ok(PathBuf::from(name)),
    };
    if let Value::Word(word) = &item.value {
        return match word.split_once(':') {
            Some((certificate, key)) if !certificate.is_empty() && !key.is_empty() => {
                Ok(CertificateFiles {
                    certificate: certificate.into(),
                    key: key.into(),
                })
            }
            _ => {
                let refusal = Refusal::new("not a certificate file and a key file");
                Err(vec![refusal.into_error(
                    key,
                    item,
                    CERTIFICATE_WORD.to_owned(),
                )])
            }
        };
    }

    let mut fields = Fields::of(key, item, &["certificate", "key"])?;
    let certificate = fields.required("certificate", "certificate = \"FILE\"", path);
    let private = fields.required("key", "key = \"FILE\"", path);
    let pair = certificate
        .zip(private)
        .map(|(certificate, key)| CertificateFiles { certificate, key });
    fields.finish(pair)
}

/// The fields of a table in a list, with the errors met on the way.
struct Fields<'a> {
    key: &'static str,
    source: &'a Source,
    pairs: &'a [(String, Item)],
    errors: Vec<ConfigError>,
}

impl<'a> Fields<'a> {
    /// The fields of `item`; those not in `known` are errors.
    fn of(
        key: &'static str,
        item: &'a Item,
        known: &[&'static str],
    ) -> Result<Self, Vec<ConfigError>> {
        let Value::Table(pairs) = &item.value else {
            let accepted = format!("a table with {}", known.join(", "));
            return Err(vec![
                Refusal::new("not a table").into_error(key, item, accepted),
            ]);
        };
        let unknown = pairs
            .iter()
            .filter(|(name, _)| !known.contains(&name.as_str()));
        let errors = unknown.map(|(name, item)| ConfigError {
            source: item.source.clone(),
            key: format!("{key}.{name}"),
            problem: Problem::UnknownKey {
                nearest: format!("{key}.{}", nearest(name, known.iter().copied())),
            },
        });
        Ok(Self {
            key,
            source: &item.source,
            pairs,
            errors: errors.collect(),
        })
    }

    fn optional<T>(
        &mut self,
        name: &str,
        accepted: &str,
        read: impl Fn(&Value) -> Result<T, Refusal>,
    ) -> Option<T> {
        let (_, item) = self.pairs.iter().find(|(found, _)| found == name)?;
        let full = format!("{}.{name}", self.key);
        read(&item.value)
            .map_err(|refusal| {
                self.errors
                    .push(refusal.into_error(&full, item, accepted.to_owned()));
            })
            .ok()
    }

    fn required<T>(
        &mut self,
        name: &str,
        example: &str,
        read: impl Fn(&Value) -> Result<T, Refusal>,
    ) -> Option<T> {
        if !self.pairs.iter().any(|(found, _)| found == name) {
            self.errors.push(ConfigError {
                source: self.source.clone(),
                key: format!("{}.{name}", self.key),
                problem: Problem::Missing {
                    fix: format!("write {example}"),
                },
            });
            return None;
        }
        self.optional(name, example, read)
    }

    fn finish<T>(self, value: Option<T>) -> Result<T, Vec<ConfigError>> {
        value.filter(|_| self.errors.is_empty()).ok_or(self.errors)
    }
}

const LISTENER_WORD: &str = "ws://IP:PORT or wss://IP:PORT, separated by commas";
const CERTIFICATE_WORD: &str = "CERTIFICATE:KEY, separated by commas";
