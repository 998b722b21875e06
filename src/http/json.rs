//! JSON bodies, strictly: one object, every member known, each value kept as its exact text.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::Error;
use crate::model::{json, shown};

/// More members than any object of the API has: further ones take no memory, as one of those that
/// are kept must then be unknown.
const MEMBERS_MAX: usize = 16;

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
            Some((name, _)) => Err(Error::UnknownField(shown(&name))),
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
                while members.len() < MEMBERS_MAX {
                    let Some(member) = map.next_entry()? else { return Ok(members) };
                    members.push(member);
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(members)
            }
        }
        from.deserialize_map(Object).map(Self)
    }
}

/// The entries of a list, at most `entries_max` of them (`None`: more).
pub(super) fn list<'a>(
    raw: &'a RawValue,
    name: &str,
    entries_max: usize,
) -> Result<Option<Vec<&'a RawValue>>, Error> {
    struct List(usize);
    impl<'de> Visitor<'de> for List {
        type Value = Option<Vec<&'de RawValue>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = list.next_element()? {
                if entries.len() == self.0 {
                    while list.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(None);
                }
                entries.push(entry);
            }
            Ok(Some(entries))
        }
    }
    let mut from = serde_json::Deserializer::from_str(raw.get());
    from.deserialize_seq(List(entries_max))
        .map_err(|_| Error::bad(format!("`{name}` must be a list")))
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
    fn of_very_many_members_one_is_known_to_be_unknown() {
        let known = ["a", "b", "c"];
        let unknown: Vec<_> = (0..100).map(|n| format!("\"x{n}\":1,")).collect();
        let text = format!(r#"{{{}"a":1,"b":2,"c":3}}"#, unknown.concat());
        let mut members = Members::of_body(text.as_bytes()).unwrap();
        assert_eq!(members.0.len(), MEMBERS_MAX);
        for name in known {
            members.take(name);
        }
        assert!(matches!(members.finish(), Err(Error::UnknownField(_))));
    }

    #[test]
    fn a_list_has_its_entries_as_text_and_an_end() {
        let read = |text: &str, max| {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            let entries = list(raw, "l", max)?;
            let texts = |entries: Vec<&RawValue>| -> Vec<_> {
                entries.into_iter().map(|entry| entry.get().to_owned()).collect()
            };
            Ok::<_, Error>(entries.map(texts))
        };
        assert_eq!(read("[]", 0).unwrap().unwrap(), Vec::<String>::new());
        assert_eq!(
            read(r#"[ 1.0 ,{"a" :[]},null]"#, 3).unwrap().unwrap(),
            ["1.0", r#"{"a" :[]}"#, "null"]
        );
        assert!(read("[1,2,3,4]", 3).unwrap().is_none());
        assert!(read("[1]", 0).unwrap().is_none());
        for bad in ["{}", "null", "1", "\"\""] {
            assert!(matches!(read(bad, 9), Err(Error::BadRequest(_))), "{bad}");
        }
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
