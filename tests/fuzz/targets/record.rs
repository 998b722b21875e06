//! Records: the bytes on the disk and on the wire, and the laws of the values that they decode to.

use bytes::Bytes;
use kvs::model::{
    Content, ContentType, Header, Key, Member, Merged, NodeId, Record, Seen, Timestamp, Version,
    merge,
};
use kvs::proto::wire::{self, WireRecord};
use kvs::store::layout::{self, Body, Marks, Stored};
use uuid::Uuid;

use super::memory::peak;
use super::script::{Pen, Script};

const DISK: u8 = 0;
const WIRE: u8 = 1;
const META: u8 = 2;

/// What serde allocates for the announced length of a list, before it has seen any item.
const HINTED_BYTES: usize = 1100 << 10;

/// Reads the bytes as an entry of the disk, as a record of the wire, or as an entry of the meta
/// family; or makes a record of them.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 4 {
        DISK => disk(script.rest()),
        WIRE => {
            let frame = [&[1, 0], script.rest()].concat();
            if let Ok(record) = wire::decode::<WireRecord>(&frame)
                && let Ok((key, record)) = record.checked()
            {
                laws(&key, &record);
            }
        }
        META => {
            let bytes = script.rest();
            let (members, taken) = peak(|| layout::decode_meta::<Vec<Member>>("members", bytes));
            assert!(
                taken <= 64 * bytes.len() + HINTED_BYTES,
                "{taken} bytes taken for {}",
                bytes.len()
            );
            if let Ok(members) = members {
                let again = layout::encode_meta(&members);
                assert!(again.len() <= bytes.len());
                let came: Vec<Member> = layout::decode_meta("members", &again).expect("encoded");
                assert_eq!(came, members);
            }
        }
        _ => {
            let (a, b) = (made(&mut script), made(&mut script));
            let key = Key::parse("app/x").expect("a key");
            laws(&key, &a);
            laws(&key, &b);
            pair(&a.header, &b.header);
        }
    }
}

/// Checks that a decoded entry encodes back, in no more bytes than it had.
fn disk(bytes: &[u8]) {
    let (decoded, taken) = peak(|| Stored::decode_for(b"k", &Bytes::copy_from_slice(bytes)));
    assert!(taken <= 8 * bytes.len() + HINTED_BYTES, "{taken} bytes taken for {}", bytes.len());
    let summary = layout::decode_summary(b"k", bytes);
    let Ok(stored) = decoded else {
        assert!(summary.is_err(), "both readers agree on whether an entry is damaged");
        return;
    };
    let summary = summary.expect("it was decoded");
    assert_eq!((&summary.header, summary.hash), (&stored.header, stored.hash));
    assert_eq!(summary.is_dead, stored.is_dead());
    let again = stored.encode();
    assert!(again.len() <= bytes.len());
    assert_eq!(Stored::decode_for(b"k", &again).expect("just encoded"), stored);
    assert_eq!(stored.encode(), again, "one entry, one form");
}

/// Checks what holds for every record.
pub fn laws(key: &Key, record: &Record) {
    assert!(record.is_whole() || record.is_swept());
    let hash = record.header.hash();
    assert_eq!(merge(Some(&record.header), &record.header), Merged::Same);
    assert_eq!(merge(None, &record.header), Merged::Replaced);
    let bodies = [Body::Inline(record.body.clone()), Body::Apart, Body::Swept];
    let marks = [(true, false), (false, true), (true, true)];
    for ((displaced_twin, named), body) in marks.into_iter().zip(bodies) {
        let marks = Marks { displaced_twin, named, in_txn: named, superseded: displaced_twin };
        let (header, revisions) = (record.header.clone(), (1, 5));
        let stored = Stored { header, hash, marks, revisions, body };
        let bytes = stored.encode();
        let decoded = Stored::decode_for(key.as_bytes(), &bytes).expect("just encoded");
        assert_eq!(decoded, stored);
        assert_eq!(decoded.header.hash(), hash, "the hash outlives the disk");
    }
    let sent = WireRecord::new(key.clone(), record.clone());
    let came = wire::decode::<WireRecord>(&wire::encode(&sent)).expect("just encoded");
    let (came_key, came) = came.checked().expect("it was whole");
    assert!(came_key == *key && came == *record);
    assert_eq!(came.header.hash(), hash, "the hash outlives the wire");
}

