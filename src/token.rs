//! `tidegate token`: makes tokens for trying things out, and says of a token exactly why the server of
//! this configuration would refuse it. Both ask the verifier that the server asks.

use std::cmp::Ordering;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tidegate::admission::bearer::{Bearer, Source};
use tidegate::admission::jwt::{Algorithm, Identity, SigningKey, TokenPolicy};
use tidegate::admission::revocation::Revocations;
use tidegate::admission::{Judge, Refusal, TokenDemand};
use tidegate::config::{
    Config, IssuerConfig, LogConfig, LogFormat, LogLevel, Profile, Secret, units,
};
use tidegate::http::date::HttpDate;
use tidegate::http::template;
use tidegate::keys::{self, KeyRing, KeysError};
use tidegate::ws::Limits;
use tidegate::{demo, logging, routes};
use zeroize::Zeroizing;

use crate::{BAD_CONFIGURATION, USAGE, print, say};

/// What is to be done about which token.
#[derive(Debug, Args, PartialEq, Eq)]
#[command(args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Commands>,
    #[command(flatten)]
    mint: Mint,
}

#[derive(Debug, Subcommand, PartialEq, Eq)]
enum Commands {
    /// Print header and claims of a token, and whether it would be accepted
    #[command(after_help = AFTER_HELP)]
    Inspect(Inspect),
}

/// A token to be made.
#[derive(Debug, Args, PartialEq, Eq)]
struct Mint {
    /// Claims; a value that is JSON is taken as such, anything else as a text
    #[arg(value_name = "NAME=VALUE", value_parser = read_claim)]
    claims: Vec<(String, Value)>,
    /// How long it is good, like 90s, 15m or 1h, or "never" for a token without exp
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = read_lifetime)]
    expires_in: Lifetime,
    /// The algorithm [default: the configured one, or the one of the key]
    #[arg(long, value_name = "NAME", value_parser = read_algorithm)]
    algorithm: Option<Algorithm>,
    /// A file with the key: a private key in PEM, or a secret [default: the configured secret]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// What the token calls its key
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// The configured issuer to make it for, by its name [default: the first that has a secret]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// A token to be looked at.
#[derive(Debug, Args, PartialEq, Eq)]
struct Inspect {
    /// The token; absent or "-": the first line of standard input
    token: Option<String>,
    /// Ask the rule of the route that serves this path as well, like /ws/projects/7/
    #[arg(long, value_name = "PATH")]
    route: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args, PartialEq, Eq)]
struct Common {
    /// Configuration file, TOML [env: TIDEGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// "development" or "production"
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// `--config` and `--profile`.
    pub(crate) fn sources(&self) -> (Option<PathBuf>, Option<String>) {
        let common = match &self.command {
            Some(Commands::Inspect(inspect)) => &inspect.common,
            None => &self.mint.common,
        };
        (common.config.clone(), common.profile.clone())
    }
}

/// How long a token is to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    For(Duration),
    Endless,
}

fn read_lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime::Endless);
    }
    let duration = units::parse_duration(text);
    duration
        .map(Lifetime::For)
        .map_err(|_| "a number with ms, s, m or h, like 1h, or never".to_owned())
}

fn read_algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(text).ok_or_else(|| {
        let names = Algorithm::ALL.map(Algorithm::name);
        format!("one of {}", names.join(", "))
    })
}

fn read_claim(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            Ok((name.to_owned(), value))
        }
        _ => Err("a claim is written NAME=VALUE, like user_id=42".to_owned()),
    }
}

/// Does what is asked for by this configuration.
pub(crate) fn execute(arguments: Arguments, config: &Config) -> ExitCode {
    let done = match arguments.command {
        Some(Commands::Inspect(inspect)) => inspect.execute(config),
        None => arguments.mint.execute(config),
    };
    done.unwrap_or_else(|Fault(code, text)| {
        say(&format!("{text}\n"));
        ExitCode::from(code)
    })
}

