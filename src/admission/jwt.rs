//! A bearer becomes an [`Identity`]: a JSON Web Token (RFC 7519) is taken apart, its issuer found, a
//! key chosen, and its signature and claims checked, in one call that never waits.
//!
//! The order is from cheap to dear, and nothing the token says chooses anything but among what the
//! configuration allows:
//!
//! 1. its size, two dots, the size of its header;
//! 2. the header: algorithm, type, and no extension that would change the meaning of the rest;
//! 3. the claims as JSON: depth, names, the types of the registered ones;
//! 4. the issuer, and with it the keys: a `kid` is looked up among that issuer's keys only;
//! 5. the algorithm, which must be the key's, and the length of the signature;
//! 6. its time, before the signature: an expired token is refused whether it is genuine or not, and
//!    clients that all come back with yesterday's tokens cost no signature each;
//! 7. the signature;
//! 8. every other demand, of which only who holds a genuine token can learn.
//!
//! Strict where RFC 7519 leaves room: a registered claim of the wrong type is an error and never
//! absent, so are fractions and numbers beyond 2^53; repeated names, `crit`, `b64`, `zip`, `enc` and a
//! `typ` of another kind are refused; `jku`, `x5u`, `jwk` and `x5c` are ignored, as keys come from the
//! configuration alone.
//!
//! Left to others: where a bearer comes from (`admission::bearer`), fetching keys, revocation, and
//! what an identity may do (`admission::rule`).

mod key;
mod signing;
mod token;
mod verifiers;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use key::{Algorithm, Jwks, JwksOptions, Key, KeyError, KeySet};
pub use signing::{SigningKey, SigningKeyError};
use token::{Json, Parts};
pub use verifiers::Verifiers;

use super::claim::{ClaimPath, ClaimValue, Claims, Scalar};

/// What an issuer's tokens must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPolicy {
    /// The `iss` that this policy is for. `None`: for tokens without `iss`; and for any, if it is the
    /// only policy. Default `None`.
    pub issuer: Option<String>,
    /// The audiences this server answers to: `aud` must name one of them. Empty: `aud` must be absent,
    /// since a token for somebody else is to be refused (RFC 7519 §4.1.3). Default empty.
    pub audiences: Vec<String>,
    /// By how much the issuer's clock may differ: added to `exp`, taken from `nbf` and `iat`. Whole
    /// seconds count. Default 0.
    pub leeway: Duration,
    /// The claim that says who this is, a text or a number. Default `sub`.
    pub user_claim: String,
    /// Put before the user, so that users of different issuers who share an id stay apart. Default
    /// empty.
    pub user_prefix: String,
    /// What the claim `token_type` must say, such as `access`. Default `None`: not asked.
    pub token_type: Option<String>,
    /// Claims that must be there and not be null. Default none.
    pub required: Vec<String>,
    /// Whether `exp` must be there. Default true. Without it a connection has no end of its own.
    pub require_expiry: bool,
    /// The claims to keep for rules and channel templates. Default none.
    pub kept: Vec<ClaimPath>,
}

impl Default for TokenPolicy {
    fn default() -> Self {
        Self {
            issuer: None,
            audiences: Vec::new(),
            leeway: Duration::ZERO,
            user_claim: "sub".into(),
            user_prefix: String::new(),
            token_type: None,
            required: Vec::new(),
            require_expiry: true,
            kept: Vec::new(),
        }
    }
}

/// An issuer: its policy and its keys.
#[derive(Clone, Debug)]
struct Issuer {
    policy: TokenPolicy,
    keys: KeySet,
    /// The policy's `kept`, shared by all identities.
    kept: Arc<[ClaimPath]>,
    /// The policy's `required`, shared by all errors.
    required: Box<[Arc<str>]>,
}

/// Whoever judges tokens: a [`Verifier`], or something that keeps a fresh one.
pub trait Verify: Send + Sync {
    /// Judges a token by the wall clock, in seconds since 1970.
    ///
    /// # Errors
    /// Why it is not good.
    fn verify(&self, token: &str, now_unix: u64) -> Result<Identity, TokenError>;
}

