//! tidegate: a WebSocket server for hosts with very many connections.

pub mod config;
pub mod http;
pub mod logging;
pub mod tls;
pub mod ws;
