//! Log lines: their form, their way to standard error, and how repeats are sampled.
//!
//! A line is text on a terminal and one JSON object otherwise, with the time in RFC 3339 and UTC.
//! Lines wait in a bounded queue for a thread of their own, so a stalled reader or a full disk never
//! holds up a reactor; lines that are lost are counted ([`LinesLost`]). Values come from peers, so
//! each is escaped and cut: nothing they send can begin a line of its own, move a cursor, turn the
//! writing direction, or fill a disk.
//!
//! tracing-subscriber's own formatters are not used: its text form escapes most control characters
//! but neither line breaks in messages nor bidirectional overrides, its JSON form leaves DEL, C1 and
//! bidirectional characters as they are, and neither cuts a value. Spans are not written.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Longest value of one field, in bytes before escaping. What exceeds it is cut off and marked "…".
pub const FIELD_BYTES_MAX: usize = 256;

/// Most lines waiting for the log thread; further ones are lost and counted.
pub const LINES_QUEUED_MAX: usize = 4_096;

/// Starts the log thread and makes it the destination of all `tracing` events of this process.
///
/// Lines are written until the guard is dropped, which waits up to a second for those in the queue.
///
/// # Errors
/// When the process has a subscriber already: a program that embeds the server may log its own way.
///
/// # Panics
/// When the system refuses another thread.
pub fn init(config: &LogConfig) -> Result<Guard, tracing::subscriber::SetGlobalDefaultError> {
    let stderr = io::stderr();
    let shape = Shape::of(config.format, stderr.is_terminal());
    let (subscriber, guard) = subscriber(config.level, shape, stderr);
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(guard)
}

/// Keeps the log thread alive. Belongs in a variable of `main`.
#[derive(Debug)]
#[must_use = "dropping the guard ends the log"]
pub struct Guard {
    lost: LinesLost,
    _worker: WorkerGuard,
}

impl Guard {
    /// A handle on the count of lost lines, for the metrics.
    pub fn lines_lost(&self) -> LinesLost {
        self.lost.clone()
    }
}

/// Counts the lines that could not be written. Any thread may ask.
#[derive(Debug, Clone)]
pub struct LinesLost {
    queue: ErrorCounter,
    writer: Arc<AtomicU64>,
}

impl LinesLost {
    /// Lines lost since the start: those that found the queue full, and those the system refused
    /// to write.
    pub fn total(&self) -> u64 {
        let queue = u64::try_from(self.queue.dropped_lines()).unwrap_or(u64::MAX);
        queue.saturating_add(self.writer.load(Ordering::Relaxed))
    }
}

/// A subscriber that writes to `writer` from a thread of its own.
fn subscriber<W: Write + Send + 'static>(
    level: LogLevel,
    shape: Shape,
    writer: W,
) -> (impl Subscriber + Send + Sync, Guard) {
    let refused = Arc::new(AtomicU64::new(0));
    let writer = Counted {
        writer,
        refused: Arc::clone(&refused),
    };
    let (queue, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_QUEUED_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(writer);
    let lost = LinesLost {
        queue: queue.error_counter(),
        writer: refused,
    };
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Line { shape })
        .with_writer(queue);
    let subscriber = tracing_subscriber::registry()
        .with(LevelFilter::from(level))
        .with(layer);
    (
        subscriber,
        Guard {
            lost,
            _worker: worker,
        },
    )
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Counts the lines its writer refuses. The log thread itself would forget them.
struct Counted<W> {
    writer: W,
    refused: Arc<AtomicU64>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line).map(|()| line.len())
    }

    /// Takes one line. A refusal is counted and not passed on: the next line may fare better.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.writer.write_all(line).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The form of a line, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Json,
}

impl Shape {
    fn of(format: LogFormat, is_terminal: bool) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
            LogFormat::Auto if is_terminal => Self::Text,
            LogFormat::Auto => Self::Json,
        }
    }
}

/// Writes an event as one line.
struct Line {
    shape: Shape,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = FieldWriter {
            shape: self.shape,
            message: String::new(),
            rest: String::new(),
        };
        event.record(&mut fields);
        let FieldWriter { message, rest, .. } = fields;
        match self.shape {
            Shape::Text => {
                SystemTime.format_time(&mut writer)?;
                writeln!(
                    writer,
                    " {:5} {}: {message}{rest}",
                    metadata.level(),
                    metadata.target()
                )
            }
            Shape::Json => {
                writer.write_str("{\"timestamp\":\"")?;
                SystemTime.format_time(&mut writer)?;
                let level = metadata.level().as_str().to_ascii_lowercase();
                let target = metadata.target();
                writeln!(
                    writer,
                    "\",\"level\":\"{level}\",\"target\":\"{target}\",\"message\":\"{message}\"{rest}}}"
                )
            }
        }
    }
}

