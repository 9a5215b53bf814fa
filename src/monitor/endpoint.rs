//! The monitor: takes reports in, keeps what they say, and answers requests by one table of paths.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::Access;
use super::alerts::AlertBoard;
use super::answer::{PRIVATE, Problem, send_json};
use super::health::{self, Health, Unready};
use super::inspector::{Asked, Farewell, Order, Sweeps, read_json};
use super::kernel::Kernel;
use super::live::{self, Live, Sight};
use super::{History, Shared, Subject, dashboard, tables};
use crate::admission::rate::Moment;
use crate::admission::revocation::Revocation;
use crate::conn::{ConnectionId, Endpoint, Services};
use crate::hooks::HookWatch;
use crate::http::exchange::{Field, Request, Response};
use crate::hub::Channel;
use crate::metrics::daily::DAYS_MAX;
use crate::metrics::figures::ServerFigures;
use crate::metrics::original::Original;
use crate::metrics::report::Millis;
use crate::metrics::{Daily, Figures, Measure, Registry, Report, Totals, exposition};

/// Panics after which the monitor begins anew; after one more it gives up.
pub const RESTARTS_MAX: u32 = 3;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Healthz,
    Readyz,
    Version,
    Metrics,
    OriginalMetrics,
    OriginalActive,
    Connections,
    Disconnect,
    Revoke,
    Daily,
    Funnel,
    Figures,
    Alerts,
    History,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// Somebody who knows the token, or does not need to.
    Administrator,
    /// Somebody who was not asked for it.
    Anybody,
}

/// Every path, its methods, and what it is for. A slash at the end may be left out or be there.
const PATHS: &[(&str, &str, Action)] = &[
    ("/healthz", READ, Action::Healthz),
    ("/health", READ, Action::Healthz),
    ("/readyz", READ, Action::Readyz),
    ("/ready", READ, Action::Readyz),
    ("/version", READ, Action::Version),
    ("/metrics", READ, Action::Metrics),
    (
        "/api/monitoring/websocket/metrics",
        READ,
        Action::OriginalMetrics,
    ),
    (
        "/api/monitoring/websocket/active-connections",
        READ,
        Action::OriginalActive,
    ),
    (CONNECTIONS, READ, Action::Connections),
    (
        "/api/monitoring/websocket/disconnect",
        WRITE,
        Action::Disconnect,
    ),
    ("/api/monitoring/websocket/revoke", WRITE, Action::Revoke),
    ("/api/monitoring/websocket/daily", READ, Action::Daily),
    ("/api/monitoring/websocket/funnel", READ, Action::Funnel),
    ("/api/monitoring/websocket/figures", READ, Action::Figures),
    ("/api/monitoring/websocket/alerts", READ, Action::Alerts),
    ("/api/monitoring/websocket/history", READ, Action::History),
];

const READ: &str = "GET, HEAD";
const WRITE: &str = "POST";
const CONNECTIONS: &str = "/api/monitoring/websocket/connections";

/// The endpoint of the metrics thread.
pub(super) struct Monitor {
    shared: Arc<Shared>,
    access: Access,
    kernel: Kernel,
    history: History,
    totals: Totals,
    registry: Registry,
    daily: Daily,
    sweeps: Sweeps,
    board: AlertBoard,
    live: Live,
    /// Where those who watch the dashboard listen.
    watchers: Option<Channel>,
    /// The figures of the last tick; none before the first.
    latest: Option<Latest>,
    restarts: u32,
    has_failed: bool,
    /// For each reactor, whether it has to tell again who is connected.
    is_forgotten: Vec<bool>,
}

/// What was so at a tick. It is shown until the next one, however often it is asked for (H7).
struct Latest {
    figures: Figures,
    /// The figures as `/metrics` shows them, once somebody has asked.
    text: Option<Box<[u8]>>,
}

impl Endpoint for Monitor {
    fn respond(
        &mut self,
        request: &Request<'_>,
        response: &mut Response<'_>,
        services: &mut Services,
    ) {
        if let Err(problem) = self.answer(request, response, services) {
            problem.send(response);
        }
    }

