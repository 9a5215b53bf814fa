//! `[[alert]]`: rules of the operator's own, and changes to those that are built in.
//!
//! A table with the name of a built-in rule changes that rule; what it leaves out stays. Any other name
//! makes a new one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::metrics::Metric;
use crate::metrics::alert::{Comparison, Rule, RuleError, Severity, Signal, builtin_rules};
use crate::metrics::names::Kind;

use super::error::nearest;
use super::raw::Value;
use super::read::{Refusal, duration, text, within};
use super::setting::{Choice, Own, Setting, Slot, Table, quoted};
use super::text::{ABOUT, RULE_NAME};
use super::units;

/// Most tables.
pub(super) const ALERTS_MAX: usize = 256;

/// Longest a condition may have to hold.
const HOLD_MAX: Duration = Duration::from_secs(86_400);

/// An `[[alert]]`, as written: what is `None` is as in the built-in rule of the name, or as its field
/// says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlertConfig {
    /// Its name, or a built-in rule's.
    pub name: String,
    /// Whether the rule counts.
    pub enabled: bool,
    /// What it looks at. A rule of its own needs it; a built-in one has its.
    pub value: Option<AlertValue>,
    /// On which side of the threshold it fires. Default above.
    pub comparison: Option<Comparison>,
    /// Beyond which figure it fires. A rule of its own needs it.
    pub threshold: Option<Threshold>,
    /// At which figure it is over. Default the threshold itself; of a built-in rule, as far from it in
    /// proportion as it was.
    pub clear: Option<Threshold>,
    /// How long the condition must hold, up to 24 h. Default a minute.
    pub hold: Option<Duration>,
    /// How bad it is. Default a warning.
    pub severity: Option<Severity>,
    /// What it means, and what to do. Default the condition in words.
    pub about: Option<String>,
}

/// What a rule looks at: an expression that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertValue(Signal);

/// Equal to itself: the only number in an expression is finite.
impl Eq for AlertValue {}

impl AlertValue {
    /// Reads an expression.
    ///
    /// # Errors
    /// As [`Signal::parse`].
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        Signal::parse(text).map(Self)
    }
}

/// A finite number that figures are compared with, in base units: seconds, bytes, a share of 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold(f64);

/// Equal to itself: it is finite.
impl Eq for Threshold {}

impl Threshold {
    /// None if the number is not finite.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> f64 {
        self.0
    }
}

impl FromStr for Threshold {
    type Err = ();

    /// A number alone, or with `%`, a unit of time up to `d`, or a unit of size.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.replace('_', "");
        let digits = text
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte))
            .count();
        let (number, unit) = text.split_at(digits);
        let factor = UNITS.iter().find(|(known, _)| *known == unit);
        let (number, (_, factor)) = (number.parse::<f64>().ok().ok_or(())?, factor.ok_or(())?);
        // 80 % is 0.8, and not a bit more.
        let number = if unit == "%" {
            number / 100.0
        } else {
            number * factor
        };
        Self::new(number).ok_or(())
    }
}

