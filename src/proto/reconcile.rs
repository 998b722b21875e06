//! Reconcile: finds the records in which two stores differ and moves just those, both ways.
//!
//! One side drives a session with [`Puller`], the other answers each request by itself with
//! [`respond`] and keeps no state. The driver compares roots, has differing ranges cut into blocks
//! and compares these (Merkle, 1987; ranges by Meyer, "Range-Based Set Reconciliation", 2023),
//! until a range holds few records; then it lists its own by short ids, gets what it lacks, and
//! gives what the other lacks. A cut session starts over: the difference has shrunk. Concurrent
//! writes cost at most a record sent for nothing, because every record goes through the ordinary
//! merge. Pure: what is stored is read through [`Replica`], and what is to be merged is handed out.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::digest::{self, Place, ShortId, Sum};
use super::wire::{
    self, Child, Given, Mode, Piece, Range, Request, Response, Wanted, WireError, WireRecord,
};
use crate::model::member::Report;
use crate::model::{Key, Record};

/// A record as a listing shows it.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its short id.
    pub id: ShortId,
    /// The size of its value.
    pub bytes: u64,
}

/// What a session reads of a store.
pub trait Replica {
    /// Why it cannot be read.
    type Error: std::error::Error;
    /// The sum of everything.
    fn root(&self) -> Sum;
    /// Where a key stands in the digest.
    fn place(&self, key: &[u8]) -> Place;
    /// The highest level that has blocks.
    fn height(&self) -> u8;
    /// How many boundaries of a level a range has inside, counted up to `most`.
    fn boundaries(&self, level: u8, from: &[u8], to: Option<&[u8]>, most: usize) -> usize;
    /// The sum of a range.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn sum(&self, from: &[u8], to: Option<&[u8]>) -> Result<Sum, Self::Error>;
    /// A range cut at the boundaries of a level: start and sum of each piece.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn pieces(
        &self,
        level: u8,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Vec<digest::Piece>, Self::Error>;
    /// Visits the records of a range in key order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn list(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;
    /// The record of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn record(&self, key: &Key) -> Result<Option<Record>, Self::Error>;
    /// The short id of a record.
    fn id(&self, key: &Key, record: &Record) -> ShortId;
}

/// The limits of a session. Both sides work with any values of the other.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A range of at most this many records is listed instead of cut.
    pub listed_max: u64,
    /// The most blocks that a range is cut into at once.
    pub children_max: usize,
    /// The most ranges in one request.
    pub ranges_max: usize,
    /// The most short ids in one request.
    pub ids_max: usize,
    /// Records in a frame add up to about this, or are one larger record.
    pub records_bytes_max: usize,
}

impl Limits {
    /// The limits in use.
    pub const STANDARD: Self = Self {
        listed_max: 24,
        children_max: 64,
        ranges_max: 256,
        ids_max: 4096,
        records_bytes_max: 1 << 20,
    };
}

/// How many neighbouring blocks are joined in an answer at most, before a higher level is taken.
const JOINED_MAX: usize = 8;

/// Why a session ends early. What was merged until then stays merged.
#[derive(Debug, thiserror::Error)]
pub enum SessionError<E> {
    /// This node's store cannot be read.
    #[error("cannot read the store: {0}")]
    Store(E),
    /// The other side takes in much from another peer. Try again later.
    #[error("the peer is catching up with another one")]
    Busy,
    /// The other side said that it cannot go on.
    #[error("the peer gave up: {0}")]
    Peer(String),
    /// The other side sent what no peer sends at this point.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl<E> From<WireError> for SessionError<E> {
    fn from(error: WireError) -> Self {
        Self::Malformed(error.0)
    }
}

/// What the answering side does with a request.
#[derive(Debug)]
pub enum Reply {
    /// Sends this.
    Answer(Response),
    /// Merges these records, then sends [`Response::Taken`].
    Apply(Vec<(Key, Record)>),
}

/// What the answering side tells of itself.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    /// What it has.
    pub report: Report,
    /// Whether it is taking in much from another peer, so that a session had better wait.
    pub busy: bool,
}

/// Answers one request. `answering` is what this side tells of itself.
///
/// # Errors
/// When the store cannot be read, or the request breaks a rule.
pub fn respond<R: Replica>(
    request: Request,
    replica: &R,
    answering: Answering,
    limits: &Limits,
) -> Result<Reply, SessionError<R::Error>> {
    let report = answering.report;
    let answer = match request {
        Request::Begin { root, .. } if answering.busy && root != replica.root() => Response::Busy,
        Request::Begin { .. } => Response::Begun { report, root: replica.root() },
        Request::Cut(ranges) => {
            bounded(ranges.len(), Limits::STANDARD.ranges_max)?;
            let cut = |(range, level): &(Range, u8)| cut(replica, range, *level, limits);
            Response::Pieces(ranges.iter().map(cut).collect::<Result<_, _>>()?)
        }
        Request::Want(wanted) => {
            bounded(wanted.len(), Limits::STANDARD.ranges_max)?;
            give(replica, &wanted, limits)?
        }
        Request::Give(records) => return Ok(Reply::Apply(checked(records)?)),
        Request::End(_) => Response::Ended(report),
    };
    Ok(Reply::Answer(answer))
}

