//! Which part of a value a request gets.

use super::*;

const TAG: HeaderValue = HeaderValue::from_static("\"a\"");

fn of(range: &str, size: usize) -> Result<ValuePart, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(RANGE, range.parse().unwrap());
    part(&headers, size, &TAG)
}

#[test]
fn a_single_range_of_bytes_gives_that_part() {
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=0-9", 0..10),
        ("bytes=0-", 0..10),
        ("bytes=3-5", 3..6),
        ("bytes=9-", 9..10),
        ("bytes=3-99999999999999999999999", 3..10),
        ("bytes=-1", 9..10),
        ("bytes=-10", 0..10),
        ("bytes=-11", 0..10),
        ("bytes=-99999999999999999999999", 0..10),
        ("bytes=007-008", 7..9),
        ("BYTES=1-2", 1..3),
        ("bytes= 1-2 ", 1..3),
        ("bytes=,1-2, ,", 1..3),
    ] {
        assert_eq!(of(range, 10).unwrap(), ValuePart::Bytes(part), "{range}");
    }
}

#[test]
fn anything_but_a_single_range_of_bytes_is_ignored() {
    for range in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 -2",
        "bytes=1- 2",
        "bytes=0x1-2",
        "bytes=5-4",
        "bytes=0-1,3-4",
        "bytes=0-1,99-",
        "bytes =0-1",
        "lines=0-1",
        "0-1",
    ] {
        assert_eq!(of(range, 10).unwrap(), ValuePart::Whole, "{range}");
    }
    let mut headers = HeaderMap::new();
    assert_eq!(part(&headers, 10, &TAG).unwrap(), ValuePart::Whole);
    headers.append(RANGE, "bytes=0-1".parse().unwrap());
    headers.append(RANGE, "bytes=0-1".parse().unwrap());
    assert_eq!(part(&headers, 10, &TAG).unwrap(), ValuePart::Whole, "two are not a single range");
}

#[test]
fn a_range_outside_of_the_value_is_refused() {
    for (range, size) in [
        ("bytes=10-", 10),
        ("bytes=10-20", 10),
        ("bytes=99999999999999999999999-", 10),
        ("bytes=-0", 10),
    ] {
        let refused = of(range, size);
        assert!(matches!(refused, Err(Error::RangeNotSatisfiable(n)) if n == size), "{range}");
    }
}

#[test]
fn any_range_of_an_empty_value_is_all_of_it() {
    for range in ["bytes=0-9", "bytes=0-", "bytes=0-0", "bytes=5-", "bytes=-5", "bytes=-0"] {
        assert_eq!(of(range, 0).unwrap(), ValuePart::Whole, "{range}");
    }
}

#[test]
fn if_range_holds_for_exactly_the_current_tag() {
    let of = |values: &[&str], range: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        for value in values {
            headers.append(IF_RANGE, value.parse().unwrap());
        }
        part(&headers, 10, &TAG).unwrap()
    };
    assert_eq!(of(&["\"a\""], "bytes=0-1"), ValuePart::Bytes(0..2));
    for other in ["\"b\"", "W/\"a\"", "a", "*", "", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        assert_eq!(of(&[other], "bytes=0-1"), ValuePart::Whole, "{other}");
        assert_eq!(of(&[other], "bytes=99-"), ValuePart::Whole, "{other}");
    }
    assert_eq!(of(&["\"a\"", "\"a\""], "bytes=0-1"), ValuePart::Whole);
}
