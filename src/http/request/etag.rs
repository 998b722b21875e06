//! Entity tags and the conditional headers (RFC 9110, sections 8.8.3 and 13.1).
//!
//! A version's tag is its uuid in quotes. A tag in any other form is legal, but names no version
//! and matches nothing.

use axum::http::header::{AsHeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::http::answer::error::Error;
use crate::model::{Condition, Tags};

/// The tag of the version `uuid`.
pub(crate) fn of(uuid: Uuid) -> HeaderValue {
    let mut tag = [b'"'; 38];
    if let Some(inner) = tag.get_mut(1..37) {
        let inner: &mut [u8] = inner;
        uuid.hyphenated().encode_lower(inner);
    }
    HeaderValue::from_bytes(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The tags of `If-Match` without weak ones, which never match (strong comparison).
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<Tags>, Error> {
    list(headers, IF_MATCH, "If-Match", false)
}

/// The tags of `If-None-Match`; weak ones count (weak comparison).
pub(crate) fn if_none_match(headers: &HeaderMap) -> Result<Option<Tags>, Error> {
    list(headers, IF_NONE_MATCH, "If-None-Match", true)
}

/// The versions that `If-Match` names by weak tags. A proxy that compresses answers makes tags
/// weak, and a client that sends one back should learn why it never matches.
pub(crate) fn weak_if_match(headers: &HeaderMap) -> Vec<Uuid> {
    let mut weak = Vec::new();
    for value in headers.get_all(IF_MATCH) {
        let mut rest = value.as_bytes();
        while let Ok(Some((tag, after))) = next_tag(rest) {
            weak.extend(tag.uuid.filter(|_| tag.weak));
            rest = after;
        }
    }
    weak
}

/// The conditions that the header fields of a write ask for.
pub(crate) fn conditions(headers: &HeaderMap) -> Result<Vec<Condition>, Error> {
    let matches = if_match(headers)?.map(Condition::Match);
    let differs = if_none_match(headers)?.map(Condition::NoneMatch);
    Ok(matches.into_iter().chain(differs).collect())
}

fn list(
    headers: &HeaderMap,
    header: impl AsHeaderName,
    name: &'static str,
    weak_counts: bool,
) -> Result<Option<Tags>, Error> {
    let bad =
        || Error::bad(format!("{name} must be `*` or a list of quoted tags, as in `\"<uuid>\"`"));
    let (mut tags, mut count, mut any) = (Vec::new(), 0_usize, false);
    let mut given = false;
    for value in headers.get_all(header) {
        given = true;
        if value.as_bytes().trim_ascii() == b"*" {
            any = true;
            continue;
        }
        let mut rest = value.as_bytes();
        while let Some((tag, after)) = next_tag(rest).map_err(|()| bad())? {
            count += 1;
            if let Some(uuid) = tag.uuid.filter(|_| weak_counts || !tag.weak) {
                tags.push(uuid);
            }
            rest = after;
        }
    }
    match (given, any, count) {
        (false, _, _) => Ok(None),
        (true, true, 0) => Ok(Some(Tags::Any)),
        (true, false, 1..) => Ok(Some(Tags::These(tags))),
        _ => Err(bad()),
    }
}

struct Tag {
    weak: bool,
    uuid: Option<Uuid>,
}

/// The first tag of a list and the rest after it. Skips empty elements.
fn next_tag(list: &[u8]) -> Result<Option<(Tag, &[u8])>, ()> {
    let mut rest = list;
    while let Some((b' ' | b'\t' | b',', after)) = rest.split_first() {
        rest = after;
    }
    if rest.is_empty() {
        return Ok(None);
    }
    let (weak, quoted) = match rest.strip_prefix(b"W/") {
        Some(quoted) => (true, quoted),
        None => (false, rest),
    };
    let opaque = quoted.strip_prefix(b"\"").ok_or(())?;
    let end = opaque.iter().position(|b| *b == b'"').ok_or(())?;
    let (opaque, after) = opaque.split_at(end);
    if !opaque.iter().all(|b| matches!(b, 0x21 | 0x23..=0x7e | 0x80..)) {
        return Err(());
    }
    let after = after.strip_prefix(b"\"").ok_or(())?.trim_ascii_start();
    if !(after.is_empty() || after.starts_with(b",")) {
        return Err(());
    }
    Ok(Some((Tag { weak, uuid: uuid_of(opaque) }, after)))
}

/// The uuid of a tag that is written exactly as [`of`] writes it; tags are compared as bytes.
fn uuid_of(opaque: &[u8]) -> Option<Uuid> {
    let uuid = Uuid::try_parse_ascii(opaque).ok()?;
    let mut buffer = [0; 36];
    (uuid.hyphenated().encode_lower(&mut buffer).as_bytes() == opaque).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "\"00000000-0000-0000-0000-00000000000a\"";
    const B: &str = "\"00000000-0000-0000-0000-00000000000b\"";

    fn read(values: &[&str]) -> Result<Option<Tags>, Error> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_MATCH, value.parse().unwrap());
        }
        if_match(&headers)
    }

    fn these(uuids: &[u128]) -> Tags {
        Tags::These(uuids.iter().map(|u| Uuid::from_u128(*u)).collect())
    }

    #[test]
    fn lists_stars_and_weak_tags() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&["*"]).unwrap(), Some(Tags::Any));
        assert_eq!(read(&[A]).unwrap(), Some(these(&[10])));
        assert_eq!(read(&[&format!(" ,{A} ,, {B},")]).unwrap(), Some(these(&[10, 11])));
        assert_eq!(read(&[A, B]).unwrap(), Some(these(&[10, 11])));
        assert_eq!(read(&[&format!("W/{A}, {B}")]).unwrap(), Some(these(&[11])));
        assert_eq!(read(&["\"other\""]).unwrap(), Some(these(&[])));
        assert_eq!(read(&["\"a,b\", \"\""]).unwrap(), Some(these(&[])));
        assert_eq!(read(&[&A.to_uppercase()]).unwrap(), Some(these(&[])));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let bare = A.trim_matches('"');
        for bad in ["", ",", bare, "\"a", "w/\"a\"", "*, \"a\"", "\"a\" \"b\"", "\"a b\"", "'a'"] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
        assert!(read(&["*", A]).is_err());
    }

    #[test]
    fn a_weak_tag_counts_in_if_none_match() {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, format!("W/{A}").parse().unwrap());
        assert_eq!(if_none_match(&headers).unwrap(), Some(these(&[10])));
    }

    #[test]
    fn weak_tags_of_if_match_are_known_apart() {
        let mut headers = HeaderMap::new();
        assert!(weak_if_match(&headers).is_empty());
        headers.append(IF_MATCH, format!("{A}, W/{B}").parse().unwrap());
        headers.append(IF_MATCH, format!("W/\"x\", W/{A}").parse().unwrap());
        assert_eq!(weak_if_match(&headers), [11, 10].map(Uuid::from_u128));
    }

    #[test]
    fn a_tag_is_read_back() {
        assert_eq!(of(Uuid::from_u128(10)).to_str().unwrap(), A);
    }
}
