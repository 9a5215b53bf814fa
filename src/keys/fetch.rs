//! One fetch of a key set: a GET that cannot be led astray.
//!
//! Only the configured URL is asked; nothing in a token or an answer names another (D5). What else keeps
//! the call on its way is said in [`outbound`](crate::outbound). No connection is kept, so no address is
//! trusted for longer than its fetch. Bodies are at most [`Jwks::BYTES_MAX`].

use std::time::Duration;

use ureq::unversioned::resolver::{DefaultResolver, Resolver};

use super::error::{FetchError, KeyProblem};
use super::source::JwksUrl;
use crate::admission::jwt::{Jwks, JwksOptions, KeyError};
use crate::outbound::{Client, Options, Reach};

/// Longest time that means anything, and that can be added to a clock.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Fetches one key set, as often as it is asked to. Blocks its thread.
#[derive(Debug)]
pub(super) struct Fetcher<R = DefaultResolver> {
    client: Client<R>,
    source: JwksUrl,
}

impl Fetcher {
    /// Checks the source. Reads the authorities once, to say at start that they are missing.
    pub(super) fn new(source: &JwksUrl) -> Result<Self, KeyProblem> {
        let client = Client::new(&source.url, options(source))
            .map_err(KeyProblem::from)
            // What is wrong with the URL is said first.
            .and_then(|client| check(source).map(|()| client));
        Ok(Self {
            client: client?,
            source: source.clone(),
        })
    }
}

impl<R: Resolver> Fetcher<R> {
    /// Fetches and reads the set. Takes at most the source's `timeout`.
    pub(super) fn fetch(&self) -> Result<Jwks, FetchError> {
        let answer = self.client.get(&[
            ("accept", "application/jwk-set+json, application/json"),
            ("connection", "close"),
        ])?;
        if answer.status != 200 {
            return Err(FetchError::Status(answer.status));
        }
        let text =
            std::str::from_utf8(&answer.body).map_err(|_| FetchError::Keys(KeyError::Jwks))?;
        let options = JwksOptions {
            // Whoever can answer for the issuer's web server must not learn a secret, nor choose one.
            allow_secrets: false,
            rsa_default: self.source.rsa_default,
        };
        Jwks::parse(text, &options).map_err(FetchError::Keys)
    }
}

/// How the source is called.
fn options(source: &JwksUrl) -> Options {
    Options {
        allow_http: source.allow_http,
        reach: Reach {
            anywhere: source.allow_private_addresses,
            ..Reach::default()
        },
        ca_file: source.ca_file.clone(),
        timeout: source.timeout,
        answer_bytes_max: Jwks::BYTES_MAX,
        idle_connections_max: 0,
    }
}

/// Do the source's times go together?
fn check(source: &JwksUrl) -> Result<(), KeyProblem> {
    let times = [source.refresh, source.retry, source.unknown_key_interval];
    let is_sane = |time: &Duration| (Duration::from_millis(1)..=TIME_MAX).contains(time);
    if !times.iter().all(is_sane) || !(source.refresh..=TIME_MAX).contains(&source.max_age) {
        return Err(KeyProblem::Times);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_do_not_go_together_are_refused_at_start() {
        let source = || JwksUrl {
            allow_http: true,
            ..JwksUrl::new("http://id.example/")
        };
        let second = Duration::from_secs(1);
        for (what, source, expected) in [
            ("defaults", source(), Ok(())),
            (
                "no time between fetches",
                JwksUrl {
                    refresh: Duration::ZERO,
                    ..source()
                },
                Err(KeyProblem::Times),
            ),
            (
                "older than the time between fetches",
                JwksUrl {
                    max_age: 599 * second,
                    ..source()
                },
                Err(KeyProblem::Times),
            ),
            (
                "as old as the time between fetches",
                JwksUrl {
                    max_age: 600 * second,
                    ..source()
                },
                Ok(()),
            ),
            (
                "for ever",
                JwksUrl {
                    max_age: Duration::MAX,
                    ..source()
                },
                Err(KeyProblem::Times),
            ),
            (
                "no time for a fetch",
                JwksUrl {
                    timeout: Duration::ZERO,
                    ..source()
                },
                Err(KeyProblem::Times),
            ),
            (
                "not https",
                JwksUrl::new("http://id.example/"),
                Err(KeyProblem::UrlNotHttps),
            ),
        ] {
            assert_eq!(Fetcher::new(&source).map(|_| ()), expected, "{what}");
        }
    }
}
