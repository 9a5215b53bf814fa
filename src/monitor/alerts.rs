//! The alerts' states, and who is told of a change: the log, the webhook, the dashboard.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::metrics;
use crate::metrics::alert::{Alert, Alerts, Rule, RuleError, Severity, State};
use crate::metrics::calendar::{UnixSeconds, timestamp};
use crate::metrics::report::Millis;
use crate::webhook::{self, Webhook};

/// The rules, their states, and the way to the webhook. Belongs to the monitor's thread.
#[derive(Debug, Default)]
pub(super) struct AlertBoard {
    alerts: Alerts,
    webhook: Option<Arc<Webhook>>,
    /// Which host speaks, for whoever gets notifications of several.
    host: String,
    /// The latest look.
    now: Millis,
    wall: UnixSeconds,
}

impl AlertBoard {
    /// All quiet.
    ///
    /// # Errors
    /// The index of the first rule that makes no sense, and what is wrong with it.
    pub(super) fn new(
        rules: Vec<Rule>,
        webhook: Option<Arc<Webhook>>,
    ) -> Result<Self, (usize, RuleError)> {
        Ok(Self {
            alerts: Alerts::new(rules)?,
            webhook,
            host: host(),
            now: 0,
            wall: 0,
        })
    }

    /// Looks at the figures and tells what has changed. To be called about once a second. Posting costs
    /// a place in a queue, never a wait.
    pub(super) fn tick(&mut self, now: Millis, wall: UnixSeconds, figures: &metrics::Figures) {
        (self.now, self.wall) = (now, wall);
        for change in self.alerts.evaluate(now, figures) {
            let Some(alert) = self.alerts.iter().nth(change.rule) else {
                continue;
            };
            let kind = match (change.from, change.to) {
                (_, State::Firing { .. }) => "alert.firing",
                (_, State::Resolved { .. }) => "alert.resolved",
                _ => {
                    tracing::debug!(alert = %alert.rule.name, state = change.to.label(), "an alert changes");
                    continue;
                }
            };
            log(alert);
            if let Some(webhook) = &self.webhook {
                let mut data = self.describe(alert);
                data["host"] = json!(self.host);
                data["version"] = json!(env!("CARGO_PKG_VERSION"));
                let body = json!({"type": kind, "timestamp": timestamp(wall), "data": data});
                webhook.post(body.to_string().into_bytes());
            }
        }
    }

    /// How many are firing, by severity.
    pub(super) fn firing(&self) -> Vec<(&'static str, u64)> {
        let count = |severity: Severity| (severity.label(), self.alerts.firing(severity));
        Severity::ALL.map(count).to_vec()
    }

    /// What became of notifications; none without a webhook.
    pub(super) fn webhook(&self) -> Option<webhook::Figures> {
        self.webhook.as_deref().map(Webhook::figures)
    }

    /// Every alert, as JSON.
    pub(super) fn list(&self) -> Vec<Value> {
        let alerts = self.alerts.iter();
        alerts.map(|alert| self.describe(alert)).collect()
    }

    /// The answer to `GET /api/monitoring/websocket/alerts/`.
    pub(super) fn to_json(&self) -> Value {
        let firing: serde_json::Map<String, Value> = self
            .firing()
            .into_iter()
            .map(|(severity, count)| (severity.to_owned(), json!(count)))
            .collect();
        json!({
            "alerts": self.list(),
            "firing": firing,
            "webhook": self.webhook_json(),
            "timestamp": timestamp(self.wall),
        })
    }

    /// The webhook's figures as JSON; null without one.
    pub(super) fn webhook_json(&self) -> Value {
        let Some(figures) = self.webhook() else {
            return Value::Null;
        };
        let webhook::Figures {
            delivered,
            dropped,
            pending,
            failures,
            failures_in_a_row,
        } = figures;
        json!({
            "delivered": delivered,
            "pending": pending,
            "dropped": dropped,
            "failures": failures,
            "failures_in_a_row": failures_in_a_row,
        })
    }

    fn describe(&self, alert: &Alert) -> Value {
        let Rule {
            name,
            signal,
            comparison,
            value,
            clear,
            for_ms,
            severity,
            about,
        } = &alert.rule;
        let (since, fired_at) = match alert.state {
            State::Inactive => (None, None),
            State::Pending { since } => (Some(since), None),
            State::Firing { since, fired_at } => (Some(since), Some(fired_at)),
            State::Resolved { at } => (Some(at), None),
        };
        let moment = |at: Millis| self.moment(at);
        json!({
            "name": name,
            "state": alert.state.label(),
            "severity": severity.label(),
            "figure": alert.figure,
            "value": signal.to_string(),
            "comparison": comparison.label(),
            "threshold": value,
            "clear": clear,
            "for_seconds": for_ms / 1000,
            "since": since.map(moment),
            "fired_at": fired_at.map(moment),
            "about": about,
        })
    }

    /// A moment of the monotonic clock, by the wall clock of the latest look.
    fn moment(&self, at: Millis) -> String {
        let ago = self.now.saturating_sub(at) / 1000;
        timestamp(self.wall.saturating_sub(ago))
    }
}

/// The host's name; empty where the kernel does not say.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// One line when an alert begins to fire, one when it is over.
fn log(alert: &Alert) {
    let rule = &alert.rule;
    let (name, figure, about) = (&*rule.name, alert.figure, &*rule.about);
    match (alert.state, rule.severity) {
        (State::Firing { .. }, Severity::Critical) => {
            tracing::error!(
                alert = name,
                figure,
                threshold = rule.value,
                about,
                "an alert fires"
            );
        }
        (State::Firing { .. }, Severity::Warning) => {
            tracing::warn!(
                alert = name,
                figure,
                threshold = rule.value,
                about,
                "an alert fires"
            );
        }
        _ => tracing::info!(alert = name, figure, clear = rule.clear, "an alert is over"),
    }
}
