//! One key: its place in [`Config`](super::Config), its accepted values, how it is read and written.
//!
//! Each section lists its keys once, as [`Setting`]s over its own fields. Loading, range checks, the
//! printed configuration and the reference table all walk that one list, so they cannot disagree.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::http::template::Template;

use super::allowance::{Allowance, Fault, Measure};
use super::error::{ConfigError, Problem, Source, nearest, shown_in_place};
use super::listen::{CertificateFiles, Listen};
use super::raw::{Item, Value};
use super::route::RouteRule;
use super::secret::Secret;
use super::text::{Form, List};
use super::units::{self, UnitError};

/// A key and the field behind it.
pub(super) struct Setting<'a> {
    /// The name, as in the file: `section.key`.
    pub(super) key: &'static str,
    /// The field.
    pub(super) slot: Slot<'a>,
    /// One line for the reference table.
    pub(super) about: &'static str,
    /// The flags that set it, if any.
    pub(super) flag: Option<&'static str>,
    /// The default in words, where it depends on the host.
    pub(super) default_in_words: Option<&'static str>,
    /// In a table of a list: the key of a section whose value counts where this one is not written.
    pub(super) inherits: Option<&'static str>,
    /// In a table of a list: what to write, if it must be written.
    pub(super) required: Option<&'static str>,
}

impl<'a> Setting<'a> {
    pub(super) fn new(key: &'static str, slot: Slot<'a>, about: &'static str) -> Self {
        Self {
            key,
            slot,
            about,
            flag: None,
            default_in_words: None,
            inherits: None,
            required: None,
        }
    }

    /// The name within its section.
    pub(super) fn name(&self) -> &'static str {
        self.key.rsplit('.').next().unwrap_or(self.key)
    }

    /// Whether an environment variable can set it: a list of tables has no form as words.
    pub(super) fn has_variable(&self) -> bool {
        !matches!(self.slot, Slot::Tables(_))
    }

    pub(super) fn flag(self, flag: &'static str) -> Self {
        Self {
            flag: Some(flag),
            ..self
        }
    }

    pub(super) fn default_in_words(self, words: &'static str) -> Self {
        Self {
            default_in_words: Some(words),
            ..self
        }
    }

    pub(super) fn inherits(self, key: &'static str) -> Self {
        Self {
            inherits: Some(key),
            ..self
        }
    }

    pub(super) fn required(self, example: &'static str) -> Self {
        Self {
            required: Some(example),
            ..self
        }
    }

    /// Takes over `item` if it is acceptable, else leaves the field as it was.
    ///
    /// # Errors
    /// One error per fault; a list may have several.
    pub(super) fn read(&mut self, item: &Item) -> Result<(), Vec<ConfigError>> {
        match &mut self.slot {
            Slot::Listeners(slot) => read_list(self.key, item, read_listener).map(|v| **slot = v),
            Slot::Certificates(slot) => {
                read_list(self.key, item, read_certificate).map(|v| **slot = v)
            }
            Slot::Tables(tables) => tables.read(self.key, item),
            Slot::Rule(slot) => {
                let text = text_of(self.key, item, RULE)?;
                let rule = RouteRule::parse(text);
                **slot = rule.map_err(|error| vec![spot(self.key, item, &error.to_string())])?;
                Ok(())
            }
            Slot::Template(slot) => {
                let text = text_of(self.key, item, TEMPLATE)?;
                let template = Template::parse(text);
                **slot =
                    template.map_err(|error| vec![spot(self.key, item, &error.to_string())])?;
                Ok(())
            }
            Slot::List(list) => {
                let items = items_of(item);
                let accepted = list.accepted();
                read_texts(self.key, item, &items, &accepted, false, |texts| {
                    list.set(texts)
                })
            }
            Slot::Secrets(slot) => {
                let items = items_of(item);
                read_texts(self.key, item, &items, SECRETS, true, |texts| {
                    **slot = read_secrets(texts)?;
                    Ok(())
                })
            }
            scalar => scalar.read(&item.value).map_err(|refusal| {
                let is_secret = scalar.is_secret();
                vec![refusal.into_error_of(self.key, item, scalar.accepted(), is_secret)]
            }),
        }
    }
}

/// A table of a list of tables, `[[route]]` for one: its keys and their fields, as a section has them.
pub(super) trait Table {
    fn settings(&mut self) -> Vec<Setting<'_>>;
}

