//! One page over plain HTTP, on a listener that serves WebSockets otherwise: for trying things out.

use std::sync::Arc;

use crate::http::head::Head;
use crate::http::response::write_response;

/// A page that `GET /` is answered with, whole; then the connection ends. Nothing of the request but its
/// method and path is looked at, and nothing else is served.
#[derive(Debug, Clone)]
pub struct Page {
    response: Arc<[u8]>,
}

impl Page {
    /// A page of HTML that may load and run what this policy allows (Content Security Policy, level 2).
    #[must_use]
    pub fn html(body: &[u8], policy: &str) -> Self {
        let headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ];
        let mut response = Vec::new();
        write_response(&mut response, 200, &headers, body, false);
        Self {
            response: response.into(),
        }
    }

    /// The answer, if this request asks for the page.
    pub(super) fn answer(&self, head: &Head<'_>) -> Option<&[u8]> {
        (head.method() == "GET" && head.path() == "/").then_some(&self.response)
    }
}
