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
#[path = "range_tests.rs"]
mod tests;
