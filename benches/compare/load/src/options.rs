//! The command line, with its bounds: no run can ask for more connections or time than a shared machine
//! bears.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, value_parser};

#[derive(Debug, Parser)]
#[command(
    about = "Loads a WebSocket server on this machine and reports what it cost",
    version
)]
pub(crate) struct Invocation {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Closed loop: every connection keeps --depth messages on their way to the server and back
    Echo(Echo),
    /// Churn: connect, upgrade, close, again
    Connect(Connect),
    /// Idle connections: server memory for each, after one echo on every one of them
    Hold(Hold),
    /// One subscriber publishes, all receive
    Fanout(Fanout),
    /// Echoes on a schedule over many open connections: a line of latencies for each line of seconds
    /// on standard input, until that ends
    Probe(Probe),
    /// Clients that come at a fixed rate, whatever becomes of them: connect, upgrade, leave
    Storm(Storm),
    /// Writes a self-signed certificate for localhost and 127.0.0.1, P-256 unless told otherwise
    Certificate {
        /// Where the certificate goes, as PEM
        cert: PathBuf,
        /// Where the key goes, as PEM
        key: PathBuf,
        /// RSA with 2048 bits: dear to sign with, cheap to check
        #[arg(long)]
        rsa: bool,
    },
}

/// What every mode needs to know about its server.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The server's address; loopback only
    #[arg(long, value_parser = loopback)]
    pub(crate) address: SocketAddrV4,
    /// The path of the upgrade request
    #[arg(long, default_value = "/echo")]
    pub(crate) path: String,
    /// The server's process: its CPU time and memory are reported
    #[arg(long)]
    pub(crate) pid: u32,
    /// TLS 1.3, X25519, AES-128-GCM; the certificate is not checked
    #[arg(long)]
    pub(crate) tls: bool,
    /// The server is a mirror of bytes: each frame comes back as it was sent, mask and all
    #[arg(long)]
    pub(crate) raw: bool,
    /// Upgrades (and TLS handshakes) in progress at once
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=4096))]
    pub(crate) concurrency: u32,
}

/// How long a measurement takes.
#[derive(Debug, Args)]
pub(crate) struct Times {
    /// Seconds before the window opens
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    pub(crate) warmup: Duration,
    /// Seconds of the window
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(crate) seconds: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Echo {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) times: Times,
    #[command(flatten)]
    pub(crate) messages: Messages,
    /// Connections
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=CONNS_MAX))]
    pub(crate) conns: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) times: Times,
    /// Resume TLS sessions; without it every handshake is a full one
    #[arg(long, requires = "tls")]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) times: Times,
    /// Connections
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=CONNS_MAX))]
    pub(crate) conns: u32,
    /// Payload bytes of the one message each connection echoes
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=SIZE_MAX))]
    pub(crate) size: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) times: Times,
    #[command(flatten)]
    pub(crate) messages: Messages,
    /// Publications a second, whatever became of earlier ones; without it --depth of them are kept on
    /// their way
    #[arg(long, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: Option<u32>,
    /// Subscribers, the publisher among them
    #[arg(long, default_value_t = 5_000, value_parser = value_parser!(u32).range(1..=CONNS_MAX))]
    pub(crate) conns: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Probe {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Connections, probed in turn
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=CONNS_MAX))]
    pub(crate) conns: u32,
    /// Probes a second, at even intervals
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=RATE_MAX))]
    pub(crate) rate: u32,
    /// Payload bytes
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=SIZE_MAX))]
    pub(crate) size: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Storm {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) times: Times,
    /// Clients that come in a second, at even intervals
    #[arg(long, value_parser = value_parser!(u32).range(1..=RATE_MAX))]
    pub(crate) rate: u32,
    /// Seconds after which a client gives up
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(crate) patience: Duration,
    /// Clients that wait at a time; who comes beyond that is counted and left out
    #[arg(long, default_value_t = 16_000, value_parser = value_parser!(u32).range(1..=CONNS_MAX))]
    pub(crate) waiting: u32,
}

/// What is sent.
#[derive(Debug, Args)]
pub(crate) struct Messages {
    /// Messages in flight: per connection for echo, per publisher for fanout
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=1024))]
    pub(crate) depth: u32,
    /// Payload bytes
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=SIZE_MAX))]
    pub(crate) size: u32,
    /// Text messages (default: binary)
    #[arg(long)]
    pub(crate) text: bool,
}

/// Ports and descriptors of one machine end not far above.
const CONNS_MAX: i64 = 60_000;
/// More than a core can dial.
const RATE_MAX: i64 = 100_000;
/// 16 MiB: four times what servers take by default.
const SIZE_MAX: i64 = 1 << 24;
/// Longer runs say nothing that more runs would not say better.
const SECONDS_MAX: f64 = 60.0;

fn loopback(text: &str) -> Result<SocketAddrV4, String> {
    let address: SocketAddrV4 = text.parse().map_err(|error| format!("{error}"))?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("only loopback addresses may be loaded".to_owned())
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=SECONDS_MAX).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("expected 0 to {SECONDS_MAX} seconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Invocation::command().debug_assert();
    }

    #[test]
    fn only_loopback_may_be_loaded() {
        assert!(loopback("127.0.0.1:80").is_ok());
        assert!(loopback("192.0.2.1:80").is_err());
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["-1", "61", "NaN", "inf", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