    fn receive(&mut self, mut report: Box<Report>, services: &mut Services) -> Box<Report> {
        let wall = services.wall;
        let number = usize::from(report.reactor);
        self.guard(|monitor| monitor.take(&mut report, wall));
        report.clear();
        let is_forgotten = self.is_forgotten.get_mut(number);
        report.rows_lost = is_forgotten.is_some_and(std::mem::take);
        report
    }

    fn tick(&mut self, services: &mut Services) {
        let shared = Arc::clone(&self.shared);
        let Some(subject) = shared.subject.get() else {
            return;
        };
        let wall = services.wall;
        self.guard(|monitor| {
            monitor.daily.observe(wall, monitor.totals.open());
            let latest = monitor.look(subject, wall);
            if let Some(observer) = &shared.settings.observer {
                observer(subject.now(), &latest.figures);
            }
            let watchers = monitor.watchers.as_ref();
            let is_watched =
                watchers.is_some_and(|channel| services.hub.table.subscribers(channel) > 0);
            let frame = monitor.tell(subject, wall, &latest.figures, is_watched);
            if let Some((watchers, frame)) = monitor.watchers.as_ref().zip(frame) {
                // A frame that does not fit is followed by another in a second.
                services.hub.publish(watchers, &frame.into());
            }
            monitor.latest = Some(latest);
            monitor.sweeps.tick(&monitor.registry, &subject.handle);
            monitor.history.tick(&monitor.daily, wall);
        });
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.history.close(&self.daily);
    }
}

