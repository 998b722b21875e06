//! `Range` and `If-Range` (RFC 9110, sections 13.1.5 and 14): one part of a value.
//!
//! A server may answer any range with the whole. This one does so for several ranges at once, for
//! units that it does not know and for what is no range; only a range that is sane and lies outside
//! is refused.

use std::ops::Range;

use axum::http::header::{IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue};

use super::error::Error;

/// What of a value is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes of it, at least one, all of them there.
    Bytes(Range<usize>),
}

/// The part that `headers` ask for, of a value of `size` bytes whose tag is `tag`.
pub(super) fn part(headers: &HeaderMap, size: usize, tag: &HeaderValue) -> Result<Part, Error> {
    let mut given = headers.get_all(RANGE).iter();
    let (Some(range), None) = (given.next(), given.next()) else { return Ok(Part::Whole) };
    let Some(spec) = range.to_str().ok().and_then(single) else { return Ok(Part::Whole) };
    if !is_current(headers, tag) {
        return Ok(Part::Whole);
    }
    let (first, end) = match spec {
        Spec::From(first, last) => (first, last.saturating_add(1).min(size)),
        // no part of an empty value can be told, but all of it is asked for
        Spec::Last(1..) if size == 0 => return Ok(Part::Whole),
        Spec::Last(length) => (size.saturating_sub(length), size),
    };
    if first < end { Ok(Part::Bytes(first..end)) } else { Err(Error::RangeNotSatisfiable(size)) }
}

/// Whether `If-Range` holds, or is not there: by strong comparison, so that the parts that a client
/// puts together are of one value. A date is too coarse for that.
fn is_current(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let mut given = headers.get_all(IF_RANGE).iter();
    match (given.next(), given.next()) {
        (None, _) => true,
        (Some(value), None) => value == tag,
        (Some(_), Some(_)) => false,
    }
}

/// One range as it is written.
enum Spec {
    /// The first position and the last.
    From(usize, usize),
    /// So many bytes at the end.
    Last(usize),
}

/// The range that `header` asks for, if it is exactly one of bytes.
fn single(header: &str) -> Option<Spec> {
    let (unit, set) = header.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let specs = set.split(',').map(|spec| spec.trim_matches([' ', '\t']));
    let mut specs = specs.filter(|spec| !spec.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else { return None };
    match spec.split_once('-')? {
        ("", length) => Some(Spec::Last(position(length)?)),
        (first, "") => Some(Spec::From(position(first)?, usize::MAX)),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(Spec::From(first, last))
        }
    }
}

/// A number of bytes; one that is too large for any value stays too large.
fn position(digits: &str) -> Option<usize> {
    let sane = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    sane.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: HeaderValue = HeaderValue::from_static("\"a\"");

    fn of(range: &str, size: usize) -> Result<Part, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        part(&headers, size, &TAG)
    }

    #[test]
    fn a_single_range_of_bytes_is_that_part() {
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
            assert_eq!(of(range, 10).unwrap(), Part::Bytes(part), "{range}");
        }
    }

    #[test]
    fn what_is_no_single_range_of_bytes_is_ignored() {
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
            assert_eq!(of(range, 10).unwrap(), Part::Whole, "{range}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(part(&headers, 10, &TAG).unwrap(), Part::Whole);
        headers.append(RANGE, "bytes=0-1".parse().unwrap());
        headers.append(RANGE, "bytes=0-1".parse().unwrap());
        assert_eq!(part(&headers, 10, &TAG).unwrap(), Part::Whole, "two are no single range");
    }

    #[test]
    fn a_range_outside_of_the_value_is_refused() {
        for (range, size) in [
            ("bytes=10-", 10),
            ("bytes=10-20", 10),
            ("bytes=99999999999999999999999-", 10),
            ("bytes=-0", 10),
            ("bytes=0-", 0),
            ("bytes=0-0", 0),
            ("bytes=-0", 0),
        ] {
            let refused = of(range, size);
            assert!(matches!(refused, Err(Error::RangeNotSatisfiable(n)) if n == size), "{range}");
        }
        assert_eq!(of("bytes=-5", 0).unwrap(), Part::Whole);
    }

    #[test]
    fn if_range_holds_for_the_very_tag_alone() {
        let of = |values: &[&str], range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, range.parse().unwrap());
            for value in values {
                headers.append(IF_RANGE, value.parse().unwrap());
            }
            part(&headers, 10, &TAG).unwrap()
        };
        assert_eq!(of(&["\"a\""], "bytes=0-1"), Part::Bytes(0..2));
        for other in ["\"b\"", "W/\"a\"", "a", "*", "", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(of(&[other], "bytes=0-1"), Part::Whole, "{other}");
            assert_eq!(of(&[other], "bytes=99-"), Part::Whole, "{other}");
        }
        assert_eq!(of(&["\"a\"", "\"a\""], "bytes=0-1"), Part::Whole);
    }
}
