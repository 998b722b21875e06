//! What the floor decides about single records: which is refused, which may go.

use crate::model::{Content, Header, Merged, Timestamp, merge};

use super::Floor;

/// What becomes of a record that arrives from a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is held already.
    Same,
    /// What is held wins.
    Kept,
    /// It replaces what is held, if anything.
    Taken,
    /// It is at or below the floor: nothing changes there any more. Counted, and no bar to a claim.
    BelowFloor,
    /// It is further ahead than the drift allows. It bars the session's claim.
    TooEarly,
}

/// Judges a record from a push or a session. `latest` is the wall clock plus the allowed drift.
#[must_use]
pub fn arrive(
    held: Option<&Header>,
    incoming: &Header,
    floor: Floor,
    latest: Timestamp,
) -> Arrival {
    if incoming.version.timestamp > latest {
        return Arrival::TooEarly;
    }
    match merge(held, incoming) {
        Merged::Same => Arrival::Same,
        Merged::Kept => Arrival::Kept,
        Merged::Replaced if incoming.version.timestamp <= floor.0 => Arrival::BelowFloor,
        Merged::Replaced => Arrival::Taken,
    }
}

/// The least floor at which a record goes; `None` for one that never dies. No clock has a say, so
/// that equal floors mean equal digests. It orders the index of the dead.
#[must_use]
pub fn goes_at(header: &Header) -> Option<Floor> {
    let timestamp = header.version.timestamp;
    match header.content {
        Content::Tombstone => Some(Floor(timestamp)),
        Content::Value { .. } => header.expires_at.map(|at| Floor(timestamp.max(at))),
    }
}

/// Whether a record leaves the digest with the step of the floor to `floor`.
#[must_use]
pub fn may_go(header: &Header, floor: Floor) -> bool {
    goes_at(header).is_some_and(|at| at <= floor)
}
