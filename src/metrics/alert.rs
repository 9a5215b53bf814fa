//! Alert rules: when a figure is worth waking somebody, and when it is over.
//!
//! A rule looks at one exported figure, its rate over the last minute, or the ratio of two. It becomes pending when its
//! condition holds, fires when it has held at every look for the rule's duration, and is resolved when the
//! figure has crossed the clear threshold, which lies on the quiet side of the other: in between nothing
//! changes, so a figure that trembles at the threshold rings once. A figure that is not there (nobody
//! reported it, a rate's first look) neither raises an alarm nor calls one off.

mod builtin;
mod expression;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

pub use builtin::builtin_rules;
pub use expression::{EXPRESSION_BYTES_MAX, RATIO_LEAST};

use super::figures::{Figures, LabelValue};
use super::names::{Kind, Metric, Part};
use super::report::Millis;

/// When to wake somebody.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name: unique, `snake_case`.
    pub name: Cow<'static, str>,
    /// What it looks at.
    pub signal: Signal,
    /// On which side of `value` the condition holds.
    pub comparison: Comparison,
    /// The threshold, itself outside: exactly this value is not beyond it.
    pub value: f64,
    /// Where it is over, itself inside: `value` or on its quiet side.
    pub clear: f64,
    /// How long the condition must hold before the rule fires, in milliseconds; 0 fires at once.
    pub for_ms: Millis,
    /// How bad it is.
    pub severity: Severity,
    /// What it means, and what to do, in one line.
    pub about: Cow<'static, str>,
}

/// What a rule looks at.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// The sum of the samples.
    Value(Series),
    /// The largest of the samples.
    Largest(Series),
    /// How fast the sum grows, per second, over the last [`WINDOW_MS`].
    Rate(Series),
    /// One sum over another. Of nothing, every share is 0.
    Ratio(Series, Series),
    /// The growth of one sum over that of another, over the last [`WINDOW_MS`], if the other has grown by
    /// at least so much; else it is 0.
    RateRatio(Series, Series, f64),
}

/// What rates are taken over, in milliseconds: long enough that a few events do not make a rate.
pub const WINDOW_MS: Millis = 60_000;

/// The samples of a metric that are meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    metric: Metric,
    part: Part,
    /// A label by its place, and the values that are meant.
    labels: Vec<(usize, Vec<Cow<'static, str>>)>,
}

/// On which side of a threshold a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Above it.
    Above,
    /// Below it.
    Below,
}

impl Comparison {
    /// Its name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Look at it during the day.
    Warning,
    /// Get up.
    Critical,
}

impl Severity {
    /// Both, the lesser first.
    pub const ALL: [Self; 2] = [Self::Warning, Self::Critical];

    /// Its name: a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What is wrong with a rule. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleError {
    /// No metric has a sample of this name.
    UnknownMetric(String),
    /// The metric has no such label.
    UnknownLabel {
        /// The metric's family.
        metric: &'static str,
        /// The label given.
        label: String,
        /// The labels there are.
        known: &'static [&'static str],
    },
    /// The label never has this value.
    UnknownValue {
        /// The metric's family.
        metric: &'static str,
        /// The label.
        label: String,
        /// The value given.
        value: String,
        /// The values there are.
        known: String,
    },
    /// An expression that cannot be read.
    Syntax {
        /// What should have come.
        expected: &'static str,
        /// Where, in characters from 1.
        column: usize,
    },
    /// A gauge goes down as well: its rate means nothing.
    RateOfGauge(&'static str),
    /// The clear threshold lies on the wrong side of the other.
    ClearBeyondValue,
    /// A threshold that is no number.
    NotANumber,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMetric(name) => write!(f, "no metric is called {name:?}"),
            Self::UnknownLabel {
                metric,
                label,
                known,
            } => {
                write!(f, "{metric} has no label {label:?}, but {known:?}")
            }
            Self::UnknownValue {
                metric,
                label,
                value,
                known,
            } => {
                write!(f, "{label} of {metric} cannot be {value:?}, but {known}")
            }
            Self::Syntax { expected, column } => {
                write!(f, "expected {expected} at character {column}")
            }
            Self::RateOfGauge(name) => write!(f, "{name} is a gauge and has no rate"),
            Self::ClearBeyondValue => {
                f.write_str("the clear threshold lies beyond the one that fires")
            }
            Self::NotANumber => f.write_str("a threshold must be a finite number"),
        }
    }
}

impl std::error::Error for RuleError {}

