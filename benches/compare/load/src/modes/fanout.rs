//! Fan-out: all connections subscribe by connecting; the first of them publishes, and keeps `depth`
//! messages on their way. A message has arrived when every subscriber, the publisher too, has it; a unit
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
        receive(&mut fleet, &mut flights, |_| {})?;
        if Instant::now() > deadline {
            return Err(io::Error::other(
                "the first message did not reach every subscriber",
            ));
        }
    }

    let mut measurement = Measurement::new(&options.times, server.pid)?;
    let depth = messages.depth as usize;
    while measurement.goes_on()? {
        let free = depth - flights.in_flight();
        if free > 0 {
            publish(&mut fleet, &mut flights, free)?;
        }
        receive(&mut fleet, &mut flights, |latency| {
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
    mut delivered: impl FnMut(Duration),
) -> io::Result<()> {
    for nth in 0..fleet.wait(POLL_MAX)? {
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
