//! Reconcile: finds the records in which two stores differ, and moves only those, both ways.
//!
//! An [`Initiator`] drives the session; a [`Responder`] answers each request without keeping state.
//!
//! 1. The initiator compares roots. If they are equal, the session ends.
//! 2. It has the responder cut differing ranges into blocks and compares these (Merkle, 1987;
//!    ranges by Meyer, "Range-Based Set Reconciliation", 2023), until a range holds few records.
//! 3. It lists its own records of such a range by their short ids, receives the records that it
//!    lacks, and gives those that the responder lacks.
//!
//! Each side tells at the begin how far ahead the records may lie that it merges, its horizon, and
//! the other side leaves out those beyond. Two sides that differ by such records alone compare
//! their roots and stop there, until one of the two changes or a record is due
//! ([`HeldDifference`]).
//!
//! A session that breaks off is begun again from the start: what it moved is merged and no longer
//! differs. Concurrent writes cost at most a record sent in vain, because every record goes through
//! the ordinary merge. Reads the store through [`Replica`] and returns the records to merge; must
//! not know how either is done.

mod ahead;
mod align;
mod initiator;
mod replica;
mod responder;
mod task;

pub use ahead::HeldDifference;
pub use initiator::{Initiator, Step, Tally};
pub use replica::{Listed, Replica, SessionError, SessionLimits};
pub use responder::{Reply, Responder};

#[cfg(test)]
mod tests;
