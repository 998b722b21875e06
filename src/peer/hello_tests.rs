//! The hello's bytes, its limits, and how a peer is checked.

use proptest::prelude::{any, proptest};

use super::*;
use crate::model::{NodeId, Timestamp};

fn hello() -> Hello {
    let member = Member {
        id: NodeId::from_u128(0x0102),
        name: "n1".into(),
        joined_at: Timestamp::saturating(1000),
        started_at: Timestamp::ZERO,
        gossip: "127.0.0.1:7946".parse().unwrap(),
        peer: "127.0.0.1:7947".parse().unwrap(),
        http: "[::1]:8080".parse().unwrap(),
        software: "0.1.0".into(),
    };
    Hello::new(Uuid::from_u128(0x0a0b), member)
}

#[test]
fn golden_bytes_of_a_hello() {
    let mut golden = vec![1, 2];
    golden.extend(0x0a0b_u128.to_be_bytes());
    golden.extend(0x0102_u128.to_be_bytes());
    golden.extend([2, b'n', b'1', 251, 0xe8, 0x03, 0]);
    golden.extend([0, 127, 0, 0, 1, 251, 0x0a, 0x1f]);
    golden.extend([0, 127, 0, 0, 1, 251, 0x0b, 0x1f]);
    golden.push(1);
    golden.extend(1_u128.to_be_bytes());
    golden.extend([251, 0x90, 0x1f, 5]);
    golden.extend(b"0.1.0");
    assert_eq!(hello().encode().unwrap(), golden);
    assert_eq!(Hello::decode(&golden).unwrap(), hello());
}

#[test]
fn malformed_hellos_are_refused() {
    let good = hello().encode().unwrap();
    let mut format = good.clone();
    format[0] = 2;
    let mut protocol = good.clone();
    protocol[1] = 9;
    let with = |change: fn(&mut Member)| {
        let mut hello = hello();
        change(&mut hello.member);
        let body = bincode::serde::encode_to_vec(&hello, bincode::config::standard()).unwrap();
        [&[FORMAT][..], &body].concat()
    };
    for (bytes, said) in [
        (vec![], "empty"),
        (format, "hello format 2 and this node 1"),
        (protocol, "protocol 9 and this node 2"),
        ([&good[..], &[0]].concat(), "after its end"),
        (good[..good.len() - 1].to_vec(), "cannot be decoded"),
        (with(|m| m.name.clear()), "name"),
        (with(|m| m.name = "n".repeat(64)), "name"),
        (with(|m| m.name = "n\n1".into()), "name"),
        (with(|m| m.software = "v".repeat(33)), "software"),
        (with(|m| m.software = "v".repeat(5000)), "cannot be decoded"),
    ] {
        let refusal = Hello::decode(&bytes).unwrap_err();
        assert_eq!(refusal.reason, Reason::Malformed);
        assert!(refusal.detail.contains(said), "{} has no {said}", refusal.detail);
    }
    let long = Hello::new(Uuid::nil(), Member { name: "n".repeat(64), ..hello().member });
    assert!(long.encode().is_err());
}

#[test]
fn a_peer_is_checked_by_cluster_then_name_then_id() {
    let own = hello();
    let other = |cluster: u128, name: &str, id: u128| {
        let member = Member { name: name.into(), id: NodeId::from_u128(id), ..hello().member };
        Hello::new(Uuid::from_u128(cluster), member)
    };
    let certified = ["n2".to_owned(), "*.example".to_owned()];
    let judge = |hello: Hello| hello.check(&own, &certified).map_err(|r| r.reason);
    assert_eq!(judge(other(0x0a0b, "n2", 7)), Ok(()));
    assert_eq!(judge(other(0x0a0b, "N2", 7)), Ok(()));
    assert_eq!(judge(other(0x0a0c, "n2", 7)), Err(Reason::Cluster));
    assert_eq!(judge(other(0x0a0b, "n3", 7)), Err(Reason::Name));
    assert_eq!(judge(other(0x0a0b, "a.example", 7)), Err(Reason::Name));
    assert_eq!(judge(other(0x0a0b, "n2", 0x0102)), Err(Reason::Copy));

    let dialed = other(0x0a0b, "n2", 7).member;
    assert!(other(0x0a0b, "n2", 7).check_dialed(&dialed).is_ok());
    assert!(other(0x0a0b, "n2", 8).check_dialed(&dialed).is_err());
    assert!(other(0x0a0b, "n3", 7).check_dialed(&dialed).is_err());
}

proptest! {
    #[test]
    fn any_bytes_decode_to_what_encodes_again_or_to_a_refusal(bytes in any::<Vec<u8>>()) {
        for bytes in [bytes.clone(), [&[1, 1][..], &bytes].concat()] {
            if let Ok(hello) = Hello::decode(&bytes) {
                assert_eq!(Hello::decode(&hello.encode().unwrap()).unwrap(), hello);
            }
        }
    }
}
