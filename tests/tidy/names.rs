//! Each type name has one meaning, and release builds run enough assertions.

use std::collections::BTreeMap;

use super::*;

/// How many type names `src` may define more than once. May only fall.
const REPEATED_NAMES_MAX: usize = 4;
/// The fewest assertions per thousand lines of code. May only rise.
const ASSERTIONS_PER_1000_MIN: f64 = 2.8;

/// The types that a file of `src` defines: structs, enums, traits, and aliases at the level of a
/// module. Tests and the command line are left out, and so are the associated types of traits.
fn defined_types(source: &Source) -> Vec<(String, usize)> {
    if !source.path.starts_with("src/") || source.path.starts_with("src/cli/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for word in ["struct", "enum", "trait", "type"] {
        for at in places(&source.code, word) {
            let line = source.line(at);
            let start = source.code[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let indented = source.code[start..].starts_with(' ');
            let name: String = source.code[at + word.len()..]
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let is_type = name.starts_with(char::is_uppercase);
            if is_type && !source.is_test(at) && !(word == "type" && indented) {
                found.push((name, line));
            }
        }
    }
    found
}

/// The names with more than one definition, each with its places.
fn repeated_names(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources {
        for (name, line) in defined_types(source) {
            places.entry(name).or_default().push(format!("{}:{}", source.path, line + 1));
        }
    }
    let repeated = places.into_iter().filter(|(_, places)| places.len() > 1);
    repeated.map(|(name, places)| format!("`{name}`: {}", places.join(", "))).collect()
}

#[test]
fn a_name_has_one_meaning() {
    let sample = |path: &str, text: &str| Source::new(path, text);
    let twice = [
        sample("src/store/mod.rs", "pub struct Answer;\n"),
        sample("src/http/mod.rs", "mod inner {\n    enum Answer {}\n}\n"),
        sample("src/model/mod.rs", "pub(super) type Answer<T> = Option<T>;\n"),
    ];
    assert_eq!(repeated_names(&twice).len(), 1, "the rule overlooks a name");
    let once = [
        sample("src/store/mod.rs", "pub struct Answer;\nimpl T for A {\n    type Error = B;\n}\n"),
        sample("src/http/mod.rs", "impl T for C {\n    type Error = B;\n}\n"),
        sample("src/cli/mod.rs", "struct Answer;\n"),
        sample("src/http/a_tests.rs", "struct Answer;\n"),
        sample("src/peer/mod.rs", "#[cfg(test)]\nmod tests {\n    struct Answer;\n}\n"),
    ];
    assert_eq!(repeated_names(&once), Vec::<String>::new(), "the rule is too strict");
    let repeated = repeated_names(&sources());
    println!("{} type names are defined more than once", repeated.len());
    if repeated.len() > REPEATED_NAMES_MAX {
        report(repeated);
    }
}

/// The assertions of a file that run in a release build and its lines, both without tests.
fn assertions(source: &Source) -> (usize, usize) {
    if !source.path.starts_with("src/") {
        return (0, 0);
    }
    let lines = source.text.lines().count();
    let lines = lines - source.test_lines.iter().take(lines).filter(|test| **test).count();
    let macros = ["assert!", "assert_eq!", "assert_ne!", "unreachable!"];
    // `!` ends the word, so any character may follow it
    let found = macros.iter().flat_map(|name| {
        let word = name.trim_end_matches('!');
        places(&source.code, word).filter(|at| source.code[at + word.len()..].starts_with('!'))
    });
    (found.filter(|at| !source.is_test(*at)).count(), lines)
}

#[test]
fn impossible_states_are_asserted_where_users_are() {
    let sample = "fn f() {\n    assert!(a);\n    debug_assert!(b);\n    // assert!(c)\n}\n";
    assert_eq!(assertions(&Source::new("src/node.rs", sample)), (1, 5));
    assert_eq!(assertions(&Source::new("src/a_tests.rs", sample)).0, 0);
    let counted: Vec<_> = sources().iter().map(assertions).collect();
    let count: usize = counted.iter().map(|(count, _)| count).sum();
    let lines: usize = counted.iter().map(|(_, lines)| lines).sum();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let rate = count as f64 * 1000.0 / lines as f64;
    println!("{count} assertions in {lines} lines: {rate:.1} in a thousand");
    assert!(rate >= ASSERTIONS_PER_1000_MIN, "{rate:.2} assertions in a thousand lines");
}
