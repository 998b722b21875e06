//! The driving side of a reconcile session; see [`reconcile`](super::reconcile).
//!
//! A stack of tasks: what is known to differ and not yet settled. Each step sends the tasks on top
//! as one request, or hands out records to be merged. One request is under way at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::align::{Differing, align};
use super::digest::{ShortId, Sum};
use super::reconcile::{Limits, Listed, Replica, SessionError};
use super::task::{Task, rest_of, want_others};
use super::wire::{Given, Mode, Piece, Range, Request, Response, Wanted, WireRecord};
use crate::model::member::Report;
use crate::model::{Key, Record};

/// What the driver of a session is to do next.
#[derive(Debug)]
pub enum Step {
    /// Send this, and hand in the answer.
    Send(Request),
    /// Merge these, then go on.
    Apply(Vec<(Key, Record)>),
    /// Done: this is what the other side has now.
    Done(Report),
}

/// What a session has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests sent.
    pub rounds: u64,
    /// Records given.
    pub records_sent: u64,
    /// Records received.
    pub records_received: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    Beginning,
    Working,
    Ending,
    Done(Report),
}

/// Drives one session.
#[derive(Debug)]
pub struct Puller {
    limits: Limits,
    tasks: Vec<Task>,
    /// The tasks that the request under way stands for, in its order.
    asked: Vec<Task>,
    to_apply: Vec<(Key, Record)>,
    phase: Phase,
    tally: Tally,
    peer: Option<Report>,
}

type Outcome<T, R> = Result<T, SessionError<<R as Replica>::Error>>;

impl Puller {
    /// A session that has not begun.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            tasks: Vec::new(),
            asked: Vec::new(),
            to_apply: Vec::new(),
            phase: Phase::Beginning,
            tally: Tally::default(),
            peer: None,
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether something is known to differ that is not settled yet.
    #[must_use]
    pub fn differs(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// What the other side reported at the beginning.
    #[must_use]
    pub fn peer(&self) -> Option<Report> {
        self.peer
    }

    /// The next step. `report` is what this side tells of itself, should it be asked to.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn poll<R: Replica>(&mut self, replica: &R, report: Report) -> Outcome<Step, R> {
        if !self.to_apply.is_empty() {
            return Ok(Step::Apply(std::mem::take(&mut self.to_apply)));
        }
        let request = match &self.phase {
            Phase::Done(report) => return Ok(Step::Done(*report)),
            Phase::Beginning => Request::Begin { report, root: replica.root() },
            Phase::Ending => Request::End(report),
            Phase::Working => {
                if let Some(request) = self.next_request(replica)? {
                    request
                } else {
                    self.phase = Phase::Ending;
                    Request::End(report)
                }
            }
        };
        self.tally.rounds += 1;
        Ok(Step::Send(request))
    }

    fn next_request<R: Replica>(&mut self, replica: &R) -> Outcome<Option<Request>, R> {
        while let Some(task) = self.tasks.pop() {
            match task {
                Task::Cut(..) => return Ok(Some(self.ask_cut(task))),
                Task::Want { .. } => return Ok(Some(self.ask_want(task))),
                Task::Give(keys) => {
                    if let Some(request) = self.give(replica, keys)? {
                        return Ok(Some(request));
                    }
                }
                Task::GiveAllBut(range, ids) => self.list_to_give(replica, range, ids)?,
            }
        }
        Ok(None)
    }

    /// `first` and the tasks of its kind below it, as one request.
    fn ask_cut(&mut self, first: Task) -> Request {
        self.tasks.push(first);
        let mut ranges = Vec::new();
        while ranges.len() < self.limits.ranges_max
            && let Some(task @ Task::Cut(..)) = self.tasks.pop_if(|t| matches!(t, Task::Cut(..)))
        {
            if let Task::Cut(range, level) = &task {
                ranges.push((range.clone(), *level));
            }
            self.asked.push(task);
        }
        Request::Cut(ranges)
    }

