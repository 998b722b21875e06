//! The sweep: frees the bytes of expired values and forgets requests whose window has ended.
//!
//! A sweep frees bytes and nothing else. Header and hash of a record stay, so that the digest does
//! not move, nothing is sent to a peer, and no older copy of the value comes back.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::due::DueEntries;
use crate::model::{Key, Timestamp};
use crate::store::disk::layout::{Body, Stored};
use crate::store::feed::Cause;
use crate::store::write::effects::{Effect, Effects};
use crate::store::write::group::Group;
use crate::store::write::job::Job;
use crate::store::write::view::View;
use crate::store::write::{replace, requests};
use crate::store::{ReadError, Shared, Store, WriteError, checked_key};

/// How many records, and how many requests, one sweep handles at most.
pub(in crate::store) const SWEEP_MAX: usize = 256;
/// How often [`Store::keep_swept`] looks for something due.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The pause between two sweeps when more is due. Together with [`SWEEP_MAX`] it bounds how much
/// of the writer's time sweeps take from clients.
const PAUSE: Duration = Duration::from_millis(10);
/// The pause after a sweep that failed.
const PAUSE_FAILED: Duration = Duration::from_secs(5);

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records whose bytes were freed.
    pub records: u64,
    /// Requests that were forgotten.
    pub requests: u64,
    /// Whether more is due.
    pub more: bool,
}

impl Store {
    /// Frees the bytes of expired values and forgets requests whose window has ended: at most 256
    /// of each.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn sweep(&self) -> Result<Swept, WriteError> {
        self.submit(|reply| Job::Sweep { reply }).await
    }

    /// Makes the watermark cover an expiry at `at` before a client learns of it, so that a kill
    /// followed by a clock step back cannot revive the value. Returns at once when it is covered,
    /// and while storage takes no writes, which must not keep clients from reading.
    pub(in crate::store) async fn cover_expiry(&self, at: Option<Timestamp>) {
        let expiry_clock = &self.shared.expiry_clock;
        let is_uncovered = |at| at <= self.shared.now() && !expiry_clock.covers(at);
        if at.is_some_and(is_uncovered) && !self.shared.disk.is_recovering() {
            // where this fails the answer is still right by this node's clock
            let _ = self.submit(|reply| Job::AdvanceWatermark { reply }).await;
        }
    }

    /// Sweeps whenever something is due, until `stop`.
    pub async fn keep_swept(self, stop: CancellationToken) {
        let mut pause = LOOK_AGAIN;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = LOOK_AGAIN;
            if self.shared.is_due() {
                match self.sweep().await {
                    Ok(swept) if swept.more => pause = PAUSE,
                    Ok(_) => {}
                    Err(WriteError::ShuttingDown) => return,
                    Err(error) => {
                        tracing::warn!(%error, "cannot free expired values; trying again in 5 s");
                        pause = PAUSE_FAILED;
                    }
                }
            }
        }
    }
}

/// Sweeps what is due, as a part of a group.
pub(in crate::store) fn sweep(group: &mut Group<'_>, shared: &Shared) -> Result<Swept, WriteError> {
    let mut swept = Swept::default();
    let now = group.now();
    let due = shared.due_records(now, SWEEP_MAX).map_err(WriteError::Failed)?;
    for (at, key) in &due.entries {
        let key = checked_key(key).map_err(WriteError::Failed)?;
        match group.run(|view| sweep_record(view, *at, &key)) {
            Ok(freed) => swept.records += u64::from(freed),
            // it stays as it is, and must not keep others from being swept
            Err(WriteError::Failed(error @ ReadError::Damaged { .. })) => {
                tracing::error!(%error, "cannot free an expired value; restore this record");
            }
            Err(error) => return Err(error),
        }
    }
    let records_end = due.reached(Shared::records_end(now));
    swept.more = due.more;
    let expired = !due.entries.is_empty();
    let steady = group.steady();
    let due = shared.due_requests(steady, SWEEP_MAX).map_err(WriteError::Failed)?;
    swept.requests = forget_requests(group, &due)?;
    swept.more |= due.more;
    let requests_end = due.reached(shared.requests_end(steady)).max(shared.requests_begin());
    let mut effects = Effects::of(Effect::SweepTo { records: records_end, requests: requests_end });
    if expired {
        effects.push(Effect::AdvanceWatermark);
    }
    group.run(|_| Ok((swept, effects)))
}

fn forget_requests(group: &mut Group<'_>, due: &DueEntries) -> Result<u64, WriteError> {
    let mut forgotten = 0;
    for (accepted_at, rest) in &due.entries {
        forgotten += u64::from(group.run(|view| requests::forget(view, *accepted_at, rest))?);
    }
    Ok(forgotten)
}

/// Frees the bytes of the record of `key`, if it is still the one that expires at `at`, and those
/// of its expired revisions. Answers whether it was.
fn sweep_record(
    view: &mut View<'_>,
    at: Timestamp,
    key: &Key,
) -> Result<(bool, Effects), WriteError> {
    let mut effects = Effects::of(Effect::DropExpiry { at, key: key.clone() });
    let current = view.current(key).map_err(WriteError::Failed)?;
    let due = |stored: &Stored| stored.header.expires_at == Some(at) && stored.body != Body::Swept;
    let Some(mut stored) = current.map(|current| current.stored).filter(due) else {
        return Ok((false, effects));
    };
    let (first, next) = stored.revisions;
    for number in first..next {
        let revision = view.revision(key, number).map_err(WriteError::Failed)?;
        let is_expired = |revision: &Stored| {
            let expires_at = revision.header.expires_at;
            expires_at.is_some_and(|at| at <= view.now) && !revision.is_dead()
        };
        if let Some(mut revision) = revision.filter(is_expired) {
            replace::drop_value(key, &revision, &mut effects);
            revision.body = Body::Swept;
            let raw = revision.encode();
            effects.push(Effect::PutRevision { key: key.clone(), number, raw });
        }
    }
    replace::drop_value(key, &stored, &mut effects);
    stored.body = Body::Swept;
    effects.announce(key, &stored.header, Cause::Expiry, None);
    effects.push(Effect::PutRecord { key: key.clone(), stored: Box::new(stored) });
    Ok((true, effects))
}
