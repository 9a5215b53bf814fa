//! Values that are written as one text, and lists of them: names, origins, networks, files.

use crate::hub::{Channel, ChannelError};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::admission::address::TrustedNetworks;
use crate::admission::bearer;
use crate::admission::claim::ClaimPath;
use crate::admission::jwt::Key;
use crate::admission::limits::Limit;
use crate::admission::origin::OriginRule;

use super::error::{nearest, shown};
use super::token::KeyFile;

/// What a text must be like.
#[derive(Debug)]
pub(super) struct Form {
    /// For people.
    pub(super) accepted: &'static str,
    /// What is wrong with a text, if anything is.
    pub(super) fault: fn(&str) -> Option<&'static str>,
}

/// A name of somebody else's making: an issuer, an audience, a claim.
pub(super) const NAME: Form = Form {
    accepted: "a text of 1 to 256 bytes",
    fault: |text| match text.len() {
        0 => Some("a name cannot be empty"),
        1..=256 if text.chars().any(char::is_control) => Some("a name has no control characters"),
        1..=256 => None,
        _ => Some("this is longer than 256 bytes"),
    },
};

/// What stands before every user of an issuer.
pub(super) const PREFIX: Form = Form {
    accepted: "a text of up to 64 bytes",
    fault: |text| match text.len() {
        0..=64 if text.chars().any(char::is_control) => Some("a prefix has no control characters"),
        0..=64 => None,
        _ => Some("this is longer than 64 bytes"),
    },
};

