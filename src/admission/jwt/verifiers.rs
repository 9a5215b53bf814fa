//! The verifier of the moment, shared by all reactors: read without a lock, replaced as a whole; and
//! the way back, by which a reactor reports a key that nobody knows.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::{Identity, TokenError, Verifier, Verify};

/// Verifies tokens by the keys of the moment. Cheap to clone: clones share everything. No call waits.
#[derive(Clone)]
pub struct Verifiers(Arc<Shared>);

struct Shared {
    current: ArcSwap<Verifier>,
    /// By issuer: an unknown key was reported, and not yet looked for.
    reported: Box<[AtomicBool]>,
    /// Wakes who looks for unknown keys.
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Verifiers {
    /// This verifier, until it is replaced.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        let issuers = verifier.issuers.len();
        Self(Arc::new(Shared {
            current: ArcSwap::from_pointee(verifier),
            reported: (0..issuers).map(|_| AtomicBool::new(false)).collect(),
            wake: OnceLock::new(),
        }))
    }

    /// Checks a token by the keys of the moment, as [`Verifier::verify`] does, and reports a key that
    /// nobody knows.
    ///
    /// # Errors
    /// Those of [`Verifier::verify`].
    pub fn verify(&self, token: &str, now_unix: u64) -> Result<Identity, TokenError> {
        let verdict = self.0.current.load().verify(token, now_unix);
        if let Err(TokenError::UnknownKey { issuer }) = verdict {
            self.unknown_key(issuer);
        }
        verdict
    }

    /// The verifier of the moment, for several tokens.
    #[must_use]
    pub fn load(&self) -> Arc<Verifier> {
        self.0.current.load_full()
    }

    /// Reports that a token of this issuer names a key that nobody knows. Only the first report, until
    /// it [was looked for](Verifiers::looked_for), wakes anybody; a further one costs the load of a
    /// flag, so a flood of them does too.
    pub fn unknown_key(&self, issuer: usize) {
        let Some(reported) = self.0.reported.get(issuer) else {
            return;
        };
        if !reported.load(Ordering::Relaxed)
            && !reported.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.0.wake.get()
        {
            wake();
        }
    }

    /// Replaces the verifier. Of two who do that at once, one's keys are lost: there is to be one who
    /// does.
    pub fn replace(&self, verifier: Arc<Verifier>) {
        debug_assert_eq!(verifier.issuers.len(), self.0.reported.len());
        self.0.current.store(verifier);
    }

    /// Has `wake` called by the first report of an unknown key, on the reactor that makes it: it must
    /// not wait. Counts once; a later one is dropped.
    pub fn on_unknown_key(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.wake.set(Box::new(wake));
    }

    /// Whether an unknown key of this issuer was reported, and not yet looked for.
    #[must_use]
    pub fn is_key_wanted(&self, issuer: usize) -> bool {
        let reported = self.0.reported.get(issuer);
        reported.is_some_and(|reported| reported.load(Ordering::Acquire))
    }

    /// The unknown keys of this issuer have been looked for; the next report is a new one. To be called
    /// after [`Verifiers::replace`], so that no report is about the keys before.
    pub fn looked_for(&self, issuer: usize) {
        if let Some(reported) = self.0.reported.get(issuer) {
            reported.store(false, Ordering::Release);
        }
    }
}

impl Verify for Verifiers {
    fn verify(&self, token: &str, now_unix: u64) -> Result<Identity, TokenError> {
        self.verify(token, now_unix)
    }
}

impl fmt::Debug for Verifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verifiers").field(&*self.load()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::admission::jwt::{Algorithm, Key, KeySet, TokenPolicy};

    #[test]
    fn d7_only_the_first_report_wakes_until_the_key_was_looked_for() {
        let issuers = [None, Some("b".to_owned())].map(|issuer| {
            let policy = TokenPolicy {
                issuer,
                ..TokenPolicy::default()
            };
            (policy, KeySet::default())
        });
        let verifiers = Verifiers::new(Verifier::new(issuers.into()).unwrap());
        // Nobody listens yet, and the report is not forgotten.
        verifiers.unknown_key(0);
        assert!(verifiers.is_key_wanted(0) && !verifiers.is_key_wanted(1));
        verifiers.looked_for(0);

        let wakes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&wakes);
        verifiers.on_unknown_key(move || _ = count.fetch_add(1, Ordering::Relaxed));
        let count = |expected| assert_eq!(wakes.load(Ordering::Relaxed), expected);
        // {"alg":"HS256"} . {"exp":2} . a signature, with and without {"iss":"b"}.
        let first = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjJ9.AAAA";
        let second = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJiIiwiZXhwIjoyfQ.AAAA";
        for _ in 0..10 {
            let verdict = verifiers.clone().verify(first, 1);
            assert_eq!(verdict, Err(TokenError::UnknownKey { issuer: 0 }));
        }
        count(1);
        let verdict = verifiers.verify(second, 1);
        assert_eq!(verdict, Err(TokenError::UnknownKey { issuer: 1 }));
        count(2);

        let secret = b"0123456789abcdef0123456789ABCDEF";
        let key = Key::secret(Algorithm::Hs256, secret, None).unwrap();
        let keys = KeySet::new(vec![key]).unwrap();
        let renewed = verifiers.load().with_keys(0, keys).unwrap();
        verifiers.replace(Arc::new(renewed));
        verifiers.looked_for(0);
        // The key is known now; that of the other issuer is still being looked for.
        let verdict = verifiers.verify(first, 1);
        assert_eq!(verdict, Err(TokenError::SignatureLength));
        assert!(!verifiers.is_key_wanted(0) && verifiers.is_key_wanted(1));
        let _ = verifiers.verify(second, 1);
        verifiers.unknown_key(2);
        count(2);
        verifiers.unknown_key(0);
        count(3);
    }
}