fn pair(a: &Header, b: &Header) {
    let (ab, ba) = (merge(Some(a), b), merge(Some(b), a));
    match ab {
        Merged::Same => assert!(a == b && ba == Merged::Same, "one hash, one header"),
        Merged::Kept => assert_eq!(ba, Merged::Replaced, "both sides keep one and the same"),
        Merged::Replaced => assert_eq!(ba, Merged::Kept, "both sides keep one and the same"),
    }
    assert_eq!(a == b, a.hash() == b.hash());
    // The order of the contract, as bytes and as a tuple.
    let sortable = |header: &Header| {
        let Version { timestamp, origin_joined_at, uuid } = &header.version;
        let (timestamp, joined) = (timestamp.micros(), !origin_joined_at.micros());
        [&timestamp.to_be_bytes()[..], &joined.to_be_bytes(), uuid.as_bytes()].concat()
    };
    let tuple = |header: &Header| {
        let Version { timestamp, origin_joined_at, uuid } = header.version;
        (timestamp, std::cmp::Reverse(origin_joined_at), uuid)
    };
    let order = a.version.cmp(&b.version);
    assert_eq!(order, sortable(a).cmp(&sortable(b)));
    assert_eq!(order, tuple(a).cmp(&tuple(b)));
}

/// A record made from a script, with few values in each field, so that fields coincide.
fn made(script: &mut Script<'_>) -> Record {
    let small = |script: &mut Script<'_>| Timestamp::saturating(script.number(1) % 4);
    let timestamp = match script.byte() % 4 {
        0 => small(script),
        1 => Timestamp::MAX,
        _ => Timestamp::saturating(script.number(8)),
    };
    let origin = NodeId::from_u128(u128::from(script.byte() % 4));
    let mut seen: Option<Seen> = None;
    for _ in 0..script.byte() % 24 {
        let node = NodeId::from_u128(u128::from(script.byte() % 32));
        seen = Some(Seen::after_write(seen.as_ref(), node, small(script)));
    }
    let content_type = ContentType::parse(&script.text()).unwrap_or(ContentType::json());
    let version = Version {
        timestamp,
        origin_joined_at: small(script),
        uuid: Uuid::from_u128(u128::from(script.byte() % 4)),
    };
    let parent = (script.byte() % 2 == 1).then(|| Uuid::from_u128(script.byte().into()));
    let expires_at = (script.byte() % 2 == 1).then(|| small(script));
    let body = match script.byte() % 3 {
        0 => None,
        _ => Some(Bytes::copy_from_slice(script.bytes())),
    };
    let content = match &body {
        None => Content::Tombstone,
        Some(body) => Content::value(content_type, body),
    };
    let seen = Seen::after_write(seen.as_ref(), origin, timestamp);
    let header = Header { version, origin, parent, seen, expires_at, content };
    Record { header, body: body.unwrap_or_default() }
}

/// A realistic record.
pub fn sample(body: &[u8]) -> WireRecord {
    let origin = NodeId::from_u128(7);
    let timestamp = Timestamp::saturating(1_700_000_000_000_000);
    let version = Version {
        timestamp,
        origin_joined_at: Timestamp::saturating(1_600_000_000_000_000),
        uuid: Uuid::from_u128(0x0123_4567_89ab_cdef),
    };
    let header = Header {
        version,
        origin,
        parent: Some(Uuid::from_u128(1)),
        seen: Seen::after_write(None, origin, timestamp),
        expires_at: None,
        content: Content::value(ContentType::json(), body),
    };
    let key = Key::parse("app/x").expect("a key");
    WireRecord { key, header, body: Bytes::copy_from_slice(body) }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let WireRecord { header, body, .. } = sample(b"{}");
    let dead = Header { content: Content::Tombstone, ..header.clone() };
    let expiring = Header { expires_at: Some(Timestamp::MAX), ..header.clone() };
    let on_disk = |header: &Header, body: Body| {
        let (header, hash) = (header.clone(), header.hash());
        let stored = Stored { header, hash, marks: Marks::default(), revisions: (0, 2), body };
        [&[DISK], &*stored.encode()].concat()
    };
    let made = |bytes: &[u8]| Pen::default().byte(3).raw(bytes).done();
    vec![
        on_disk(&header, Body::Inline(body)),
        on_disk(&header, Body::Apart),
        on_disk(&dead, Body::Inline(Bytes::new())),
        on_disk(&expiring, Body::Apart),
        on_disk(&expiring, Body::Swept),
        [&[WIRE], &wire::encode(&sample(b"{}"))[2..]].concat(),
        [&[META], &*layout::encode_meta(&Vec::<Member>::new())].concat(),
        [&[META], &*layout::encode_meta(&vec![super::frame::member()])].concat(),
        // Two that differ only in their content types.
        made(b"\0\x01\0\0\x03a/b\0\0\0\0\x01\x01v\0\x01\0\0\x03a/c\0\0\0\0\x01\x01v"),
        made(&[1, 2, 3, 1, 2, 3, b'a', b'/', b'b', 1, 2, 1, 9, 1, 3, 1, 2, b'h', b'i']),
        made(&[0, 1, 2, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
    ]
}
