//! `Range` and `If-Range` (RFC 9110, sections 13.1.5 and 14): one part of a value.
//!
//! A server may answer any range with the whole value. This one does so for several ranges at once,
//! for unknown units, for malformed ranges, and for an empty value: some clients ask for a range
//! only to bound the answer, and cannot know that there is nothing. It refuses only a well-formed
//! range that lies outside of a value that has bytes.

use std::ops::Range;

use axum::http::header::{IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue};

use crate::http::answer::error::Error;

/// The part of a value that a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ValuePart {
    /// The whole value.
    Whole,
    /// At least one byte; the range lies inside the value.
    Bytes(Range<usize>),
}

/// The part that `headers` ask for, of a value with `size` bytes and the tag `tag`.
pub(crate) fn part(
    headers: &HeaderMap,
    size: usize,
    tag: &HeaderValue,
) -> Result<ValuePart, Error> {
    let mut given = headers.get_all(RANGE).iter();
    let (Some(range), None) = (given.next(), given.next()) else { return Ok(ValuePart::Whole) };
    let Some(spec) = range.to_str().ok().and_then(single) else { return Ok(ValuePart::Whole) };
    if size == 0 || !is_current(headers, tag) {
        return Ok(ValuePart::Whole);
    }
    let (first, end) = match spec {
        Spec::From(first, last) => (first, last.saturating_add(1).min(size)),
        Spec::Last(length) => (size.saturating_sub(length), size),
    };
    if first < end {
        assert!(end <= size, "a range ends behind its value");
        Ok(ValuePart::Bytes(first..end))
    } else {
        Err(Error::RangeNotSatisfiable(size))
    }
}

/// Whether `If-Range` is missing or names the current value. Compares strongly, so that a client
/// joins parts of one value only; a date is too coarse for that.
fn is_current(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let mut given = headers.get_all(IF_RANGE).iter();
    match (given.next(), given.next()) {
        (None, _) => true,
        (Some(value), None) => value == tag,
        (Some(_), Some(_)) => false,
    }
}

/// One range as the header writes it.
enum Spec {
    /// First and last position.
    From(usize, usize),
    /// A number of bytes at the end.
    Last(usize),
}

/// The range in `header`, if it is exactly one and in bytes.
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

/// A number of bytes. One that overflows becomes the greatest, which no value reaches.
fn position(digits: &str) -> Option<usize> {
    let sane = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    sane.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
#[path = "range_tests.rs"]
mod tests;
