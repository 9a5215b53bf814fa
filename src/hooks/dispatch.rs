//! Which call is made when: one at a time for each connection, in the order of its events; as many at a
//! time as there are threads; none where the breaker is open; again where that is safe. Pure: calls,
//! results and the time come in, [`Action`]s go out.
//!
//! The events of a connection that wait behind its call in flight, and behind the pause before a further
//! attempt, are its lane. A lane exists as long as something of the connection is under way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::breaker::{self, Breaker, Turn};
use super::event::Event;
use crate::conn::ConnectionId;

/// Figures that a dispatcher keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Calls at a time.
    pub(super) threads: usize,
    /// Events of one connection that wait behind its call in flight.
    pub(super) lane_max: usize,
    /// Further attempts at a call that failed.
    pub(super) retries: u32,
    /// The pause before the first of them; doubled for each further one.
    pub(super) retry_wait: Duration,
    /// Whether a message is sent again that the backend may have acted upon.
    pub(super) retry_messages: bool,
    pub(super) breaker: breaker::Limits,
}

/// What the dispatcher knows of a call; the pool adds what is sent.
pub(super) trait Job {
    /// Whose it is.
    fn connection(&self) -> ConnectionId;
    /// What has happened.
    fn event(&self) -> Event;
    /// The place of its URL among all.
    fn target(&self) -> usize;
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The backend has answered; whatever it says, it is there.
    Answered,
    /// The backend has not been reached: it cannot have acted.
    NotReached,
    /// No answer has come, or one that says that the backend is in trouble: it may have acted.
    Failed,
}

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Declined {
    /// The breaker is open.
    Unavailable,
    /// The connection's lane is full.
    Full,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<J, R> {
    /// Make the call; [`Dispatcher::done`] hears how it went.
    Start(J),
    /// The call is over, with the result of its last attempt.
    Finish(J, R),
    /// The call was not made.
    Decline(J, Declined),
    /// A further attempt will be made at a call.
    Retry(Event),
    /// A breaker has turned.
    Turned(usize, Turn),
}

struct Waiting<J> {
    job: J,
    /// Attempts that failed.
    failed: u32,
}

/// Decides which call is made when.
pub(super) struct Dispatcher<J> {
    limits: Limits,
    lanes: HashMap<ConnectionId, VecDeque<J>, ahash::RandomState>,
    /// Calls that can be made as soon as a thread is free.
    ready: VecDeque<Waiting<J>>,
    /// Calls that wait for a further attempt, by its time; the number keeps those of one time apart.
    resting: BTreeMap<(Instant, u64), Waiting<J>>,
    next_number: u64,
    /// By connection, failed attempts of the call in flight.
    running: HashMap<ConnectionId, u32, ahash::RandomState>,
    breakers: Vec<Breaker>,
}

impl<J: Job> Dispatcher<J> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::default(),
            ready: VecDeque::new(),
            resting: BTreeMap::new(),
            next_number: 0,
            running: HashMap::default(),
            breakers: Vec::new(),
        }
    }

    /// Takes a call.
    pub(super) fn call<R>(&mut self, job: J, now: Instant, out: &mut Vec<Action<J, R>>) {
        let Some(lane) = self.lanes.get_mut(&job.connection()) else {
            self.lanes.insert(job.connection(), VecDeque::new());
            self.ready.push_back(Waiting { job, failed: 0 });
            return self.start(now, out);
        };
        // The end is always heard of: it is one, and the last.
        if lane.len() >= self.limits.lane_max && job.event() != Event::Close {
            out.push(Action::Decline(job, Declined::Full));
        } else {
            lane.push_back(job);
        }
    }

    /// Takes how an attempt went that was started.
    pub(super) fn done<R>(
        &mut self,
        job: J,
        attempt: Attempt,
        result: R,
        now: Instant,
        out: &mut Vec<Action<J, R>>,
    ) {
        let failed = self.running.remove(&job.connection()).unwrap_or(0);
        let turn = self
            .breaker(job.target())
            .record(attempt == Attempt::Answered, now);
        if turn != Turn::None {
            out.push(Action::Turned(job.target(), turn));
        }
        if self.may_retry(&job, attempt, failed) {
            out.push(Action::Retry(job.event()));
            let at = now + self.limits.retry_wait * 2_u32.pow(failed.min(DOUBLINGS_MAX));
            let failed = failed + 1;
            self.resting
                .insert((at, self.next_number), Waiting { job, failed });
            self.next_number += 1;
        } else {
            self.next_of(job.connection());
            out.push(Action::Finish(job, result));
        }
        self.start(now, out);
    }

    /// Does what is due.
    pub(super) fn expire<R>(&mut self, now: Instant, out: &mut Vec<Action<J, R>>) {
        while let Some(entry) = self.resting.first_entry()
            && entry.key().0 <= now
        {
            self.ready.push_back(entry.remove());
        }
        self.start(now, out);
    }

    /// When [`expire`](Self::expire) is to be called.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.resting.keys().next().map(|(at, _)| *at)
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Breakers that are open.
    pub(super) fn breakers_open(&self) -> usize {
        self.breakers.iter().filter(|one| one.is_open()).count()
    }

    fn may_retry(&self, job: &J, attempt: Attempt, failed: u32) -> bool {
        let is_safe = match attempt {
            Attempt::Answered => false,
            Attempt::NotReached => true,
            Attempt::Failed => job.event() != Event::Message || self.limits.retry_messages,
        };
        is_safe && failed < self.limits.retries
    }

    fn breaker(&mut self, target: usize) -> &mut Breaker {
        let limits = self.limits.breaker;
        if self.breakers.len() <= target {
            self.breakers
                .resize_with(target + 1, || Breaker::new(limits));
        }
        &mut self.breakers[target]
    }

    /// Starts what can be made, while threads are free.
    fn start<R>(&mut self, now: Instant, out: &mut Vec<Action<J, R>>) {
        while self.running.len() < self.limits.threads
            && let Some(Waiting { job, failed }) = self.ready.pop_front()
        {
            if self.breaker(job.target()).admit(now) {
                self.running.insert(job.connection(), failed);
                out.push(Action::Start(job));
            } else {
                self.next_of(job.connection());
                out.push(Action::Decline(job, Declined::Unavailable));
            }
        }
    }

    /// The connection's call is over: the next one of its lane can be made.
    fn next_of(&mut self, connection: ConnectionId) {
        let Some(lane) = self.lanes.get_mut(&connection) else {
            return;
        };
        match lane.pop_front() {
            Some(job) => self.ready.push_back(Waiting { job, failed: 0 }),
            None => _ = self.lanes.remove(&connection),
        }
    }
}

