//! The format of frames: golden bytes, limits, and errors for all other bytes.

use std::fmt::Write as _;
use std::io::Write as _;

use proptest::prelude::*;
use uuid::Uuid;

use super::super::list::LIST_ITEMS_MAX;
use super::super::reconcile::SessionLimits;
use super::*;
use crate::model::{Content, ContentType, NodeId, Seen, Timestamp, Version};

fn sample() -> WireRecord {
    let origin = NodeId::from_u128(7);
    let timestamp = Timestamp::saturating(1_700_000_000_000_000);
    let header = Header {
        version: Version {
            timestamp,
            origin_joined_at: Timestamp::saturating(1_600_000_000_000_000),
            uuid: Uuid::from_u128(0x0123_4567_89ab_cdef),
        },
        origin,
        parent: Some(Uuid::from_u128(1)),
        seen: Seen::after_write(None, origin, timestamp),
        expires_at: None,
        content: Content::value(ContentType::json(), b"{}"),
    };
    let key = Key::parse("app/x").unwrap();
    WireRecord { key, header, body: Bytes::from_static(b"{}") }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[test]
fn the_bytes_are_pinned() {
    let pinned = [
        hex(&encode(&Push::Records(vec![sample()]))),
        hex(&encode(&Request::Cut(vec![(Range { from: Bytes::from_static(b"a"), to: None }, 3)]))),
        hex(&encode(&Response::Pieces(vec![CutRange::Ids(vec![[9; 8]])]))),
    ];
    assert_eq!(pinned, GOLDEN, "a change of these bytes splits every mixed cluster");
}

const GOLDEN: [&str; 3] = [
    "01000001056170702f78fd00401e18240a0600fd0000a40731af0500000000000000000001234567\
     89abcdef000000000000000000000000000000070100000000000000000000000000000001010000\
     0000000000000000000000000007fd00401e18240a0600000001106170706c69636174696f6e2f6a\
     736f6e026e46dd10defc9b56c29a6ec56b508c21f54c08192194e4df25bf36f0c9c3c279027b7d",
    "0100010101610003",
    "0100010101010909090909090909",
];

#[test]
fn a_message_decodes_as_it_was_encoded_plain_or_compressed() {
    let mut large = sample();
    large.body = Bytes::from(vec![7; 100_000]);
    for record in [sample(), large] {
        let message = Push::Records(vec![record; 3]);
        let frame = encode(&message);
        assert!(frame.len() < 5_000);
        assert_eq!(decode::<Push>(&frame), Ok(message));
    }
}

#[test]
fn a_frame_that_decompresses_to_too_much_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; FRAME_BYTES_MAX + 1], 1).unwrap();
    let frame = [&[FORMAT_V1, ZSTD], bomb.as_slice()].concat();
    assert!(frame.len() < 10_000);
    let error = decode::<Push>(&frame).unwrap_err();
    assert!(error.0.contains("more than a frame can hold"), "{error}");
}

/// A compressed frame that needs a window of `2^window_log` bytes.
fn windowed(message: &Push, window_log: u32) -> Vec<u8> {
    let plain = encode(message);
    assert_eq!(plain[..2], [FORMAT_V1, PLAIN]);
    let mut packer = zstd::stream::write::Encoder::new(vec![FORMAT_V1, ZSTD], 1).unwrap();
    packer.window_log(window_log).unwrap();
    packer.write_all(&plain[2..]).unwrap();
    packer.finish().unwrap()
}

#[test]
fn a_compressed_frame_that_needs_a_large_window_is_refused() {
    let message = Push::Records(vec![sample()]);
    assert_eq!(decode(&windowed(&message, WINDOW_LOG_MAX)), Ok(message.clone()));
    for window_log in [WINDOW_LOG_MAX + 1, 27] {
        let frame = windowed(&message, window_log);
        assert!(frame.len() < 300, "small, and small when decompressed");
        let unpacked = zstd::stream::decode_all(&frame[2..]).expect("only its window is too large");
        assert_eq!(unpacked, encode(&message)[2..]);
        let error = decode::<Push>(&frame).unwrap_err();
        assert!(error.0.contains("memory"), "{error}");
    }
}

#[test]
fn a_list_that_would_take_far_more_memory_than_its_frame_is_refused() {
    // Found by fuzzing: 6 million ranges of three bytes each, compressed to two thousand bytes,
    // took 850 MB.
    let range = Range { from: Bytes::new(), to: None };
    let cut = |items| encode(&Request::Cut(vec![(range.clone(), 0); items]));
    assert!(decode::<Request>(&cut(LIST_ITEMS_MAX)).is_ok());
    let error = decode::<Request>(&cut(LIST_ITEMS_MAX + 1)).unwrap_err();
    assert!(error.0.contains("more than 16384 items"), "{error}");
    // The lists that nodes send are far shorter.
    const { assert!(SessionLimits::STANDARD.ids_max * 4 <= LIST_ITEMS_MAX) };
}

#[test]
fn other_formats_and_trailing_bytes_are_refused() {
    let frame = encode(&Push::Records(vec![sample()]));
    let longer = [frame.as_slice(), &[0]].concat();
    assert_eq!(decode::<Push>(&longer), Err(WireError("trailing bytes".to_owned())));
    for cut in 0..frame.len() {
        assert!(decode::<Push>(&frame[..cut]).is_err());
    }
    assert!(decode::<Push>(&[2, 0, 0]).is_err() && decode::<Push>(&[1, 9, 0]).is_err());
}

#[test]
fn a_record_whose_body_does_not_match_its_hash_is_refused() {
    let mut record = sample();
    assert!(record.clone().checked().is_ok());
    record.body = Bytes::from_static(b"[]");
    assert!(record.checked().is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        let _ = decode::<Push>(&bytes);
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Response>(&bytes);
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0..150_usize, with in 1..=255_u8) {
        let mut frame = encode(&Push::Records(vec![sample()]));
        if let Some(byte) = frame.get_mut(at) {
            *byte ^= with;
        }
        if let Ok(Push::Records(records)) = decode::<Push>(&frame) {
            for record in records {
                let _ = record.checked();
            }
        }
    }
}
