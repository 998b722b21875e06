//! The one writer: gathers jobs into groups, decides them in order, commits each group with one
//! sync, then publishes it.
//!
//! Jobs of all connections and peers come through one queue. Since a group is one transaction,
//! durability costs one sync a group, and writes of one key are decided in order instead of by a
//! storm of retries. Digest, feed and answers follow the commit: nothing is readable, nor sent to
//! anybody, before it is durable.

use std::sync::{Arc, PoisonError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::durable::{CommitError, Durable, RecordDelta};
use super::effects::{Effect, Effects};
use super::group::Group;
use super::job::{Answer, Decided, Job};
use super::merge::{self, Reception};
use super::requests::EarlyForgetting;
use super::{Rules, aside, collect, decide, import, ledger};
use crate::model::{Key, Record};
use crate::proto::digest::Delta;
use crate::store::state::{LOOK_AFTER_BYTES, LOOK_EVERY};
use crate::store::{
    Applied, Imported, ImportedRecord, ReadError, Settings, Shared, WriteError, expiry,
};
use crate::telemetry::Metrics;

/// A group takes no further job once it has read and written this many bytes (or one larger job).
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Nor more than this many jobs.
const GROUP_JOBS_MAX: usize = 1024;

/// A group after its commit, which may have failed, and the answers that wait for it.
struct Committed {
    decided: Vec<Decided>,
    result: Result<Durable, CommitError>,
}

impl Committed {
    /// A group that could not begin.
    fn refused(job: Job, why: ReadError) -> Self {
        job.refuse(WriteError::Failed(why.clone()));
        Self { decided: Vec::new(), result: Err(CommitError::Unknown(why)) }
    }
}

/// Where [`Writer::run`] can hold up a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Its first job has come; nothing is decided yet.
    BeforeCommit,
    /// It is durable, or failed to become so; neither the digest nor any client knows.
    AfterCommit,
    /// It is published.
    Published,
}

/// Owns every change of the data. There is one for each store.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Receiver<Job>,
    metrics: Arc<Metrics>,
    rules: Rules,
    /// How much was written since the writer last looked at the disk.
    unlooked_bytes: usize,
    looked_at: Option<Instant>,
    early_forgetting: EarlyForgetting,
}

impl Writer {
    pub(in crate::store) fn new(
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Job>,
        metrics: Arc<Metrics>,
        settings: &Settings,
    ) -> Self {
        let (rules, early_forgetting) = (Rules::of(settings), EarlyForgetting::default());
        let (unlooked_bytes, looked_at) = (0, None);
        let writer =
            Self { shared, queue, metrics, rules, unlooked_bytes, looked_at, early_forgetting };
        writer.count_records();
        writer
    }

