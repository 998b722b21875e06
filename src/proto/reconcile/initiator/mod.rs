//! The driving side of a session; see [`reconcile`](super).
//!
//! It works through a stack of tasks: differences that are known and not yet settled. Each step
//! sends the tasks on top as one request, or returns records to merge.

mod ask;
mod held;
mod invariants;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::ahead::{Ahead, HeldDifference};
use super::align::{Differing, align};
use super::replica::{Listed, Replica, SessionError, SessionLimits};
use super::task::{Task, WITHHELD_MAX, rest_of, withhold};
use crate::model::member::Report;
use crate::model::{Key, Record, Timestamp};
use crate::proto::digest::{ShortId, Sum};
use crate::proto::wire::{CutRange, Given, Mode, Range, Request, Response, Wanted};

/// What the caller of [`Initiator::poll`] does next.
#[derive(Debug)]
pub enum Step {
    /// Send this, and pass the response to [`Initiator::handle`].
    Send(Request),
    /// Merge these, then poll again.
    Apply(Vec<(Key, Record)>),
    /// This side holds records at these keys that the responder does not hold, and gives none:
    /// decide what becomes of them, then poll again. Only in a session that receives.
    Surplus(Vec<Key>),
    /// The session is done. The report is what the responder has now.
    Done(Report),
}

/// What a session has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests sent.
    pub rounds: u64,
    /// Records sent to the responder.
    pub records_sent: u64,
    /// Records received from the responder.
    pub records_received: u64,
}

/// The request that is next.
#[derive(Clone, Debug)]
enum Phase {
    /// `Begin`.
    Beginning,
    /// Those of the tasks.
    Working,
    /// `End`: all tasks are settled.
    Ending,
    /// None: the responder answered `End`.
    Done(Report),
}

/// The driving side of a session.
///
/// - [`Initiator::poll`] and [`Initiator::handle`] move the session; both read the store and may
///   block on it. The other methods only look.
/// - Poll until a step is [`Step::Send`], send that request, and handle its response before the
///   next poll: one request is under way at a time. After [`Step::Apply`] merge the records before
///   the next poll, or the session gives back what it has just received.
/// - Pass one and the same store to all calls.
/// - The session is done after [`Step::Done`], which further polls repeat, or after the first
///   error: then drop it, and begin a new one when the difference still matters.
///
/// It needs no time. A caller that gets no response drops the session.
#[derive(Debug)]
pub struct Initiator {
    limits: SessionLimits,
    tasks: Vec<Task>,
    /// The tasks of the request under way, in its order: all cuts or all wants. None for the other
    /// kinds of requests.
    asked: Vec<Task>,
    to_apply: Vec<(Key, Record)>,
    phase: Phase,
    /// Whether a request is under way.
    waiting: bool,
    tally: Tally,
    peer: Option<Report>,
    /// Why the responder takes no records, once it said so. The session then only receives.
    paused: Option<String>,
    /// Whether it gives records at all.
    gives: bool,
    /// What a session that only receives found to be held by this side alone.
    surplus: Vec<Key>,
    ahead: Ahead,
}

type Fallible<T, R> = Result<T, SessionError<<R as Replica>::Error>>;