/// Nothing could be done: the exit code, and why.
struct Fault(u8, String);

impl Fault {
    fn usage(text: impl ToString) -> Self {
        Self(USAGE, text.to_string())
    }

    fn configuration(text: impl ToString) -> Self {
        Self(BAD_CONFIGURATION, text.to_string())
    }
}

impl From<KeysError> for Fault {
    fn from(error: KeysError) -> Self {
        Self::configuration(error)
    }
}

/// What to do where nothing is configured that could sign or judge.
const NO_KEYS: &str = "there is no key: no [token] secret, key file or key set is configured; \
    set TIDEGATE_TOKEN_SECRET to the same 32 bytes or more for this command and for the server, as in\n  \
    export TIDEGATE_TOKEN_SECRET=\"$(openssl rand -hex 32)\"";

impl Mint {
    fn execute(self, config: &Config) -> Result<ExitCode, Fault> {
        let issuer = self.issuer(config)?;
        let key = self.signing_key(issuer.as_ref())?;
        let policy = issuer.map(|issuer| issuer.policy).unwrap_or_default();
        let claims = self.claims(&policy, config.profile)?;
        let text = Value::from(claims.clone()).to_string();
        let token = key.sign(self.kid.as_deref(), &text);
        let token = token.map_err(|error| Fault(FAILURE, error.to_string()))?;
        // Nobody has to accept it; but who tries things out wants to know.
        let verdict = ring(config)?.map(|ring| judge(&ring, &token));
        let refusal = verdict.and_then(Result::err);
        if self.common.json {
            let mut line = json!({ "token": token, "claims": claims });
            line["refused"] = refusal.as_ref().map_or(Value::Null, describe);
            print(&format!("{line}\n"));
        } else {
            print(&format!("{token}\n"));
        }
        Ok(match refusal {
            None => ExitCode::SUCCESS,
            Some(refusal) => {
                say(&format!(
                    "the server of this configuration refuses it: {refusal} ({})\n",
                    refusal.reason()
                ));
                ExitCode::from(REFUSED)
            }
        })
    }

    /// The issuer it is for; `None`: none is configured, and the key has to come from a file.
    fn issuer(&self, config: &Config) -> Result<Option<IssuerConfig>, Fault> {
        let issuers = config.issuers();
        if let Some(name) = &self.issuer {
            let is_named = |issuer: &IssuerConfig| issuer.policy.issuer.as_ref() == Some(name);
            let found = issuers.into_iter().find(is_named);
            return found
                .map(Some)
                .ok_or_else(|| Fault::usage(format!("no issuer \"{name}\" is configured")));
        }
        let wants_public = match &self.key {
            Some(path) => is_pem(&read(path)?),
            None => false,
        };
        let fits = |issuer: &IssuerConfig| match wants_public {
            true => issuer.keys.has_public_keys(),
            false => issuer.keys.secret.is_some() || issuer.keys.secret_file.is_some(),
        };
        let at = issuers.iter().position(fits).unwrap_or(0);
        Ok(issuers.into_iter().nth(at))
    }

    fn signing_key(&self, issuer: Option<&IssuerConfig>) -> Result<SigningKey, Fault> {
        let keys = issuer.map(|issuer| &issuer.keys);
        let algorithm = self.algorithm.or_else(|| keys?.algorithm);
        let by_secret = |secret: &[u8], place: &str| {
            // An algorithm of the issuer's public keys says nothing about a secret.
            let hmac = algorithm.filter(|one| self.algorithm.is_some() || one.is_hmac());
            SigningKey::secret(hmac.unwrap_or(Algorithm::Hs256), secret)
                .map_err(|error| Fault::configuration(format!("{place}: {error}")))
        };
        if let Some(path) = &self.key {
            let text = read(path)?;
            if !is_pem(&text) {
                return by_secret(line(&text), &path.display().to_string());
            }
            let wanted = algorithm.filter(|one| self.algorithm.is_some() || one.is_rsa());
            let key = SigningKey::pem(&text, wanted).or_else(|error| match self.algorithm {
                Some(_) => Err(error),
                // The issuer's algorithm is that of its RSA keys, and this is another kind.
                None => SigningKey::pem(&text, None),
            });
            return key
                .map_err(|error| Fault::configuration(format!("{}: {error}", path.display())));
        }
        let Some(keys) = keys else {
            return Err(Fault::configuration(format!(
                "{NO_KEYS}\nor name one with --key FILE"
            )));
        };
        match (&keys.secret, &keys.secret_file) {
            (Some(secret), _) => by_secret(secret.expose().as_bytes(), "token.secret"),
            (None, Some(path)) => by_secret(line(&read(path)?), &path.display().to_string()),
            (None, None) => Err(Fault::configuration(
                "the issuer has public keys only, which verify and do not sign; name the private key \
                 with --key FILE",
            )),
        }
    }