impl Monitor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let settings = &shared.settings;
        let wall = super::wall();
        let (rules, webhook) = (settings.alerts.clone(), settings.webhook.clone());
        let board = AlertBoard::new(rules, webhook).unwrap_or_else(|(index, error)| {
            tracing::error!(rule = index, %error, "there are no alerts: a rule makes no sense");
            AlertBoard::default()
        });
        let (history, daily) =
            History::open(settings.daily_file.as_deref(), wall).unwrap_or_else(|error| {
                tracing::error!(%error, "the figures of days are not kept");
                (History::none(wall), Daily::new(wall))
            });
        Self {
            access: shared.access.clone(),
            kernel: Kernel::new(),
            history,
            totals: Totals::default(),
            registry: Registry::default(),
            daily,
            sweeps: Sweeps::default(),
            board,
            live: Live::default(),
            watchers: Channel::new(live::CHANNEL).ok(),
            latest: None,
            restarts: 0,
            has_failed: false,
            is_forgotten: Vec::new(),
            shared,
        }
    }

    /// Does something that a panic in must not end the process with. What may have been left half done
    /// by one is thrown away, and told again by the reactors; sums stay, as they cannot be.
    fn guard(&mut self, what: impl FnOnce(&mut Self)) {
        if self.has_failed || catch_unwind(AssertUnwindSafe(|| what(self))).is_ok() {
            return;
        }
        self.restarts += 1;
        self.registry = Registry::default();
        self.sweeps = Sweeps::default();
        self.has_failed = self.restarts > RESTARTS_MAX;
        self.is_forgotten = vec![true; self.totals.reactors.len()];
        let restarts = self.restarts;
        if self.has_failed {
            tracing::error!(restarts, "monitoring has failed once too often and is over");
        } else {
            tracing::error!(restarts, "monitoring has failed and begins anew");
        }
    }

    /// Takes a report in.
    fn take(&mut self, report: &mut Report, wall: u64) {
        let flow = self.totals.apply(report);
        self.registry.apply(&mut report.rows);
        let durations = report.histograms.of(Measure::ConnectionDuration);
        self.daily.add(wall, &flow, durations, self.totals.open());
        self.history.note();
    }

    /// Looks at the alerts, and makes the frame for those who watch, if anybody does.
    fn tell(
        &mut self,
        subject: &Subject,
        wall: u64,
        figures: &Figures,
        is_watched: bool,
    ) -> Option<String> {
        let now = subject.now();
        self.board.tick(now, wall, figures);
        let is_ready = self.readiness().is_ok();
        let sight = Sight {
            now,
            wall,
            is_ready,
            figures,
            totals: &self.totals,
            registry: &self.registry,
            alerts: &self.board,
        };
        self.live.tick(&sight);
        is_watched.then(|| self.live.frame(&sight)).flatten()
    }

    /// The figures of this moment.
    fn look(&self, subject: &Subject, wall: u64) -> Latest {
        let now = subject.now();
        let expires = subject
            .acceptor
            .as_ref()
            .and_then(crate::tls::Acceptor::not_after);
        let notified = self.board.webhook().unwrap_or_default();
        let mut memory = self.totals.memory();
        let hooks = subject.hooks.as_ref().map(HookWatch::figures);
        let registry = self.registry.bytes_held() + self.registry.names_bytes_held();
        memory.extend([
            ("registry", registry as u64),
            ("admission", subject.handle.gate().bytes_held() as u64),
            ("hooks", hooks.as_ref().map_or(0, |hooks| hooks.queue_bytes)),
        ]);
        let server = ServerFigures {
            alerts_firing: self.board.firing(),
            notifications_delivered: notified.delivered,
            notifications_pending: notified.pending,
            notifications_dropped: notified.dropped,
            is_ready: self.readiness().is_ok(),
            connections_limit: Some(subject.handle.served().connections_max.into()),
            certificate_remaining: expires.map(|at| remaining(at, wall)),
            reloads: subject.reloads.figures(),
            log_lines_dropped: subject.lines_lost.as_ref().map_or(0, |lost| lost.total()),
            metrics_restarts: u64::from(self.restarts),
            slow_consumers: self.totals.slow_consumers(),
            memory,
            hooks,
        };
        let figures = Figures::gather(
            now,
            &self.totals,
            &self.registry,
            &server,
            &self.kernel.process(),
            &self.kernel.host(),
        );
        Latest {
            figures,
            text: None,
        }
    }

    fn silence(&self) -> Option<Millis> {
        let now = self.shared.subject.get()?.now();
        health::longest_silence(now, &self.totals).filter(|_| !self.has_failed)
    }

    fn readiness(&self) -> Result<(), Unready> {
        let settings = &self.shared.settings;
        let interval = u64::try_from(settings.report_interval.as_millis()).unwrap_or(Millis::MAX);
        let subject = self.shared.subject.get();
        health::readiness(
            subject,
            settings.ready_percent_max,
            self.silence(),
            interval,
        )
    }

    fn answer(
        &mut self,
        request: &Request<'_>,
        response: &mut Response<'_>,
        services: &mut Services,
    ) -> Result<(), Problem> {
        let path = request.path();
        let is_page = dashboard::is_at(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let found = PATHS.iter().find(|(known, ..)| *known == path);
        let one = path
            .strip_prefix(CONNECTIONS)
            .and_then(|rest| rest.strip_prefix('/'));
        // What a probe hears is a word.
        let is_probe = matches!(found, Some((.., Action::Healthz | Action::Readyz)))
            && request.query().is_none();
        let checked = self.check(request, is_page, is_probe, services.moment);
        if !matches!(checked, Ok(Asker::Administrator)) {
            // There are few places here: a stranger's connection ends with its answer, or strangers
            // would keep administrators out with idle ones.
            response.close();
        }
        checked?;
        if is_page {
            return dashboard::respond(request, response);
        }
        let (methods, action) = match (found, one) {
            (Some((_, methods, action)), _) => (*methods, Some(*action)),
            (None, Some(_)) => (READ, None),
            (None, None) => return Err(Problem::new(404, "there is nothing here")),
        };
        if !methods.split(", ").any(|method| method == request.method()) {
            return Err(Problem {
                allow: Some(methods),
                ..Problem::new(405, "this method changes or reads nothing here")
            });
        }
        if methods == WRITE {
            Access::check_intent(request)?;
        }
        match action {
            Some(Action::Healthz) => self.send_health(request, response, Ok(())),
            Some(Action::Readyz) => {
                let readiness = self.readiness();
                self.send_health(request, response, readiness);
            }
            Some(Action::Version) => {
                send_json(response, 200, &Version::default());
            }
            _ => return self.answer_by_figures(request, response, services, action, one),
        }
        Ok(())
    }

    /// Who asks, if they may.
    fn check(
        &mut self,
        request: &Request<'_>,
        is_page: bool,
        is_probe: bool,
        now: Moment,
    ) -> Result<Asker, Problem> {
        self.access.check_host(request)?;
        if is_page {
            self.access.check_page_rate(now)?;
        } else if !is_probe {
            // Everything else is for administrators.
            self.access.check_token(request, now)?;
            return Ok(Asker::Administrator);
        }
        // Where no token is asked for, whoever comes is one.
        Ok(match self.access.has_token() {
            true => Asker::Anybody,
            false => Asker::Administrator,
        })
    }

    /// Answers what needs figures: while there are none, with 503 and never with zeros (X6).
    fn answer_by_figures(
        &mut self,
        request: &Request<'_>,
        response: &mut Response<'_>,
        services: &mut Services,
        action: Option<Action>,
        one: Option<&str>,
    ) -> Result<(), Problem> {
        let shared = Arc::clone(&self.shared);
        if self.has_failed {
            return Err(Problem::new(
                503,
                "monitoring has failed; restart the server",
            ));
        }
        let Some(subject) = shared.subject.get() else {
            return Err(Problem {
                retry_after: Some(Duration::from_secs(1)),
                ..Problem::new(503, "the server is starting")
            });
        };
        let wall = services.wall;
        let served = subject.handle.served();
        let asked = Asked {
            now: subject.now(),
            wall,
            routes: &served.paths,
        };
        match action {
            Some(Action::Metrics) => self.send_metrics(response, subject, wall),
            Some(Action::OriginalMetrics) => {
                let original = self.original(wall);
                send_text(response, &original.metrics_json());
            }
            Some(Action::OriginalActive) => {
                let original = self.original(wall);
                send_text(response, &original.active_connections_json());
            }
            Some(Action::Connections) => {
                let query = asked.query(parameters(request)?.iter().map(|(n, v)| (n, v)))?;
                send_json(response, 200, &asked.page(&query, &self.registry));
            }
            Some(Action::Disconnect) => {
                let order = Order::read(request.body(), &asked)?;
                let accepted = self.disconnect(order, subject)?;
                send_json(response, 202, &Accepted { accepted });
            }
            Some(Action::Revoke) => {
                let (revocation, lifetime) = read_revocation(request.body())?;
                let revoked = subject.handle.revoke(&revocation, lifetime);
                revoked.map_err(|error| Problem::new(503, error.to_string()))?;
                tracing::info!(?revocation, seconds = lifetime.as_secs(), "revoked");
                send_json(response, 200, &Revoked { revoked: true });
            }
            Some(Action::Daily) => {
                let days = days_asked(request)?;
                send_json(response, 200, &tables::days(&self.daily, days, wall));
            }
            Some(Action::Funnel) => send_json(response, 200, &tables::funnel(&self.totals, wall)),
            Some(Action::Figures) => {
                let latest = self.latest(subject, wall);
                send_json(response, 200, &tables::all_figures(&latest.figures, wall));
            }
            Some(Action::Alerts) => send_json(response, 200, &self.board.to_json()),
            Some(Action::History) => send_json(response, 200, &self.live.history()),
            None => {
                let id = one.and_then(|text| text.parse::<ConnectionId>().ok());
                let view = id.and_then(|id| self.registry.get(id));
                let view = view.ok_or_else(|| Problem::new(404, "no such connection is open"))?;
                send_json(response, 200, &asked.connection(view));
            }
            Some(Action::Healthz | Action::Readyz | Action::Version) => {}
        }
        Ok(())
    }

    fn original(&self, wall: u64) -> Original {
        Original::gather(wall, &self.totals, &self.daily)
    }

    fn latest(&mut self, subject: &Subject, wall: u64) -> &mut Latest {
        let latest = match self.latest.take() {
            Some(latest) => latest,
            None => self.look(subject, wall),
        };
        self.latest.insert(latest)
    }

    fn send_metrics(&mut self, response: &mut Response<'_>, subject: &Subject, wall: u64) {
        let Latest { figures, text } = self.latest(subject, wall);
        let text = text.get_or_insert_with(|| exposition::render(figures).into_bytes().into());
        response.send(200, &PRIVATE, exposition::CONTENT_TYPE, text);
    }

    fn send_health(
        &self,
        request: &Request<'_>,
        response: &mut Response<'_>,
        state: Result<(), Unready>,
    ) {
        let (status, word) = match state {
            Ok(()) => (200, "ok"),
            Err(unready) => (503, unready.label()),
        };
        let is_verbose = request
            .parameters()
            .any(|pair| pair.is_ok_and(|(name, _)| name == "verbose"));
        if is_verbose {
            let health = Health::new(
                word,
                self.shared.subject.get(),
                self.silence(),
                (self.has_failed, self.restarts),
                &self.shared.settings.warnings,
            );
            return send_json(response, status, &health);
        }
        let fields = [(Field::CacheControl, "no-store")];
        let text = format!("{word}\n");
        response.send(
            status,
            &fields,
            "text/plain; charset=utf-8",
            text.as_bytes(),
        );
    }

    /// Does what was ordered, or begins to; returns how many connections are meant.
    fn disconnect(&mut self, order: Order, subject: &Subject) -> Result<usize, Problem> {
        match order {
            Order::One(id, Farewell { code, reason }) => {
                if self.registry.get(id).is_none() {
                    return Err(Problem::new(404, "no such connection is open"));
                }
                let closed = subject.handle.close(id, code, &reason);
                closed.map_err(|error| Problem {
                    retry_after: Some(Duration::from_secs(1)),
                    ..Problem::new(503, error.to_string())
                })?;
                tracing::info!(connection = %id, "disconnected by an administrator");
                Ok(1)
            }
            Order::Many(sweep) => {
                let count = self.registry.count(&sweep.filter);
                self.sweeps.begin(sweep)?;
                self.sweeps.tick_last(&self.registry, &subject.handle);
                tracing::info!(count, "an administrator disconnects by filter");
                Ok(count)
            }
        }
    }
}

