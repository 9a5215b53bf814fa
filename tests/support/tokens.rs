//! Tokens for tests: signed with one secret, judged by a verifier that knows it.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tidegate::admission::jwt::{Algorithm, Key, KeySet, TokenPolicy, Verifier, Verify};

const SECRET: &[u8] = b"0123456789abcdef0123456789ABCDEF";

/// A good token of a user, with an id of its own.
pub fn token(user: &str, id: &str) -> String {
    let claims = serde_json::json!({ "sub": user, "jti": id, "exp": 4_102_444_800_u64 });
    let message = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string()]
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, message.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref());
    format!("{message}.{signature}")
}

/// Who judges them.
pub fn verifier() -> Arc<dyn Verify> {
    let key = Key::secret(Algorithm::Hs256, SECRET, None).unwrap();
    let keys = KeySet::new(vec![key]).unwrap();
    Arc::new(Verifier::new(vec![(TokenPolicy::default(), keys)]).unwrap())
}
