//! What a rule looks at, as an operator writes it, in the manner of Prometheus:
//!
//! ```text
//! tidegate_users                                              the sum of the samples
//! max(tidegate_loop_lag_recent_max_seconds)                   the largest of the samples
//! rate(tidegate_refusals_total{stage="token"})                growth per second, over the last minute
//! process_open_fds / process_max_fds                          one sum over another
//! rate(tidegate_connections_closed_total{reason=~"tls|violation"}) / rate(tidegate_connections_closed_total)
//! ```
//!
//! A selector picks samples by a label's value, or by several with `=~` and `|` between them: whole words,
//! no patterns. Labels have closed sets of values, so one that cannot occur is an error and not a rule
//! that never fires.

use std::borrow::Cow;
use std::fmt;

use super::{RuleError, Series, Signal};
use crate::admission::limits::Limit;
use crate::admission::refusal;
use crate::conn::reason;
use crate::metrics::alert::Severity;
use crate::metrics::hook::{HOOK_EVENTS, HOOK_OUTCOMES};
use crate::metrics::names::{Metric, Part};

/// Growth of the whole in the window below which a ratio of rates says nothing.
pub const RATIO_LEAST: f64 = 20.0;

/// Longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 1_024;

impl Signal {
    /// Reads an expression. A ratio of rates is 0 while the whole has grown by less than [`RATIO_LEAST`].
    ///
    /// # Errors
    /// [`RuleError::Syntax`] with the place, or what is wrong with a series.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(RuleError::Syntax {
                expected: "at most 1024 bytes",
                column: EXPRESSION_BYTES_MAX + 1,
            });
        }
        let mut reader = Reader { text, at: 0 };
        let signal = match (reader.term()?, reader.takes('/')) {
            (Term::Sum(series), false) => Self::Value(series),
            (Term::Largest(series), false) => Self::Largest(series),
            (Term::Rate(series), false) => Self::Rate(series),
            (Term::Sum(part), true) => match reader.term()? {
                Term::Sum(whole) => Self::Ratio(part, whole),
                _ => return Err(reader.expected("a sum behind a sum")),
            },
            (Term::Rate(part), true) => match reader.term()? {
                Term::Rate(whole) => Self::RateRatio(part, whole, RATIO_LEAST),
                _ => return Err(reader.expected("a rate behind a rate")),
            },
            (Term::Largest(_), true) => return Err(reader.expected("nothing behind max(…)")),
        };
        if reader.rest().is_empty() {
            Ok(signal)
        } else {
            Err(reader.expected("the end, or / and a second series"))
        }
    }
}

/// One side of a ratio, or all there is.
enum Term {
    Sum(Series),
    Largest(Series),
    Rate(Series),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn term(&mut self) -> Result<Term, RuleError> {
        let before = self.at;
        let word = self.word("the name of a metric, sum(, max( or rate(")?;
        let wrap = match word {
            "sum" => Term::Sum,
            "max" => Term::Largest,
            "rate" => Term::Rate,
            _ => {
                self.at = before;
                return self.series().map(Term::Sum);
            }
        };
        self.must('(', "( behind sum, max or rate")?;
        let series = self.series()?;
        self.must(')', ") behind the series")?;
        Ok(wrap(series))
    }

    fn series(&mut self) -> Result<Series, RuleError> {
        let mut series = Series::new(self.word("the name of a metric")?)?;
        if !self.takes('{') {
            return Ok(series);
        }
        while !self.takes('}') {
            let label = self.word("a label, or }")?;
            self.must('=', "= or =~")?;
            let is_list = self.takes_at_once('~');
            let quoted = self.quoted()?;
            let values: Vec<&str> = match is_list {
                true => quoted.split('|').collect(),
                false => vec![quoted],
            };
            let metric = series.metric;
            series = series.with(label, values.iter().map(|value| (*value).to_owned()))?;
            for value in values {
                check_value(metric, label, value)?;
            }
            if !self.takes(',') {
                self.must('}', ", or }")?;
                break;
            }
        }
        Ok(series)
    }

