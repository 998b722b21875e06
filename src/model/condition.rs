//! Compare-and-swap conditions, and the one function that decides them.
//!
//! Every conditional write, whatever its form, ends here: the writer loads the live current record
//! of the key, this decides, nothing in between. What must see the value may be decided beforehand,
//! which then counts for that very record only. A dead record is no current record.

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::{Content, Header, Timestamp, json};

/// What a client expects the current record to be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Expected {
    /// The version with this uuid.
    Uuid(Uuid),
    /// The version with this timestamp, as it was read from this node.
    Timestamp(Timestamp),
    /// The version with both.
    Version {
        /// Its uuid.
        uuid: Uuid,
        /// Its timestamp.
        timestamp: Timestamp,
    },
    /// A value that is acceptable JSON and means the same as this one.
    Json(json::Text),
    /// A value of exactly these bytes.
    Bytes(Bytes),
    /// No live value.
    Absent,
    /// Any live value.
    Exists,
}

/// The entity tags of a conditional header; weak ones are already left out of `If-Match`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Tags {
    /// `*`
    Any,
    /// The uuids of a list. A tag that is no uuid names no version and is left out.
    These(Vec<Uuid>),
}

/// One condition on the current record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Condition {
    /// An `expected` of the compare-and-swap API.
    Expect(Expected),
    /// `If-Match` (RFC 9110, section 13.1.1): there is a live value and a tag names it.
    Match(Tags),
    /// `If-None-Match` (RFC 9110, section 13.1.2): no tag names the live value.
    NoneMatch(Tags),
}

/// The live current record, as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct Current<'a> {
    /// Its header.
    pub header: &'a Header,
    /// Whether on this node it displaced a record of equal timestamp, which makes its timestamp
    /// alone ambiguous to whoever read the other one.
    pub displaced_twin: bool,
    /// Its bytes; needed where [`Condition::needs_body`] says so, else they may be left out.
    pub body: Option<&'a [u8]>,
}

impl Condition {
    /// Whether the decision must see the bytes of the value.
    #[must_use]
    pub fn needs_body(&self) -> bool {
        matches!(self, Self::Expect(Expected::Json(_)))
    }

    /// Whether it can hold for the version of this uuid alone, or of others that it names beside.
    #[must_use]
    pub fn expects(&self, uuid: Uuid) -> bool {
        match self {
            Self::Expect(Expected::Uuid(expected) | Expected::Version { uuid: expected, .. }) => {
                *expected == uuid
            }
            Self::Match(Tags::These(uuids)) => uuids.contains(&uuid),
            Self::Expect(_) | Self::Match(Tags::Any) | Self::NoneMatch(_) => false,
        }
    }

    /// Decides the condition against the live current record, if there is one.
    #[must_use]
    pub fn holds(&self, current: Option<Current<'_>>) -> bool {
        let named = |tags: &Tags| match tags {
            Tags::Any => current.is_some(),
            Tags::These(uuids) => current.is_some_and(|c| uuids.contains(&c.header.version.uuid)),
        };
        match self {
            Self::Expect(expected) => expected.holds(current),
            Self::Match(tags) => named(tags),
            Self::NoneMatch(tags) => !named(tags),
        }
    }
}

impl Expected {
    fn holds(&self, current: Option<Current<'_>>) -> bool {
        let Some(current) = current else { return matches!(self, Self::Absent) };
        let version = &current.header.version;
        match self {
            Self::Uuid(uuid) => version.uuid == *uuid,
            Self::Timestamp(timestamp) => {
                version.timestamp == *timestamp && !current.displaced_twin
            }
            Self::Version { uuid, timestamp } => {
                version.uuid == *uuid && version.timestamp == *timestamp
            }
            Self::Json(expected) => current.body.is_some_and(|body| expected.equals(body)),
            Self::Bytes(bytes) => match &current.header.content {
                Content::Value { size, hash, .. } => {
                    *size == bytes.len() as u64 && blake3::hash(bytes) == *hash
                }
                Content::Tombstone => false,
            },
            Self::Absent => false,
            Self::Exists => true,
        }
    }
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
