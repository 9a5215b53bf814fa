//! Churn: connect, shake hands, upgrade, close the socket, again. A unit is one connection that was
//! upgraded; its latency runs from the first segment to the answer's last byte.

use std::io;

use serde_json::{Value, json};

use crate::fleet::{Fleet, POLL_MAX};
use crate::measurement::Measurement;
use crate::options::Connect;
use crate::template::Template;

pub(crate) fn run(options: &Connect) -> io::Result<Value> {
    let server = &options.server;
    let mut fleet = Fleet::new(server, options.resume, Template::none())?;
    let mut measurement = Measurement::new(&options.times, server.pid)?;
    for slot in 0..server.concurrency as usize {
        fleet.dial(slot)?;
    }
    let (mut all, mut resumed, mut failed) = (0_u64, 0_u64, 0_u64);
    while measurement.goes_on()? {
        for nth in 0..fleet.wait(POLL_MAX)? {
            let slot = fleet.slot(nth);
            match fleet.serve(nth) {
                Ok((_, arrived)) if !arrived.opened => continue,
                Ok(_) => {
                    let Some(connection) = fleet.connection(slot) else {
                        continue;
                    };
                    all += 1;
                    resumed += u64::from(connection.was_resumed());
                    measurement.record(connection.started.elapsed());
                }
                Err(error) => {
                    failed += 1;
                    if failed > FAILED_MAX {
                        return Err(error);
                    }
                }
            }
            fleet.dial(slot)?;
        }
    }
    let mut result = measurement.finish()?;
    result["failed"] = json!(failed);
    if server.tls {
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of a minute are far below 2^52"
        )]
        let share = resumed as f64 / (all as f64).max(1.0);
        result["resumed_share"] = json!(share);
    }
    Ok(result)
}

/// A few may be reset when a backlog is full; more is a server that cannot be measured.
const FAILED_MAX: u64 = 100;
