//! Why a configuration is invalid. Each text names the key or the file and says what to do.

use std::path::PathBuf;

/// Why a configuration is invalid. Nothing has been read or changed beyond the configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The path given with `--config`.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// A file is not TOML, or a value has the wrong type.
    #[error("{0}")]
    Invalid(String),
    /// No such key exists.
    #[error(
        "unknown key `{key}` in {place}; did you mean `{nearest}`? (`kvs config default` lists all)"
    )]
    UnknownKey {
        /// The key, with its table.
        key: String,
        /// The file, the environment variable or the option that sets it.
        place: String,
        /// The known key with the most similar spelling.
        nearest: String,
    },
    /// A value is out of range, or contradicts another one.
    #[error("{key}: {problem}")]
    Range {
        /// The key, with its table.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
}
