//! Figures → OpenMetrics 1.0 text.

use std::fmt::{self, Write};

use super::figures::{Figures, LabelValue, Sample, Value};
use super::names::{Kind, Metric};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole exposition, with `# EOF`.
#[must_use]
pub fn render(figures: &Figures) -> String {
    let mut out = String::with_capacity(64 * 1024);
    for &metric in Metric::ALL {
        let samples = figures.of(metric);
        if !samples.is_empty() {
            // Writing to a String cannot fail.
            let _ = family(&mut out, metric, samples);
        }
    }
    out.push_str("# EOF\n");
    out
}

fn family(out: &mut String, metric: Metric, samples: &[Sample]) -> fmt::Result {
    let spec = metric.spec();
    let name = spec.name;
    writeln!(out, "# TYPE {name} {}", spec.kind.name())?;
    if !spec.unit.is_empty() {
        writeln!(out, "# UNIT {name} {}", spec.unit)?;
    }
    writeln!(out, "# HELP {name} {}", Escaped(spec.help))?;
    let suffix = match spec.kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Histogram => "",
    };
    for Sample { labels, value } in samples {
        let labels = Labels {
            names: spec.labels,
            values: labels,
            bound: None,
        };
        match value {
            Value::Whole(number) => writeln!(out, "{name}{suffix}{labels} {number}")?,
            Value::Real(number) => writeln!(out, "{name}{suffix}{labels} {}", Real(*number))?,
            Value::Buckets(buckets) => {
                let last = (f64::INFINITY, buckets.count);
                for &(bound, count) in buckets.cumulative.iter().chain([&last]) {
                    let labels = Labels {
                        bound: Some(bound),
                        ..labels
                    };
                    writeln!(out, "{name}_bucket{labels} {count}")?;
                }
                writeln!(out, "{name}_sum{labels} {}", Real(buckets.sum))?;
                writeln!(out, "{name}_count{labels} {}", buckets.count)?;
            }
        }
    }
    Ok(())
}

/// `{name="value",…}`, or nothing.
#[derive(Clone, Copy)]
struct Labels<'a> {
    names: &'a [&'static str],
    values: &'a [LabelValue],
    /// The bound of a bucket, as the label `le`.
    bound: Option<f64>,
}

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for (name, value) in self.names.iter().zip(self.values) {
            match value {
                LabelValue::Word(word) => write!(f, "{before}{name}=\"{}\"", Escaped(word))?,
                LabelValue::Number(number) => write!(f, "{before}{name}=\"{number}\"")?,
            }
            before = ',';
        }
        if let Some(bound) = self.bound {
            write!(f, "{before}le=\"{}\"", Real(bound))?;
            before = ',';
        }
        if before == ',' {
            f.write_char('}')
        } else {
            Ok(())
        }
    }
}

/// Text with backslash, quote and line feed escaped, as labels and help texts want it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            let Some(special) = part
                .chars()
                .next_back()
                .filter(|c| ['\\', '"', '\n'].contains(c))
            else {
                f.write_str(part)?;
                continue;
            };
            f.write_str(&part[..part.len() - 1])?;
            f.write_str(match special {
                '\\' => "\\\\",
                '"' => "\\\"",
                _ => "\\n",
            })?;
        }
        Ok(())
    }
}

