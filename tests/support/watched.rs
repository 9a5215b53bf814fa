//! A server that is monitored, and the questions an administrator asks over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tidegate::monitor::{self, Monitoring, Subject};
use tidegate::{HandlerFactory, Route, Settings};

use super::{Client, PATIENCE, Running};

/// A server with its metrics thread. Both end, in their order, when the test is over.
pub struct Watched {
    pub running: Option<Running>,
    monitoring: Option<Monitoring>,
    /// Where administrators connect.
    pub admin: SocketAddr,
    /// Where clients connect.
    pub address: SocketAddr,
    token: Option<String>,
}

/// An answer of the monitor.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value).next_back()
    }
}

impl Watched {
    /// Starts both. Reports come as often as they may.
    pub fn start(settings: Settings, routes: Vec<(Route, Arc<dyn HandlerFactory>)>) -> Self {
        Self::start_with(monitor::Settings::default(), settings, routes)
    }

    /// The same with settings for the monitor.
    pub fn start_with(
        mut monitor: monitor::Settings,
        mut settings: Settings,
        routes: Vec<(Route, Arc<dyn HandlerFactory>)>,
    ) -> Self {
        monitor.report_interval = std::time::Duration::from_millis(50);
        monitor.requests_per_second = 10_000;
        let monitoring = Monitoring::start(monitor).unwrap();
        settings.reporter = Some(monitoring.reporter());
        let acceptor = settings.acceptor.clone();
        let running = Running::start(settings, routes);
        monitoring.watch(Subject {
            handle: running.handle.clone(),
            acceptor,
            lines_lost: None,
            reloads: Arc::default(),
            hooks: None,
        });
        Self {
            admin: monitoring.addresses()[0],
            address: running.address,
            running: Some(running),
            monitoring: Some(monitoring),
            token: None,
        }
    }

    /// Shows this token from now on.
    pub fn show(&mut self, token: &str) {
        self.token = Some(token.to_owned());
    }

    pub fn running(&mut self) -> &mut Running {
        self.running.as_mut().unwrap()
    }

    /// Asks with a whole request of one's own, which is to close the connection.
    pub fn ask_raw(&self, request: &str) -> Answer {
        ask(self.admin, request)
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let token = self.token.as_ref();
        let token = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let content = if body.is_empty() {
            String::new()
        } else {
            format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            )
        };
        self.ask_raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}{content}\r\n{body}"
        ))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// An answer with status 200, as JSON.
    pub fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Asks until the answer satisfies a condition.
    pub fn get_when(&self, path: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let value = self.get_json(path);
            if condition(&value) {
                return value;
            }
            assert!(Instant::now() < until, "{what} did not come true: {value}");
            std::thread::yield_now();
        }
    }

    /// The samples of `/metrics`, by name and labels as they are written.
    pub fn samples(&self) -> std::collections::BTreeMap<String, f64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    /// Asks for the samples until they satisfy a condition.
    pub fn samples_when(
        &self,
        what: &str,
        condition: impl Fn(&std::collections::BTreeMap<String, f64>) -> bool,
    ) -> std::collections::BTreeMap<String, f64> {
        let until = Instant::now() + PATIENCE;
        loop {
            let samples = self.samples();
            if condition(&samples) {
                return samples;
            }
            assert!(
                Instant::now() < until,
                "{what} did not come true: {samples:#?}"
            );
            std::thread::yield_now();
        }
    }

    /// Ends the server that is watched, and leaves the monitor running.
    pub fn stop_server(&mut self) -> tidegate::metrics::Counters {
        self.running.take().unwrap().stop()
    }

    /// Ends the monitor.
    pub fn finish(&mut self) {
        if let Some(monitoring) = self.monitoring.take() {
            monitoring.finish();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.running.take());
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

/// Sends a request that closes the connection, and reads the answer.
pub fn ask(admin: SocketAddr, request: &str) -> Answer {
    let mut client = Client::connect(admin);
    client.send(request.as_bytes());
    let head = client.read_head();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = String::from_utf8(client.read_to_end()).unwrap();
    Answer { status, head, body }
}

/// The sum of the samples whose names begin so.
pub fn sum(samples: &std::collections::BTreeMap<String, f64>, name: &str) -> f64 {
    let of_name = samples.iter().filter(|(known, _)| {
        known
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
    });
    of_name.map(|(_, value)| value).sum()
}
