//! Certificates: makes a cluster's authority and its nodes' certificates, and describes them.
//!
//! Promises PEM that `tls` accepts: ECDSA P-256, the node's name in the subject alternative names,
//! valid from an hour ago. Must not know rustls, quinn, files or configuration: the command line
//! writes the files. Private keys take their entropy from ring, not from [`Clock`].

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pem;
use crate::clock::Clock;
use crate::model::{Member, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);
/// Validity of an authority: ten years.
const CA_VALIDITY: Duration = DAY.saturating_mul(3652);
/// Validity of a node's certificate: two years.
const NODE_VALIDITY: Duration = DAY.saturating_mul(731);
/// Certificates are valid from this long before they are made, so that nodes whose clocks lag
/// accept them.
const BACKDATED: Duration = Duration::from_secs(3600);
/// A host name, in bytes (the bound of DNS).
const HOST_BYTES_MAX: usize = 253;
/// Hosts per certificate.
const HOSTS_MAX: usize = 64;

/// Why a certificate cannot be made, read or used. Nothing has been written.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A certificate cannot carry this name. Choose another one.
    #[error("a certificate cannot carry `{name}`: {problem}")]
    Name {
        /// The name, as given.
        name: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A PEM text or a file has the wrong content. Give the right one or make a new one.
    #[error("{what}: {problem}")]
    Unusable {
        /// The text or the file.
        what: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file cannot be read. Make it, or correct its path or its mode.
    #[error("cannot read {path}: {error}; {advice}")]
    Unreadable {
        /// The file's path, as configured.
        path: String,
        /// The system's answer.
        error: std::io::Error,
        /// What to do.
        advice: String,
    },
    /// The cryptography failed, by a fault of the machine or a bug.
    #[error("the certificate could not be made: {0}")]
    Failed(String),
}

impl CertificateError {
    pub(super) fn unusable(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unusable { what: what.into(), problem: problem.into() }
    }

    fn name(name: &str, problem: &str) -> Self {
        Self::Name { name: name.to_owned(), problem: problem.to_owned() }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn failed(error: rcgen::Error) -> CertificateError {
    CertificateError::Failed(error.to_string())
}

/// Makes a cluster's certificate authority. Returns its certificate and private key, both PEM.
///
/// # Errors
/// Only when the machine provides no entropy.
pub fn make_ca(clock: &Clock) -> Result<(String, String), CertificateError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    // a random name, so that one file can hold several authorities
    let mark = u32::from_be_bytes(clock.random());
    let mut params = params(clock, &format!("kvs CA {mark:08x}"), clock.now().plus(CA_VALIDITY));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Makes a node's certificate, signed by the authority. Returns the certificate and its private
/// key, both PEM.
///
/// The subject alternative names are `name` and each of `hosts` (a DNS name or an IP address), once
/// each. The certificate does not outlive the authority.
///
/// # Errors
/// When a name is unfit for a certificate, the authority's PEM is unusable or expired, or the key
/// belongs to another authority.
pub fn make_node(
    clock: &Clock,
    ca_cert_pem: &str,
    ca_key_pem: &str,
    name: &str,
    hosts: &[String],
) -> Result<(String, String), CertificateError> {
    check_node_name(name)?;
    let names = subject_names(name, hosts)?;
    let (issuer, valid_until) = issuer(clock, ca_cert_pem, ca_key_pem)?;
    let mut params = params(clock, name, clock.now().plus(NODE_VALIDITY).min(valid_until));
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn params(clock: &Clock, common_name: &str, valid_until: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let valid_from = clock.now().since(Timestamp::ZERO.plus(BACKDATED));
    params.not_before = epoch + Duration::from_secs(valid_from.as_secs());
    params.not_after = epoch + Duration::from_secs(valid_until.micros() / 1_000_000);
    // RFC 5280 wants a positive number; the set bit fixes its length
    let mut serial: [u8; 16] = clock.random();
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

/// The authority in `cert_pem` whose private key is `key_pem`, and when it expires.
fn issuer(
    clock: &Clock,
    cert_pem: &str,
    key_pem: &str,
) -> Result<(Issuer<'static, KeyPair>, Timestamp), CertificateError> {
    let what = "the CA's key";
    let key = KeyPair::from_pem(key_pem).map_err(|_| {
        let instead = pem::instead_of_key(key_pem.as_bytes());
        let problem = format!("is not a private key in PKCS #8 PEM: {instead} give `ca-key.pem`");
        CertificateError::unusable(what, problem)
    })?;
    let public = key.subject_public_key_info();
    for pem in certificates(cert_pem)? {
        let certificate = parse(&pem.contents)?;
        if certificate.public_key().raw != public.as_slice() {
            continue;
        }
        if !certificate.is_ca() {
            let problem = "is the certificate of a node, not of an authority; give `ca.pem`";
            return Err(CertificateError::unusable("the CA's certificate", problem));
        }
        let end = timestamp(certificate.validity().not_after.timestamp());
        if end <= clock.now() {
            let problem = format!("expired at {}; make a new one (`kvs cert ca`)", end.rfc3339());
            return Err(CertificateError::unusable("the CA's certificate", problem));
        }
        let der = pem.contents.as_slice().into();
        return Ok((Issuer::from_ca_cert_der(&der, key).map_err(failed)?, end));
    }
    let problem =
        "belongs to no certificate in the CA's file; give the pair that `kvs cert ca` made";
    Err(CertificateError::unusable(what, problem))
}

fn subject_names(name: &str, hosts: &[String]) -> Result<Vec<SanType>, CertificateError> {
    if hosts.len() > HOSTS_MAX {
        let problem = format!("{} hosts are given; use at most {HOSTS_MAX}", hosts.len());
        return Err(CertificateError::Name { name: name.to_owned(), problem });
    }
    let mut names = vec![dns_name(name)?];
    for host in hosts {
        let entry = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => dns_name(host)?,
        };
        if !names.contains(&entry) {
            names.push(entry);
        }
    }
    Ok(names)
}

fn dns_name(name: &str) -> Result<SanType, CertificateError> {
    check_dns(name)?;
    let text = name.try_into().map_err(failed)?;
    Ok(SanType::DnsName(text))
}

/// Checks that `name` can be a node's name and that TLS can verify it.
fn check_node_name(name: &str) -> Result<(), CertificateError> {
    Member::check_name(name).map_err(|e| CertificateError::name(name, &e.to_string()))?;
    check_dns(name)
}

/// Checks that TLS can verify `name`: rustls rejects a name whose last label is a number.
fn check_dns(name: &str) -> Result<(), CertificateError> {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > HOST_BYTES_MAX || !name.split('.').all(label_ok) {
        let problem = "it is neither a DNS name nor an IP address; use parts of 1 to 63 letters, \
                       digits or `-`, joined by `.`";
        return Err(CertificateError::name(name, problem));
    }
    let last = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let hex = last.strip_prefix("0x").is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        let problem = "TLS reads a name that ends in a number as an IP address; use a name such \
                       as `n1`";
        return Err(CertificateError::name(name, problem));
    }
    Ok(())
}

/// A certificate in words, as `kvs cert show` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// The holder, as a distinguished name.
    pub subject: String,
    /// The signer, as a distinguished name.
    pub issuer: String,
    /// The DNS names in the subject alternative names; a node's certificate has the node's name.
    pub names: Vec<String>,
    /// The IP addresses in the subject alternative names.
    pub addresses: Vec<String>,
    /// Start of the validity, RFC 3339.
    pub not_before: String,
    /// End of the validity, RFC 3339.
    pub not_after: String,
    /// Whether the certificate may sign others.
    pub is_ca: bool,
    /// The serial number, hexadecimal bytes joined by `:`.
    pub serial: String,
    /// The BLAKE3 hash of the DER, hexadecimal.
    pub blake3: String,
}

/// Describes the first certificate in a PEM text.
///
/// # Errors
/// When the text holds no certificate, or one that cannot be parsed.
pub fn describe(pem: &str) -> Result<Description, CertificateError> {
    describe_all(pem)?.into_iter().next().ok_or_else(no_certificate)
}

/// Describes every certificate in a PEM text, at least one.
///
/// # Errors
/// As [`describe`].
pub fn describe_all(pem: &str) -> Result<Vec<Description>, CertificateError> {
    certificates(pem)?.iter().map(|pem| describe_der(&pem.contents)).collect()
}

fn describe_der(der: &[u8]) -> Result<Description, CertificateError> {
    let certificate = parse(der)?;
    let validity = certificate.validity();
    let (names, addresses) = alternative_names(&certificate);
    Ok(Description {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names,
        addresses,
        not_before: timestamp(validity.not_before.timestamp()).rfc3339(),
        not_after: timestamp(validity.not_after.timestamp()).rfc3339(),
        is_ca: certificate.is_ca(),
        serial: certificate.raw_serial_as_string(),
        blake3: blake3::hash(der).to_string(),
    })
}

/// The DNS names in a certificate (DER); none when it cannot be parsed.
pub(super) fn dns_names(der: &[u8]) -> Vec<String> {
    parse(der).map(|c| alternative_names(&c).0).unwrap_or_default()
}

/// Whether `names` contains `name`, ignoring ASCII case as DNS does (RFC 4343). A wildcard matches
/// no node.
pub(super) fn carries(names: &[String], name: &str) -> bool {
    names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// When a certificate (DER) expires.
pub(super) fn valid_until(der: &[u8]) -> Result<Timestamp, CertificateError> {
    Ok(timestamp(parse(der)?.validity().not_after.timestamp()))
}

/// Whether a certificate (DER) may sign others.
pub(super) fn is_ca(der: &[u8]) -> Result<bool, CertificateError> {
    Ok(parse(der)?.is_ca())
}

fn alternative_names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<String>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return (names, addresses);
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    (names, addresses)
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok().map(|address| address.to_string())
}

/// The certificate sections of a PEM text, at least one.
fn certificates(pem: &str) -> Result<Vec<Pem>, CertificateError> {
    let what = "the PEM text";
    let mut found = Vec::new();
    for section in Pem::iter_from_buffer(pem.as_bytes()) {
        let section = section.map_err(|e| {
            CertificateError::unusable(what, format!("is damaged ({e}); make a new one"))
        })?;
        if section.label == "CERTIFICATE" {
            found.push(section);
        }
    }
    if found.is_empty() { Err(no_certificate()) } else { Ok(found) }
}

fn no_certificate() -> CertificateError {
    let problem = "holds no certificate; give a file such as `ca.pem` or `n1.pem`, not a key";
    CertificateError::unusable("the PEM text", problem)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|e| {
        CertificateError::unusable("the certificate", format!("is damaged ({e}); make a new one"))
    })
}

fn timestamp(seconds: i64) -> Timestamp {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Timestamp::saturating(seconds.saturating_mul(1_000_000))
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
