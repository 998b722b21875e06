//! A member of an answer that is always there and may be `null`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

/// `None` is written as `null`, where an [`Option`] that is skipped would leave the member out.
#[derive(Debug)]
pub(crate) struct Nullable<T>(pub(crate) Option<T>);

impl<T: Serialize> Serialize for Nullable<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<T: JsonSchema> JsonSchema for Nullable<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Option::<T>::schema_name()
    }

    fn json_schema(document: &mut SchemaGenerator) -> Schema {
        Option::<T>::json_schema(document)
    }
}
