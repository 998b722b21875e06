//! The one body that all accepted writes of a single key share.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::nullable::Nullable;
use super::schema::{KeySchema, MicrosSchema, MomentSchema};
use crate::model::{Key, Timestamp};
use crate::store::Written;

/// The body of an accepted write.
#[derive(Serialize, JsonSchema)]
pub(crate) struct WrittenBody<'a> {
    /// `true` in the answer to a swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    swapped: Option<bool>,
    #[schemars(with = "KeySchema")]
    key: &'a str,
    uuid: Uuid,
    #[schemars(with = "MicrosSchema")]
    timestamp: Timestamp,
    /// The node that accepted the write.
    origin: Uuid,
    /// `local`: this node decided alone. No other node was asked, and another one may accept a
    /// write on the same condition at the same time: send all clients of a key to one node.
    scope: &'static str,
    /// `true` in the answer to a delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    deleted: Option<bool>,
    /// In the answer to a swap: the live value that it replaced, or `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Nullable<Previous>")]
    previous: Option<Nullable<Previous>>,
    /// Missing for a value that does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MomentSchema")]
    expires_at: Option<String>,
}

/// The version that a swap replaced.
#[derive(Serialize, JsonSchema)]
struct Previous {
    uuid: Uuid,
    #[schemars(with = "MicrosSchema")]
    timestamp: Timestamp,
}

impl<'a> WrittenBody<'a> {
    /// The body of an accepted put.
    pub(crate) fn put(key: &'a Key, written: &Written) -> Self {
        let header = &written.header;
        Self {
            swapped: None,
            key: key.as_str(),
            uuid: header.version.uuid,
            timestamp: header.version.timestamp,
            origin: header.origin.uuid(),
            scope: "local",
            deleted: None,
            previous: None,
            expires_at: header.expires_at.map(Timestamp::rfc3339),
        }
    }

    /// The body of an accepted delete.
    pub(crate) fn delete(key: &'a Key, written: &Written) -> Self {
        Self { deleted: Some(true), ..Self::put(key, written) }
    }

    /// The body of an accepted compare-and-swap.
    pub(crate) fn swap(key: &'a Key, written: &Written) -> Self {
        let previous = written.previous.map(|(uuid, timestamp)| Previous { uuid, timestamp });
        Self { swapped: Some(true), previous: Some(Nullable(previous)), ..Self::put(key, written) }
    }
}
