//! Frames and hellos: anything that a holder of a certificate of the cluster can send over a
//! stream.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use kvs::model::{Header, HeldBack, Member, NodeId, Timestamp};
use kvs::peer::{Counters, FRAME_BYTES_MAX, Hello, Stream};
use kvs::proto::digest::Sum;
use kvs::proto::stability::{Founding, LastWord, Ledger, Start};
use kvs::proto::wire::{
    self, Ask, Child, CutRange, Given, Mode, Push, Range, Request, Response, SessionAnswer, Wanted,
    WireRecord,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, ReadBuf};
use uuid::Uuid;

use super::memory::peak;
use super::record;
use super::script::{Pen, Script};

/// The largest decompressed frame in these tests; larger ones take too long for one input.
const UNPACKED_BYTES_MAX: usize = 1 << 20;
/// The memory that a frame can take besides a few times its decompressed size: decoding allocates
/// for the announced length of one string, up to the limit of a frame.
const SLACK_BYTES: usize = 24 << 20;

const STREAM: u8 = 0;
const WHOLE: u8 = 1;
const PACKED: u8 = 2;
const REPEATED: u8 = 3;
const HELLO: u8 = 4;

/// Reads the bytes as a stream of frames, as one frame, as a decompressed frame, or as a hello.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 5 {
        STREAM => stream(&mut script),
        WHOLE => decode_all(script.rest(), data.len()),
        PACKED => {
            let plain = script.rest();
            decode_all(&pack(plain), plain.len());
        }
        REPEATED => {
            let (head, unit, times) = (script.bytes(), script.bytes(), script.number(3));
            let most = UNPACKED_BYTES_MAX / unit.len().max(1);
            let times = usize::try_from(times).expect("three bytes").min(most);
            let plain = [head, &unit.repeat(times)].concat();
            decode_all(&pack(&plain), plain.len());
        }
        _ => hello(script.rest()),
    }
}

fn pack(plain: &[u8]) -> Vec<u8> {
    [&[1, 1], &*zstd::bulk::compress(plain, 1).expect("memory")].concat()
}

// --- streams -------------------------------------------------------------------------------------

/// A reader that returns the bytes in pieces.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.bytes.len().min(self.at + self.piece.min(to.remaining()));
        to.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

/// How a stream ends: after a frame, inside of one, or where a frame announces too great a length.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Clean,
    Cut,
    TooLong,
}

/// The frames in `bytes`, parsed in the simplest way, and how they end.
fn parse(mut bytes: &[u8]) -> (Vec<&[u8]>, End) {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).expect("64 bits");
        if length > FRAME_BYTES_MAX {
            return (frames, End::TooLong);
        }
        if length > rest.len() {
            return (frames, End::Cut);
        }
        let (frame, rest) = rest.split_at(length);
        frames.push(frame);
        bytes = rest;
    }
    (frames, if bytes.is_empty() { End::Clean } else { End::Cut })
}

fn stream(script: &mut Script<'_>) {
    let piece = usize::from(script.byte()) + 1;
    let bytes = script.rest();
    let reader = Pieces { bytes: bytes.to_vec(), at: 0, piece };
    let mut stream = Stream::new(reader, tokio::io::sink(), &Counters::default());
    let receive = async {
        let mut frames: Vec<Bytes> = Vec::new();
        loop {
            match stream.receive().await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break (frames, End::Clean),
                Err(error) if error.to_string().contains("at most") => {
                    break (frames, End::TooLong);
                }
                Err(_) => break (frames, End::Cut),
            }
        }
    };
    let (came, taken) = peak(|| super::block_on(receive));
    let (frames, end) = came;
    // An announced length alone allocates one step.
    assert!(taken <= 4 * bytes.len() + (128 << 10), "{taken} bytes taken for {}", bytes.len());
    let (expected, expected_end) = parse(bytes);
    assert!(frames.iter().eq(expected.iter()), "{frames:?}, not {expected:?}");
    assert_eq!(end, expected_end);
    let whole: usize = frames.iter().map(|frame| 4 + frame.len()).sum();
    assert_eq!(stream.bytes_received(), whole as u64);
}

// --- frames --------------------------------------------------------------------------------------

fn decode_all(frame: &[u8], unpacked: usize) {
    if let Some(Push::Records(records)) = decode::<Push>(frame, unpacked) {
        records.into_iter().for_each(check);
    }
    if let Some(Ask::Compare(Request::Give(records))) = decode::<Ask>(frame, unpacked) {
        records.into_iter().for_each(check);
    }
    if let Some(SessionAnswer::Compared(Response::Given(given))) =
        decode::<SessionAnswer>(frame, unpacked)
    {
        given.into_iter().flat_map(|given| given.records).for_each(check);
    }
}

