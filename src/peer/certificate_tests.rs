//! What certificates carry, and which names and authorities are refused.

use super::*;
use crate::clock::Fixed;

/// 2026-01-01T00:00:00Z
const NOW: u64 = 1_767_225_600_000_000;

fn clock() -> Clock {
    Clock::from_source(Fixed::new(NOW, 1))
}

fn node(name: &str, hosts: &[&str]) -> Result<String, CertificateError> {
    let (cert, key) = make_ca(&clock()).unwrap();
    let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
    make_node(&clock(), &cert, &key, name, &hosts).map(|(cert, _)| cert)
}

#[test]
fn an_authority_describes_itself() {
    let clock = clock();
    let (cert, key) = make_ca(&clock).unwrap();
    let ca = describe(&cert).unwrap();
    assert!(ca.is_ca && ca.subject.starts_with("CN=kvs CA ") && ca.issuer == ca.subject, "{ca:?}");
    assert_eq!(ca.not_before, "2025-12-31T23:00:00.000000Z");
    assert_eq!(ca.not_after, "2036-01-01T00:00:00.000000Z");
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    let other = describe(&make_ca(&clock).unwrap().0).unwrap();
    assert!(other.subject != ca.subject && other.serial != ca.serial && other.blake3 != ca.blake3);
    let both = describe_all(&format!("{cert}\n{key}\n{cert}")).unwrap();
    assert_eq!(both, [ca.clone(), ca]);
}

#[test]
fn a_nodes_certificate_carries_its_name_and_its_hosts_once_each() {
    let cert = node("n1", &["db-1.example.org", "10.0.0.1", "fd00::1", "n1", "10.0.0.1"]).unwrap();
    let n1 = describe(&cert).unwrap();
    assert_eq!(n1.subject, "CN=n1");
    assert!(n1.issuer.starts_with("CN=kvs CA ") && !n1.is_ca);
    assert_eq!(n1.names, ["n1", "db-1.example.org"]);
    assert_eq!(n1.addresses, ["10.0.0.1", "fd00::1"]);
    assert_eq!(n1.not_after, "2028-01-02T00:00:00.000000Z");
    let json = serde_json::to_value(&n1).unwrap();
    assert_eq!(json["names"][0], "n1");
    assert_eq!(json["blake3"].as_str().unwrap().len(), 64);
}

#[test]
fn names_that_tls_cannot_verify_are_refused_with_advice() {
    let long = "n".repeat(64);
    for name in
        ["", "a b", "-a", "a-", "a..b", "a.", "ü", "1", "n.1", "10.0.0.1", "n.0x1f", "a_b", &long]
    {
        let error = node(name, &[]).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")), "{error}");
        assert!(error.contains("use ") || error.contains("must be 1 to 63"));
    }
    assert!(node("n1", &["host_a", "x.example.org"]).is_ok());
    assert!(node("n1", &["bad host"]).is_err());
    assert!(node("n1", &["h"; 65]).is_err());
}

#[test]
fn an_unusable_authority_is_named() {
    let clock = clock();
    let (cert, key) = make_ca(&clock).unwrap();
    let (other_cert, other_key) = make_ca(&clock).unwrap();
    let (n1, n1_key) = make_node(&clock, &cert, &key, "n1", &[]).unwrap();
    let said =
        |cert: &str, key: &str| make_node(&clock, cert, key, "n2", &[]).unwrap_err().to_string();
    assert!(said(&cert, &other_key).contains("belongs to no certificate"));
    assert!(said(&cert, "nonsense").contains("ca-key.pem"));
    assert!(said("nonsense", &key).contains("no certificate"));
    assert!(said(&n1, &n1_key).contains("not of an authority"));
    let bundle = format!("{other_cert}{cert}");
    let signed = make_node(&clock, &bundle, &key, "n2", &[]).unwrap().0;
    assert_eq!(describe(&signed).unwrap().issuer, describe(&cert).unwrap().subject);
}

#[test]
fn a_nodes_certificate_does_not_outlive_its_authority() {
    let (cert, key) = make_ca(&clock()).unwrap();
    let days = |n: u64| Clock::from_source(Fixed::new(NOW + n * 86_400_000_000, 2));
    let late = make_node(&days(3600), &cert, &key, "n1", &[]).unwrap().0;
    assert_eq!(describe(&late).unwrap().not_after, describe(&cert).unwrap().not_after);
    let error = make_node(&days(3653), &cert, &key, "n1", &[]).unwrap_err().to_string();
    assert!(error.contains("expired at 2036-01-01"), "{error}");
}
