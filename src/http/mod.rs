//! The HTTP/1.1 that a WebSocket server speaks: request heads in, status lines out.