fn decode<T>(frame: &[u8], unpacked: usize) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let (message, taken) = peak(|| wire::decode::<T>(frame));
    // A frame from another encoder states its decompressed size itself.
    if message.is_ok() || unpacked > frame.len() {
        let most = SLACK_BYTES + 4 * (unpacked + frame.len());
        assert!(taken <= most, "{taken} bytes taken for {unpacked} unpacked");
    }
    assert!(taken <= 8 * FRAME_BYTES_MAX, "{taken} bytes taken");
    assert_eq!(wire::decode::<T>(frame).as_ref(), message.as_ref(), "one frame, one answer");
    let message = message.ok()?;
    let again = wire::encode(&message);
    assert_eq!(wire::decode::<T>(&again).as_ref(), Ok(&message), "it comes back");
    let config = bincode::config::standard();
    let mut plain = vec![1, 0];
    bincode::serde::encode_into_std_write(&message, &mut plain, config).expect("plain data");
    assert_eq!(wire::decode::<T>(&plain).as_ref(), Ok(&message), "packed or not");
    assert!(wire::decode::<T>(&plain[..plain.len() - 1]).is_err(), "it was cut");
    plain.push(0);
    assert!(wire::decode::<T>(&plain).is_err(), "something follows it");
    Some(message)
}

/// A record that passes the check is authentic: its header names exactly these bytes.
fn check(record: WireRecord) {
    let (key, header): (_, Header) = (record.key.clone(), record.header.clone());
    if let Ok((checked, record)) = record.checked() {
        assert!(checked == key && record.header == header && record.is_whole());
        record::laws(&key, &record);
    }
}

// --- hellos --------------------------------------------------------------------------------------

fn hello(bytes: &[u8]) {
    let (hello, taken) = peak(|| Hello::decode(bytes));
    assert!(taken <= 16 * bytes.len() + (16 << 10), "{taken} bytes taken for {}", bytes.len());
    match hello {
        Ok(hello) => {
            let again = hello.encode().expect("what was taken may be said");
            assert_eq!(Hello::decode(&again).as_ref(), Ok(&hello));
            assert!(again.len() <= bytes.len() && again.len() <= 4 << 10);
        }
        Err(refusal) => {
            let shown = format!("{refusal:?}");
            assert!(shown.len() < 2_000, "what a peer says is shown in part: {}", shown.len());
        }
    }
}

// --- seeds ---------------------------------------------------------------------------------------

fn range(to: Option<&'static [u8]>) -> Range {
    Range { from: Bytes::from_static(b"a"), to: to.map(Bytes::from_static) }
}

fn requests() -> Vec<Request> {
    let wanted = |mode| Wanted {
        range: range(Some(b"b")),
        ids: vec![[1; 8], [2; 8]],
        mode,
        withheld: vec![super::session::withheld(3)],
    };
    vec![
        Request::Begin { report: super::session::report(3), root: Sum::default() },
        Request::Cut(vec![(range(None), 3), (range(Some(b"b")), 1)]),
        Request::Want(vec![wanted(Mode::Only), wanted(Mode::AllBut), wanted(Mode::AllButAgain)]),
        Request::Give(vec![record::sample(b"{}"), record::sample(&[7; 40])]),
        Request::End { report: super::session::report(4), held: HeldBack::default() },
    ]
}

fn responses() -> Vec<Response> {
    let child = Child { short: 7, count: 300, low: [3; 16] };
    let children = vec![child.clone(), child];
    let records = vec![record::sample(b"{}")];
    let resume = Some(Bytes::from_static(b"app/y"));
    vec![
        Response::Begun { report: super::session::report(3), root: Sum::default() },
        Response::Pieces(vec![
            CutRange::Children { level: 2, children },
            CutRange::Ids(vec![[9; 8]]),
        ]),
        Response::Given(vec![Given {
            records,
            unknown: vec![0, 300],
            withheld: vec![super::session::withheld(4)],
            resume,
        }]),
        Response::Taken(HeldBack { records: 1, until: Timestamp::saturating(9) }),
        Response::Ended(super::session::report(4)),
        Response::Failed("why".to_owned()),
        Response::Busy,
        Response::Paused("why".to_owned()),
    ]
}

