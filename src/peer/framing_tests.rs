//! Frames over streams in memory: golden bytes, limits, cancellation, and any bytes in any pieces.

use futures_util::FutureExt;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use tokio::io::DuplexStream;

use super::*;

fn receiver(reader: impl AsyncRead + Send + Unpin + 'static) -> Receiver {
    Receiver::new(reader, &Counters::default())
}

fn over(duplex: DuplexStream) -> Stream {
    let (reader, writer) = tokio::io::split(duplex);
    Stream::new(reader, writer, &Counters::default())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

#[tokio::test]
async fn golden_bytes_of_frames() {
    let (a, mut b) = tokio::io::duplex(1024);
    let mut stream = over(a).with_preamble(&crate::peer::StreamKind::Session.frame());
    stream.send(b"abc").await.unwrap();
    stream.send(&[]).await.unwrap();
    stream.send(&[7; 300]).await.unwrap();
    assert_eq!(stream.bytes_sent(), 5 + 7 + 4 + 304);
    stream.finish().await.unwrap();
    drop(stream);
    let mut bytes = Vec::new();
    b.read_to_end(&mut bytes).await.unwrap();
    let mut golden = vec![1, 0, 0, 0, 2, 3, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0, 44, 1, 0, 0];
    golden.extend([7; 300]);
    assert_eq!(bytes, golden);
    assert_eq!(crate::peer::StreamKind::Push.frame(), [1, 0, 0, 0, 1]);
}

#[tokio::test]
async fn the_longest_frame_passes_and_one_byte_more_is_neither_sent_nor_kept() {
    let (a, b) = tokio::io::duplex(1 << 20);
    let (mut a, mut b) = (over(a), over(b));
    let longest: Vec<u8> = (0..FRAME_BYTES_MAX).map(|i| i.to_le_bytes()[0]).collect();
    let (sent, came) = tokio::join!(a.send(&longest), b.receive());
    sent.unwrap();
    assert_eq!(came.unwrap().unwrap(), longest);
    assert_eq!(b.bytes_received(), a.bytes_sent());

    let error = a.send(&vec![0; FRAME_BYTES_MAX + 1]).await.unwrap_err();
    assert!(matches!(error, PeerError::Malformed(_)), "{error}");
    a.send(b"still usable").await.unwrap();
    assert_eq!(b.receive().await.unwrap().unwrap(), &b"still usable"[..]);

    let announced = &[1, 0, 0x10, 1][..];
    assert_eq!(announced, u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes());
    let counters = Counters::default();
    let mut receiver = Receiver::new(announced.chain(tokio::io::repeat(0)), &counters);
    for _ in 0..2 {
        let error = receiver.receive().await.unwrap_err();
        assert!(matches!(error, PeerError::Malformed(_)), "{error}");
        assert_eq!(receiver.frame.capacity(), 0);
    }
    assert_eq!(counters.oversized.get(), 2);
}

#[tokio::test]
async fn memory_grows_with_the_received_bytes_and_not_with_the_announced_length() {
    let (mut a, b) = tokio::io::duplex(1 << 20);
    let mut receiver = receiver(b);
    a.write_all(&u32::try_from(FRAME_BYTES_MAX).unwrap().to_le_bytes()).await.unwrap();
    for came in [10, 100_000, 1_000_000] {
        a.write_all(&vec![0; came]).await.unwrap();
        assert!(receiver.receive().now_or_never().is_none());
        let (len, capacity) = (receiver.frame.len(), receiver.frame.capacity());
        assert!(len >= came && capacity <= 2 * len.max(STEP_BYTES), "{len} {capacity}");
    }
}

#[tokio::test]
async fn an_end_between_frames_is_clean_and_an_end_inside_one_is_an_error() {
    let mut whole = receiver(&[1, 0, 0, 0, 9][..]);
    assert_eq!(whole.receive().await.unwrap().unwrap(), &[9][..]);
    assert!(whole.receive().await.unwrap().is_none());
    assert!(whole.receive().await.unwrap().is_none());
    for cut in [&[1, 0, 0][..], &[1, 0, 0, 0], &[2, 0, 0, 0, 9]] {
        let counters = Counters::default();
        let error = Receiver::new(cut, &counters).receive().await.unwrap_err();
        assert!(matches!(error, PeerError::Malformed(_)), "{error}");
        assert_eq!((counters.malformed.get(), counters.received.get()), (1, 0));
    }
}

#[tokio::test]
async fn receive_can_be_dropped_at_every_byte_and_loses_none() {
    let (mut a, b) = tokio::io::duplex(64);
    let mut receiver = receiver(b);
    let mut frames = Vec::new();
    for byte in [3, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0, 1, 0, 0, 0, b'd'] {
        assert!(receiver.receive().now_or_never().is_none());
        a.write_all(&[byte]).await.unwrap();
        if let Some(frame) = receiver.receive().now_or_never() {
            frames.push(frame.unwrap().unwrap());
        }
    }
    assert_eq!(frames, [&b"abc"[..], b"", b"d"]);
}

#[tokio::test]
async fn after_a_dropped_send_the_stream_sends_nothing_more() {
    let (a, b) = tokio::io::duplex(8);
    let (mut a, mut b) = (over(a), over(b));
    assert!(a.send(&[0; 100]).now_or_never().is_none());
    assert!(matches!(a.send(b"x").await, Err(PeerError::Unreachable(_))));
    assert!(matches!(a.finish().await, Err(PeerError::Unreachable(_))));
    drop(a);
    assert!(matches!(b.receive().await, Err(PeerError::Malformed(_))));
}

#[tokio::test]
async fn silence_is_bounded_and_the_stream_can_be_used_after_it() {
    let (mut a, b) = tokio::io::duplex(64);
    let mut receiver = receiver(b);
    a.write_all(&[2, 0, 0, 0, 5]).await.unwrap();
    let error = receiver.receive_within(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable(_)), "{error}");
    a.write_all(&[6]).await.unwrap();
    let frame = receiver.receive_within(Duration::from_secs(10)).await.unwrap().unwrap();
    assert_eq!(frame, &[5, 6][..]);
}

