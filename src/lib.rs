//! tidegate: a WebSocket server for hosts with very many connections.

pub mod http;
pub mod tls;
pub mod ws;
