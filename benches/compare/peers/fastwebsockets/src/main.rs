//! A peer on fastwebsockets, upgraded by hyper: every path echoes, as in the library's echo example. The
//! library writes each frame as it is given and offers nothing to gather them; it has no stable way to
//! read and write one connection from two places, so there is no broadcast.

use std::error::Error;

use clap::Parser;
use common::{Listen, Serve, Stream};
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    listen: Listen,
}

fn main() -> Result<(), Box<dyn Error>> {
    common::run(&Options::parse().listen, Peer)
}

#[derive(Clone)]
struct Peer;

impl Serve for Peer {
    async fn serve(self, stream: impl Stream) {
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .with_upgrades();
        // However a connection ends, the peer has nothing to do about it.
        let _ = connection.await;
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, socket) = upgrade(&mut request)?;
    tokio::spawn(echo(socket));
    Ok(response)
}

async fn echo(socket: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(socket.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            // The library answers pings by itself.
            OpCode::Continuation | OpCode::Ping | OpCode::Pong => {}
        }
    }
}
