//! One key: its place in [`Config`](super::Config), its accepted values, how it is read and written.
//!
//! Each section lists its keys once, as [`Setting`]s over its own fields. Loading, range checks, the
//! printed configuration and the reference table all walk that one list, so they cannot disagree.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::http::template::Template;

use super::allowance::{Allowance, Measure};
use super::error::{ConfigError, nearest};
use super::listen::{CertificateFiles, Listen};
use super::raw::{Item, Value};
use super::read::{
    Refusal, allowance, count, duration, formed, is_off, items_of, read_certificate, read_list,
    read_listener, read_secrets, read_table, read_texts, size, spot, switch, text, text_of, within,
};
use super::route::RouteRule;
use super::secret::Secret;
use super::text::{Form, List};
use super::units;

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
    /// A value with a form of its own.
    Own(&'a mut dyn Own),
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

/// A value that is written as one scalar, in a form of its own.
pub(super) trait Own {
    /// The accepted values, for people.
    fn accepted(&self) -> String;
    /// The present value, as TOML.
    fn write(&self) -> String;
    /// Takes the value.
    ///
    /// # Errors
    /// Why it is refused; the present value stays.
    fn read(&mut self, value: &Value) -> Result<(), Refusal>;
    /// Whether the present value, set by a program, could have been written.
    fn is_accepted(&self) -> bool {
        true
    }
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
            Self::Own(own) => own.accepted(),
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
            Self::Own(own) => own.write(),
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
            Self::Own(own) => own.is_accepted(),
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
            Self::Own(own) => own.read(value)?,
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

fn format_size(bytes: usize) -> String {
    units::format_size(u64::try_from(bytes).unwrap_or(u64::MAX))
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn inline(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    format!("[{}]", items.join(", "))
}

pub(super) const OFF: &str = "off";
/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";
const SECRET: &str = "at least 32 bytes; never shown";
const RULE: &str =
    "any, claim = value, claim in [value, …], claim contains value, and, or, not, ( )";
const TEMPLATE: &str = "a path like \"/ws/projects/{project_id}/\"";
const SECRETS: &str = "a list of secrets of at least 32 bytes; never shown";
