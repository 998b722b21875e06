//! What both sides of a session share: how they read a store, their limits and their errors.

use std::ops::ControlFlow;

use crate::model::{Key, Record, Timestamp};
use crate::proto::digest::{Piece, Place, ShortId, Sum};
use crate::proto::list::LIST_ITEMS_MAX;
use crate::proto::wire::WireError;

/// A record in a listing.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The bytes of its key.
    pub key: &'a [u8],
    /// Names the record among those of its range, as it is now.
    pub id: ShortId,
    /// The size of its value, in bytes.
    pub bytes: u64,
    /// The timestamp of its version.
    pub timestamp: Timestamp,
    /// The least horizon of a node that merges it; see [`Header::due`](crate::model::Header::due).
    pub due: Timestamp,
}

/// A store as a session reads it. Records and digest may change between two calls; a session then
/// moves a record in vain, or leaves one to the next session.
///
/// A range is `[from, to)` over the bytes of keys, and `to` = `None` means the end. A range from a
/// peer may be empty or upside down: it then holds no records.
pub trait Replica {
    /// Why the store cannot be read.
    type Error: std::error::Error;
    /// The sum of all records.
    fn root(&self) -> Sum;
    /// The place of a key in the digest, whether it is held or not.
    fn place(&self, key: &[u8]) -> Place;
    /// The highest level of the digest that has blocks; 0 when there is none.
    fn height(&self) -> u8;
    /// How many boundaries of `level` lie inside a range, counted up to `most`.
    fn boundaries(&self, level: u8, from: &[u8], to: Option<&[u8]>, most: usize) -> usize;
    /// The sum of a range.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn sum(&self, from: &[u8], to: Option<&[u8]>) -> Result<Sum, Self::Error>;
    /// A range cut at the boundaries of `level` inside it, in key order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn pieces(&self, level: u8, from: &[u8], to: Option<&[u8]>) -> Result<Vec<Piece>, Self::Error>;
    /// Visits the records of a range in key order until `visit` breaks.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn list(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;
    /// The record of a key, dead or alive; `None` when the store holds none.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn record(&self, key: &Key) -> Result<Option<Record>, Self::Error>;
    /// The short id that [`Replica::list`] shows for `record` at `key`.
    fn id(&self, key: &Key, record: &Record) -> ShortId;
}

/// How much one side of a session handles at once. Two sides with different limits work together.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// A range of at most this many records is listed instead of cut.
    pub listed_max: u64,
    /// The most blocks into which a range is cut at once; at least 1.
    pub children_max: usize,
    /// The most ranges in one request; at least 1, and at most that of [`SessionLimits::STANDARD`],
    /// because responders refuse more.
    pub ranges_max: usize,
    /// The most short ids of one range in a request; at least 1.
    pub ids_max: usize,
    /// The most bytes of records in a frame, unless a single record is larger.
    pub records_bytes_max: usize,
}

impl SessionLimits {
    /// The limits of every node.
    pub const STANDARD: Self = Self {
        listed_max: 24,
        children_max: 64,
        ranges_max: 256,
        ids_max: 4096,
        records_bytes_max: 1 << 20,
    };

    /// Checks that a session with these limits makes progress and sends no list that a peer
    /// refuses.
    ///
    /// # Panics
    /// When a limit is outside of its range: a bug.
    pub fn check_invariants(&self) {
        assert!(self.children_max > 0, "a range is cut into at least one block");
        let ranges = 1..=Self::STANDARD.ranges_max;
        assert!(ranges.contains(&self.ranges_max), "a responder refuses this many ranges");
        assert!((1..=LIST_ITEMS_MAX).contains(&self.ids_max), "a peer refuses this many ids");
        let listed = usize::try_from(self.listed_max);
        assert!(listed.is_ok_and(|n| n <= LIST_ITEMS_MAX), "a peer refuses this many ids");
    }
}

/// Why a session ended early. The records merged until then stay merged.
#[derive(Debug, thiserror::Error)]
pub enum SessionError<E> {
    /// This node's store cannot be read.
    #[error("cannot read the store: {0}")]
    Store(E),
    /// The peer receives many records from another one. Try again later.
    #[error("the peer is catching up with another one")]
    Busy,
    /// The peer takes no records for a while; what it has was received. Try again later.
    #[error("the peer takes no records now: {0}")]
    Paused(String),
    /// The peer reports that it cannot go on.
    #[error("the peer gave up: {0}")]
    Peer(String),
    /// The peer sent a message that breaks the protocol at this point.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl<E> From<WireError> for SessionError<E> {
    fn from(error: WireError) -> Self {
        Self::Malformed(error.0)
    }
}