    /// What is written, and what the policy asks for beside it.
    fn claims(&self, policy: &TokenPolicy, profile: Profile) -> Result<Map<String, Value>, Fault> {
        let mut claims = Map::new();
        for (name, value) in &self.claims {
            if claims.insert(name.clone(), value.clone()).is_some() {
                return Err(Fault::usage(format!("the claim {name} is written twice")));
            }
        }
        if !claims.contains_key(&policy.user_claim) {
            if profile == Profile::Production {
                let user = &policy.user_claim;
                return Err(Fault::usage(format!(
                    "say whose token it is, like {user}=42"
                )));
            }
            claims.insert(policy.user_claim.clone(), DEVELOPER.into());
        }
        complete(&mut claims, policy, self.expires_in);
        Ok(claims)
    }
}

/// Adds what the policy asks for and is not there.
fn complete(claims: &mut Map<String, Value>, policy: &TokenPolicy, lifetime: Lifetime) {
    let now = wall();
    let mut default = |name: &str, value: Value| {
        claims.entry(name).or_insert(value);
    };
    default("iat", now.into());
    if let Lifetime::For(duration) = lifetime {
        default("exp", now.saturating_add(duration.as_secs()).into());
    }
    if let Some(id) = random(8) {
        default("jti", id.into());
    }
    if let Some(issuer) = &policy.issuer {
        default("iss", issuer.as_str().into());
    }
    if let Some(audience) = policy.audiences.first() {
        default("aud", audience.as_str().into());
    }
    if let Some(kind) = &policy.token_type {
        default("token_type", kind.as_str().into());
    }
}

impl Inspect {
    fn execute(self, config: &Config) -> Result<ExitCode, Fault> {
        let token = match self.token.as_deref() {
            None | Some("-") => read_token()?,
            Some(token) => token.to_owned(),
        };
        let token = token.trim();
        // What is wrong with keys is part of the answer, and is said in the log.
        let _log = logging::init(&LogConfig {
            level: LogLevel::Warn,
            format: LogFormat::Text,
        });
        let ring = ring(config)?.ok_or_else(|| Fault::configuration(NO_KEYS))?;
        let verdict = judge(&ring, token).and_then(|identity| {
            self.authorize(config, &identity)?;
            Ok(identity)
        });
        print(&if self.common.json {
            format!("{}\n", as_json(token, &verdict))
        } else {
            as_text(token, &verdict)
        });
        Ok(ExitCode::from(if verdict.is_ok() { 0 } else { REFUSED }))
    }

    /// Asks the route, if one is named.
    fn authorize(&self, config: &Config, identity: &Identity) -> Result<(), Refusal> {
        let Some(path) = &self.route else {
            return Ok(());
        };
        let mut served = routes::configured(config).unwrap_or_default();
        if config.demo_routes {
            served.extend(demo::routes(&Limits::default(), false).unwrap_or_default());
        }
        let path = path.split('?').next().unwrap_or_default();
        let templates = served.iter().map(|(route, _)| &route.path).enumerate();
        let (index, captures) = template::find(templates, path).ok_or(Refusal::NotFound)?;
        let (route, _) = &served[index];
        let parameter = |name: &str| captures.get(name);
        // A route without tokens lets in everybody, whatever they bring.
        if route.token == TokenDemand::None || route.rule.allows(identity.claims(), &parameter) {
            Ok(())
        } else {
            Err(Refusal::Rule)
        }
    }
}

