//! Seals datagrams: XChaCha20-Poly1305 under the cluster's gossip key.
//!
//! ```text
//!     format (1) | key id (4) | nonce (24) | sealed bytes | tag (16)
//! ```
//! The tag also authenticates format and cluster id. Promises that [`Seal::open`] returns only
//! bytes that a holder of this cluster's key has sealed. It does not detect replays: the membership
//! machine tolerates old and repeated datagrams. Must not know what the bytes mean.

use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use uuid::Uuid;

use crate::proto::membership::DATAGRAM_BYTES_MAX;

/// Bytes that sealing adds to a datagram.
pub const SEAL_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_BYTES + 16;

/// The largest sealed datagram: IPv6's minimum MTU of 1280 minus the IPv6 and UDP headers, so that
/// no network fragments it.
pub const SEALED_BYTES_MAX: usize = 1232;

const _: () = assert!(DATAGRAM_BYTES_MAX + SEAL_BYTES <= SEALED_BYTES_MAX);

/// Random bytes per seal: enough that nodes sharing a key need not coordinate to avoid a repeat.
pub const NONCE_BYTES: usize = 24;

const KEY_ID_BYTES: usize = 4;
const FORMAT: u8 = 1;
const KEY_ID_CONTEXT: &str = "kvs 2026 gossip key id, format 1";

/// The gossip key of one cluster, ready to seal and open.
pub struct Seal {
    cipher: XChaCha20Poly1305,
    key_id: [u8; KEY_ID_BYTES],
    associated: [u8; 17],
}

/// Why a datagram cannot be opened. Drop and count such a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is too short, or has another format byte.
    #[error("the datagram is not sealed")]
    Unsealed,
    /// It names another key than this node's.
    #[error("the datagram was sealed with another gossip key")]
    UnknownKey,
    /// It was changed on the way, forged, or sealed for another cluster.
    #[error("the datagram is not authentic")]
    NotAuthentic,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal({:02x?})", self.key_id)
    }
}

impl Seal {
    /// A seal that uses `key` in the cluster `cluster_id`.
    #[must_use]
    pub fn new(key: &[u8; 32], cluster_id: Uuid) -> Self {
        let mut key_id = [0; KEY_ID_BYTES];
        let derived = blake3::derive_key(KEY_ID_CONTEXT, key);
        key_id.iter_mut().zip(derived).for_each(|(to, from)| *to = from);
        let mut associated = [FORMAT; 17];
        let (_, rest) = associated.split_at_mut(1);
        rest.copy_from_slice(cluster_id.as_bytes());
        Self { cipher: XChaCha20Poly1305::new(key.into()), key_id, associated }
    }

    /// Seals `plain`, which grows by [`SEAL_BYTES`]. The caller must draw a fresh random `nonce`
    /// for each call: two datagrams under one nonce reveal their contents.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the cipher fails above 256 GiB; a datagram has 1 KiB")]
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], plain: &[u8]) -> Vec<u8> {
        let payload = Payload { msg: plain, aad: &self.associated };
        let sealed = self.cipher.encrypt(&nonce.into(), payload).expect("short enough");
        [&[FORMAT][..], &self.key_id, &nonce, &sealed].concat()
    }

    /// The bytes inside a sealed datagram.
    ///
    /// # Errors
    /// Unless `sealed` is the result of [`Self::seal`] under the same key in the same cluster.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (&format, rest) = sealed.split_first().ok_or(SealError::Unsealed)?;
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealError::Unsealed)?;
        let (&nonce, sealed) =
            rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Unsealed)?;
        if format != FORMAT {
            return Err(SealError::Unsealed);
        }
        if *key_id != self.key_id {
            return Err(SealError::UnknownKey);
        }
        let payload = Payload { msg: sealed, aad: &self.associated };
        self.cipher.decrypt(&nonce.into(), payload).map_err(|_| SealError::NotAuthentic)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use proptest::sample::Index;

    use super::{DATAGRAM_BYTES_MAX, SEALED_BYTES_MAX, Seal, SealError, Uuid};

    fn seal(key: u8, cluster: u128) -> Seal {
        Seal::new(&[key; 32], Uuid::from_u128(cluster))
    }

    #[test]
    fn the_bytes_are_golden() {
        let sealed = seal(1, 2).seal([3; 24], b"who is there");
        let hex = sealed.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(
            hex,
            "01528d693503030303030303030303030303030303030303030303030339686051\
             994cf2b583b8d759f4565bb854e791a662392af2a1728364"
        );
    }

    #[test]
    fn only_the_same_key_and_cluster_open_it() {
        let sealed = seal(1, 2).seal([3; 24], b"who is there");
        assert_eq!(seal(1, 2).open(&sealed).unwrap(), b"who is there");
        assert_eq!(seal(2, 2).open(&sealed), Err(SealError::UnknownKey));
        assert_eq!(seal(1, 3).open(&sealed), Err(SealError::NotAuthentic));
    }

    #[test]
    fn the_largest_datagram_fits() {
        let sealed = seal(1, 2).seal([3; 24], &[4; DATAGRAM_BYTES_MAX]);
        assert_eq!(sealed.len(), SEALED_BYTES_MAX);
    }

    #[test]
    fn its_debug_text_does_not_show_the_key() {
        assert!(!format!("{:?}", seal(1, 2)).contains("01, 01"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_error_and_no_panic(mut bytes: Vec<u8>) {
            let ours = seal(1, 2);
            assert!(ours.open(&bytes).is_err());
            bytes.splice(..bytes.len().min(5), ours.seal([0; 24], b"")[..5].iter().copied());
            assert!(ours.open(&bytes).is_err());
        }

        #[test]
        fn any_change_is_noticed(plain: Vec<u8>, at in any::<Index>(), by in 1..=255u8) {
            let ours = seal(1, 2);
            let mut sealed = ours.seal([3; 24], &plain);
            assert_eq!(ours.open(&sealed).unwrap(), plain);
            assert!(ours.open(&sealed[..at.index(sealed.len())]).is_err());
            let at = at.index(sealed.len());
            sealed[at] ^= by;
            assert!(ours.open(&sealed).is_err());
        }
    }
}