const UNITS: [(&str, f64); 11] = [
    ("", 1.0),
    ("%", 0.01),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
    ("d", 86_400.0),
    ("B", 1.0),
    ("KiB", 1_024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
];

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl AlertConfig {
    /// A table in which nothing is written.
    pub(super) fn unwritten() -> Self {
        Self {
            enabled: true,
            ..Self::default()
        }
    }

    /// The rule that comes of it; none if it is switched off.
    ///
    /// # Errors
    /// The key at fault and what is wrong with it.
    pub(super) fn resolve(&self) -> Result<Option<Rule>, (&'static str, String)> {
        let builtin = builtin_rules()
            .into_iter()
            .find(|rule| rule.name == *self.name);
        let rule = match builtin {
            Some(rule) => self.change(rule)?,
            None => self.make()?,
        };
        rule.check().map_err(|error| match error {
            RuleError::ClearBeyondValue => (
                if self.clear.is_some() { "clear" } else { "threshold" },
                format!(
                    "it would be over at {} already, beyond the threshold of {}: a figure in between \
                     would ring for ever",
                    rule.clear, rule.value
                ),
            ),
            other => ("value", other.to_string()),
        })?;
        Ok(Some(rule).filter(|_| self.enabled))
    }

    /// A built-in rule with what is written here.
    fn change(&self, mut rule: Rule) -> Result<Rule, (&'static str, String)> {
        let other_name =
            "is a built-in rule, which keeps it; a rule of your own needs another name";
        if self.value.is_some() {
            return Err(("value", format!("{} {other_name}", self.name)));
        }
        if self.comparison.is_some_and(|own| own != rule.comparison) {
            return Err(("comparison", format!("{} {other_name}", self.name)));
        }
        if let Some(Threshold(value)) = self.threshold {
            let share = if rule.value == 0.0 {
                1.0
            } else {
                rule.clear / rule.value
            };
            (rule.value, rule.clear) = (value, value * share);
        }
        self.change_rest(&mut rule);
        Ok(rule)
    }

    /// A rule of its own.
    fn make(&self) -> Result<Rule, (&'static str, String)> {
        let example = "value = \"tidegate_users\", or any expression over the metrics";
        let nearest = || {
            let rules = builtin_rules();
            nearest(&self.name, rules.iter().map(|rule| &*rule.name)).to_owned()
        };
        let Some(AlertValue(signal)) = &self.value else {
            return Err((
                "value",
                format!(
                    "{} is not a built-in rule (the nearest one is {}), so it needs one: write {example}",
                    self.name,
                    nearest()
                ),
            ));
        };
        let Some(Threshold(value)) = self.threshold else {
            return Err((
                "threshold",
                "a rule needs one: write threshold = 100".to_owned(),
            ));
        };
        let comparison = self.comparison.unwrap_or(Comparison::Above);
        let mut rule = Rule {
            name: self.name.clone().into(),
            signal: signal.clone(),
            comparison,
            value,
            clear: value,
            for_ms: 60_000,
            severity: Severity::Warning,
            about: format!("{signal} is {} {value}.", comparison.label()).into(),
        };
        self.change_rest(&mut rule);
        Ok(rule)
    }

    fn change_rest(&self, rule: &mut Rule) {
        if let Some(Threshold(clear)) = self.clear {
            rule.clear = clear;
        }
        if let Some(hold) = self.hold {
            rule.for_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        }
        if let Some(severity) = self.severity {
            rule.severity = severity;
        }
        if let Some(about) = &self.about {
            rule.about = about.clone().into();
        }
    }
}

/// The built-in rules as the tables change them, then the tables' own. Tables at fault are left out:
/// `Config` has been checked.
pub(super) fn rules(tables: &[AlertConfig]) -> Vec<Rule> {
    let of = |name: &str| tables.iter().find(|table| table.name == name);
    let changed = builtin_rules()
        .into_iter()
        .filter_map(|rule| match of(&rule.name) {
            Some(table) => table.resolve().ok().flatten(),
            None => Some(rule),
        });
    let mut rules: Vec<Rule> = changed.collect();
    let known: Vec<_> = builtin_rules().into_iter().map(|rule| rule.name).collect();
    let own = tables.iter().filter(|table| {
        let is_builtin = known.iter().any(|name| *name == table.name);
        !is_builtin
    });
    rules.extend(own.filter_map(|table| table.resolve().ok().flatten()));
    rules
}

impl Table for AlertConfig {
    fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "alert.name",
                Slot::Text(&mut self.name, &RULE_NAME),
                "Its name; a built-in rule's changes that rule",
            )
            .required("name = \"many_users\""),
            Setting::new(
                "alert.enabled",
                Slot::Switch(&mut self.enabled),
                "Whether the rule counts; false switches a built-in one off",
            ),
            Setting::new(
                "alert.value",
                Slot::Own(&mut self.value),
                "What it looks at; rates are per second over the last minute; a built-in rule has its own",
            ),
            Setting::new(
                "alert.comparison",
                Slot::Choice(&mut self.comparison),
                "On which side of the threshold it fires; auto: above, or as built in",
            ),
            Setting::new(
                "alert.threshold",
                Slot::Own(&mut self.threshold),
                "Beyond which figure it fires, in seconds, bytes or a share unless it has a unit",
            ),
            Setting::new(
                "alert.clear",
                Slot::Own(&mut self.clear),
                "At which figure it is over; none: at the threshold, or as far from it as built in",
            ),
            Setting::new(
                "alert.for",
                Slot::Own(&mut self.hold),
                "How long the condition must hold before it fires; auto: a minute, or as built in",
            ),
            Setting::new(
                "alert.severity",
                Slot::Choice(&mut self.severity),
                "How bad it is; auto: a warning, or as built in",
            ),
            Setting::new(
                "alert.about",
                Slot::TextOrNone(&mut self.about, &ABOUT),
                "What it means and what to do, in one line",
            ),
        ]
    }
}

