//! The rules of the house, as an ordinary test: who may import whom, which crate stays where, how
//! long things get, what the repository holds. A violation is named with file, line and rule.
//!
//! Promises that no rule rots: each is shown a bad sample first and must catch it. Reads files
//! only; must not know what the code does.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 400;
const INLINE_TEST_LINES_MAX: usize = 100;
const LINE_COLUMNS_MAX: usize = 100;

/// The modules, and which others each may import. `model <- proto <- shells <- node <- cli`.
const DIRECTION: [(&str, &[&str]); 12] = [
    ("model", &[]),
    ("clock", &["model"]),
    ("config", &["model"]),
    ("telemetry", &["model"]),
    ("proto", &["model"]),
    ("store", &["model", "proto", "clock", "config", "telemetry"]),
    ("peer", &["model", "proto", "clock", "config", "telemetry"]),
    ("gossip", &["model", "proto", "clock", "config", "telemetry"]),
    ("replication", &["store", "peer", "model", "proto", "clock", "config", "telemetry"]),
    ("http", &["store", "model", "proto", "clock", "config", "telemetry"]),
    (
        "node",
        &[
            "model",
            "proto",
            "clock",
            "config",
            "telemetry",
            "store",
            "peer",
            "gossip",
            "replication",
            "http",
        ],
    ),
    (
        "cli",
        &[
            "model",
            "proto",
            "clock",
            "config",
            "telemetry",
            "store",
            "peer",
            "gossip",
            "replication",
            "http",
            "node",
        ],
    ),
];

/// Paths of code that may stand only in files whose path starts so; the rest of the rule is said.
const FENCES: [(&[&str], &[&str], &str); 7] = [
    (
        &["axum::", "hyper::", "hyper_util::", "tower::", "tower_http::"],
        &["src/http/", "src/http.rs"],
        "the HTTP library stays in src/http",
    ),
    (&["rocksdb::"], &["src/store/rocks/", "src/store/rocks.rs"], "rocksdb stays in store/rocks"),
    (&["quinn::", "rustls::"], &["src/peer/", "src/peer.rs"], "quinn and rustls stay in src/peer"),
    (&["foca::"], &["src/proto/membership"], "foca stays in src/proto/membership"),
    (
        &["SystemTime::now", "Instant::now", "Uuid::new_v4", "Uuid::now_v7", "Uuid::now_v1"],
        &["src/clock.rs"],
        "time is read in src/clock.rs alone; take a Clock, or the value",
    ),
    (
        &["SysRng", "OsRng", "ThreadRng", "thread_rng", "rand::rng", "rand::random", "getrandom::"],
        &["src/clock.rs"],
        "entropy comes from src/clock.rs alone; take a Clock, or a generator",
    ),
    (
        &["tokio::spawn", "task::spawn"],
        &["src/node.rs", "src/node/"],
        "only src/node.rs spawns tasks; a part that needs some owns a JoinSet",
    ),
];

const BANNED_MODULES: [&str; 8] =
    ["util", "utils", "common", "manager", "managers", "helper", "helpers", "misc"];

const TOP_LEVEL: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "certs",
    "deploy",
    "tests",
    "README.md",
    "CHANGELOG.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];

// --- reading -------------------------------------------------------------------------------------

/// A Rust file: its text, the same with comments and literals blanked, and which lines are tests.
struct Source {
    path: String,
    text: String,
    code: String,
    test_lines: Vec<bool>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let whole = path.starts_with("tests/")
            || path.ends_with("_tests.rs")
            || path.ends_with("/tests.rs")
            || path.contains("/tests/");
        let mut test_lines = vec![whole; text.lines().count() + 1];
        for (first, last) in test_spans(&code) {
            test_lines[first..=last].fill(true);
        }
        Self { path: path.to_owned(), text: text.to_owned(), code, test_lines }
    }

    /// The line, from zero, of a position in `code`.
    fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count()
    }

    fn is_test(&self, at: usize) -> bool {
        self.test_lines[self.line(at)]
    }

    /// The module below `src/` that the file belongs to.
    fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        rest.split('/').next().map(|name| name.trim_end_matches(".rs"))
    }

    fn is_module_root(&self) -> bool {
        self.path.matches('/').count() == 1 || self.path.ends_with("/mod.rs")
    }

    fn finding(&self, line: usize, rule: impl AsRef<str>) -> String {
        format!("{}:{}: {}", self.path, line + 1, rule.as_ref())
    }
}

