//! `[hooks]`, and the keys of a `[[route]]` that name a backend's URLs.

use std::path::PathBuf;
use std::time::Duration;

use crate::admission::address::TrustedNetworks;
use crate::hooks::{Event, FailMode};
use crate::routes::handler::Unmatched;

use super::Profile;
use super::route::RouteKind;
use super::rules::Rules;
use super::secret::Secret;
use super::sections::choose;
use super::setting::{Choice, Setting, Slot};
use super::text::{CHANNEL_PREFIX, Texts, WEB_URL};
use super::units::{KIB, MIB};

/// `[hooks]`: how backends are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HooksConfig {
    /// Calls at a time.
    pub threads: u32,
    /// Most calls that are under way or wait.
    pub queue_max: u32,
    /// Most bytes of them.
    pub queue_bytes_max: usize,
    /// Most events of one connection that wait for its call in flight.
    pub connection_queue_max: u32,
    /// Longest one attempt may take.
    pub timeout: Duration,
    /// Longest that a connection waits to be let in: for its place in the queue, and for all attempts.
    pub authorise_timeout: Duration,
    /// Further attempts at a call that failed.
    pub retries: u32,
    /// The pause before the first of them; it doubles.
    pub retry_wait: Duration,
    /// Whether a message is sent again that the backend may have acted upon.
    pub retry_messages: bool,
    /// Failures in a row after which a URL is left alone.
    pub breaker_failures: u32,
    /// For how long, the first time; it doubles up to eight times.
    pub breaker_wait: Duration,
    /// The secret that requests are signed with.
    pub secret: Option<Secret>,
    /// A file that holds it, without the line end behind it. Instead of [`secret`](Self::secret).
    pub secret_file: Option<PathBuf>,
    /// Certificates that may vouch for backends, PEM. `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether backends may be called without TLS.
    pub allow_http: bool,
    /// Whether backends may have addresses of private networks and of this host.
    pub allow_private_addresses: bool,
    /// Networks that may be called whatever they are.
    pub allow_networks: TrustedNetworks,
}

impl HooksConfig {
    /// The defaults of a profile.
    pub(super) fn defaults(profile: Profile) -> Self {
        Self {
            threads: 8,
            queue_max: 1_024,
            queue_bytes_max: 16 * MIB,
            connection_queue_max: 32,
            timeout: Duration::from_secs(5),
            authorise_timeout: Duration::from_secs(30),
            retries: 2,
            retry_wait: Duration::from_millis(200),
            retry_messages: false,
            breaker_failures: 10,
            breaker_wait: Duration::from_secs(10),
            secret: None,
            secret_file: None,
            ca_file: None,
            allow_http: profile == Profile::Development,
            allow_private_addresses: true,
            allow_networks: TrustedNetworks::default(),
        }
    }

    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        let millis = |from, to| Duration::from_millis(from)..=Duration::from_millis(to);
        vec![
            Setting::new(
                "hooks.threads",
                Slot::Count(&mut self.threads, 1..=256),
                "Calls at a time, each a thread",
            ),
            Setting::new(
                "hooks.queue_max",
                Slot::Count(&mut self.queue_max, 1..=1_048_576),
                "Most calls that are under way or wait; one more counts as failed",
            ),
            Setting::new(
                "hooks.queue_bytes_max",
                Slot::Size(&mut self.queue_bytes_max, 64 * KIB..=1_024 * MIB),
                "Most bytes of calls that are under way or wait; more count as failed",
            ),
            Setting::new(
                "hooks.connection_queue_max",
                Slot::Count(&mut self.connection_queue_max, 1..=65_536),
                "Most events of one connection that wait for its call in flight; one more counts as failed",
            ),
            Setting::new(
                "hooks.timeout",
                Slot::Time(&mut self.timeout, millis(10, 60_000)),
                "Longest one attempt may take, from the look-up of the name to the end of the answer",
            ),
            Setting::new(
                "hooks.authorise_timeout",
                Slot::Time(&mut self.authorise_timeout, millis(100, 600_000)),
                "Longest that a connection waits to be let in, in the queue and for all attempts; then it is closed with 4503",
            ),
            Setting::new(
                "hooks.retries",
                Slot::Count(&mut self.retries, 0..=10),
                "Further attempts at a call that failed, with the same id; of a message only where the backend cannot have acted",
            ),
            Setting::new(
                "hooks.retry_wait",
                Slot::Time(&mut self.retry_wait, millis(1, 60_000)),
                "The pause before the first of them; it doubles",
            ),
            Setting::new(
                "hooks.retry_messages",
                Slot::Switch(&mut self.retry_messages),
                "Send a message again also where the backend may have acted: it knows repetitions by their id",
            ),
            Setting::new(
                "hooks.breaker_failures",
                Slot::Count(&mut self.breaker_failures, 1..=10_000),
                "Failures in a row after which a URL is left alone",
            ),
            Setting::new(
                "hooks.breaker_wait",
                Slot::Time(&mut self.breaker_wait, millis(100, 600_000)),
                "For how long; then one call is made to see, and each failure doubles the time, up to eight times",
            ),
            Setting::new(
                "hooks.secret",
                Slot::Secret(&mut self.secret),
                "The secret that requests are signed with; better in the environment or a file of its own",
            ),
            Setting::new(
                "hooks.secret_file",
                Slot::File(&mut self.secret_file),
                "A file that holds the secret, instead of the secret itself",
            ),
            Setting::new(
                "hooks.ca_file",
                Slot::File(&mut self.ca_file),
                "Certificates that may vouch for backends, PEM; none: the system's",
            ),
            Setting::new(
                "hooks.allow_http",
                Slot::Switch(&mut self.allow_http),
                "Call backends without TLS: for a network that is your own",
            ),
            Setting::new(
                "hooks.allow_private_addresses",
                Slot::Switch(&mut self.allow_private_addresses),
                "Call backends on private networks and this host; never link-local ones, where clouds keep secrets",
            ),
            Setting::new(
                "hooks.allow_networks",
                Slot::List(Box::new(&mut self.allow_networks)),
                "Networks that may be called whatever they are",
            ),
        ]
    }
}

