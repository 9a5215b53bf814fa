//! `[token]` and `[[issuer]]`: where tokens come from, who issues them, and what they must say.
//!
//! Keys are described here and loaded elsewhere: nothing in this module opens a file or a connection.

use std::path::PathBuf;
use std::time::Duration;

use crate::admission::bearer::Sources;
use crate::admission::jwt::{Algorithm, TokenPolicy};

use super::Profile;
use super::secret::Secret;
use super::setting::{Choice, Setting, Slot, Table};
use super::text::{HTTP_TOKEN, KEYS_URL, NAME, PREFIX, Texts};

/// `[token]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenConfig {
    /// Whether routes demand a token unless they say otherwise. Default: in production.
    pub required: bool,
    /// Where in a request tokens are looked for.
    pub sources: Sources,
    /// The issuer that is written in `[token]` itself. Without keys it counts for nothing; its policy
    /// is then still the default of every `[[issuer]]`.
    pub issuer: IssuerConfig,
}

impl TokenConfig {
    /// The defaults of a profile.
    pub(super) fn defaults(profile: Profile) -> Self {
        Self {
            required: profile == Profile::Production,
            sources: Sources::default(),
            issuer: IssuerConfig::default(),
        }
    }

    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        let Sources {
            order,
            query_parameter,
            cookie_name,
        } = &mut self.sources;
        let mut settings = vec![
            Setting::new(
                "token.required",
                Slot::Switch(&mut self.required),
                "Whether routes demand a token unless they say otherwise",
            ),
            Setting::new(
                "token.sources",
                Slot::List(Box::new(order)),
                "Where tokens are looked for, in this order; the first place that holds anything decides",
            ),
            Setting::new(
                "token.query_parameter",
                Slot::Text(query_parameter, &NAME),
                "The parameter of the query that holds the token",
            ),
            Setting::new(
                "token.cookie_name",
                Slot::Text(cookie_name, &HTTP_TOKEN),
                "The cookie that holds the token; counts only if the origin is on the route's list",
            ),
        ];
        settings.extend(issuer_settings!("token", &mut self.issuer));
        settings
    }
}

/// An issuer of tokens: in `[token]`, or one `[[issuer]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What its tokens must be like. The claims that rules look at are added by
    /// [`Config::issuers`](super::Config::issuers).
    pub policy: TokenPolicy,
    /// Where its keys come from.
    pub keys: KeysConfig,
}

/// Where the keys of an issuer come from. Secrets never stand beside public keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysConfig {
    /// The algorithm of secrets, or of RSA keys that name none. `None`: HS256 for secrets, RS256 for
    /// RSA keys; keys of other kinds have but one.
    pub algorithm: Option<Algorithm>,
    /// The secret that tokens are signed with.
    pub secret: Option<Secret>,
    /// A file that holds the secret, without the line end behind it. Instead of
    /// [`secret`](Self::secret).
    pub secret_file: Option<PathBuf>,
    /// Secrets that still count while tokens signed with them are about: at most 3.
    pub previous_secrets: Vec<Secret>,
    /// Public keys in PEM.
    pub key_files: Vec<KeyFile>,
    /// A JSON Web Key Set on disk. It alone may hold secrets, too.
    pub jwks_file: Option<PathBuf>,
    /// A JSON Web Key Set to be fetched.
    pub jwks_url: Option<String>,
    /// How often it is fetched.
    pub jwks_refresh: Duration,
    /// How long its keys count when it cannot be fetched.
    pub jwks_max_age: Duration,
    /// The certificates that may vouch for its server, PEM. `None`: the system's.
    pub jwks_ca_file: Option<PathBuf>,
    /// Whether it may be fetched without TLS: whoever can change what comes back can issue tokens.
    pub jwks_allow_http: bool,
    /// Whether its server may have an address that is not public.
    pub jwks_allow_private_addresses: bool,
}

/// A file with one public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// What a token's `kid` calls the key.
    pub id: Option<String>,
    /// PEM.
    pub path: PathBuf,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            algorithm: None,
            secret: None,
            secret_file: None,
            previous_secrets: Vec::new(),
            key_files: Vec::new(),
            jwks_file: None,
            jwks_url: None,
            jwks_refresh: Duration::from_secs(600),
            // A day: longer than most outages, shorter than a stolen key should be of use.
            jwks_max_age: Duration::from_secs(86_400),
            jwks_ca_file: None,
            jwks_allow_http: false,
            jwks_allow_private_addresses: false,
        }
    }
}

impl KeysConfig {
    /// Whether there is any source of keys.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.has_secrets() && !self.has_public_keys()
    }

    /// Whether there is a secret here, or in a file.
    #[must_use]
    pub const fn has_secrets(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some() || !self.previous_secrets.is_empty()
    }

    /// Whether there are key files or key sets.
    #[must_use]
    pub const fn has_public_keys(&self) -> bool {
        !self.key_files.is_empty() || self.jwks_file.is_some() || self.jwks_url.is_some()
    }
}

impl Table for IssuerConfig {
    fn settings(&mut self) -> Vec<Setting<'_>> {
        let mut settings = issuer_settings!("issuer", self);
        for setting in &mut settings {
            setting.inherits = match setting.key {
                "issuer.audiences" => Some("token.audiences"),
                "issuer.leeway" => Some("token.leeway"),
                "issuer.user_claim" => Some("token.user_claim"),
                "issuer.user_prefix" => Some("token.user_prefix"),
                "issuer.token_type" => Some("token.token_type"),
                "issuer.required_claims" => Some("token.required_claims"),
                "issuer.require_expiry" => Some("token.require_expiry"),
                "issuer.kept_claims" => Some("token.kept_claims"),
                _ => None,
            };
        }
        settings
    }
}

