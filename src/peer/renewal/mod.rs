//! Watches the certificate files of a running node: reads them again, and says when they expire.
//!
//! Promises that a bad new file changes nothing but the log. Must not know who accepts or dials
//! with the certificates.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::certificate::CertificateError;
use super::tls::{self, Loaded, Tls};
use crate::clock::Clock;
use crate::config;
use crate::model::Timestamp;
use crate::model::member::{CertificateLife, RENEW_BEFORE};
use crate::telemetry::Metrics;

/// The door that shows these certificates.
const DOOR: &str = "peer";
/// How often to look at the files and the clock.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often to warn of a certificate that expires soon.
const SOON_SAID_EVERY: Duration = Duration::from_secs(86_400);
/// How often to warn of one that is not valid now.
const INVALID_SAID_EVERY: Duration = Duration::from_secs(3600);

/// The certificates of the peer door.
pub struct Certificates {
    settings: config::PeerConfig,
    name: String,
    clock: Clock,
    /// From when and until when the one in use is valid.
    validity: (Timestamp, Timestamp),
    /// The files as they were read last.
    hash: [u8; 32],
    said_at: Option<Instant>,
    reload: Arc<Notify>,
    shown: watch::Sender<Vec<CertificateLife>>,
}

impl Certificates {
    /// Those that `settings` name, which were just loaded.
    pub(super) fn new(
        settings: &config::PeerConfig,
        name: &str,
        clock: &Clock,
        validity: (Timestamp, Timestamp),
    ) -> Self {
        let life = CertificateLife { door: DOOR, expires_at: validity.1 };
        Self {
            settings: settings.clone(),
            name: name.to_owned(),
            clock: clock.clone(),
            validity,
            hash: tls::files_hash(settings),
            said_at: None,
            reload: Arc::default(),
            shown: watch::channel(vec![life]).0,
        }
    }

    /// Notifying it makes the node read the files now.
    #[must_use]
    pub fn reload(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Until when the certificate in use is valid.
    #[must_use]
    pub fn shown(&self) -> watch::Receiver<Vec<CertificateLife>> {
        self.shown.subscribe()
    }

    /// Waits for files that differ from those in use and are good, and says meanwhile when the
    /// certificate expires.
    pub(super) async fn renewed(&mut self, metrics: &Metrics) -> Tls {
        loop {
            self.tell(metrics);
            let asked = tokio::select! {
                biased;
                () = self.reload.notified() => true,
                () = sleep(LOOK_EVERY) => false,
            };
            let (settings, name, clock) =
                (self.settings.clone(), self.name.clone(), self.clock.clone());
            let known = self.hash;
            let read = move || {
                let hash = tls::files_hash(&settings);
                let changed = asked || hash != known;
                (hash, changed.then(|| tls::load(&settings, &name, &clock)))
            };
            // it fails only when the runtime stops
            let Ok((hash, loaded)) = tokio::task::spawn_blocking(read).await else { continue };
            self.hash = hash;
            if let Some(tls) = loaded.and_then(|loaded| self.judge(loaded)) {
                return tls;
            }
        }
    }

    /// The new configuration, if it is better than none.
    fn judge(&mut self, loaded: Result<Loaded, CertificateError>) -> Option<Tls> {
        let kept = "kept the certificates in use, because the new ones cannot be used";
        match loaded {
            Err(error) => {
                tracing::warn!("{kept}: {error}");
                None
            }
            Ok(loaded) if !loaded.is_valid && self.is_valid() => {
                let (from, until) = loaded.validity;
                let (from, until) = (from.rfc3339(), until.rfc3339());
                tracing::warn!("{kept}: the new one is valid from {from} until {until}");
                None
            }
            Ok(Loaded { tls, validity, .. }) => {
                (self.validity, self.said_at) = (validity, None);
                let until = validity.1.rfc3339();
                tracing::info!("read the certificates again: the one of this node expires {until}");
                Some(tls)
            }
        }
    }

    fn is_valid(&self) -> bool {
        let (from, until) = self.validity;
        (from..=until).contains(&self.clock.now())
    }

    /// Shows until when the certificate is valid, and warns when that is worth it.
    fn tell(&mut self, metrics: &Metrics) {
        let (from, until) = self.validity;
        let wall = self.clock.now();
        let seconds = |time: Timestamp| i64::try_from(time.micros() / 1_000_000).unwrap_or(0);
        let gauge = metrics.certificate_expires_seconds.get_or_create(&[("door", DOOR)]);
        gauge.set(seconds(until) - seconds(wall));
        self.shown.send_replace(vec![CertificateLife { door: DOOR, expires_at: until }]);
        let every = if self.is_valid() { SOON_SAID_EVERY } else { INVALID_SAID_EVERY };
        let now = self.clock.instant();
        let said = self.said_at.is_some_and(|at| now.saturating_duration_since(at) < every);
        if said || (self.is_valid() && until.since(wall) >= RENEW_BEFORE) {
            return;
        }
        self.said_at = Some(now);
        let file = self.settings.cert.clone().unwrap_or_default();
        let (file, name) = (file.display(), &self.name);
        let cure = format!("make a new one with `kvs cert node {name}`; no restart is needed");
        if wall > until {
            tracing::warn!(
                "{file}: expired at {}: no peer accepts this node, which serves what it has; \
                 {cure}",
                until.rfc3339()
            );
        } else if wall < from {
            tracing::warn!(
                "{file}: is not valid before {}: no peer accepts this node, which serves what it \
                 has; correct this machine's clock, or {cure}",
                from.rfc3339()
            );
        } else {
            tracing::warn!("{file}: expires at {}; {cure}", until.rfc3339());
        }
    }
}

#[cfg(test)]
mod tests;
