//! The content type that a file's name tells.

use std::path::Path;

use crate::model::ContentType;

/// Types that the table of `mime_guess` lacks, or has under a name from before their registration.
const NEWER_TYPES: [(&str, &str); 5] = [
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("toml", "application/toml"),
    ("ndjson", "application/x-ndjson"),
    ("jsonl", "application/x-ndjson"),
];

/// The type for the ending of the name of `path`; `None` if it tells nothing.
pub(super) fn type_of(path: &Path) -> Option<ContentType> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    let newer = NEWER_TYPES.iter().find(|(name, _)| *name == ending);
    let text = match newer {
        Some((_, text)) => (*text).to_owned(),
        None => mime_guess::from_ext(&ending).first()?.essence_str().to_owned(),
    };
    ContentType::parse(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_a_name_tells_the_type() {
        for (name, expected) in [
            ("a.json", Some("application/json")),
            ("dir.d/app.yaml", Some("application/yaml")),
            ("A.YML", Some("application/yaml")),
            ("index.html", Some("text/html")),
            ("logo.png", Some("image/png")),
            ("notes.txt", Some("text/plain")),
            ("kvs.toml", Some("application/toml")),
            ("README", None),
            (".profile", None),
            ("a.nobody-knows", None),
        ] {
            let found = type_of(Path::new(name)).map(|found| found.to_string());
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