/// Writes the fields of one event: the message by itself, the others as ` name=value` or
/// `,"name":value`.
struct FieldWriter {
    shape: Shape,
    message: String,
    rest: String,
}

impl FieldWriter {
    /// A value that needs neither quotes nor escapes.
    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        if field.name() == MESSAGE {
            return self.outside(field, format_args!("{value}"));
        }
        // Writing to a string cannot fail.
        let _ = match self.shape {
            Shape::Text => write!(self.rest, " {}={value}", field.name()),
            Shape::Json => write!(self.rest, ",\"{}\":{value}", json_name(field.name())),
        };
    }

    /// A value that may come from a peer.
    fn outside(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut cut = Cut {
            text: String::new(),
            is_cut: false,
        };
        // A failure is a `Display` that gave up, or the cut; what it wrote so far is still true.
        let _ = cut.write_fmt(value);
        if cut.is_cut {
            cut.text.push('…');
        }
        let text = cut.text;
        match self.shape {
            Shape::Json if field.name() == MESSAGE => escape_json(&mut self.message, &text),
            Shape::Json => {
                let _ = write!(self.rest, ",\"{}\":\"", json_name(field.name()));
                escape_json(&mut self.rest, &text);
                self.rest.push('"');
            }
            Shape::Text if field.name() == MESSAGE => escape_text(&mut self.message, &text, false),
            Shape::Text => {
                let _ = write!(self.rest, " {}=", field.name());
                // A value that could be taken for two fields, or for none, is put in quotes.
                let is_word = |c: char| !c.is_whitespace() && !matches!(c, '"' | '=' | '\\');
                let needs_quotes = text.is_empty() || !text.chars().all(is_word);
                if needs_quotes {
                    self.rest.push('"');
                }
                escape_text(&mut self.rest, &text, needs_quotes);
                if needs_quotes {
                    self.rest.push('"');
                }
            }
        }
    }
}

impl Visit for FieldWriter {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.outside(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.outside(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.outside(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.bare(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field, value);
        } else {
            // JSON has no word for these.
            self.outside(field, format_args!("{value}"));
        }
    }
}

/// Takes text up to [`FIELD_BYTES_MAX`] and then refuses, which also ends the formatting of a value
/// that is far longer.
struct Cut {
    text: String,
    is_cut: bool,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = FIELD_BYTES_MAX - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        let whole = (0..=room)
            .rev()
            .find(|at| more.is_char_boundary(*at))
            .unwrap_or(0);
        self.text.push_str(&more[..whole]);
        self.is_cut = true;
        Err(fmt::Error)
    }
}

/// The name of a field in JSON, kept apart from the keys that every line has.
fn json_name(name: &str) -> &str {
    match name {
        "timestamp" => "timestamp_",
        "level" => "level_",
        "target" => "target_",
        name => name.strip_prefix("r#").unwrap_or(name),
    }
}

