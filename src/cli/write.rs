//! Common parts of the commands that write: the options `--ttl` and `--uuid`, reading a value from
//! the command line, a file or standard input, and sending a write and printing its answer.
//!
//! Bounds what it reads. Must not know which command it serves.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::Args;
use serde::Deserialize;
use uuid::Uuid;

use super::client::Client;
use super::error::CliError;
use super::media;
use super::output::{Output, printable};
use super::ttl::Ttl;
use crate::model::{ContentType, json};

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
    #[arg(long, value_name = "UUID", value_parser = parse_uuid)]
    pub uuid: Option<Uuid>,
}

/// Reads a uuid, for clap.
///
/// # Errors
/// How one is written.
pub fn parse_uuid(text: &str) -> Result<Uuid, String> {
    let example = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    text.parse().map_err(|_| format!("it is no uuid; write one like {example}"))
}

/// A value, and the content type that the name of its file tells.
#[derive(Debug, PartialEq, Eq)]
pub struct GivenValue {
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// `None` unless it came from a file with a telling name.
    pub content_type: Option<ContentType>,
}

/// Returns the value from the command line; or, of the form `@FILE`, from that file; or reads
/// standard input if there is none or it is `-`.
///
/// # Errors
/// [`CliError::File`], or [`CliError::Usage`] above [`VALUE_BYTES_MAX`] and when standard input is
/// empty and was not asked for: a value that was forgotten must not empty the key.
pub fn read_value(value: Option<OsString>, stdin: &mut dyn Read) -> Result<GivenValue, CliError> {
    let is_asked_for = value.is_some();
    let Some(value) = value.filter(|value| value != "-") else {
        let what = "the value on standard input";
        let bytes = read_all(stdin, Path::new("standard input"), what, VALUE_BYTES_MAX)?;
        if bytes.is_empty() && !is_asked_for {
            return Err(CliError::Usage(
                "no value: it is neither an argument nor on standard input, which is empty; to \
                 store an empty value, give `''` or `-` for it"
                    .to_owned(),
            ));
        }
        return Ok(GivenValue { bytes, content_type: None });
    };
    let Some(path) = value.as_bytes().strip_prefix(b"@").map(OsStr::from_bytes) else {
        return Ok(GivenValue { bytes: value.into_vec(), content_type: None });
    };
    let path = Path::new(path);
    let mut file = File::open(path).map_err(|error| {
        CliError::Usage(format!(
            "cannot read {}: {error}; `@FILE` stores a file; to store text that begins with `@`, \
             give it on standard input",
            path.display()
        ))
    })?;
    let what = format!("the value in {}", path.display());
    let bytes = read_all(&mut file, path, &what, VALUE_BYTES_MAX)?;
    Ok(GivenValue { bytes, content_type: media::type_of(path) })
}

/// Checks that a value that was said to be JSON is JSON that a node shows as such.
///
/// # Errors
/// [`CliError::Usage`] with the place of the mistake.
pub fn check_json(value: &[u8]) -> Result<(), CliError> {
    json::check(value).map_err(|e| {
        CliError::Usage(format!("the value is not JSON: {e}; to store any bytes, leave out --json"))
    })
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

/// What every answer about one version has: that to a write, and an envelope.
#[derive(Deserialize)]
pub struct Written {
    /// The key.
    pub key: String,
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
    let written: Written = client.parse(&body)?;
    if out.is_json() {
        return out.json(&body);
    }
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
    fn reading_a_value_is_bounded() {
        let read = |stdin: &mut dyn Read| read_value(None, stdin);
        let exact = read(&mut std::io::repeat(0).take(VALUE_BYTES_MAX as u64)).unwrap();
        assert_eq!(exact.bytes.len(), VALUE_BYTES_MAX);
        let error = read(&mut std::io::repeat(0)).expect_err("too large");
        assert!(error.exit_code() == 2 && error.to_string().contains("16 MiB"), "{error}");
    }

    #[test]
    fn a_value_that_was_forgotten_is_no_empty_one() {
        let given = |value: Option<&str>| read_value(value.map(Into::into), &mut std::io::empty());
        let error = given(None).expect_err("no value");
        assert!(error.exit_code() == 2 && error.to_string().contains("`''`"), "{error}");
        for empty in ["", "-"] {
            assert!(given(Some(empty)).unwrap().bytes.is_empty());
        }
    }

    #[test]
    fn a_value_may_come_from_a_file_whose_name_tells_its_type() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("limits.json");
        std::fs::write(&file, b"{\"n\": 5}\n").unwrap();
        let given = |text: &str| read_value(Some(text.into()), &mut std::io::empty());
        let at = |path: &Path| given(&format!("@{}", path.display()));
        let read = at(&file).unwrap();
        assert_eq!(read.bytes, b"{\"n\": 5}\n");
        assert_eq!(read.content_type, Some(ContentType::json()));
        assert_eq!(given("a@b").unwrap().bytes, b"a@b");
        for missing in ["@no/such/file", "@"] {
            let error = given(missing).expect_err(missing);
            assert!(error.to_string().contains("standard input"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
