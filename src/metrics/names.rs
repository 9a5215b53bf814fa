//! Every metric once: name, type, unit, labels and what it says.
//!
//! Labels come from closed sets: a label's value is a word of the program or a number of its own, and
//! never what a client chose, so no client can add a series (H2) or a word (H1, H3).

use std::fmt::Write as _;

/// The type of a metric, in the words of OpenMetrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only. Its samples end in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution in fixed buckets.
    Histogram,
    /// Facts in labels. Its sample ends in `_info`.
    Info,
}

impl Kind {
    /// The type's name in the exposition.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// What is said of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The family's name, without `_total`, `_info`, `_bucket`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its unit, which ends its name; empty without one.
    pub unit: &'static str,
    /// The names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it says, in one line.
    pub help: &'static str,
}

/// Which number of a metric is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Of a counter or gauge: its value.
    Value,
    /// Of a histogram: the sum of the values.
    Sum,
    /// Of a histogram: how many values.
    Count,
}

macro_rules! metrics {
    ($($variant:ident $kind:ident $name:literal $unit:literal [$($label:literal),*] $help:literal;)*) => {
        /// A metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is described by its spec")]
        pub enum Metric { $($variant,)* }

        impl Metric {
            /// Every metric, in the order of the exposition.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What is said of it.
            #[must_use]
            pub const fn spec(self) -> &'static Spec {
                match self {
                    $(Self::$variant => &Spec {
                        name: $name,
                        kind: Kind::$kind,
                        unit: $unit,
                        labels: &[$($label),*],
                        help: $help,
                    },)*
                }
            }
        }
    };
}

