//! The API that a configuration asks for, with its keys read from their files.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{KeySettings, Limits, Settings};
use crate::admission::LOOPBACK;
use crate::config::{ApiKeyConfig, Config, Secret};

/// Longest file with a key, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 4 * 1024;

/// A key that cannot be used.
#[derive(Debug)]
pub struct KeyFileError {
    path: PathBuf,
    why: String,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, why } = self;
        write!(
            f,
            "the API's key in {} cannot be used: {why}",
            path.display()
        )
    }
}

impl std::error::Error for KeyFileError {}

/// What the API is to be like; `None` where the configuration has no key, or nowhere to serve it.
///
/// # Errors
/// A file that cannot be read, or does not hold a key; a key that is there twice. The error names the
/// file.
pub fn settings(config: &Config) -> Result<Option<Settings>, KeyFileError> {
    if !config.serves_api() {
        return Ok(None);
    }
    let main = ApiKeyConfig {
        name: "api.key".to_owned(),
        key: config.api.key.clone(),
        key_file: config.api.key_file.clone(),
        ..ApiKeyConfig::default()
    };
    let has_key = |key: &&ApiKeyConfig| key.key.is_some() || key.key_file.is_some();
    let mut keys: Vec<KeySettings> = Vec::new();
    for key in Some(&main)
        .filter(has_key)
        .into_iter()
        .chain(&config.api_keys)
    {
        let own = key_of(key)?;
        if let (Some(path), true) = (
            &key.key_file,
            keys.iter().any(|other| other.secret == own.secret),
        ) {
            return Err(KeyFileError {
                path: path.clone(),
                why: "another key is the same".to_owned(),
            });
        }
        keys.push(own);
    }
    let mut hosts = config.api.hosts.clone();
    let mut addresses = config.api.listen.iter();
    if hosts.is_empty() && addresses.all(|address| address.ip().to_canonical().is_loopback()) {
        hosts.push(LOOPBACK.to_owned());
    }
    Ok(Some(Settings {
        keys,
        hosts,
        limits: Limits {
            channels_max: config.api.channels_max,
            commands_max: config.api.commands_max,
        },
    }))
}

fn key_of(config: &ApiKeyConfig) -> Result<KeySettings, KeyFileError> {
    let secret = match (&config.key, &config.key_file) {
        (Some(secret), _) => secret.expose().as_bytes().into(),
        (None, Some(path)) => read(path).map_err(|why| KeyFileError {
            path: path.clone(),
            why,
        })?,
        // The rules of the configuration have refused it.
        (None, None) => Box::default(),
    };
    Ok(KeySettings {
        name: config.name.clone(),
        secret,
        prefixes: config.prefixes.clone(),
        rate: config.rate.map(|rate| rate.quota()),
    })
}

/// The key in a file, without the line end behind it.
fn read(path: &Path) -> Result<Box<[u8]>, String> {
    let mut text = Zeroizing::new(String::new());
    let limited = File::open(path).map(|file| file.take(KEY_FILE_BYTES_MAX + 1));
    let read = limited.and_then(|mut file| file.read_to_string(&mut text));
    read.map_err(|error: io::Error| error.to_string())?;
    if text.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err("it is longer than 4 KiB".to_owned());
    }
    let key = text.strip_suffix('\n').unwrap_or(&text);
    let key = key.strip_suffix('\r').unwrap_or(key);
    // The same demands as on one in the configuration.
    Secret::new(key).map(|secret| secret.expose().as_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, Profile};

    fn config() -> Config {
        let host = Host {
            cores: 1,
            descriptors_max: None,
        };
        Config::defaults(Profile::Development, &host)
    }

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tidegate-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn keys_are_read_from_their_files() {
        assert!(settings(&config()).unwrap().is_none());
        let mut config = config();
        let path = file("key", &format!("{KEY}\r\n"));
        config.api.key_file = Some(path.clone());
        let settings = settings(&config).unwrap().unwrap();
        assert_eq!(*settings.keys[0].secret, *KEY.as_bytes());
        assert_eq!(settings.hosts, [LOOPBACK]);
        config.api.listen.push(([0, 0, 0, 0], 1).into());
        assert!(super::settings(&config).unwrap().unwrap().hosts.is_empty());
        config.api.key = Some(Secret::new(KEY).unwrap());
        config.api.key_file = None;
        config.api_keys = vec![ApiKeyConfig {
            name: "same".to_owned(),
            key_file: Some(path.clone()),
            ..ApiKeyConfig::default()
        }];
        let error = super::settings(&config).unwrap_err().to_string();
        assert!(
            error.contains("another key is the same") && !error.contains(KEY),
            "{error}"
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_holds_no_key_is_named() {
        let long = "x".repeat(5000);
        for (name, text, why) in [
            ("short", Some("short"), "32 bytes"),
            ("long", Some(&*long), "longer than 4 KiB"),
            ("none", None, "No such file"),
        ] {
            let mut config = config();
            let path = match text {
                Some(text) => file(name, text),
                None => PathBuf::from("/nonexistent"),
            };
            config.api.key_file = Some(path.clone());
            let error = settings(&config).unwrap_err().to_string();
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
            assert!(error.contains(why), "{error}");
            if text.is_some() {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}