/// Replaces comments and the content of string and character literals by spaces; lines stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skip_literal(bytes, at);
        let end = if end == at { at + 1 } else { end };
        let keep = end == at + 1 && bytes[at] != b'"';
        for &byte in &bytes[at..end] {
            out.push(if keep || byte == b'\n' { byte } else { b' ' });
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `at` when none does.
fn skip_literal(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return rest.iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n);
    }
    if rest.starts_with(b"/*") {
        return skip_block_comment(bytes, at);
    }
    if (rest[0] == b'r' || rest.starts_with(b"br")) && !after_word {
        let quote = if rest[0] == b'b' { at + 2 } else { at + 1 };
        let hashes = bytes[quote.min(bytes.len())..].iter().take_while(|&&b| b == b'#').count();
        if bytes.get(quote + hashes) == Some(&b'"') {
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            let body = quote + hashes + 1;
            let found = bytes[body..].windows(close.len()).position(|w| w == close);
            return found.map_or(bytes.len(), |n| body + n + close.len());
        }
    }
    if rest[0] == b'"' {
        return skip_quoted(bytes, at, b'"');
    }
    // a character, not a lifetime: closed after one character or an escape
    if rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || closes_as_char(rest)) {
        return skip_quoted(bytes, at, b'\'');
    }
    at
}

fn closes_as_char(rest: &[u8]) -> bool {
    let width = match rest.get(1) {
        Some(b) if *b < 0x80 => 1,
        Some(b) if *b < 0xe0 => 2,
        Some(b) if *b < 0xf0 => 3,
        _ => 4,
    };
    rest.get(1 + width) == Some(&b'\'')
}

fn skip_quoted(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

fn skip_block_comment(bytes: &[u8], at: usize) -> usize {
    let (mut end, mut depth) = (at + 2, 1);
    while end < bytes.len() && depth > 0 {
        match &bytes[end..] {
            [b'/', b'*', ..] => (depth, end) = (depth + 1, end + 2),
            [b'*', b'/', ..] => (depth, end) = (depth - 1, end + 2),
            _ => end += 1,
        }
    }
    end
}

/// The position after the brace that closes the first one at or after `at`; `None` when a `;` comes
/// first, outside of parentheses and brackets.
fn block_end(code: &str, at: usize) -> Option<usize> {
    let (mut braces, mut inner) = (0usize, 0usize);
    for (offset, c) in code[at..].char_indices() {
        match c {
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + offset + 1),
            '}' => braces = braces.checked_sub(1)?,
            '(' | '[' if braces == 0 => inner += 1,
            ')' | ']' if braces == 0 => inner = inner.saturating_sub(1),
            ';' if braces == 0 && inner == 0 => return None,
            _ => {}
        }
    }
    None
}

/// First and last line of each item under `#[cfg(test)]`.
fn test_spans(code: &str) -> Vec<(usize, usize)> {
    let line = |at: usize| code[..at].matches('\n').count();
    let span = |(at, mark): (usize, &str)| {
        let start = at + mark.len();
        let end = block_end(code, start)
            .or_else(|| code[start..].find(';').map(|n| start + n))
            .unwrap_or(code.len());
        (line(at), line(end))
    };
    code.match_indices("#[cfg(test)]").map(span).collect()
}

/// Where `path` stands in `code` as whole words.
fn places<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = usize> + 'a {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        !before.is_some_and(word) && (path.ends_with("::") || !after.is_some_and(word))
    })
}

/// Where cargo runs the tests; not where it compiled them, as clones may share what is built.
fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this"))
}

