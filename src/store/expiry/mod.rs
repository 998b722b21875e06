//! Expiry: the time that values are judged by, the time that requests are remembered by, and the
//! sweep that frees what has expired.
//!
//! A value is dead from its `expires_at` on, by this node's clock, whether or not it was swept.

mod clock;
mod due;
mod steady;
mod sweep;

pub(super) use clock::ExpiryClock;
pub(super) use due::{Due, DueChange};
pub(super) use steady::{SteadyClock, SteadyReading};
#[cfg(test)]
pub(super) use sweep::SWEEP_MAX;
pub use sweep::Swept;
pub(super) use sweep::sweep;
