//! The request id that makes a request safe to send again: a uuid that the client chooses, in the
//! header `Idempotency-Key` or as the member `uuid` of a JSON body.

use axum::http::HeaderMap;
use uuid::Uuid;

use crate::http::answer::error::Error;

const HEADER: &str = "idempotency-key";

/// The uuid of the header, bare or in double quotes (as the IETF's draft writes it).
pub(crate) fn header(headers: &HeaderMap) -> Result<Option<Uuid>, Error> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::bad("Idempotency-Key is given twice; give it once"));
    }
    let text = value.to_str().unwrap_or_default();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let bad = || Error::bad("Idempotency-Key must be a UUID with hyphens, new for each request");
    parse(bare).map(Some).ok_or_else(bad)
}

/// The request id, which header and body may both give if they agree.
pub(crate) fn agreed(header: Option<Uuid>, member: Option<Uuid>) -> Result<Option<Uuid>, Error> {
    match (header, member) {
        (Some(header), Some(member)) if header != member => Err(Error::bad(
            "`uuid` and Idempotency-Key differ; give one of them, or the same uuid in both",
        )),
        _ => Ok(header.or(member)),
    }
}

/// Reads a uuid with its hyphens, in either case; `None` for any other form.
pub(crate) fn parse(text: &str) -> Option<Uuid> {
    // only the hyphenated form has 36 bytes
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: &str = "00000000-0000-0000-0000-00000000000a";

    fn read(values: &[&str]) -> Result<Option<Uuid>, Error> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().unwrap());
        }
        header(&headers)
    }

    #[test]
    fn a_request_id_is_one_uuid_bare_or_quoted() {
        let uuid = Some(Uuid::from_u128(10));
        assert_eq!(read(&[]).unwrap(), None);
        for good in [U.to_owned(), U.to_uppercase(), format!("\"{U}\"")] {
            assert_eq!(read(&[&good]).unwrap(), uuid, "{good}");
        }
        let compact = U.replace('-', "");
        for bad in ["", "\"\"", "\"", "x", &compact, &format!("\"{U}"), &format!("{U}\"")] {
            assert!(matches!(read(&[bad]), Err(Error::BadRequest(_))), "{bad}");
        }
        for bad in [format!("{{{U}}}"), format!("urn:uuid:{U}"), format!("\"{U}\";a=1")] {
            assert!(matches!(read(&[&bad]), Err(Error::BadRequest(_))), "{bad}");
        }
        assert!(matches!(read(&[U, U]), Err(Error::BadRequest(_))));
        assert!(matches!(read(&[&format!("{U}, {U}")]), Err(Error::BadRequest(_))));
    }

    #[test]
    fn header_and_body_give_one_request_id() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(agreed(None, None).unwrap(), None);
        assert_eq!(agreed(Some(a), None).unwrap(), Some(a));
        assert_eq!(agreed(None, Some(b)).unwrap(), Some(b));
        assert_eq!(agreed(Some(a), Some(a)).unwrap(), Some(a));
        assert!(matches!(agreed(Some(a), Some(b)), Err(Error::BadRequest(_))));
    }
}