    fn ask_want(&mut self, first: Task) -> Request {
        self.tasks.push(first);
        let (mut all, mut ids) = (Vec::new(), 0);
        while all.len() < self.limits.ranges_max
            && ids < self.limits.ids_max
            && let Some(task) = self.tasks.pop_if(|t| matches!(t, Task::Want { .. }))
        {
            if let Task::Want { wanted, .. } = &task {
                ids += wanted.ids.len();
                all.push(wanted.clone());
            }
            self.asked.push(task);
        }
        Request::Want(all)
    }

    /// As many of `keys` as a frame holds; the rest stays a task.
    fn give<R: Replica>(
        &mut self,
        replica: &R,
        mut keys: Vec<(Key, Option<ShortId>)>,
    ) -> Outcome<Option<Request>, R> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        keys.reverse();
        while let Some((key, theirs)) = keys.pop() {
            let record = replica.record(&key).map_err(SessionError::Store)?;
            let Some(record) = record else { continue };
            if theirs == Some(replica.id(&key, &record)) {
                continue;
            }
            let record = WireRecord::new(key, record);
            bytes += record.size();
            if bytes > self.limits.records_bytes_max && !records.is_empty() {
                // no room any more; the first record of a frame always goes, however large
                keys.push((record.key, theirs));
                break;
            }
            records.push(record);
        }
        keys.reverse();
        if !keys.is_empty() {
            self.tasks.push(Task::Give(keys));
        }
        self.tally.records_sent += records.len() as u64;
        Ok((!records.is_empty()).then_some(Request::Give(records)))
    }

    /// Turns the first part of a range into records to be given; the rest stays a task.
    fn list_to_give<R: Replica>(
        &mut self,
        replica: &R,
        range: Range,
        ids: BTreeSet<ShortId>,
    ) -> Outcome<(), R> {
        let (mut keys, mut rest) = (Vec::new(), None);
        let most = self.limits.ids_max;
        let walk = &mut |listed: Listed<'_>| {
            if ids.contains(&listed.id) {
                return ControlFlow::Continue(());
            }
            if keys.len() >= most {
                rest = Some(Bytes::copy_from_slice(listed.key));
                return ControlFlow::Break(());
            }
            keys.push(Key::from_bytes(listed.key));
            ControlFlow::Continue(())
        };
        replica.list(&range.from, range.to.as_deref(), walk).map_err(SessionError::Store)?;
        if let Some(from) = rest {
            self.tasks.push(Task::GiveAllBut(Range { from, to: range.to }, ids));
        }
        let keys: Result<Vec<_>, _> = keys.into_iter().map(|k| k.map(|k| (k, None))).collect();
        self.tasks.push(Task::Give(keys.map_err(|e| SessionError::Malformed(e.to_string()))?));
        Ok(())
    }

    /// Takes the answer to the request under way.
    ///
    /// # Errors
    /// When the answer is not one to the request, or the store cannot be read.
    pub fn handle<R: Replica>(&mut self, replica: &R, response: Response) -> Outcome<(), R> {
        let asked = std::mem::take(&mut self.asked);
        match (response, &self.phase) {
            (Response::Busy, Phase::Beginning) => return Err(SessionError::Busy),
            (Response::Failed(why), _) => return Err(SessionError::Peer(why)),
            (Response::Begun { report, root }, Phase::Beginning) => {
                self.peer = Some(report);
                self.phase = Phase::Working;
                self.compare_roots(replica, &root)?;
            }
            (Response::Ended(report), Phase::Ending) => self.phase = Phase::Done(report),
            (Response::Taken, Phase::Working) => {}
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
                        // the frame was full: ask again
                        None => self.tasks.push(task),
                    }
                }
            }
            _ => return Err(SessionError::Malformed("an answer to something else".to_owned())),
        }
        Ok(())
    }

    fn compare_roots<R: Replica>(&mut self, replica: &R, theirs: &Sum) -> Outcome<(), R> {
        let mine = replica.root();
        if mine == *theirs {
            return Ok(());
        }
        let all = Range { from: Bytes::new(), to: None };
        // the lowest level that cuts this side's records into a frame of blocks
        let most = self.limits.children_max / 4;
        let few = |level: &u8| replica.boundaries(*level, &[], None, most + 1) <= most;
        let level = (1..u8::MAX).find(few).unwrap_or(1).min(replica.height().max(1));
        self.settle(replica, all, mine.count, theirs.count, level + 1)
    }

    /// Decides how to go on with a range that differs, of which this side holds `mine` records and
    /// the other `theirs`, and which was last cut at `level`.
    fn settle<R: Replica>(
        &mut self,
        replica: &R,
        range: Range,
        mine: u64,
        theirs: u64,
        level: u8,
    ) -> Outcome<(), R> {
        let few = self.limits.listed_max;
        if theirs == 0 {
            self.tasks.push(Task::GiveAllBut(range, BTreeSet::new()));
        } else if mine <= few || (level <= 1 && theirs > few) {
            self.tasks.extend(want_others(replica, range, &self.limits)?);
        } else {
            // where the other side holds few, it answers with their ids, whatever the level
            self.tasks.push(Task::Cut(range, level.saturating_sub(1)));
        }
        Ok(())
    }

    fn compare<R: Replica>(&mut self, replica: &R, task: Task, piece: Piece) -> Outcome<(), R> {
        let Task::Cut(range, asked_level) = task else {
            return Err(SessionError::Malformed("pieces of something else".to_owned()));
        };
        match piece {
            Piece::Ids(ids) => self.compare_ids(replica, range, ids),
            Piece::Children { level, children } => {
                let from = &*range.from;
                let mine = replica.pieces(level, from, range.to.as_deref());
                let mine = mine.map_err(SessionError::Store)?;
                for differing in align(replica, &range, &mine, &children) {
                    if differing.range == range && (level > asked_level || level <= 1) {
                        // no cut in common, and the next would be no finer: this would not end
                        self.tasks.extend(want_others(replica, differing.range, &self.limits)?);
                        continue;
                    }
                    let Differing { range, mine, theirs } = differing;
                    self.settle(replica, range, mine, theirs, level)?;
                }
                Ok(())
            }
        }
    }

    /// The other side holds just `ids` in a range.
    fn compare_ids<R: Replica>(
        &mut self,
        replica: &R,
        range: Range,
        ids: Vec<ShortId>,
    ) -> Outcome<(), R> {
        let mut missing: BTreeSet<ShortId> = ids.iter().copied().collect();
        let walk = &mut |listed: Listed<'_>| {
            missing.remove(&listed.id);
            ControlFlow::Continue(())
        };
        replica.list(&range.from, range.to.as_deref(), walk).map_err(SessionError::Store)?;
        // given last: what came for a key decides whether there is anything to give
        self.tasks.push(Task::GiveAllBut(range.clone(), ids.into_iter().collect()));
        if !missing.is_empty() {
            let ids = missing.into_iter().collect();
            let wanted = Wanted { range, ids, mode: Mode::Only };
            self.tasks.push(Task::Want { wanted, mine: Vec::new() });
        }
        Ok(())
    }

    fn receive<R: Replica>(&mut self, replica: &R, task: Task, given: Given) -> Outcome<(), R> {
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
        if let Some(from) = given.resume {
            if from <= wanted.range.from && theirs.is_empty() {
                return Err(SessionError::Malformed("an answer without progress".to_owned()));
            }
            self.tasks.push(rest_of(&wanted, &mine, from));
        }
        let unknown = given.unknown.iter().filter_map(|at| mine.get(usize::try_from(*at).ok()?));
        let give: Vec<_> = unknown.map(|key| (key.clone(), theirs.get(key).copied())).collect();
        if !give.is_empty() {
            self.tasks.push(Task::Give(give));
        }
        Ok(())
    }
}