fn bounded<E>(ranges: usize, most: usize) -> Result<(), SessionError<E>> {
    if ranges <= most {
        Ok(())
    } else {
        Err(SessionError::Malformed(format!("{ranges} ranges in one request")))
    }
}

fn checked(records: Vec<WireRecord>) -> Result<Vec<(Key, Record)>, WireError> {
    records.into_iter().map(WireRecord::checked).collect()
}

fn cut<R: Replica>(
    replica: &R,
    range: &Range,
    level: u8,
    limits: &Limits,
) -> Result<Piece, SessionError<R::Error>> {
    let (from, to) = (&*range.from, range.to.as_deref());
    let held = replica.sum(from, to).map_err(SessionError::Store)?;
    if held.count <= limits.listed_max {
        let mut ids = Vec::new();
        let collect = &mut |listed: Listed<'_>| {
            ids.push(listed.id);
            ControlFlow::Continue(())
        };
        replica.list(from, to, collect).map_err(SessionError::Store)?;
        return Ok(Piece::Ids(ids));
    }
    let mut level = level.clamp(1, replica.height().max(1));
    let most = limits.children_max.saturating_mul(JOINED_MAX);
    let too_many = |level| replica.boundaries(level, from, to, most + 1) > most;
    while level < replica.height() && too_many(level) {
        level += 1;
    }
    let pieces = replica.pieces(level, from, to).map_err(SessionError::Store)?;
    // the next higher level may have no boundary here at all: rather blocks are joined
    let joined = pieces.len().div_ceil(limits.children_max.max(1)).max(1);
    let child = |(at, pieces): (usize, &[digest::Piece])| {
        let mut all = Sum::default();
        for (_, sum) in pieces {
            all.add_sum(sum);
        }
        let start = pieces.first().filter(|_| at > 0);
        let short = start.map_or(0, |(start, _)| replica.place(start).short);
        Child { short, count: all.count, low: all.low().to_le_bytes() }
    };
    Ok(Piece::Children { level, children: pieces.chunks(joined).enumerate().map(child).collect() })
}

/// Answers wanted ranges in order until the frame is full.
fn give<R: Replica>(
    replica: &R,
    wanted: &[Wanted],
    limits: &Limits,
) -> Result<Response, SessionError<R::Error>> {
    let (mut answers, mut room) = (Vec::new(), limits.records_bytes_max);
    for wanted in wanted {
        let given = give_range(replica, wanted, &mut room, limits)?;
        if given.resume.is_some() && given.records.is_empty() && !answers.is_empty() {
            // its first record finds no room: it is asked for again
            break;
        }
        let full = given.resume.is_some();
        answers.push(given);
        if full {
            break;
        }
    }
    Ok(Response::Given(answers))
}

fn give_range<R: Replica>(
    replica: &R,
    wanted: &Wanted,
    room: &mut usize,
    limits: &Limits,
) -> Result<Given, SessionError<R::Error>> {
    let ids: BTreeSet<ShortId> = wanted.ids.iter().copied().collect();
    let (mut seen, mut keys, mut resume) = (BTreeSet::new(), Vec::new(), None);
    let range = &wanted.range;
    let walk = &mut |listed: Listed<'_>| {
        let is_listed = ids.contains(&listed.id);
        if is_listed {
            seen.insert(listed.id);
        }
        if is_listed == (wanted.mode == Mode::Only) && resume.is_none() {
            let size = wire::record_bytes(listed.key.len(), listed.bytes);
            // the first record of a frame always goes, however large
            if size <= *room || *room == limits.records_bytes_max {
                keys.push(Key::from_bytes(listed.key));
                *room = room.saturating_sub(size);
            } else {
                resume = Some(Bytes::copy_from_slice(listed.key));
            }
        }
        let all_known = wanted.mode != Mode::AllBut || seen.len() == ids.len();
        if resume.is_some() && all_known {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    replica.list(&range.from, range.to.as_deref(), walk).map_err(SessionError::Store)?;
    let (mut records, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        let key = key.map_err(|e| SessionError::Malformed(e.to_string()))?;
        let Some(record) = replica.record(&key).map_err(SessionError::Store)? else { continue };
        let record = WireRecord::new(key, record);
        bytes += record.size();
        if bytes > limits.records_bytes_max && !records.is_empty() {
            // one has grown since it was listed
            resume = Some(Bytes::copy_from_slice(record.key.as_bytes()));
            break;
        }
        records.push(record);
    }
    let unknown = |(at, id): (usize, &ShortId)| {
        (!seen.contains(id)).then(|| u32::try_from(at).unwrap_or(u32::MAX))
    };
    let unknown = match wanted.mode {
        Mode::AllBut => wanted.ids.iter().enumerate().filter_map(unknown).collect(),
        Mode::Only | Mode::AllButAgain => Vec::new(),
    };
    Ok(Given { records, unknown, resume })
}

pub use super::pull::{Puller, Step, Tally};

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
