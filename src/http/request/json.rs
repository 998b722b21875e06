//! JSON bodies, strictly: objects with known members only, each member as its exact text.
//!
//! The type of an object is declared once, as a struct of [`JsonMember`]s that derives
//! `Deserialize` with `deny_unknown_fields`, and `JsonSchema`. A member that the struct lacks
//! cannot be read, so that the API description, which shows the schema, cannot differ from the
//! parser.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;

use super::unknown::unknown_field;
use crate::http::answer::error::Error;
use crate::model::json;

/// One member of an object as its exact text, `None` if the object does not have it; `null` is a
/// text like any other. `T` stands for the member's schema, nothing checks the text against it.
pub(crate) struct JsonMember<'a, T> {
    text: Option<&'a RawValue>,
    schema: PhantomData<fn() -> T>,
}

impl<'a, T> JsonMember<'a, T> {
    /// The exact text.
    pub(crate) fn text(&self) -> Option<&'a RawValue> {
        self.text
    }
}

impl<T> Default for JsonMember<'_, T> {
    fn default() -> Self {
        Self { text: None, schema: PhantomData }
    }
}

impl<'de: 'a, 'a, T> Deserialize<'de> for JsonMember<'a, T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(from)?;
        Ok(Self { text: Some(text), schema: PhantomData })
    }
}

impl<T: JsonSchema> JsonSchema for JsonMember<'_, T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(document: &mut SchemaGenerator) -> Schema {
        T::json_schema(document)
    }
}

/// Reads the body of a request as an object, after checking all of it for duplicate members and
/// depth.
///
/// # Errors
/// `bad_json`, `unknown_field`, or `bad_request` for JSON that is not an object.
pub(crate) fn body<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Error> {
    json::check(text).map_err(|e| Error::BadJson(e.to_string()))?;
    if !is_object(text) {
        return Err(Error::bad("the body must be a JSON object"));
    }
    serde_json::from_slice(text).map_err(|_| first_unknown::<T>(text))
}

/// The text of an object inside of a checked body.
#[derive(Clone, Copy)]
pub(crate) struct ObjectText<'a>(&'a RawValue);

/// Checks that a member is an object; `name` is for the text of the error.
///
/// # Errors
/// `bad_request` for anything else.
pub(crate) fn object<'a>(raw: &'a RawValue, name: &str) -> Result<ObjectText<'a>, Error> {
    if is_object(raw.get().as_bytes()) {
        Ok(ObjectText(raw))
    } else {
        Err(Error::bad(format!("`{name}` must be a JSON object")))
    }
}

impl<'a> ObjectText<'a> {
    /// Reads the members of the object.
    ///
    /// # Errors
    /// `unknown_field` for a member that `T` lacks.
    pub(crate) fn members<T: Deserialize<'a>>(self) -> Result<T, Error> {
        let refuse = |_| first_unknown::<T>(self.0.get().as_bytes());
        serde_json::from_str(self.0.get()).map_err(refuse)
    }
}

/// serde takes a list for a struct, too; the API does not.
fn is_object(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'{')
}

/// Why the object `text` is not a `T`: it has a member that `T` lacks. Reads the text a second
/// time, which only a refused request pays for.
fn first_unknown<'a, T: Deserialize<'a>>(text: &[u8]) -> Error {
    let known = members_of::<T>();
    let mut from = serde_json::Deserializer::from_slice(text);
    match from.deserialize_map(FirstUnknown(known)) {
        Ok(Some(name)) => unknown_field(&name, known.iter().copied()),
        Ok(None) | Err(_) => Error::bad("an object of the body cannot be read; correct it"),
    }
}

/// Finds the first member of an object that is not among these.
struct FirstUnknown(&'static [&'static str]);

impl<'de> Visitor<'de> for FirstUnknown {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut unknown = None;
        while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
            if unknown.is_none() && !self.0.contains(&name.as_str()) {
                unknown = Some(name);
            }
        }
        Ok(unknown)
    }
}

/// The names of the members of the struct `T`, as its `Deserialize` asks for them.
pub(crate) fn members_of<'a, T: Deserialize<'a>>() -> &'static [&'static str] {
    struct Names<'n>(&'n mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            names: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = names;
            Err(Self::Error::custom("only the names were wanted"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Names(&mut names));
    names
}

/// The entries of a list; `None` if there are more than `entries_max`.
pub(crate) fn list<'a>(
    raw: &'a RawValue,
    name: &str,
    entries_max: usize,
) -> Result<Option<Vec<&'a RawValue>>, Error> {
    struct ListEntries(usize);
    impl<'de> Visitor<'de> for ListEntries {
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
    from.deserialize_seq(ListEntries(entries_max))
        .map_err(|_| Error::bad(format!("`{name}` must be a list")))
}

/// The text of a string member.
pub(crate) fn text(raw: &RawValue, name: &str) -> Result<String, Error> {
    serde_json::from_str(raw.get()).map_err(|_| Error::bad(format!("`{name}` must be a string")))
}

/// Refuses a member that is not `true`.
pub(crate) fn only_true(raw: &RawValue, name: &str) -> Result<(), Error> {
    if raw.get() == "true" {
        return Ok(());
    }
    Err(Error::bad(format!("`{name}` can only be true; otherwise leave it out")))
}

/// The decoded bytes of a base64 member; `None` if there are more than `bytes_max`.
pub(crate) fn bytes(raw: &RawValue, name: &str, bytes_max: usize) -> Result<Option<Bytes>, Error> {
    let bad = || Error::bad(format!("`{name}` must be a string of padded base64 (RFC 4648)"));
    let owned;
    // base64 comes without escapes, so that its text is borrowed from the body
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

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Abc<'a> {
        #[serde(borrow = "'a", default)]
        a: JsonMember<'a, u8>,
        #[serde(borrow = "'a", default)]
        b: JsonMember<'a, u8>,
        #[serde(borrow = "'a", default)]
        c: JsonMember<'a, u8>,
    }

    fn unknown(text: &str) -> String {
        match body::<Abc<'_>>(text.as_bytes()).map(|_| ()) {
            Err(Error::UnknownField { name, .. }) => name,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn members_keep_their_text_and_null_is_not_absence() {
        let abc: Abc<'_> = body(br#" {"a": 1.00 ,"\u0062":null} "#).unwrap();
        assert_eq!(abc.a.text().unwrap().get(), "1.00");
        assert_eq!(abc.b.text().unwrap().get(), "null");
        assert!(abc.c.text().is_none());
        assert_eq!(unknown(r#"{"a":1,"d":{"x" :1}}"#), "d");
        assert_eq!(members_of::<Abc<'_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn only_an_object_of_acceptable_json_is_a_body() {
        for bad in [&b"[]"[..], b"[1,2,3]", b"1", b"null", b"\"x\""] {
            assert!(matches!(body::<Abc<'_>>(bad), Err(Error::BadRequest(_))));
        }
        for bad in [&b""[..], b"{", br#"{"a":1,"a":2}"#, br#"{"a":{"b":1,"b":1}}"#, b"{\"a\":\xff}"]
        {
            assert!(matches!(body::<Abc<'_>>(bad), Err(Error::BadJson(_))));
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(129), "]".repeat(129));
        assert!(matches!(body::<Abc<'_>>(deep.as_bytes()), Err(Error::BadJson(_))));
    }

    #[test]
    fn the_first_of_very_many_unknown_members_is_named() {
        let members: Vec<_> = (0..100).map(|n| format!("\"x{n}\":1,")).collect();
        assert_eq!(unknown(&format!(r#"{{{}"a":1,"b":2,"c":3}}"#, members.concat())), "x0");
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