impl Verify for Verifier {
    fn verify(&self, token: &str, now_unix: u64) -> Result<Identity, TokenError> {
        self.verify(token, now_unix)
    }
}

/// Verifies tokens of one or several issuers. Immutable: new keys make a new one
/// ([`Verifier::with_keys`]), which takes the old one's place whole.
#[derive(Clone, Debug)]
pub struct Verifier {
    issuers: Box<[Issuer]>,
    /// The top-level claims that any issuer's policy looks at.
    wanted: Box<[Box<str>]>,
}

impl Verifier {
    /// A verifier for these issuers.
    ///
    /// # Errors
    /// [`VerifierError::NoIssuer`] for none at all, [`VerifierError::SameIssuer`] for two with one
    /// name, or two without.
    pub fn new(issuers: Vec<(TokenPolicy, KeySet)>) -> Result<Self, VerifierError> {
        if issuers.is_empty() {
            return Err(VerifierError::NoIssuer);
        }
        let mut wanted: Vec<Box<str>> = REGISTERED.map(Box::from).to_vec();
        for (index, (policy, _)) in issuers.iter().enumerate() {
            let is_same = |other: &(TokenPolicy, KeySet)| other.0.issuer == policy.issuer;
            if issuers[..index].iter().any(is_same) {
                return Err(VerifierError::SameIssuer(policy.issuer.clone()));
            }
            wanted.push(policy.user_claim.as_str().into());
            wanted.extend(policy.token_type.iter().map(|_| TOKEN_TYPE.into()));
            wanted.extend(policy.required.iter().map(|name| name.as_str().into()));
            wanted.extend(policy.kept.iter().map(|path| path.first().into()));
        }
        wanted.sort_unstable();
        wanted.dedup();
        let issuers = issuers.into_iter().map(|(policy, keys)| Issuer {
            kept: policy.kept.clone().into(),
            required: policy
                .required
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            policy,
            keys,
        });
        Ok(Self {
            issuers: issuers.collect(),
            wanted: wanted.into(),
        })
    }

    /// This verifier with other keys for one issuer, by its place in the list it was made from. `None`
    /// if there is no such place.
    #[must_use]
    pub fn with_keys(&self, issuer: usize, keys: KeySet) -> Option<Self> {
        let mut renewed = self.clone();
        renewed.issuers.get_mut(issuer)?.keys = keys;
        Some(renewed)
    }

    /// Checks a token against the wall clock, in seconds since 1970. Costs about 1 µs besides the
    /// signature: 0.5 µs for an HMAC, 16 for RSA, 25 for EdDSA, 40 for ES256, 150 for ES384. Allocates
    /// no more than a small multiple of the token, and keeps only the identity.
    ///
    /// # Errors
    /// The first check that fails, in the order of the module's list.
    pub fn verify(&self, token: &str, now_unix: u64) -> Result<Identity, TokenError> {
        let parts = Parts::split(token)?;
        let header = token::decode(Part::Header, parts.header)?;
        let header = Header::read(&header)?;
        let claims = token::decode(Part::Claims, parts.claims)?;
        let wants = |name: &str| self.wanted.iter().any(|wanted| **wanted == *name);
        let claims = token::read_object(Part::Claims, &claims, &wants)?;
        let claims = RawClaims::read(&claims)?;

        let (index, issuer) = self.issuer_of(claims.issuer)?;
        let keys = issuer.keys.for_id(header.key_id.as_deref());
        if keys.clone().next().is_none() {
            return Err(TokenError::UnknownKey { issuer: index });
        }
        let mut keys = keys
            .filter(|key| key.algorithm() == header.algorithm)
            .peekable();
        if keys.peek().is_none() {
            return Err(TokenError::AlgorithmOfKey);
        }
        let mut keys = keys
            .filter(|key| key.fits_signature(parts.signature.len()))
            .peekable();
        if keys.peek().is_none() {
            return Err(TokenError::SignatureLength);
        }
        issuer.policy.check_time(&claims, now_unix)?;
        if !keys.any(|key| key.verifies(parts.message, parts.signature)) {
            return Err(TokenError::Signature);
        }
        issuer.identify(index, &claims)
    }

