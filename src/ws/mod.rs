//! RFC 6455, sans I/O: frames, messages, the opening and the closing handshake.

pub mod upgrade;
