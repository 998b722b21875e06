//! Loading certificate files: an error names the unusable file and the remedy.

use super::*;
use crate::clock::Fixed;

/// 2026-01-01T00:00:00Z
const NOW: u64 = 1_767_225_600_000_000;

struct Dir {
    dir: tempfile::TempDir,
    clock: Clock,
}

impl Dir {
    /// Usable files of a node `n1`.
    fn new() -> Self {
        let clock = Clock::from_source(Fixed::new(NOW, 1));
        let this = Self { dir: tempfile::tempdir().unwrap(), clock };
        let (ca, ca_key) = certificate::make_ca(&this.clock).unwrap();
        this.write("ca.pem", &ca);
        this.write("ca-key.pem", &ca_key);
        this.node("n1");
        this
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    fn node(&self, name: &str) {
        let (ca, key) = (self.read("ca.pem"), self.read("ca-key.pem"));
        let (cert, key) = certificate::make_node(&self.clock, &ca, &key, name, &[]).unwrap();
        self.write("n1.pem", &cert);
        self.write("n1-key.pem", &key);
    }

    fn load_at(&self, clock: &Clock) -> Result<Loaded, CertificateError> {
        let path = |name| Some(self.dir.path().join(name));
        let listen = "127.0.0.1:0".parse().unwrap();
        let (ca, cert, key) = (path("ca.pem"), path("n1.pem"), path("n1-key.pem"));
        load(&config::PeerConfig { listen, advertise: None, ca, cert, key }, "n1", clock)
    }

    /// Asserts that loading fails with an error that names `file` and contains `said`.
    fn refused(&self, file: &str, said: &str) {
        let error = self.load_at(&self.clock).err().expect("refused").to_string();
        assert!(error.contains(&format!("/{file}")), "{error}");
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn good_files_load_and_so_does_a_bundle_of_authorities() {
    let dir = Dir::new();
    assert!(dir.load_at(&dir.clock).is_ok());
    let (other, _) = certificate::make_ca(&dir.clock).unwrap();
    dir.write("ca.pem", &format!("{other}{}", dir.read("ca.pem")));
    assert!(dir.load_at(&dir.clock).is_ok());
}

#[test]
fn missing_files_and_files_with_other_content_are_named() {
    for (file, command) in [
        ("ca.pem", "kvs cert ca"),
        ("n1.pem", "kvs cert node n1"),
        ("n1-key.pem", "kvs cert node n1"),
    ] {
        let dir = Dir::new();
        dir.write(file, "nothing of the kind");
        dir.refused(file, command);
        dir.write(file, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
        dir.refused(file, command);
        std::fs::remove_file(dir.dir.path().join(file)).unwrap();
        dir.refused(file, command);
    }
}

#[test]
fn a_key_of_another_certificate_is_found() {
    let dir = Dir::new();
    let cert = dir.read("n1.pem");
    dir.node("n1");
    dir.write("n1.pem", &cert);
    dir.refused("n1-key.pem", "is not the key of the certificate in");
}

#[test]
fn a_certificate_of_another_authority_is_found() {
    let dir = Dir::new();
    let other = Dir::new();
    dir.write("ca.pem", &other.read("ca.pem"));
    dir.refused("n1.pem", "is not signed by the authority in");
    dir.write("ca.pem", &dir.read("n1.pem"));
    dir.refused("ca.pem", "not an authority's");
}

#[test]
fn a_certificate_without_the_nodes_name_is_found() {
    let dir = Dir::new();
    dir.node("n2");
    dir.refused("n1.pem", "does not carry node.name `n1`");
}

#[test]
fn a_certificate_outside_its_validity_loads_and_is_told_apart() {
    let dir = Dir::new();
    let at = |micros| {
        let loaded = dir.load_at(&Clock::from_source(Fixed::new(micros, 1))).unwrap();
        (loaded.is_valid, loaded.validity.1.rfc3339()[..10].to_owned())
    };
    let until = "2028-01-02".to_owned();
    assert_eq!(at(NOW + 732 * 86_400_000_000), (false, until.clone()), "expired");
    assert_eq!(at(NOW - 7_200_000_000), (false, until.clone()), "not valid yet");
    assert_eq!(at(NOW + 730 * 86_400_000_000), (true, until));
    // what else is wrong still is
    let other = Dir::new();
    dir.write("ca.pem", &other.read("ca.pem"));
    let late = Clock::from_source(Fixed::new(NOW + 732 * 86_400_000_000, 1));
    let error = dir.load_at(&late).err().expect("refused").to_string();
    assert!(error.contains("is not signed by the authority in"), "{error}");
}