    /// The issuer whose keys a token with this `iss` may be tried with (D6).
    fn issuer_of(&self, name: Option<&str>) -> Result<(usize, &Issuer), TokenError> {
        let named = |issuer: &Issuer| issuer.policy.issuer.as_deref() == name;
        let only = match &*self.issuers {
            [only] if only.policy.issuer.is_none() => Some(0),
            _ => None,
        };
        let index = self.issuers.iter().position(named).or(only);
        let index = index.ok_or(match name {
            Some(_) => TokenError::UnknownIssuer,
            None => TokenError::MissingIssuer,
        })?;
        Ok((index, &self.issuers[index]))
    }
}

impl TokenPolicy {
    fn check_time(&self, claims: &RawClaims<'_>, now_unix: u64) -> Result<(), TokenError> {
        let leeway = self.leeway.as_secs();
        match claims.expires_at {
            None if self.require_expiry => return Err(TokenError::MissingExpiry),
            // "On or after" the time, the token is expired (RFC 7519 §4.1.4).
            Some(at) if now_unix >= at.saturating_add(leeway) => {
                return Err(TokenError::Expired {
                    seconds_ago: now_unix - at,
                });
            }
            _ => {}
        }
        let seconds_ahead = |at: u64| at.saturating_sub(now_unix.saturating_add(leeway));
        match (claims.not_before, claims.issued_at) {
            (Some(at), _) if seconds_ahead(at) > 0 => Err(TokenError::NotYetValid {
                seconds: at - now_unix,
            }),
            (_, Some(at)) if seconds_ahead(at) > 0 => Err(TokenError::IssuedInFuture {
                seconds: at - now_unix,
            }),
            _ => Ok(()),
        }
    }
}

impl Issuer {
    /// The demands on a genuine token, and what is kept of it.
    fn identify(&self, issuer: usize, claims: &RawClaims<'_>) -> Result<Identity, TokenError> {
        let policy = &self.policy;
        match (&claims.audience, policy.audiences.is_empty()) {
            (None, true) => {}
            (None, false) => return Err(TokenError::MissingAudience),
            (Some(_), true) => return Err(TokenError::UnexpectedAudience),
            (Some(audience), false) => {
                if !policy.audiences.iter().any(|own| audience.names(own)) {
                    return Err(TokenError::Audience);
                }
            }
        }
        if let Some(wanted) = &policy.token_type
            && !matches!(claims.get(TOKEN_TYPE), Some(Json::Text(text)) if text == wanted)
        {
            return Err(TokenError::TokenType);
        }
        let is_there = |name: &str| claims.get(name).is_some_and(|value| *value != Json::Null);
        if let Some(name) = self.required.iter().find(|name| !is_there(name)) {
            return Err(TokenError::MissingClaim(Arc::clone(name)));
        }
        Ok(Identity {
            user: user_of(claims.get(&policy.user_claim), &policy.user_prefix)?,
            expires_at: claims.expires_at.unwrap_or(NEVER),
            issued_at: claims.issued_at.unwrap_or(NEVER),
            leeway_seconds: u32::try_from(policy.leeway.as_secs()).unwrap_or(u32::MAX),
            token_id: claims.token_id.map(Box::from),
            issuer: u32::try_from(issuer).unwrap_or(u32::MAX),
            claims: Claims::new(&self.kept, |path| {
                let mut names = path.names();
                let top = claims.get(names.next()?)?;
                names
                    .try_fold(top, |value, name| value.member(name))
                    .and_then(keep)
            }),
        })
    }
}

