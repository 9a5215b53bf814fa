//! The webhook: a thread that posts alerts to whoever is to be woken.
//!
//! Whoever notices an alert hands it over without waiting; what the receiver has not taken yet waits in a
//! bounded queue, and is tried again after pauses that double up to a cap. When the queue is full the oldest
//! goes; what goes, or is given up, is counted, and so is what waits.
//!
//! A post is JSON, signed as [`signature`](crate::signature) says. Any answer from 200 to 299 takes it.
//! An answer that says that the post itself is at fault (400 to 499, but for 408, 425 and 429) is tried
//! [`REFUSALS_MAX`] times only. Nothing in an answer counts but its status; one that cannot be read, or is
//! longer than 64 KiB, is a failure like any other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use zeroize::Zeroizing;

use crate::config::{Secret, WebhookConfig};
use crate::file;
use crate::outbound::{self, Client};
use crate::reactor::worker::{now, wall};
use crate::signature::{ID_HEADER, SIGNATURE_HEADER, Signer, TIMESTAMP_HEADER};

/// Attempts at a post that the receiver calls faulty.
pub const REFUSALS_MAX: u32 = 5;

/// The pause after the first failure; it doubles with each further one.
pub const RETRY_MIN: Duration = Duration::from_secs(1);

/// How long the thread goes on with what waits when the server ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a webhook is made of.
#[derive(Debug)]
pub struct Settings {
    /// Who posts.
    pub client: Client,
    /// Signs what is posted; without one, posts have no signature.
    pub signer: Option<Signer>,
    /// Most notifications that wait, at least 1.
    pub queue_max: usize,
    /// The first pause between two attempts. Default of the program: [`RETRY_MIN`].
    pub retry_min: Duration,
    /// The longest.
    pub retry_max: Duration,
    /// How long a notification is tried.
    pub give_up_after: Duration,
}

impl Webhook {
    /// The webhook that a configuration asks for, started; none if it names no URL. Reads the secret's
    /// file and the authorities.
    ///
    /// # Errors
    /// A file that cannot be read or used, a URL that cannot be called, a thread that cannot be started;
    /// the error names the key.
    pub fn configured(config: &WebhookConfig) -> io::Result<Option<Self>> {
        let Some(url) = &config.url else {
            return Ok(None);
        };
        let named = |error: String| io::Error::new(io::ErrorKind::InvalidInput, error);
        let secret = match (&config.secret, &config.secret_file) {
            (Some(secret), _) => Some(Zeroizing::new(secret.expose().to_owned())),
            (None, Some(path)) => {
                let text = file::read(path, SECRET_BYTES_MAX).map_err(|error| {
                    named(format!("webhook.secret_file {} {error}", path.display()))
                })?;
                let text = std::str::from_utf8(&text)
                    .map(str::trim_end)
                    .unwrap_or_default();
                let secret = Secret::new(text).map_err(|error| {
                    named(format!("webhook.secret_file {}: {error}", path.display()))
                })?;
                Some(Zeroizing::new(secret.expose().to_owned()))
            }
            (None, None) => None,
        };
        let options = outbound::Options {
            allow_http: config.allow_http,
            reach: outbound::Reach {
                private: config.allow_private_addresses,
                ..outbound::Reach::default()
            },
            ca_file: config.ca_file.clone(),
            timeout: config.timeout,
            ..outbound::Options::default()
        };
        let client = Client::new(url, options)
            .map_err(|fault| named(format!("webhook.url {} {fault}", outbound::shown(url))))?;
        Self::start(Settings {
            client,
            signer: secret.map(|secret| Signer::new(&secret)),
            queue_max: config.queue_max as usize,
            retry_min: RETRY_MIN,
            retry_max: config.retry_max,
            give_up_after: config.give_up_after,
        })
        .map(Some)
    }
}

/// Longest file of a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 4 * 1024;

/// One post that is to be made.
#[derive(Debug)]
struct Notification {
    /// The same for all attempts.
    id: String,
    body: Vec<u8>,
    since: Instant,
}

/// What became of notifications.
#[derive(Debug, Default)]
struct Tally {
    handed_over: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
    /// Failures since the last success.
    failures_in_a_row: AtomicU64,
}

/// What became of notifications, as figures.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Taken by the receiver.
    pub delivered: u64,
    /// Given up, or pushed out of a full queue.
    pub dropped: u64,
    /// Neither yet.
    pub pending: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Attempts that failed since one succeeded: more than 0 while the receiver is down.
    pub failures_in_a_row: u64,
}

