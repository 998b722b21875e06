//! Keys and prefixes from raw paths: decoded once, strictly, without any normalisation.

use std::borrow::Cow;

use uuid::Uuid;

use crate::http::answer::error::Error;
use crate::model::{Key, KeyError, Prefix};

/// The key that follows `base` in `path`.
pub(crate) fn key(path: &str, base: &str) -> Result<Key, Error> {
    Ok(Key::parse(&decode(rest(path, base))?)?)
}

/// The prefix that follows `base` in `path`; `base` alone covers everything.
pub(crate) fn prefix(path: &str, base: &str) -> Result<Prefix, Error> {
    Ok(Prefix::parse(&decode(rest(path, base))?)?)
}

/// The id that follows `base` in `path`.
pub(crate) fn uuid(path: &str, base: &str) -> Result<Uuid, Error> {
    let text = decode(rest(path, base))?;
    Uuid::try_parse(&text).map_err(|_| {
        Error::bad("the path must end with the id of a member, as `kvs members -o wide` shows it")
    })
}

fn rest<'a>(path: &'a str, base: &str) -> &'a str {
    let rest = path.strip_prefix(base).unwrap_or_default();
    rest.strip_prefix('/').unwrap_or(rest)
}

fn decode(raw: &str) -> Result<Cow<'_, str>, KeyError> {
    unescape(raw, false).map_err(|e| match e {
        Unescape::Escape => KeyError::BadEscape,
        Unescape::Utf8 => KeyError::NotUtf8,
    })
}

/// Why a text cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unescape {
    /// A `%` without two hex digits.
    Escape,
    /// The decoded bytes are not UTF-8.
    Utf8,
}

/// Resolves percent escapes once. With `plus`, `+` becomes a space, as in queries.
pub(crate) fn unescape(raw: &str, plus: bool) -> Result<Cow<'_, str>, Unescape> {
    if !raw.bytes().any(|b| b == b'%' || (plus && b == b'+')) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                high.zip(low).map(|(high, low)| high << 4 | low).ok_or(Unescape::Escape)?
            }
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Unescape::Utf8)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<String, KeyError> {
        key(path, "/kv").map(|k| k.to_string()).map_err(|e| match e {
            Error::Key(e) => e,
            e => panic!("{e:?}"),
        })
    }

    #[test]
    fn paths_are_decoded_once_and_strictly() {
        for (path, key) in [
            ("/kv/a", "a"),
            ("/kv/a%2Fb/c", "a/b/c"),
            ("/kv/a+b", "a+b"),
            ("/kv/%252F", "%2F"),
            ("/kv/%C3%bc", "ü"),
            ("/kv/ü", "ü"),
            ("/kv/kv/x", "kv/x"),
        ] {
            assert_eq!(read(path).as_deref(), Ok(key), "{path}");
        }
        for (path, error) in [
            ("/kv", KeyError::Empty),
            ("/kv/", KeyError::Empty),
            ("/kv//a", KeyError::EmptySegment),
            ("/kv/a/", KeyError::EmptySegment),
            ("/kv/a%2F", KeyError::EmptySegment),
            ("/kv/%2e%2E/a", KeyError::DotSegment("..")),
            ("/kv/%", KeyError::BadEscape),
            ("/kv/%2", KeyError::BadEscape),
            ("/kv/%+1", KeyError::BadEscape),
            ("/kv/%ff", KeyError::NotUtf8),
            ("/kv/%00", KeyError::Nul),
        ] {
            assert_eq!(read(path), Err(error), "{path}");
        }
        let long = |n| format!("/kv/{}", "%61".repeat(n));
        assert!(read(&long(1024)).is_ok());
        assert_eq!(read(&long(1025)), Err(KeyError::TooLong { bytes: 1025 }));
    }

    #[test]
    fn a_prefix_may_be_empty_or_end_with_a_slash() {
        for (path, covered) in [("/scan", ""), ("/scan/", ""), ("/scan/a%2Fb/", "a/b")] {
            assert_eq!(prefix(path, "/scan").unwrap().as_str(), covered);
        }
        assert!(prefix("/scan//", "/scan").is_err());
    }
}
