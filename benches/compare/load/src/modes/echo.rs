//! Closed loop: as many messages go out on a connection as came back. A unit is one message there and back.

use std::collections::VecDeque;
use std::io;
use std::iter;
use std::time::Instant;

use serde_json::Value;

use crate::fleet::{Fleet, POLL_MAX};
use crate::measurement::Measurement;
use crate::options::Echo;
use crate::template::Template;

pub(crate) fn run(options: &Echo) -> io::Result<Value> {
    let (server, messages) = (&options.server, &options.messages);
    let template = Template::new(messages.size, messages.text, messages.depth, server.raw);
    let depth = messages.depth as usize;
    let mut fleet = Fleet::new(server, false, template)?;
    fleet.open(options.conns)?;
    // What a server allocates with the first message of a connection is no part of the others' cost.
    fleet.echo_once(0)?;

    // When each message in flight was sent, oldest first.
    let mut sent: Vec<VecDeque<Instant>> = vec![VecDeque::with_capacity(depth); fleet.len()];
    let mut measurement = Measurement::new(&options.times, server.pid)?;
    for (slot, times) in sent.iter_mut().enumerate() {
        times.extend(iter::repeat_n(Instant::now(), depth));
        fleet.send(slot, depth)?;
    }
    while measurement.goes_on()? {
        for nth in 0..fleet.wait(POLL_MAX)? {
            let (slot, arrived) = fleet.serve(nth)?;
            if arrived.messages == 0 {
                continue;
            }
            let count = arrived.messages as usize;
            let now = Instant::now();
            let times = &mut sent[slot];
            for _ in 0..count {
                let Some(at) = times.pop_front() else {
                    return Err(io::Error::other("more messages came back than were sent"));
                };
                measurement.record(now - at);
            }
            times.extend(iter::repeat_n(now, count));
            fleet.send(slot, count)?;
        }
    }
    measurement.finish()
}
