//! JSON bodies, strictly: one object, every member known, each value kept as its exact text.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::Error;
use crate::model::json;

/// The members of one JSON object, taken one by one; what is left at the end is unknown.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads the body of a request: checked for duplicates and depth at every level.
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, Error> {
        json::check(body).map_err(|e| Error::BadJson(e.to_string()))?;
        serde_json::from_slice(body).map_err(|_| Error::bad("the body must be a JSON object"))
    }

    /// Reads an object inside a checked body; `name` is for the message.
    pub(super) fn of(raw: &'a RawValue, name: &str) -> Result<Self, Error> {
        serde_json::from_str(raw.get())
            .map_err(|_| Error::bad(format!("`{name}` must be a JSON object")))
    }

    /// Takes one member out; a `null` is a value like any other.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(Error::UnknownField(name)),
            None => Ok(()),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        from.deserialize_map(Object).map(Self)
    }
}

/// The text of a string member.
pub(super) fn text(raw: &RawValue, name: &str) -> Result<String, Error> {
    serde_json::from_str(raw.get()).map_err(|_| Error::bad(format!("`{name}` must be a string")))
}

/// A member whose only legal value is `true`.
pub(super) fn only_true(raw: &RawValue, name: &str) -> Result<(), Error> {
    if raw.get() == "true" {
        return Ok(());
    }
    Err(Error::bad(format!("`{name}` can only be true; otherwise leave it out")))
}

/// The bytes of a base64 member, at most `bytes_max` (`None`: more).
pub(super) fn bytes(raw: &RawValue, name: &str, bytes_max: usize) -> Result<Option<Bytes>, Error> {
    let bad = || Error::bad(format!("`{name}` must be a string of padded base64 (RFC 4648)"));
    let owned;
    // without escapes, as base64 comes, the text is borrowed from the body
    let text = if let Ok(text) = serde_json::from_str::<&str>(raw.get()) {
        text
    } else {
        owned = serde_json::from_str::<String>(raw.get()).map_err(|_| bad())?;
        &owned
    };
    if text.len() / 4 > bytes_max.div_ceil(3) {
        return Ok(None);
    }
    let bytes = STANDARD.decode(text).map_err(|_| bad())?;
    Ok((bytes.len() <= bytes_max).then(|| Bytes::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_text_and_null_is_one_of_them() {
        let mut members = Members::of_body(br#" {"a": 1.00 ,"b":null,"c":{"x" :1}} "#).unwrap();
        assert_eq!(members.take("a").unwrap().get(), "1.00");
        assert_eq!(members.take("b").unwrap().get(), "null");
        assert!(members.take("b").is_none());
        assert!(matches!(members.finish(), Err(Error::UnknownField(n)) if n == "c"));
    }

    #[test]
    fn what_is_no_object_or_no_json_is_refused() {
        for bad in [&b"[]"[..], b"1", b"null", b"\"x\""] {
            assert!(matches!(Members::of_body(bad), Err(Error::BadRequest(_))));
        }
        for bad in [&b""[..], b"{", br#"{"a":1,"a":2}"#, br#"{"a":{"b":1,"b":1}}"#, b"{\"a\":\xff}"]
        {
            assert!(matches!(Members::of_body(bad), Err(Error::BadJson(_))));
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(129), "]".repeat(129));
        assert!(matches!(Members::of_body(deep.as_bytes()), Err(Error::BadJson(_))));
    }

    #[test]
    fn base64_is_padded_canonical_and_bounded() {
        let read = |text: &str, max| {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            bytes(raw, "b", max)
        };
        assert_eq!(read(r#""aGk=""#, 2).unwrap().unwrap(), "hi");
        assert_eq!(read(r#""aGk\u003d""#, 2).unwrap().unwrap(), "hi");
        assert_eq!(read(r#""""#, 0).unwrap().unwrap(), "");
        assert!(read(r#""aGk=""#, 1).unwrap().is_none());
        assert!(read(r#""aGkhaGkhaGkh""#, 2).unwrap().is_none());
        for bad in [r#""aGk""#, r#""aGl=""#, r#""a-_=""#, r#""aG k=""#, "1", "null"] {
            assert!(read(bad, 9).is_err(), "{bad}");
        }
    }
}