impl Own for Option<AlertValue> {
    fn accepted(&self) -> String {
        "a metric, max(metric), rate(metric), or a ratio of two metrics or rates, with {label=\"value\"} behind a \
         metric"
            .to_owned()
    }

    fn write(&self) -> String {
        let written = self.as_ref().map(|AlertValue(signal)| signal.to_string());
        quoted(&written.unwrap_or_default())
    }

    fn read(&mut self, value: &Value) -> Result<(), Refusal> {
        *self = match text(value)? {
            "" => None,
            text => Some(AlertValue::parse(text).map_err(|error| {
                let refusal = Refusal::new(error.to_string());
                match &error {
                    RuleError::UnknownMetric(name) => {
                        let samples: Vec<String> = samples().collect();
                        let nearest = nearest(name, samples.iter().map(String::as_str));
                        refusal.fix(value, &text.replacen(name.as_str(), nearest, 1))
                    }
                    _ => refusal,
                }
            })?),
        };
        Ok(())
    }
}

/// The names of all samples a rule can look at.
fn samples() -> impl Iterator<Item = String> {
    Metric::ALL.iter().flat_map(|metric| {
        let spec = metric.spec();
        match spec.kind {
            Kind::Histogram => vec![format!("{}_count", spec.name), format!("{}_sum", spec.name)],
            _ => vec![metric.sample_name()],
        }
    })
}

impl Own for Option<Threshold> {
    fn accepted(&self) -> String {
        "a number, with a unit in quotes: \"80%\", \"250ms\", \"14d\", \"64MiB\"; or \"\" for none"
            .to_owned()
    }

    fn write(&self) -> String {
        self.map_or_else(|| quoted(""), |threshold| threshold.to_string())
    }

    fn read(&mut self, value: &Value) -> Result<(), Refusal> {
        let written = match value {
            Value::Integer(_, written) | Value::Other(written) => written,
            Value::Word(text) | Value::Text(text) if text.is_empty() => {
                *self = None;
                return Ok(());
            }
            Value::Word(text) | Value::Text(text) => text,
            _ => return Err(Refusal::new("this key takes a number")),
        };
        let threshold = written.parse();
        *self =
            Some(threshold.map_err(|()| Refusal::new("not a finite number with a known unit"))?);
        Ok(())
    }
}

impl Own for Option<Duration> {
    fn accepted(&self) -> String {
        let longest = units::format_duration(HOLD_MAX);
        format!("0s to {longest}, or \"auto\"")
    }

    fn write(&self) -> String {
        quoted(&self.map_or_else(|| AUTO.to_owned(), units::format_duration))
    }

    fn read(&mut self, value: &Value) -> Result<(), Refusal> {
        *self = match value {
            Value::Word(text) | Value::Text(text) if text == AUTO => None,
            _ => Some(within(
                duration(value)?,
                &(Duration::ZERO..=HOLD_MAX),
                value,
                units::format_duration,
            )?),
        };
        Ok(())
    }

    fn is_accepted(&self) -> bool {
        self.is_none_or(|hold| hold <= HOLD_MAX)
    }
}

const AUTO: &str = "auto";

impl Choice for Option<Comparison> {
    fn names(&self) -> &'static [&'static str] {
        &[AUTO, "above", "below"]
    }

    fn name(&self) -> &'static str {
        self.map_or(AUTO, Comparison::label)
    }

    fn set(&mut self, name: &str) -> bool {
        *self = match name {
            AUTO => None,
            "above" => Some(Comparison::Above),
            "below" => Some(Comparison::Below),
            _ => return false,
        };
        true
    }
}

impl Choice for Option<Severity> {
    fn names(&self) -> &'static [&'static str] {
        &[AUTO, "warning", "critical"]
    }

    fn name(&self) -> &'static str {
        self.map_or(AUTO, Severity::label)
    }

    fn set(&mut self, name: &str) -> bool {
        *self = match name {
            AUTO => None,
            "warning" => Some(Severity::Warning),
            "critical" => Some(Severity::Critical),
            _ => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests;