metrics! {
    Build Info "tidegate_build" "" ["version"] "The program that runs.";
    Ready Gauge "tidegate_ready" "" [] "1 if traffic may be sent here: not while starting, draining or above the high-water mark.";

    Connections Gauge "tidegate_connections" "" ["reactor"] "Connections in whatever phase, handshakes included.";
    ConnectionsOpen Gauge "tidegate_connections_open" "" ["reactor"] "Connections whose upgrade is complete.";
    ConnectionsLimit Gauge "tidegate_connections_limit" "" [] "Connections that are accepted at most.";
    Users Gauge "tidegate_users" "" [] "Users with a connection open.";
    Accepted Counter "tidegate_connections_accepted" "" ["reactor"] "Connections accepted from a listener.";
    Opened Counter "tidegate_connections_opened" "" ["tls", "resumed"] "Upgrades completed, by TLS version (none, 1.2, 1.3) and whether the session was resumed.";
    Closed Counter "tidegate_connections_closed" "" ["reason"] "Connections ended, each for one reason.";
    ConnectionDuration Histogram "tidegate_connection_duration_seconds" "seconds" [] "From the completed upgrade to the end.";
    Refused Counter "tidegate_refusals" "" ["stage", "reason"] "Refusals on the way in, and of renewed tokens, by stage and reason.";
    LimitRefused Counter "tidegate_limit_refusals" "" ["limit"] "Times a limit refused.";
    LimitWouldRefuse Counter "tidegate_limit_dry_run_refusals" "" ["limit"] "Times a limit in dry run would have refused.";
    AcceptRefused Counter "tidegate_accept_refused" "" ["reactor"] "Connections accepted and dropped at once because of a limit.";
    AcceptDeferred Counter "tidegate_accept_deferred" "" ["reactor"] "Turns in which a reactor accepted one connection at most, because its loop lagged.";
    AcceptParked Counter "tidegate_accept_parked" "" ["reactor"] "Times a listener rested for want of descriptors or memory.";
    HandshakesInFlight Gauge "tidegate_handshakes_in_flight" "" ["reactor"] "Connections on their way in.";
    HandshakeDuration Histogram "tidegate_handshake_duration_seconds" "seconds" ["stage"] "Time spent in each stage of a handshake.";
    ProxyHeaders Counter "tidegate_proxy_headers" "" [] "PROXY headers read.";
    RequestHeads Counter "tidegate_request_heads" "" [] "Request heads completed.";
    Abandoned Counter "tidegate_handshakes_abandoned" "" [] "Connections that ended on their way in without having been refused.";
    TlsHandshakes Counter "tidegate_tls_handshakes" "" ["resumed"] "TLS handshakes completed.";
    TlsTruncated Counter "tidegate_tls_truncated" "" [] "TLS streams that ended without a close_notify.";

    HttpConnections Counter "tidegate_http_connections" "" [] "Connections that came for plain HTTP.";
    HttpRequests Counter "tidegate_http_requests" "" [] "Their requests that were answered.";
    HttpRequestsRefused Counter "tidegate_http_requests_refused" "" [] "Their requests that were malformed, too long or too slow.";
    HttpRequestsUnanswered Counter "tidegate_http_requests_unanswered" "" [] "Their requests whose answer did not come in time.";
    ApiCommands Counter "tidegate_api_commands" "" ["method", "result"] "What backends asked for over the API, by method and what came of it.";
    TokensRenewed Counter "tidegate_tokens_renewed" "" [] "Tokens renewed over open connections.";
    RenewalsRefused Counter "tidegate_token_renewals_refused" "" [] "Tokens brought over open connections that were refused.";

    MessagesReceived Counter "tidegate_messages_received" "" ["reactor"] "Data messages received.";
    ReceivedBytes Counter "tidegate_received_bytes" "bytes" ["reactor"] "Payload of data messages received.";
    MessagesSent Counter "tidegate_messages_sent" "" ["reactor"] "Data messages sent or queued.";
    SentBytes Counter "tidegate_sent_bytes" "bytes" ["reactor"] "Payload of data messages sent or queued; of published ones, their frames.";
    MessageSize Histogram "tidegate_message_size_bytes" "bytes" ["direction"] "Payload of single data messages.";
    MessagesIgnored Counter "tidegate_ignored_messages" "" [] "Messages received on routes that relay some and had no use for these.";
    SendLatency Histogram "tidegate_send_latency_seconds" "seconds" [] "From a frame's place in the queue to the kernel's taking its last byte.";
    PingsSent Counter "tidegate_pings_sent" "" [] "Pings sent to quiet peers.";
    PingsSkipped Counter "tidegate_pings_skipped" "" [] "Pings of peers that were passed over for a newer one.";

    OutboxBytes Gauge "tidegate_outbox_bytes" "bytes" ["reactor"] "Bytes waiting to leave.";
    OutboxSkipped Counter "tidegate_outbox_skipped_messages" "" ["reactor"] "Messages not sent because an outbox was full.";
    OutboxTakenBack Counter "tidegate_outbox_taken_back_messages" "" ["reactor"] "Messages of channels dropped from outboxes before they left: for newer ones, or with their subscription.";
    ReadingPaused Counter "tidegate_reading_paused" "" ["reactor"] "Times a peer was not read from because its replies could not leave.";
    SlowConsumers Gauge "tidegate_slow_consumers" "" ["cause"] "Connections whose outbox does not empty, by cause.";

    HookCalls Counter "tidegate_hook_calls" "" ["event", "outcome"] "Calls to backends that have ended, by event and by how.";
    HookDuration Histogram "tidegate_hook_duration_seconds" "seconds" ["event"] "From an event to the end of the last attempt at its call.";
    HookRetries Counter "tidegate_hook_retries" "" [] "Further attempts at calls that failed.";
    HookBreakersOpened Counter "tidegate_hook_breakers_opened" "" [] "Times a backend's URL was left alone because calls failed.";
    HookBreakersOpen Gauge "tidegate_hook_breakers_open" "" [] "URLs of backends that are left alone now.";
    HookAnswersLost Counter "tidegate_hook_answers_lost" "" [] "Answers that a reactor did not take within ten seconds.";
    HookQueueCalls Gauge "tidegate_hook_queue_calls" "" [] "Calls that are under way or wait.";
    HookQueueBytes Gauge "tidegate_hook_queue_bytes" "bytes" [] "Bytes of the calls that are under way or wait.";

    Channels Gauge "tidegate_channels" "" ["reactor"] "Channels with a subscriber on the reactor.";
    Subscriptions Gauge "tidegate_subscriptions" "" ["reactor"] "Subscriptions of the reactor's connections.";
    Published Counter "tidegate_published" "" ["reactor"] "Messages published to channels.";
    Delivered Counter "tidegate_delivered" "" ["reactor"] "Messages delivered to subscribers.";
    PublicationsDropped Counter "tidegate_publications_dropped" "" ["reactor"] "Publications dropped because a queue was full.";
    Gaps Counter "tidegate_gaps" "" [] "Times a subscriber was told that publications of a channel with history were lost on the way.";
    SubscriptionsRefused Counter "tidegate_subscriptions_refused" "" [] "Subscriptions refused because the connection had as many as it may.";
    CommandsUnanswered Counter "tidegate_commands_unanswered" "" [] "Commands to channels that were not answered in time, or for which there was no room.";
    HistoriesRefused Counter "tidegate_history_refused_publications" "" [] "Publications not kept because there was no room for another history.";
    PresenceRefused Counter "tidegate_presence_refused" "" [] "Members that a channel did not count because it had too many.";
    AnnouncementsHeld Counter "tidegate_announcements_held" "" [] "Joins and leaves that were not told singly.";
    PublicationsRepeated Counter "tidegate_publications_repeated" "" [] "Publications not made because one with the same idempotency key had been.";

    LoopLag Histogram "tidegate_loop_lag_seconds" "seconds" ["reactor"] "From when a reactor meant to wake to when it did.";
    LoopLagRecentMax Gauge "tidegate_loop_lag_recent_max_seconds" "seconds" ["reactor"] "Longest lag of the reactor's latest report.";
    TurnDuration Histogram "tidegate_turn_duration_seconds" "seconds" ["reactor"] "What a turn of a reactor took, sleep excluded.";
    MailboxLetters Gauge "tidegate_mailbox_letters" "" ["reactor"] "Letters waiting in the reactor's mailbox.";
    MailboxBytes Gauge "tidegate_mailbox_bytes" "bytes" ["reactor"] "Bytes of the letters waiting.";
    HandlerPanics Counter "tidegate_handler_panics" "" [] "Panics in handlers' callbacks.";

    ReportAge Gauge "tidegate_report_age_seconds" "seconds" ["reactor"] "Time since the reactor's latest report: what is said of it is so old.";
    ReportsDelayed Counter "tidegate_reports_delayed" "" ["reactor"] "Times a report had to wait for room; nothing is lost by it.";
    MetricsRestarts Counter "tidegate_metrics_thread_restarts" "" [] "Times the metrics thread began anew after a failure.";
    LogLinesDropped Counter "tidegate_log_lines_dropped" "" [] "Lines of the log dropped because its reader was too slow.";
    Reloads Counter "tidegate_reloads" "" ["result"] "Configurations read again, and put in force or not.";
    AlertsFiring Gauge "tidegate_alerts_firing" "" ["severity"] "Alerts that are firing.";
    NotificationsDelivered Counter "tidegate_alert_notifications_delivered" "" [] "Alert notifications taken by their receiver.";
    NotificationsPending Gauge "tidegate_alert_notifications_pending" "" [] "Alert notifications that wait for their receiver.";
    NotificationsDropped Counter "tidegate_alert_notifications_dropped" "" [] "Alert notifications given up because their receiver did not take them.";
    CertificateRemaining Gauge "tidegate_certificate_remaining_seconds" "seconds" [] "Time until the first certificate expires; negative after it.";
    Memory Gauge "tidegate_memory_bytes" "bytes" ["component"] "Memory held, by component.";

    KernelListenOverflows Counter "tidegate_kernel_listen_overflows" "" [] "Connections the kernel dropped because an accept queue was full (host).";
    KernelListenDrops Counter "tidegate_kernel_listen_drops" "" [] "Connection requests the kernel dropped at listening sockets for any reason (host).";
    KernelSynDrops Counter "tidegate_kernel_syn_drops" "" [] "SYNs the kernel dropped because a request queue was full (host).";
    KernelTcpMemory Gauge "tidegate_kernel_tcp_memory_bytes" "bytes" [] "Memory of TCP sockets (host).";
    KernelTcpMemoryLimit Gauge "tidegate_kernel_tcp_memory_limit_bytes" "bytes" [] "Where the kernel refuses memory to TCP sockets: the last of net.ipv4.tcp_mem.";
    KernelTcpOrphans Gauge "tidegate_kernel_tcp_orphans" "" [] "Sockets closed by their program and not by TCP yet (host).";
    KernelConntrackEntries Gauge "tidegate_kernel_conntrack_entries" "" [] "Connections the firewall keeps track of (host).";
    KernelConntrackLimit Gauge "tidegate_kernel_conntrack_limit" "" [] "Connections the firewall keeps track of at most.";
    CgroupMemory Gauge "tidegate_cgroup_memory_bytes" "bytes" [] "Memory of the control group.";
    CgroupMemoryLimit Gauge "tidegate_cgroup_memory_limit_bytes" "bytes" [] "Memory the control group may have.";
    CgroupThrottled Counter "tidegate_cgroup_throttled_seconds" "seconds" [] "Time the control group was kept from running.";

    ProcessCpu Counter "process_cpu_seconds" "seconds" [] "CPU time of the process, user and system.";
    ProcessResident Gauge "process_resident_memory_bytes" "bytes" [] "Resident memory of the process.";
    ProcessVirtual Gauge "process_virtual_memory_bytes" "bytes" [] "Virtual memory of the process.";
    ProcessOpenFds Gauge "process_open_fds" "" [] "Descriptors the process has open.";
    ProcessMaxFds Gauge "process_max_fds" "" [] "Descriptors the process may have open.";
    ProcessStartTime Gauge "process_start_time_seconds" "seconds" [] "When the process started, in seconds since 1970.";
}

