//! Why a command fails, and the exit status for each reason.
//!
//! Every text is one line and says what to do. Must not know how an error is shown.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::words::count;
use crate::config::ConfigError;
use crate::node::NodeError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments or the input cannot be used. Nothing was changed; correct them.
    #[error("{0}")]
    Usage(String),
    /// The configuration cannot be used. Nothing was changed; correct it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What a configuration names cannot be used. Each fault is a line. Nothing was changed.
    #[error("{}", .0.join("\n"))]
    Faults(Vec<String>),
    /// A file cannot be read or written. Files written before it are whole.
    #[error("cannot {verb} {}: {error}", path.display())]
    File {
        /// The action, for "cannot {verb} {path}".
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system reported.
        error: io::Error,
    },
    /// The node refused. Nothing was changed by this request.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// The key changed (was written or expired) between reading its history and restoring a
    /// revision. Nothing was changed by this request.
    #[error(
        "nothing was restored, because key {key} changed meanwhile: {refusal}; look at it with \
         `kvs history`, then run this command again to restore the revision anyway"
    )]
    Overtaken {
        /// The key, for the message.
        key: String,
        /// The node's answer to the swap.
        refusal: Box<Refusal>,
    },
    /// The node reports no lost write of the key. Nothing was changed.
    #[error(
        "{url} reports no such lost write of key {key}: each node reports the writes that it \
         acknowledged, so ask the others (--url), too; `kvs superseded` lists the reports"
    )]
    NoReport {
        /// The key, for the message.
        key: String,
        /// The node that was asked.
        url: String,
    },
    /// The key has another version than the one that won. Nothing was changed by this request.
    #[error(
        "nothing was written, because key {key} has another version than expected: {refusal}; look \
         at it with `kvs superseded --resolve {key}`, then give its uuid with --expect-uuid"
    )]
    MovedOn {
        /// The key, for the message.
        key: String,
        /// The node's answer to the swap.
        refusal: Box<Refusal>,
    },
    /// No answer came. Unless `connected` is false, a write may have taken place.
    #[error(
        "cannot reach {url}: {reason}; is `kvs serve` running there? Name another node with --url \
         or KVS_URL"
    )]
    Unreachable {
        /// The URL that was tried.
        url: String,
        /// What the system reported, or how long the client waited.
        reason: String,
        /// True if there was a connection, so that the request may have arrived.
        connected: bool,
    },
    /// The answer broke off. The output so far is incomplete; ask again.
    #[error("the answer from {url} was cut short after {so_far}: {reason}; try again")]
    Cut {
        /// The node that was answering.
        url: String,
        /// How much had arrived, for the message.
        so_far: String,
        /// What ended it.
        reason: String,
    },
    /// Something else than a kvs node answered: a proxy, a login page, another service. Nothing
    /// was changed in a node unless a proxy passed the request on.
    #[error(
        "this is no kvs node: {url} answered {answer}; check --url or KVS_URL, and any proxy in \
         between"
    )]
    Stranger {
        /// The URL that was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The answer in a few words.
        answer: String,
    },
    /// A node answered in a way that this version does not understand.
    #[error("the answer of {url} is not as expected: {problem}; check --url or KVS_URL")]
    Answer {
        /// The server that answered.
        url: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// Standard output cannot be written. The request itself was done.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// An import ended early. Stored records stay, and running the import again is harmless.
    #[error("import stopped {at}, {} stored: {cause}", count(*stored, "record"))]
    Stopped {
        /// The place: "at key K" or "at line N".
        at: String,
        /// How many records were stored.
        stored: u64,
        /// What stopped it.
        cause: Box<CliError>,
    },
    /// Some sessions of a `sync` failed. The others finished.
    #[error("{failed} of {all} sessions failed; see RESULT in the table")]
    Sessions {
        /// Failed sessions.
        failed: usize,
        /// All sessions of this `sync`.
        all: usize,
    },
    /// A verification found something that disagrees. Nothing was changed.
    #[error("{found} of the entries disagree; the lines above say what to do about each")]
    Disagrees {
        /// How many.
        found: u64,
    },
    /// The node did not start, or failed while it ran.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl CliError {
    /// The exit status that the contract assigns to this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_)
            | Self::Overtaken { .. }
            | Self::NoReport { .. }
            | Self::MovedOn { .. }
            | Self::Sessions { .. }
            | Self::Disagrees { .. } => 1,
            Self::Output(_) if self.is_closed_output() => 0,
            Self::Usage(_)
            | Self::Config(_)
            | Self::Faults(_)
            | Self::File { .. }
            | Self::Output(_) => 2,
            Self::Unreachable { .. }
            | Self::Stranger { .. }
            | Self::Cut { .. }
            | Self::Answer { .. } => 3,
            Self::Stopped { cause, .. } => cause.exit_code(),
            Self::Node(error) => error.exit_code(),
        }
    }

    /// A stable word for this error: the node's code for a refusal.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::Config(_) | Self::Faults(_) => "configuration",
            Self::File { .. } => "file",
            Self::Refused(refusal)
            | Self::Overtaken { refusal, .. }
            | Self::MovedOn { refusal, .. } => refusal.code.as_deref().unwrap_or("refused"),
            Self::NoReport { .. } => "no_report",
            Self::Unreachable { .. } => "unreachable",
            Self::Cut { .. } => "cut",
            Self::Stranger { .. } => "no_kvs_node",
            Self::Answer { .. } => "unexpected_answer",
            Self::Output(_) => "output",
            Self::Stopped { cause, .. } => cause.code(),
            Self::Sessions { .. } => "sessions_failed",
            Self::Disagrees { .. } => "disagrees",
            Self::Node(_) => "node_failed",
        }
    }

    /// The error as one line of JSON, for programs: `code`, `detail`, `exit_status`, and for a
    /// refusal the node's answer as `problem`.
    #[must_use]
    pub fn json(&self) -> String {
        let mut refused = self;
        while let Self::Stopped { cause, .. } = refused {
            refused = cause;
        }
        let body: Option<&RawValue> = match refused {
            Self::Refused(refusal)
            | Self::Overtaken { refusal, .. }
            | Self::MovedOn { refusal, .. } => serde_json::from_slice(&refusal.body).ok(),
            _ => None,
        };
        let detail = self.to_string();
        let shown = ErrorAsJson {
            code: self.code(),
            detail: &detail,
            exit_status: self.exit_code(),
            problem: body,
        };
        let text = serde_json::to_string(&shown).unwrap_or_default();
        // a bare line break in JSON is white space
        text.replace(['\n', '\r'], " ")
    }

    /// True if the reader of standard output closed it early, as `head` does. That is no failure.
    #[must_use]
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[derive(Serialize)]
struct ErrorAsJson<'a> {
    code: &'a str,
    detail: &'a str,
    exit_status: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a RawValue>,
}

