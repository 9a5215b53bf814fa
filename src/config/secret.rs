//! A secret: a value that is compared, kept and handed over, and never shown.

use std::fmt;

use zeroize::Zeroizing;

use crate::admission::jwt::{Algorithm, Key};

/// A secret that tokens are signed with. It cannot be printed, and its memory is cleared when it is
/// dropped; the text it was read from belongs to others.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret that is long enough, not too plain, and not the text of a key file.
    ///
    /// # Errors
    /// What is wrong with it, without showing it; see [`Key::secret`].
    pub fn new(text: &str) -> Result<Self, String> {
        // The floor is the same for all three hashes.
        match Key::secret(Algorithm::Hs256, text.as_bytes(), None) {
            Ok(_) => Ok(Self(Zeroizing::new(text.to_owned()))),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The secret itself: to make a key of, and not to be kept, logged, or put into an error.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}
