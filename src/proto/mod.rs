//! HOW nodes talk: machines without input and output.
//!
//! Each takes `now` and an input, and gives its outputs when asked (sans-IO; see the documentation
//! of `quinn-proto`). No sockets, no clock, no async; the same code runs in the node, in the
//! simulator and under the fuzzer.

mod align;
pub mod digest;
pub mod element;
mod list;
pub mod membership;
mod pull;
pub mod reconcile;
pub mod secret;
mod task;
pub mod wire;
