//! Sealed datagrams: anything that a sender who can reach the port can send.

use kvs::gossip::seal::{NONCE_BYTES, SEAL_BYTES, Seal, SealError};
use uuid::Uuid;

use super::memory::peak;
use super::script::{Pen, Script};

const NONCE_AT: usize = SEAL_BYTES - NONCE_BYTES - 16;

fn seal(key: u8, cluster: u128) -> Seal {
    Seal::new(&[key; 32], Uuid::from_u128(cluster))
}

/// Opens the bytes as they are, then makes a datagram of them and breaks it.
pub fn run(data: &[u8]) {
    let ours = seal(1, 2);
    let (opened, bytes) = peak(|| ours.open(data));
    assert!(bytes <= data.len() + 256, "{bytes} bytes taken for {}", data.len());
    assert_eq!(opened, ours.open(data), "one datagram, one answer");
    if let Ok(plain) = opened {
        // Opens only what this key sealed.
        let nonce = data[NONCE_AT..NONCE_AT + NONCE_BYTES].try_into().expect("it was opened");
        assert_eq!(ours.seal(nonce, &plain), data);
    }
    let mut script = Script::new(data);
    let mut nonce = [0; NONCE_BYTES];
    nonce.fill_with(|| script.byte());
    let (at, by, cut) = (script.number(2), script.byte().max(1), script.number(2));
    let plain = script.rest();
    let mut sealed = ours.seal(nonce, plain);
    assert_eq!(sealed.len(), plain.len() + SEAL_BYTES);
    assert_eq!(ours.open(&sealed).as_deref(), Ok(plain));
    assert_eq!(seal(2, 2).open(&sealed), Err(SealError::UnknownKey));
    assert_eq!(seal(1, 3).open(&sealed), Err(SealError::NotAuthentic));
    let inside = |n: u64| usize::try_from(n).expect("two bytes") % sealed.len();
    let (at, cut) = (inside(at), inside(cut));
    assert!(ours.open(&sealed[..cut]).is_err(), "cut at {cut}");
    sealed[at] ^= by;
    assert!(ours.open(&sealed).is_err(), "changed at {at}");
}

pub fn seeds() -> Vec<Vec<u8>> {
    let sealed = |plain: &[u8]| seal(1, 2).seal([3; NONCE_BYTES], plain);
    let script = Pen::default().raw(&[5; NONCE_BYTES]).number(2, 30).byte(1).number(2, 44);
    vec![
        sealed(b""),
        sealed(b"who is there"),
        sealed(&[7; 300]),
        seal(9, 2).seal([3; NONCE_BYTES], b"another key"),
        seal(1, 9).seal([3; NONCE_BYTES], b"another cluster"),
        script.raw(b"plain").done(),
    ]
}
