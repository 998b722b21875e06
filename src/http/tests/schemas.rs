//! Holds JSON against a schema, as far as the schemas of the API go.
//!
//! Stricter than JSON Schema asks for: a member that the schema does not name is a problem.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::http::answer::schema::SchemaOf;

/// Keywords that say nothing about the form, or more than is worth checking here.
const IGNORED: [&str; 9] = [
    "$schema",
    "title",
    "description",
    "format",
    "pattern",
    "contentEncoding",
    "minLength",
    "maxLength",
    "additionalProperties",
];

/// One schema, and the definitions that it refers to.
pub(crate) struct Schemas {
    schema: Value,
    definitions: Map<String, Value>,
}

impl Schemas {
    pub(crate) fn new(settings: SchemaSettings, schema: SchemaOf) -> Self {
        let mut document = settings.into_generator();
        let schema = schema(&mut document).to_value();
        Self { schema, definitions: document.take_definitions(true) }
    }

    /// The first place where `value` does not have the schema.
    pub(crate) fn problem(&self, value: &Value) -> Option<String> {
        self.check(&self.schema, value).map(|problem| format!("{problem}: {value}"))
    }

    fn check(&self, schema: &Value, value: &Value) -> Option<String> {
        let Value::Object(schema) = schema else {
            return (*schema != Value::Bool(true)).then(|| "nothing is allowed".to_owned());
        };
        schema.iter().find_map(|(keyword, rule)| {
            self.check_keyword(schema, keyword, rule, value)
                .map(|problem| format!("{keyword}: {problem}"))
        })
    }

    fn check_keyword(
        &self,
        schema: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
    ) -> Option<String> {
        let all = |fits: bool| (!fits).then(|| format!("{value} is not {rule}"));
        let members = value.as_object();
        let number = |rule: &Value, fits: fn(f64, f64) -> bool| {
            value.as_f64().zip(rule.as_f64()).is_none_or(|(value, rule)| fits(value, rule))
        };
        match keyword {
            "$ref" => {
                let name = rule.as_str()?.strip_prefix("#/$defs/").expect("a definition");
                self.check(&self.definitions[name], value)
            }
            "type" => all(match rule {
                Value::Array(types) => types.iter().any(|rule| has_type(rule, value)),
                rule => has_type(rule, value),
            }),
            "enum" => all(rule.as_array().expect("a list").contains(value)),
            "const" => all(rule == value),
            "minimum" => all(number(rule, |value, rule| value >= rule)),
            "maximum" => all(number(rule, |value, rule| value <= rule)),
            "minProperties" => {
                all(members.is_none_or(|m| m.len() as u64 >= rule.as_u64().unwrap()))
            }
            "maxProperties" => {
                all(members.is_none_or(|m| m.len() as u64 <= rule.as_u64().unwrap()))
            }
            "anyOf" => all(self.fitting(rule, value) > 0),
            "oneOf" => all(self.fitting(rule, value) == 1),
            "items" => value.as_array()?.iter().find_map(|item| self.check(rule, item)),
            "required" => {
                let known = schema.get("properties");
                let unknown = |name: &str| known.is_some_and(|known| known.get(name).is_none());
                let names = rule.as_array().expect("names").iter().filter_map(Value::as_str);
                let gone = |name: &&str| unknown(name) || value.get(name).is_none();
                names.into_iter().find(gone).map(str::to_owned)
            }
            "dependentRequired" => {
                let rules = rule.as_object().expect("names").iter();
                let given = rules.filter(|(name, _)| value.get(name).is_some());
                let mut needed = given.flat_map(|(_, names)| names.as_array().expect("names"));
                let gone = needed.find(|name| value.get(name.as_str().expect("a name")).is_none());
                gone.map(|name| format!("{name} is missing"))
            }
            "not" => all(self.check(rule, value).is_some()),
            "properties" => members?.iter().find_map(|(name, member)| match rule.get(name) {
                Some(rule) => self.check(rule, member).map(|problem| format!("{name}: {problem}")),
                None => Some(format!("{name} is not described")),
            }),
            ignored => {
                assert!(IGNORED.contains(&ignored), "the keyword `{ignored}` is not checked");
                None
            }
        }
    }

    fn fitting(&self, schemas: &Value, value: &Value) -> usize {
        let schemas = schemas.as_array().expect("a list").iter();
        schemas.filter(|schema| self.check(schema, value).is_none()).count()
    }
}

fn has_type(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a name") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        name => panic!("no type `{name}`"),
    }
}
