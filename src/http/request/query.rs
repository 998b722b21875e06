//! Queries, read strictly: no parameter twice, none that the operation does not declare.
//!
//! An operation declares its parameters as [`Param`] constants in its table. [`Query`] takes that
//! table, and refuses to read a parameter that is missing there: a handler cannot accept what the
//! description of the API lacks.

use std::borrow::Cow;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::path::{Unescape, unescape};
use super::unknown::unknown_field;
use crate::http::answer::envelope::ContentForm;
use crate::http::answer::error::Error;
use crate::http::answer::schema::SchemaOf;

/// The greatest `limit` of every operation that has one.
pub(crate) const LIMIT_MAX: usize = 1000;

/// How many items an answer holds.
pub(crate) const LIMIT: Param<usize> = Param {
    name: "limit",
    doc: "The most items in the answer.",
    schema: |_| json_schema!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX }),
    read: limit,
};

/// How content is shown.
pub(crate) const EXACT: Param<ContentForm> = Param {
    name: "exact",
    doc: "`true` shows a value as `data` only where that gives the same bytes back, also in a \
          refusal, and otherwise as `data_base64`.",
    schema: |_| json_schema!({ "const": "true" }),
    read: |text| match text {
        "true" => Ok(ContentForm::Exact),
        _ => Err(Error::bad("`exact` can only be true; otherwise leave it out")),
    },
};

/// A query parameter: its name, its meaning, and how its text becomes a `T`.
pub(crate) struct Param<T> {
    /// The name in the query.
    pub(crate) name: &'static str,
    /// What it does, in one sentence.
    pub(crate) doc: &'static str,
    /// The schema of its text.
    pub(crate) schema: SchemaOf,
    /// Reads the decoded text.
    pub(crate) read: fn(&str) -> Result<T, Error>,
}

/// A [`Param`] of any type, for tables.
#[cfg_attr(not(test), expect(dead_code, reason = "read by tests until /openapi.json is served"))]
pub(crate) trait Parameter: Sync {
    fn name(&self) -> &'static str;
    fn doc(&self) -> &'static str;
    fn schema(&self, document: &mut SchemaGenerator) -> Schema;
}

impl<T> Parameter for Param<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn schema(&self, document: &mut SchemaGenerator) -> Schema {
        (self.schema)(document)
    }
}

/// The parameters that an operation declares.
pub(crate) type Parameters = &'static [&'static dyn Parameter];

/// The parameters of one request. [`Self::take`] each of them, then [`Self::finish`].
pub(crate) struct Query<'a> {
    declared: Parameters,
    given: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Reads what follows the `?`, for an operation with the parameters `declared`.
    ///
    /// # Errors
    /// `bad_request` for a bad escape or a parameter that is given twice.
    pub(crate) fn parse(declared: Parameters, query: Option<&'a str>) -> Result<Self, Error> {
        let mut given: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if given.iter().any(|(other, _)| *other == name) {
                return Err(Error::bad(format!("the query has `{name}` twice; give it once")));
            }
            given.push((name, value));
        }
        Ok(Self { declared, given })
    }

    /// Takes a parameter out; `None` if the request does not have it.
    ///
    /// # Errors
    /// The error of [`Param::read`]; `internal` if the operation does not declare the parameter.
    pub(crate) fn take<T>(&mut self, param: &Param<T>) -> Result<Option<T>, Error> {
        if !self.declared.iter().any(|known| known.name() == param.name) {
            let bug = format!("the operation does not declare the parameter `{}`", param.name);
            return Err(Error::internal(bug));
        }
        let Some(at) = self.given.iter().position(|(name, _)| name == param.name) else {
            return Ok(None);
        };
        let (_, text) = self.given.swap_remove(at);
        (param.read)(&text).map(Some)
    }

    /// Refuses parameters that were not taken.
    ///
    /// # Errors
    /// `unknown_field`, with the nearest declared name.
    pub(crate) fn finish(self) -> Result<(), Error> {
        match self.given.first() {
            Some((name, _)) => {
                Err(unknown_field(name, self.declared.iter().map(|param| param.name())))
            }
            None => Ok(()),
        }
    }
}

fn limit(text: &str) -> Result<usize, Error> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|limit| digits && (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| Error::bad(format!("`limit` must be a whole number from 1 to {LIMIT_MAX}")))
}

fn decode(raw: &str) -> Result<Cow<'_, str>, Error> {
    unescape(raw, true).map_err(|e| {
        Error::bad(match e {
            Unescape::Escape => "the query has a bad percent escape; write a literal `%` as `%25`",
            Unescape::Utf8 => "the query is not UTF-8; correct its percent escapes",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Param<String> = text("a");
    const B: Param<String> = text("b");
    const C: Param<String> = text("c");

    const fn text(name: &'static str) -> Param<String> {
        Param { name, doc: "", schema: |_| json_schema!({}), read: |text| Ok(text.to_owned()) }
    }

    #[test]
    fn parameters_are_decoded_and_taken_once() {
        let mut query = Query::parse(&[&A, &B, &C], Some("a=1+2%2B&b&&c=x=y")).unwrap();
        assert_eq!(query.take(&A).unwrap().as_deref(), Some("1 2+"));
        assert_eq!(query.take(&A).unwrap(), None);
        assert_eq!(query.take(&B).unwrap().as_deref(), Some(""));
        assert_eq!(query.take(&C).unwrap().as_deref(), Some("x=y"));
        assert!(query.finish().is_ok());
    }

    #[test]
    fn unknown_repeated_and_broken_parameters_are_refused() {
        let none = |query| Query::parse(&[], query)?.finish();
        assert!(none(None).is_ok() && none(Some("")).is_ok());
        let unknown = none(Some("ttl=1"));
        assert!(matches!(unknown, Err(Error::UnknownField { name, .. }) if name == "ttl"));
        for bad in ["a=1&a=2", "a=1&%61=2", "a=%", "%f=1", "a=%ff"] {
            assert!(matches!(none(Some(bad)), Err(Error::BadRequest(_))), "{bad}");
        }
    }

    #[test]
    fn a_parameter_that_the_operation_does_not_declare_cannot_be_read() {
        for given in ["b=1", ""] {
            let mut query = Query::parse(&[&A], Some(given)).unwrap();
            let Err(error) = query.take(&B) else { panic!("`b` was read") };
            assert_eq!(error.code().info().name, "internal");
        }
    }
}