/// Who the token is about. The number 42 and the text `42` are the same user.
fn user_of(value: Option<&Json<'_>>, prefix: &str) -> Result<Arc<str>, TokenError> {
    match value {
        None | Some(Json::Null) => Err(TokenError::MissingUser),
        Some(Json::Text(text)) => {
            let is_good = !text.is_empty()
                && text.len() <= USER_BYTES_MAX
                && !text.chars().any(char::is_control)
                && text.trim() == text;
            if !is_good {
                return Err(TokenError::User);
            }
            Ok(format!("{prefix}{text}").into())
        }
        Some(Json::Unsigned(number)) if *number <= INTEGER_MAX => {
            Ok(format!("{prefix}{number}").into())
        }
        Some(_) => Err(TokenError::User),
    }
}

/// The form in which a claim's value is kept: scalars, and lists of them.
fn keep(value: &Json<'_>) -> Option<ClaimValue> {
    let scalar = |value: &Json<'_>| match value {
        Json::Text(text) => Some(Scalar::Text(text.as_ref().into())),
        Json::Bool(value) => Some(Scalar::Bool(*value)),
        Json::Unsigned(number) => i64::try_from(*number).ok().map(Scalar::Integer),
        Json::Negative(number) => Some(Scalar::Integer(*number)),
        Json::Null | Json::Fraction | Json::List(_) | Json::Object(_) => None,
    };
    match value {
        Json::List(values) => Some(ClaimValue::Many(values.iter().filter_map(scalar).collect())),
        single => scalar(single).map(ClaimValue::One),
    }
}

/// Who a connection is, and until when: all that is kept of its token.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    user: Arc<str>,
    /// [`NEVER`] where the token does not say.
    expires_at: u64,
    issued_at: u64,
    token_id: Option<Box<str>>,
    leeway_seconds: u32,
    issuer: u32,
    claims: Claims,
}

/// Stands for a time that a token does not name; a hundred thousand connections keep two each.
const NEVER: u64 = u64::MAX;

impl Identity {
    /// The user: the configured claim behind the configured prefix. Not empty, at most 256 bytes and
    /// the prefix, without control characters.
    #[must_use]
    pub const fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// When the token ends, in seconds since 1970, without leeway. At most 2^53, which is no time to
    /// set a timer to: clamp it.
    #[must_use]
    pub const fn expires_at(&self) -> Option<u64> {
        time(self.expires_at)
    }

    /// When the token is no longer accepted: [`expires_at`](Self::expires_at) and the issuer's leeway.
    #[must_use]
    pub const fn ends_at(&self) -> Option<u64> {
        match self.expires_at() {
            Some(at) => Some(at.saturating_add(self.leeway_seconds as u64)),
            None => None,
        }
    }

    /// When the token was issued, in seconds since 1970, if it says so.
    #[must_use]
    pub const fn issued_at(&self) -> Option<u64> {
        time(self.issued_at)
    }

    /// The token's own identifier (`jti`), for its revocation. At most 256 bytes.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// The issuer, by its place in the list the verifier was made from.
    #[must_use]
    pub const fn issuer(&self) -> usize {
        self.issuer as usize
    }

    /// The claims kept for rules and templates.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }
}

const fn time(at: u64) -> Option<u64> {
    if at == NEVER { None } else { Some(at) }
}

impl fmt::Debug for Identity {
    /// Without `jti`, by which a token could be revoked, and without claims.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("user", &self.user)
            .field("expires_at", &self.expires_at())
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// The header's members that matter (RFC 7515 §4.1).
struct Header<'a> {
    algorithm: Algorithm,
    key_id: Option<Cow<'a, str>>,
}

impl<'a> Header<'a> {
    fn read(text: &'a str) -> Result<Self, TokenError> {
        let is_wanted = |name: &str| {
            matches!(name, "alg" | "typ" | "kid") || Extension::from_name(name).is_some()
        };
        let (mut algorithm, mut key_id) = (None, None);
        for (name, value) in token::read_object(Part::Header, text, &is_wanted)? {
            match (name.as_ref(), value) {
                ("alg", Json::Text(name)) => algorithm = Some(read_algorithm(&name)?),
                ("alg", _) => return Err(TokenError::Algorithm),
                ("typ", Json::Text(kind)) if is_token_type(&kind) => {}
                ("typ", _) => return Err(TokenError::Type),
                ("kid", Json::Text(id)) if (1..=Key::ID_BYTES_MAX).contains(&id.len()) => {
                    key_id = Some(id);
                }
                ("kid", _) => return Err(TokenError::KeyId),
                (other, _) => {
                    if let Some(extension) = Extension::from_name(other) {
                        return Err(TokenError::Extension(extension));
                    }
                }
            }
        }
        Ok(Self {
            algorithm: algorithm.ok_or(TokenError::Algorithm)?,
            key_id,
        })
    }
}

