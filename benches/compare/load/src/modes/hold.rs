//! Idle connections: what each costs the server in memory, and what all of them cost it in CPU time.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::measurement::Window;
use crate::options::Hold;
use crate::process::resident_bytes;
use crate::template::Template;

#[expect(clippy::cast_precision_loss, reason = "no server holds 2^52 bytes")]
pub(crate) fn run(options: &Hold) -> io::Result<Value> {
    let server = &options.server;
    let mut fleet = Fleet::new(
        server,
        false,
        Template::new(options.size, false, 1, server.raw),
    )?;
    // What a server allocates once, for the first of its connections, belongs to none of them.
    fleet.open(BEFORE)?;
    fleet.echo_once(0)?;
    fleet.idle(SETTLE)?;
    let before = resident_bytes(server.pid)? as f64;

    let began = Instant::now();
    fleet.open(options.conns)?;
    let opened_in = began.elapsed().as_secs_f64();
    fleet.echo_once(BEFORE as usize)?;
    fleet.idle(options.times.warmup)?;
    let held = resident_bytes(server.pid)? as f64;
    let window = Window::open(server.pid)?;
    fleet.idle(options.times.seconds)?;
    let mut result = window.close(0)?;
    let after_idle = resident_bytes(server.pid)? as f64;

    let conns = f64::from(options.conns);
    result["conns"] = json!(options.conns);
    result["open_seconds"] = json!(opened_in);
    result["rss_bytes_before"] = json!(before);
    result["rss_bytes_per_conn"] = json!((held - before) / conns);
    result["rss_bytes_per_conn_after_idle"] = json!((after_idle - before) / conns);
    Ok(result)
}

const BEFORE: u32 = 64;
const SETTLE: Duration = Duration::from_millis(200);
