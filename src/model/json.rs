//! JSON as the contract wants it: no duplicate members, bounded depth, exact equality.
//!
//! Parsing is `serde_json`'s; what is added here is the refusal of duplicate members, which it
//! would silently merge, and an equality that compares numbers by their exact decimal value instead
//! of by a rounded float, because a compare-and-swap rests on it.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Checks that `bytes` are one JSON text without duplicate members, nested at most 128 deep.
///
/// # Errors
/// What is wrong and where.
pub fn check(bytes: &[u8]) -> Result<(), serde_json::Error> {
    let mut from = serde_json::Deserializer::from_slice(bytes);
    Strict.deserialize(&mut from)?;
    from.end()
}

/// Walks a JSON text and keeps nothing but the member names of the objects that are open.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Strict)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("duplicate member `{name}`")));
            }
            names.insert(name);
            members.next_value_seed(Strict)?;
        }
        Ok(())
    }
}

/// Whether two JSON values are equal: objects whatever the order of their members, numbers by their
/// exact value (`1`, `1.0` and `1e0` are equal, two integers that round to one float are not).
#[must_use]
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            Decimal::parse(a.as_str()) == Decimal::parse(b.as_str())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// A JSON number in normal form: digits without leading or trailing zeros, times ten to a power.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i128,
}

impl Decimal {
    fn parse(text: &str) -> Self {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let kept = all.trim_end_matches('0');
        let digits = kept.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Self { negative: false, digits, exponent: 0 };
        }
        let dropped = (all.len() - kept.len()) as i128 - fraction.len() as i128;
        Self { negative, digits, exponent: exponent.saturating_add(dropped) }
    }
}

/// An exponent of any length; beyond what 96 bits hold, its sign is all that still tells numbers
/// apart, and the text of such a number is far longer than any value in use.
fn parse_exponent(text: &str) -> i128 {
    let bound = 1_i128 << 96;
    match text.strip_prefix('+').unwrap_or(text).parse::<i128>() {
        Ok(exponent) => exponent.clamp(-bound, bound),
        Err(_) if text.starts_with('-') => -bound,
        Err(_) => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal_texts(a: &str, b: &str) -> bool {
        let parse = |text| serde_json::from_str::<Value>(text).expect(text);
        equal(&parse(a), &parse(b))
    }

    #[test]
    fn numbers_are_compared_exactly() {
        for (a, b) in
            [("1", "1.0"), ("1e2", "100"), ("-0", "0"), ("0.10", "1E-1"), ("12e-1", "1.2")]
        {
            assert!(equal_texts(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("9007199254740993", "9007199254740992"),
            ("18446744073709551617", "18446744073709551616"),
            ("0.1", "0.10000000000000001"),
            ("1", "-1"),
            ("1", "\"1\""),
        ] {
            assert!(!equal_texts(a, b), "{a} {b}");
        }
    }

    #[test]
    fn objects_are_compared_without_order_and_arrays_with_it() {
        assert!(equal_texts(r#"{"a":1,"b":[2]}"#, r#"{"b":[2.0],"a":1}"#));
        assert!(!equal_texts(r#"{"a":1}"#, r#"{"a":1,"b":null}"#));
        assert!(!equal_texts("[1,2]", "[2,1]"));
    }

    #[test]
    fn duplicates_depth_and_rubbish_are_refused() {
        assert!(check(br#"{"a":{"b":1},"c":{"b":2}}"#).is_ok());
        assert!(check(b"18446744073709551617").is_ok());
        let duplicate = check(br#"{"x":[{"b":1,"b":2}]}"#).expect_err("a duplicate");
        assert!(duplicate.to_string().contains("duplicate member `b`"), "{duplicate}");
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(check(nested(120).as_bytes()).is_ok() && check(nested(129).as_bytes()).is_err());
        for bad in ["", "{", "1 2", "nan", "{\"a\":1,}"] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
