//! Hints for a command line that does not parse: the command that was meant.
//!
//! clap knows names that are spelt alike; this file knows other words for the same thing.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands, and what other tools or people call them.
const OTHER_WORDS: [(&str, &[&str]); 13] = [
    ("put", &["write", "store", "create", "add", "update", "insert", "upsert"]),
    ("get", &["read", "cat", "show", "fetch", "print"]),
    ("del", &["delete", "remove", "unset", "erase", "drop"]),
    ("scan", &["ls", "keys", "dir", "find", "tree"]),
    ("cas", &["swap", "compare-and-swap", "compare-and-set"]),
    ("txn", &["transaction", "tx", "multi", "batch"]),
    ("history", &["log", "revisions", "versions"]),
    ("superseded", &["lost", "conflicts", "conflict", "siblings"]),
    ("status", &["info", "health", "cluster", "ping"]),
    ("members", &["nodes", "peers", "member"]),
    ("serve", &["start", "run", "server", "daemon", "agent"]),
    ("export", &["dump", "backup", "save"]),
    ("import", &["restore", "load", "upload"]),
];

/// Adds the command that was meant, where clap found none that is spelt alike.
pub(super) fn with_hint(mut error: clap::Error) -> clap::Error {
    let asked = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(asked)) => asked.to_ascii_lowercase(),
        _ => return error,
    };
    let unknown = error.kind() == ErrorKind::InvalidSubcommand;
    if !unknown {
        return error;
    }
    let meant = OTHER_WORDS.iter().find(|(_, words)| words.contains(&asked.as_str()));
    if let Some((command, _)) = meant {
        let command = ContextValue::Strings(vec![(*command).to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, command);
    }
    error
}

/// Whether arguments that do not parse ask for JSON.
pub(super) fn asks_for_json(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let whole = ["-ojson", "-o=json", "--output=json"];
    arguments.iter().any(|argument| whole.iter().any(|form| argument == form))
        || arguments.windows(2).any(|pair| match pair {
            [name, value] => (name == "-o" || name == "--output") && value == "json",
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn other_words_for_a_command_lead_to_it() {
        for (word, command) in [
            ("delete", "del"),
            ("ls", "scan"),
            ("start", "serve"),
            ("nodes", "members"),
            ("Remove", "del"),
            ("exprot", "export"),
            ("membres", "members"),
        ] {
            let error = super::super::Arguments::try_parse_from(["kvs", word, "x"]);
            let text = with_hint(error.expect_err(word)).to_string();
            assert!(text.contains(&format!("'{command}'")), "{word}: {text}");
        }
    }

    #[test]
    fn a_wish_for_json_is_seen_in_arguments_that_do_not_parse() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(OsString::from));
        assert!(asks("kvs -o json x") && asks("kvs x --output=json") && asks("kvs x -ojson"));
        assert!(!asks("kvs x -o text") && !asks("kvs put k json"));
    }
}