fn read_algorithm(name: &str) -> Result<Algorithm, TokenError> {
    if name.eq_ignore_ascii_case("none") {
        return Err(TokenError::Unsecured);
    }
    Algorithm::from_name(name).ok_or(TokenError::Algorithm)
}

/// Is this a `typ` of access tokens? `JWT` (RFC 7519 §5.1) or `at+jwt` (RFC 9068 §2.1), in any case,
/// with or without `application/` (RFC 7515 §4.1.9). Another, such as `refresh+jwt` or `logout+jwt`,
/// marks a token that was made for something else (RFC 8725 §3.11).
fn is_token_type(kind: &str) -> bool {
    const PREFIX: &str = "application/";
    let kind = match kind.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => kind,
    };
    kind.eq_ignore_ascii_case("jwt") || kind.eq_ignore_ascii_case("at+jwt")
}

/// The claims that a policy looks at, with the registered ones (RFC 7519 §4.1) in their types.
struct RawClaims<'a> {
    issuer: Option<&'a str>,
    audience: Option<Audience<'a>>,
    expires_at: Option<u64>,
    not_before: Option<u64>,
    issued_at: Option<u64>,
    token_id: Option<&'a str>,
    all: &'a [(Cow<'a, str>, Json<'a>)],
}

impl<'a> RawClaims<'a> {
    fn read(all: &'a [(Cow<'a, str>, Json<'a>)]) -> Result<Self, TokenError> {
        let mut claims = Self {
            issuer: None,
            audience: None,
            expires_at: None,
            not_before: None,
            issued_at: None,
            token_id: None,
            all,
        };
        for (name, value) in all {
            match name.as_ref() {
                "iss" => claims.issuer = Some(text_of(value, Registered::Issuer)?),
                "aud" => claims.audience = Some(Audience::read(value)?),
                "exp" => claims.expires_at = Some(time_of(value, Registered::ExpiresAt)?),
                "nbf" => claims.not_before = Some(time_of(value, Registered::NotBefore)?),
                "iat" => claims.issued_at = Some(time_of(value, Registered::IssuedAt)?),
                "jti" => claims.token_id = Some(text_of(value, Registered::TokenId)?),
                _ => {}
            }
        }
        Ok(claims)
    }

    fn get(&self, name: &str) -> Option<&'a Json<'a>> {
        let mut all = self.all.iter();
        all.find(|(own, _)| own == name).map(|(_, value)| value)
    }
}

/// A text that is neither empty nor longer than a name of somebody should be.
fn text_of<'a>(value: &'a Json<'_>, claim: Registered) -> Result<&'a str, TokenError> {
    match value {
        Json::Text(text) if (1..=TEXT_BYTES_MAX).contains(&text.len()) => Ok(text),
        _ => Err(TokenError::ClaimType(claim)),
    }
}

/// Seconds since 1970. RFC 7519 §2 would allow fractions; a number that programs read in different
/// ways is none to decide by (D3).
fn time_of(value: &Json<'_>, claim: Registered) -> Result<u64, TokenError> {
    match value {
        Json::Unsigned(seconds) if *seconds <= INTEGER_MAX => Ok(*seconds),
        _ => Err(TokenError::ClaimType(claim)),
    }
}

/// A correct `aud`: a text, or a list of texts that is not empty.
struct Audience<'a>(&'a Json<'a>);

