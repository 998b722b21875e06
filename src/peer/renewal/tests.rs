//! Certificate files that change, expire or go bad under a running node.

use super::*;
use crate::clock::Fixed;
use crate::peer::certificate;

/// 2026-01-01T00:00:00Z
const NOW: u64 = 1_767_225_600_000_000;
const DAY: u64 = 86_400_000_000;

struct Files {
    dir: tempfile::TempDir,
    source: Arc<Fixed>,
    ca: (String, String),
}

impl Files {
    fn new() -> Self {
        let source = Fixed::new(NOW, 1);
        let ca = certificate::make_ca(&Clock::from_source(source.clone())).unwrap();
        let files = Self { dir: tempfile::tempdir().unwrap(), source, ca };
        files.write("ca.pem", &files.ca.0);
        files.make_node();
        files
    }

    fn clock(&self) -> Clock {
        Clock::from_source(self.source.clone())
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn make_node(&self) {
        let made = certificate::make_node(&self.clock(), &self.ca.0, &self.ca.1, "n1", &[]);
        let (cert, key) = made.unwrap();
        self.write("n1.pem", &cert);
        self.write("n1-key.pem", &key);
    }

    fn load(&self) -> Certificates {
        let path = |name| Some(self.dir.path().join(name));
        let listen = "127.0.0.1:0".parse().unwrap();
        let (ca, cert, key) = (path("ca.pem"), path("n1.pem"), path("n1-key.pem"));
        let settings = config::PeerConfig { listen, advertise: None, ca, cert, key };
        let loaded = tls::load(&settings, "n1", &self.clock()).unwrap();
        Certificates::new(&settings, "n1", &self.clock(), loaded.validity)
    }
}

/// Whether new certificates are taken within five minutes.
async fn renewed(certificates: &mut Certificates, metrics: &Metrics) -> bool {
    tokio::time::timeout(LOOK_EVERY * 5, certificates.renewed(metrics)).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn new_files_are_taken_within_minutes_or_when_asked_and_bad_ones_are_not() {
    let (files, metrics) = (Files::new(), Metrics::new());
    let mut certificates = files.load();
    assert!(!renewed(&mut certificates, &metrics).await, "nothing has changed");
    let before = certificates.shown().borrow().clone();
    files.write("n1.pem", "no certificate");
    assert!(!renewed(&mut certificates, &metrics).await, "a bad file");
    assert_eq!(*certificates.shown().borrow(), before, "the one in use stays");
    files.source.set(NOW + DAY);
    files.make_node();
    assert!(renewed(&mut certificates, &metrics).await, "a good one");
    certificates.tell(&metrics);
    assert!(certificates.shown().borrow()[0].expires_at > before[0].expires_at);
    certificates.reload().notify_one();
    assert!(renewed(&mut certificates, &metrics).await, "asked for");
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_counted_and_a_new_one_ends_that() {
    let (files, metrics) = (Files::new(), Metrics::new());
    files.source.set(NOW + 732 * DAY);
    let mut certificates = files.load();
    assert!(!certificates.is_valid());
    let left = || metrics.certificate_expires_seconds.get_or_create(&[("door", DOOR)]).get();
    certificates.tell(&metrics);
    assert_eq!(left(), -86_400);
    files.make_node();
    assert!(renewed(&mut certificates, &metrics).await && certificates.is_valid());
    certificates.tell(&metrics);
    assert_eq!(left(), 731 * 86_400);
    // an expired file does not replace a valid one
    files.source.set(NOW);
    files.make_node();
    files.source.set(NOW + 732 * DAY);
    assert!(!renewed(&mut certificates, &metrics).await && certificates.is_valid());
}
