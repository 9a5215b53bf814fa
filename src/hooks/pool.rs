//! The threads that call backends, and the one that decides which call is made when.
//!
//! ```text
//! reactors ──calls──→ hooks ──jobs──→ hook-0 … hook-N ──→ backends
//!     ↑                 │ ↑                │
//!     └──── answers ────┘ └─── results ────┘
//! ```
//!
//! Reactors never wait: a call that does not fit is refused at the door. What is between the doors and
//! the answers is bounded in calls and in bytes, by a [`Place`] that each call holds until its answer has
//! been handed over.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::answer::{self, Answer};
use super::breaker::Turn;
use super::dispatch::{Action, Attempt, Declined, Dispatcher, Job, Limits};
use super::event::Event;
use super::tally::{Outcome, Tally};
use super::{Letter, RouteTargets, Target};
use crate::conn::ConnectionId;
use crate::logging::Sampler;
use crate::outbound::CallError;
use crate::reactor::worker::wall;
use crate::server::Handle;
use crate::signature::{ID_HEADER, SIGNATURE_HEADER, Signer, TIMESTAMP_HEADER};

/// How soon a reactor whose mailbox was full is tried again.
const POST_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// How long an answer waits for its reactor.
const POST_FOR: Duration = Duration::from_secs(10);
/// Lines a second in the log for one way of failing.
const LINES_PER_SECOND: usize = 2;

/// What may be between the doors and the answers.
#[derive(Debug)]
pub(super) struct Room {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    calls_max: usize,
    bytes_max: usize,
}

impl Room {
    pub(super) const fn new(calls_max: usize, bytes_max: usize) -> Self {
        Self {
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            calls_max,
            bytes_max,
        }
    }

    /// A place for a call of so many bytes; `None` if there is none.
    pub(super) fn enter(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let place = Place {
            room: Arc::clone(self),
            bytes,
        };
        // Taken first and given back by the drop: no two threads take the last one.
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (calls <= self.calls_max && held <= self.bytes_max).then_some(place)
    }

    /// Calls and bytes that are there now.
    pub(super) fn load(&self) -> (usize, usize) {
        let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (read(&self.calls), read(&self.bytes))
    }
}

/// A call's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.calls.fetch_sub(1, Ordering::Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A call to a backend.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) connection: ConnectionId,
    pub(super) event: Event,
    pub(super) route: Arc<RouteTargets>,
    /// The route's place among all routes of the server.
    pub(super) route_index: u16,
    pub(super) target: Arc<Target>,
    /// The same for every attempt.
    pub(super) id: String,
    pub(super) body: Vec<u8>,
    pub(super) began: Instant,
    /// Held until the call is dropped.
    pub(super) _place: Place,
}

impl Job for Box<Call> {
    fn connection(&self) -> ConnectionId {
        self.connection
    }

    fn event(&self) -> Event {
        self.event
    }

    fn target(&self) -> usize {
        self.target.index
    }
}

/// What the dispatching thread hears.
pub(super) enum News {
    /// A call, from a reactor.
    Call(Box<Call>),
    /// How an attempt went, from a thread that calls.
    Done(Box<Call>, Attempt, Result<Answer, Outcome>),
    /// Everything is to end: what is under way within this time.
    End(Duration),
}

/// Threads that are running.
#[derive(Debug)]
pub(super) struct Threads {
    news: Sender<News>,
    dispatcher: Option<JoinHandle<()>>,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// What the system says of a thread that it does not start.
    pub(super) fn start(
        limits: Limits,
        targets: Vec<Arc<Target>>,
        signer: Option<Signer>,
        handle: Handle,
        tally: Arc<Tally>,
        (news, heard): (Sender<News>, Receiver<News>),
    ) -> std::io::Result<Self> {
        let (jobs, to_do) = crossbeam_channel::bounded::<Box<Call>>(limits.threads);
        let signer = Arc::new(signer);
        for number in 0..limits.threads {
            let (to_do, news) = (to_do.clone(), news.clone());
            let signer = Arc::clone(&signer);
            std::thread::Builder::new()
                .name(format!("hook-{number}"))
                .spawn(move || {
                    // Ends when the dispatching thread does.
                    for call in to_do {
                        let (attempt, result) = attempt(&call, signer.as_ref().as_ref());
                        if news.send(News::Done(call, attempt, result)).is_err() {
                            return;
                        }
                    }
                })?;
        }
        let mut desk = Desk {
            dispatcher: Dispatcher::new(limits),
            targets,
            jobs,
            handle,
            tally,
            unposted: VecDeque::new(),
            has_reactors: true,
            log: Sampler::new(LINES_PER_SECOND),
            actions: Vec::new(),
        };
        let dispatcher = std::thread::Builder::new()
            .name("hooks".to_owned())
            .spawn(move || desk.run(&heard))?;
        Ok(Self {
            news,
            dispatcher: Some(dispatcher),
        })
    }