impl<'a> Audience<'a> {
    fn read(value: &'a Json<'a>) -> Result<Self, TokenError> {
        let is_correct = match value {
            Json::Text(_) => true,
            Json::List(values) => {
                !values.is_empty() && values.iter().all(|value| matches!(value, Json::Text(_)))
            }
            _ => false,
        };
        is_correct
            .then_some(Self(value))
            .ok_or(TokenError::ClaimType(Registered::Audience))
    }

    fn names(&self, wanted: &str) -> bool {
        let is_wanted = |value: &Json<'_>| matches!(value, Json::Text(text) if text == wanted);
        match self.0 {
            Json::List(values) => values.iter().any(is_wanted),
            single => is_wanted(single),
        }
    }
}

/// The registered claims that are read in any case; see [`RawClaims::read`].
const REGISTERED: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];
/// Claim that says what a token is for, where a backend issues several kinds.
const TOKEN_TYPE: &str = "token_type";
/// The largest integer that every JSON reader reads as written (RFC 8259 §6).
const INTEGER_MAX: u64 = 1 << 53;
/// Longest `iss` and `jti` in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Longest user in bytes, without the prefix.
const USER_BYTES_MAX: usize = 256;

/// Two of a token's three parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The first part.
    Header,
    /// The second part.
    Claims,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Claims => "claims",
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Header => "header is",
            Self::Claims => "claims are",
        }
    }
}

/// A member of the header that would change the meaning of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// `crit`: extensions that must be understood (RFC 7515 §4.1.11). None is.
    Critical,
    /// `b64`: claims that are not in base64url (RFC 7797).
    Unencoded,
    /// `zip`: compressed claims (RFC 7516 §4.1.3).
    Compressed,
    /// `enc`: an encrypted token (RFC 7516 §4.1.2).
    Encrypted,
}

impl Extension {
    const ALL: [Self; 4] = [
        Self::Critical,
        Self::Unencoded,
        Self::Compressed,
        Self::Encrypted,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Critical => "crit",
            Self::Unencoded => "b64",
            Self::Compressed => "zip",
            Self::Encrypted => "enc",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|extension| extension.name() == name)
    }
}

/// A claim of RFC 7519 §4.1 whose type is checked in every token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registered {
    /// `iss`.
    Issuer,
    /// `aud`.
    Audience,
    /// `exp`.
    ExpiresAt,
    /// `nbf`.
    NotBefore,
    /// `iat`.
    IssuedAt,
    /// `jti`.
    TokenId,
}

impl Registered {
    const fn name_and_form(self) -> (&'static str, &'static str) {
        const TEXT: &str = "a text of 1 to 256 bytes";
        const TIME: &str = "a whole number of seconds from 0 to 2^53";
        match self {
            Self::Issuer => ("iss", TEXT),
            Self::Audience => ("aud", "a text or a list of texts"),
            Self::ExpiresAt => ("exp", TIME),
            Self::NotBefore => ("nbf", TIME),
            Self::IssuedAt => ("iat", TIME),
            Self::TokenId => ("jti", TEXT),
        }
    }
}