/// The version that a failed condition found instead of the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// The refusal does not say.
    Unknown,
    /// The key has no live value.
    None,
    /// The key has this version.
    Version {
        /// Uuid of the write.
        uuid: String,
        /// Microseconds since the Unix epoch.
        timestamp: u64,
        /// The start of its value, if the answer has it.
        value: Option<String>,
    },
}

/// A node's refusal (RFC 9457, problem details).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The stable code; `None` if the answer is no problem document.
    pub code: Option<String>,
    /// The node's explanation.
    pub detail: String,
    /// For a failed condition: the version that the key has.
    pub current: Current,
    /// How long the node asks to wait before the next attempt.
    pub retry_after: Option<Duration>,
    /// The answer as it came, for `-o json`.
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
            Current::None => f.write_str("; the key has no live value")?,
            Current::Version { uuid, timestamp, value } => {
                write!(f, "; the current version is uuid={uuid} timestamp={timestamp}")?;
                if let Some(value) = value {
                    write!(f, ", value: {value}")?;
                }
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
        let stranger = CliError::Stranger { url: "u".into(), status: 200, answer: "a".into() };
        let refused = refusal(None, Current::Unknown);
        let stopped = |cause| CliError::Stopped { at: "at x".into(), stored: 1, cause };
        for (error, status) in [
            (CliError::Refused(Box::new(refusal(None, Current::Unknown))), 1),
            (CliError::Overtaken { key: "k".into(), refusal: Box::new(refused) }, 1),
            (CliError::Sessions { failed: 1, all: 2 }, 1),
            (CliError::Disagrees { found: 1 }, 1),
            (CliError::Usage("u".into()), 2),
            (file, 2),
            (CliError::Output(io(io::ErrorKind::StorageFull)), 2),
            (CliError::Output(io(io::ErrorKind::BrokenPipe)), 0),
            (stopped(Box::new(unreachable)), 3),
            (stopped(Box::new(CliError::Usage("u".into()))), 2),
            (cut, 3),
            (answer, 3),
            (stranger, 3),
        ] {
            assert_eq!(error.exit_code(), status, "{error}");
        }
    }

    #[test]
    fn a_refusal_names_the_current_version() {
        let text = |r: Refusal| r.to_string();
        let current = |value: Option<&str>| {
            let value = value.map(str::to_owned);
            let current = Current::Version { uuid: "u1".into(), timestamp: 7, value };
            text(refusal(Some("precondition_failed"), current))
        };
        let words = "precondition_failed: no; the current version is uuid=u1 timestamp=7";
        assert_eq!(current(None), words);
        assert_eq!(current(Some("free")), format!("{words}, value: free"));
        let absent = text(refusal(Some("precondition_failed"), Current::None));
        assert!(absent.ends_with("; the key has no live value"), "{absent}");
        let mut later = refusal(None, Current::Unknown);
        later.retry_after = Some(Duration::from_secs(2));
        assert_eq!(text(later), "refused with HTTP status 412: no; try again in 2 s");
    }

    #[test]
    fn every_error_is_one_line_of_json_too() {
        let mut refusal = refusal(Some("syncing"), Current::Unknown);
        refusal.body = b"{\"code\":\"syncing\",\n\"status\":503}".to_vec();
        let refused = CliError::Refused(Box::new(refusal));
        let cause = Box::new(refused);
        let stopped = CliError::Stopped { at: "at x".into(), stored: 1, cause };
        let text = stopped.json();
        assert!(!text.contains('\n'), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["code"], &json["exit_status"]), (&"syncing".into(), &1.into()));
        assert_eq!(json["problem"]["status"], 503);
        let usage = CliError::Usage("a\nb".into()).json();
        let json: serde_json::Value = serde_json::from_str(&usage).unwrap();
        assert_eq!((&json["code"], &json["detail"]), (&"usage".into(), &"a\nb".into()));
        assert!(json.get("problem").is_none());
    }
}
