//! TLS: loads a node's certificate, its key and the cluster's authority, and configures QUIC with
//! them.
//!
//! Promises mutual TLS 1.3 with only the `ring` provider, no resumption and no early data, so that
//! every connection proves both certificates; and that a node with unusable files does not start,
//! but names the file and the command that helps. Must not know what the streams carry.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{CertificateError as Verdict, ClientConfig, Error, RootCertStore, ServerConfig};

use super::certificate::{self, CertificateError};
use super::pem;
use crate::clock::Clock;
use crate::config;

/// The application protocol. Its number changes when the hello or the frames change.
const ALPN: &[u8] = b"kvs/1";
/// At the start, warn about a certificate that expires sooner than this.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// How often QUIC pings a silent peer.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A connection ends after this silence: three pings were lost.
const IDLE_MS_MAX: u32 = 10_000;
/// Streams that a peer may have open per connection.
pub(super) const STREAMS_MAX: u32 = 16;
/// Unread bytes per stream. A quarter of the connection's window, so that one stalled stream does
/// not stall the others.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Unread bytes per connection, and likewise bytes not yet acknowledged.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Connection attempts that wait to be accepted.
const ATTEMPTS_MAX: usize = 256;
/// Bytes buffered for one waiting attempt.
const ATTEMPT_BYTES_MAX: u64 = 16 << 10;
/// Bytes buffered for all waiting attempts.
const ATTEMPTS_BYTES_MAX: u64 = 1 << 20;

/// QUIC's configuration for accepting and for dialing.
pub(super) struct Tls {
    pub(super) server: quinn::ServerConfig,
    pub(super) client: quinn::ClientConfig,
}

/// A node's certificates and key, read but not verified.
pub(super) struct Material {
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// Reads and verifies the files that `settings` names, for the node `name`.
pub(super) fn load(
    settings: &config::PeerConfig,
    name: &str,
    clock: &Clock,
) -> Result<Tls, CertificateError> {
    let files = Files::new(settings, name)?;
    let material = files.read()?;
    files.check(&material, clock)?;
    configure(material, clock).map_err(|e| CertificateError::Failed(e.to_string()))
}

/// The files of a node and its name.
pub(super) struct Files<'a> {
    pub(super) ca: &'a Path,
    pub(super) cert: &'a Path,
    pub(super) key: &'a Path,
    name: &'a str,
}

impl<'a> Files<'a> {
    pub(super) fn new(
        settings: &'a config::PeerConfig,
        name: &'a str,
    ) -> Result<Self, CertificateError> {
        let path = |key: &'static str, path: &'a Option<PathBuf>| {
            let missing = || {
                CertificateError::unusable(key, "is not set; set it, or clustering_enabled = false")
            };
            path.as_deref().ok_or_else(missing)
        };
        let ca = path("peer.ca", &settings.ca)?;
        let cert = path("peer.cert", &settings.cert)?;
        Ok(Self { ca, cert, key: path("peer.key", &settings.key)?, name })
    }

    fn read(&self) -> Result<Material, CertificateError> {
        let material = Material {
            authorities: self.authorities()?,
            chain: self.chain()?,
            key: self.private_key()?,
        };
        warn_if_readable(self.key);
        Ok(material)
    }

    pub(super) fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        let make_ca =
            "copy the cluster's `ca.pem` here, or make one for a new cluster with `kvs cert ca`";
        read_certificates(self.ca, make_ca)
    }

    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        read_certificates(self.cert, &self.make_node())
    }

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, CertificateError> {
        let make_node = self.make_node();
        let bytes = read_file(self.key, &make_node)?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
            let instead = pem::instead_of_key(&bytes);
            unusable(self.key, format!("holds no usable private key: {instead} {make_node}"))
        })
    }

    pub(super) fn make_node(&self) -> String {
        format!("make one with `kvs cert node {}`", self.name)
    }

    fn check(&self, material: &Material, clock: &Clock) -> Result<(), CertificateError> {
        for authority in &material.authorities {
            let is_ca = certificate::is_ca(authority);
            if !is_ca.map_err(|e| unusable(self.ca, e.to_string()))? {
                let problem = "holds a certificate that is not an authority's; set `peer.ca` to \
                               the `ca.pem` of the cluster";
                return Err(unusable(self.ca, problem));
            }
        }
        let Some(own) = material.chain.first() else {
            return Err(unusable(self.cert, "holds no certificate"));
        };
        let valid_until = certificate::valid_until(own);
        let valid_until = valid_until.map_err(|e| unusable(self.cert, e.to_string()))?;
        self.check_key(material)?;
        let explained = |e| self.explain(e, &valid_until.rfc3339());
        self.verify(material, own, clock).map_err(explained)?;
        if !certificate::carries(&certificate::dns_names(own), self.name) {
            return Err(self.unnamed());
        }
        if valid_until.since(clock.now()) < RENEW_BEFORE {
            tracing::warn!(
                "{}: expires at {}; {} and restart this node before that",
                self.cert.display(),
                valid_until.rfc3339(),
                self.make_node(),
            );
        }
        Ok(())
    }

    pub(super) fn check_key(&self, material: &Material) -> Result<(), CertificateError> {
        let loaded = provider().key_provider.load_private_key(material.key.clone_key());
        let key = loaded.map_err(|e| {
            unusable(self.key, format!("holds an unusable key ({e}); {}", self.make_node()))
        })?;
        CertifiedKey::new(material.chain.clone(), key).keys_match().map_err(|_| {
            let cert = self.cert.display();
            let problem = format!(
                "is not the key of the certificate in {cert}; use the two files that one \
                 `kvs cert node {}` made",
                self.name,
            );
            unusable(self.key, problem)
        })
    }

    /// Verifies this node's certificate as its peers will: as a server's and as a client's.
    pub(super) fn verify(
        &self,
        material: &Material,
        own: &CertificateDer<'_>,
        clock: &Clock,
    ) -> Result<(), Error> {
        let verifiers = Verifiers::new(&material.authorities)?;
        let now = unix_time(clock);
        let intermediates = material.chain.get(1..).unwrap_or_default();
        let name =
            ServerName::try_from(self.name).map_err(|_| Error::from(Verdict::NotValidForName))?;
        verifiers.server.verify_server_cert(own, intermediates, &name, &[], now)?;
        verifiers.client.verify_client_cert(own, intermediates, now)?;
        Ok(())
    }

    pub(super) fn unnamed(&self) -> CertificateError {
        let name = self.name;
        let problem = format!(
            "does not carry node.name `{name}` in its subject alternative names; make one that \
             does with `kvs cert node {name}`, or correct node.name",
        );
        unusable(self.cert, problem)
    }

    pub(super) fn explain(&self, error: Error, valid_until: &str) -> CertificateError {
        let make_node = self.make_node();
        let verdict = match error {
            Error::InvalidCertificate(verdict) => verdict,
            other => return unusable(self.cert, format!("cannot be used ({other}); {make_node}")),
        };
        let problem = match verdict {
            Verdict::NotValidForName | Verdict::NotValidForNameContext { .. } => {
                return self.unnamed();
            }
            Verdict::Expired | Verdict::ExpiredContext { .. } => {
                format!("expired at {valid_until}; {make_node}")
            }
            Verdict::NotValidYet | Verdict::NotValidYetContext { .. } => {
                format!("is not valid yet; correct this machine's clock, or {make_node}")
            }
            Verdict::UnknownIssuer | Verdict::BadSignature => format!(
                "is not signed by the authority in {}; {make_node} from that authority",
                self.ca.display(),
            ),
            other => format!("cannot be used ({other}); {make_node}"),
        };
        unusable(self.cert, problem)
    }
}

