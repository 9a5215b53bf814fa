//! The allow-list on `Origin` (RFC 6455 §10.2): which pages may have their visitors' browsers connect.
//!
//! A browser lets any page open a WebSocket to any host, with the visitor's cookies, and says in
//! `Origin` which page that was. So this check is what stands between a stranger's page and a visitor's
//! session. It denies whatever no rule names.
//!
//! A rule is `scheme://host[:port]`, compared exactly: the scheme, the whole host, the port with the
//! scheme's default filled in. `https://*.example.com` stands for every host with one label more, so for
//! `app.example.com`, and neither for `example.com` nor for `a.b.example.com`. There are no other
//! patterns. Upper case equals lower case in schemes and hosts, as everywhere; nothing else is evened
//! out. In particular `example.com.` is another host than `example.com`, as it is to browsers, and is
//! denied.
//!
//! Hosts with letters beyond ASCII are refused in rules rather than converted. Browsers send the ASCII
//! form (`xn--…`), by tables that change from release to release and that disagree on some letters; a
//! rule that means another host than its reader thinks is worse than an error that asks for the form
//! that is compared.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Which origins are let in. The default lets none in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// The rules.
    pub allowed: Vec<OriginRule>,
    /// Whether `Origin: null` is let in, which sandboxed frames, `file:` pages and redirected requests
    /// send: anybody can make a visitor's browser send it. Default no.
    pub allow_null: bool,
    /// Whether a request without the header is let in, as programs send it. A browser always sends
    /// one. Default no.
    pub allow_absent: bool,
    /// Whether every page from this machine is let in, by any port: `localhost`, names under it,
    /// 127.0.0.0/8 and `[::1]`. For development. Default no.
    pub allow_loopback: bool,
    /// Whether pages of the very host and port that the request is for are let in: a server's own pages.
    /// Means nothing unless it is checked which hosts are served (DNS rebinding). Default no.
    pub allow_same_host: bool,
}

/// Why an origin was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginMatch {
    /// A rule names it, or it is where the request is for.
    Listed,
    /// It is on this machine.
    Loopback,
    /// `null`.
    Null,
    /// There is none.
    Absent,
}

impl OriginMatch {
    /// Whether a cookie may speak for the client. Only if it is known which page asked: a cookie comes
    /// along whoever asks, so behind `null` or nothing it proves nothing (C3).
    #[must_use]
    pub const fn permits_cookies(self) -> bool {
        match self {
            Self::Listed | Self::Loopback => true,
            Self::Null | Self::Absent => false,
        }
    }
}

/// Why an origin was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginRefused {
    /// There is none, and that is not allowed.
    Absent,
    /// It is `null`, and that is not allowed.
    Null,
    /// It is not one origin as browsers write it.
    Malformed,
    /// No rule names it.
    NotListed,
}

impl OriginRefused {
    /// Every label there is, in the order of the variants: for a metric that starts at zero.
    pub const LABELS: [&str; 4] = ["absent", "null", "malformed", "not_listed"];

    /// The reason as a metric's label, one of [`OriginRefused::LABELS`].
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Null => "null",
            Self::Malformed => "malformed",
            Self::NotListed => "not_listed",
        }
    }
}

impl fmt::Display for OriginRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "no Origin header",
            Self::Null => "the origin is null",
            Self::Malformed => "malformed Origin header",
            Self::NotListed => "origin not allowed",
        })
    }
}

impl std::error::Error for OriginRefused {}

impl OriginPolicy {
    /// Judges the value of the one `Origin` header, `None` if there is none. O(rules); allocates for an
    /// IPv6 address only.
    ///
    /// # Errors
    /// [`OriginRefused`]; the answer is 403.
    pub fn check(&self, origin: Option<&str>) -> Result<OriginMatch, OriginRefused> {
        self.check_at(None, origin)
    }

    /// The same for a request to this `Host`.
    ///
    /// # Errors
    /// As [`OriginPolicy::check`].
    pub fn check_at(
        &self,
        host: Option<&str>,
        origin: Option<&str>,
    ) -> Result<OriginMatch, OriginRefused> {
        let Some(origin) = origin else {
            return if self.allow_absent {
                Ok(OriginMatch::Absent)
            } else {
                Err(OriginRefused::Absent)
            };
        };
        if origin == "null" {
            return if self.allow_null {
                Ok(OriginMatch::Null)
            } else {
                Err(OriginRefused::Null)
            };
        }
        let origin = Origin::parse(origin).map_err(|_| OriginRefused::Malformed)?;
        if self.allow_same_host && host.is_some_and(|host| origin.is_at(host)) {
            return Ok(OriginMatch::Listed);
        }
        if self.allowed.iter().any(|rule| rule.matches(&origin)) {
            Ok(OriginMatch::Listed)
        } else if self.allow_loopback && origin.is_loopback() {
            Ok(OriginMatch::Loopback)
        } else {
            Err(OriginRefused::NotListed)
        }
    }
}