/// A list of tables.
pub(super) trait Tables {
    /// Takes the list that `item` says.
    ///
    /// # Errors
    /// Every fault in every table; the list stays as it was.
    fn read(&mut self, key: &'static str, item: &Item) -> Result<(), Vec<ConfigError>>;
    /// The tables, to be looked at.
    fn tables(&self) -> Vec<Box<dyn Table>>;
    /// A table in which nothing is written.
    fn template(&self) -> Box<dyn Table>;
}

/// A list of tables over its field, with what a table is where nothing is written.
pub(super) struct TableList<'a, T> {
    pub(super) list: &'a mut Vec<T>,
    pub(super) base: T,
}

impl<T: Table + Clone + 'static> Tables for TableList<'_, T> {
    fn read(&mut self, key: &'static str, item: &Item) -> Result<(), Vec<ConfigError>> {
        *self.list = read_list(key, item, |key, item| {
            read_table(key, item, self.base.clone())
        })?;
        Ok(())
    }

    fn tables(&self) -> Vec<Box<dyn Table>> {
        let boxed = |table: &T| -> Box<dyn Table> { Box::new(table.clone()) };
        self.list.iter().map(boxed).collect()
    }

    fn template(&self) -> Box<dyn Table> {
        Box::new(self.base.clone())
    }
}