/// The keys of this configuration, as the server has them; `None` if it names none.
fn ring(config: &Config) -> Result<Option<KeyRing>, KeysError> {
    let issuers = keys::issuers(config);
    if issuers.is_empty() {
        return Ok(None);
    }
    KeyRing::start(issuers).map(Some)
}

fn judge(ring: &KeyRing, token: &str) -> Result<Identity, Refusal> {
    let verifiers = ring.verifiers();
    let judge = Judge {
        verifier: Some(&verifiers),
        // They live in the server's memory.
        revocations: &Revocations::default(),
        wall: wall(),
    };
    judge.identify(token)
}

fn as_text(token: &str, verdict: &Result<Identity, Refusal>) -> String {
    let [header, claims] = parts(token);
    let mut text = String::new();
    for (name, part) in [("header", &header), ("claims", &claims)] {
        let part = part.as_deref().unwrap_or("not base64url of a text");
        text += &format!("{name}   {}\n", printable(part));
    }
    let times: Option<Value> = claims.and_then(|claims| serde_json::from_str(&claims).ok());
    for (claim, name) in [("iat", "issued"), ("nbf", "from"), ("exp", "until")] {
        let at = times.as_ref().and_then(|claims| claims[claim].as_u64());
        if let Some(at) = at.filter(|at| *at < DATES_END) {
            let date = HttpDate::from_unix(at);
            text += &format!("{name:<8} {}, {}\n", date.as_str(), distance(at));
        }
    }
    text + &match verdict {
        Ok(identity) => format!("accepted as the user {:?}\n", identity.user()),
        Err(refusal) => format!("refused: {refusal} ({})\n", refusal.reason()),
    }
}

fn as_json(token: &str, verdict: &Result<Identity, Refusal>) -> Value {
    let [header, claims] = parts(token).map(|part| {
        let part = part.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        part.unwrap_or(Value::Null)
    });
    json!({
        "accepted": verdict.is_ok(),
        "user": verdict.as_ref().ok().map(|identity| identity.user().to_string()),
        "refused": verdict.as_ref().err().map(describe),
        "header": header,
        "claims": claims,
    })
}

/// A refusal as the server tells it.
fn describe(refusal: &Refusal) -> Value {
    json!({
        "status": refusal.status(),
        "stage": refusal.stage().label(),
        "reason": refusal.reason(),
        "message": refusal.to_string(),
    })
}

/// Header and claims as they stand there, whoever wrote them.
fn parts(token: &str) -> [Option<String>; 2] {
    let mut parts = token.split('.').map(|digits| {
        let bytes = URL_SAFE_NO_PAD.decode(digits).ok()?;
        String::from_utf8(bytes).ok()
    });
    [parts.next().flatten(), parts.next().flatten()]
}

/// Nothing that a terminal would obey: the text is somebody else's.
fn printable(text: &str) -> String {
    let escaped = |letter: char| -> String {
        if letter.is_control() || is_bidi(letter) {
            letter.escape_unicode().to_string()
        } else {
            letter.into()
        }
    };
    text.chars().map(escaped).collect()
}

