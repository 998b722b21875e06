//! Checks the certificate files of a node without starting it, and lists all that is wrong.
//!
//! A node stops at the first fault; who corrects a file wants to know them all.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::pki_types::CertificateDer;

use super::certificate::{self, CertificateError};
use super::tls::{Files, Material};
use crate::clock::Clock;
use crate::config;
use crate::model::member::RENEW_BEFORE;

/// What is wrong, or soon will be, with the files of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFindings {
    /// What keeps peers from accepting this node.
    pub faults: Vec<String>,
    /// What should be changed, but keeps nothing from working today.
    pub warnings: Vec<String>,
}

/// Reads the authority, the certificate and the key that `settings` names, for the node `name`, and
/// checks each and how they belong together. Leaves out files that are not set.
#[must_use]
pub fn check_files(settings: &config::PeerConfig, name: &str, clock: &Clock) -> FileFindings {
    let mut found = FileFindings::default();
    let Ok(files) = Files::new(settings, name) else { return found };
    let authorities = found.take(files.authorities());
    let chain = found.take(files.chain());
    let key = found.take(files.private_key());
    found.warn_if_readable(files.key);
    if let Some(authorities) = &authorities {
        for authority in authorities {
            if !certificate::is_ca(authority).unwrap_or_default() {
                let (ca, problem) = (files.ca.display().to_string(), "is not an authority's");
                let problem = format!("holds a certificate that {problem}; name the `ca.pem`");
                found.take(Err::<(), _>(CertificateError::unusable(ca, problem)));
            }
            found.check_end(files.ca, authority, "replace the authority", clock);
        }
    }
    if let Some(own) = chain.as_ref().and_then(|chain| chain.first()) {
        if !certificate::carries(&certificate::dns_names(own), name) {
            found.take(Err::<(), _>(files.unnamed()));
        }
        found.check_end(files.cert, own, &files.make_node(), clock);
    }
    if let (Some(authorities), Some(chain), Some(key)) = (authorities, chain, key) {
        let material = Material { authorities, chain, key };
        found.take(files.check_key(&material));
        if let Some(own) = material.chain.first() {
            let end = certificate::validity(own).map(|(_, end)| end.rfc3339()).unwrap_or_default();
            let verified = files.verify(&material, own, clock.now());
            found.take(verified.map_err(|e| files.explain(e, &end)));
        }
    }
    found
}

impl FileFindings {
    fn take<T>(&mut self, result: Result<T, CertificateError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let fault = error.to_string();
                if !self.faults.contains(&fault) {
                    self.faults.push(fault);
                }
                None
            }
        }
    }

    /// Warns of a certificate that ends soon. One that has ended is a fault of another check.
    fn check_end(&mut self, file: &Path, der: &CertificateDer<'_>, advice: &str, clock: &Clock) {
        let Ok((_, end)) = certificate::validity(der) else { return };
        if end > clock.now() && end.since(clock.now()) < RENEW_BEFORE {
            let (file, end) = (file.display(), end.rfc3339());
            self.warnings.push(format!("{file}: expires at {end}; {advice} before that"));
        }
    }

    fn warn_if_readable(&mut self, key: &Path) {
        let mode = std::fs::metadata(key).map(|found| found.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            let key = key.display();
            self.warnings
                .push(format!("{key}: others can read this private key; run `chmod 600 {key}`"));
        }
    }
}