/// A number as OpenMetrics writes it: always with a point or an exponent, infinities with a sign.
struct Real(f64);

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            x if x.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            x => write!(f, "{x:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::ConnectionId;
    use crate::metrics::figures::tests::everything;
    use crate::metrics::figures::{Buckets, Figures, KernelFigures, ProcessFigures, ServerFigures};
    use crate::metrics::report::{Opened, RowChange, Traffic, Transport};
    use crate::metrics::{Registry, Totals};

    #[test]
    fn each_kind_is_written_as_openmetrics_writes_it() {
        let mut figures = Figures::default();
        figures.add(Metric::Build, &["1.2".into()], Value::Whole(1));
        figures.add(
            Metric::Refused,
            &["head".into(), "a\"b\\c\nd".into()],
            Value::Whole(7),
        );
        figures.add(Metric::CertificateRemaining, &[], Value::Real(-2.0));
        let buckets = Buckets {
            cumulative: vec![(0.00005, 1), (1.0, 2)],
            count: 3,
            sum: 12.5,
        };
        figures.add(Metric::LoopLag, &[3.into()], Value::Buckets(buckets));
        assert_eq!(
            render(&figures),
            "# TYPE tidegate_build info\n\
             # HELP tidegate_build The program that runs.\n\
             tidegate_build_info{version=\"1.2\"} 1\n\
             # TYPE tidegate_refusals counter\n\
             # HELP tidegate_refusals Refusals on the way in, and of renewed tokens, by stage and reason.\n\
             tidegate_refusals_total{stage=\"head\",reason=\"a\\\"b\\\\c\\nd\"} 7\n\
             # TYPE tidegate_loop_lag_seconds histogram\n\
             # UNIT tidegate_loop_lag_seconds seconds\n\
             # HELP tidegate_loop_lag_seconds From when a reactor meant to wake to when it did.\n\
             tidegate_loop_lag_seconds_bucket{reactor=\"3\",le=\"5e-5\"} 1\n\
             tidegate_loop_lag_seconds_bucket{reactor=\"3\",le=\"1.0\"} 2\n\
             tidegate_loop_lag_seconds_bucket{reactor=\"3\",le=\"+Inf\"} 3\n\
             tidegate_loop_lag_seconds_sum{reactor=\"3\"} 12.5\n\
             tidegate_loop_lag_seconds_count{reactor=\"3\"} 3\n\
             # TYPE tidegate_certificate_remaining_seconds gauge\n\
             # UNIT tidegate_certificate_remaining_seconds seconds\n\
             # HELP tidegate_certificate_remaining_seconds Time until the first certificate expires; negative after it.\n\
             tidegate_certificate_remaining_seconds -2.0\n\
             # EOF\n"
        );
    }

    #[test]
    fn the_whole_text_is_well_formed() {
        let text = render(&everything());
        assert!(text.ends_with("\n# EOF\n"));
        assert_eq!(text.matches("# EOF").count(), 1);
        let families = text
            .lines()
            .filter(|line| line.starts_with("# TYPE "))
            .count();
        assert_eq!(families, Metric::ALL.len());
        let mut family = "";
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
                continue;
            }
            if line.starts_with('#') {
                assert_eq!(line.split(' ').nth(2), Some(family), "{line}");
                continue;
            }
            assert!(
                line.starts_with(family),
                "{line} outside its family {family}"
            );
            let (_, number) = line.rsplit_once(' ').unwrap();
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn h2_the_text_does_not_depend_on_who_is_connected() {
        let text_with = |users: &[&str]| {
            let mut registry = Registry::default();
            let mut changes = (0..)
                .zip(users)
                .map(|(slot, user)| RowChange {
                    id: ConnectionId::new(0, slot, 0),
                    opened: Some(Opened {
                        user: Some((*user).into()),
                        route: 0,
                        address: [203, 0, 113, 77].into(),
                        since: 0,
                        transport: Transport::Plain,
                    }),
                    traffic: Traffic::default(),
                    last_activity: 0,
                    outbox_bytes: 0,
                    has_ended: false,
                })
                .collect();
            registry.apply(&mut changes);
            let mut totals = Totals::default();
            let mut report = crate::metrics::Report::default();
            report.gauges.open = users.len() as u64;
            totals.apply(&report);
            render(&Figures::gather(
                0,
                &totals,
                &registry,
                &ServerFigures::default(),
                &ProcessFigures::default(),
                &KernelFigures::default(),
            ))
        };
        let usual = text_with(&["ann", "bob"]);
        let hostile = text_with(&["<script>canary</script>", "x\"} 1\ncanary{a=\""]);
        assert_eq!(usual, hostile);
        assert!(usual.contains("\ntidegate_users 2\n"));
        assert!(usual.contains("\ntidegate_connections_open{reactor=\"0\"} 2\n"));
    }

    #[test]
    fn numbers_beyond_all_bounds_have_their_names() {
        let written: Vec<_> = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1e21]
            .map(|x| Real(x).to_string())
            .into();
        assert_eq!(written, ["NaN", "+Inf", "-Inf", "0.0", "1e21"]);
    }
}