/// The frames in `bytes` by a straightforward parser, and whether the end is clean.
fn parse(mut bytes: &[u8], bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap();
        if length > bytes_max || length > rest.len() {
            return (frames, false);
        }
        frames.push(rest[..length].to_vec());
        bytes = &rest[length..];
    }
    (frames, bytes.is_empty())
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_frames_in_them_or_an_error(
        parts in proptest::collection::vec(
            prop_oneof![
                any::<Vec<u8>>(),
                (0u8..40).prop_flat_map(|n| {
                    let body = proptest::collection::vec(any::<u8>(), usize::from(n));
                    (Just(n), body).prop_map(|(n, body)| [&[n, 0, 0, 0], &body[..]].concat())
                }),
            ],
            0..20,
        ),
        piece in 1usize..64,
    ) {
        let bytes = parts.concat();
        let (frames, clean) = parse(&bytes, FRAME_BYTES_MAX);
        let (mut a, b) = tokio::io::duplex(piece);
        let mut receiver = receiver(b);
        let mut came = Vec::new();
        let end = block_on(async {
            let write = async {
                // fails when the receiver is gone after an error
                let _ = a.write_all(&bytes).await;
                drop(a);
            };
            let read = async {
                let end = loop {
                    match receiver.receive().await {
                        Ok(Some(frame)) => came.push(frame.to_vec()),
                        Ok(None) => break true,
                        Err(_) => break false,
                    }
                };
                drop(receiver);
                end
            };
            tokio::join!(write, read).1
        });
        assert_eq!(came, frames);
        assert_eq!(end, clean);
    }
}

/// How long the frames below may be silent.
const IDLE: Duration = Duration::from_secs(30);

/// Passes on `piece` bytes each `pause`, until either side ends.
async fn thin(mut from: DuplexStream, mut to: DuplexStream, piece: usize, pause: Duration) {
    let mut bytes = vec![0; piece];
    while let Ok(came @ 1..) = from.read(&mut bytes).await {
        tokio::time::sleep(pause).await;
        if to.write_all(&bytes[..came]).await.is_err() {
            return;
        }
    }
}

/// Sends 100,000 bytes through a link of this speed; the errors of both ends, and how long it took.
async fn sent_through(piece: usize, pause: Duration) -> (Option<String>, Option<String>, u64) {
    let ((near, wire), (far_wire, far)) = (tokio::io::duplex(1024), tokio::io::duplex(1024));
    let (mut near, mut far) = (over(near), receiver(far));
    let began = tokio::time::sleep(Duration::ZERO).deadline();
    let frame = vec![7; 100_000];
    let sending = async {
        let sent = near.send_within(&frame, IDLE).await;
        drop(near);
        sent.err().map(|error| error.to_string())
    };
    let receiving = async {
        let received = far.receive_within(IDLE).await;
        drop(far);
        received.err().map(|error| error.to_string())
    };
    let carry = thin(wire, far_wire, piece, pause);
    let (sent, received, ()) = tokio::join!(sending, receiving, carry);
    let took = tokio::time::sleep(Duration::ZERO).deadline() - began;
    (sent, received, took.as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_thin_link_gets_a_long_frame_through_and_a_dribble_does_not_hold_a_stream() {
    let ms = Duration::from_millis;
    let (sent, received, took) = sent_through(128, ms(100)).await;
    assert_eq!((sent, received), (None, None), "1.3 kB a second");
    assert!(took > 60, "{took} s: longer than any silence");
    let (sent, received, took) = sent_through(128, ms(2000)).await;
    assert!(sent.is_some_and(|e| e.contains("bytes a second")), "64 B a second");
    assert!(received.is_some() && took < 60, "{took} s");
    let (sent, received, took) = sent_through(128, IDLE * 2).await;
    assert!(sent.is_some_and(|e| e.contains("took no byte")), "nothing moves");
    assert!(received.is_some_and(|e| e.contains("silent")) && took <= 120, "{took} s");
}