/// Why a token is refused. What it prints says exactly what is wrong, in names of the configuration and
/// of the standard, and repeats nothing of the token but how far its times are from now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Longer than 8 KiB.
    TooLong,
    /// Not three parts between two dots.
    NotThreeParts,
    /// A header of more than 2 KiB in base64url.
    HeaderTooLong,
    /// A part that is not base64url without padding.
    Encoding(Part),
    /// A part that is not one JSON object.
    Json(Part),
    /// A part nested more than eight deep.
    TooDeep(Part),
    /// A part with a name that stands twice in one object.
    RepeatedName(Part),
    /// A part with more than 64 members in one object.
    TooManyMembers(Part),
    /// `alg` is `none`, in any case.
    Unsecured,
    /// `alg` is missing, no text, or not served.
    Algorithm,
    /// `typ` is not one of an access token.
    Type,
    /// `kid` is not a text of 1 to 256 bytes.
    KeyId,
    /// The header has an extension.
    Extension(Extension),
    /// A registered claim of the wrong type, or out of range.
    ClaimType(Registered),
    /// `iss` names nobody configured.
    UnknownIssuer,
    /// No `iss`, and every configured issuer has a name.
    MissingIssuer,
    /// The issuer has no key that this `kid`, or its absence, could mean. For an issuer whose keys are
    /// fetched: a reason to fetch them again.
    UnknownKey {
        /// The issuer, by its place in the list the verifier was made from.
        issuer: usize,
    },
    /// `alg` is not the key's.
    AlgorithmOfKey,
    /// The signature has not the length of the key's.
    SignatureLength,
    /// No `exp`.
    MissingExpiry,
    /// At or after `exp`, leeway included.
    Expired {
        /// How long ago that was, in seconds.
        seconds_ago: u64,
    },
    /// Before `nbf`, leeway included.
    NotYetValid {
        /// How long until then, in seconds.
        seconds: u64,
    },
    /// `iat` is in the future, leeway included: somebody's clock is wrong.
    IssuedInFuture {
        /// How far, in seconds.
        seconds: u64,
    },
    /// The signature is not one of the issuer's keys.
    Signature,
    /// No `aud`, and an audience is configured.
    MissingAudience,
    /// `aud` names none of the configured audiences.
    Audience,
    /// `aud`, and no audience is configured.
    UnexpectedAudience,
    /// `token_type` does not say what it must.
    TokenType,
    /// A required claim, of this name in the configuration, is missing or null.
    MissingClaim(Arc<str>),
    /// The user claim is missing or null.
    MissingUser,
    /// The user claim is not a text of 1 to 256 bytes without control characters and white space
    /// around it, nor a whole number from 0 to 2^53.
    User,
}

impl TokenError {
    /// Every label there is, for a metric that starts at zero.
    pub const LABELS: [&str; 29] = [
        "token_too_long",
        "token_not_three_parts",
        "token_header_too_long",
        "token_encoding",
        "token_json",
        "token_too_deep",
        "token_repeated_name",
        "token_too_many_members",
        "token_unsecured",
        "token_algorithm",
        "token_type_header",
        "token_key_id",
        "token_extension",
        "token_claim_type",
        "token_unknown_issuer",
        "token_missing_issuer",
        "token_unknown_key",
        "token_algorithm_of_key",
        "token_signature_length",
        "token_missing_expiry",
        "token_expired",
        "token_not_yet_valid",
        "token_issued_in_future",
        "token_signature",
        "token_audience",
        "token_type_claim",
        "token_missing_claim",
        "token_missing_user",
        "token_user",
    ];

