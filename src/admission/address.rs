//! Who is asking: the client's address, and the key that limits count it by.
//!
//! The kernel says who the peer is, and that cannot be forged. Where the peer is a proxy the operator
//! has named as trusted, it says for whom it asks, in a PROXY header (`admission::proxy_protocol`) or in
//! one HTTP header. Only that header is believed, because a proxy passes on what it does not write
//! itself: believing `Forwarded` as well as `X-Forwarded-For` would let a client choose its address by
//! sending whichever one the proxy does not know.
//!
//! The chain is walked from its right end, where the nearest proxy wrote. Each address is the word of
//! the one before it, so the walk goes on while that one is trusted: the first address outside the
//! trusted networks is the client. What lies further left was written by nobody in particular, and is
//! not looked at. Where the chain ends, or cannot be read (`unknown`, an obfuscated name, nonsense),
//! the answer is the last address reached: never one that only a client vouches for. Everybody behind a
//! proxy that hides its clients thus shares that proxy's limits; nobody gets away with an address of
//! their own choice.

mod public;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
pub use public::{is_private, is_public};
use smallvec::SmallVec;

/// The address without its disguise: an IPv4 address mapped into IPv6 (`::ffff:192.0.2.1`, what a
/// dual-stack listener sees of an IPv4 client) is that IPv4 address.
#[must_use]
pub const fn fold(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Networks whose members may say for whom they ask. Empty by default: nobody may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedNetworks(Vec<IpNet>);

impl TrustedNetworks {
    /// Reads networks (`10.0.0.0/8`, `fd00::/8`) and single addresses.
    ///
    /// # Errors
    /// The first entry that is neither, or that trusts everybody.
    pub fn parse<'a>(rules: impl IntoIterator<Item = &'a str>) -> Result<Self, NetworkError> {
        rules.into_iter().map(Self::parse_rule).collect()
    }

    fn parse_rule(rule: &str) -> Result<IpNet, NetworkError> {
        let error = |problem| NetworkError {
            rule: rule.to_owned(),
            problem,
        };
        let network = match (IpNet::from_str(rule), IpAddr::from_str(rule)) {
            (Ok(network), _) => network,
            (_, Ok(address)) => IpNet::from(fold(address)),
            _ => return Err(error(NetworkProblem::Unreadable)),
        };
        // Peers are folded before they are looked up: a network of mapped addresses would match nobody.
        let network = match network {
            IpNet::V6(mapped) if mapped.prefix_len() >= 96 => {
                match mapped.addr().to_ipv4_mapped() {
                    Some(address) => {
                        IpNet::new_assert(IpAddr::V4(address), mapped.prefix_len() - 96)
                    }
                    None => network,
                }
            }
            _ => network,
        };
        if network.prefix_len() == 0 {
            return Err(error(NetworkProblem::Everybody));
        }
        if network.trunc() != network {
            return Err(error(NetworkProblem::HostBits(network.trunc())));
        }
        Ok(network)
    }

    /// The networks; a single address is one with its full width.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        &self.0
    }

    /// Whether the address, folded, lies in one of the networks. O(networks).
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = fold(address);
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromIterator<IpNet> for TrustedNetworks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// A trusted network that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkError {
    rule: String,
    problem: NetworkProblem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NetworkProblem {
    Unreadable,
    Everybody,
    HostBits(IpNet),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = &self.rule;
        match &self.problem {
            NetworkProblem::Unreadable => write!(
                f,
                "`{rule}` is not a network; write it like 10.0.0.0/8, fd00::/8 or 192.0.2.1"
            ),
            NetworkProblem::Everybody => write!(
                f,
                "`{rule}` trusts everybody, so that every client may choose its address; name the proxies"
            ),
            NetworkProblem::HostBits(network) => write!(
                f,
                "`{rule}` has bits set behind its prefix; write {network} for the network, or the address \
                 alone for one host"
            ),
        }
    }
}

impl std::error::Error for NetworkError {}

/// The one header a trusted proxy names its client in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For: client, proxy, proxy`. The default.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client;proto=https, for="[2001:db8::1]:4711"` (RFC 7239).
    Forwarded,
    /// `X-Real-IP: client`, a single address. For a proxy that *sets* it; one that only passes it on
    /// lets its clients choose.
    XRealIp,
}

impl ForwardingHeader {
    /// The header's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
            Self::XRealIp => "X-Real-IP",
        }
    }
}

/// Most elements of a chain that are looked at, from the right. A longer chain of trusted proxies ends
/// at the 32nd: the address found there is the answer.
pub const HOPS_MAX: usize = 32;

/// The client's address: the peer's, or what trusted proxies say of it. `lines` are the values of all
/// header lines called [`ForwardingHeader::name`], in their order; together they are one list. Looks at
/// [`HOPS_MAX`] elements at most, allocates nothing for up to eight lines. The answer is folded.
#[must_use]
pub fn client_address<'a>(
    peer: IpAddr,
    trusted: &TrustedNetworks,
    header: ForwardingHeader,
    lines: impl IntoIterator<Item = &'a str>,
) -> IpAddr {
    let mut client = fold(peer);
    // The common case without a proxy does not even look for the header.
    if !trusted.contains(client) {
        return client;
    }
    let lines: SmallVec<[&str; 8]> = lines.into_iter().collect();
    if header == ForwardingHeader::XRealIp {
        return match lines[..] {
            [line] => parse_node(trim(line)).unwrap_or(client),
            _ => client,
        };
    }
    let elements = lines
        .iter()
        .rev()
        .flat_map(|line| ElementsFromRight::of(line, header))
        .take(HOPS_MAX)
        // An empty element of a list means nothing (RFC 9110 §5.6.1.2).
        .filter(|element| !element.is_empty());
    for element in elements {
        let address = match header {
            ForwardingHeader::Forwarded => parse_forwarded(element),
            ForwardingHeader::XForwardedFor | ForwardingHeader::XRealIp => parse_node(element),
        };
        let Some(address) = address else {
            return client;
        };
        client = address;
        if !trusted.contains(client) {
            return client;
        }
    }
    client
}

