//! Pushing from outside: one thread publishes the time every second to whoever listens, and greets
//! each newcomer by its connection's id.
//!
//! ```text
//! cargo run --release --example ticker
//! ```
//! Then connect to `ws://127.0.0.1:9002/ticker` and listen.

#![expect(clippy::print_stderr, reason = "an example speaks to whoever runs it")]
#![expect(
    clippy::disallowed_methods,
    reason = "a clock is what this example is about"
)]

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use tidegate::{
    Channel, ConnectionId, Handler, HandlerFactory, ListenerSettings, Message, Peer, Route, Server,
    Settings, Speaks,
};

/// Tells the ticking thread who has come.
struct Doorman {
    ticks: Channel,
    newcomers: Sender<ConnectionId>,
}

impl Handler for Doorman {
    fn open(&mut self, peer: &mut Peer<'_>) {
        peer.join(&self.ticks);
        // An unbounded queue would not do in production; here it is emptied every second.
        let _ = self.newcomers.send(peer.id());
    }

    fn message(&mut self, peer: &mut Peer<'_>, _message: Message<'_>) {
        peer.send("this is a one-way street");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ticks = Channel::new("ticks")?;
    let (newcomers, arrivals) = channel();
    let settings = Settings {
        listeners: vec![ListenerSettings {
            address: ([127, 0, 0, 1], 9002).into(),
            speaks: Speaks::default(),
        }],
        ..Settings::default()
    };
    let doorman: Arc<dyn HandlerFactory> = {
        let ticks = ticks.clone();
        Arc::new(move |_reactor| Doorman {
            ticks: ticks.clone(),
            newcomers: newcomers.clone(),
        })
    };
    let server = Server::start(settings, vec![(Route::open("/ticker"), doorman)])?;
    eprintln!("ticking on ws://{}/ticker", server.addresses()[0]);
    let handle = server.handle();
    let started = Instant::now();
    loop {
        // The time out is the tick; an arrival ends the wait early.
        match arrivals.recv_timeout(Duration::from_secs(1)) {
            Ok(newcomer) => handle.send(newcomer, "welcome")?,
            Err(_) => handle.publish(&ticks, format!("{} s", started.elapsed().as_secs()))?,
        }
    }
}