/// Seconds until a moment, both in seconds since 1970.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 seconds are longer than any certificate lasts"
)]
fn remaining(at: i64, wall: u64) -> f64 {
    at as f64 - wall as f64
}

/// The pairs of a query.
fn parameters(request: &Request<'_>) -> Result<Vec<(String, String)>, Problem> {
    let pairs = request.parameters().map(|pair| {
        let (name, value) = pair.map_err(|error| Problem::bad(error.to_string()))?;
        Ok((name.into_owned(), value.into_owned()))
    });
    pairs.collect()
}

/// Days in an answer unless the question says otherwise.
const DAYS: usize = 30;

fn days_asked(request: &Request<'_>) -> Result<usize, Problem> {
    let mut days = DAYS;
    for (name, value) in parameters(request)? {
        let asked = value
            .parse()
            .ok()
            .filter(|days| (1..=DAYS_MAX).contains(days));
        match (name.as_str(), asked) {
            ("days", Some(asked)) => days = asked,
            _ => {
                return Err(Problem::bad(format!(
                    "there is one parameter, days: 1 to {DAYS_MAX}"
                )));
            }
        }
    }
    Ok(days)
}

/// The body of `POST …/revoke/`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    user: Option<String>,
    jti: Option<String>,
    seconds: Option<u64>,
}

