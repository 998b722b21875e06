//! JSON schemas of texts and numbers whose Rust type says too little.
//!
//! Bodies derive their schema from the types that are read and written; where a member is a plain
//! `String`, `u64` or exact JSON text, the types here say what it holds.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::model::MemberState;

/// Adds a type's schema to a document and returns it, or a reference to it.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The [`SchemaOf`] of `T`, for tables.
pub(crate) fn schema_of<T: JsonSchema + ?Sized>(document: &mut SchemaGenerator) -> Schema {
    document.subschema_for::<T>()
}

/// Declares a type that only stands for a schema.
macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $schema:tt;)*) => {$(
        $(#[$doc])*
        pub(crate) enum $name {}

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schemas! {
    /// Microseconds since the Unix epoch, below 2^53.
    MicrosSchema = { "type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991_u64 };

    /// A moment in UTC with six decimals (RFC 3339).
    MomentSchema = { "type": "string", "format": "date-time" };

    /// Bytes in padded base64 (RFC 4648, section 4).
    Base64Schema = { "type": "string", "contentEncoding": "base64" };

    /// A key: 1 to 1,024 bytes.
    KeySchema = { "type": "string", "minLength": 1, "maxLength": 1024 };

    /// Any JSON value, `null` included.
    AnySchema = {};

    /// The constant `true`.
    TrueSchema = { "const": true };

    /// A time to live in the query.
    LifetimeTextSchema = {
        "type": "string",
        "pattern": "^(keep|[1-9][0-9]*(ms|s|m|h|d)?)$"
    };

    /// A time to live in a body: a text, or a number of seconds.
    LifetimeSchema = {
        "oneOf": [
            { "type": "string", "pattern": "^(keep|[1-9][0-9]*(ms|s|m|h|d)?)$" },
            { "type": "integer", "minimum": 1 }
        ]
    };

    /// The digest of all records of a store.
    FingerprintSchema = { "type": "string", "pattern": "^[0-9a-f]{64}$" };
}

/// A [`MemberState`] by its name.
pub(crate) enum MemberStateSchema {}

impl JsonSchema for MemberStateSchema {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "MemberState".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let states =
            [MemberState::Alive, MemberState::Suspect, MemberState::Down, MemberState::Left];
        // a state that is missing above must not compile here
        let name = |state| match state {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Down => "down",
            MemberState::Left => "left",
        };
        json_schema!({ "enum": states.map(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_members_are_named_as_they_are_serialized() {
        let states =
            [MemberState::Alive, MemberState::Suspect, MemberState::Down, MemberState::Left];
        let names = states.map(|state| serde_json::to_value(state).unwrap());
        let schema = schema_of::<MemberStateSchema>(&mut SchemaGenerator::default());
        assert_eq!(schema.get("enum"), Some(&serde_json::Value::from(names.to_vec())));
    }
}
