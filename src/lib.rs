//! tidegate: a WebSocket server for hosts with very many connections.
//!
//! A multi-threaded epoll reactor without an async runtime: one thread per core, each with its own
//! poll, its own listening sockets and its own connections. What a route does is a [`Handler`]:
//!
//! ```no_run
//! use std::sync::Arc;
//! use tidegate::{Handler, HandlerFactory, Message, Peer, Route, Server, Settings};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
//!         peer.send(message);
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let echo: Arc<dyn HandlerFactory> = Arc::new(|_reactor| Echo);
//!     let server = Server::start(Settings::default(), vec![(Route::open("/echo"), echo)])?;
//!     println!("listening on {:?}", server.addresses());
//!     server.wait();
//!     Ok(())
//! }
//! ```
//!
//! # Threads
//! A handler is made once for each reactor and called on that reactor's thread only, so it needs no
//! lock. A callback gets the [`Peer`] it is about: it can send to it, close it, and subscribe it to
//! [`Channel`]s. Other connections, and other threads, are reached through a [`Handle`] by
//! [`ConnectionId`], and through channels.
//!
//! # The way of a byte
//! In: `reactor::transport` reads it into the reactor's one scratch buffer, `tls` decrypts it, `conn`
//! gives it to the phase the connection is in: `http::head` and `admission` once, `ws::decoder` from
//! then on, which unmasks messages in place and lends them to the handler. Out: `ws::encoder` appends
//! to the reactor's one output buffer, which leaves in one system call; what the socket refuses waits
//! in the connection's `conn::outbox`. A publication is framed once by `hub` and shared by all.

#![forbid(unsafe_code)]

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod admission;
pub mod api;
pub mod buffer;
pub mod config;
pub mod conn;
pub mod demo;
mod file;
pub mod hooks;
pub mod http;
pub mod hub;
pub mod json;
pub mod keys;
pub mod logging;
pub mod metrics;
pub mod monitor;
pub mod outbound;
pub mod reactor;
pub mod routes;
pub mod server;
pub mod signature;
pub mod timer;
pub mod tls;
pub mod webhook;
pub mod ws;

pub use admission::revocation::Revocation;
pub use admission::{Refusal, Rejection, Route, Stage, TokenDemand, TrafficAtLimit};
pub use conn::{
    CloseReason, ConnectionId, Endpoint, EndpointFactory, Handler, HandlerFactory, Page, Peer,
    Pushed, Serves, Speaks, Timeouts,
};
pub use hub::Channel;
pub use server::{Handle, ListenerSettings, Server, Settings};
pub use ws::{CloseCode, Message};