    fn rest(&mut self) -> &'t str {
        let rest = self.text[self.at..].trim_start_matches(' ');
        self.at = self.text.len() - rest.len();
        rest
    }

    fn takes(&mut self, wanted: char) -> bool {
        self.rest();
        self.takes_at_once(wanted)
    }

    fn takes_at_once(&mut self, wanted: char) -> bool {
        let is_there = self.text[self.at..].starts_with(wanted);
        self.at += if is_there { wanted.len_utf8() } else { 0 };
        is_there
    }

    fn must(&mut self, wanted: char, expected: &'static str) -> Result<(), RuleError> {
        if self.takes(wanted) {
            Ok(())
        } else {
            Err(self.expected(expected))
        }
    }

    /// A name: letters, digits, underscores.
    fn word(&mut self, expected: &'static str) -> Result<&'t str, RuleError> {
        let rest = self.rest();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.expected(expected));
        }
        self.at += end;
        Ok(&rest[..end])
    }

    /// What stands between quotes; no value there is has one within.
    fn quoted(&mut self) -> Result<&'t str, RuleError> {
        let rest = self.rest();
        for quote in ['"', '\''] {
            let inner = rest.strip_prefix(quote);
            if let Some((inner, _)) = inner.and_then(|inner| inner.split_once(quote)) {
                self.at += inner.len() + 2;
                return Ok(inner);
            }
        }
        Err(self.expected("a value in quotes"))
    }

    fn expected(&self, expected: &'static str) -> RuleError {
        let column = self.text[..self.at].chars().count() + 1;
        RuleError::Syntax { expected, column }
    }
}

/// Whether a label of a metric can have this value.
fn check_value(metric: Metric, label: &str, value: &str) -> Result<(), RuleError> {
    let words = words(metric, label);
    let is_number = label == "reactor" && value.parse::<u8>().is_ok();
    if is_number || words.as_ref().is_some_and(|words| words.contains(&value)) {
        return Ok(());
    }
    // Causes of slowness and components of memory are named by those who find them.
    if words.is_none() && label != "reactor" {
        return Ok(());
    }
    Err(RuleError::UnknownValue {
        metric: metric.spec().name,
        label: label.to_owned(),
        value: value.to_owned(),
        known: match words {
            Some(words) => words.join(", "),
            None => "the number of a reactor, from 0".to_owned(),
        },
    })
}