    /// Waits until nothing is under way any more, at most so long, and ends the threads. The reactors have
    /// ended: nobody takes an answer any more.
    pub(super) fn finish(mut self, within: Duration) {
        let _ = self.news.send(News::End(within));
        if let Some(dispatcher) = self.dispatcher.take() {
            let _ = dispatcher.join();
        }
    }
}

/// Makes one attempt at a call.
fn attempt(call: &Call, signer: Option<&Signer>) -> (Attempt, Result<Answer, Outcome>) {
    // Whatever an answer may do to a parser, the next call is not its victim.
    catch_unwind(AssertUnwindSafe(|| post(call, signer)))
        .unwrap_or((Attempt::Answered, Err(Outcome::Internal)))
}

fn post(call: &Call, signer: Option<&Signer>) -> (Attempt, Result<Answer, Outcome>) {
    let timestamp = wall();
    let time = timestamp.to_string();
    let signature = signer.map(|signer| signer.sign(&call.id, timestamp, &call.body));
    let mut headers = vec![
        ("content-type", "application/json"),
        ("accept", "application/json"),
        (ID_HEADER, call.id.as_str()),
        (TIMESTAMP_HEADER, time.as_str()),
    ];
    if let Some(signature) = &signature {
        headers.push((SIGNATURE_HEADER, signature));
    }
    let answer = match call.target.client.post(&call.body, &headers) {
        Ok(answer) => answer,
        Err(error) => return (how_far(&error), Err(Outcome::Call(error))),
    };
    match answer.status {
        200..=299 => match answer::read(call.event, &answer.body, &*call.route.owns) {
            Ok(answer) => (Attempt::Answered, Ok(answer)),
            Err(error) => (Attempt::Answered, Err(Outcome::BadAnswer(error))),
        },
        // A view that refuses in HTTP's own words.
        401 | 403 if call.event == Event::Authorise => (Attempt::Answered, Ok(Answer::default())),
        // Said without having acted.
        status @ (429 | 503) => (Attempt::NotReached, Err(Outcome::Status(status))),
        status @ 500.. => (Attempt::Failed, Err(Outcome::Status(status))),
        status => (Attempt::Answered, Err(Outcome::Status(status))),
    }
}

/// How far a call came that brought no answer.
const fn how_far(error: &CallError) -> Attempt {
    use std::io::ErrorKind;
    match error {
        CallError::Name
        | CallError::Address(_)
        | CallError::Tls(_)
        | CallError::Client(_)
        | CallError::Io(
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable,
        ) => Attempt::NotReached,
        CallError::Io(_) | CallError::Timeout => Attempt::Failed,
        // Something answers, and would answer the same again.
        CallError::Redirect | CallError::Protocol | CallError::TooLarge => Attempt::Answered,
    }
}

/// The dispatching thread.
struct Desk {
    dispatcher: Dispatcher<Box<Call>>,
    targets: Vec<Arc<Target>>,
    jobs: Sender<Box<Call>>,
    handle: Handle,
    tally: Arc<Tally>,
    /// Answers whose reactor had no room, and until when they wait. The place is held meanwhile.
    unposted: VecDeque<(Box<Call>, Letter, Instant)>,
    /// Whether anybody takes answers: at the end, the reactors go first.
    has_reactors: bool,
    log: Sampler<&'static str>,
    actions: Vec<Action<Box<Call>, Result<Answer, Outcome>>>,
}