/// An origin, taken apart: the text before a rule or a request has been compared with anything.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    scheme: &'a str,
    /// With brackets, if it is an IPv6 address.
    host: &'a str,
    /// Filled in where the scheme has a default.
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// Takes apart `scheme://host[:port]` and nothing more: no user, path, query or list.
    fn parse(text: &'a str) -> Result<Self, Problem> {
        let (scheme, authority) = text.split_once("://").ok_or(Problem::NoScheme)?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return Err(Problem::NoScheme);
        }
        if authority.contains('@') {
            return Err(Problem::User);
        }
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(Problem::Path);
        }
        // The colons of an IPv6 address are inside its brackets.
        let host_end = match authority.find(']') {
            Some(bracket) => bracket + 1,
            None => authority.find(':').unwrap_or(authority.len()),
        };
        let (host, after) = authority.split_at(host_end);
        let port = match after.strip_prefix(':') {
            Some(port) => Some(parse_port(port).ok_or(Problem::Port)?),
            None if after.is_empty() => default_port(scheme),
            None => return Err(Problem::Port),
        };
        check_host(host)?;
        Ok(Self { scheme, host, port })
    }

    /// Whether `Host` names this host and this port. Only schemes with a port of their own do.
    fn is_at(&self, host: &str) -> bool {
        let default = default_port(self.scheme);
        let (name, port) = match host.rsplit_once(':') {
            // A colon inside brackets belongs to the address.
            Some((name, port)) if !port.contains(']') => (name, parse_port(port)),
            _ => (host, default),
        };
        default.is_some() && port == self.port && name.eq_ignore_ascii_case(self.host)
    }

    fn is_loopback(&self) -> bool {
        default_port(self.scheme).is_some() && is_loopback_host(self.host)
    }
}

/// Whether a host, as a URL writes it, is this machine itself: `localhost` and names below it, and the
/// loopback addresses.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let name = host.len().checked_sub("localhost".len());
    let is_localhost = name.is_some_and(|at| {
        let bytes = host.as_bytes();
        bytes[at..].eq_ignore_ascii_case(b"localhost") && (at == 0 || bytes[at - 1] == b'.')
    });
    is_localhost || host == "[::1]" || Ipv4Addr::from_str(host).is_ok_and(|host| host.is_loopback())
}

fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else {
        None
    }
}

/// A port as browsers write it: digits without a zero in front.
fn parse_port(text: &str) -> Option<u16> {
    let is_plain = text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| is_plain)
}

/// A host name of 253 bytes at most, or an IP address; a name's labels are 1..=63 letters, digits,
/// hyphens and underscores (which names of web hosts do have).
fn check_host(host: &str) -> Result<(), Problem> {
    if host.is_empty() {
        return Err(Problem::NoHost);
    }
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').map(Ipv6Addr::from_str);
        return match address {
            // One spelling only, so that text can be compared.
            Some(Ok(address)) if spell(address) == host => Ok(()),
            Some(Ok(address)) => Err(Problem::Spelling(address)),
            _ => Err(Problem::Host),
        };
    }
    if !host.is_ascii() {
        return Err(Problem::NotAscii);
    }
    if host.ends_with('.') {
        return Err(Problem::TrailingDot);
    }
    // Whatever ends in a number is an IPv4 address to browsers, which write it with four of them.
    let last = host.rsplit('.').next().unwrap_or(host);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = if is_number && !last.is_empty() {
        Ipv4Addr::from_str(host).is_ok()
    } else {
        host.len() <= 253 && host.split('.').all(is_label)
    };
    if is_host { Ok(()) } else { Err(Problem::Host) }
}

