//! Compare-and-swap conditions, and the one function that decides them.
//!
//! Each form of conditional write comes down to a [`Condition`]: the writer loads the live current
//! record of the key and asks [`Condition::holds`], with no other write in between. A condition
//! that needs the value may be decided earlier; the result then counts only while that record is
//! current. A dead record counts as absent. Must not know HTTP nor how records are stored.

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::{Content, Header, Timestamp, json};

/// What a client expects of the current record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Expected {
    /// The version with this uuid.
    Uuid(Uuid),
    /// The version with this timestamp, as this node showed it. Does not hold when two records with
    /// one timestamp met on this node: see [`Current::displaced_twin`].
    Timestamp(Timestamp),
    /// The version with this uuid and this timestamp.
    Version {
        /// The uuid of the write.
        uuid: Uuid,
        /// The timestamp of the write.
        timestamp: Timestamp,
    },
    /// A value that is acceptable JSON and equal to this text; see [`json::Text::equals`].
    Json(json::Text),
    /// A value of exactly these bytes.
    Bytes(Bytes),
    /// No live value.
    Absent,
    /// A live value, with any content.
    Exists,
}

/// The entity tags of a conditional header. For `If-Match` the weak ones are already removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Tags {
    /// `*`
    Any,
    /// The uuids of a list, without the tags that are no uuid: those name no version.
    These(Vec<Uuid>),
}

/// One condition on the current record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Condition {
    /// The `expected` of the compare-and-swap API.
    Expect(Expected),
    /// `If-Match` (RFC 9110, section 13.1.1): there is a live value and a tag names it.
    Match(Tags),
    /// `If-None-Match` (RFC 9110, section 13.1.2): no tag names the live value.
    NoneMatch(Tags),
}

/// The live current record, as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct Current<'a> {
    /// The header of the record.
    pub header: &'a Header,
    /// Whether on this node the record replaced another one with the same timestamp. A client that
    /// read the other one must not match this one by its timestamp alone.
    pub displaced_twin: bool,
    /// The bytes of the value. `None` is enough unless [`Condition::needs_body`].
    pub body: Option<&'a [u8]>,
}

impl Condition {
    /// Whether [`Condition::holds`] needs the bytes of the value.
    #[must_use]
    pub fn needs_body(&self) -> bool {
        matches!(self, Self::Expect(Expected::Json(_)))
    }

    /// Whether the condition names the version with this uuid, alone or among others.
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

    /// Whether the condition holds for the live current record; `None` when there is none.
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
