//! Header fields of writes: which are refused, and the content type of a value.

use axum::http::HeaderMap;
use axum::http::header::{
    CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};

use crate::http::answer::error::Error;
use crate::model::ContentType;

/// Refuses header fields that would change the meaning of a write and are not supported.
pub(crate) fn check_supported(headers: &HeaderMap) -> Result<(), Error> {
    // a date cannot tell two versions of one second apart; beside If-Match it does not count
    // (RFC 9110, section 13.1.4)
    if headers.contains_key(IF_UNMODIFIED_SINCE) && !headers.contains_key(IF_MATCH) {
        return Err(Error::bad(
            "If-Unmodified-Since is not supported for writes, as a date cannot tell two versions \
             of one second apart; send the ETag in If-Match",
        ));
    }
    // a part that was stored as the whole would destroy the rest (RFC 9110, section 14.5)
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Error::bad("Content-Range is not supported; send the whole value"));
    }
    Ok(())
}

/// Refuses conditional header fields where the body has the member `instead` for conditions.
pub(crate) fn check_unconditional(headers: &HeaderMap, instead: &str) -> Result<(), Error> {
    for (header, name) in [(IF_MATCH, "If-Match"), (IF_NONE_MATCH, "If-None-Match")] {
        if headers.contains_key(header) {
            return Err(Error::bad(format!("{name} is not for this path; use `{instead}`")));
        }
    }
    Ok(())
}

/// Refuses an encoded body.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Error> {
    let identity = |value: &[u8]| {
        value.split(|b| *b == b',').all(|c| c.trim_ascii().eq_ignore_ascii_case(b"identity"))
    };
    if headers.get_all(CONTENT_ENCODING).iter().all(|value| identity(value.as_bytes())) {
        Ok(())
    } else {
        Err(Error::UnsupportedMedia)
    }
}

/// The `Content-Type` of a value; `application/octet-stream` without one.
pub(crate) fn content_type(headers: &HeaderMap) -> Result<ContentType, Error> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(ContentType::octet_stream()) };
    if values.next().is_some() {
        return Err(Error::bad("Content-Type is given twice; give it once"));
    }
    parse_content_type(value.to_str().unwrap_or_default())
}

/// Reads a content type: as the model allows, and `type/subtype` (RFC 9110, section 8.3.1).
pub(crate) fn parse_content_type(text: &str) -> Result<ContentType, Error> {
    let token = |text: &str| {
        let symbol = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !text.is_empty() && text.bytes().all(symbol)
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let formed = essence.split_once('/').is_some_and(|(a, b)| token(a) && token(b));
    match ContentType::parse(text) {
        Ok(content_type) if formed => Ok(content_type),
        Ok(_) => Err(Error::bad("a content type must have the form `type/subtype`")),
        Err(error) => Err(Error::bad(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_have_a_type_and_a_subtype() {
        for good in ["text/plain", "text/plain; charset=utf-8", "application/problem+json"] {
            assert!(parse_content_type(good).is_ok(), "{good}");
        }
        for bad in ["", "text", "/", "text/", "te xt/plain", "text/plain/x", " text/plain"] {
            assert!(parse_content_type(bad).is_err(), "{bad}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(content_type(&headers).unwrap().as_str(), "application/octet-stream");
        headers.append(CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(content_type(&headers).unwrap().as_str(), "text/plain");
        headers.append(CONTENT_TYPE, "text/html".parse().unwrap());
        assert!(content_type(&headers).is_err());
    }

    #[test]
    fn only_identity_is_an_encoding() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, value.parse().unwrap());
            check_encoding(&headers).is_ok()
        };
        assert!(check_encoding(&HeaderMap::new()).is_ok());
        assert!(check("identity") && check("Identity, identity"));
        assert!(!check("gzip") && !check("identity, br") && !check(""));
    }
}
