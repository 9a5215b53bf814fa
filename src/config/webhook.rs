//! `[webhook]`: whom alerts are posted to.

use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use super::setting::{Setting, Slot};
use super::text::WEB_URL;

/// `[webhook]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Where alerts are posted when they begin to fire and when they are over; `None`: nowhere.
    pub url: Option<String>,
    /// The secret that the posts are signed with.
    pub secret: Option<Secret>,
    /// A file that holds it, without the line end behind it. Instead of [`secret`](Self::secret).
    pub secret_file: Option<PathBuf>,
    /// Longest a post may take, name, connection and answer together.
    pub timeout: Duration,
    /// Most notifications that wait while the receiver is down; one more drops the oldest.
    pub queue_max: u32,
    /// Longest pause between two attempts; it begins at a second and doubles.
    pub retry_max: Duration,
    /// How long a notification is tried before it is given up.
    pub give_up_after: Duration,
    /// Certificates that may vouch for the receiver, PEM. `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether it may be posted to without TLS: whoever listens on the way learns what is wrong here.
    pub allow_http: bool,
    /// Whether the receiver may have an address that is not public.
    pub allow_private_addresses: bool,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            url: None,
            secret: None,
            secret_file: None,
            timeout: Duration::from_secs(5),
            queue_max: 256,
            retry_max: Duration::from_secs(60),
            give_up_after: Duration::from_secs(86_400),
            ca_file: None,
            allow_http: false,
            allow_private_addresses: false,
        }
    }
}

impl WebhookConfig {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        vec![
            Setting::new(
                "webhook.url",
                Slot::TextOrNone(&mut self.url, &WEB_URL),
                "Where alerts are posted, as JSON, when they begin to fire and when they are over",
            ),
            Setting::new(
                "webhook.secret",
                Slot::Secret(&mut self.secret),
                "The secret that the posts are signed with; better in the environment or a file of its own",
            ),
            Setting::new(
                "webhook.secret_file",
                Slot::File(&mut self.secret_file),
                "A file that holds the secret, instead of the secret itself",
            ),
            Setting::new(
                "webhook.timeout",
                Slot::Time(&mut self.timeout, seconds(1, 60)),
                "Longest a post may take, from the look-up of the name to the end of the answer",
            ),
            Setting::new(
                "webhook.queue_max",
                Slot::Count(&mut self.queue_max, 1..=10_000),
                "Most notifications that wait while the receiver is down; one more drops the oldest",
            ),
            Setting::new(
                "webhook.retry_max",
                Slot::Time(&mut self.retry_max, seconds(1, 3_600)),
                "Longest pause between two attempts; it begins at 1s and doubles",
            ),
            Setting::new(
                "webhook.give_up_after",
                Slot::Time(&mut self.give_up_after, seconds(1, 7 * 86_400)),
                "How long a notification is tried before it is given up",
            ),
            Setting::new(
                "webhook.ca_file",
                Slot::File(&mut self.ca_file),
                "Certificates that may vouch for the receiver, PEM; none: the system's",
            ),
            Setting::new(
                "webhook.allow_http",
                Slot::Switch(&mut self.allow_http),
                "Post without TLS: whoever listens on the way learns what is wrong here",
            ),
            Setting::new(
                "webhook.allow_private_addresses",
                Slot::Switch(&mut self.allow_private_addresses),
                "Post to addresses that are not public",
            ),
        ]
    }
}
