//! Keys and prefixes: UTF-8 paths of whole segments.
//!
//! A [`Key`] in hand is a valid key: the constructor checks every rule of the contract. Keys order
//! by their bytes, and a prefix is one contiguous range of that order.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;

/// A valid key: 1 to 1,024 bytes of UTF-8, segments separated by `/`, none of them empty, `.` or
/// `..`, and no NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

/// The rule of keys that a text breaks. The messages are for API clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is empty.
    #[error("the key is empty; give at least one segment, as in `app/name`")]
    Empty,
    /// The text is longer than [`KEY_BYTES_MAX`].
    #[error("the key has {bytes} bytes; at most {KEY_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The text starts or ends with `/`, or holds `//`.
    #[error("the key has an empty segment; remove the leading, trailing or doubled `/`")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("the key has the segment `{0}`, which is not allowed; choose another name")]
    DotSegment(&'static str),
    /// The text holds a NUL.
    #[error("the key holds a NUL byte, which is not allowed")]
    Nul,
    /// The bytes, after percent-decoding, are not UTF-8.
    #[error("the key is not valid UTF-8")]
    NotUtf8,
    /// A `%` is not followed by two hex digits.
    #[error("the key has a bad percent escape; write a literal `%` as `%25`")]
    BadEscape,
}

fn check(text: &str) -> Result<(), KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if text.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong { bytes: text.len() });
    }
    if text.contains('\0') {
        return Err(KeyError::Nul);
    }
    for segment in text.split('/') {
        match segment {
            "" => return Err(KeyError::EmptySegment),
            "." => return Err(KeyError::DotSegment(".")),
            ".." => return Err(KeyError::DotSegment("..")),
            _ => {}
        }
    }
    Ok(())
}

impl Key {
    /// The key that `text` names.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        check(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// The key with these bytes, as a disk or a peer has them.
    ///
    /// # Errors
    /// [`KeyError::NotUtf8`], or the first rule that the bytes break.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| KeyError::NotUtf8)?)
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as bytes; keys order by them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::parse(&text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.as_str().to_owned()
    }
}

/// Zero or more whole segments. `app` covers `app/x`, but neither `app` nor `apple/x`; the empty
/// prefix covers every key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// The prefix that `text` names. One trailing `/` is allowed and ignored.
    ///
    /// # Errors
    /// The first rule of a key that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self(Arc::from("")));
        }
        check(bare).map_err(|e| if e == KeyError::Empty { KeyError::EmptySegment } else { e })?;
        Ok(Self(Arc::from(bare)))
    }

    /// The empty prefix, which covers every key.
    #[must_use]
    pub fn all() -> Self {
        Self(Arc::from(""))
    }

    /// The prefix as text, without a trailing `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this prefix covers `key`.
    #[must_use]
    pub fn covers(&self, key: &Key) -> bool {
        let bytes = key.as_bytes();
        bytes >= self.first().as_slice() && self.end().is_none_or(|end| bytes < end.as_slice())
    }

    /// The start of the range of covered keys, inclusive.
    #[must_use]
    pub fn first(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut bytes = self.0.as_bytes().to_vec();
        bytes.push(b'/');
        bytes
    }

    /// The end of the range of covered keys, exclusive; `None` for the end of all keys.
    #[must_use]
    pub fn end(&self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let mut bytes = self.0.as_bytes().to_vec();
        bytes.push(b'/' + 1);
        Some(bytes)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rules_of_a_key_hold() {
        for good in ["a", "a/b", "a b/ü", "...", "a/.b", "%2F", &"k".repeat(1024)] {
            assert!(Key::parse(good).is_ok(), "{good}");
        }
        let bad = [
            ("", KeyError::Empty),
            ("/a", KeyError::EmptySegment),
            ("a/", KeyError::EmptySegment),
            ("a//b", KeyError::EmptySegment),
            (".", KeyError::DotSegment(".")),
            ("a/../b", KeyError::DotSegment("..")),
            ("a\0", KeyError::Nul),
            (&"k".repeat(1025), KeyError::TooLong { bytes: 1025 }),
        ];
        for (text, error) in bad {
            assert_eq!(Key::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Key::from_bytes(&[0xff]), Err(KeyError::NotUtf8));
    }

    #[test]
    fn a_prefix_covers_whole_segments_only() {
        let covers = |p: &str, k: &str| {
            Prefix::parse(p).is_ok_and(|p| Key::parse(k).is_ok_and(|k| p.covers(&k)))
        };
        assert!(covers("app", "app/x") && covers("app/", "app/x/y") && covers("", "app"));
        assert!(!covers("app", "app") && !covers("app", "apple/x") && !covers("app", "app.x"));
        assert!(Prefix::parse("/").is_err() && Prefix::parse("a//").is_err());
    }

    proptest! {
        #[test]
        fn a_prefix_covers_the_keys_that_start_with_it_and_a_slash(
            p in "[a-c.]{1,3}(/[a-c]{1,2}){0,2}", k in "[a-c./0]{1,8}"
        ) {
            if let (Ok(prefix), Ok(key)) = (Prefix::parse(&p), Key::parse(&k)) {
                prop_assert_eq!(prefix.covers(&key), k.starts_with(&format!("{p}/")));
            }
        }
    }
}