/// The field of a setting, with its type and range.
pub(super) enum Slot<'a> {
    /// true or false.
    Switch(&'a mut bool),
    /// One of a closed set of names.
    Choice(&'a mut dyn Choice),
    /// A whole number.
    Count(&'a mut dyn Number, RangeInclusive<u32>),
    /// Bytes.
    Size(&'a mut usize, RangeInclusive<usize>),
    /// A time.
    Time(&'a mut Duration, RangeInclusive<Duration>),
    /// A time, or nothing.
    TimeOrOff(&'a mut Option<Duration>, RangeInclusive<Duration>),
    /// A whole number, or nothing.
    CountOrOff(&'a mut dyn OptionalNumber, RangeInclusive<u32>),
    /// An amount per time, or nothing.
    Allowance(&'a mut Option<Allowance>, Measure),
    /// A text.
    Text(&'a mut String, &'static Form),
    /// A text, or nothing, which is written as an empty one.
    TextOrNone(&'a mut Option<String>, &'static Form),
    /// The name of a file, or nothing, which is written as an empty one.
    File(&'a mut Option<PathBuf>),
    /// Texts, whatever they stand for.
    List(Box<dyn List + 'a>),
    /// A secret, which is never shown.
    Secret(&'a mut Option<Secret>),
    /// Secrets, which are never shown.
    Secrets(&'a mut Vec<Secret>),
    /// Who may use a route.
    Rule(&'a mut RouteRule),
    /// The paths of a route.
    Template(&'a mut Template),
    /// `[[issuer]]`, `[[route]]`.
    Tables(Box<dyn Tables + 'a>),
    /// `[[listen]]`.
    Listeners(&'a mut Vec<Listen>),
    /// `tls.certificates`.
    Certificates(&'a mut Vec<CertificateFiles>),
}

/// An enum that is written as one of a few names.
pub(super) trait Choice {
    /// All names, in the order they are documented.
    fn names(&self) -> &'static [&'static str];
    /// The name of the present value.
    fn name(&self) -> &'static str;
    /// Takes the value of that name; false if there is none.
    fn set(&mut self, name: &str) -> bool;
}

/// An integer field of any width that a count fits in.
pub(super) trait Number {
    fn get(&self) -> u32;
    /// Takes the value; false if the field is too narrow for it.
    fn set(&mut self, value: u32) -> bool;
}

impl Number for u8 {
    fn get(&self) -> u32 {
        u32::from(*self)
    }

    fn set(&mut self, value: u32) -> bool {
        Self::try_from(value).map(|value| *self = value).is_ok()
    }
}

impl Number for u32 {
    fn get(&self) -> u32 {
        *self
    }

    fn set(&mut self, value: u32) -> bool {
        *self = value;
        true
    }
}

impl Number for usize {
    fn get(&self) -> u32 {
        u32::try_from(*self).unwrap_or(u32::MAX)
    }

    fn set(&mut self, value: u32) -> bool {
        Self::try_from(value).map(|value| *self = value).is_ok()
    }
}

/// A number that may be absent.
pub(super) trait OptionalNumber {
    fn get(&self) -> Option<u32>;
    /// Takes the value; false if the field is too narrow for it.
    fn set(&mut self, value: Option<u32>) -> bool;
}

impl<N: Number + Default> OptionalNumber for Option<N> {
    fn get(&self) -> Option<u32> {
        self.as_ref().map(Number::get)
    }

    fn set(&mut self, value: Option<u32>) -> bool {
        let Some(value) = value else {
            *self = None;
            return true;
        };
        let mut number = N::default();
        let fits = number.set(value);
        if fits {
            *self = Some(number);
        }
        fits
    }
}

impl Slot<'_> {
    /// Whether its values are never shown.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_) | Self::Secrets(_))
    }

    /// The accepted values, for people.
    pub(super) fn accepted(&self) -> String {
        let times = |range: &RangeInclusive<Duration>| {
            let [from, to] = [range.start(), range.end()].map(|t| units::format_duration(*t));
            format!("{from} to {to}")
        };
        match self {
            Self::Switch(_) => "true or false".to_owned(),
            Self::Choice(choice) => {
                let names: Vec<String> = choice.names().iter().map(|n| quoted(n)).collect();
                names.join(" or ")
            }
            Self::Count(_, range) => format!("{} to {}", range.start(), range.end()),
            Self::Size(_, range) => {
                let [from, to] = [*range.start(), *range.end()].map(format_size);
                format!("{from} to {to}")
            }
            Self::Time(_, range) => times(range),
            Self::TimeOrOff(_, range) => format!("{}, or \"off\"", times(range)),
            Self::CountOrOff(_, range) => {
                format!("{} to {}, or \"off\"", range.start(), range.end())
            }
            Self::Allowance(_, measure) => format!("{measure}, or \"off\""),
            Self::Text(_, form) => form.accepted.to_owned(),
            Self::TextOrNone(_, form) => format!("{}, or \"\" for none", form.accepted),
            Self::File(_) => "a file name, or \"\" for none".to_owned(),
            Self::List(list) => list.accepted(),
            Self::Secret(_) => SECRET.to_owned(),
            Self::Secrets(_) => SECRETS.to_owned(),
            Self::Rule(_) => RULE.to_owned(),
            Self::Template(_) => TEMPLATE.to_owned(),
            Self::Tables(_) => "a list of tables".to_owned(),
            Self::Listeners(_) => "tables with address = \"IP:PORT\", tls and proxy_protocol = \
                true or false; in the environment ws://IP:PORT or wss://IP:PORT, with PROXY header \
                ws+proxy:// or wss+proxy://, separated by commas"
                .to_owned(),
            Self::Certificates(_) => "tables with certificate = \"FILE\" and key = \"FILE\"; \
                in the environment CERTIFICATE:KEY, separated by commas"
                .to_owned(),
        }
    }

    /// The present value, as TOML. A list of listeners is written inline.
    pub(super) fn write(&self) -> String {
        match self {
            Self::Switch(value) => value.to_string(),
            Self::Choice(choice) => quoted(choice.name()),
            Self::Count(number, _) => number.get().to_string(),
            Self::Size(value, _) => quoted(&format_size(**value)),
            Self::Time(value, _) => quoted(&units::format_duration(**value)),
            Self::TimeOrOff(None, _) => quoted(OFF),
            Self::TimeOrOff(Some(value), _) => quoted(&units::format_duration(*value)),
            Self::CountOrOff(number, _) => number
                .get()
                .map_or_else(|| quoted(OFF), |number| number.to_string()),
            Self::Allowance(None, _) => quoted(OFF),
            Self::Allowance(Some(allowance), measure) => {
                let text = measure.write(allowance);
                // A number alone is one in TOML, too.
                if text.bytes().all(|byte| byte.is_ascii_digit()) {
                    text
                } else {
                    quoted(&text)
                }
            }
            Self::Text(text, _) => quoted(text),
            Self::TextOrNone(text, _) => quoted(text.as_deref().unwrap_or_default()),
            Self::File(path) => {
                let name = path.as_ref().map(|path| path.to_string_lossy());
                quoted(&name.unwrap_or_default())
            }
            Self::List(list) => inline(list.written().iter().map(|text| quoted(text))),
            Self::Secret(secret) => quoted(secret.as_ref().map_or("", |_| HIDDEN)),
            Self::Secrets(secrets) => inline(secrets.iter().map(|_| quoted(HIDDEN))),
            Self::Rule(rule) => quoted(rule.text()),
            Self::Template(template) => quoted(template.as_str()),
            Self::Tables(tables) => inline(tables.tables().iter_mut().map(|table| {
                let settings = table.settings();
                let pairs = settings.iter().filter(|setting| !setting.slot.is_secret());
                let pairs: Vec<String> = pairs
                    .map(|setting| format!("{} = {}", setting.name(), setting.slot.write()))
                    .collect();
                format!("{{ {} }}", pairs.join(", "))
            })),
            Self::Listeners(listeners) => inline(listeners.iter().map(Listen::to_toml)),
            Self::Certificates(pairs) => inline(pairs.iter().map(|pair| {
                let [certificate, key] =
                    [&pair.certificate, &pair.key].map(|path| quoted(&path.to_string_lossy()));
                format!("{{ certificate = {certificate}, key = {key} }}")
            })),
        }
    }

    /// Whether the present value, set by a program, is one that could have been written.
    pub(super) fn is_accepted(&self) -> bool {
        match self {
            Self::Count(number, range) => range.contains(&number.get()),
            Self::Size(value, range) => range.contains(value),
            Self::Time(value, range) => range.contains(&**value),
            Self::TimeOrOff(Some(value), range) => range.contains(value),
            Self::CountOrOff(number, range) => number.get().is_none_or(|n| range.contains(&n)),
            Self::Allowance(Some(allowance), measure) => measure.accepts(allowance),
            Self::Text(text, form) => (form.fault)(text).is_none(),
            Self::TextOrNone(Some(text), form) => (form.fault)(text).is_none(),
            Self::List(list) => list.is_accepted(),
            Self::TimeOrOff(None, _)
            | Self::Allowance(None, _)
            | Self::TextOrNone(None, _)
            | Self::Switch(_)
            | Self::Choice(_)
            | Self::File(_)
            | Self::Secret(_)
            | Self::Secrets(_)
            | Self::Rule(_)
            | Self::Template(_)
            | Self::Tables(_)
            | Self::Listeners(_)
            | Self::Certificates(_) => true,
        }
    }

    fn read(&mut self, value: &Value) -> Result<(), Refusal> {
        match self {
            Self::Switch(slot) => **slot = switch(value)?,
            Self::Choice(slot) => {
                let name = text(value)?;
                if !slot.set(name) {
                    let nearest = nearest(name, slot.names().iter().copied());
                    return Err(Refusal::new("there is no such choice").fix(value, nearest));
                }
            }
            Self::Count(slot, range) => {
                let number = count(value)?;
                let clamped = number.clamp((*range.start()).into(), (*range.end()).into());
                let fits = u32::try_from(number).is_ok_and(|n| clamped == number && slot.set(n));
                if !fits {
                    return Err(Refusal::out_of_range(value, &clamped.to_string(), false));
                }
            }
            Self::Size(slot, range) => {
                let bytes = size(value)?;
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                **slot = within(bytes, range, value, format_size)?;
            }
            Self::Time(slot, range) => {
                **slot = within(duration(value)?, range, value, units::format_duration)?;
            }
            Self::TimeOrOff(slot, range) => {
                **slot = if is_off(value) {
                    None
                } else {
                    Some(within(
                        duration(value)?,
                        range,
                        value,
                        units::format_duration,
                    )?)
                };
            }
            Self::CountOrOff(slot, range) => {
                if matches!(value, Value::Word(text) | Value::Text(text) if text == OFF) {
                    slot.set(None);
                    return Ok(());
                }
                let number = count(value)?;
                let clamped = number.clamp((*range.start()).into(), (*range.end()).into());
                let is_taken = |n: u32| clamped == number && slot.set(Some(n));
                if !u32::try_from(number).is_ok_and(is_taken) {
                    // Zero may mean nobody or everybody: whoever writes it is to say which.
                    return Err(Refusal::out_of_range(value, &clamped.to_string(), false));
                }
            }
            Self::Allowance(slot, measure) => **slot = allowance(value, *measure)?,
            Self::Text(slot, form) => **slot = formed(text(value)?, form)?.to_owned(),
            Self::TextOrNone(slot, form) => {
                **slot = match text(value)? {
                    "" => None,
                    text => Some(formed(text, form)?.to_owned()),
                };
            }
            Self::File(slot) => {
                **slot = match text(value)? {
                    "" => None,
                    name => Some(PathBuf::from(name)),
                };
            }
            Self::Secret(slot) => {
                **slot = Some(Secret::new(text(value)?).map_err(Refusal::new)?);
            }
            // Read by `Setting::read`, which can report several faults, or a spot within the text.
            Self::Listeners(_)
            | Self::Certificates(_)
            | Self::List(_)
            | Self::Secrets(_)
            | Self::Rule(_)
            | Self::Template(_)
            | Self::Tables(_) => {}
        }
        Ok(())
    }
}

/// Why a value is not accepted, before it is known where the value stood.
struct Refusal {
    why: String,
    fix: Option<String>,
}

impl Refusal {
    fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            fix: None,
        }
    }

    /// Says what to write, quoted if the value comes from a file and must be a string there.
    fn fix(self, value: &Value, text: &str) -> Self {
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

    fn out_of_range(value: &Value, bound: &str, is_string: bool) -> Self {
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

    fn into_error_of(
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

fn within<T: Copy + PartialOrd>(
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

fn text(value: &Value) -> Result<&str, Refusal> {
    match value {
        Value::Word(text) | Value::Text(text) => Ok(text),
        _ => Err(Refusal::new("this key takes a string")),
    }
}

fn switch(value: &Value) -> Result<bool, Refusal> {
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
fn count(value: &Value) -> Result<u64, Refusal> {
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

fn formed<'t>(text: &'t str, form: &Form) -> Result<&'t str, Refusal> {
    (form.fault)(text).map_or(Ok(text), |fault| Err(Refusal::new(fault)))
}

fn allowance(value: &Value, measure: Measure) -> Result<Option<Allowance>, Refusal> {
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

fn size(value: &Value) -> Result<u64, Refusal> {
    with_unit(
        value,
        units::parse_size,
        ["B", "KiB", "MiB", "GiB"],
        "a size",
        units::format_size,
    )
}

fn duration(value: &Value) -> Result<Duration, Refusal> {
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
fn is_off(value: &Value) -> bool {
    match value {
        Value::Integer(number, _) => *number == Some(0),
        Value::Word(text) | Value::Text(text) => {
            matches!(text.as_str(), OFF | "0") || units::parse_duration(text) == Ok(Duration::ZERO)
        }
        _ => false,
    }
}

/// Reads a list from an array of tables, or from words separated by commas.
fn read_list<T>(
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
fn items_of(item: &Item) -> Option<Cow<'_, [Item]>> {
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
fn read_texts(
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
            .map(|(at, why)| error(place(at), Refusal::new(why)))
            .collect()
    })
}

fn text_of<'i>(key: &str, item: &'i Item, accepted: &str) -> Result<&'i str, Vec<ConfigError>> {
    text(&item.value).map_err(|refusal| vec![refusal.into_error(key, item, accepted.to_owned())])
}

/// An error whose text has three lines: what is wrong, the text, and a caret under the spot.
fn spot(key: &str, item: &Item, error: &str) -> ConfigError {
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

fn read_secrets(texts: &[&str]) -> Result<Vec<Secret>, Vec<(usize, String)>> {
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
fn read_table<T: Table>(
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
fn read_listener(key: &'static str, item: &Item) -> Result<Listen, Vec<ConfigError>> {
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
fn read_certificate(key: &'static str, item: &Item) -> Result<CertificateFiles, Vec<ConfigError>> {
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

fn format_size(bytes: usize) -> String {
    units::format_size(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn inline(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    format!("[{}]", items.join(", "))
}

const OFF: &str = "off";
/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";
const SECRET: &str = "at least 32 bytes; never shown";
const RULE: &str =
    "any, claim = value, claim in [value, …], claim contains value, and, or, not, ( )";
const TEMPLATE: &str = "a path like \"/ws/projects/{project_id}/\"";
const SECRETS: &str = "a list of secrets of at least 32 bytes; never shown";
const LISTENER_WORD: &str = "ws://IP:PORT or wss://IP:PORT, separated by commas";
const CERTIFICATE_WORD: &str = "CERTIFICATE:KEY, separated by commas";