impl Initiator {
    /// A session that has not begun.
    ///
    /// # Panics
    /// When a limit is out of range; see [`SessionLimits`].
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self::knowing(limits, None)
    }

    /// A session that has not begun, with the peer between which and this node an earlier session
    /// found nothing but `known`. It ends early where that still is all.
    ///
    /// # Panics
    /// When a limit is out of range; see [`SessionLimits`].
    #[must_use]
    pub fn knowing(limits: SessionLimits, known: Option<HeldDifference>) -> Self {
        limits.check_invariants();
        Self {
            limits,
            tasks: Vec::new(),
            asked: Vec::new(),
            to_apply: Vec::new(),
            phase: Phase::Beginning,
            waiting: false,
            tally: Tally::default(),
            peer: None,
            paused: None,
            gives: true,
            surplus: Vec::new(),
            ahead: Ahead::knowing(known),
        }
    }

    /// A session that receives and gives nothing, as that of a node which is not counted yet.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn receiving(limits: SessionLimits) -> Self {
        Self { gives: false, ..Self::new(limits) }
    }

    /// What the session has done so far; after an error too.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether a difference is known that is not settled yet.
    #[must_use]
    pub fn differs(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// What the responder reported at the beginning; `None` until then.
    #[must_use]
    pub fn peer(&self) -> Option<Report> {
        self.peer
    }

    /// The next step. `report` is what this side reports about its store, if the step does.
    ///
    /// # Errors
    /// When the store cannot be read; [`SessionError::Paused`] in the place of the end, when the
    /// responder did not take what it was given.
    ///
    /// # Panics
    /// When a request is under way.
    pub fn poll<R: Replica>(&mut self, replica: &R, report: Report) -> Fallible<Step, R> {
        assert!(!self.waiting, "the response to the request under way comes first");
        if !self.to_apply.is_empty() {
            return Ok(Step::Apply(std::mem::take(&mut self.to_apply)));
        }
        let request = match &self.phase {
            Phase::Done(report) => return Ok(Step::Done(*report)),
            Phase::Beginning => {
                self.ahead.begin(report.horizon);
                Request::Begin { report, root: replica.root() }
            }
            Phase::Ending => Request::End { report, held: self.held() },
            Phase::Working => {
                let request = self.next_request(replica)?;
                if !self.surplus.is_empty() {
                    return Ok(Step::Surplus(std::mem::take(&mut self.surplus)));
                }
                if let Some(request) = request {
                    request
                } else if let Some(why) = &self.paused {
                    // not ended: the responder lacks what it did not take
                    return Err(SessionError::Paused(why.clone()));
                } else {
                    self.phase = Phase::Ending;
                    Request::End { report, held: self.held() }
                }
            }
        };
        self.tally.rounds += 1;
        self.waiting = true;
        self.debug_check();
        Ok(Step::Send(request))
    }

    /// Handles the response to the request under way.
    ///
    /// # Errors
    /// [`SessionError::Malformed`] for a response to something else, [`SessionError::Busy`] and
    /// [`SessionError::Peer`] when the responder refuses, [`SessionError::Store`] when the store
    /// cannot be read.
    pub fn handle<R: Replica>(&mut self, replica: &R, response: Response) -> Fallible<(), R> {
        let asked = std::mem::take(&mut self.asked);
        if !std::mem::take(&mut self.waiting) {
            return Err(SessionError::Malformed("a response without a request".to_owned()));
        }
        match (response, &self.phase) {
            (Response::Busy, Phase::Beginning) => return Err(SessionError::Busy),
            (Response::Failed(why), _) => return Err(SessionError::Peer(why)),
            (Response::Begun { report, root }, Phase::Beginning) => {
                self.peer = Some(report);
                self.phase = Phase::Working;
                self.compare_roots(replica, root, report)?;
            }
            (Response::Ended(report), Phase::Ending) => self.phase = Phase::Done(report),
            (Response::Paused(why), Phase::Working) => {
                self.paused.get_or_insert(why);
            }
            (Response::Taken(held), Phase::Working) => {
                let all = &mut self.ahead.to_peer.all;
                *all = all.and(held);
            }
            (Response::Pieces(pieces), Phase::Working) if pieces.len() == asked.len() => {
                for (task, piece) in asked.into_iter().zip(pieces) {
                    self.compare(replica, task, piece)?;
                }
            }
            (Response::Given(given), Phase::Working)
                if !given.is_empty() && given.len() <= asked.len() =>
            {
                let mut given = given.into_iter();
                for task in asked {
                    match given.next() {
                        Some(given) => self.receive(replica, task, given)?,
                        // The frame was full: ask again.
                        None => self.tasks.push(task),
                    }
                }
            }
            _ => return Err(SessionError::Malformed("a response to something else".to_owned())),
        }
        self.debug_check();
        Ok(())
    }

    fn compare_roots<R: Replica>(
        &mut self,
        replica: &R,
        theirs: Sum,
        report: Report,
    ) -> Fallible<(), R> {
        let mine = replica.root();
        // A session that only receives leaves out nothing of this side: its surplus is complete.
        let horizon = if self.gives { report.horizon } else { Timestamp::MAX };
        if mine == theirs || self.ahead.begun(mine, theirs, horizon) {
            return Ok(());
        }
        let all = Range { from: Bytes::new(), to: None };
        // The lowest level that cuts this side's records into few enough blocks for a frame.
        let most = self.limits.children_max / 4;
        let few = |level: &u8| replica.boundaries(*level, &[], None, most + 1) <= most;
        let level = (1..u8::MAX).find(few).unwrap_or(1).min(replica.height().max(1));
        self.settle(replica, all, mine.count, theirs.count, level + 1)
    }

    /// Makes the next task of a range that differs. This side holds `mine` records there and the
    /// responder `theirs`; the range was last cut at `level`.
    fn settle<R: Replica>(
        &mut self,
        replica: &R,
        range: Range,
        mine: u64,
        theirs: u64,
        level: u8,
    ) -> Fallible<(), R> {
        let few = self.limits.listed_max;
        if theirs == 0 {
            self.tasks.push(Task::GiveAllBut(range, BTreeSet::new()));
        } else if mine <= few || (level <= 1 && theirs > few) {
            self.want_others(replica, range)?;
        } else {
            // A responder with few records there answers with their ids, at any level.
            self.tasks.push(Task::Cut(range, level.saturating_sub(1)));
        }
        Ok(())
    }

    fn compare<R: Replica>(
        &mut self,
        replica: &R,
        task: Task,
        theirs: CutRange,
    ) -> Fallible<(), R> {
        let Task::Cut(range, asked_level) = task else {
            return Err(SessionError::Malformed("cuts of something else".to_owned()));
        };
        match theirs {
            CutRange::Ids(ids) => self.compare_ids(replica, range, ids),
            CutRange::Children { level, children } => {
                let from = &*range.from;
                let mine = replica.pieces(level, from, range.to.as_deref());
                let mine = mine.map_err(SessionError::Store)?;
                for differing in align(replica, &range, &mine, &children) {
                    if differing.range == range && (level > asked_level || level <= 1) {
                        // The sides have no boundary in common here, and the next cut would be
                        // no finer: cutting would not end.
                        self.want_others(replica, differing.range)?;
                        continue;
                    }
                    let Differing { range, mine, theirs } = differing;
                    self.settle(replica, range, mine, theirs, level)?;
                }
                Ok(())
            }
        }
    }

    /// Makes the tasks of a range in which the responder holds exactly `ids`.
    fn compare_ids<R: Replica>(
        &mut self,
        replica: &R,
        range: Range,
        ids: Vec<ShortId>,
    ) -> Fallible<(), R> {
        let mut missing: BTreeSet<ShortId> = ids.iter().copied().collect();
        let (mut withheld, horizon) = (Vec::new(), self.ahead.their_horizon);
        let walk = &mut |listed: Listed<'_>| {
            missing.remove(&listed.id);
            if withheld.len() < WITHHELD_MAX {
                withheld.extend(withhold(&listed, horizon));
            }
            ControlFlow::Continue(())
        };
        replica.list(&range.from, range.to.as_deref(), walk).map_err(SessionError::Store)?;
        // Below the want, so that it is settled later: a record received for a key decides whether
        // there is one to give.
        self.tasks.push(Task::GiveAllBut(range.clone(), ids.into_iter().collect()));
        if !missing.is_empty() {
            let ids = missing.into_iter().collect();
            let wanted = Wanted { range, ids, mode: Mode::Only, withheld };
            self.tasks.push(Task::Want { wanted, mine: Vec::new() });
        }
        Ok(())
    }

    /// Takes the records given for a wanted range, and makes the tasks that remain of it.
    fn receive<R: Replica>(&mut self, replica: &R, task: Task, given: Given) -> Fallible<(), R> {
        let Task::Want { wanted, mine } = task else {
            return Err(SessionError::Malformed("records of something else".to_owned()));
        };
        let mut theirs: BTreeMap<Key, ShortId> = BTreeMap::new();
        self.tally.records_received += given.records.len() as u64;
        for record in given.records {
            let (key, record) = record.checked()?;
            theirs.insert(key.clone(), replica.id(&key, &record));
            self.to_apply.push((key, record));
        }
        self.note_withheld(replica, given.withheld)?;
        if let Some(from) = given.resume {
            if from <= wanted.range.from && theirs.is_empty() {
                return Err(SessionError::Malformed("an answer without progress".to_owned()));
            }
            let given = theirs.values().copied().collect();
            self.tasks.push(rest_of(&wanted, &mine, from, &given));
        } else if wanted.mode == Mode::Only && !given.unknown.is_empty() {
            // Not by the ids of another list, or a key that changes all the time would be passed
            // over for ever.
            self.tasks.push(Task::WantOthers(wanted.range));
            return Ok(());
        }
        let unknown = given.unknown.iter().filter_map(|at| mine.get(usize::try_from(*at).ok()?));
        let give: Vec<_> = unknown.map(|key| (key.clone(), theirs.get(key).copied())).collect();
        if !give.is_empty() {
            self.tasks.push(Task::Give(give));
        }
        Ok(())
    }
}
