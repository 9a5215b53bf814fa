//! The key sources that a configuration names, as [`KeyRing`](super::KeyRing) wants them.

use super::source::{IssuerKeys, JwksUrl, KeySource, Secret};
use crate::admission::jwt::{Algorithm, JwksOptions};
use crate::config::{Config, IssuerConfig, KeysConfig};

/// Everybody who issues tokens, with the claims that routes look at; empty where no keys are configured.
#[must_use]
pub fn issuers(config: &Config) -> Vec<IssuerKeys> {
    config.issuers().into_iter().map(keys_of).collect()
}

fn keys_of(issuer: IssuerConfig) -> IssuerKeys {
    let KeysConfig {
        algorithm,
        secret,
        secret_file,
        previous_secrets,
        key_files,
        jwks_file,
        jwks_url,
        jwks_refresh,
        jwks_max_age,
        jwks_ca_file,
        jwks_allow_http,
        jwks_allow_private_addresses,
    } = issuer.keys;
    let hmac = algorithm.unwrap_or(Algorithm::Hs256);
    let rsa_default = algorithm
        .filter(|algorithm| algorithm.is_rsa())
        .unwrap_or(Algorithm::Rs256);
    let mut sources = Vec::new();
    sources.extend(
        (secret.iter().chain(&previous_secrets)).map(|secret| KeySource::Secret {
            secret: Secret::new(secret.expose().as_bytes().to_vec()),
            algorithm: hmac,
            id: None,
        }),
    );
    sources.extend(secret_file.map(|path| KeySource::SecretFile {
        path,
        algorithm: hmac,
        id: None,
    }));
    sources.extend(key_files.into_iter().map(|file| KeySource::PemFile {
        path: file.path,
        algorithm,
        id: file.id,
    }));
    sources.extend(jwks_file.map(|path| KeySource::JwksFile {
        path,
        options: JwksOptions {
            allow_secrets: true,
            rsa_default,
        },
    }));
    sources.extend(jwks_url.map(|url| {
        KeySource::JwksUrl(JwksUrl {
            rsa_default,
            refresh: jwks_refresh,
            max_age: jwks_max_age,
            ca_file: jwks_ca_file,
            allow_http: jwks_allow_http,
            allow_private_addresses: jwks_allow_private_addresses,
            ..JwksUrl::new(url)
        })
    }));
    IssuerKeys {
        policy: issuer.policy,
        sources,
    }
}
