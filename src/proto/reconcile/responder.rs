//! The answering side of a session; see [`reconcile`](super).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::replica::{Listed, Replica, SessionError, SessionLimits};
use super::task::withhold;
use crate::model::member::Report;
use crate::model::{Key, KeyError, Record, Timestamp};
use crate::proto::digest::{Piece, ShortId, Sum};
use crate::proto::wire::{
    self, Child, CutRange, Given, Mode, Range, Request, Response, Wanted, WireError, WireRecord,
    Withheld,
};

/// How many neighbouring blocks are joined into one child at most; where that is not enough, the
/// range is cut at a higher level.
const JOINED_MAX: usize = 8;

/// What the caller does to answer a request.
#[derive(Debug)]
pub enum Reply {
    /// Send this response.
    Answer(Response),
    /// Merge these records; once they are durable, send [`Response::Taken`] with those that this
    /// side holds back.
    Apply(Vec<(Key, Record)>),
}

/// The answering side of a session.
///
/// It keeps no state between requests: make one for each request, with a fresh report, and drop it.
/// Requests may come in any order, because each one says all that its answer depends on but the
/// initiator's horizon, which the caller keeps; the stream ends when the initiator ends it. After
/// an error, send [`Response::Failed`] and end the stream.
///
/// The caller answers requests in the order in which they came, and reads the next request only
/// after the records of [`Reply::Apply`] are durable, so that a peer cannot fill this node's
/// memory.
#[derive(Clone, Copy, Debug)]
pub struct Responder {
    /// What this side reports about its store.
    pub report: Report,
    /// Set while this side receives many records from another peer: it then refuses to begin a
    /// session that would bring most of them twice.
    pub busy: bool,
    /// The initiator's horizon, as its [`Request::Begin`] told it: what lies beyond is left out.
    /// [`Timestamp::MAX`] before that.
    pub peer_horizon: Timestamp,
    /// How much it answers at once.
    pub limits: SessionLimits,
}

impl Responder {
    /// Answers one request.
    ///
    /// # Errors
    /// [`SessionError::Store`] when the store cannot be read, [`SessionError::Malformed`] when the
    /// request breaks a rule. Nothing was changed.
    pub fn respond<R: Replica>(
        &self,
        request: Request,
        replica: &R,
    ) -> Result<Reply, SessionError<R::Error>> {
        let (report, limits) = (self.report, &self.limits);
        let answer = match request {
            Request::Begin { root, .. } if self.busy && root != replica.root() => Response::Busy,
            Request::Begin { .. } => Response::Begun { report, root: replica.root() },
            Request::Cut(ranges) => {
                check_ranges(ranges.len())?;
                let cut = |(range, level): &(Range, u8)| cut(replica, range, *level, limits);
                Response::Pieces(ranges.iter().map(cut).collect::<Result<_, _>>()?)
            }
            Request::Want(wanted) => {
                check_ranges(wanted.len())?;
                give(replica, &wanted, self.peer_horizon, limits)?
            }
            Request::Give(records) => return Ok(Reply::Apply(checked(records)?)),
            Request::End { .. } => Response::Ended(report),
        };
        Ok(Reply::Answer(answer))
    }

    /// Checks what must hold before each request.
    ///
    /// # Panics
    /// When it does not: a bug of the caller.
    pub fn check_invariants(&self) {
        self.limits.check_invariants();
    }
}

fn check_ranges<E>(ranges: usize) -> Result<(), SessionError<E>> {
    if ranges <= SessionLimits::STANDARD.ranges_max {
        Ok(())
    } else {
        Err(SessionError::Malformed(format!("{ranges} ranges in one request")))
    }
}

fn checked(records: Vec<WireRecord>) -> Result<Vec<(Key, Record)>, WireError> {
    records.into_iter().map(WireRecord::checked).collect()
}

/// Lists the range when it holds few records, else cuts it at `level` or, where that gives too many
/// blocks, at a higher one.
fn cut<R: Replica>(
    replica: &R,
    range: &Range,
    level: u8,
    limits: &SessionLimits,
) -> Result<CutRange, SessionError<R::Error>> {
    let (from, to) = (&*range.from, range.to.as_deref());
    let held = replica.sum(from, to).map_err(SessionError::Store)?;
    if held.count <= limits.listed_max {
        let mut ids = Vec::new();
        let collect = &mut |listed: Listed<'_>| {
            ids.push(listed.id);
            ControlFlow::Continue(())
        };
        replica.list(from, to, collect).map_err(SessionError::Store)?;
        return Ok(CutRange::Ids(ids));
    }
    let mut level = level.clamp(1, replica.height().max(1));
    let most = limits.children_max.saturating_mul(JOINED_MAX);
    let too_many = |level| replica.boundaries(level, from, to, most.saturating_add(1)) > most;
    while level < replica.height() && too_many(level) {
        level += 1;
    }
    let pieces = replica.pieces(level, from, to).map_err(SessionError::Store)?;
    // Joining comes first, because the next higher level may have no boundary inside the range.
    let joined = pieces.len().div_ceil(limits.children_max.max(1)).max(1);
    let child = |(at, pieces): (usize, &[Piece])| {
        let mut all = Sum::default();
        for (_, sum) in pieces {
            all.add_sum(sum);
        }
        let start = pieces.first().filter(|_| at > 0);
        let short = start.map_or(0, |(start, _)| replica.place(start).short);
        Child { short, count: all.count, low: all.low().to_le_bytes() }
    };
    let children = pieces.chunks(joined).enumerate().map(child).collect();
    Ok(CutRange::Children { level, children })
}