/// The keys of a `[[route]]` about hooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteHooksConfig {
    /// Who is asked whether somebody is let in.
    pub authorise: Option<String>,
    /// Who hears of somebody who has been.
    pub on_open: Option<String>,
    /// Who hears of messages.
    pub on_message: Option<String>,
    /// Who hears of the end.
    pub on_close: Option<String>,
    /// What happens when the backend is away.
    pub fail: FailMode,
    /// How channels begin that answers may name, beside the route's own.
    pub channels: Vec<String>,
}

impl RouteHooksConfig {
    /// The URL of each event, by [`Event::index`].
    #[must_use]
    pub fn urls(&self) -> [Option<&str>; 4] {
        Event::ALL.map(|event| {
            let url = match event {
                Event::Authorise => &self.authorise,
                Event::Open => &self.on_open,
                Event::Message => &self.on_message,
                Event::Close => &self.on_close,
            };
            url.as_deref()
        })
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.urls().iter().any(Option::is_some)
    }

    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "route.authorise",
                Slot::TextOrNone(&mut self.authorise, &WEB_URL),
                "Who is asked whether somebody is let in; while it cannot be asked, nobody is (4503)",
            ),
            Setting::new(
                "route.on_open",
                Slot::TextOrNone(&mut self.on_open, &WEB_URL),
                "Who hears of somebody who has been let in, and may answer with messages",
            ),
            Setting::new(
                "route.on_message",
                Slot::TextOrNone(&mut self.on_message, &WEB_URL),
                "Who hears of messages, and may answer them",
            ),
            Setting::new(
                "route.on_close",
                Slot::TextOrNone(&mut self.on_close, &WEB_URL),
                "Who hears of the end of a connection",
            ),
            Setting::new(
                "route.hook_fail",
                Slot::Choice(&mut self.fail),
                "What happens to a connection while on_open or on_message cannot be told: nothing, or it is closed with 1013",
            ),
            Setting::new(
                "route.hook_channels",
                Slot::List(Box::new(Texts(&mut self.channels, &CHANNEL_PREFIX))),
                "How channels begin that answers may name, beside the route's own",
            ),
        ]
    }
}

impl Choice for FailMode {
    fn names(&self) -> &'static [&'static str] {
        &["open", "closed"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::Open, Self::Closed])
    }
}

/// The names of the keys that hold URLs, by [`Event::index`].
const URL_KEYS: [&str; 4] = ["authorise", "on_open", "on_message", "on_close"];

