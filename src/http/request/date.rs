//! The conditional headers with dates (RFC 9110, sections 13.1.3 and 13.1.4).
//!
//! A date has a resolution of one second, so that it says less than an entity tag. A field that is
//! no date, or is given twice, does not count, as the standard demands.

use std::time::UNIX_EPOCH;

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE};

use crate::model::Timestamp;

/// The date of `If-Modified-Since`, in seconds since the epoch.
pub(crate) fn if_modified_since(headers: &HeaderMap) -> Option<u64> {
    read(headers, &IF_MODIFIED_SINCE)
}

/// The date of `If-Unmodified-Since`, in seconds since the epoch.
pub(crate) fn if_unmodified_since(headers: &HeaderMap) -> Option<u64> {
    read(headers, &IF_UNMODIFIED_SINCE)
}

/// The date of a version, as `Last-Modified` shows it: in seconds since the epoch.
pub(crate) fn second(at: Timestamp) -> u64 {
    at.micros() / 1_000_000
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut given = headers.get_all(name).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let date = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    // one before the epoch is before every version
    Some(date.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(values: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_MODIFIED_SINCE, value.parse().unwrap());
        }
        assert_eq!(if_unmodified_since(&headers), None);
        if_modified_since(&headers)
    }

    #[test]
    fn a_date_has_three_forms_and_anything_else_does_not_count() {
        for form in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(given(&[form]), Some(784_111_777), "{form}");
        }
        for bad in ["", "now", "1994-11-06T08:49:37Z", "784111777", "Sun, 06 Nov 1994"] {
            assert_eq!(given(&[bad]), None, "{bad}");
        }
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(given(&[date, date]), None);
        assert_eq!(given(&[]), None);
        assert_eq!(second(Timestamp::saturating(784_111_777_999_999)), 784_111_777);
    }
}
