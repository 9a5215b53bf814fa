//! A chat with rooms: the first message of a connection names its room, every later one goes to all
//! who are there.
//!
//! ```text
//! cargo run --release --example chat
//! ```
//! Then connect two clients to `ws://127.0.0.1:9001/chat`, send `harbour` from both, and talk.

#![expect(clippy::print_stderr, reason = "an example speaks to whoever runs it")]

use std::sync::Arc;

use tidegate::{
    Channel, CloseCode, CloseReason, Handler, HandlerFactory, ListenerSettings, Message, Peer,
    Route, Server, Settings, Speaks,
};

struct Chat;

/// What is kept with a connection once it has said where it wants to be.
struct Room(Channel);

impl Handler for Chat {
    fn open(&mut self, peer: &mut Peer<'_>) {
        peer.send("Which room?");
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        let Message::Text(text) = message else {
            return peer.close(CloseCode::Unsupported, "text only");
        };
        if let Some(Room(room)) = peer.data::<Room>() {
            let room = room.clone();
            return peer.publish(&room, format!("{}: {text}", peer.id()));
        }
        match Channel::new(&format!("chat:{text}")) {
            Ok(room) => {
                peer.join(&room);
                peer.publish(&room, format!("{} came in", peer.id()));
                peer.set_data(Room(room));
            }
            Err(error) => peer.close(CloseCode::Policy, &error.to_string()),
        }
    }

    fn close(&mut self, peer: &mut Peer<'_>, _reason: &CloseReason) {
        if let Some(Room(room)) = peer.data::<Room>() {
            let room = room.clone();
            peer.publish(&room, format!("{} left", peer.id()));
        }
    }
}

fn main() -> std::io::Result<()> {
    let settings = Settings {
        listeners: vec![ListenerSettings {
            address: ([127, 0, 0, 1], 9001).into(),
            speaks: Speaks::default(),
        }],
        ..Settings::default()
    };
    let chat: Arc<dyn HandlerFactory> = Arc::new(|_reactor| Chat);
    let server = Server::start(settings, vec![(Route::open("/chat"), chat)])?;
    eprintln!("chatting on ws://{}/chat", server.addresses()[0]);
    let _ = server.wait();
    Ok(())
}
