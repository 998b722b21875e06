//! HOW nodes talk: protocol machines without input and output (sans-IO).
//!
//! A machine takes `now` and an input, and its caller drains the outputs. The node, the simulator
//! and the fuzzer run the same code. Must not know sockets, clocks, entropy nor async; it may know
//! [`model`](crate::model).
//!
//! - [`digest`] (with [`element`]): the tree of sums that compares two stores.
//! - [`reconcile`]: one session in which two nodes exchange the records in which they differ.
//! - [`wire`]: the bytes of the frames between peers.
//! - [`stability`]: when dead records may go, and who counts for it.
//! - [`membership`]: which nodes are alive.
//! - [`secret`]: the file with the cluster's secret, and the keys derived from it.

pub mod digest;
pub mod element;
mod list;
pub mod membership;
pub mod reconcile;
pub mod secret;
pub mod stability;
pub mod wire;
