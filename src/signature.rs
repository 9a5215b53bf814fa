//! Signatures on what the server posts, in the form of Standard Webhooks: HMAC-SHA-256 over
//! `id.timestamp.body`, in base64 behind `v1,`. Receivers verify them with libraries that exist for most
//! languages, or with four lines of their own.
//!
//! The id is the same for every attempt at one post, so that a receiver can tell a repetition; the
//! timestamp is that of the attempt, so that it can refuse what somebody kept and sends again.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The header that holds the id.
pub const ID_HEADER: &str = "webhook-id";
/// The header that holds the time of the attempt, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header that holds the signature.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// What a secret begins with whose rest is base64.
const ENCODED: &str = "whsec_";

/// Signs with one secret.
#[derive(Clone)]
pub struct Signer(hmac::Key);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(redacted)")
    }
}

impl Signer {
    /// Takes the bytes of the text, or those that it encodes if it begins with `whsec_`.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let decoded = secret
            .strip_prefix(ENCODED)
            .and_then(|encoded| STANDARD.decode(encoded).ok());
        let bytes = decoded.as_deref().unwrap_or(secret.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The value of [`SIGNATURE_HEADER`].
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the specification's own libraries are tested with.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_part_counts_and_the_secret_is_not_shown() {
        let signer = Signer::new("a secret of at least thirty-two bytes");
        let signature = signer.sign("a", 1, b"b");
        for (id, timestamp, body) in [("b", 1, b"b"), ("a", 2, b"b"), ("a", 1, b"c")] {
            assert_ne!(signer.sign(id, timestamp, body), signature);
        }
        assert_eq!(format!("{signer:?}"), "Signer(redacted)");
    }
}