/// A `token` of HTTP (RFC 9110 §5.6.2): a cookie's name (RFC 6265 §4.1.1), a subprotocol (RFC 6455
/// §4.1).
pub(super) const HTTP_TOKEN: Form = Form {
    accepted: "letters, digits and !#$%&'*+-.^_`~, up to 256 of them",
    fault: |text| {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`~".contains(&byte);
        match text.len() {
            0 => Some("a name cannot be empty"),
            1..=256 if text.bytes().all(is_token) => None,
            1..=256 => Some("HTTP does not allow one of these characters in a name"),
            _ => Some("this is longer than 256 bytes"),
        }
    },
};

/// A host as `Host` names it, without its port; compared without case.
pub(super) const HOST: Form = Form {
    accepted: "names or addresses without a port: \"ws.example.com\", \"192.0.2.1\", \"[2001:db8::1]\"",
    fault: |text| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let address = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        if address.is_some_and(|address| Ipv6Addr::from_str(address).is_ok()) {
            None
        } else if text.contains("://") || text.contains('/') {
            Some("this is a host's name alone, without scheme and path")
        } else if text.contains(':') {
            Some("leave the port out; an IPv6 address stands in brackets")
        } else if (1..=253).contains(&text.len()) && text.bytes().all(is_name) {
            None
        } else {
            Some("not the name of a host")
        }
    },
};

/// The name of an alert rule.
pub(super) const RULE_NAME: Form = Form {
    accepted: "1 to 64 small letters, digits and underscores, a letter first",
    fault: |text| {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        match text.len() {
            0 => Some("a name cannot be empty"),
            65.. => Some("this is longer than 64 bytes"),
            _ if !text.starts_with(|first: char| first.is_ascii_lowercase()) => {
                Some("a name begins with a small letter")
            }
            _ if text.bytes().all(is_word) => None,
            _ => Some("a name has small letters, digits and underscores only"),
        }
    },
};

/// What an alert means.
pub(super) const ABOUT: Form = Form {
    accepted: "a line of up to 256 bytes",
    fault: |text| match text.len() {
        257.. => Some("this is longer than 256 bytes"),
        _ if text.chars().any(char::is_control) => Some("a line has no control characters"),
        _ => None,
    },
};

/// How channels' names begin.
pub(super) const CHANNEL_PREFIX: Form = Form {
    accepted: "1 to 128 of A-Z a-z 0-9 _ - . : / @ #",
    fault: |text| {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/@#".contains(&byte);
        match text.len() {
            0 => Some("an empty beginning would allow every channel"),
            1..=128 if text.bytes().all(is_of_name) => None,
            1..=128 => Some("no channel's name has one of these characters"),
            _ => Some("this is longer than 128 bytes"),
        }
    },
};

/// An absolute URL that is posted to.
pub(super) const WEB_URL: Form = Form {
    accepted: "https://HOST/PATH",
    fault: url_fault,
};

/// An absolute URL that keys are fetched from.
pub(super) const KEYS_URL: Form = Form {
    accepted: "https://HOST/PATH",
    fault: |text| match text.starts_with("http://") || text.starts_with("https://") {
        true => url_fault(text),
        false => Some("a URL of keys begins with https://"),
    },
};

fn url_fault(text: &str) -> Option<&'static str> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Some("a URL begins with https://");
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        Some("the URL lacks a host")
    } else if authority.contains('@') {
        Some("a URL with a user or a password in it would end up in logs")
    } else if text.contains('#') {
        Some("the part behind # is never sent; leave it out")
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some("a URL has no blanks, and no letters beyond ASCII: write them percent-encoded")
    } else if text.len() > 2_048 {
        Some("this is longer than 2048 bytes")
    } else {
        None
    }
}

/// A list of texts, whatever they stand for.
pub(super) trait List {
    /// What each text must be, for people.
    fn accepted(&self) -> String;
    /// The present texts.
    fn written(&self) -> Vec<String>;
    /// Takes the list that `texts` say.
    ///
    /// # Errors
    /// Every text that is not accepted, by its place, and why; the list stays as it was.
    fn set(&mut self, texts: &[&str]) -> Result<(), Vec<(usize, String)>>;
    /// Whether the present texts, set by a program, could have been written.
    fn is_accepted(&self) -> bool {
        true
    }
}

/// Texts that stay texts, of one form.
pub(super) struct Texts<'a>(pub(super) &'a mut Vec<String>, pub(super) &'static Form);

impl List for Texts<'_> {
    fn accepted(&self) -> String {
        self.1.accepted.to_owned()
    }

    fn written(&self) -> Vec<String> {
        self.0.clone()
    }

    fn set(&mut self, texts: &[&str]) -> Result<(), Vec<(usize, String)>> {
        *self.0 = read_all(texts, |text| match (self.1.fault)(text) {
            Some(fault) => Err(fault.to_owned()),
            None => Ok(text.to_owned()),
        })?;
        Ok(())
    }

    fn is_accepted(&self) -> bool {
        self.0.iter().all(|text| (self.1.fault)(text).is_none())
    }
}

/// A value that has one text, as an item of a list.
pub(super) trait Entry: Sized {
    /// What the text must be, for people.
    fn accepted() -> String;
    fn write(&self) -> String;
    /// # Errors
    /// Why the text is refused.
    fn read(text: &str) -> Result<Self, String>;
}

impl<E: Entry> List for &mut Vec<E> {
    fn accepted(&self) -> String {
        E::accepted()
    }

    fn written(&self) -> Vec<String> {
        self.iter().map(E::write).collect()
    }

    fn set(&mut self, texts: &[&str]) -> Result<(), Vec<(usize, String)>> {
        **self = read_all(texts, E::read)?;
        Ok(())
    }
}

impl List for &mut TrustedNetworks {
    fn accepted(&self) -> String {
        "networks like \"10.0.0.0/8\" or \"fd00::/8\", or single addresses".to_owned()
    }

    fn written(&self) -> Vec<String> {
        self.networks().iter().map(ToString::to_string).collect()
    }

    fn set(&mut self, texts: &[&str]) -> Result<(), Vec<(usize, String)>> {
        let parse = |text: &str| TrustedNetworks::parse([text]).map_err(|error| error.to_string());
        let parsed = read_all(texts, parse)?;
        **self = parsed
            .iter()
            .flat_map(|networks| networks.networks().iter().copied())
            .collect();
        Ok(())
    }
}

/// All values, or all faults with their places.
fn read_all<T>(
    texts: &[&str],
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Vec<(usize, String)>> {
    let mut values = Vec::with_capacity(texts.len());
    let mut faults = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match read(text) {
            Ok(value) => values.push(value),
            Err(fault) => faults.push((index, fault)),
        }
    }
    if faults.is_empty() {
        Ok(values)
    } else {
        Err(faults)
    }
}

impl Entry for OriginRule {
    fn accepted() -> String {
        "origins like \"https://app.example.com\" or \"https://*.example.com\"".to_owned()
    }

    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Result<Self, String> {
        Self::from_str(text).map_err(|error| shown(&error.to_string()))
    }
}

/// One of a closed set, by its name.
fn by_name<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|value| name(*value) == text);
    found.ok_or_else(|| {
        let nearest = nearest(text, all.iter().map(|value| name(*value)));
        format!("there is no such choice; the nearest one is \"{nearest}\"")
    })
}

fn choices<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> String {
    let names: Vec<String> = all
        .iter()
        .map(|one| format!("\"{}\"", name(*one)))
        .collect();
    names.join(", ")
}

/// The limits that can be in dry run by themselves.
const DRY_RUNS: [Limit; 6] = [
    Limit::Connections,
    Limit::AddressConnections,
    Limit::AddressAttempts,
    Limit::UserConnections,
    Limit::Messages,
    Limit::Bytes,
];

impl Entry for Limit {
    fn accepted() -> String {
        format!("a list of {}", choices(&DRY_RUNS, Self::name))
    }

    fn write(&self) -> String {
        self.name().to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        let part_of = match Self::ALL.into_iter().find(|limit| limit.name() == text) {
            Some(Self::SiteConnections | Self::OverflowConnections) => Self::AddressConnections,
            Some(Self::SiteAttempts | Self::OverflowAttempts) => Self::AddressAttempts,
            _ => return by_name(text, &DRY_RUNS, Self::name),
        };
        Err(format!(
            "this limit is a multiple of \"{name}\" and goes with it; write \"{name}\"",
            name = part_of.name()
        ))
    }
}

const SOURCES: [bearer::Source; 4] = [
    bearer::Source::Query,
    bearer::Source::Header,
    bearer::Source::Subprotocol,
    bearer::Source::Cookie,
];

const fn source_name(source: bearer::Source) -> &'static str {
    match source {
        bearer::Source::Query => "query",
        bearer::Source::Header => "header",
        bearer::Source::Subprotocol => "subprotocol",
        bearer::Source::Cookie => "cookie",
    }
}

impl Entry for bearer::Source {
    fn accepted() -> String {
        format!("a list of {}, each once", choices(&SOURCES, source_name))
    }

    fn write(&self) -> String {
        source_name(*self).to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        by_name(text, &SOURCES, source_name)
    }
}

impl Entry for ClaimPath {
    fn accepted() -> String {
        "claims as rules write them: \"role\", \"realm_access.roles\", \
         \"'https://example.com/roles'\""
            .to_owned()
    }

    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| {
            "not a claim: names of letters, digits, _ and - with dots between them; others stand in \
             quotes of their own"
                .to_owned()
        })
    }
}

impl Entry for KeyFile {
    fn accepted() -> String {
        "public keys in PEM: \"FILE\", or \"KID=FILE\"".to_owned()
    }

    fn write(&self) -> String {
        let path = self.path.to_string_lossy();
        match &self.id {
            Some(id) => format!("{id}={path}"),
            None if path.contains('=') => format!("={path}"),
            None => path.into_owned(),
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        let (id, path) = match text.split_once('=') {
            // Paths may have an equals sign further on.
            Some((id, path)) if !id.contains('/') => (Some(id).filter(|id| !id.is_empty()), path),
            _ => (None, text),
        };
        if path.is_empty() {
            return Err("a file name cannot be empty".to_owned());
        }
        if id.is_some_and(|id| id.len() > Key::ID_BYTES_MAX) {
            return Err("the key identifier is longer than 256 bytes".to_owned());
        }
        Ok(Self {
            id: id.map(str::to_owned),
            path: PathBuf::from(path),
        })
    }
}

/// The name of a channel.
pub(super) const CHANNEL: Form = Form {
    accepted: "1 to 128 of A-Z a-z 0-9 and _ - . : / @ #",
    fault: |text| match Channel::new(text) {
        Ok(_) => None,
        Err(ChannelError::Empty) => Some("a name cannot be empty"),
        Err(ChannelError::TooLong) => Some("this is longer than 128 bytes"),
        Err(ChannelError::Character) => Some("a channel's name has no such character"),
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_may_name_their_key() {
        for (text, id, path) in [
            ("a.pem", None, "a.pem"),
            ("k1=a.pem", Some("k1"), "a.pem"),
            ("/keys/a=b.pem", None, "/keys/a=b.pem"),
            ("=a=b.pem", None, "a=b.pem"),
            ("k1=a=b.pem", Some("k1"), "a=b.pem"),
        ] {
            let found = KeyFile::read(text).unwrap();
            assert_eq!(
                (found.id.as_deref(), found.path.to_str()),
                (id, Some(path)),
                "{text}"
            );
            assert_eq!(KeyFile::read(&found.write()), Ok(found), "{text}");
        }
        for text in ["", "k1=", "="] {
            assert!(KeyFile::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_of_keys_are_plain() {
        for (text, is_good) in [
            ("https://id.example.com/jwks", true),
            ("http://127.0.0.1:8000/jwks", true),
            ("https://[::1]/jwks?x=1", true),
            ("ftp://id.example.com/jwks", false),
            ("id.example.com/jwks", false),
            ("https:///jwks", false),
            ("https://:443/jwks", false),
            ("https://user:password@id.example.com/jwks", false),
            ("https://id.example.com/a b", false),
            ("https://id.example.com/#x", false),
            ("https://größe.example/", false),
        ] {
            assert_eq!((KEYS_URL.fault)(text).is_none(), is_good, "{text}");
        }
    }

    #[test]
    fn hosts_are_names_without_a_port() {
        for (text, is_good) in [
            ("ws.example.com", true),
            ("localhost", true),
            ("192.0.2.1", true),
            ("[2001:db8::1]", true),
            ("", false),
            ("ws.example.com:443", false),
            ("2001:db8::1", false),
            ("[::1]:80", false),
            ("https://ws.example.com", false),
            ("*.example.com", false),
            ("größe.example", false),
        ] {
            assert_eq!((HOST.fault)(text).is_none(), is_good, "{text}");
        }
    }

    #[test]
    fn names_have_a_length() {
        for (length, is_good) in [
            (0, false),
            (1, true),
            (255, true),
            (256, true),
            (257, false),
        ] {
            let text = "x".repeat(length);
            assert_eq!((NAME.fault)(&text).is_none(), is_good, "{length}");
            assert_eq!((HTTP_TOKEN.fault)(&text).is_none(), is_good, "{length}");
        }
        for (length, is_good) in [(0, true), (63, true), (64, true), (65, false)] {
            assert_eq!(
                (PREFIX.fault)(&"x".repeat(length)).is_none(),
                is_good,
                "{length}"
            );
        }
    }
}
