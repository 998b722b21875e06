//! Refuses a name that an operation does not know, and suggests the one that was meant.

use crate::http::answer::error::Error;
use crate::model::shown;

/// Below this similarity a suggestion would mislead.
const ALIKE_MIN: f64 = 0.7;

/// `unknown_field` for `name`, with the most alike of the `known` names.
pub(crate) fn unknown_field(name: &str, known: impl IntoIterator<Item = &'static str>) -> Error {
    let name = shown(name);
    let lower = name.to_ascii_lowercase();
    let alike = |known| (strsim::jaro_winkler(known, &lower), known);
    let nearest = known.into_iter().map(alike).max_by(|(a, _), (b, _)| a.total_cmp(b));
    let nearest = nearest.filter(|(likeness, _)| *likeness >= ALIKE_MIN).map(|(_, known)| known);
    Error::UnknownField { name, nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_if_one_is_alike() {
        let nearest = |name| match unknown_field(name, ["limit", "after", "values"]) {
            Error::UnknownField { nearest, .. } => nearest,
            error => panic!("{error:?}"),
        };
        assert_eq!(nearest("value"), Some("values"));
        assert_eq!(nearest("LIMITS"), Some("limit"));
        assert_eq!(nearest("x"), None);
    }
}
