//! How a group changes the families beside the records: the indexes by time, the remembered
//! requests, and the reports.

use super::effects::RequestSlot;
use super::group::Group;
use crate::model::{Key, Timestamp};
use crate::proto::stability::Floor;
use crate::store::disk::engine::Family;
use crate::store::disk::layout;
use crate::store::{Causal, WriteError};

impl Group<'_> {
    pub(super) fn put_expiry(&mut self, at: Timestamp, key: &Key) -> Result<(), WriteError> {
        self.follows.due_records.add(at);
        self.put(Family::Expiry, &layout::expiry_key(at, key), &[])
    }

    pub(super) fn drop_expiry(&mut self, at: Timestamp, key: &Key) -> Result<(), WriteError> {
        self.delete(Family::Expiry, &layout::expiry_key(at, key))
    }

    pub(super) fn put_dead(&mut self, at: Floor, key: Key) -> Result<(), WriteError> {
        self.put(Family::Dead, &layout::expiry_key(at.0, &key), &[])?;
        self.added_dead.insert((at, key));
        Ok(())
    }

    pub(super) fn drop_dead(&mut self, at: Floor, key: Key) -> Result<(), WriteError> {
        self.delete(Family::Dead, &layout::expiry_key(at.0, &key))?;
        self.added_dead.remove(&(at, key));
        Ok(())
    }

    pub(super) fn put_request(
        &mut self,
        slot: &RequestSlot,
        accepted_at: Timestamp,
        remembered: &[u8],
    ) -> Result<(), WriteError> {
        self.follows.due_requests.add(accepted_at);
        self.put(Family::Requests, &layout::request_key(slot.uuid, &slot.key), remembered)?;
        let at = layout::request_time_key(accepted_at, slot.uuid, &slot.key);
        self.put(Family::Requests, &at, &[])
    }

    pub(super) fn drop_request_time(
        &mut self,
        slot: &RequestSlot,
        accepted_at: Timestamp,
    ) -> Result<(), WriteError> {
        let at = layout::request_time_key(accepted_at, slot.uuid, &slot.key);
        self.delete(Family::Requests, &at)
    }

    /// Writes a report, and the value that the lost write had.
    pub(super) fn put_report(
        &mut self,
        number: u64,
        causal: Causal,
        report: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), WriteError> {
        self.follows.superseded.push(causal);
        if let Some(value) = value {
            self.put(Family::Superseded, &layout::report_value_key(number), value)?;
        }
        self.put(Family::Superseded, &layout::report_key(number), report)
    }

    /// Removes a report, and its value if it `has_value`.
    pub(super) fn drop_report(&mut self, number: u64, has_value: bool) -> Result<(), WriteError> {
        if has_value {
            self.delete(Family::Superseded, &layout::report_value_key(number))?;
        }
        self.delete(Family::Superseded, &layout::report_key(number))
    }
}
