//! Common parts of the commands that write: the options `--ttl` and `--uuid`, reading a value, and
//! sending a write and printing its answer.
//!
//! Bounds what it reads. Must not know which command it serves.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::client::Client;
use super::error::CliError;
use super::output::{Output, printable};
use crate::model::duration;

/// The largest value that any node stores; `limits.value_bytes_max` goes no higher.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// The option that limits the life of a value.
#[derive(Debug, Default, Args)]
pub struct Life {
    /// Let the value expire after this time, as in `250ms`, `90s`, `15m`, `12h` or `30d` (no unit:
    /// seconds). `keep` keeps the expiry of the value that it replaces. Default: never expire
    #[arg(long, value_name = "DURATION|keep", value_parser = Ttl::parse)]
    pub ttl: Option<Ttl>,
}

/// The option that makes a retry safe.
#[derive(Debug, Default, Args)]
pub struct Retry {
    /// Uuid of this write, new for each write. It makes a retry safe: within the node's
    /// `limits.idempotency_window` (24 h), the same command with the same uuid changes nothing on
    /// the same node and gets the first answer again
    #[arg(long, value_name = "UUID")]
    pub uuid: Option<Uuid>,
}

/// A time to live, as the option and the API write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Keeps the expiry of the value that is replaced.
    Keep,
    /// Counts from the moment of the write.
    For(Duration),
}

impl Ttl {
    /// Reads `keep` or a duration.
    ///
    /// # Errors
    /// What is wrong and what is allowed, for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "keep" {
            return Ok(Self::Keep);
        }
        duration::parse(text).map(Self::For).map_err(|e| format!("{e}; or write `keep`"))
    }

    /// The query to append to a path that has none.
    #[must_use]
    pub fn query(self) -> String {
        format!("?ttl={self}")
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::For(duration) => f.write_str(&duration::format(*duration)),
        }
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Returns the value from the command line, or reads standard input if there is none or it is `-`.
///
/// # Errors
/// [`CliError::File`], or [`CliError::Usage`] above [`VALUE_BYTES_MAX`].
pub fn value_or_stdin(value: Option<OsString>, stdin: &mut dyn Read) -> Result<Vec<u8>, CliError> {
    if let Some(value) = value.filter(|value| value != "-") {
        return Ok(value.into_vec());
    }
    let what = "the value on standard input";
    read_all(stdin, Path::new("standard input"), what, VALUE_BYTES_MAX)
}

/// Reads all of `from`. `path` and `what` describe it in errors.
///
/// # Errors
/// [`CliError::File`], or [`CliError::Usage`] above `bytes_max`.
pub fn read_all(
    from: &mut dyn Read,
    path: &Path,
    what: &str,
    bytes_max: usize,
) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = from.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| CliError::File { verb: "read", path: path.into(), error })?;
    if bytes.len() > bytes_max {
        let most = bytes_max >> 20;
        return Err(CliError::Usage(format!(
            "{what} is larger than {most} MiB, the most that a node accepts"
        )));
    }
    Ok(bytes)
}

#[derive(Deserialize)]
struct Written {
    key: String,
    uuid: String,
    timestamp: u64,
    expires_at: Option<String>,
}

/// Sends a write and prints its answer, beginning with `verb`. With `-o json` it prints the refusal
/// of a condition too, because that carries the current record.
///
/// # Errors
/// [`CliError::Refused`] for a condition that does not hold; else see [`Client::send`].
pub async fn send_write(
    client: &Client,
    request: reqwest::RequestBuilder,
    verb: &str,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let response = match client.send(request).await {
        Err(CliError::Refused(refusal))
            if refusal.status == 412 && refusal.code.is_some() && out.is_json() =>
        {
            out.json(&refusal.body)?;
            return Err(CliError::Refused(refusal));
        }
        answer => answer?,
    };
    let body = client.body(response).await?;
    if out.is_json() {
        return out.json(&body);
    }
    let written: Written = client.parse(&body)?;
    let Written { key, uuid, timestamp, expires_at } = written;
    let mut line = format!("{verb} {key}  uuid={uuid}  timestamp={timestamp}");
    if let Some(at) = expires_at {
        line = format!("{line}  expires={at}");
    }
    out.line(&printable(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_keep_or_a_duration() {
        let sent = |text| Ttl::parse(text).map(|ttl| ttl.to_string());
        for (text, form) in [("keep", "keep"), ("90", "90s"), ("1500ms", "1500ms"), ("24h", "1d")] {
            assert_eq!(sent(text).as_deref(), Ok(form));
        }
        assert_eq!(serde_json::to_string(&Ttl::parse("90").unwrap()).unwrap(), r#""90s""#);
        for bad in ["", "Keep", "0", "1w", "-1s", "1.5h", "36501d"] {
            let error = sent(bad).expect_err(bad);
            assert!(error.contains("from 1ms to 36500d") && error.ends_with("`keep`"), "{error}");
        }
    }

    #[test]
    fn reading_a_value_is_bounded() {
        let read = |stdin: &mut dyn Read| value_or_stdin(None, stdin);
        let exact = read(&mut std::io::repeat(0).take(VALUE_BYTES_MAX as u64)).unwrap();
        assert_eq!(exact.len(), VALUE_BYTES_MAX);
        let error = read(&mut std::io::repeat(0)).expect_err("too large");
        assert!(error.exit_code() == 2 && error.to_string().contains("16 MiB"), "{error}");
    }
}