/// The way to the thread. Dropping it lets the thread try once more what waits, and waits for it.
#[derive(Debug)]
pub struct Webhook {
    /// Distinguishes the ids of this process from those of others.
    origin: u64,
    sender: Option<Sender<Notification>>,
    /// The other end once more, to make room.
    queue: Receiver<Notification>,
    tally: Arc<Tally>,
    /// Its loss ends a pause.
    farewell: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Webhook {
    /// Starts the thread.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let (sender, queue) = bounded(settings.queue_max.max(1));
        let (farewell, ending) = bounded(0);
        let tally = Arc::new(Tally::default());
        let worker = Worker {
            settings,
            queue: queue.clone(),
            ending,
            tally: Arc::clone(&tally),
            random: ahash::RandomState::new(),
        };
        let thread = std::thread::Builder::new()
            .name("webhook".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            origin: ahash::RandomState::new().hash_one(wall()),
            sender: Some(sender),
            queue,
            tally,
            farewell: Some(farewell),
            thread: Some(thread),
        })
    }

    /// Hands a post over; never waits. If the queue is full, the oldest one in it is dropped.
    pub fn post(&self, body: Vec<u8>) {
        let number = self.tally.handed_over.fetch_add(1, Relaxed);
        let mut notification = Notification {
            id: format!("alert_{:016x}_{number}", self.origin),
            body,
            since: now(),
        };
        let Some(sender) = &self.sender else { return };
        while let Err(error) = sender.try_send(notification) {
            match error {
                TrySendError::Full(returned) => notification = returned,
                TrySendError::Disconnected(_) => {
                    self.tally.dropped.fetch_add(1, Relaxed);
                    return;
                }
            }
            if self.queue.try_recv().is_ok() {
                self.tally.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    /// What became of all that was handed over.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let tally = &self.tally;
        let (delivered, dropped) = (tally.delivered.load(Relaxed), tally.dropped.load(Relaxed));
        let handed_over = tally.handed_over.load(Relaxed);
        Figures {
            delivered,
            dropped,
            pending: handed_over.saturating_sub(delivered + dropped),
            failures: tally.failures.load(Relaxed),
            failures_in_a_row: tally.failures_in_a_row.load(Relaxed),
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.sender = None;
        self.farewell = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Worker {
    settings: Settings,
    queue: Receiver<Notification>,
    ending: Receiver<()>,
    tally: Arc<Tally>,
    random: ahash::RandomState,
}

/// How it ended with a notification.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// Taken, or given up for what it is.
    Done,
    /// The server ends, and the receiver is down: there is no use in trying the others.
    Lost,
}

/// How one attempt ended.
enum Attempt {
    Taken,
    /// The receiver calls the post faulty.
    Refused(u16),
    Failed(String),
}

impl Worker {
    fn run(self) {
        // When the other end is gone, what is left in the queue still comes.
        let mut ended_at = None;
        let mut is_lost = false;
        for notification in &self.queue {
            if ended_at.is_none() && self.is_ending() {
                ended_at = Some(now());
            }
            if is_lost || ended_at.is_some_and(|at| now().duration_since(at) > FAREWELL) {
                self.give_up("the server ends");
            } else {
                is_lost = self.deliver(&notification) == Outcome::Lost;
            }
        }
    }

    fn is_ending(&self) -> bool {
        use crossbeam_channel::TryRecvError::Disconnected;
        self.ending.try_recv() == Err(Disconnected)
    }

    /// Tries until it is taken, given up, or the server ends.
    fn deliver(&self, notification: &Notification) -> Outcome {
        let Settings {
            retry_min,
            retry_max,
            give_up_after,
            ..
        } = &self.settings;
        let (mut pause, mut refusals) = (*retry_min, 0);
        loop {
            match self.attempt(notification) {
                Attempt::Taken => {
                    self.tally.delivered.fetch_add(1, Relaxed);
                    let failures = self.tally.failures_in_a_row.swap(0, Relaxed);
                    if failures > 0 {
                        tracing::info!(failures, "the webhook takes alerts again");
                    }
                    return Outcome::Done;
                }
                Attempt::Refused(status) => {
                    refusals += 1;
                    self.failed(&format!("the receiver answers {status}"));
                }
                Attempt::Failed(why) => self.failed(&why),
            }
            if refusals >= REFUSALS_MAX {
                self.give_up("the receiver calls it faulty");
                return Outcome::Done;
            }
            if now().duration_since(notification.since) >= *give_up_after {
                self.give_up("it has been tried for long enough");
                return Outcome::Done;
            }
            let spread = self.spread(pause, notification.since);
            if self.ending.recv_timeout(spread) == Err(RecvTimeoutError::Disconnected) {
                let last = self.attempt(notification);
                if let Attempt::Taken = last {
                    self.tally.delivered.fetch_add(1, Relaxed);
                } else {
                    self.give_up("the server ends");
                }
                return match last {
                    Attempt::Taken | Attempt::Refused(_) => Outcome::Done,
                    Attempt::Failed(_) => Outcome::Lost,
                };
            }
            pause = pause.saturating_mul(2).min(*retry_max);
        }
    }

    fn attempt(&self, notification: &Notification) -> Attempt {
        let (id, body) = (notification.id.as_str(), notification.body.as_slice());
        let at = wall();
        let timestamp = at.to_string();
        let signature = self.settings.signer.as_ref();
        let signature = signature.map(|signer| signer.sign(id, at, body));
        let mut headers = vec![
            ("content-type", "application/json"),
            (ID_HEADER, id),
            (TIMESTAMP_HEADER, &timestamp),
        ];
        if let Some(signature) = &signature {
            headers.push((SIGNATURE_HEADER, signature));
        }
        match self.settings.client.post(body, &headers) {
            Ok(answer) => match answer.status {
                200..=299 => Attempt::Taken,
                status @ (400..=407 | 409..=424 | 426..=428 | 430..=499) => {
                    Attempt::Refused(status)
                }
                status => Attempt::Failed(format!("the receiver answers {status}")),
            },
            Err(error) => Attempt::Failed(error.to_string()),
        }
    }

    /// One line for an outage, not one for each attempt.
    fn failed(&self, why: &str) {
        self.tally.failures.fetch_add(1, Relaxed);
        if self.tally.failures_in_a_row.fetch_add(1, Relaxed) == 0 {
            tracing::warn!(
                why,
                waiting = self.queue.len() + 1,
                "the webhook does not take an alert; it is tried again"
            );
        }
    }

    fn give_up(&self, why: &str) {
        self.tally.dropped.fetch_add(1, Relaxed);
        tracing::error!(why, "an alert was not delivered to the webhook");
    }

    /// The pause less up to a tenth of it, so that a fleet does not come back all at once.
    fn spread(&self, pause: Duration, since: Instant) -> Duration {
        let step = u32::try_from(self.random.hash_one((pause, since)) % 1024).unwrap_or_default();
        pause - pause / 10 / 1024 * step
    }
}
