//! Remembered requests, their index by time of acceptance, and the sum of what they take.

use std::ops::ControlFlow;

use super::{Check, problem_of, shown};
use crate::model::Timestamp;
use crate::store::disk::engine::{EngineError, Family};
use crate::store::disk::layout;
use crate::store::disk::split::{self, RequestEntry};
use crate::store::write::requests;

const RETRIED: &str = "a retry of this request may be carried out once more; it is forgotten after \
                       limits.idempotency_window";
const COUNTED: &str = "requests may be forgotten before limits.idempotency_window, or refused; \
                       nothing else depends on it";

impl Check<'_> {
    /// Verifies the requests; `sum` is what they take by the meta entry.
    pub(super) fn requests(&mut self, sum: u64) -> Result<(), EngineError> {
        let (engine, mut failed, mut bytes) = (self.engine, Ok(()), 0_u64);
        engine.scan(Family::Requests, &[], None, &mut |entry, value| {
            self.count();
            let done = match split::request_entry(entry) {
                Some(RequestEntry::Remembered(slot)) => {
                    bytes = bytes.saturating_add(requests::slot_cost(slot, value.len()));
                    self.request(slot, value)
                }
                Some(RequestEntry::AcceptedAt(at, slot)) => self.request_time(at, slot),
                None => {
                    let problem = "its key is not that of a request".to_owned();
                    self.found(Family::Requests, &shown(entry), problem, RETRIED);
                    Ok(())
                }
            };
            failed = done;
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed?;
        if bytes != sum {
            let problem = format!("the requests take {bytes} bytes, and {sum} are counted");
            self.found(Family::Requests, "", problem, COUNTED);
        }
        Ok(())
    }

    fn request(&mut self, slot: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.done.requests += 1;
        let accepted_at = match requests::accepted_at(value) {
            Ok(accepted_at) => accepted_at,
            Err(error) => {
                self.found(Family::Requests, &named(slot), problem_of(&error), RETRIED);
                return Ok(());
            }
        };
        let at = [&layout::request_times_from(accepted_at), slot].concat();
        if self.engine.get(Family::Requests, &at)?.is_none() {
            let problem = "the index of times lacks it, so it is never forgotten".to_owned();
            self.found(Family::Requests, &named(slot), problem, COUNTED);
        }
        Ok(())
    }

    fn request_time(&mut self, at: Timestamp, slot: &[u8]) -> Result<(), EngineError> {
        let request = self.engine.get(Family::Requests, &split::remembered_key(slot))?;
        let accepted_at = request.map(|value| requests::accepted_at(&value));
        // one that cannot be decoded is named by itself
        let is_damaged = matches!(accepted_at, Some(Err(_)));
        let is_there = accepted_at.is_some_and(|found| found.is_ok_and(|found| found == at));
        if !is_there && !is_damaged {
            let problem = "the index of times names a request that is not remembered".to_owned();
            self.found(Family::Requests, &named(slot), problem, RETRIED);
        }
        Ok(())
    }
}

/// The uuid and the key of a request, for people.
fn named(slot: &[u8]) -> String {
    let (uuid, key) = slot.split_at_checked(16).unwrap_or((slot, &[]));
    let uuid = uuid::Uuid::from_slice(uuid).unwrap_or_default();
    format!("{uuid} {}", shown(key)).trim_end().to_owned()
}
