//! Makes the next request from the tasks on top of the initiator's stack. Must not know responses.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Fallible, Initiator};
use crate::model::Key;
use crate::proto::digest::ShortId;
use crate::proto::reconcile::replica::{Listed, Replica, SessionError};
use crate::proto::reconcile::task::{Task, withhold};
use crate::proto::wire::{Range, Request, WireRecord, Withheld};

impl Initiator {
    /// The request of the tasks on top; `None` when none is left that needs one.
    pub(super) fn next_request<R: Replica>(&mut self, replica: &R) -> Fallible<Option<Request>, R> {
        while let Some(task) = self.tasks.pop() {
            match task {
                // in vain
                Task::Give(_) | Task::GiveAllBut(..) if self.paused.is_some() => {}
                Task::Cut(..) => return Ok(Some(self.ask_cut(task))),
                Task::Want { .. } => return Ok(Some(self.ask_want(task))),
                Task::Give(keys) if !self.gives => {
                    self.surplus = Self::held_alone(replica, keys)?;
                    if !self.surplus.is_empty() {
                        return Ok(None);
                    }
                }
                Task::Give(keys) => {
                    if let Some(request) = self.give(replica, keys)? {
                        return Ok(Some(request));
                    }
                }
                Task::GiveAllBut(range, ids) => self.list_to_give(replica, range, ids)?,
                Task::WantOthers(range) => {
                    self.want_others(replica, range)?;
                }
            }
        }
        Ok(None)
    }

    /// Makes one request of `first` and the cuts below it.
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

    /// Makes one request of `first` and the wants below it.
    fn ask_want(&mut self, first: Task) -> Request {
        self.tasks.push(first);
        let (mut all, mut ids) = (Vec::new(), 0);
        while all.len() < self.limits.ranges_max
            && ids < self.limits.ids_max
            && let Some(task) = self.tasks.pop_if(|t| matches!(t, Task::Want { .. }))
        {
            if let Task::Want { wanted, .. } = &task {
                ids += wanted.ids.len() + wanted.withheld.len();
                all.push(wanted.clone());
            }
            self.asked.push(task);
        }
        Request::Want(all)
    }

    /// Gives as many of `keys` as a frame holds; the rest stays a task. `None` when the responder
    /// already has all of them.
    fn give<R: Replica>(
        &mut self,
        replica: &R,
        mut keys: Vec<(Key, Option<ShortId>)>,
    ) -> Fallible<Option<Request>, R> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        keys.reverse();
        while let Some((key, theirs)) = keys.pop() {
            let record = replica.record(&key).map_err(SessionError::Store)?;
            let Some(record) = record else { continue };
            if theirs == Some(replica.id(&key, &record)) {
                continue;
            }
            let (header, is_swept) = (&record.header, record.is_swept());
            if self.ahead.from_peer.beats(&key, header.version.timestamp) {
                continue;
            }
            if header.due(is_swept) > self.ahead.their_horizon {
                self.ahead.leave_out(Withheld::new(key, &record));
                continue;
            }
            let record = WireRecord::new(key, record);
            bytes += record.size();
            if bytes > self.limits.records_bytes_max && !records.is_empty() {
                // The frame is full. The first record always goes, so that there is progress.
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

    /// Those of `keys` at which this side holds something that the responder did not send.
    fn held_alone<R: Replica>(
        replica: &R,
        keys: Vec<(Key, Option<ShortId>)>,
    ) -> Fallible<Vec<Key>, R> {
        let mut alone = Vec::new();
        for (key, theirs) in keys {
            let record = replica.record(&key).map_err(SessionError::Store)?;
            if record.is_some_and(|record| theirs != Some(replica.id(&key, &record))) {
                alone.push(key);
            }
        }
        Ok(alone)
    }

    /// Turns the first records of a range into a task to give them; the rest stays a task.
    fn list_to_give<R: Replica>(
        &mut self,
        replica: &R,
        range: Range,
        ids: BTreeSet<ShortId>,
    ) -> Fallible<(), R> {
        let (mut keys, mut rest) = (Vec::new(), None);
        let (most, horizon) = (self.limits.ids_max, self.ahead.their_horizon);
        let walk = &mut |listed: Listed<'_>| {
            if ids.contains(&listed.id) {
                return ControlFlow::Continue(());
            }
            if let Some(withheld) = withhold(&listed, horizon) {
                self.ahead.leave_out(withheld);
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
}
