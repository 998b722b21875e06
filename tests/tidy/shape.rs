//! The shape of the module tree: one style, few `#[path]` attributes, no import cycles.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// How many modules may name their file by `#[path]`. May only fall.
const PATH_ATTRIBUTES_MAX: usize = 25;
/// How many import cycles there may be. May only fall.
const CIRCLES_MAX: usize = 0;

/// Files `x.rs` beside a directory `x/`.
fn mixed_styles(paths: &[String]) -> Vec<String> {
    let beside = |path: &&String| {
        let dir = format!("{}/", path.trim_end_matches(".rs"));
        path.starts_with("src/") && paths.iter().any(|other| other.starts_with(&dir))
    };
    let rule = |path: &String| format!("{path}:1: a module with children is a directory: mod.rs");
    paths.iter().filter(beside).map(rule).collect()
}

#[test]
fn a_module_with_children_is_a_directory() {
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    assert_eq!(mixed_styles(&owned(&["src/node.rs", "src/node/error.rs"])).len(), 1);
    assert_eq!(mixed_styles(&owned(&["src/node/mod.rs", "src/node/error.rs"])).len(), 0);
    report(mixed_styles(&sources().into_iter().map(|source| source.path).collect::<Vec<_>>()));
}

fn path_attributes(source: &Source) -> usize {
    let counts = source.path.starts_with("src/");
    if counts { source.code.matches("#[path =").count() } else { 0 }
}

#[test]
fn modules_lie_where_their_names_say() {
    assert_eq!(path_attributes(&Source::new("src/a.rs", "#[path = \"b.rs\"]\nmod c;\n")), 1);
    let found: usize = sources().iter().map(path_attributes).sum();
    println!("{found} `#[path]` attributes");
    assert!(found <= PATH_ATTRIBUTES_MAX, "{found} `#[path]`; {PATH_ATTRIBUTES_MAX} at most");
}

/// The module path of a file, such as `store::write::writer`.
fn module_path(path: &str) -> String {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    inner.replace('/', "::")
}

/// The modules that a file names with `crate::` or `super::`, cut to those that exist. A `mod.rs`
/// names its children to declare and re-export them: that is no import. Nor is a name that a child
/// takes from its own `mod.rs`.
fn imported(source: &Source, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let own = module_path(&source.path);
    let parent = own.rsplit_once("::").map_or("", |(parent, _)| parent).to_owned();
    let base = if source.path.ends_with("/mod.rs") { own.clone() } else { parent.clone() };
    let mut found = BTreeSet::new();
    for (start, prefix) in [("crate::", String::new()), ("super::", parent_of(source, &base))] {
        for (at, path) in paths_after(&source.code, start) {
            if source.is_test(at) {
                continue;
            }
            let full = if prefix.is_empty() { path.clone() } else { format!("{prefix}::{path}") };
            let longest = modules
                .iter()
                .filter(|module| full == **module || full.starts_with(&format!("{module}::")));
            if let Some(module) = longest.max_by_key(|module| module.len()) {
                let is_family = own.starts_with(&format!("{module}::"))
                    || module.starts_with(&format!("{own}::"));
                if *module != own && !is_family {
                    found.insert(module.clone());
                }
            }
        }
    }
    found
}

/// The module that `super` refers to in a file.
fn parent_of(source: &Source, base: &str) -> String {
    if source.path.ends_with("/mod.rs") {
        base.rsplit_once("::").map_or("", |(parent, _)| parent).to_owned()
    } else {
        base.to_owned()
    }
}

/// The paths that follow `start`, with groups in braces split at their first level.
fn paths_after(code: &str, start: &str) -> Vec<(usize, String)> {
    let path = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect()
    };
    let mut found = Vec::new();
    for at in places(code, start) {
        let rest = &code[at + start.len()..];
        let head = path(rest);
        let Some(group) = rest[head.len()..].strip_prefix('{') else {
            found.push((at, head));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => found.push((at, format!("{head}{}", path(item.trim())))),
                _ => {}
            }
            if c == ',' && depth == 0 { item.clear() } else { item.push(c) }
        }
        found.push((at, format!("{head}{}", path(item.trim()))));
    }
    found
}

/// The cycles of a graph: its strongly connected components of more than one file, as text.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let reaches = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            for to in edges.get(at).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = edges.keys().map(|from| (from, reaches(from))).collect();
    let mut found = BTreeSet::new();
    for (from, to) in &reached {
        let both = |other: &&String| reached.get(*other).is_some_and(|back| back.contains(*from));
        let circle: BTreeSet<_> = to.iter().filter(both).cloned().collect();
        if circle.len() > 1 {
            found.insert(circle.into_iter().collect::<Vec<_>>().join(" <-> "));
        }
    }
    found.into_iter().collect()
}

fn import_circles(sources: &[Source]) -> Vec<String> {
    let files = || sources.iter().filter(|source| source.path.starts_with("src/"));
    let is_code = |source: &&Source| !source.test_lines.iter().all(|test| *test);
    let modules: BTreeSet<_> =
        files().filter(is_code).map(|source| module_path(&source.path)).collect();
    let edges = files()
        .filter(is_code)
        .map(|source| (module_path(&source.path), imported(source, &modules)))
        .collect();
    circles(&edges)
}

#[test]
fn imports_do_not_go_round_in_circles() {
    let circle = [
        Source::new("src/peer/mod.rs", "mod accept;\nmod endpoint;\nuse accept::Entered;\n"),
        Source::new("src/peer/accept.rs", "use super::endpoint::{self, Shared};\nfn a() {}\n"),
        Source::new("src/peer/endpoint.rs", "use crate::peer::accept::Entered;\nfn b() {}\n"),
    ];
    assert_eq!(import_circles(&circle), ["peer::accept <-> peer::endpoint"]);
    let straight = [
        Source::new("src/peer/mod.rs", "mod accept;\nmod endpoint;\npub struct Link;\n"),
        Source::new("src/peer/accept.rs", "use super::{Link, endpoint::Shared};\nfn a() {}\n"),
        Source::new("src/peer/endpoint.rs", "use super::Link;\nfn b() {}\n"),
    ];
    assert_eq!(import_circles(&straight), Vec::<String>::new());
    let found = import_circles(&sources());
    println!("{} circles of imports", found.len());
    if found.len() > CIRCLES_MAX {
        report(found);
    }
}
