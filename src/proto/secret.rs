//! The secret file of a cluster: the first gossip key, and a secret that never changes.
//!
//! Promises: parsing gives exactly two keys of 32 bytes, or an error that says what to do. The
//! cluster id and the digest key depend on the secret alone, so the gossip key can be replaced
//! without making another cluster. Must not know where the file is nor who can read it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use uuid::Uuid;

/// The format of the file; there is only one yet.
const FORMAT: u32 = 1;

/// The most bytes of a secret file. It has a few hundred; a longer file is something else.
pub const SECRET_FILE_BYTES_MAX: usize = 4096;

const CLUSTER_ID_CONTEXT: &str = "kvs 2026 cluster id, format 1";
const DIGEST_KEY_CONTEXT: &str = "kvs 2026 digest key, format 1";

const COMMENT: &str = "\
# The secret of a kvs cluster: whoever holds it can read and forge gossip. Keep this file private
# (mode 0600), and the same on every node; another file makes another cluster.
";

/// The secrets of a cluster. `Debug` shows only the cluster id, so that logs cannot leak them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    gossip_key: [u8; 32],
    secret: [u8; 32],
}

/// Why a secret file cannot be used. Nothing was changed. The messages say what to do and never
/// quote the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The text is not TOML with exactly the three fields. The parser's message would quote the
    /// keys.
    #[error(
        "this is not a cluster secret file (it needs `format`, `gossip_key`, `secret` and nothing \
         else); copy the file of another node, or make one with `kvs gossip-key new` for a new \
         cluster"
    )]
    Unreadable,
    /// The file has a format that this version does not know.
    #[error(
        "the cluster secret file has format {0}, but this version reads format 1; run the version \
         of kvs that made the file, or a newer one"
    )]
    Format(u32),
    /// The value of this field is not base64 of 32 bytes.
    #[error(
        "`{0}` in the cluster secret file is not 32 bytes in base64: the file is damaged; copy it \
         again from another node"
    )]
    Key(&'static str),
}

/// The fields of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    gossip_key: String,
    secret: String,
}

impl Secret {
    /// The secrets of a new cluster, from 64 random bytes.
    #[must_use]
    pub fn from_entropy(bytes: [u8; 64]) -> Self {
        let (mut gossip_key, mut secret) = ([0; 32], [0; 32]);
        let (first, second) = bytes.split_at(32);
        gossip_key.copy_from_slice(first);
        secret.copy_from_slice(second);
        Self { gossip_key, secret }
    }