impl Metric {
    /// The name of its sample, as a query names it: of a histogram, the family's.
    #[must_use]
    pub fn sample_name(self) -> String {
        let Spec { name, kind, .. } = self.spec();
        match kind {
            Kind::Counter => format!("{name}_total"),
            Kind::Info => format!("{name}_info"),
            Kind::Gauge | Kind::Histogram => (*name).to_owned(),
        }
    }

    /// The metric, and its part, that a query names so: `tidegate_connections`,
    /// `tidegate_refusals_total`, `tidegate_loop_lag_seconds_count`.
    #[must_use]
    pub fn find(sample: &str) -> Option<(Self, Part)> {
        Self::ALL.iter().find_map(|&metric| {
            let spec = metric.spec();
            let part = match (spec.kind, sample.strip_prefix(spec.name)?) {
                (Kind::Counter, "_total") | (Kind::Gauge, "") | (Kind::Info, "_info") => {
                    Part::Value
                }
                (Kind::Histogram, "_sum") => Part::Sum,
                (Kind::Histogram, "_count") => Part::Count,
                _ => return None,
            };
            Some((metric, part))
        })
    }
}

/// The table of metrics in Markdown, as the README shows it. Ends in a newline.
#[must_use]
pub fn metrics_markdown() -> String {
    let mut out =
        String::from("| metric | type | labels | what it says |\n| --- | --- | --- | --- |\n");
    for &metric in Metric::ALL {
        let Spec {
            kind, labels, help, ..
        } = metric.spec();
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (metric.sample_name(), kind.name(), labels.join(", "));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {help} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_none_is_the_beginning_of_anothers_samples() {
        let mut samples = BTreeSet::new();
        for metric in Metric::ALL {
            let name = metric.spec().name;
            for suffix in [
                "", "_total", "_info", "_bucket", "_sum", "_count", "_created",
            ] {
                assert!(samples.insert(format!("{name}{suffix}")), "{name}{suffix}");
            }
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in Metric::ALL {
            let Spec {
                name,
                kind,
                unit,
                labels,
                help,
            } = metric.spec();
            assert!(
                name.starts_with("tidegate_") || name.starts_with("process_"),
                "{name}"
            );
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            for unit_word in ["seconds", "bytes", "ratio"] {
                assert_eq!(
                    name.ends_with(&format!("_{unit_word}")),
                    *unit == unit_word,
                    "{name}"
                );
            }
            assert!(
                *kind != Kind::Info || unit.is_empty(),
                "{name}: an info has no unit"
            );
            assert!(help.ends_with('.') && !help.contains(['\n', '|']), "{name}");
            for label in *labels {
                assert!(!["user", "address", "channel", "path", "origin", "le"].contains(label));
            }
        }
    }

    #[test]
    fn a_metric_is_found_by_the_names_of_its_samples_only() {
        for &metric in Metric::ALL {
            let name = metric.spec().name;
            match metric.spec().kind {
                Kind::Histogram => {
                    assert_eq!(
                        Metric::find(&format!("{name}_sum")),
                        Some((metric, Part::Sum))
                    );
                    assert_eq!(
                        Metric::find(&format!("{name}_count")),
                        Some((metric, Part::Count))
                    );
                    assert_eq!(Metric::find(name), None);
                }
                _ => assert_eq!(
                    Metric::find(&metric.sample_name()),
                    Some((metric, Part::Value))
                ),
            }
        }
        assert_eq!(Metric::find("tidegate_refusals"), None);
        assert_eq!(Metric::find(""), None);
    }

    #[test]
    fn the_table_has_a_line_for_each_metric() {
        let table = metrics_markdown();
        assert_eq!(table.lines().count(), 2 + Metric::ALL.len());
        assert!(table.contains("| `tidegate_refusals_total` | counter | `stage`, `reason` |"));
    }
}