/// An IPv6 address as browsers write it, in its brackets: unlike std, mapped ones in hexadecimal, too.
fn spell(address: Ipv6Addr) -> String {
    match (address.to_ipv4_mapped(), address.segments()) {
        (Some(_), [.., high, low]) => format!("[::ffff:{high:x}:{low:x}]"),
        (None, _) => format!("[{address}]"),
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// One origin, or one family of hosts, that is let in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginRule {
    /// In lower case, as is the host.
    scheme: String,
    /// Whether one label stands in front of `host`.
    any_label: bool,
    host: String,
    port: Option<u16>,
}

impl OriginRule {
    fn matches(&self, origin: &Origin<'_>) -> bool {
        let host = if self.any_label {
            // The origin's host is checked, so what stands before the first dot is one whole label.
            let Some((_, behind)) = origin.host.split_once('.') else {
                return false;
            };
            behind
        } else {
            origin.host
        };
        self.port == origin.port
            && self.host.eq_ignore_ascii_case(host)
            && self.scheme.eq_ignore_ascii_case(origin.scheme)
    }
}

impl FromStr for OriginRule {
    type Err = OriginRuleError;

    /// Reads a rule as it is written in the configuration.
    fn from_str(rule: &str) -> Result<Self, OriginRuleError> {
        let error = |problem| OriginRuleError {
            rule: rule.to_owned(),
            problem,
        };
        match rule {
            "null" => return Err(error(Problem::NullRule)),
            "*" => return Err(error(Problem::Everybody)),
            _ => {}
        }
        let without_label = rule.replacen("://*.", "://", 1);
        let any_label = without_label.len() != rule.len();
        if without_label.contains('*') {
            return Err(error(Problem::Wildcard));
        }
        let origin = Origin::parse(&without_label).map_err(error)?;
        if let "ws" | "wss" = origin.scheme.to_ascii_lowercase().as_str() {
            return Err(error(Problem::SocketScheme));
        }
        let is_address = origin.host.starts_with('[') || Ipv4Addr::from_str(origin.host).is_ok();
        let is_wide = !origin.host.contains('.') && !origin.host.eq_ignore_ascii_case("localhost");
        if any_label && (is_address || is_wide) {
            return Err(error(Problem::WideWildcard));
        }
        Ok(Self {
            scheme: origin.scheme.to_ascii_lowercase(),
            any_label,
            host: origin.host.to_ascii_lowercase(),
            port: origin.port,
        })
    }
}

impl fmt::Display for OriginRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = if self.any_label { "*." } else { "" };
        write!(f, "{}://{label}{}", self.scheme, self.host)?;
        match self.port {
            Some(port) if default_port(&self.scheme) != Some(port) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// A rule that cannot be used, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginRuleError {
    rule: String,
    problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    NoScheme,
    NoHost,
    User,
    Path,
    Port,
    Host,
    NotAscii,
    TrailingDot,
    Spelling(Ipv6Addr),
    NullRule,
    Everybody,
    Wildcard,
    WideWildcard,
    SocketScheme,
}

impl fmt::Display for OriginRuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ", self.rule)?;
        match self.problem {
            Problem::NoScheme => f.write_str("lacks a scheme; write it like https://app.example.com"),
            Problem::NoHost => f.write_str("lacks a host; write it like https://app.example.com"),
            Problem::User => f.write_str("names a user; an origin is scheme://host[:port]"),
            Problem::Path => {
                f.write_str("goes on behind the host; an origin has no path: leave it out, and the last slash")
            }
            Problem::Port => f.write_str("has no usable port; write 1 to 65535 without leading zeros, or none"),
            Problem::Host => f.write_str("has no usable host; write a host name, an IPv4 address, or an IPv6 address in brackets"),
            Problem::NotAscii => f.write_str(
                "has letters beyond ASCII; write the host in its ASCII form (xn--…), as browsers send it: \
                 a browser's console shows it for `new URL(\"https://…\").host`",
            ),
            Problem::TrailingDot => f.write_str("ends in a dot, which browsers keep apart from the name without; leave the dot out"),
            Problem::Spelling(address) => write!(f, "spells its address unlike browsers; write {}", spell(address)),
            Problem::NullRule => f.write_str("is not a rule: letting in `null` is a setting of its own"),
            Problem::Everybody => f.write_str("would let in every page on the web with its visitors' cookies; name the origins"),
            Problem::Wildcard => f.write_str(
                "has a `*` that is not one whole label at the left; write it like https://*.example.com",
            ),
            Problem::WideWildcard => f.write_str(
                "is too wide: a wildcard needs a registered domain behind it, like https://*.example.com",
            ),
            Problem::SocketScheme => f.write_str(
                "has the scheme of the socket; an origin is the page's: write https:// for wss://, http:// for ws://",
            ),
        }
    }
}

impl std::error::Error for OriginRuleError {}

#[cfg(test)]
mod tests;
