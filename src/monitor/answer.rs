//! Answers in JSON, and what is wrong with a request.

use std::time::Duration;

use serde::Serialize;

use crate::http::exchange::{Field, Response};

/// Why a request is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: u16,
    pub(super) message: String,
    /// With 405: the methods there are.
    pub(super) allow: Option<&'static str>,
    /// With 429 and 503: when to come back.
    pub(super) retry_after: Option<Duration>,
}

impl Problem {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            allow: None,
            retry_after: None,
        }
    }

    /// A request that makes no sense, and why.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// `{"status":…,"message":…}`, with the headers that go with the status.
    pub(super) fn send(&self, response: &mut Response<'_>) {
        #[derive(Serialize)]
        struct Body<'a> {
            status: u16,
            message: &'a str,
        }
        let body = to_json(&Body {
            status: self.status,
            message: &self.message,
        });
        let seconds = self.retry_after.map(|wait| {
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            seconds.to_string()
        });
        let mut fields = PRIVATE.to_vec();
        fields.extend(self.allow.map(|methods| (Field::Allow, methods)));
        fields.extend(seconds.as_deref().map(|wait| (Field::RetryAfter, wait)));
        if self.status == 401 {
            fields.push((Field::WwwAuthenticate, "Bearer realm=\"tidegate\""));
        }
        response.send(self.status, &fields, JSON, &body);
    }
}

/// What every answer says: nobody keeps it, and nobody takes it for something else.
pub(super) const PRIVATE: [(Field, &str); 2] = [
    (Field::CacheControl, "no-store"),
    (Field::XContentTypeOptions, "nosniff"),
];

const JSON: &str = "application/json";

/// Sends a value.
pub(super) fn send_json(response: &mut Response<'_>, status: u16, value: &impl Serialize) {
    response.send(status, &PRIVATE, JSON, &to_json(value));
}

/// A value as JSON, with a line end.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Every value here is of structs, numbers, texts and lists: none that JSON cannot write.
    let mut body = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
    body.push(b'\n');
    body
}

/// Milliseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 milliseconds are longer than anything here lasts"
)]
pub(super) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}