fn unusable(path: &Path, problem: impl Into<String>) -> CertificateError {
    CertificateError::unusable(path.display().to_string(), problem)
}

fn read_file(path: &Path, advice: &str) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|error| CertificateError::Unreadable {
        path: path.display().to_string(),
        advice: pem::advice(&error, advice),
        error,
    })
}

fn read_certificates(
    path: &Path,
    advice: &str,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = read_file(path, advice)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|e| unusable(path, format!("is damaged PEM ({e}); {advice}")))?;
    if found.is_empty() {
        let instead = pem::instead_of_certificate(&text);
        return Err(unusable(path, format!("holds no certificate in PEM: {instead} {advice}")));
    }
    Ok(found)
}

fn warn_if_readable(key: &Path) {
    let Ok(metadata) = std::fs::metadata(key) else { return };
    if metadata.permissions().mode() & 0o077 != 0 {
        let key = key.display();
        tracing::warn!("{key}: other users can read this private key; run `chmod 600 {key}`");
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

struct Verifiers {
    server: Arc<WebPkiServerVerifier>,
    client: Arc<dyn ClientCertVerifier>,
}

impl Verifiers {
    fn new(authorities: &[CertificateDer<'static>]) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone())?;
        }
        let roots = Arc::new(roots);
        let unusable = |e: rustls::server::VerifierBuilderError| Error::General(e.to_string());
        let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider());
        let client = WebPkiClientVerifier::builder_with_provider(roots, provider());
        Ok(Self {
            server: server.build().map_err(unusable)?,
            client: client.build().map_err(unusable)?,
        })
    }
}

/// Configures both sides with `material`, without checking that peers will accept it.
pub(super) fn configure(material: Material, clock: &Clock) -> Result<Tls, Error> {
    let Material { authorities, chain, key } = material;
    let verifiers = Verifiers::new(&authorities)?;
    let time: Arc<dyn TimeProvider> = Arc::new(WallTime(clock.clone()));

    let mut server = ServerConfig::builder_with_details(provider(), time.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifiers.client)
        .with_single_cert(chain.clone(), key.clone_key())?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;

    let mut client = ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifiers.server)
        .with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_early_data = false;
    quic(server, client)
}

fn quic(server: ServerConfig, client: ClientConfig) -> Result<Tls, Error> {
    let unfit = |e: quinn::crypto::rustls::NoInitialCipherSuite| Error::General(e.to_string());
    let server = QuicServerConfig::try_from(server).map_err(unfit)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
    server
        .transport_config(Arc::new(transport(STREAMS_MAX)))
        .max_incoming(ATTEMPTS_MAX)
        .incoming_buffer_size(ATTEMPT_BYTES_MAX)
        .incoming_buffer_size_total(ATTEMPTS_BYTES_MAX);
    let client = QuicClientConfig::try_from(client).map_err(unfit)?;
    let mut client = quinn::ClientConfig::new(Arc::new(client));
    // only the side that dialed opens streams
    client.transport_config(Arc::new(transport(0)));
    Ok(Tls { server, client })
}

fn transport(streams_max: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(streams_max))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS_MAX))));
    transport
}

/// Wall time for rustls, from the node's clock.
struct WallTime(Clock);

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(&self.0))
    }
}

fn unix_time(clock: &Clock) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_micros(clock.now().micros()))
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
