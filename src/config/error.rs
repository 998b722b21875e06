//! Why a configuration is invalid. Each text names the key or the file and says what to do.

use std::path::PathBuf;

/// Why a configuration is invalid. Nothing has been read or changed beyond the configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read {path}: {error}; name another file (`kvs config default` prints one)")]
    Unreadable {
        /// The path given with `--config`.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// A file is not TOML.
    #[error("{0}")]
    Invalid(String),
    /// No such key exists.
    #[error("unknown key `{key}` in {place}; {advice} (`kvs config default` lists all)")]
    UnknownKey {
        /// The key, with its table.
        key: String,
        /// The file, the environment variable or the option that sets it.
        place: String,
        /// The nearest known key, or how the keys of a table are written.
        advice: String,
    },
    /// A value has the wrong type or form.
    #[error("{key} in {place}: {problem}")]
    Value {
        /// The key, with its table.
        key: String,
        /// The file, the environment variable or the option that sets it.
        place: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A value is out of range, or contradicts another one.
    #[error("{key}: {problem}")]
    Range {
        /// The key, with its table.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// More than one fault; each on a line of its own.
    #[error("{}", lines(.0))]
    Several(Vec<ConfigError>),
}

impl ConfigError {
    /// One error for all of `faults`; `None` without any.
    pub(super) fn of(mut faults: Vec<Self>) -> Option<Self> {
        if faults.len() > 1 { Some(Self::Several(faults)) } else { faults.pop() }
    }
}

fn lines(faults: &[ConfigError]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
