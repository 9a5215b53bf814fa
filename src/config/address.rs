//! `[address]` and `[origin]`: who is asking, and which pages may have their visitors ask.

use crate::admission::address::{ForwardingHeader, TrustedNetworks, Widths};
use crate::admission::limits::Site;
use crate::admission::origin::OriginPolicy;

use super::Profile;
use super::setting::{Choice, Setting, Slot};

/// `[address]`: the client's address, and how much of it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressConfig {
    /// The proxies that may say for whom they ask, by PROXY header or by [`header`](Self::header).
    /// Default: nobody.
    pub trusted_networks: TrustedNetworks,
    /// The one header they say it in. Default `None`: the peer is the client, or whom its PROXY header
    /// names.
    pub header: Option<ForwardingHeader>,
    /// Leading bits of an IPv4 address that count as one client, 8..=32. Default 32.
    pub ipv4_width: u8,
    /// Leading bits of an IPv6 address that count as one client, 16..=128. Default 64.
    pub ipv6_width: u8,
    /// Leading bits of an IPv6 address that count as one site, below
    /// [`ipv6_width`](Self::ipv6_width). Default 48; `None`: sites are not counted.
    pub site_width: Option<u8>,
}

impl Default for AddressConfig {
    fn default() -> Self {
        let Widths { ipv4, ipv6 } = Widths::default();
        Self {
            trusted_networks: TrustedNetworks::default(),
            header: None,
            ipv4_width: ipv4,
            ipv6_width: ipv6,
            site_width: Some(48),
        }
    }
}

impl AddressConfig {
    /// The networks that count as one address.
    #[must_use]
    pub const fn widths(&self) -> Widths {
        Widths {
            ipv4: self.ipv4_width,
            ipv6: self.ipv6_width,
        }
    }

    /// The wider network that IPv6 is counted by, with this many times an address's limits.
    pub(super) fn site(&self, factor: u32) -> Option<Site> {
        self.site_width.map(|width| Site { width, factor })
    }

    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "address.trusted_networks",
                Slot::List(Box::new(&mut self.trusted_networks)),
                "The proxies that may say for whom they ask; nobody else is believed",
            ),
            Setting::new(
                "address.header",
                Slot::Choice(&mut self.header),
                "The one header trusted proxies name the client in, read from the right",
            ),
            Setting::new(
                "address.ipv4_width",
                Slot::Count(&mut self.ipv4_width, 8..=32),
                "Leading bits of an IPv4 address that count as one client",
            ),
            Setting::new(
                "address.ipv6_width",
                Slot::Count(&mut self.ipv6_width, 16..=128),
                "Leading bits of an IPv6 address that count as one client",
            ),
            Setting::new(
                "address.site_width",
                Slot::CountOrOff(&mut self.site_width, 15..=127),
                "Leading bits of an IPv6 address that count as one site, which is limited as well",
            ),
        ]
    }
}

impl Choice for Option<ForwardingHeader> {
    fn names(&self) -> &'static [&'static str] {
        &["none", "x-forwarded-for", "forwarded", "x-real-ip"]
    }

    fn name(&self) -> &'static str {
        match self {
            None => "none",
            Some(ForwardingHeader::XForwardedFor) => "x-forwarded-for",
            Some(ForwardingHeader::Forwarded) => "forwarded",
            Some(ForwardingHeader::XRealIp) => "x-real-ip",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        let all = [
            None,
            Some(ForwardingHeader::XForwardedFor),
            Some(ForwardingHeader::Forwarded),
            Some(ForwardingHeader::XRealIp),
        ];
        super::sections::choose(self, name, &all)
    }
}

/// The defaults of `[origin]`. Development lets in pages of this machine, and programs, which send no
/// origin.
///
/// Production lets in neither unless told to. A browser always sends an origin and a program can send
/// any, so refusing requests without one stops no attacker; but it is what the check is expected to do
/// (as Django's does), and who has clients that are no browsers knows it, and changes one line.
pub(super) fn default_origins(profile: Profile) -> OriginPolicy {
    let is_development = profile == Profile::Development;
    OriginPolicy {
        allow_absent: is_development,
        allow_loopback: is_development,
        ..OriginPolicy::default()
    }
}

pub(super) fn origin_settings(origin: &mut OriginPolicy) -> Vec<Setting<'_>> {
    vec![
        Setting::new(
            "origin.allowed",
            Slot::List(Box::new(&mut origin.allowed)),
            "Pages whose visitors may connect: scheme, host and port, compared exactly",
        ),
        Setting::new(
            "origin.allow_null",
            Slot::Switch(&mut origin.allow_null),
            "Let in Origin: null, which any page can make a visitor's browser send",
        ),
        Setting::new(
            "origin.allow_absent",
            Slot::Switch(&mut origin.allow_absent),
            "Let in requests without an Origin: programs, as browsers always send one",
        ),
        Setting::new(
            "origin.allow_loopback",
            Slot::Switch(&mut origin.allow_loopback),
            "Let in pages from the visitor's own machine, any port: for development",
        ),
    ]
}