/// All files of the repository that are not ignored, as paths from its root; without git, all
/// there are.
fn repository_files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let names: Vec<String> = match listed {
        Ok(out) if out.status.success() => {
            String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
        }
        _ => walk(""),
    };
    names.into_iter().filter(|name| root().join(name).is_file()).collect()
}

fn walk(below: &str) -> Vec<String> {
    let skip = |path: &Path| path.ends_with("target") || path.ends_with(".git");
    walkdir::WalkDir::new(root().join(below))
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| !skip(entry.path()))
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| entry.path().strip_prefix(root()).ok()?.to_str().map(str::to_owned))
        .collect()
}

fn sources() -> Vec<Source> {
    let rust = |path: &String| path.ends_with(".rs");
    let paths = walk("src").into_iter().chain(walk("tests")).filter(rust);
    let found: Vec<_> = paths
        .map(|path| Source::new(&path, &fs::read_to_string(root().join(&path)).unwrap_or_default()))
        .collect();
    assert!(found.len() > 10, "the sources were not found below {}", root().display());
    found
}

/// Checks every file, after showing that the rule catches `bad`, given as (path, text).
fn enforce(rule: impl Fn(&Source) -> Vec<String>, bad: &[(&str, &str)], good: &[(&str, &str)]) {
    for (path, text) in bad {
        assert!(!rule(&Source::new(path, text)).is_empty(), "the rule overlooks: {path}: {text}");
    }
    for (path, text) in good {
        let found = rule(&Source::new(path, text));
        assert!(found.is_empty(), "the rule is too strict: {found:?}: {text}");
    }
    report(sources().iter().flat_map(&rule).collect());
}

fn report(findings: Vec<String>) {
    let mut list = String::new();
    for finding in &findings {
        let _ = writeln!(list, "  {finding}");
    }
    assert!(findings.is_empty(), "{} broken rules:\n{list}", findings.len());
}

// --- direction and fences ------------------------------------------------------------------------

