//! The rules of the house, as an ordinary test: imports between modules, fences around crates,
//! sizes, and the content of the repository. A violation is reported with file, line and rule.
//!
//! Each rule must first catch a bad sample, so that no rule silently stops working. The tests read
//! files only and know nothing of what the code does. This file reads the sources; the rules are in
//! the files beside it, by subject.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod direction;
mod habits;
mod names;
mod repository;
mod shape;
mod sizes;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 400;
const INLINE_TEST_LINES_MAX: usize = 100;
const LINE_COLUMNS_MAX: usize = 100;

/// The modules, and the others that each may import. `model <- proto <- shells <- node <- cli`.
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

/// Code paths that only files with these path prefixes may use, and the reason for the message.
const FENCES: [(&[&str], &[&str], &str); 7] = [
    (
        &["axum::", "hyper::", "hyper_util::", "tower::", "tower_http::"],
        &["src/http/", "src/http.rs"],
        "the HTTP library stays in src/http",
    ),
    (&["rocksdb::"], &["src/store/disk/rocks/"], "rocksdb stays in store/disk/rocks"),
    (&["quinn::", "rustls::"], &["src/peer/"], "quinn and rustls stay in src/peer"),
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
        &["src/node/"],
        "only src/node spawns tasks; a part that needs some owns a JoinSet",
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

/// Replaces comments and the content of string and character literals by spaces; keeps lines.
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

/// The end of the comment or literal that starts at `at`; `at` when none starts there.
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

/// The positions of `path` in `code` as whole words.
fn places<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = usize> + 'a {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        !before.is_some_and(word) && (path.ends_with("::") || !after.is_some_and(word))
    })
}

/// The directory in which cargo runs the tests. Not the one in which it compiled them: clones may
/// share a target directory.
fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this"))
}

/// The files of the repository that git does not ignore, as paths from its root; without git, all
/// files.
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