fn escape_text(out: &mut String, text: &str, in_quotes: bool) {
    for c in text.chars() {
        match c {
            '"' | '\\' if in_quotes => out.extend(['\\', c]),
            c if is_harmful(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
}

fn escape_json(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_harmful(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
}

/// Whether a character acts on a terminal or a reader's eye instead of being seen: control
/// characters (C0, DEL, C1), line and paragraph separators, bidirectional marks, and those that
/// take no room.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

const MESSAGE: &str = "message";

/// Lets a few repeats of a message through each second, per reason, and counts the rest.
///
/// Owned by one thread. Reasons are a closed set (an enum, or `()` where there is one message only):
/// there is room for [`REASONS_MAX`](Self::REASONS_MAX) of them, and what exceeds that shares one
/// allowance.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let mut sampler = tidegate::logging::Sampler::new(1);
/// let now = Instant::now();
/// assert_eq!(sampler.admit("refused", now), Some(0));
/// assert_eq!(sampler.admit("refused", now), None);
/// assert_eq!(sampler.admit("too large", now), Some(0));
/// let later = now + Duration::from_secs(1);
/// assert_eq!(sampler.admit("refused", later), Some(1), "one was suppressed since");
/// ```
#[derive(Debug)]
pub struct Sampler<R> {
    lines_per_second: usize,
    reasons: Vec<Allowance<R>>,
    /// For reasons beyond the table's room.
    others: Allowance<()>,
}

#[derive(Debug)]
struct Allowance<R> {
    reason: R,
    /// When the last lines were let through, oldest first; at most a second's worth.
    admitted: VecDeque<Instant>,
    suppressed: u64,
}

impl<R: Copy + Eq> Sampler<R> {
    /// Most reasons that have an allowance of their own.
    pub const REASONS_MAX: usize = 64;

    /// A sampler that lets `lines_per_second` through for each reason, in any stretch of a second.
    /// Zero counts as one.
    pub fn new(lines_per_second: usize) -> Self {
        Self {
            lines_per_second: lines_per_second.max(1),
            reasons: Vec::new(),
            others: Allowance::new(()),
        }
    }

    /// Whether to log an event with this reason now: `Some(k)` says yes, and that `k` events like it
    /// were suppressed since the last one that was logged or [settled](Self::settle). O(reasons seen).
    pub fn admit(&mut self, reason: R, now: Instant) -> Option<u64> {
        if let Some(known) = self.reasons.iter_mut().find(|known| known.reason == reason) {
            return known.admit(self.lines_per_second, now);
        }
        if self.reasons.len() == Self::REASONS_MAX {
            return self.others.admit(self.lines_per_second, now);
        }
        let mut fresh = Allowance::new(reason);
        let admitted = fresh.admit(self.lines_per_second, now);
        self.reasons.push(fresh);
        admitted
    }

    /// Takes the counts of reasons that have been quiet for a second, for a closing line; `None` is
    /// for those that share an allowance. Call it once in a while: without it the end of a flood
    /// would stay untold until the next one.
    pub fn settle(&mut self, now: Instant) -> impl Iterator<Item = (Option<R>, u64)> {
        let others = self.others.settle(now).map(|count| (None, count));
        let known = self.reasons.iter_mut();
        known
            .filter_map(move |r| r.settle(now).map(|n| (Some(r.reason), n)))
            .chain(others)
    }
}

impl<R> Allowance<R> {
    fn new(reason: R) -> Self {
        Self {
            reason,
            admitted: VecDeque::new(),
            suppressed: 0,
        }
    }

    fn admit(&mut self, lines_per_second: usize, now: Instant) -> Option<u64> {
        if self.admitted.len() == lines_per_second {
            if self
                .admitted
                .front()
                .is_some_and(|oldest| is_recent(*oldest, now))
            {
                self.suppressed += 1;
                return None;
            }
            self.admitted.pop_front();
        }
        self.admitted.push_back(now);
        Some(std::mem::take(&mut self.suppressed))
    }

    fn settle(&mut self, now: Instant) -> Option<u64> {
        let is_quiet = self
            .admitted
            .back()
            .is_none_or(|newest| !is_recent(*newest, now));
        (is_quiet && self.suppressed > 0).then(|| std::mem::take(&mut self.suppressed))
    }
}

fn is_recent(then: Instant, now: Instant) -> bool {
    now.saturating_duration_since(then) < Duration::from_secs(1)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use proptest::prelude::*;

    use super::*;

    /// Some instant to count from.
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to make an Instant"
    )]
    fn origin() -> Instant {
        Instant::now()
    }

    /// A writer whose lines a test can read, once all were written.
    struct Pages(mpsc::Sender<Vec<u8>>);

    impl Write for Pages {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the log says about the events of `body`.
    fn logged(level: LogLevel, shape: Shape, body: impl FnOnce()) -> String {
        let (sender, pages) = mpsc::channel();
        let (subscriber, guard) = subscriber(level, shape, Pages(sender));
        tracing::subscriber::with_default(subscriber, body);
        drop(guard);
        String::from_utf8(pages.into_iter().flatten().collect()).unwrap()
    }

    /// The line without its time, which is checked for its form.
    fn after_time<'a>(line: &'a str, prefix: &str) -> &'a str {
        let line = line.strip_prefix(prefix).unwrap();
        let (time, rest) = line.split_at("2026-11-24T01:23:45.123456Z".len());
        let form: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(form, "0000-00-00T00:00:00.000000Z");
        rest
    }

    #[test]
    fn text_is_one_line_with_stable_keys() {
        let text = logged(LogLevel::Info, Shape::Text, || {
            let peer: std::net::SocketAddr = "127.0.0.1:9".parse().unwrap();
            tracing::info!(%peer, tls = true, connections = 3_u32, reason = "two words", empty = "", "listening");
        });
        assert_eq!(
            after_time(&text, ""),
            " INFO  tidegate::logging::tests: listening peer=127.0.0.1:9 tls=true connections=3 \
             reason=\"two words\" empty=\"\"\n"
        );
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = logged(LogLevel::Info, Shape::Json, || {
            tracing::warn!(
                duration_s = 0.5,
                gone = f64::NAN,
                level = "x",
                r#type = -1,
                "a \"b\""
            );
        });
        assert_eq!(
            after_time(&text, "{\"timestamp\":\""),
            "\",\"level\":\"warn\",\"target\":\"tidegate::logging::tests\",\"message\":\"a \\\"b\\\"\",\
             \"duration_s\":0.5,\"gone\":\"NaN\",\"level_\":\"x\",\"type\":-1}\n"
        );
    }

    #[test]
    fn the_level_is_a_threshold() {
        for (level, expected) in [
            (LogLevel::Off, 0),
            (LogLevel::Error, 1),
            (LogLevel::Warn, 2),
            (LogLevel::Info, 3),
            (LogLevel::Debug, 4),
            (LogLevel::Trace, 5),
        ] {
            let text = logged(level, Shape::Text, || {
                tracing::error!("e");
                tracing::warn!("w");
                tracing::info!("i");
                tracing::debug!("d");
                tracing::trace!("t");
            });
            assert_eq!(text.lines().count(), expected, "{level:?}");
        }
    }

    #[test]
    fn auto_looks_at_the_terminal() {
        for (format, is_terminal, expected) in [
            (LogFormat::Auto, true, Shape::Text),
            (LogFormat::Auto, false, Shape::Json),
            (LogFormat::Text, false, Shape::Text),
            (LogFormat::Json, true, Shape::Json),
        ] {
            assert_eq!(Shape::of(format, is_terminal), expected);
        }
    }

    #[test]
    fn h4_no_character_escapes_its_field() {
        // Every character of the first plane and the tags, alone, in each kind of field.
        let chars = (0..=0xffff)
            .chain(0xe0000..=0xe007f)
            .filter_map(char::from_u32);
        for c in chars {
            let (mut text, mut json) = (String::new(), String::new());
            escape_text(&mut text, &c.to_string(), true);
            escape_json(&mut json, &c.to_string());
            for out in [&text, &json] {
                assert!(!out.chars().any(is_harmful), "{c:?} became {out:?}");
            }
            let back: String = toml::de::DeValue::parse(&format!("\"{json}\""))
                .map(|v| v.get_ref().as_str().unwrap_or_default().to_owned())
                .unwrap_or_default();
            if c as u32 <= 0xffff {
                assert_eq!(back, c.to_string(), "{json:?} does not read as {c:?}");
            }
        }
    }

    #[test]
    fn h4_peers_cannot_forge_lines_or_move_the_cursor() {
        let forged = "x\r\n2026-01-01T00:00:00Z ERROR all is lost \u{1b}[2J\u{202e}\u{9b}";
        for shape in [Shape::Text, Shape::Json] {
            let text = logged(LogLevel::Info, shape, || {
                tracing::info!(as_str = forged, as_display = %forged, as_debug = ?forged, "{forged}");
                let error = io::Error::other(forged);
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::info!(error, "failed");
            });
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(
                !text.chars().any(|c| c != '\n' && is_harmful(c)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn h4_fields_are_cut_at_256_bytes() {
        for (length, expected) in [
            (FIELD_BYTES_MAX - 1, FIELD_BYTES_MAX - 1),
            (FIELD_BYTES_MAX, FIELD_BYTES_MAX),
            (FIELD_BYTES_MAX + 1, FIELD_BYTES_MAX + "…".len()),
            (1 << 20, FIELD_BYTES_MAX + "…".len()),
        ] {
            let text = logged(LogLevel::Info, Shape::Text, || {
                let value = "v".repeat(length);
                tracing::info!(value, "m");
            });
            let (_, value) = text.trim_end().split_once("value=").unwrap();
            assert_eq!(value.len(), expected, "{length} bytes");
        }
        // A character is never cut in two.
        let text = logged(LogLevel::Info, Shape::Text, || {
            let value = "€".repeat(FIELD_BYTES_MAX);
            tracing::info!(value, "m");
        });
        let (_, value) = text.trim_end().split_once("value=").unwrap();
        assert_eq!(value, format!("{}…", "€".repeat(FIELD_BYTES_MAX / 3)));
    }

    #[test]
    fn x4_a_stalled_reader_loses_counted_lines_and_holds_up_nobody() {
        /// Blocks in its first line until it is let go.
        struct Stalled(mpsc::Receiver<()>, mpsc::Sender<()>);
        impl Write for Stalled {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                let _ = self.1.send(());
                let _ = self.0.recv();
                Ok(line.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (let_go, stall) = mpsc::channel();
        let (began, begins) = mpsc::channel();
        let (subscriber, guard) = subscriber(LogLevel::Info, Shape::Json, Stalled(stall, began));
        let lost = guard.lines_lost();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("held in the writer");
            begins.recv_timeout(Duration::from_secs(10)).unwrap();
            for _ in 0..LINES_QUEUED_MAX {
                tracing::info!("queued");
            }
            assert_eq!(lost.total(), 0);
            for _ in 0..10 {
                tracing::info!("lost");
            }
            assert_eq!(lost.total(), 10);
            drop(let_go);
            // It resumes alone.
            for _ in 0..LINES_QUEUED_MAX {
                begins.recv_timeout(Duration::from_secs(10)).unwrap();
            }
            tracing::info!("written again");
            begins.recv_timeout(Duration::from_secs(10)).unwrap();
        });
        assert_eq!(lost.total(), 10);
    }

    #[test]
    fn x4_lines_a_full_disk_refuses_are_counted() {
        /// Refuses every second line.
        struct Full(u32);
        impl Write for Full {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0.is_multiple_of(2) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(line.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (subscriber, guard) = subscriber(LogLevel::Info, Shape::Json, Full(0));
        let lost = guard.lines_lost();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..10 {
                tracing::info!("line");
            }
        });
        drop(guard);
        assert_eq!(lost.total(), 5);
    }

    #[test]
    fn h5_a_flood_is_ten_lines_a_second_and_an_exact_count() {
        let start = origin();
        let mut sampler = Sampler::new(10);
        let (mut lines, mut told) = (0_u64, 0);
        for event in 0..1_000_000_u64 {
            // A million events in ten seconds.
            let now = start + Duration::from_micros(event * 10);
            if let Some(suppressed) = sampler.admit((), now) {
                lines += 1;
                told += suppressed;
            }
        }
        assert_eq!(lines, 100);
        let rest: Vec<_> = sampler.settle(start + Duration::from_secs(20)).collect();
        assert_eq!(rest.len(), 1);
        assert_eq!(lines + told + rest[0].1, 1_000_000);
        assert_eq!(sampler.settle(start + Duration::from_secs(30)).count(), 0);
    }

    #[test]
    fn reasons_beyond_the_room_share_one_allowance() {
        let now = origin();
        let mut sampler = Sampler::new(2);
        for reason in 0..Sampler::<usize>::REASONS_MAX {
            assert_eq!(sampler.admit(reason, now), Some(0));
        }
        let admitted = (1_000..2_000)
            .filter(|reason| sampler.admit(*reason, now).is_some())
            .count();
        assert_eq!(admitted, 2);
        let settled: Vec<_> = sampler.settle(now + Duration::from_secs(1)).collect();
        assert_eq!(settled, [(None, 998)]);
    }

    proptest! {
        #[test]
        fn h5_no_second_has_more_lines_than_allowed(
            lines_per_second in 1_usize..8,
            gaps_ms in prop::collection::vec(0_u64..400, 1..200),
        ) {
            let start = origin();
            let mut sampler = Sampler::new(lines_per_second);
            let (mut at, mut admitted, mut told) = (start, Vec::new(), 0);
            for gap in &gaps_ms {
                at += Duration::from_millis(*gap);
                if let Some(suppressed) = sampler.admit((), at) {
                    admitted.push(at);
                    told += suppressed;
                }
            }
            for window in admitted.windows(lines_per_second + 1) {
                prop_assert!(window[lines_per_second] - window[0] >= Duration::from_secs(1));
            }
            let rest: u64 = sampler.settle(at + Duration::from_secs(1)).map(|(_, n)| n).sum();
            prop_assert_eq!(admitted.len() as u64 + told + rest, gaps_ms.len() as u64);
        }
    }
}
