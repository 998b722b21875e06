//! The content of the repository, and documents that must keep up with the code.

use super::*;

fn check_top_level(files: &[String]) -> Vec<String> {
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let agreed = |name: &str| name.starts_with('.') || TOP_LEVEL.contains(&name);
    let strays = files.iter().filter(|path| !agreed(&first(path)));
    strays.map(|path| format!("{path}:1: not among the agreed names at the top level")).collect()
}

#[test]
fn the_top_level_holds_only_the_agreed_names() {
    assert_eq!(check_top_level(&["notes.txt".to_owned(), "docs/a.md".to_owned()]).len(), 2);
    assert!(check_top_level(&["src/a.rs".to_owned(), ".ci/run".to_owned()]).is_empty());
    report(check_top_level(&repository_files()));
}

/// Finds forbidden lines in a tracked file. The patterns are concatenated so that this file does
/// not match them.
fn check_content(path: &str, text: &str) -> Vec<String> {
    // a whole line: a mention of the marker in code is no key
    let key = |line: &str| {
        let line = line.trim();
        line.starts_with("-----BEGIN ") && line.ends_with(concat!("PRIVATE", " KEY-----"))
    };
    let homes = [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut add = |rule: &str| findings.push(format!("{path}:{}: {rule}", number + 1));
        if key(line) {
            add("a private key");
        }
        if homes.iter().any(|home| line.contains(home)) {
            add("a path of one machine");
        }
    }
    findings
}

#[test]
fn no_private_key_and_no_path_of_one_machine_is_tracked() {
    let key = concat!("-----BEGIN EC ", "PRIVATE", " KEY-----");
    assert_eq!(check_content("a.pem", key).len(), 1);
    assert!(check_content("a.rs", &format!("assert!(x == \"{key}\");")).is_empty());
    assert_eq!(check_content("a.md", concat!("see /ho", "me/ann/x")).len(), 1);
    assert!(check_content("a.md", "see ~/.cache/kvs and $HOME").is_empty());
    let read = |path: &String| fs::read(root().join(path)).unwrap_or_default();
    let text = |path: &String| String::from_utf8_lossy(&read(path)).into_owned();
    report(repository_files().iter().flat_map(|path| check_content(path, &text(path))).collect());
}

/// The names in quotes that follow `start` in `text`.
fn quoted_after<'a>(text: &'a str, start: &'a str) -> Vec<&'a str> {
    let name = |rest: &'a str| rest.trim_start().strip_prefix('"')?.split('"').next();
    text.split(start).skip(1).filter_map(name).collect()
}

fn missing_from(page: &str, names: &[&str], what: &str) -> Vec<String> {
    let gone = names.iter().filter(|name| !page.contains(*name));
    gone.map(|name| format!("deploy/README.md:1: {what} `{name}` is not described")).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

#[test]
fn the_page_for_operators_describes_every_metric() {
    let telemetry = read("src/telemetry/mod.rs");
    let names = quoted_after(&telemetry, "r.register(");
    assert!(names.len() > 5 && names.contains(&"http_requests"), "{names:?}");
    assert_eq!(missing_from("kvs_members", &["members", "pushes"], "metric").len(), 1);
    report(missing_from(&read("deploy/README.md"), &names, "metric"));
}

#[test]
fn the_page_for_operators_describes_every_limit() {
    let defaults = read("src/config/default.toml");
    let table = defaults.split("[limits]").nth(1).unwrap_or_default();
    let lines = table.lines().filter(|line| !line.starts_with(['#', '[']));
    let names: Vec<_> = lines.filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    assert!(names.contains(&"value_bytes_max"), "{names:?}");
    report(missing_from(&read("deploy/README.md"), &names, "limit"));
}

#[test]
fn the_changelog_names_this_version_or_what_is_unreleased() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    let names = |log: &str| log.contains(&heading) || log.contains("## [Unreleased]");
    assert!(!names("# Changelog\n"));
    assert!(names(&read("CHANGELOG.md")), "CHANGELOG.md has no section for this version");
}