/// A realistic ledger, of a node that has met another one.
fn ledger() -> Ledger {
    let at = |micros| Timestamp::saturating(micros);
    let start = Start { at: at(5), random: 6 };
    let founding = Founding { at: at(5), id: Uuid::from_u128(8) };
    let mut ledger = Ledger::founder(NodeId::from_u128(7), start, founding, false);
    let offer = ledger.offer().expect("it is counted").ledger_is_durable();
    drop(ledger.enter(NodeId::from_u128(9), start, &offer));
    ledger
}

fn asks() -> Vec<Ask> {
    let mut ledger = ledger();
    let introduction = ledger.introduce(Timestamp::saturating(9));
    let begin = ledger.begin(true, Timestamp::saturating(9)).expect("it is counted");
    let own = [
        Ask::Open(introduction),
        Ask::Tell(begin.ledger_is_durable()),
        Ask::Close(LastWord { set: ledger.set_name() }),
        Ask::Follow,
        Ask::Count,
    ];
    own.into_iter().chain(requests().into_iter().map(Ask::Compare)).collect()
}

fn answers() -> Vec<SessionAnswer> {
    let mut ledger = ledger();
    let introduction = ledger.introduce(Timestamp::saturating(9));
    let begin = ledger.begin(true, Timestamp::saturating(9)).expect("it is counted");
    let offer = ledger.offer().expect("it is counted");
    let own = [
        SessionAnswer::Opened(introduction),
        SessionAnswer::Told(begin.ledger_is_durable()),
        SessionAnswer::Closed(LastWord { set: ledger.set_name() }),
        SessionAnswer::Offered(offer.ledger_is_durable()),
        SessionAnswer::Counted(ledger.set.clone().expect("it is counted")),
    ];
    own.into_iter().chain(responses().into_iter().map(SessionAnswer::Compared)).collect()
}

/// A realistic member.
pub fn member() -> Member {
    let at = |port| ([10, 0, 0, 1], port).into();
    Member {
        id: NodeId::from_u128(7),
        name: "n1".to_owned(),
        joined_at: Timestamp::saturating(5),
        started_at: Timestamp::saturating(6),
        gossip: at(1),
        peer: at(2),
        http: at(3),
        software: "0.1.0".to_owned(),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut ledger = ledger();
    let stable = ledger.tell().expect("it is counted").ledger_is_durable();
    let pushes = [
        Push::Records(vec![record::sample(b"{}")]),
        Push::Report(super::session::report(2)),
        Push::Hello(ledger.introduce(Timestamp::saturating(9))),
        Push::Stable(stable),
    ];
    let mut frames: Vec<Vec<u8>> = pushes.iter().map(wire::encode).collect();
    frames.extend(asks().iter().map(wire::encode));
    frames.extend(answers().iter().map(wire::encode));
    let packed = Push::Records(vec![record::sample(&[7; 2000]); 3]);
    let mut seeds: Vec<_> = frames.iter().map(|frame| [&[PACKED], &frame[2..]].concat()).collect();
    frames.push(wire::encode(&packed));
    seeds.extend(frames.iter().map(|frame| [&[WHOLE], &**frame].concat()));
    let length = |frame: &[u8]| u32::try_from(frame.len()).expect("short").to_le_bytes();
    let framed: Vec<u8> =
        frames[..4].iter().flat_map(|frame| [&length(frame), &**frame].concat()).collect();
    seeds.extend([2, 255].map(|piece| [&[STREAM, piece], &*framed].concat()));
    seeds.push(vec![STREAM, 0, 1, 0, 0x10, 1, 9, 9]);
    // A short head, then the same items again and again: ids, records.
    let repeated = |head: &[u8], unit: &[u8]| {
        Pen::default().byte(REPEATED).bytes(head).bytes(unit).number(3, 700).done()
    };
    seeds.push(repeated(&[0, 1, 1, 1, 0xfb, 0xbc, 2], &[9; 8]));
    seeds.push(repeated(&[0, 0xfb, 0xbc, 2], &wire::encode(&record::sample(b"{}"))[2..]));
    // Long lists of items of two or three bytes: ranges, cut ranges, wanted and given ones.
    let many = |variant: u8, unit: &[u8]| {
        let head = [0, variant, 0xfc, 0xff, 0xff, 0xff, 0];
        Pen::default().byte(REPEATED).bytes(&head).bytes(unit).number(3, 0xff_ffff).done()
    };
    seeds.extend([many(1, &[0, 0, 1]), many(1, &[1, 0]), many(2, &[0, 0, 0, 0])]);
    seeds.extend([many(2, &[0, 0, 0]), many(3, &wire::encode(&record::sample(b""))[2..])]);
    let hello = Hello::new(Uuid::from_u128(9), member()).encode().expect("a sane member");
    seeds.push([&[HELLO], &*hello].concat());
    seeds
}
