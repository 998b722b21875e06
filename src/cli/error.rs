//! What can go wrong in a command, and the exit status that says so.
//!
//! Every text is one line in plain words and says what to do. Must not know how an error is shown.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::ConfigError;
use crate::node::NodeError;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments or what was read cannot be used. Nothing was changed; correct them.
    #[error("{0}")]
    Usage(String),
    /// The configuration cannot be used. Nothing was changed; correct it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read or written. Files written before it are whole.
    #[error("cannot {verb} {}: {error}", path.display())]
    File {
        /// What was tried: `read`, `write` and the like.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The node said no. Nothing was changed by this request.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// A revision was not restored, because the key was written, or its value expired, meanwhile.
    /// Nothing was changed by this request.
    #[error(
        "nothing was restored, because key {key} changed meanwhile: {refusal}; see what there \
         is now with `kvs history`, and run the same again to put the revision in its place"
    )]
    Overtaken {
        /// The key.
        key: String,
        /// What the node said.
        refusal: Box<Refusal>,
    },
    /// No answer came. Whether a write was done is unknown unless `connected` is false.
    #[error(
        "cannot reach {url}: {reason}; is `kvs serve` running there? --url or KVS_URL names \
         another node"
    )]
    Unreachable {
        /// The URL that was tried.
        url: String,
        /// Why.
        reason: String,
        /// Whether there was a connection, so that the request may have arrived.
        connected: bool,
    },
    /// The answer ended before its end. What was printed of it is incomplete; ask again.
    #[error("the answer of {url} was cut short after {so_far}: {reason}; try again")]
    Cut {
        /// Who was answering.
        url: String,
        /// How much of it had come.
        so_far: String,
        /// Why.
        reason: String,
    },
    /// The answer is not that of a kvs node. Look at the URL.
    #[error("{url} does not answer as a kvs node does: {problem}; check --url or KVS_URL")]
    Answer {
        /// Who answered.
        url: String,
        /// What is odd about it.
        problem: String,
    },
    /// Standard output cannot be written. A request made before has been done.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// An import ended early. What was stored before stays; the same import can be run again.
    #[error("import stopped {at}, {stored} records stored: {cause}")]
    Stopped {
        /// Which key or line.
        at: String,
        /// How many records were stored.
        stored: u64,
        /// Why.
        cause: Box<CliError>,
    },
    /// Some peers of a `sync` did not finish their session. The others did.
    #[error("{failed} of {all} sessions failed; the table says why")]
    Sessions {
        /// How many failed.
        failed: usize,
        /// How many were held.
        all: usize,
    },
    /// The node did not start, or failed while it ran.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl CliError {
    /// The exit status of the contract.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Overtaken { .. } | Self::Sessions { .. } => 1,
            Self::Output(_) if self.is_closed_output() => 0,
            Self::Usage(_) | Self::Config(_) | Self::File { .. } | Self::Output(_) => 2,
            Self::Unreachable { .. } | Self::Cut { .. } | Self::Answer { .. } => 3,
            Self::Stopped { cause, .. } => cause.exit_code(),
            Self::Node(error) => error.exit_code(),
        }
    }

    /// Whether the reader of standard output has read enough, as `head` does: nothing to report.
    #[must_use]
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The current version that a failed condition met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// The answer does not say.
    Unknown,
    /// There is no live value.
    None,
    /// This version.
    Version {
        /// Its uuid.
        uuid: String,
        /// Its timestamp.
        timestamp: u64,
    },
}

/// A node's refusal (RFC 9457, problem details).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The stable code, if the answer has one.
    pub code: Option<String>,
    /// What the node says about it.
    pub detail: String,
    /// What a failed condition met.
    pub current: Current,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The whole answer.
    pub body: Vec<u8>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{code}: {}", self.detail)?,
            None => write!(f, "refused with HTTP status {}: {}", self.status, self.detail)?,
        }
        match &self.current {
            Current::Unknown => {}
            Current::None => f.write_str("; there is no current version")?,
            Current::Version { uuid, timestamp } => {
                write!(f, "; the current version is uuid={uuid} timestamp={timestamp}")?;
            }
        }
        match self.retry_after {
            Some(wait) => write!(f, "; try again in {} s", wait.as_secs()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: Option<&str>, current: Current) -> Refusal {
        Refusal {
            status: 412,
            code: code.map(str::to_owned),
            detail: "no".to_owned(),
            current,
            retry_after: None,
            body: Vec::new(),
        }
    }

    #[test]
    fn the_exit_status_follows_the_contract() {
        let io = |kind| io::Error::from(kind);
        let unreachable =
            CliError::Unreachable { url: "u".into(), reason: "r".into(), connected: false };
        let file =
            CliError::File { verb: "read", path: "f".into(), error: io(io::ErrorKind::NotFound) };
        let cut = CliError::Cut { url: "u".into(), so_far: "1 B".into(), reason: "r".into() };
        let answer = CliError::Answer { url: "u".into(), problem: "p".into() };
        let refused = refusal(None, Current::Unknown);
        let stopped = |cause| CliError::Stopped { at: "at x".into(), stored: 1, cause };
        for (error, status) in [
            (CliError::Refused(Box::new(refusal(None, Current::Unknown))), 1),
            (CliError::Overtaken { key: "k".into(), refusal: Box::new(refused) }, 1),
            (CliError::Sessions { failed: 1, all: 2 }, 1),
            (CliError::Usage("u".into()), 2),
            (file, 2),
            (CliError::Output(io(io::ErrorKind::StorageFull)), 2),
            (CliError::Output(io(io::ErrorKind::BrokenPipe)), 0),
            (stopped(Box::new(unreachable)), 3),
            (stopped(Box::new(CliError::Usage("u".into()))), 2),
            (cut, 3),
            (answer, 3),
        ] {
            assert_eq!(error.exit_code(), status, "{error}");
        }
    }

    #[test]
    fn a_refusal_names_the_current_version() {
        let text = |r: Refusal| r.to_string();
        let current = Current::Version { uuid: "u1".into(), timestamp: 7 };
        assert_eq!(
            text(refusal(Some("precondition_failed"), current)),
            "precondition_failed: no; the current version is uuid=u1 timestamp=7"
        );
        let absent = text(refusal(Some("precondition_failed"), Current::None));
        assert!(absent.ends_with("; there is no current version"), "{absent}");
        let mut later = refusal(None, Current::Unknown);
        later.retry_after = Some(Duration::from_secs(2));
        assert_eq!(text(later), "refused with HTTP status 412: no; try again in 2 s");
    }
}