/// Hooks are called where and as they may be, and signed.
pub(super) fn hooks_can_be_called(rules: &mut Rules<'_>) {
    let hooks = rules.config.hooks.clone();
    let mut is_any = false;
    for (index, route) in rules.config.routes.clone().iter().enumerate() {
        for (name, url) in URL_KEYS.iter().zip(route.hooks.urls()) {
            let Some(url) = url else { continue };
            is_any = true;
            if url.starts_with("http://") && !hooks.allow_http {
                rules.refuse_field(
                    "route",
                    index,
                    name,
                    "this would be called without encryption; write https://, or, for a network that \
                     is your own, hooks.allow_http = true",
                );
            }
        }
        let is_for_hook = route.channels.unmatched == Unmatched::Hook;
        if is_for_hook && route.hooks.on_message.is_none() {
            let why = "there is nobody to hear of it; write on_message, or another word";
            rules.refuse_field("route", index, "unmatched", why);
        }
        if route.kind == RouteKind::Channels && !is_for_hook && route.hooks.on_message.is_some() {
            let why = "it would never hear of a message; write unmatched = \"hook\"";
            rules.refuse_field("route", index, "on_message", why);
        }
    }
    match (is_any, &hooks.secret, &hooks.secret_file) {
        (_, Some(_), Some(_)) => rules.refuse(
            "hooks.secret_file",
            "the secret is written twice; remove hooks.secret or hooks.secret_file",
        ),
        (true, None, None) if rules.config.profile == Profile::Production => rules.refuse(
            "hooks.secret_file",
            "without a secret, a backend cannot tell who calls it; write hooks.secret_file",
        ),
        (true, None, None) => rules.warn(
            "hooks.secret",
            "without a secret, a backend cannot tell who calls it; write hooks.secret_file",
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, File, Flags, Host, Sources};

    /// What is wrong with a configuration, by key; or how often it is warned of hooks.
    fn judge(profile: &str, text: &str) -> Result<usize, Vec<String>> {
        let text = format!("profile = \"{profile}\"\n{text}");
        let sources = Sources {
            flags: Flags::default(),
            environment: Vec::new(),
            file: Some(File {
                path: "t.toml",
                text: &text,
            }),
            host: Host {
                cores: 1,
                descriptors_max: None,
            },
        };
        match Config::load(&sources) {
            Ok(loaded) => {
                let warnings = loaded.warnings.iter();
                Ok(warnings.filter(|one| one.key.starts_with("hooks.")).count())
            }
            Err(errors) => Err(errors.0.iter().map(|error| error.key.clone()).collect()),
        }
    }

    const SECRET: &str = "[hooks]\nsecret = \"0123456789abcdef0123456789abcdeF\"\n";
    const PRODUCTION: &str = "listen = [{ address = \"127.0.0.1:0\", tls = false }]\n\
        token.secret = \"0123456789abcdef0123456789abcdef\"\norigin.allowed = [\"https://a.example\"]\n";

    fn route(keys: &str) -> String {
        format!("[[route]]\npath = \"/x\"\n{keys}\n")
    }

    #[test]
    fn production_wants_hooks_signed_and_encrypted() {
        let judge = |text: &str| judge("production", &format!("{PRODUCTION}{text}"));
        let https = route("kind = \"echo\"\non_open = \"https://b.example/\"");
        let http = route("kind = \"echo\"\non_close = \"http://b.example/\"");
        assert_eq!(judge(&format!("{SECRET}{https}")), Ok(0));
        assert_eq!(judge(&https), Err(vec!["hooks.secret_file".to_owned()]));
        let in_file = format!("[hooks]\nsecret_file = \"/run/secret\"\n{https}");
        assert_eq!(judge(&in_file), Ok(0));
        let twice = format!("{SECRET}secret_file = \"/run/secret\"\n{https}");
        assert_eq!(judge(&twice), Err(vec!["hooks.secret_file".to_owned()]));
        assert_eq!(
            judge(&format!("{SECRET}{http}")),
            Err(vec!["route.on_close".to_owned()])
        );
        assert_eq!(judge(&format!("{SECRET}allow_http = true\n{http}")), Ok(0));
    }

    #[test]
    fn development_warns_of_unsigned_hooks_and_calls_http() {
        let http = route("kind = \"echo\"\nauthorise = \"http://127.0.0.1:8000/\"");
        assert_eq!(judge("development", &http), Ok(1));
        assert_eq!(judge("development", &format!("{SECRET}{http}")), Ok(0));
        assert_eq!(judge("development", &route("kind = \"echo\"")), Ok(0));
    }

    #[test]
    fn messages_of_a_route_with_channels_have_somebody_who_hears_of_them() {
        let judge = |keys: &str| judge("development", &format!("{SECRET}{}", route(keys)));
        let refused = |key: &str| Err(vec![format!("route.{key}")]);
        let hears = "on_message = \"https://b.example/\"";
        assert_eq!(
            judge("kind = \"channels\"\nunmatched = \"hook\""),
            refused("unmatched")
        );
        assert_eq!(
            judge(&format!("kind = \"channels\"\n{hears}")),
            refused("on_message")
        );
        assert_eq!(
            judge(&format!(
                "kind = \"channels\"\nunmatched = \"hook\"\n{hears}"
            )),
            Ok(0)
        );
        assert_eq!(judge(&format!("kind = \"broadcast\"\n{hears}")), Ok(0));
    }

    #[test]
    fn urls_and_prefixes_that_are_none_are_refused() {
        for keys in [
            "on_open = \"backend\"",
            "on_open = \"https://user:pass@b.example/\"",
            "on_open = \"ftp://b.example/\"",
            "hook_channels = [\"\"]",
            "hook_channels = [\"a*\"]",
            "hook_fail = \"shut\"",
        ] {
            let text = route(&format!("kind = \"echo\"\n{keys}"));
            assert!(judge("development", &text).is_err(), "{keys}");
        }
    }
}