    /// Parses the text of a secret file; see [`Self::to_text`].
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if text.len() > SECRET_FILE_BYTES_MAX {
            return Err(SecretError::Unreadable);
        }
        let table: toml::Table = text.parse().map_err(|_| SecretError::Unreadable)?;
        // The format comes first, because another format can have other fields.
        match table.get("format").and_then(toml::Value::as_integer).map(u32::try_from) {
            Some(Ok(FORMAT)) => {}
            Some(Ok(other)) => return Err(SecretError::Format(other)),
            _ => return Err(SecretError::Unreadable),
        }
        let file: File = table.try_into().map_err(|_| SecretError::Unreadable)?;
        assert_eq!(file.format, FORMAT, "the format was checked before the other fields");
        Ok(Self {
            gossip_key: key("gossip_key", &file.gossip_key)?,
            secret: key("secret", &file.secret)?,
        })
    }

    /// The text of the secret file, with a comment for its owner.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (gossip_key, secret) = (STANDARD.encode(self.gossip_key), STANDARD.encode(self.secret));
        format!(
            "{COMMENT}format = {FORMAT}\ngossip_key = \"{gossip_key}\"\nsecret = \"{secret}\"\n"
        )
    }

    /// The first of the keys that seal gossip.
    #[must_use]
    pub fn gossip_key(&self) -> &[u8; 32] {
        &self.gossip_key
    }

    /// The public id of the cluster: a UUID of version 8 (RFC 9562, section 5.8).
    #[must_use]
    pub fn cluster_id(&self) -> Uuid {
        let mut bytes = [0; 16];
        let derived = blake3::derive_key(CLUSTER_ID_CONTEXT, &self.secret);
        bytes.iter_mut().zip(derived).for_each(|(to, from)| *to = from);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// The key from which [`ElementKey`](super::element::ElementKey) derives the keys of the
    /// digest.
    #[must_use]
    pub fn digest_key(&self) -> [u8; 32] {
        blake3::derive_key(DIGEST_KEY_CONTEXT, &self.secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(of cluster {})", self.cluster_id())
    }
}

fn key(name: &'static str, text: &str) -> Result<[u8; 32], SecretError> {
    let bytes = STANDARD.decode(text).map_err(|_| SecretError::Key(name))?;
    bytes.try_into().map_err(|_| SecretError::Key(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{STANDARD, Secret, SecretError};
    use base64::Engine as _;

    fn secret(first: u8, second: u8) -> Secret {
        let mut bytes = [first; 64];
        bytes[32..].fill(second);
        Secret::from_entropy(bytes)
    }

    #[test]
    fn a_file_parses_back_and_has_a_comment() {
        let made = secret(1, 2);
        let text = made.to_text();
        assert_eq!(Secret::parse(&text).unwrap(), made);
        assert!(text.starts_with("# ") && text.contains("0600") && text.contains("every node"));
        assert_eq!(made.gossip_key(), &[1; 32]);
    }

    #[test]
    fn derived_values_are_golden_and_do_not_depend_on_the_gossip_key() {
        let made = secret(1, 2);
        assert_eq!(made.cluster_id().to_string(), "c2c9db79-0794-87ff-a12e-71b2acfb18ed");
        assert_eq!(made.cluster_id().get_version_num(), 8);
        let digest_key = blake3::Hash::from_bytes(made.digest_key());
        let hex = "9f4a758f3dcc293f9cf7497360f29e39edc8d0242bd447ab6c5a434f597439dd";
        assert_eq!(digest_key.to_hex().as_str(), hex);
        assert_eq!(made.cluster_id(), secret(9, 2).cluster_id());
        assert_eq!(made.digest_key(), secret(9, 2).digest_key());
        assert_ne!(made.cluster_id(), secret(1, 3).cluster_id());
        assert_ne!(made.digest_key(), secret(1, 3).digest_key());
    }

    #[test]
    fn the_error_for_a_wrong_file_does_not_quote_its_keys() {
        let good = secret(1, 2).to_text();
        let key = STANDARD.encode([2; 32]);
        for (text, error) in [
            (String::new(), SecretError::Unreadable),
            ("format = ".to_owned(), SecretError::Unreadable),
            (good.replace("format = 1", "format = 2"), SecretError::Format(2)),
            (good.replace("format = 1", "format = -1"), SecretError::Unreadable),
            (good.replace("secret = ", "secrets = "), SecretError::Unreadable),
            (format!("{good}more = 1\n"), SecretError::Unreadable),
            (good.replace(&key, &STANDARD.encode([2; 31])), SecretError::Key("secret")),
            (good.replace(&key, "?"), SecretError::Key("secret")),
            (format!("{good}{}", "#".repeat(5000)), SecretError::Unreadable),
        ] {
            let found = Secret::parse(&text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains(&key));
        }
    }

    #[test]
    fn debug_output_does_not_show_the_keys() {
        let shown = format!("{:?}", secret(1, 2));
        assert!(shown.starts_with("Secret(of cluster ") && shown.len() < 60, "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_gives_an_error_and_no_panic(text: String) {
            assert!(Secret::parse(&text).is_err());
        }

        #[test]
        fn any_secret_parses_back(first in any::<[u8; 32]>(), second in any::<[u8; 32]>()) {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&first);
            bytes[32..].copy_from_slice(&second);
            let made = Secret::from_entropy(bytes);
            assert_eq!(Secret::parse(&made.to_text()).unwrap(), made);
        }
    }
}