/// Doublings of the pause between two attempts.
const DOUBLINGS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Call {
        who: u32,
        number: usize,
        event: Event,
        target: usize,
    }

    impl Job for Call {
        fn connection(&self) -> ConnectionId {
            ConnectionId::new(0, self.who, 0)
        }
        fn event(&self) -> Event {
            self.event
        }
        fn target(&self) -> usize {
            self.target
        }
    }

    const WAIT: Duration = Duration::from_millis(200);
    const LIMITS: Limits = Limits {
        threads: 2,
        lane_max: 2,
        retries: 2,
        retry_wait: WAIT,
        retry_messages: false,
        breaker: breaker::Limits {
            failures: 100,
            wait: Duration::from_secs(10),
        },
    };

    fn message(who: u32, number: usize) -> Call {
        Call {
            who,
            number,
            event: Event::Message,
            target: 0,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the times of a test begin somewhere"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    type Out = Vec<Action<Call, &'static str>>;

    fn started(out: &mut Out) -> Vec<Call> {
        out.drain(..)
            .filter_map(|action| match action {
                Action::Start(call) => Some(call),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_connection_has_one_call_in_flight_and_others_go_past() {
        let (mut dispatcher, now, mut out) = (Dispatcher::new(LIMITS), start(), Out::new());
        for (who, number) in [(1, 0), (1, 1), (2, 0), (3, 0)] {
            dispatcher.call(message(who, number), now, &mut out);
        }
        assert_eq!(started(&mut out), [message(1, 0), message(2, 0)]);
        dispatcher.done(message(1, 0), Attempt::Answered, "ok", now, &mut out);
        assert_eq!(out.remove(0), Action::Finish(message(1, 0), "ok"));
        assert_eq!(started(&mut out), [message(3, 0)], "who came first");
        dispatcher.done(message(2, 0), Attempt::Answered, "ok", now, &mut out);
        assert_eq!(started(&mut out), [message(1, 1)]);
        for call in [message(3, 0), message(1, 1)] {
            dispatcher.done(call, Attempt::Answered, "ok", now, &mut out);
        }
        assert!(dispatcher.is_idle());
    }

    #[test]
    fn what_waits_of_a_connection_is_bounded_and_its_end_is_heard() {
        let (mut dispatcher, now, mut out) = (Dispatcher::new(LIMITS), start(), Out::new());
        for number in 0..=LIMITS.lane_max {
            dispatcher.call(message(1, number), now, &mut out);
        }
        assert_eq!(out.len(), 1, "one runs, the others wait");
        dispatcher.call(message(1, 9), now, &mut out);
        assert_eq!(
            out.pop(),
            Some(Action::Decline(message(1, 9), Declined::Full))
        );
        let end = Call {
            event: Event::Close,
            ..message(1, 10)
        };
        dispatcher.call(end.clone(), now, &mut out);
        assert_eq!(out.len(), 1);
        let mut order = Vec::new();
        while let [call] = &started(&mut out)[..] {
            order.push(call.number);
            dispatcher.done(call.clone(), Attempt::Answered, "ok", now, &mut out);
        }
        assert_eq!(order, [0, 1, 2, 10]);
        assert!(dispatcher.is_idle());
    }

    #[test]
    fn a_further_attempt_is_made_where_that_is_safe() {
        let rows = [
            (Event::Authorise, Attempt::Failed, false, 2),
            (Event::Open, Attempt::Failed, false, 2),
            (Event::Close, Attempt::Failed, false, 2),
            (Event::Message, Attempt::Failed, false, 0),
            (Event::Message, Attempt::Failed, true, 2),
            (Event::Message, Attempt::NotReached, false, 2),
            (Event::Open, Attempt::Answered, true, 0),
        ];
        for (event, attempt, retry_messages, retries) in rows {
            let limits = Limits {
                retry_messages,
                ..LIMITS
            };
            let (mut dispatcher, mut now) = (Dispatcher::new(limits), start());
            let mut out = Out::new();
            let call = Call {
                event,
                ..message(1, 0)
            };
            dispatcher.call(call.clone(), now, &mut out);
            // Behind the attempts, whatever they take.
            dispatcher.call(message(1, 1), now, &mut out);
            for nth in 0..retries {
                assert_eq!(
                    started(&mut out),
                    std::slice::from_ref(&call),
                    "{event:?} {nth}"
                );
                dispatcher.done(call.clone(), attempt, "no", now, &mut out);
                assert_eq!(out, [Action::Retry(event)], "{event:?} {nth}");
                out.clear();
                let due = dispatcher.due_at().unwrap();
                assert_eq!(due, now + WAIT * 2_u32.pow(nth), "{event:?} {nth}");
                dispatcher.expire(due - Duration::from_nanos(1), &mut out);
                assert_eq!(out, []);
                now = due;
                dispatcher.expire(now, &mut out);
            }
            assert_eq!(started(&mut out), std::slice::from_ref(&call), "{event:?}");
            dispatcher.done(call.clone(), attempt, "no", now, &mut out);
            assert_eq!(out.remove(0), Action::Finish(call, "no"));
            assert_eq!(started(&mut out), [message(1, 1)]);
            assert_eq!(dispatcher.due_at(), None);
        }
    }

    #[test]
    fn behind_an_open_breaker_nothing_is_called_and_others_are() {
        let limits = Limits {
            retries: 0,
            breaker: breaker::Limits {
                failures: 1,
                wait: WAIT,
            },
            ..LIMITS
        };
        let (mut dispatcher, now, mut out) = (Dispatcher::new(limits), start(), Out::new());
        dispatcher.call(message(1, 0), now, &mut out);
        dispatcher.call(message(1, 1), now, &mut out);
        out.clear();
        dispatcher.done(message(1, 0), Attempt::Failed, "no", now, &mut out);
        assert_eq!(
            out,
            [
                Action::Turned(0, Turn::Opened(WAIT)),
                Action::Finish(message(1, 0), "no"),
                Action::Decline(message(1, 1), Declined::Unavailable),
            ]
        );
        out.clear();
        assert!(dispatcher.is_idle());
        assert_eq!(dispatcher.breakers_open(), 1);
        let elsewhere = Call {
            target: 3,
            ..message(2, 0)
        };
        dispatcher.call(elsewhere.clone(), now, &mut out);
        dispatcher.call(message(3, 0), now + WAIT, &mut out);
        assert_eq!(started(&mut out), [elsewhere, message(3, 0)]);
        dispatcher.done(message(3, 0), Attempt::Answered, "ok", now + WAIT, &mut out);
        assert_eq!(out[0], Action::Turned(0, Turn::Closed));
        assert_eq!(dispatcher.breakers_open(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Call(u32, usize),
        /// The call in flight of this place goes so.
        Done(usize, Attempt),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let attempt = prop_oneof![
            3 => Just(Attempt::Answered),
            1 => Just(Attempt::NotReached),
            1 => Just(Attempt::Failed),
        ];
        let step = prop_oneof![
            3 => (0_u32..4, 0_usize..2).prop_map(|(who, target)| Step::Call(who, target)),
            3 => (0_usize..4, attempt).prop_map(|(place, attempt)| Step::Done(place, attempt)),
            1 => (0_u64..500).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// Sorts what is to be done; returns how many calls were refused at the door, past those that wait.
    fn take(out: &mut Out, running: &mut Vec<Call>, ended: &mut Vec<Call>) -> usize {
        let mut refused = 0;
        for action in out.drain(..) {
            match action {
                Action::Start(call) => running.push(call),
                Action::Finish(call, _) | Action::Decline(call, Declined::Unavailable) => {
                    ended.push(call);
                }
                Action::Decline(_, Declined::Full) => refused += 1,
                Action::Retry(_) | Action::Turned(..) => {}
            }
        }
        refused
    }

    proptest! {
        /// Whatever happens: no more calls at a time than threads, one of each connection, each call
        /// comes to one end, and a connection's calls in order.
        #[test]
        fn every_call_ends_once_and_in_order(steps in steps()) {
            let limits = Limits {
                breaker: breaker::Limits { failures: 2, wait: WAIT },
                ..LIMITS
            };
            let (mut dispatcher, mut now) = (Dispatcher::new(limits), start());
            let (mut out, mut running, mut ended) = (Out::new(), Vec::new(), Vec::new());
            let (mut made, mut refused) = (0, 0);
            for step in steps {
                match step {
                    Step::Call(who, target) => {
                        let call = Call { target, ..message(who, made) };
                        made += 1;
                        dispatcher.call(call, now, &mut out);
                    }
                    Step::Done(place, attempt) if place < running.len() => {
                        let call = running.remove(place);
                        dispatcher.done(call, attempt, "", now, &mut out);
                    }
                    Step::Done(..) => {}
                    Step::Wait(millis) => {
                        now += Duration::from_millis(millis);
                        dispatcher.expire(now, &mut out);
                    }
                }
                refused += take(&mut out, &mut running, &mut ended);
                prop_assert!(running.len() <= limits.threads);
                for (nth, call) in running.iter().enumerate() {
                    prop_assert!(running[..nth].iter().all(|other| other.who != call.who));
                }
            }
            for _ in 0..10_000 {
                if dispatcher.is_idle() {
                    break;
                }
                if let Some(call) = running.pop() {
                    dispatcher.done(call, Attempt::Answered, "", now, &mut out);
                } else {
                    now = dispatcher.due_at().unwrap();
                    dispatcher.expire(now, &mut out);
                }
                refused += take(&mut out, &mut running, &mut ended);
            }
            prop_assert!(dispatcher.is_idle() && running.is_empty());
            prop_assert_eq!(ended.len() + refused, made);
            for who in 0..4 {
                let own = ended.iter().filter(|call| call.who == who);
                let own: Vec<usize> = own.map(|call| call.number).collect();
                prop_assert!(own.is_sorted(), "{:?}", own);
            }
        }
    }
}