/// Longest that a revocation is kept, in seconds: a year.
const REVOKED_SECONDS_MAX: u64 = 366 * 86_400;
/// How long it is kept unless the request says otherwise, in seconds: a day.
const REVOKED_SECONDS: u64 = 86_400;
/// Longest name of a user or a token in bytes.
const REVOKED_BYTES_MAX: usize = 1_024;

fn read_revocation(body: &[u8]) -> Result<(Revocation, Duration), Problem> {
    let Revoke { user, jti, seconds } = read_json(body)?;
    let seconds = seconds.unwrap_or(REVOKED_SECONDS);
    if !(1..=REVOKED_SECONDS_MAX).contains(&seconds) {
        return Err(Problem::bad(format!("seconds: 1 to {REVOKED_SECONDS_MAX}")));
    }
    let name = user.as_ref().or(jti.as_ref()).map_or(0, String::len);
    if !(1..=REVOKED_BYTES_MAX).contains(&name) {
        return Err(Problem::bad(format!(
            "user or jti: 1 to {REVOKED_BYTES_MAX} bytes"
        )));
    }
    let revocation = match (user, jti) {
        (Some(user), None) => Revocation::User(user),
        (None, Some(jti)) => Revocation::TokenId(jti),
        _ => return Err(Problem::bad("say either user or jti")),
    };
    Ok((revocation, Duration::from_secs(seconds)))
}

fn send_text(response: &mut Response<'_>, json: &str) {
    response.send(200, &PRIVATE, "application/json", json.as_bytes());
}

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
}

#[derive(Serialize)]
struct Revoked {
    revoked: bool,
}

/// The answer to `/version`.
#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}