/// Gives the records of wanted ranges, in order, until the frame is full.
fn give<R: Replica>(
    replica: &R,
    wanted: &[Wanted],
    horizon: Timestamp,
    limits: &SessionLimits,
) -> Result<Response, SessionError<R::Error>> {
    let (mut answers, mut room) = (Vec::new(), limits.records_bytes_max);
    for wanted in wanted {
        let given = give_range(replica, wanted, horizon, &mut room, limits)?;
        let is_empty = given.records.is_empty() && given.withheld.is_empty();
        if given.resume.is_some() && is_empty && !answers.is_empty() {
            // Not even its first record fits: the initiator asks for this range again.
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

/// What a listing of a wanted range found.
struct Picked {
    /// The keys of the records to give.
    keys: Vec<Result<Key, KeyError>>,
    withheld: Vec<Withheld>,
    /// The wanted ids that are here.
    seen: BTreeSet<ShortId>,
    resume: Option<Bytes>,
}

/// Lists a wanted range, and picks what is to be given while it fits into `room`, which it reduces.
fn pick<R: Replica>(
    replica: &R,
    wanted: &Wanted,
    horizon: Timestamp,
    room: &mut usize,
    limits: &SessionLimits,
) -> Result<Picked, SessionError<R::Error>> {
    let ids: BTreeSet<ShortId> = wanted.ids.iter().copied().collect();
    let winners = wanted.withheld.iter().map(|winner| (winner.key.as_bytes(), winner.timestamp));
    let winners: BTreeMap<&[u8], Timestamp> = winners.collect();
    let loses = |listed: &Listed<'_>| {
        winners.get(listed.key).is_some_and(|winner| *winner > listed.timestamp)
    };
    let (mut seen, mut keys, mut resume) = (BTreeSet::new(), Vec::new(), None);
    let (mut withheld, range) = (Vec::new(), &wanted.range);
    let walk = &mut |listed: Listed<'_>| {
        let is_listed = ids.contains(&listed.id);
        if is_listed {
            seen.insert(listed.id);
        }
        let is_wanted = is_listed == (wanted.mode == Mode::Only) && !loses(&listed);
        if is_wanted && resume.is_none() {
            let held = withhold(&listed, horizon);
            let value_bytes = if held.is_some() { 0 } else { listed.bytes };
            let size = wire::record_bytes(listed.key.len(), value_bytes);
            // The first record of a frame always goes, so that the session makes progress.
            if size <= *room || *room == limits.records_bytes_max {
                *room = room.saturating_sub(size);
                match held {
                    Some(held) => withheld.push(held),
                    None => keys.push(Key::from_bytes(listed.key)),
                }
            } else {
                resume = Some(Bytes::copy_from_slice(listed.key));
            }
        }
        // With `AllBut` the walk goes on when the frame is full, to learn which ids are unknown
        // here.
        let all_known = wanted.mode != Mode::AllBut || seen.len() == ids.len();
        if resume.is_some() && all_known {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    replica.list(&range.from, range.to.as_deref(), walk).map_err(SessionError::Store)?;
    Ok(Picked { keys, withheld, seen, resume })
}

/// Gives the records of one wanted range while they fit into `room`, which it reduces.
fn give_range<R: Replica>(
    replica: &R,
    wanted: &Wanted,
    horizon: Timestamp,
    room: &mut usize,
    limits: &SessionLimits,
) -> Result<Given, SessionError<R::Error>> {
    let picked = pick(replica, wanted, horizon, room, limits)?;
    let Picked { keys, mut withheld, seen, mut resume } = picked;
    let (mut records, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        let key = key.map_err(|e| SessionError::Malformed(e.to_string()))?;
        let Some(record) = replica.record(&key).map_err(SessionError::Store)? else { continue };
        if record.header.due(record.is_swept()) > horizon {
            // It has replaced the one that was listed.
            withheld.push(Withheld::new(key, &record));
            continue;
        }
        let record = WireRecord::new(key, record);
        bytes += record.size();
        if bytes > limits.records_bytes_max && !records.is_empty() {
            // A record has grown since it was listed.
            resume = Some(Bytes::copy_from_slice(record.key.as_bytes()));
            break;
        }
        records.push(record);
    }
    let unknown = |(at, id): (usize, &ShortId)| {
        (!seen.contains(id)).then(|| u32::try_from(at).unwrap_or(u32::MAX))
    };
    let unknown = match (wanted.mode, &resume) {
        (Mode::AllBut, _) | (Mode::Only, None) => {
            wanted.ids.iter().enumerate().filter_map(unknown).collect()
        }
        // The rest of the range may hold the others.
        (Mode::Only, Some(_)) | (Mode::AllButAgain, _) => Vec::new(),
    };
    Ok(Given { records, unknown, withheld, resume })
}
