//! Queries, strictly: no parameter twice, none that is not known.

use std::borrow::Cow;

use super::error::Error;
use super::path::{Unescape, unescape};

/// The greatest `limit`.
pub(super) const LIMIT_MAX: usize = 1000;

/// The parameters of a request, taken one by one; what is left at the end is unknown.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads what stands behind the `?`.
    pub(super) fn parse(query: Option<&'a str>) -> Result<Self, Error> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(Error::bad(format!("the query has `{name}` twice; give it once")));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// Takes one parameter out.
    pub(super) fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes `limit` out.
    pub(super) fn take_limit(&mut self) -> Result<Option<usize>, Error> {
        self.take("limit").map(|text| parse_limit(&text)).transpose()
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(Error::UnknownField(name.into_owned())),
            None => Ok(()),
        }
    }

    /// Refuses any parameter.
    pub(super) fn none(query: Option<&str>) -> Result<(), Error> {
        Query::parse(query)?.finish()
    }
}

fn parse_limit(text: &str) -> Result<usize, Error> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|limit| digits && (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| Error::bad(format!("`limit` is a whole number from 1 to {LIMIT_MAX}")))
}

fn decode(raw: &str) -> Result<Cow<'_, str>, Error> {
    unescape(raw, true).map_err(|e| {
        Error::bad(match e {
            Unescape::Escape => "the query has a bad percent escape; write a literal `%` as `%25`",
            Unescape::Utf8 => "the query is not valid UTF-8",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_taken_once() {
        let mut query = Query::parse(Some("a=1+2%2B&b&&c=x=y")).unwrap();
        assert_eq!(query.take("a").as_deref(), Some("1 2+"));
        assert_eq!(query.take("a"), None);
        assert_eq!(query.take("b").as_deref(), Some(""));
        assert_eq!(query.take("c").as_deref(), Some("x=y"));
        assert!(query.finish().is_ok());
    }

    #[test]
    fn unknown_repeated_and_broken_parameters_are_refused() {
        assert!(Query::none(None).is_ok() && Query::none(Some("")).is_ok());
        assert!(matches!(Query::none(Some("ttl=1")), Err(Error::UnknownField(n)) if n == "ttl"));
        for bad in ["a=1&a=2", "a=1&%61=2", "a=%", "%f=1", "a=%ff"] {
            assert!(matches!(Query::none(Some(bad)), Err(Error::BadRequest(_))), "{bad}");
        }
    }
}
