//! What of another configuration a running server can take over, and what needs a restart.

use super::{Config, LimitsConfig};

/// What a reload comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The configuration that is in force from then on.
    pub config: Config,
    /// The sections and keys that say something else than before and are not taken over.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// What is in force when `new` is loaded while this one is: whatever decides about connections and
    /// messages is taken over, and what threads, sockets and tables are made of stays.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Reloaded {
        // Written out, so that who adds a section has to say here what becomes of it.
        let Self {
            profile,
            reactors,
            demo_routes,
            demo_page,
            allow_plain,
            listen,
            tls,
            http,
            websocket,
            outbox,
            address,
            limits,
            origin,
            token,
            issuers,
            hub,
            channels,
            routes,
            alerts,
            hooks,
            webhook,
            api,
            api_keys,
            shutdown,
            monitor,
            log,
        } = new;
        let config = Self {
            tls: tls.clone(),
            http: http.clone(),
            websocket: websocket.clone(),
            outbox: outbox.clone(),
            address: address.clone(),
            limits: LimitsConfig {
                addresses_max: self.limits.addresses_max,
                ..limits.clone()
            },
            origin: origin.clone(),
            routes: routes.clone(),
            ..self.clone()
        };
        let stays = [
            ("profile", self.profile == *profile),
            ("reactors", self.reactors == *reactors),
            ("demo_routes", self.demo_routes == *demo_routes),
            ("demo_page", self.demo_page == *demo_page),
            ("allow_plain", self.allow_plain == *allow_plain),
            ("listen", self.listen == *listen),
            (
                "limits.addresses_max",
                self.limits.addresses_max == limits.addresses_max,
            ),
            ("[token]", self.token == *token),
            ("[[issuer]]", self.issuers == *issuers),
            ("[hub]", self.hub == *hub),
            ("[[channel]]", self.channels == *channels),
            ("[[alert]]", self.alerts == *alerts),
            ("[hooks]", self.hooks == *hooks),
            ("[webhook]", self.webhook == *webhook),
            ("[api]", self.api == *api),
            ("[[api_key]]", self.api_keys == *api_keys),
            ("[shutdown]", self.shutdown == *shutdown),
            ("[monitor]", self.monitor == *monitor),
            ("[log]", self.log == *log),
        ];
        let needs_restart = stays.into_iter().filter(|(_, is_same)| !is_same);
        Reloaded {
            config,
            needs_restart: needs_restart.map(|(key, _)| key).collect(),
        }
    }
}
