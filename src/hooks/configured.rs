//! The hooks of a configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{HookFault, Hooks, Owns, RouteHooks, RouteSettings, Settings, breaker};
use crate::config::{Config, HooksConfig, RouteConfig, Secret};
use crate::file::{self, FileError};
use crate::hub::Channel;
use crate::outbound::Reach;
use crate::routes::{self, channels::ChannelTemplates};
use crate::signature::Signer;

/// Longest file with a secret in bytes.
const SECRET_BYTES_MAX: u64 = 4 * 1024;

/// The hooks of a configuration, and those of each of its routes.
#[derive(Debug)]
pub struct Configured {
    /// All of them, to be started.
    pub hooks: Hooks,
    /// Of each `[[route]]`, in their order, if it has any.
    pub routes: Vec<Option<RouteHooks>>,
}

/// Why the hooks of a configuration cannot be made. `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HooksError {
    /// A URL that cannot be called, or the file of authorities.
    Url(HookFault),
    /// The file of the secret cannot be used.
    File(PathBuf, FileError),
    /// What the file holds is no secret.
    Secret(PathBuf, String),
}

impl fmt::Display for HooksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(fault) => write!(f, "hooks: {fault}"),
            Self::File(path, error) => write!(f, "hooks.secret_file: {}: {error}", path.display()),
            Self::Secret(path, problem) => {
                write!(f, "hooks.secret_file: {}: {problem}", path.display())
            }
        }
    }
}

impl std::error::Error for HooksError {}

/// Makes the hooks that a configuration asks for; `None` if no route has any. Reads the secret's file.
///
/// # Errors
/// The first URL or file that cannot be used.
pub fn configured(config: &Config) -> Result<Option<Configured>, HooksError> {
    if !config.routes.iter().any(|route| route.hooks.is_any()) {
        return Ok(None);
    }
    let mut hooks = Hooks::new(settings(&config.hooks)?);
    let own = routes::own_channels(config);
    let routes = config.routes.iter().zip(own).map(|(route, own)| {
        if !route.hooks.is_any() {
            return Ok(None);
        }
        let settings = RouteSettings {
            path: route.path.to_string(),
            urls: route.hooks.urls().map(|url| url.map(str::to_owned)),
            fail: route.hooks.fail,
            owns: owns(route, own),
        };
        hooks.route(settings).map(Some).map_err(HooksError::Url)
    });
    let routes = routes.collect::<Result<_, _>>()?;
    Ok(Some(Configured { hooks, routes }))
}

/// Which channels answers may name on a route.
fn owns(route: &RouteConfig, own: ChannelTemplates) -> Owns {
    let prefixes = route.hooks.channels.clone();
    Arc::new(move |channel: &Channel| {
        let name = channel.as_str();
        own.covers(channel) || prefixes.iter().any(|prefix| name.starts_with(&**prefix))
    })
}

fn settings(config: &HooksConfig) -> Result<Settings, HooksError> {
    let wide = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Settings {
        threads: wide(config.threads),
        queue_max: wide(config.queue_max),
        queue_bytes_max: config.queue_bytes_max,
        connection_queue_max: wide(config.connection_queue_max),
        timeout: config.timeout,
        authorise_timeout: config.authorise_timeout,
        retries: config.retries,
        retry_wait: config.retry_wait,
        retry_messages: config.retry_messages,
        breaker: breaker::Limits {
            failures: config.breaker_failures,
            wait: config.breaker_wait,
        },
        signer: signer(config)?,
        allow_http: config.allow_http,
        reach: Reach {
            private: config.allow_private_addresses,
            networks: config.allow_networks.networks().to_vec(),
            ..Reach::default()
        },
        ca_file: config.ca_file.clone(),
    })
}

fn signer(config: &HooksConfig) -> Result<Option<Signer>, HooksError> {
    if let Some(secret) = &config.secret {
        return Ok(Some(Signer::new(secret.expose())));
    }
    let secret = config.secret_file.as_deref().map(read_secret).transpose()?;
    Ok(secret.map(|secret| Signer::new(secret.expose())))
}

fn read_secret(path: &Path) -> Result<Secret, HooksError> {
    let bytes = file::read(path, SECRET_BYTES_MAX)
        .map_err(|error| HooksError::File(path.to_owned(), error))?;
    let refused = |problem: String| HooksError::Secret(path.to_owned(), problem);
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("is not UTF-8".to_owned()))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Secret::new(text).map_err(refused)
}
