//! The decision table of all conditions, to be read as documentation.

use super::super::{ContentType, NodeId, Seen, Version};
use super::*;

const UUID: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn at(micros: u64) -> Timestamp {
    Timestamp::saturating(micros)
}

fn header(body: &[u8]) -> Header {
    Header {
        version: Version { timestamp: at(10), origin_joined_at: at(1), uuid: UUID },
        origin: NodeId::from_u128(9),
        parent: None,
        seen: Seen::default(),
        expires_at: None,
        content: Content::value(ContentType::json(), body),
    }
}

fn json(text: &'static str) -> Condition {
    let text = json::Text::new(Bytes::from_static(text.as_bytes()));
    Condition::Expect(Expected::Json(text.unwrap()))
}

/// Whether the condition holds for: no live value; the value; the value after it displaced a twin.
fn table(condition: &Condition, body: &[u8]) -> (bool, bool, bool) {
    let header = header(body);
    let current = |displaced_twin| {
        let body = condition.needs_body().then_some(body);
        condition.holds(Some(Current { header: &header, displaced_twin, body }))
    };
    (condition.holds(None), current(false), current(true))
}

#[test]
fn the_decision_table() {
    use Condition::{Expect, Match, NoneMatch};
    let these = |uuids: &[Uuid]| Tags::These(uuids.to_vec());
    let version = |uuid, timestamp| Expect(Expected::Version { uuid, timestamp });
    let bytes = |b: &'static [u8]| Expect(Expected::Bytes(Bytes::from_static(b)));
    #[rustfmt::skip]
    let rows = [
        //                                            absent  live   after a twin
        (Expect(Expected::Uuid(UUID)),               (false,  true,  true)),
        (Expect(Expected::Uuid(OTHER)),              (false,  false, false)),
        (Expect(Expected::Timestamp(at(10))),        (false,  true,  false)),
        (Expect(Expected::Timestamp(at(9))),         (false,  false, false)),
        (version(UUID, at(10)),                      (false,  true,  true)),
        (version(OTHER, at(10)),                     (false,  false, false)),
        (version(UUID, at(11)),                      (false,  false, false)),
        (json("{\"n\":1.0}"),                        (false,  true,  true)),
        (json("{\"n\":2}"),                          (false,  false, false)),
        (bytes(b"{\"n\": 1}"),                       (false,  true,  true)),
        (bytes(b"{\"n\":1}"),                        (false,  false, false)),
        (Expect(Expected::Absent),                   (true,   false, false)),
        (Expect(Expected::Exists),                   (false,  true,  true)),
        (Match(Tags::Any),                           (false,  true,  true)),
        (Match(these(&[OTHER, UUID])),               (false,  true,  true)),
        (Match(these(&[OTHER])),                     (false,  false, false)),
        (Match(these(&[])),                          (false,  false, false)),
        (NoneMatch(Tags::Any),                       (true,   false, false)),
        (NoneMatch(these(&[])),                      (true,   true,  true)),
        (NoneMatch(these(&[OTHER, UUID])),           (true,   false, false)),
        (NoneMatch(these(&[OTHER])),                 (true,   true,  true)),
    ];
    for (condition, expected) in rows {
        assert_eq!(table(&condition, b"{\"n\": 1}"), expected, "{condition:?}");
    }
}

#[test]
fn a_value_that_is_not_json_equals_no_json() {
    let null = json("null");
    assert_eq!(table(&null, b""), (false, false, false));
    assert_eq!(table(&null, b" null "), (false, true, true));
}
