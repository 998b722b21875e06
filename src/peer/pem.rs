//! What a PEM file holds, for errors: a file of another kind is named as what it is.
//!
//! Must not know which file is read nor why.

use std::io;

/// What to do about a file that cannot be read. `missing` is the advice for a file that does not
/// exist: to make one would be wrong advice for a file that is there.
pub(super) fn advice(error: &io::Error, missing: &str) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => missing.to_owned(),
        io::ErrorKind::PermissionDenied => {
            "it may be there: let the user that runs this node read it and enter its directory \
             (`ls -l`, `chown`)"
                .to_owned()
        }
        _ => "name a file that can be read".to_owned(),
    }
}

/// Says what `bytes` hold, where they lack the private key that was expected.
pub(super) fn instead_of_key(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    let begins = |label: &str| text.contains(&format!("-----BEGIN {label}"));
    if begins("ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        "the key is encrypted with a passphrase, which a node cannot ask for; decrypt it with \
         `openssl pkey -in ENCRYPTED -out KEY` and `chmod 600 KEY`, or"
    } else if begins("CERTIFICATE REQUEST") {
        "it is a request for a certificate;"
    } else if begins("CERTIFICATE") {
        "it is a certificate;"
    } else if begins("PUBLIC KEY") {
        "it is a public key;"
    } else {
        other(bytes)
    }
}

/// Says what `bytes` hold, where they lack the certificate that was expected.
pub(super) fn instead_of_certificate(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("-----BEGIN CERTIFICATE REQUEST") {
        "it is a request for a certificate;"
    } else if text.contains("PRIVATE KEY-----") {
        "it is a private key;"
    } else {
        other(bytes)
    }
}

fn other(bytes: &[u8]) -> &'static str {
    if bytes.trim_ascii().is_empty() {
        "the file is empty;"
    } else if bytes.first() == Some(&0x30) && std::str::from_utf8(bytes).is_err() {
        "it is DER, the binary form; convert it to PEM with `openssl`, or"
    } else if bytes.windows(10).any(|part| part == b"gossip_key") {
        "it is a cluster's secret file;"
    } else {
        "it is not PEM;"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_kind_is_named() {
        for (bytes, words) in [
            (&b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nx"[..], "openssl pkey"),
            (b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "encrypted"),
            (b"-----BEGIN CERTIFICATE-----", "it is a certificate"),
            (b"-----BEGIN CERTIFICATE REQUEST-----", "a request"),
            (b"-----BEGIN PUBLIC KEY-----", "a public key"),
            (b" \n", "is empty"),
            (b"\x30\x82\xff", "DER"),
            (b"gossip_key = 1", "secret file"),
            (b"hello", "not PEM"),
        ] {
            assert!(instead_of_key(bytes).contains(words), "{words}");
        }
        assert!(instead_of_certificate(b"-----BEGIN PRIVATE KEY-----").contains("a private key"));
        assert!(instead_of_certificate(b"").contains("is empty"));
    }

    #[test]
    fn a_file_that_may_be_there_is_not_to_be_made_anew() {
        let advice = |kind: io::ErrorKind| advice(&kind.into(), "make one");
        assert_eq!(advice(io::ErrorKind::NotFound), "make one");
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::IsADirectory] {
            assert!(!advice(kind).contains("make"), "{kind}");
        }
    }
}