/// The values that a label of a metric can have, if they are a list.
fn words(metric: Metric, label: &str) -> Option<Vec<&'static str>> {
    let mut words: Vec<&'static str> = match (metric, label) {
        (Metric::Closed, "reason") => reason::LABELS.to_vec(),
        (Metric::Refused, "reason") => refusal::labels().map(|(_, reason)| reason).collect(),
        (Metric::Refused, "stage") => refusal::labels().map(|(stage, _)| stage.label()).collect(),
        (_, "limit") => Limit::ALL.map(Limit::name).to_vec(),
        (_, "severity") => Severity::ALL.map(Severity::label).to_vec(),
        (_, "direction") => vec!["received", "sent"],
        (_, "event") => HOOK_EVENTS.to_vec(),
        (Metric::HookCalls, "outcome") => HOOK_OUTCOMES.to_vec(),
        (_, "resumed") => vec!["false", "true"],
        (_, "tls") => vec!["none", "1.2", "1.3"],
        (Metric::HandshakeDuration, "stage") => vec!["proxy", "tls", "head", "admission"],
        _ => return None,
    };
    words.sort_unstable();
    words.dedup();
    Some(words)
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(series) => write!(f, "{series}"),
            Self::Largest(series) => write!(f, "max({series})"),
            Self::Rate(series) => write!(f, "rate({series})"),
            Self::Ratio(part, whole) => write!(f, "{part} / {whole}"),
            Self::RateRatio(part, whole, _) => write!(f, "rate({part}) / rate({whole})"),
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = self.metric.spec();
        match self.part {
            Part::Value => f.write_str(&self.metric.sample_name())?,
            Part::Sum => write!(f, "{}_sum", spec.name)?,
            Part::Count => write!(f, "{}_count", spec.name)?,
        }
        let selector = |(place, values): &(usize, Vec<Cow<'static, str>>)| {
            let sign = if values.len() == 1 { "=" } else { "=~" };
            let label = spec.labels.get(*place).copied().unwrap_or_default();
            format!("{label}{sign}\"{}\"", values.join("|"))
        };
        if self.labels.is_empty() {
            return Ok(());
        }
        let selectors: Vec<String> = self.labels.iter().map(selector).collect();
        write!(f, "{{{}}}", selectors.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::alert::{builtin_rules, tests::reads};

    #[test]
    fn expressions_are_read_as_they_are_written() {
        for (text, written) in [
            ("tidegate_users", "tidegate_users"),
            (" sum( tidegate_users ) ", "tidegate_users"),
            ("max(process_open_fds)", "max(process_open_fds)"),
            (
                "process_open_fds/process_max_fds",
                "process_open_fds / process_max_fds",
            ),
            (
                "rate(tidegate_refusals_total{stage='token'})",
                "rate(tidegate_refusals_total{stage=\"token\"})",
            ),
            (
                "rate(tidegate_connections_closed_total{ reason =~ \"tls|violation\", })\
                 /rate(tidegate_connections_closed_total)",
                "rate(tidegate_connections_closed_total{reason=~\"tls|violation\"}) / \
                 rate(tidegate_connections_closed_total)",
            ),
            (
                "tidegate_loop_lag_seconds_sum{reactor=\"0\"} / tidegate_loop_lag_seconds_count",
                "tidegate_loop_lag_seconds_sum{reactor=\"0\"} / tidegate_loop_lag_seconds_count",
            ),
            ("tidegate_users{}", "tidegate_users"),
        ] {
            let signal = Signal::parse(text).unwrap();
            assert_eq!(signal.to_string(), written);
            assert_eq!(Signal::parse(written).unwrap(), signal);
        }
    }

    #[test]
    fn built_in_rules_look_at_what_could_have_been_written() {
        for rule in builtin_rules() {
            let written = rule.signal.to_string();
            assert_eq!(Signal::parse(&written).unwrap(), rule.signal, "{written}");
        }
    }

    #[test]
    fn faults_are_told_with_their_place_on_one_line() {
        for (text, said) in [
            (
                "",
                "expected the name of a metric, sum(, max( or rate( at character 1",
            ),
            ("tidegate_userz", "no metric is called \"tidegate_userz\""),
            (
                "tidegate_users 5",
                "expected the end, or / and a second series at character 16",
            ),
            (
                "max(tidegate_users",
                "expected ) behind the series at character 19",
            ),
            (
                "max(tidegate_users) / tidegate_users",
                "expected nothing behind max(…) at character 22",
            ),
            (
                "rate(tidegate_connections_accepted_total) / tidegate_users",
                "expected a rate behind a rate at",
            ),
            ("tidegate_users{x}", "expected = or =~ at character 17"),
            (
                "tidegate_users{x=\"1\"}",
                "tidegate_users has no label \"x\"",
            ),
            (
                "tidegate_connections{reactor=1}",
                "expected a value in quotes at character 30",
            ),
            (
                "tidegate_connections{reactor=\"x\"}",
                "the number of a reactor, from 0",
            ),
            (
                "tidegate_connections_closed_total{reason=\"bored\"}",
                "cannot be \"bored\"",
            ),
            (
                "tidegate_connections{reactor=\"1\"",
                "expected , or } at character 33",
            ),
            ("ä", "expected the name of a metric"),
        ] {
            let error = Signal::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let long = "x".repeat(EXPRESSION_BYTES_MAX + 1);
        assert!(matches!(
            Signal::parse(&long),
            Err(RuleError::Syntax { .. })
        ));
        let fits = &long[1..];
        assert!(matches!(
            Signal::parse(fits),
            Err(RuleError::UnknownMetric(_))
        ));
    }

    #[test]
    fn values_that_can_be_written_are_those_that_occur() {
        use crate::metrics::figures::{LabelValue, tests::everything};
        let figures = everything();
        for &metric in Metric::ALL {
            for sample in figures.of(metric) {
                for (label, value) in metric.spec().labels.iter().zip(&sample.labels) {
                    let text = match value {
                        LabelValue::Word(word) => (*word).to_owned(),
                        LabelValue::Number(number) => number.to_string(),
                    };
                    assert_eq!(check_value(metric, label, &text), Ok(()));
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn anything_is_read_or_refused(text in ".{0,60}") {
            let _ = Signal::parse(&text);
        }

        #[test]
        fn what_is_nearly_right_is_read_or_refused(
            text in "(rate|max|sum)?\\(?tidegate_(users|connections)(\\{reactor=~?\"[0-9|]{0,3}\"?\\}?)?\\)?( / process_max_fds)?"
        ) {
            reads(&text);
        }
    }
}
