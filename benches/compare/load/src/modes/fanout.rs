//! Fan-out: all connections subscribe by connecting; the first of them publishes, and keeps `depth`
//! messages on their way, or publishes at a rate of its own. A message has arrived when every subscriber, the publisher too, has it; a unit
//! is one delivery.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::{Fleet, POLL_MAX};
use crate::measurement::Measurement;
use crate::options::Fanout;
use crate::template::Template;

pub(crate) fn run(options: &Fanout) -> io::Result<Value> {
    let (server, messages) = (&options.server, &options.messages);
    let template = Template::new(messages.size, messages.text, messages.depth, server.raw);
    let mut fleet = Fleet::new(server, false, template)?;
    fleet.open(options.conns)?;
    // A server may subscribe a connection some time after it answered the upgrade.
    fleet.idle(SETTLE)?;

    let mut flights = Flights::new(fleet.len());
    let publish = |fleet: &mut Fleet, flights: &mut Flights, count| {
        flights.publish(count, Instant::now());
        fleet.send(PUBLISHER, count)
    };
    // What a server allocates with the first delivery is no part of the others' cost.
    publish(&mut fleet, &mut flights, 1)?;
    let deadline = Instant::now() + FIRST_MAX;
    while flights.in_flight() > 0 {
        receive(&mut fleet, &mut flights, POLL_MAX, |_| {})?;
        if Instant::now() > deadline {
            return Err(io::Error::other(
                "the first message did not reach every subscriber",
            ));
        }
    }

    let mut measurement = Measurement::new(&options.times, server.pid)?;
    let depth = messages.depth as usize;
    let mut pace = options.rate.map(Pace::new);
    while measurement.goes_on()? {
        let wanted = match &mut pace {
            Some(pace) => pace.due(Instant::now()),
            None => depth - flights.in_flight(),
        };
        if wanted > 0 {
            publish(&mut fleet, &mut flights, wanted)?;
        }
        let longest = pace
            .as_ref()
            .map_or(POLL_MAX, |pace| pace.wait(Instant::now()));
        receive(&mut fleet, &mut flights, longest, |latency| {
            measurement.record(latency)
        })?;
    }
    let deliveries = measurement.units();
    let mut result = measurement.finish()?;
    result["messages"] = json!(deliveries / u64::from(options.conns));
    Ok(result)
}

/// Waits once, and reports each delivery's latency.
fn receive(
    fleet: &mut Fleet,
    flights: &mut Flights,
    longest: Duration,
    mut delivered: impl FnMut(Duration),
) -> io::Result<()> {
    for nth in 0..fleet.wait(longest)? {
        let (slot, arrived) = fleet.serve(nth)?;
        let now = Instant::now();
        for _ in 0..arrived.messages {
            delivered(now - flights.deliver(slot)?);
        }
    }
    Ok(())
}

const PUBLISHER: usize = 0;
const SETTLE: Duration = Duration::from_millis(500);
const FIRST_MAX: Duration = Duration::from_secs(30);

/// Publications at a steady rate.
#[derive(Debug)]
struct Pace {
    period: Duration,
    next: Instant,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self {
            period: Duration::from_secs(1) / rate,
            next: Instant::now(),
        }
    }

    /// How many are due now; they count as made.
    fn due(&mut self, now: Instant) -> usize {
        let mut count = 0;
        while self.next <= now {
            self.next += self.period;
            count += 1;
        }
        count
    }

    /// How long it is until the next one.
    fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now).min(POLL_MAX)
    }
}

/// The messages on their way, oldest first. Each subscriber receives them in order, so they also end in
/// order.
#[derive(Debug)]
struct Flights {
    flights: VecDeque<Flight>,
    /// Messages that have ended.
    ended: usize,
    /// How many messages each subscriber has.
    received: Vec<usize>,
}

#[derive(Debug)]
struct Flight {
    sent: Instant,
    missing: usize,
}

impl Flights {
    fn new(subscribers: usize) -> Self {
        Self {
            flights: VecDeque::new(),
            ended: 0,
            received: vec![0; subscribers],
        }
    }

    fn in_flight(&self) -> usize {
        self.flights.len()
    }

    fn publish(&mut self, count: usize, sent: Instant) {
        let missing = self.received.len();
        self.flights
            .extend((0..count).map(|_| Flight { sent, missing }));
    }

    /// A subscriber has its next message: when that was sent.
    ///
    /// # Errors
    /// If no such message was published.
    fn deliver(&mut self, subscriber: usize) -> io::Result<Instant> {
        let received = &mut self.received[subscriber];
        let Some(flight) = self.flights.get_mut(*received - self.ended) else {
            return Err(io::Error::other(
                "more messages were delivered than published",
            ));
        };
        *received += 1;
        flight.missing -= 1;
        let sent = flight.sent;
        while self
            .flights
            .front()
            .is_some_and(|oldest| oldest.missing == 0)
        {
            self.flights.pop_front();
            self.ended += 1;
        }
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_makes_up_for_what_was_late() {
        let mut pace = Pace::new(100);
        let began = pace.next;
        assert_eq!(pace.due(began), 1);
        assert_eq!(pace.due(began + Duration::from_millis(9)), 0);
        assert_eq!(pace.due(began + Duration::from_millis(35)), 3);
        let late = began + Duration::from_millis(38);
        assert_eq!(pace.wait(late), POLL_MAX.min(Duration::from_millis(2)));
    }

    #[test]
    fn a_flight_ends_with_its_last_delivery() {
        let mut flights = Flights::new(2);
        let (first, second) = (Instant::now(), Instant::now() + SETTLE);
        flights.publish(1, first);
        flights.publish(1, second);
        assert_eq!(flights.deliver(0).unwrap(), first);
        assert_eq!(flights.deliver(0).unwrap(), second);
        assert_eq!(flights.in_flight(), 2);
        assert_eq!(flights.deliver(1).unwrap(), first);
        assert_eq!(flights.in_flight(), 1);
        assert!(flights.deliver(0).is_err());
        assert_eq!(flights.deliver(1).unwrap(), second);
        assert_eq!(flights.in_flight(), 0);
    }
}
