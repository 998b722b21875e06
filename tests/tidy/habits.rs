//! Small habits that keep files readable.

use super::*;

fn check_opening(source: &Source) -> Vec<String> {
    let says =
        source.text.starts_with("//! ") && source.text.lines().next().is_some_and(|l| l.len() > 8);
    if says { Vec::new() } else { vec![source.finding(0, "opens with `//!`: what it is")] }
}

#[test]
fn every_file_says_what_it_is() {
    enforce(check_opening, &[("src/node.rs", "use std::fmt;\n"), ("src/node.rs", "//!\n")], &[]);
}

fn check_module_names(source: &Source) -> Vec<String> {
    let rule = |name: &str| format!("`{name}` says nothing; name what it does");
    let in_path = |name: &&&str| source.path.split(['/', '.']).any(|part| part == **name);
    let mut findings: Vec<_> =
        BANNED_MODULES.iter().filter(in_path).map(|name| source.finding(0, rule(name))).collect();
    for name in BANNED_MODULES {
        for at in places(&source.code, &format!("mod {name}")) {
            findings.push(source.finding(source.line(at), rule(name)));
        }
    }
    findings
}

#[test]
fn modules_are_named_for_what_they_do() {
    let bad =
        [("src/http/util.rs", ""), ("src/helper/mod.rs", ""), ("src/lib.rs", "mod common {}")];
    enforce(check_module_names, &bad, &[("src/utility.rs", "mod commoner;")]);
}

fn check_ignored(source: &Source) -> Vec<String> {
    let found = source.code.match_indices("#[ignore");
    found.map(|(at, _)| source.finding(source.line(at), "a test runs, or it goes")).collect()
}

#[test]
fn no_test_is_ignored() {
    enforce(check_ignored, &[("tests/a.rs", "#[test]\n#[ignore]\nfn f() {}")], &[]);
}

fn check_globs(source: &Source) -> Vec<String> {
    // tests may glob-import the module under test and the prelude of a test library
    let own = |at: usize| {
        let line = source.code.lines().nth(source.line(at)).unwrap_or_default().trim();
        source.is_test(at) && (line == "use super::*;" || line.ends_with("::prelude::*;"))
    };
    let found = source.code.match_indices("::*").map(|(at, _)| at).filter(|at| !own(*at));
    found.map(|at| source.finding(source.line(at), "import by name")).collect()
}

#[test]
fn names_are_imported_one_by_one() {
    let bad = [
        ("src/node.rs", "use crate::model::*;"),
        ("src/node.rs", "use super::*;"),
        ("src/node.rs", "use rayon::prelude::*;"),
        ("tests/a.rs", "use kvs::model::*;"),
    ];
    let good = [
        ("src/node.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}\n"),
        ("tests/a.rs", "use proptest::prelude::*;"),
    ];
    enforce(check_globs, &bad, &good);
}