/// The elements of a comma-separated line, the last one first, without the space around them.
///
/// Commas inside quoted strings do not separate, in `Forwarded`. Quotes are paired from the right, where
/// the trusted proxy wrote: whatever a client left open further left cannot swallow what stands behind.
struct ElementsFromRight<'a> {
    rest: Option<&'a str>,
    has_quotes: bool,
}

impl<'a> ElementsFromRight<'a> {
    fn of(line: &'a str, header: ForwardingHeader) -> Self {
        Self {
            rest: Some(line),
            has_quotes: header == ForwardingHeader::Forwarded,
        }
    }
}

impl<'a> Iterator for ElementsFromRight<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let line = self.rest?;
        let bytes = line.as_bytes();
        let mut is_quoted = false;
        for at in (0..bytes.len()).rev() {
            match bytes[at] {
                b'"' if self.has_quotes => {
                    let before = &bytes[..at];
                    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
                    // Behind an odd number of backslashes it is text. Not so outside a quoted string:
                    // there a backslash is an error, which the element's parser finds.
                    if backslashes.count() % 2 == 0 {
                        is_quoted = !is_quoted;
                    }
                }
                b',' if !is_quoted => {
                    self.rest = Some(&line[..at]);
                    return Some(trim(&line[at + 1..]));
                }
                _ => {}
            }
        }
        self.rest = None;
        Some(trim(line))
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The address in one element of `Forwarded` (RFC 7239 §4): `name=value` pairs separated by semicolons,
/// with exactly one `for` among them. Strict, but for one thing: an address that ought to be quoted and
/// is not (`for=[2001:db8::1]`) has only one reading, and is taken.
fn parse_forwarded(element: &str) -> Option<IpAddr> {
    let mut client = None;
    let mut rest = element;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => split_quoted(quoted)?,
            None => after.split_at(after.find(';').unwrap_or(after.len())),
        };
        if trim(name).eq_ignore_ascii_case("for") && client.replace(parse_node(value)?).is_some() {
            return None;
        }
        let after = trim(after);
        if after.is_empty() {
            return client;
        }
        rest = after.strip_prefix(';')?;
        if trim(rest).is_empty() {
            return client;
        }
    }
}

/// Splits behind the closing quote. The text stays as it is written: no address has anything in it that
/// needs a backslash.
fn split_quoted(text: &str) -> Option<(&str, &str)> {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`; the port may be obfuscated (RFC 7239 §6.2). `None` for `unknown`, for obfuscated
/// names and for everything else. The answer is folded.
fn parse_node(text: &str) -> Option<IpAddr> {
    let (address, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, after) = bracketed.split_once(']')?;
        (IpAddr::V6(Ipv6Addr::from_str(address).ok()?), after)
    } else if let Ok(address) = Ipv6Addr::from_str(text) {
        (IpAddr::V6(address), "")
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let (address, after) = text.split_at(end);
        (IpAddr::V4(Ipv4Addr::from_str(address).ok()?), after)
    };
    let is_well_formed = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    is_well_formed.then(|| fold(address))
}

fn is_port(text: &str) -> bool {
    let is_obfuscated = |name: &str| {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !name.is_empty() && name.bytes().all(is_known)
    };
    match text.strip_prefix('_') {
        Some(name) => is_obfuscated(name),
        None => text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

/// How many leading bits of an address count as one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// Of an IPv4 address, at most 32. Default 32: an address is the least that is assigned.
    pub ipv4: u8,
    /// Of an IPv6 address, at most 128. Default 64: every host has all addresses of its /64 to itself.
    pub ipv6: u8,
}

impl Default for Widths {
    fn default() -> Self {
        Self { ipv4: 32, ipv6: 64 }
    }
}

/// What limits are counted by: the leading bits of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// IPv4 addresses as mapped ones, so that no IPv6 address has the same bits.
    bits: u128,
    /// Kept bits, so that a network is not taken for a narrower one with zeros behind it.
    width: u8,
}

impl Key {
    /// The key of an address; mapped IPv4 addresses are folded. A width beyond the address's is all of
    /// it.
    #[must_use]
    pub const fn of(address: IpAddr, widths: Widths) -> Self {
        match fold(address) {
            IpAddr::V4(address) => {
                let width = if widths.ipv4 < 32 { widths.ipv4 } else { 32 };
                Self::leading(address.to_ipv6_mapped(), 96 + width)
            }
            IpAddr::V6(address) => Self::leading(address, widths.ipv6),
        }
    }

    /// The key of the site an IPv6 address lies in, by the site's width; IPv4 addresses have none.
    #[must_use]
    pub const fn of_site(address: IpAddr, width: u8) -> Option<Self> {
        match fold(address) {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(Self::leading(address, width)),
        }
    }

    const fn leading(address: Ipv6Addr, width: u8) -> Self {
        let width = if width < 128 { width } else { 128 };
        let mask = match u128::MAX.checked_shl(128 - width as u32) {
            Some(mask) => mask,
            None => 0,
        };
        Self {
            bits: address.to_bits() & mask,
            width,
        }
    }
}

/// The peer of a connection as the rest of the server sees it: folded.
#[must_use]
pub const fn fold_peer(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(fold(peer.ip()), peer.port())
}

#[cfg(test)]
mod tests;
