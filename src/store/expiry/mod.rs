//! Expiry: the time that values are judged by, and the sweep that frees what has expired.
//!
//! A value is dead from its `expires_at` on, by this node's clock, whether or not it was swept.

mod clock;
mod due;
mod sweep;

pub(super) use clock::ExpiryClock;
pub(super) use due::{Due, DueChange};
#[cfg(test)]
pub(super) use sweep::SWEEP_MAX;
pub use sweep::Swept;
pub(super) use sweep::sweep;
