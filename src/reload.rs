//! SIGHUP: the configuration, the certificates and the files of keys are read again, all or nothing.

use std::sync::Arc;

use tidegate::config::{Config, Host, Loaded, Reloaded};
use tidegate::keys::KeyRing;
use tidegate::monitor::Reloads;
use tidegate::routes::reload::{Places, Plan};
use tidegate::server::{Reload, certificate_files};
use tidegate::tls::Acceptor;
use tidegate::{Handle, Settings};

use crate::{Origin, demo_routes, load};

/// Where everything comes from, and what of it is in force.
pub(crate) struct Reloader {
    pub(crate) origin: Origin,
    /// As it was written.
    pub(crate) written: Config,
    /// With the secret that was made for a developer who has none.
    pub(crate) in_force: Config,
    pub(crate) places: Places,
    pub(crate) handle: Handle,
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) keys: Option<Arc<KeyRing>>,
    pub(crate) reloads: Arc<Reloads>,
}

impl Reloader {
    /// Reads all of it again and puts it in force, or says why nothing changes.
    pub(crate) fn reload(&mut self) {
        let done = self.try_reload();
        self.reloads.count(done.is_ok());
        if let Err(faults) = done {
            for fault in faults.lines() {
                tracing::error!("{fault}");
            }
            tracing::error!("nothing was reloaded: everything stays as it was");
        }
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let Loaded {
            config, warnings, ..
        } = load(&self.origin)?;
        let Reloaded {
            config: written,
            needs_restart,
        } = self.written.reloaded(&config);
        // What stays as it was has to agree with what is new.
        written
            .validate(&Host::detect())
            .map_err(|faults| format!("with what needs a restart left as it was: {faults}"))?;
        let in_force = Config {
            token: self.in_force.token.clone(),
            ..written.clone()
        };
        let own = demo_routes(&in_force).map_err(|error| error.to_string())?;
        let own: Vec<_> = own.into_iter().map(|(route, _)| route).collect();
        let plan = self.places.plan(&self.in_force, &in_force, &own);
        let Plan {
            places,
            routes,
            added,
            retired,
        } = plan.map_err(|error| error.to_string())?;

        let files = certificate_files(&in_force);
        let acceptor = self.acceptor.as_ref().filter(|_| !files.is_empty());
        let certificates = acceptor.map(|acceptor| acceptor.read(&files)).transpose();
        let certificates =
            certificates.map_err(|error| format!("certificates stay as they were: {error}"))?;
        if let Some(keys) = &self.keys {
            keys.reload()
                .map_err(|error| format!("keys stay as they were: {error}"))?;
            tracing::info!("keys reloaded");
        }
        // From here on nothing can fail.
        if let (Some(acceptor), Some(certificates)) = (acceptor, certificates) {
            acceptor.replace(certificates);
            tracing::info!("certificates reloaded");
        }
        let has_changed = written != self.written;
        let routes_added = added.len();
        if has_changed {
            let orders = Reload {
                settings: Settings::without_acceptor(&in_force),
                routes,
                added,
            };
            self.handle
                .reload(orders)
                .map_err(|error| error.to_string())?;
            (self.written, self.in_force, self.places) = (written, in_force, places);
        }
        for warning in warnings {
            tracing::warn!(key = warning.key, source = %warning.source, "{}", warning.text);
        }
        for key in needs_restart {
            tracing::warn!(key, "has changed and needs a restart");
        }
        if has_changed {
            tracing::info!(
                routes_added,
                routes_retired = retired,
                "configuration reloaded"
            );
        } else {
            tracing::info!("the configuration says what it said before");
        }
        Ok(())
    }
}