/// Letters that change the direction of others.
const fn is_bidi(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How far from now.
fn distance(at: u64) -> String {
    let now = wall();
    let written = |seconds: u64| {
        // No more exactly than one wants to read it.
        let seconds = match seconds {
            0..120 => seconds,
            120..7_200 => seconds / 60 * 60,
            _ => seconds / 3_600 * 3_600,
        };
        units::format_duration(Duration::from_secs(seconds))
    };
    match at.cmp(&now) {
        Ordering::Greater => format!("in {}", written(at - now)),
        Ordering::Equal => "now".to_owned(),
        Ordering::Less => format!("{} ago", written(now - at)),
    }
}

/// A token of this development server, which has no keys of its own: gives it a secret that lives as long
/// as the process, and returns what to add to a URL, or the token where URLs are not looked at.
pub(crate) fn ready_made(config: &mut Config) -> Option<String> {
    let algorithm = config.token.issuer.keys.algorithm;
    if config.profile != Profile::Development
        || config.has_keys()
        || algorithm.is_some_and(|algorithm| !algorithm.is_hmac())
    {
        return None;
    }
    let secret = Zeroizing::new(random(32)?);
    let policy = &config.token.issuer.policy;
    let mut claims = Map::new();
    claims.insert(policy.user_claim.clone(), DEVELOPER.into());
    complete(&mut claims, policy, Lifetime::For(READY_MADE_FOR));
    let key = SigningKey::secret(algorithm.unwrap_or(Algorithm::Hs256), secret.as_bytes()).ok()?;
    let token = key.sign(None, &Value::from(claims).to_string()).ok()?;
    config.token.issuer.keys.secret = Secret::new(&secret).ok();
    let sources = &config.token.sources;
    Some(match sources.order.contains(&Source::Query) {
        true => format!("?{}={token}", sources.query_parameter),
        false => token,
    })
}

/// The user of tokens that name none.
pub(crate) const DEVELOPER: &str = "developer";

/// How long the token is good that a development server prints.
pub(crate) const READY_MADE_FOR: Duration = Duration::from_secs(24 * 3_600);

/// So many random bytes, in hexadecimal.
fn random(count: usize) -> Option<String> {
    let mut bytes = Zeroizing::new(vec![0; count]);
    rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The wall clock, in seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads the clock itself"
)]
fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Reads a key file.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let text = fs::read(path).map(Zeroizing::new);
    let text = text.map_err(|error| {
        Fault::configuration(format!("{} cannot be read: {error}", path.display()))
    })?;
    if text.len() > KEY_BYTES_MAX {
        let text = format!("{} is longer than 64 KiB, which no key is", path.display());
        return Err(Fault::configuration(text));
    }
    Ok(text)
}

fn is_pem(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"-----BEGIN")
}

/// A secret without the line end behind it, as the server reads it.
fn line(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// Reads a token from standard input, where nobody else sees it.
fn read_token() -> Result<String, Fault> {
    let mut text = String::new();
    // A little more than the longest, so that a longer one is refused for its length.
    let most = Bearer::BYTES_MAX as u64 + 64;
    let read = io::stdin().take(most).read_to_string(&mut text);
    read.map_err(|error| Fault::usage(format!("no token on standard input: {error}")))?;
    match text.trim_start().lines().next() {
        Some(token) => Ok(token.to_owned()),
        None => Err(Fault::usage("no token on standard input")),
    }
}

const AFTER_HELP: &str = "\
Examples:
  export TIDEGATE_TOKEN_SECRET=\"$(openssl rand -hex 32)\"
  tidegate token user_id=42 role=Admin 'projects=[7,8]' --expires-in 1h
  tidegate token --key private.pem --algorithm ES256 --kid 2026-11 sub=42
  tidegate token inspect --route /ws/projects/7/ < token.txt

Claims that the configuration asks for (iss, aud, token_type) are added, and iat, exp and jti; what is
written wins. Secrets come from the configuration, its environment variables or a file, never from the
command line, where other users of the host see them. What has been revoked, only the server knows.

Exit codes: 0 the token is accepted, 1 it is refused, 2 usage, 78 bad configuration or no key.";

const REFUSED: u8 = 1;
const FAILURE: u8 = 1;

/// Longest key file, in bytes.
const KEY_BYTES_MAX: usize = 64 * 1024;

/// The end of the year 9999, beyond which no date can be written.
const DATES_END: u64 = 253_402_300_800;
