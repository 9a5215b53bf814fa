//! `load`: a load generator for WebSocket servers on the same machine. One thread, one poll, a client
//! codec of its own; it connects to loopback addresses only, and every run is bounded in count and time.
//!
//! Beside rates and latencies it reads the server's CPU time and memory from `/proc`, because on a
//! loopback device, with two cores, CPU per message is the figure that repeats. The result is one JSON
//! object on standard output.

mod connection;
mod fleet;
mod frame;
mod measurement;
mod metronome;
mod modes;
mod options;
mod process;
mod replies;
mod template;
mod tls;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;

use crate::options::{Invocation, Mode};

fn main() -> ExitCode {
    let printed =
        run(&Invocation::parse()).and_then(|result| writeln!(io::stdout().lock(), "{result}"));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(io::stderr().lock(), "load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(invocation: &Invocation) -> io::Result<Value> {
    match &invocation.mode {
        Mode::Echo(options) => modes::echo::run(options),
        Mode::Connect(options) => modes::connect::run(options),
        Mode::Hold(options) => modes::hold::run(options),
        Mode::Fanout(options) => modes::fanout::run(options),
        Mode::Probe(options) => modes::probe::run(options),
        Mode::Storm(options) => modes::storm::run(options),
        Mode::Certificate { cert, key, rsa } => tls::write_certificate(cert, key, *rsa),
    }
}
