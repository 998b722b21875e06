//! Shows a lost write beside its winner, and writes what is to be kept.
//!
//! Resolving is an ordinary swap that expects the version that won, so it never overwrites a later
//! write. The node decides; nothing is decided here.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use reqwest::Method;
use reqwest::header::IF_MATCH;
use uuid::Uuid;

use super::{Item, Keep, PREVIEW_CHARS_MAX, Shown, Side, envelope};
use crate::cli::cas::{Expected, Swap};
use crate::cli::client::{Client, key_path};
use crate::cli::envelope::{Envelope, preview_chars};
use crate::cli::error::CliError;
use crate::cli::lines::decode;
use crate::cli::note;
use crate::cli::output::{Grid, Output};
use crate::cli::ttl::Ttl;
use crate::cli::write::read_value;
use crate::model::{ContentType, Key};

/// Shows both writes, and what the key has now if that is another one.
pub(super) async fn show(
    client: &Client,
    key: &Key,
    item: &Item<'_>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let lost = envelope(client, item.lost)?;
    let winner = item.winner.map(|winner| envelope(client, winner)).transpose()?;
    let path = format!("{}?format=envelope&exact=true", key_path("kv", key));
    let current = match client.send(client.request(Method::GET, &path)).await {
        Ok(response) => Some(client.body(response).await?),
        Err(CliError::Refused(refusal)) if refusal.status == 404 => None,
        Err(error) => return Err(error),
    };
    let current = current.as_deref().map(|body| client.parse::<Envelope<'_>>(body)).transpose()?;
    let wide = out.is_wide();
    let row = |which: &str, envelope: &Envelope<'_>| {
        let shown = envelope.preview(preview_chars(wide, PREVIEW_CHARS_MAX));
        let (uuid, time) = (envelope.uuid.clone(), envelope.time(wide));
        vec![which.to_owned(), uuid, time, envelope.origin(), envelope.size(), shown]
    };
    let mut rows = vec![row("lost", &lost)];
    rows.extend(winner.as_ref().map(|winner| row("winner", winner)));
    let moved_on = match (&current, &winner) {
        (Some(current), Some(winner)) => current.uuid != winner.uuid,
        (None, Some(winner)) => !winner.deleted,
        (current, None) => current.is_some(),
    };
    let mut expect = String::new();
    if moved_on {
        rows.push(current.as_ref().map_or_else(
            || ["now", "-", "-", "-", "-", "(no value)"].map(str::to_owned).to_vec(),
            |current| row("now", current),
        ));
        expect = current.map_or(String::new(), |now| format!(" --expect-uuid {}", now.uuid));
    }
    let header = vec!["WHICH", "UUID", "TIME", "ORIGIN", "SIZE", "VALUE"];
    out.table(&mut Grid::new(header, &[4]).whole(&[1]), &rows)?;
    out.flush()?;
    note(&format!(
        "to write one of them: kvs superseded --resolve '{key}' --keep lost{expect} (or `winner`, \
         or `@FILE`); --get lost, --get winner print a whole value"
    ));
    Ok(())
}

impl Side {
    fn content<'a>(self, client: &Client, item: &Item<'a>) -> Result<Shown<'a>, CliError> {
        let raw = match self {
            Self::Lost => Some(item.lost),
            Self::Winner => item.winner,
        };
        let none = || CliError::Usage("the node does not know which write won".to_owned());
        let raw = raw.ok_or_else(none)?;
        client.parse(raw.get().as_bytes())
    }

    /// The bytes of the value, and their type.
    pub(super) async fn value(
        self,
        client: &Client,
        key: &Key,
        item: &Item<'_>,
    ) -> Result<(Vec<u8>, ContentType), CliError> {
        let content = self.content(client, item)?;
        let content_type = content.content_type.clone();
        let content_type = content_type.unwrap_or_else(ContentType::octet_stream);
        if content.deleted {
            return Err(CliError::Usage("this write is a delete and has no value".to_owned()));
        }
        let bytes = match (content.data, &content.data_base64, self) {
            (Some(json), _, _) => json.get().as_bytes().to_vec(),
            (None, Some(text), _) => {
                decode(text).map_err(|_| client.bad_answer("its value is no base64"))?
            }
            (None, None, Self::Lost) => {
                let text = "the node has not kept the value of this write: its disk damaged it";
                return Err(CliError::Usage(text.to_owned()));
            }
            // too large for the report
            (None, None, Self::Winner) => {
                let tag = format!("\"{}\"", content.uuid);
                let request = client.request(Method::GET, &key_path("kv", key));
                let response = client.send(request.header(IF_MATCH, tag)).await;
                client.value(response.map_err(|error| moved_on(key, error))?).await?
            }
        };
        Ok((bytes, content_type))
    }
}

/// How to write what is kept.
pub(super) struct Resolution<'a> {
    pub key: &'a Key,
    pub expect_uuid: Option<Uuid>,
    pub ttl: Option<Ttl>,
}

impl Resolution<'_> {
    /// Writes what is kept by a swap on the winner.
    pub async fn write(
        &self,
        client: &Client,
        item: &Item<'_>,
        keep: Keep,
        stdin: &mut dyn Read,
        out: &mut Output<'_>,
    ) -> Result<(), CliError> {
        let winner = item.winner.map(|_| Side::Winner.content(client, item)).transpose()?;
        let won = winner.as_ref().filter(|winner| !winner.deleted).map(|winner| winner.uuid);
        let expected = match self.expect_uuid.or(won) {
            None => Expected { absent: true, ..Expected::default() },
            uuid => Expected { uuid, ..Expected::default() },
        };
        let swap = match keep {
            Keep::Side(side) if side.content(client, item)?.deleted => {
                if expected.absent || self.ttl.is_some() {
                    let text = "the write to keep is a delete, and the key has no value: there is \
                                nothing to write";
                    return Err(CliError::Usage(text.to_owned()));
                }
                Swap::of_delete(expected)
            }
            Keep::Side(side) => {
                let (bytes, content_type) = side.value(client, self.key, item).await?;
                // what is kept lives on as it did
                let same =
                    (side == Side::Winner && self.expect_uuid.is_none()).then_some(Ttl::Keep);
                Swap::of_bytes(expected, &bytes, content_type).lasting(self.ttl.or(same))
            }
            Keep::Value(value) => {
                let is_file = value.as_bytes().starts_with(b"@");
                let given = read_value(Some(value), stdin)?;
                // merged by hand, it is likely what the two were
                let lost = Side::Lost.content(client, item)?.content_type;
                let content_type = given.content_type.filter(|_| is_file).or(lost);
                let content_type = content_type.or(winner.and_then(|winner| winner.content_type));
                let content_type = content_type.unwrap_or_else(ContentType::octet_stream);
                Swap::of_bytes(expected, &given.bytes, content_type).lasting(self.ttl)
            }
        };
        let sent = swap.send(client, self.key, "resolved", out).await;
        sent.map_err(|error| moved_on(self.key, error))
    }
}

/// Says what a failed condition means here.
fn moved_on(key: &Key, error: CliError) -> CliError {
    match error {
        CliError::Refused(refusal) if refusal.status == 412 => {
            CliError::MovedOn { key: key.to_string(), refusal }
        }
        error => error,
    }
}