impl Series {
    /// The series of this sample name (`tidegate_refusals_total`, `tidegate_loop_lag_seconds_count`),
    /// with all values of its labels.
    ///
    /// # Errors
    /// [`RuleError::UnknownMetric`].
    pub fn new(sample: &str) -> Result<Self, RuleError> {
        let (metric, part) =
            Metric::find(sample).ok_or_else(|| RuleError::UnknownMetric(sample.to_owned()))?;
        Ok(Self::of(metric, part))
    }

    /// The same of a metric by itself.
    #[must_use]
    pub const fn of(metric: Metric, part: Part) -> Self {
        Self {
            metric,
            part,
            labels: Vec::new(),
        }
    }

    /// Only the samples whose label has one of these values.
    ///
    /// # Errors
    /// [`RuleError::UnknownLabel`].
    pub fn with<V: Into<Cow<'static, str>>>(
        mut self,
        label: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, RuleError> {
        let spec = self.metric.spec();
        let place = spec.labels.iter().position(|known| *known == label);
        let place = place.ok_or_else(|| RuleError::UnknownLabel {
            metric: spec.name,
            label: label.to_owned(),
            known: spec.labels,
        })?;
        let values = values.into_iter().map(Into::into).collect();
        self.labels.push((place, values));
        Ok(self)
    }

    fn values(&self, figures: &Figures) -> impl Iterator<Item = f64> {
        figures.values(self.metric, self.part, |labels: &[LabelValue]| {
            self.labels.iter().all(|(place, values)| {
                let value = labels.get(*place);
                value.is_some_and(|value| values.iter().any(|wanted| value.is(wanted)))
            })
        })
    }

    /// The sum of the samples; none if there are none.
    fn sum(&self, figures: &Figures) -> Option<f64> {
        self.values(figures).reduce(|sum, more| sum + more)
    }

    fn is_growing_only(&self) -> bool {
        matches!(self.metric.spec().kind, Kind::Counter | Kind::Histogram)
    }
}

impl Rule {
    /// Whether the rule makes sense.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), RuleError> {
        if !self.value.is_finite() || !self.clear.is_finite() {
            return Err(RuleError::NotANumber);
        }
        if self.is_beyond(self.clear) {
            return Err(RuleError::ClearBeyondValue);
        }
        let (one, two) = match &self.signal {
            Signal::Value(_) | Signal::Largest(_) | Signal::Ratio(..) => (None, None),
            Signal::Rate(series) => (Some(series), None),
            Signal::RateRatio(one, two, _) => (Some(one), Some(two)),
        };
        match one
            .into_iter()
            .chain(two)
            .find(|series| !series.is_growing_only())
        {
            Some(series) => Err(RuleError::RateOfGauge(series.metric.spec().name)),
            None => Ok(()),
        }
    }

    /// Whether the condition holds.
    fn is_beyond(&self, figure: f64) -> bool {
        match self.comparison {
            Comparison::Above => figure > self.value,
            Comparison::Below => figure < self.value,
        }
    }

    /// Whether it is over.
    fn is_clear(&self, figure: f64) -> bool {
        match self.comparison {
            Comparison::Above => figure <= self.clear,
            Comparison::Below => figure >= self.clear,
        }
    }
}

/// What state a rule is in, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing to tell.
    Inactive,
    /// The condition holds, not for long enough yet.
    Pending {
        /// Since when it holds.
        since: Millis,
    },
    /// Somebody was told.
    Firing {
        /// Since when the condition holds.
        since: Millis,
        /// When it began to fire.
        fired_at: Millis,
    },
    /// It fired, and is over.
    Resolved {
        /// When it was over.
        at: Millis,
    },
}

impl State {
    /// Its name: `inactive`, `pending`, `firing`, `resolved`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending { .. } => "pending",
            Self::Firing { .. } => "firing",
            Self::Resolved { .. } => "resolved",
        }
    }
}

/// A change worth telling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// Index of the rule.
    pub rule: usize,
    /// The state left.
    pub from: State,
    /// The state entered.
    pub to: State,
    /// The figure that made it so; none if a pending rule's figure was not there any more.
    pub figure: Option<f64>,
}

/// A rule, its state and the figure it saw last.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// The rule.
    pub rule: Rule,
    /// Its state.
    pub state: State,
    /// What it looked at; none if it was not there.
    pub figure: Option<f64>,
    /// What the counters of a rate said, at the beginning of the window and since.
    seen: VecDeque<Seen>,
}

/// When a rate's counters were looked at, and what they said.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    at: Millis,
    one: f64,
    two: f64,
}