/// Positions and first names of what stands after `start` (`crate::`), groups in braces included.
fn imports(code: &str, start: &str) -> Vec<(usize, String)> {
    let name = |at: usize| -> String {
        code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for at in places(code, start) {
        let first = at + start.len();
        if !code[first..].starts_with('{') {
            found.push((first, name(first)));
            continue;
        }
        let mut depth = 0;
        let mut fresh = false;
        for (offset, c) in code[first..].char_indices() {
            match c {
                '{' => (depth, fresh) = (depth + 1, true),
                '}' => depth -= 1,
                ',' => fresh = true,
                _ if c.is_whitespace() => {}
                _ => {
                    if depth == 1 && fresh {
                        found.push((first + offset, name(first + offset)));
                    }
                    fresh = false;
                }
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn check_direction(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let Some((_, allowed)) = DIRECTION.iter().find(|(name, _)| *name == module) else {
        let known = ["lib", "main"].contains(&module);
        let unknown =
            || source.finding(0, format!("module `{module}` is not in the DIRECTION table"));
        return if known { Vec::new() } else { vec![unknown()] };
    };
    let mut named = imports(&source.code, "crate::");
    if source.is_module_root() {
        named.extend(imports(&source.code, "super::"));
    }
    let is_module = |name: &str| DIRECTION.iter().any(|(known, _)| *known == name);
    let upward = |name: &str| name != module && is_module(name) && !allowed.contains(&name);
    let mut findings: Vec<_> = named
        .into_iter()
        .filter(|(at, name)| !source.is_test(*at) && upward(name))
        .map(|(at, name)| (source.line(at), format!("`{module}` must not import `{name}`")))
        .collect();
    for at in places(&source.code, "super::super::") {
        if !source.is_test(at) {
            findings.push((source.line(at), "name the path from `crate::` instead".to_owned()));
        }
    }
    findings.into_iter().map(|(line, rule)| source.finding(line, rule)).collect()
}

#[test]
fn imports_go_downward_only() {
    let bad = [
        ("src/model/key.rs", "use crate::clock::Clock;"),
        ("src/proto/wire.rs", "use crate::{\n    model::Key,\n    store::Store,\n};"),
        ("src/store/mod.rs", "fn f(x: super::http::X) {}"),
        ("src/gossip/mod.rs", "fn f() { crate::peer::dial() }"),
        ("src/http/kv.rs", "use crate::node::Node;"),
        ("src/node.rs", "use crate::cli;"),
        ("src/fresh.rs", "//! A module without a place in the table.\n"),
    ];
    let good = [
        ("src/http/kv.rs", "use crate::{model::{Key, store}, store::Store}; // crate::node"),
        ("src/store/mod.rs", "const S: &str = \"crate::http\";\n#[cfg(test)]\nuse crate::node::X;"),
        ("src/cli/mod.rs", "use crate::node::Node;"),
    ];
    enforce(check_direction, &bad, &good);
}

fn check_fences(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (paths, homes, rule) in FENCES {
        if !source.path.starts_with("src/")
            || homes.iter().any(|home| source.path.starts_with(home))
        {
            continue;
        }
        for path in paths {
            for at in places(&source.code, path) {
                if !source.is_test(at) {
                    findings.push(source.finding(source.line(at), format!("`{path}`: {rule}")));
                }
            }
        }
    }
    findings
}

#[test]
fn crates_time_entropy_and_tasks_stay_behind_their_fences() {
    let bad = [
        ("src/node.rs", "use axum::Router;"),
        ("src/store/writer.rs", "use rocksdb::DB;"),
        ("src/gossip/mod.rs", "fn f() -> quinn::Endpoint {}"),
        ("src/node.rs", "let _ = rustls::version::TLS13;"),
        ("src/gossip/mod.rs", "use foca::Foca;"),
        ("src/http/kv.rs", "let t = std::time::SystemTime::now();"),
        ("src/proto/schedule.rs", "let r = rand::rng();"),
        ("src/store/writer.rs", "tokio::spawn(async {});"),
    ];
    let good = [
        ("src/http/mod.rs", "use axum::Router;"),
        ("src/store/rocks/mod.rs", "use rocksdb::DB; // not axum::Router"),
        ("src/proto/membership.rs", "use foca::Foca;"),
        ("src/proto/schedule.rs", "use rand::Rng; fn f(rng: &mut rand::rngs::StdRng) {}"),
        ("src/node.rs", "tokio::spawn(async {});"),
        ("src/store/writer.rs", "set.spawn(f()); tokio::task::spawn_blocking(g);"),
        ("tests/it/main.rs", "let t = std::time::Instant::now();"),
    ];
    enforce(check_fences, &bad, &good);
}

fn check_pure(source: &Source) -> Vec<String> {
    let pure = matches!(source.module(), Some("model" | "proto"));
    let asynchronous =
        ["tokio::", "tokio_util::", "futures_util::", "std::net::UdpSocket", "async fn"];
    let shown =
        |at| source.finding(source.line(at), "model and proto know no tokio and no sockets");
    let found = asynchronous.iter().flat_map(|path| places(&source.code, path));
    found.filter(|at| pure && !source.is_test(*at)).map(shown).collect()
}

#[test]
fn model_and_proto_know_no_runtime() {
    let bad = [
        ("src/model/key.rs", "use tokio::time::Instant;"),
        ("src/proto/wire.rs", "async fn send() {}"),
    ];
    enforce(check_pure, &bad, &[("src/peer/mod.rs", "use tokio::net::UdpSocket;")]);
}

fn check_select(source: &Source) -> Vec<String> {
    let biased = |at: usize| {
        let rest = source.code[at..].trim_start_matches("select!").trim_start();
        rest.trim_start_matches(['{', '(']).trim_start().starts_with("biased;")
    };
    let shown = |at| source.finding(source.line(at), "`select!` starts with `biased;`");
    places(&source.code, "select!").filter(|&at| !biased(at)).map(shown).collect()
}

#[test]
fn select_is_biased_so_that_the_simulator_is_deterministic() {
    let bad = [("src/node.rs", "tokio::select! {\n    // biased;\n    x = f() => {}\n}")];
    let good = [("src/node.rs", "tokio::select! {\n    // why\n    biased;\n    x = f() => {}\n}")];
    enforce(check_select, &bad, &good);
}

// --- sizes ---------------------------------------------------------------------------------------

fn check_function_lines(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for at in places(&source.code, "fn") {
        let named =
            source.code[at + 2..].trim_start().starts_with(|c: char| c.is_alphabetic() || c == '_');
        let end = block_end(&source.code, at).filter(|_| named && !source.is_test(at));
        let lines = end.map_or(0, |end| source.line(end) - source.line(at) + 1);
        if lines > FUNCTION_LINES_MAX {
            let rule = format!("a function of {lines} lines; {FUNCTION_LINES_MAX} at most");
            findings.push(source.finding(source.line(at), rule));
        }
    }
    findings
}

#[test]
fn functions_are_short() {
    let long = |n: usize| format!("fn f(x: [u8; 4]) -> u8 {{\n{}}}\n", "    g();\n".repeat(n));
    let traits =
        format!("trait T {{\n    fn f(&self);\n{}}}\n", "    const A: u8 = 0;\n".repeat(90));
    let bad = [("src/node.rs", long(69))];
    let good = [("src/node.rs", long(68)), ("src/node.rs", traits), ("src/a_tests.rs", long(99))];
    enforce(check_function_lines, &borrowed(&bad), &borrowed(&good));
}

fn borrowed<'a>(samples: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    samples.iter().map(|(path, text)| (*path, text.as_str())).collect()
}

fn check_file_lines(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let tests = source.test_lines.iter().take(lines).filter(|test| **test).count();
    let rule = format!("{} lines without tests; {FILE_LINES_MAX} at most", lines - tests);
    if lines - tests > FILE_LINES_MAX { vec![source.finding(0, rule)] } else { Vec::new() }
}

#[test]
fn files_are_short() {
    let code = |n: usize| "const A: u8 = 0;\n".repeat(n);
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", code(400), code(50));
    let bad = [("src/node.rs", code(401))];
    enforce(check_file_lines, &borrowed(&bad), &borrowed(&[("src/node.rs", tested)]));
}

fn check_inline_tests(source: &Source) -> Vec<String> {
    let long = |(first, last): &(usize, usize)| last - first + 1 > INLINE_TEST_LINES_MAX;
    let rule = "more than 100 lines of tests go to a sibling file (#[path = \"..._tests.rs\"])";
    let spans = test_spans(&source.code);
    spans.iter().filter(|span| long(span)).map(|span| source.finding(span.0, rule)).collect()
}

#[test]
fn long_tests_have_a_file_of_their_own() {
    let inline = |n| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // x\n".repeat(n));
    let (bad, good) = ([("src/node.rs", inline(98))], [("src/node.rs", inline(97))]);
    enforce(check_inline_tests, &borrowed(&bad), &borrowed(&good));
}

fn check_columns(source: &Source) -> Vec<String> {
    let wide = |line: &str| line.chars().count() > LINE_COLUMNS_MAX;
    let lines = source.text.lines().enumerate().filter(|(_, line)| wide(line));
    lines.map(|(number, _)| source.finding(number, "more than 100 columns")).collect()
}

#[test]
fn lines_fit_in_100_columns() {
    let (bad, good) = (format!("// {}", "é".repeat(98)), format!("// {}", "é".repeat(97)));
    enforce(check_columns, &[("src/node.rs", &bad)], &[("src/node.rs", &good)]);
}

// --- habits --------------------------------------------------------------------------------------

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
    // tests may take all of what they test, and what a test library calls its prelude
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

// --- the repository ------------------------------------------------------------------------------

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

/// Lines of a tracked file that must not be there. The patterns are put together here so that this
/// file does not hold them.
fn check_content(path: &str, text: &str) -> Vec<String> {
    // the first line of a key; a mention of it in code is not one
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
    let telemetry = read("src/telemetry.rs");
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