impl IssuerConfig {
    /// What an `[[issuer]]` is where nothing is written: the demands of `[token]`, without its keys
    /// and its name.
    pub(super) fn inheriting(token: &TokenConfig) -> Self {
        Self {
            policy: TokenPolicy {
                issuer: None,
                ..token.issuer.policy.clone()
            },
            keys: KeysConfig::default(),
        }
    }
}

/// The keys of an issuer, in the section of this name.
macro_rules! issuer_settings {
    ($section:literal, $issuer:expr) => {{
        let IssuerConfig { policy, keys } = $issuer;
        let minutes = |from: u64, to: u64| Duration::from_secs(from * 60)..=Duration::from_secs(to * 60);
        vec![
            Setting::new(
                concat!($section, ".algorithm"),
                Slot::Choice(&mut keys.algorithm),
                "The algorithm of secrets, and of RSA keys that name none; auto: HS256, RS256",
            ),
            Setting::new(
                concat!($section, ".secret"),
                Slot::Secret(&mut keys.secret),
                "The secret that tokens are signed with; better in the environment or a file of its own",
            ),
            Setting::new(
                concat!($section, ".secret_file"),
                Slot::File(&mut keys.secret_file),
                "A file that holds the secret, instead of the secret itself",
            ),
            Setting::new(
                concat!($section, ".previous_secrets"),
                Slot::Secrets(&mut keys.previous_secrets),
                "Secrets that still count while tokens signed with them are about, at most 3",
            ),
            Setting::new(
                concat!($section, ".key_files"),
                Slot::List(Box::new(&mut keys.key_files)),
                "Public keys in PEM, current and previous, each with the kid that tokens call it by, if any",
            ),
            Setting::new(
                concat!($section, ".jwks_file"),
                Slot::File(&mut keys.jwks_file),
                "A JSON Web Key Set on disk",
            ),
            Setting::new(
                concat!($section, ".jwks_url"),
                Slot::TextOrNone(&mut keys.jwks_url, &KEYS_URL),
                "A JSON Web Key Set to be fetched in the background",
            ),
            Setting::new(
                concat!($section, ".jwks_refresh"),
                Slot::Time(&mut keys.jwks_refresh, minutes(1, 1_440)),
                "How often the set is fetched",
            ),
            Setting::new(
                concat!($section, ".jwks_max_age"),
                Slot::Time(&mut keys.jwks_max_age, minutes(1, 43_200)),
                "How long the last good set counts when no new one can be fetched",
            ),
            Setting::new(
                concat!($section, ".jwks_ca_file"),
                Slot::File(&mut keys.jwks_ca_file),
                "Certificates that may vouch for the set's server, PEM; none: the system's",
            ),
            Setting::new(
                concat!($section, ".jwks_allow_http"),
                Slot::Switch(&mut keys.jwks_allow_http),
                "Fetch the set without TLS: whoever can change what comes back can issue tokens",
            ),
            Setting::new(
                concat!($section, ".jwks_allow_private_addresses"),
                Slot::Switch(&mut keys.jwks_allow_private_addresses),
                "Fetch the set from addresses that are not public",
            ),
            Setting::new(
                concat!($section, ".issuer"),
                Slot::TextOrNone(&mut policy.issuer, &NAME),
                "The iss of its tokens; none: tokens without iss, and any if it is the only issuer",
            ),
            Setting::new(
                concat!($section, ".audiences"),
                Slot::List(Box::new(Texts(&mut policy.audiences, &NAME))),
                "The aud of a token must name one of these; none: it must have no aud",
            ),
            Setting::new(
                concat!($section, ".leeway"),
                Slot::Time(&mut policy.leeway, Duration::ZERO..=Duration::from_secs(300)),
                "By how much the issuer's clock may differ",
            ),
            Setting::new(
                concat!($section, ".user_claim"),
                Slot::Text(&mut policy.user_claim, &NAME),
                "The claim that says who the user is, a text or a number",
            ),
            Setting::new(
                concat!($section, ".user_prefix"),
                Slot::Text(&mut policy.user_prefix, &PREFIX),
                "Put before the user, so that users of several issuers stay apart",
            ),
            Setting::new(
                concat!($section, ".token_type"),
                Slot::TextOrNone(&mut policy.token_type, &NAME),
                "What the claim token_type must say, such as access; none: not asked",
            ),
            Setting::new(
                concat!($section, ".required_claims"),
                Slot::List(Box::new(Texts(&mut policy.required, &NAME))),
                "Claims that must be there and not be null",
            ),
            Setting::new(
                concat!($section, ".require_expiry"),
                Slot::Switch(&mut policy.require_expiry),
                "Refuse tokens without exp; without it, a connection has no end of its own",
            ),
            Setting::new(
                concat!($section, ".kept_claims"),
                Slot::List(Box::new(&mut policy.kept)),
                "Claims to keep of a token beside those that rules look at",
            ),
        ]
    }};
}
use issuer_settings;

impl Choice for Option<Algorithm> {
    fn names(&self) -> &'static [&'static str] {
        &[
            "auto", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384",
            "PS512", "ES256", "ES384", "EdDSA",
        ]
    }

    fn name(&self) -> &'static str {
        self.map_or("auto", Algorithm::name)
    }

    fn set(&mut self, name: &str) -> bool {
        match (name, Algorithm::from_name(name)) {
            ("auto", _) => *self = None,
            (_, None) => return false,
            (_, found) => *self = found,
        }
        true
    }
}