/// All rules and their states.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alerts(Vec<Alert>);

impl Alerts {
    /// All inactive.
    ///
    /// # Errors
    /// The index of the first rule that makes no sense, and what is wrong with it.
    pub fn new(rules: Vec<Rule>) -> Result<Self, (usize, RuleError)> {
        for (index, rule) in rules.iter().enumerate() {
            rule.check().map_err(|error| (index, error))?;
        }
        let alert = |rule| Alert {
            rule,
            state: State::Inactive,
            figure: None,
            seen: VecDeque::new(),
        };
        Ok(Self(rules.into_iter().map(alert).collect()))
    }

    /// Looks at the figures; returns what has changed. To be called once a tick, with a `now` that does
    /// not go back.
    pub fn evaluate(&mut self, now: Millis, figures: &Figures) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for (rule, alert) in self.0.iter_mut().enumerate() {
            let figure = alert.look(now, figures);
            let (from, to) = (alert.state, alert.next(now, figure));
            (alert.figure, alert.state) = (figure, to);
            if from.label() != to.label() {
                transitions.push(Transition {
                    rule,
                    from,
                    to,
                    figure,
                });
            }
        }
        transitions
    }

    /// The alerts, in the order of the rules.
    pub fn iter(&self) -> impl Iterator<Item = &Alert> {
        self.0.iter()
    }

    /// How many of a severity are firing.
    #[must_use]
    pub fn firing(&self, severity: Severity) -> u64 {
        let is_firing = |alert: &&Alert| {
            alert.rule.severity == severity && matches!(alert.state, State::Firing { .. })
        };
        self.0.iter().filter(is_firing).count() as u64
    }
}

impl Alert {
    /// What the rule's signal says now.
    fn look(&mut self, now: Millis, figures: &Figures) -> Option<f64> {
        match &self.rule.signal {
            Signal::Value(series) => series.sum(figures),
            Signal::Largest(series) => series.values(figures).reduce(f64::max),
            Signal::Ratio(part, whole) => Some(share(part.sum(figures)?, whole.sum(figures)?)),
            Signal::Rate(series) => {
                let one = series.sum(figures)?;
                let grown = self.growth(Seen {
                    at: now,
                    one,
                    two: 0.0,
                })?;
                Some(grown.one / seconds(grown.at))
            }
            Signal::RateRatio(part, whole, least) => {
                let (one, two, least) = (part.sum(figures)?, whole.sum(figures)?, *least);
                let grown = self.growth(Seen { at: now, one, two })?;
                Some(if grown.two < least {
                    0.0
                } else {
                    share(grown.one, grown.two)
                })
            }
        }
    }

    /// How much counters have grown over the window, and in what time. None at the first look, and when a
    /// counter has begun anew.
    fn growth(&mut self, seen: Seen) -> Option<Seen> {
        let latest = self.seen.back();
        if latest.is_some_and(|latest| seen.one < latest.one || seen.two < latest.two) {
            self.seen.clear();
        }
        self.seen.push_back(seen);
        // The window begins at the last look that lies a whole window back.
        while self
            .seen
            .get(1)
            .is_some_and(|second| second.at + WINDOW_MS <= seen.at)
        {
            self.seen.pop_front();
        }
        let first = self.seen.front().filter(|first| first.at < seen.at)?;
        Some(Seen {
            at: seen.at - first.at,
            one: seen.one - first.one,
            two: seen.two - first.two,
        })
    }

    fn next(&self, now: Millis, figure: Option<f64>) -> State {
        let rule = &self.rule;
        let is_beyond = figure.is_some_and(|figure| rule.is_beyond(figure));
        let is_clear = figure.is_some_and(|figure| rule.is_clear(figure));
        match self.state {
            State::Firing { .. } if is_clear => State::Resolved { at: now },
            State::Pending { since } if is_beyond => held(rule, since, now),
            // Without a figure nobody can say that it has held throughout.
            State::Pending { .. } => State::Inactive,
            State::Inactive | State::Resolved { .. } if is_beyond => held(rule, now, now),
            unchanged => unchanged,
        }
    }
}

/// The state of a rule whose condition has held since then.
fn held(rule: &Rule, since: Millis, now: Millis) -> State {
    if now.saturating_sub(since) >= rule.for_ms {
        State::Firing {
            since,
            fired_at: now,
        }
    } else {
        State::Pending { since }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a time between two looks is far below 2^53 milliseconds"
)]
fn seconds(time: Millis) -> f64 {
    time as f64 / 1e3
}

fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

#[cfg(test)]
mod tests;
