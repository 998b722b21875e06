//! Tests of the API as a whole, over a real store in memory and without a listener.

mod memory;
mod mistakes;
mod operations;
pub(crate) mod rig;
mod schemas;