    /// The reason as a metric's label, one of [`TokenError::LABELS`].
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::NotThreeParts => "token_not_three_parts",
            Self::HeaderTooLong => "token_header_too_long",
            Self::Encoding(_) => "token_encoding",
            Self::Json(_) => "token_json",
            Self::TooDeep(_) => "token_too_deep",
            Self::RepeatedName(_) => "token_repeated_name",
            Self::TooManyMembers(_) => "token_too_many_members",
            Self::Unsecured => "token_unsecured",
            Self::Algorithm => "token_algorithm",
            Self::Type => "token_type_header",
            Self::KeyId => "token_key_id",
            Self::Extension(_) => "token_extension",
            Self::ClaimType(_) => "token_claim_type",
            Self::UnknownIssuer => "token_unknown_issuer",
            Self::MissingIssuer => "token_missing_issuer",
            Self::UnknownKey { .. } => "token_unknown_key",
            Self::AlgorithmOfKey => "token_algorithm_of_key",
            Self::SignatureLength => "token_signature_length",
            Self::MissingExpiry => "token_missing_expiry",
            Self::Expired { .. } => "token_expired",
            Self::NotYetValid { .. } => "token_not_yet_valid",
            Self::IssuedInFuture { .. } => "token_issued_in_future",
            Self::Signature => "token_signature",
            Self::MissingAudience | Self::Audience | Self::UnexpectedAudience => "token_audience",
            Self::TokenType => "token_type_claim",
            Self::MissingClaim(_) => "token_missing_claim",
            Self::MissingUser => "token_missing_user",
            Self::User => "token_user",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::TooLong => "the token is longer than 8 KiB",
            Self::NotThreeParts => "the token is not three parts between two dots",
            Self::HeaderTooLong => "the token's header is longer than 2 KiB",
            Self::Encoding(part) => {
                return write!(
                    f,
                    "the token's {} not base64url without padding",
                    part.verb()
                );
            }
            Self::Json(part) => {
                return write!(f, "the token's {} not one JSON object", part.verb());
            }
            Self::TooDeep(part) => {
                return write!(f, "the token's {} nested more than 8 deep", part.verb());
            }
            Self::RepeatedName(part) => {
                return write!(f, "a name stands twice in the token's {}", part.name());
            }
            Self::TooManyMembers(part) => {
                return write!(f, "more than 64 members in the token's {}", part.name());
            }
            Self::Unsecured => "the token is not signed (alg none)",
            Self::Algorithm => "the token's alg is missing or not one that is served",
            Self::Type => "the token's typ is neither JWT nor at+jwt",
            Self::KeyId => "the token's kid is not a text of 1 to 256 bytes",
            Self::Extension(extension) => {
                return write!(
                    f,
                    "the token's header has {}, which is not served",
                    extension.name()
                );
            }
            Self::ClaimType(claim) => {
                let (name, form) = claim.name_and_form();
                return write!(f, "the token's {name} is not {form}");
            }
            Self::UnknownIssuer => "the token's iss is not a configured issuer",
            Self::MissingIssuer => "the token has no iss, and every configured issuer has a name",
            Self::UnknownKey { .. } => {
                "no key of the issuer has the token's kid, or may be used without one"
            }
            Self::AlgorithmOfKey => "the token's alg is not the one of the key",
            Self::SignatureLength => {
                "the signature has not the length that the key's signatures have"
            }
            Self::MissingExpiry => "the token has no exp",
            Self::Expired { seconds_ago } => {
                return write!(f, "the token expired {seconds_ago} s ago");
            }
            Self::NotYetValid { seconds } => {
                return write!(f, "the token is not valid for another {seconds} s (nbf)");
            }
            Self::IssuedInFuture { seconds } => {
                return write!(
                    f,
                    "the token was issued {seconds} s in the future (iat); check the clocks"
                );
            }
            Self::Signature => "the signature is not one of the issuer's keys",
            Self::MissingAudience => "the token has no aud, and an audience is configured",
            Self::Audience => "the token's aud names none of the configured audiences",
            Self::UnexpectedAudience => "the token has an aud, and no audience is configured",
            Self::TokenType => "the token's token_type is not the configured one",
            Self::MissingClaim(name) => {
                return write!(f, "the token has no claim {name}, which is required");
            }
            Self::MissingUser => "the token has no user claim",
            Self::User => {
                "the token's user claim is neither a plain text of 1 to 256 bytes nor a whole number \
                 from 0 to 2^53"
            }
        };
        f.write_str(text)
    }
}

impl std::error::Error for TokenError {}

/// Why issuers do not make a [`Verifier`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifierError {
    /// There is none.
    NoIssuer,
    /// Two have this name, or two have none.
    SameIssuer(Option<String>),
}

impl fmt::Display for VerifierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIssuer => f.write_str("no issuer of tokens is configured"),
            Self::SameIssuer(Some(name)) => write!(f, "the issuer \"{name}\" is configured twice"),
            Self::SameIssuer(None) => f.write_str("two issuers have no name"),
        }
    }
}

impl std::error::Error for VerifierError {}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// An identity as a good token would give it.
    pub(crate) fn identity(user: &str, issued_at: Option<u64>, id: Option<&str>) -> Identity {
        Identity {
            user: user.into(),
            expires_at: NEVER,
            issued_at: issued_at.unwrap_or(NEVER),
            token_id: id.map(Box::from),
            leeway_seconds: 0,
            issuer: 0,
            claims: Claims::default(),
        }
    }
}

#[cfg(test)]
mod tests;
