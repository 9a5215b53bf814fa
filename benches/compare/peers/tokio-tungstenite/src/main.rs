//! A peer on tokio-tungstenite: `/broadcast` sends every message to all clients of the route, any other
//! path echoes. Replies are forwarded as in the library's echo example, which flushes when nothing more
//! has arrived, and so sends a pipelined batch in one go.

use std::error::Error;
use std::future;

use clap::Parser;
use common::{Listen, Serve, Stream};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    listen: Listen,
    /// Read buffer of each connection in bytes (default: the library's, 128 KiB)
    #[arg(long)]
    read_buffer: Option<usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let mut config = WebSocketConfig::default();
    if let Some(bytes) = options.read_buffer {
        config = config.read_buffer_size(bytes);
    }
    common::run(
        &options.listen,
        Peer {
            config,
            room: broadcast::Sender::new(ROOM_MESSAGES),
        },
    )
}

/// Messages the room keeps for its slowest member; more than the generator ever has in flight.
const ROOM_MESSAGES: usize = 4096;

#[derive(Clone)]
struct Peer {
    config: WebSocketConfig,
    room: broadcast::Sender<Message>,
}

impl Serve for Peer {
    async fn serve(self, stream: impl Stream) {
        let mut is_broadcast = false;
        #[expect(
            clippy::result_large_err,
            reason = "the callback's type is the library's"
        )]
        let look = |request: &Request, response: Response| {
            is_broadcast = request.uri().path() == "/broadcast";
            Ok(response)
        };
        let upgraded =
            tokio_tungstenite::accept_hdr_async_with_config(stream, look, Some(self.config));
        let Ok(socket) = upgraded.await else {
            return;
        };
        // However a connection ends, the peer has nothing to do about it.
        let _ = if is_broadcast {
            member(socket, self.room).await
        } else {
            echo(socket).await
        };
    }
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}

async fn echo(socket: WebSocketStream<impl Stream>) -> Result<(), tungstenite::Error> {
    let (replies, messages) = socket.split();
    messages
        .try_filter(|message| future::ready(is_data(message)))
        .forward(replies)
        .await
}

async fn member(
    mut socket: WebSocketStream<impl Stream>,
    room: broadcast::Sender<Message>,
) -> Result<(), tungstenite::Error> {
    let mut published = room.subscribe();
    loop {
        tokio::select! {
            received = socket.next() => match received.transpose()? {
                // There is a subscriber: this one.
                Some(message) if is_data(&message) => drop(room.send(message)),
                Some(_) => {}
                None => return Ok(()),
            },
            message = published.recv() => match message {
                Ok(message) => {
                    socket.feed(message).await?;
                    // Whatever else has been published leaves in the same write.
                    while let Ok(message) = published.try_recv() {
                        socket.feed(message).await?;
                    }
                    socket.flush().await?;
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}