impl Desk {
    fn run(&mut self, heard: &Receiver<News>) {
        let mut ends_at: Option<Instant> = None;
        loop {
            let now = clock();
            if ends_at.is_some_and(|at| now >= at || self.is_idle(heard)) {
                return;
            }
            let posts_at = (!self.unposted.is_empty()).then(|| now + POST_AGAIN_AFTER);
            let wake_at = [self.dispatcher.due_at(), posts_at, ends_at];
            let news = match wake_at.into_iter().flatten().min() {
                Some(at) => heard.recv_timeout(at.saturating_duration_since(now)),
                None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let now = clock();
            match news {
                Ok(News::Call(call)) => self.dispatcher.call(call, now, &mut self.actions),
                Ok(News::Done(call, attempt, result)) => {
                    self.dispatcher
                        .done(call, attempt, result, now, &mut self.actions);
                }
                Ok(News::End(within)) => {
                    ends_at = Some(now + within);
                    self.has_reactors = false;
                    self.unposted.clear();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.dispatcher.expire(now, &mut self.actions);
            self.act(now);
            self.post_again(now);
            self.tally
                .breakers_are_open(self.dispatcher.breakers_open());
        }
    }

    /// A URL as the log names it.
    fn shown(&self, target: usize) -> &str {
        self.targets.get(target).map_or("", |target| &target.shown)
    }

    fn is_idle(&self, heard: &Receiver<News>) -> bool {
        heard.is_empty() && self.dispatcher.is_idle() && self.unposted.is_empty()
    }

    fn act(&mut self, now: Instant) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                // No more are started than there are threads, and as much room.
                Action::Start(call) => _ = self.jobs.try_send(call),
                Action::Finish(call, result) => {
                    self.tally
                        .took(call.event, now.saturating_duration_since(call.began));
                    self.end(call, result, now);
                }
                Action::Decline(call, Declined::Unavailable) => {
                    self.end(call, Err(Outcome::Unavailable), now);
                }
                Action::Decline(call, Declined::Full) => self.end(call, Err(Outcome::Full), now),
                Action::Retry(_) => self.tally.retried(),
                Action::Turned(_, Turn::None) => {}
                Action::Turned(target, Turn::Opened(wait)) => {
                    self.tally.breaker_opened();
                    let url = self.shown(target);
                    tracing::warn!(url, ?wait, "a hook's backend is away: no calls for now");
                }
                Action::Turned(target, Turn::Closed) => {
                    tracing::info!(url = self.shown(target), "a hook's backend is back");
                }
            }
        }
    }

    /// Counts the end of a call, tells of a failure, and hands the answer over.
    fn end(&mut self, call: Box<Call>, result: Result<Answer, Outcome>, now: Instant) {
        let outcome = result.as_ref().err().unwrap_or(&Outcome::Answered);
        self.tally.ended(call.event, outcome);
        if result.is_err() {
            self.tell(&call, outcome, now);
        }
        let letter = Letter {
            event: call.event,
            answer: result.ok(),
        };
        self.post(call, letter, now + POST_FOR);
    }

    fn tell(&mut self, call: &Call, outcome: &Outcome, now: Instant) {
        if let Some(suppressed) = self.log.admit(outcome.label(), now) {
            tracing::warn!(
                url = call.target.shown,
                event = call.event.name(),
                outcome = outcome.label(),
                detail = %outcome,
                suppressed,
                "a hook failed"
            );
        }
    }

    fn post(&mut self, call: Box<Call>, letter: Letter, until: Instant) {
        if !self.has_reactors {
            return;
        }
        let bytes = letter.bytes();
        match self
            .handle
            .tell_sized(call.connection, call.route_index, Box::new(letter), bytes)
        {
            Ok(()) => drop(call),
            Err(letter) => match letter.downcast() {
                Ok(letter) => self.unposted.push_back((call, *letter, until)),
                Err(_) => self.tally.answer_lost(),
            },
        }
    }

    /// Tries again what found no room.
    fn post_again(&mut self, now: Instant) {
        for (call, letter, until) in std::mem::take(&mut self.unposted) {
            if now < until {
                self.post(call, letter, until);
            } else {
                self.tally.answer_lost();
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "these threads read the clock and hand the time on"
)]
pub(super) fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_in_calls_and_in_bytes_and_given_back() {
        let room = Arc::new(Room::new(2, 100));
        let first = room.enter(50);
        assert!(first.is_some());
        assert!(room.enter(51).is_none(), "a byte too many");
        let second = room.enter(50);
        assert!(second.is_some());
        assert!(room.enter(0).is_none(), "a call too many");
        assert_eq!(room.load(), (2, 100));
        drop((first, second));
        assert_eq!(room.load(), (0, 0));
        assert!(room.enter(101).is_none(), "more than there is room for");
        assert!(room.enter(100).is_some());
        assert_eq!(room.load(), (0, 0));
    }

    #[test]
    fn only_what_cannot_have_been_acted_upon_counts_as_not_reached() {
        use std::io::ErrorKind;
        for (error, expected) in [
            (CallError::Name, Attempt::NotReached),
            (
                CallError::Io(ErrorKind::ConnectionRefused),
                Attempt::NotReached,
            ),
            (CallError::Io(ErrorKind::ConnectionReset), Attempt::Failed),
            (CallError::Io(ErrorKind::UnexpectedEof), Attempt::Failed),
            (CallError::Io(ErrorKind::BrokenPipe), Attempt::Failed),
            (CallError::Timeout, Attempt::Failed),
            (CallError::Redirect, Attempt::Answered),
            (CallError::TooLarge, Attempt::Answered),
        ] {
            assert_eq!(how_far(&error), expected, "{error}");
        }
    }
}
