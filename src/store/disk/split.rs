//! Takes keys of the families apart that [`layout`](super::layout) puts together, for those who
//! check entries instead of following them.

use super::layout;
use crate::model::Timestamp;

/// A key of `requests`.
pub enum RequestEntry<'a> {
    /// Of a remembered request: its uuid and its key.
    Remembered(&'a [u8]),
    /// Of the index by time of acceptance: the time, then as above.
    AcceptedAt(Timestamp, &'a [u8]),
}

/// Splits a key of `history` into the record's key and the number of the revision.
#[must_use]
pub fn revision_key(entry: &[u8]) -> Option<(&[u8], u64)> {
    let (rest, number) = entry.split_last_chunk::<8>()?;
    let (nul, key) = rest.split_last()?;
    (*nul == 0).then_some((key, u64::from_be_bytes(*number)))
}

/// The key of the record in a key of `values`.
#[must_use]
pub fn blob_key(entry: &[u8]) -> Option<&[u8]> {
    let (rest, _) = entry.split_last_chunk::<32>()?;
    let (nul, key) = rest.split_last()?;
    (*nul == 0).then_some(key)
}

/// What a key of `requests` names.
#[must_use]
pub fn request_entry(entry: &[u8]) -> Option<RequestEntry<'_>> {
    let (first, rest) = entry.split_first()?;
    if *first == layout::REQUEST_TIMES {
        let (at, slot) = layout::split_instant(rest)?;
        return (slot.len() >= 16).then_some(RequestEntry::AcceptedAt(at, slot));
    }
    (*first == layout::REQUESTS && rest.len() >= 16).then_some(RequestEntry::Remembered(rest))
}

/// The key of the remembered request with this uuid and key, as they stand in the index of times.
#[must_use]
pub fn remembered_key(slot: &[u8]) -> Vec<u8> {
    [&[layout::REQUESTS], slot].concat()
}

/// The number of the report whose value lies under this key of `superseded`.
#[must_use]
pub fn report_value_number(entry: &[u8]) -> Option<u64> {
    let number = entry.split_first_chunk::<1>()?.1;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    (layout::report_value_key(number) == entry).then_some(number)
}