    /// Serves jobs on this thread until every store handle is gone.
    pub fn run_blocking(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let group = self.commit(first);
            if let Err(error) = self.publish(group) {
                self.recover_blocking(error);
            }
        }
    }

    /// Serves jobs as a task, for a runtime of one thread (the simulator's). `hold` can delay each
    /// group at each [`Moment`], as a slow disk or a busy machine would.
    pub async fn run(mut self, mut hold: impl AsyncFnMut(Moment)) {
        while let Some(first) = self.queue.recv().await {
            hold(Moment::BeforeCommit).await;
            let group = self.commit(first);
            hold(Moment::AfterCommit).await;
            if let Err(error) = self.publish(group) {
                self.recover(error).await;
            }
            hold(Moment::Published).await;
        }
    }

    /// Gathers `first` and the jobs that wait behind it, decides them, and commits.
    fn commit(&mut self, first: Job) -> Committed {
        if let Err(error) = self.look_at_disk() {
            return Committed::refused(first, error);
        }
        let shared = Arc::clone(&self.shared);
        let opened = match shared.engine.opened() {
            Ok(opened) => opened,
            Err(error) => return Committed::refused(first, error.into()),
        };
        let rules = self.rules;
        let mut group = Group::new(&shared, &rules, opened.as_ref());
        let (mut decided, mut taken) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(job) = next {
            taken += 1;
            decided.push(decide(&mut group, &shared, job));
            let has_room = group.bytes() < GROUP_BYTES_MAX && taken < GROUP_JOBS_MAX;
            next = if has_room { self.queue.try_recv().ok() } else { None };
        }
        self.unlooked_bytes += group.bytes();
        let size = u32::try_from(decided.len()).unwrap_or(u32::MAX);
        self.metrics.store_group_writes.observe(f64::from(size));
        let (began, has_changes) = (shared.clock.instant(), group.has_changes());
        let result = group.commit();
        if has_changes {
            self.metrics.store_commit_seconds.observe(began.elapsed().as_secs_f64());
        }
        Committed { decided, result }
    }

    /// Looks at the disk after a while, and after much was written.
    fn look_at_disk(&mut self) -> Result<(), ReadError> {
        let now = self.shared.clock.instant();
        let is_due = self.looked_at.is_none_or(|at| now - at >= LOOK_EVERY);
        if is_due || self.unlooked_bytes >= LOOK_AFTER_BYTES {
            (self.unlooked_bytes, self.looked_at) = (0, Some(now));
            self.shared.look_at_disk()?;
        }
        Ok(())
    }

    /// Brings memory to what was committed, then answers. After an error nobody knows what the disk
    /// holds until the store is opened again.
    fn publish(&mut self, group: Committed) -> Result<(), ReadError> {
        let result = group.result.map_err(|error| self.find_out(error)).and_then(|durable| {
            self.shared.follow(&durable);
            let now = self.shared.clock.instant();
            self.early_forgetting.note(durable.forgotten, now, &self.metrics);
            for causal in &durable.superseded {
                self.metrics.superseded.get_or_create(&[("causal", causal.name())]).inc();
            }
            self.follow_digest(durable.deltas).map_err(CommitError::Unknown)?;
            if let Some(ledger) = durable.ledger {
                self.shared.ledger.send_replace(Arc::new(ledger));
            }
            self.shared.feed.publish(durable.feed);
            Ok(())
        });
        for decided in group.decided {
            decided.send(result.as_ref().err(), &self.metrics);
        }
        match result {
            Err(CommitError::Unknown(error) | CommitError::NoDescriptor { error, .. }) => {
                Err(error)
            }
            Ok(()) | Err(CommitError::Nothing(_)) => Ok(()),
        }
    }

    /// Brings digest and counts to what was committed.
    fn follow_digest(&self, changes: Vec<RecordDelta>) -> Result<(), ReadError> {
        let mut tree = self.shared.tree.write().unwrap_or_else(PoisonError::into_inner);
        let mut deltas = Vec::with_capacity(changes.len());
        for RecordDelta { key, old, new } in changes {
            if let Some(old) = old {
                tree.counts.remove(old.is_dead);
            }
            if let Some(new) = new {
                tree.counts.add(new.is_dead);
            }
            let key = key.as_bytes();
            deltas.push(Delta {
                key: key.into(),
                old: old.map(|leaf| tree.digest.element(key, &leaf.hash)),
                new: new.map(|leaf| tree.digest.element(key, &leaf.hash)),
            });
        }
        tree.follow(self.shared.engine.as_ref(), &deltas)?;
        drop(tree);
        self.count_records();
        Ok(())
    }

    pub(super) fn count_records(&self) {
        let counts = self.shared.tree().counts;
        for (state, count) in [("live", counts.keys), ("dead", counts.tombstones)] {
            let gauge = self.metrics.store_records.get_or_create(&[("state", state)]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

fn decide(group: &mut Group<'_>, shared: &Shared, job: Job) -> Decided {
    match job {
        Job::Write { write, id, comparisons, reply } => {
            let result = group.run(|view| decide::write(view, &write, id.as_ref(), &comparisons));
            Decided::Write(Answer { reply, result })
        }
        Job::Txn { txn, id, comparisons, reply } => {
            let result = group.run(|view| decide::txn(view, &txn, id.as_ref(), &comparisons));
            Decided::Txn(Answer { reply, result })
        }
        Job::Sweep { reply } => {
            Decided::Sweep(Answer { reply, result: expiry::sweep(group, shared) })
        }
        Job::Collect { to, since, reply } => {
            Decided::Collect(Answer { reply, result: collect::collect(group, shared, to, since) })
        }
        Job::Apply { records, bearer, reply } => {
            let ended = Applied { ended: true, ..Applied::default() };
            let result = shared.admit_merge().and_then(|()| match bearer {
                Some(bearer) if !group.takes(bearer) => Ok(ended),
                _ => merge_all(group, records),
            });
            Decided::Apply(Answer { reply, result })
        }
        Job::Import { records, reply } => {
            Decided::Import(Answer { reply, result: import_all(group, records) })
        }
        Job::AdvanceWatermark { reply } => {
            let result = group.run(|_| Ok(((), Effects::of(Effect::AdvanceWatermark))));
            Decided::Meta(Answer { reply, result })
        }
        Job::Ledger { change, reply } => {
            group.change_ledger(change);
            Decided::Meta(Answer { reply, result: Ok(()) })
        }
        Job::SetAside { records, reply } => {
            let mut each = records.iter();
            let result =
                each.try_for_each(|(key, at)| group.run(|view| aside::decide(view, key, at)));
            Decided::Meta(Answer { reply, result })
        }
        Job::Anew { change, identity, reply } => {
            group.change_ledger(change);
            // another job may have begun anew before this one
            let result = if group.ledger_id() == identity.node {
                group.run(|view| Ok(((), ledger::change_identity(view, identity))))
            } else {
                Ok(())
            };
            Decided::Meta(Answer { reply, result })
        }
        Job::SetMode { mode, reply } => {
            let result = group.run(|_| Ok(((), Effects::of(Effect::SetMode(mode)))));
            Decided::Meta(Answer { reply, result })
        }
        Job::Meta { name, value, reply } => {
            let result = group.run(|_| Ok(((), Effects::of(Effect::PutMeta { name, value }))));
            Decided::Meta(Answer { reply, result })
        }
    }
}

/// Imports records of an export, each on its own.
fn import_all(group: &mut Group<'_>, records: Vec<ImportedRecord>) -> Result<Imported, WriteError> {
    let mut imported = Imported::default();
    for record in records {
        imported.count(group.run(|view| import::decide(view, record))?);
    }
    Ok(imported)
}

/// Merges records from a peer, each on its own.
fn merge_all(group: &mut Group<'_>, records: Vec<(Key, Record)>) -> Result<Applied, WriteError> {
    let mut applied = Applied::default();
    for (key, record) in records {
        match group.run(|view| merge::decide(view, &key, record))? {
            Reception::Taken => applied.replaced += 1,
            Reception::Kept => applied.kept += 1,
            Reception::BelowFloor => applied.below_floor += 1,
            Reception::Held(due) => applied.held.add(due),
        }
    }
    Ok(applied)
}
