//! kvs: a masterless key-value store.
//!
//! ```text
//!     client --HTTP--> http --> store --commits--> replication --QUIC--> peer ==> another node
//!                                                       ^
//!                                gossip (SWIM over UDP) +  who is alive
//! ```
//!
//! # Modules, in reading order
//! - [`model`]: what the data is, and the rules that decide between writes. Pure.
//! - [`proto`]: how nodes talk. Machines without input and output.
//! - [`store`]: the one door to the data: the one writer, the engines, the bytes on disk.
//! - [`peer`]: QUIC and mutual TLS: streams of frames between nodes of one cluster.
//! - [`gossip`]: sealed datagrams that carry the membership.
//! - [`replication`]: pushes fresh commits, pulls and serves Merkle range diffs.
//! - [`http`]: the API.
//! - [`node`]: the composition root: opens, wires, owns the tasks, shuts down in order.
//! - [`cli`]: the commands of the binary.
//! - [`config`], [`clock`], [`telemetry`]: settings, time and entropy, logs and metrics.
//!
//! # Architecture invariants
//! - Direction: `model <- proto <- shells <- node <- cli, main`. Between shells only `http ->
//!   store` and `replication -> {store, peer}`; the rest crosses as a value over a bounded channel
//!   or a watch that `node` wires. `tests/tidy.rs` holds the table.
//! - Every change of a record goes through the one writer, and nothing is readable, nor sent to a
//!   peer, before it is durable.
//! - `model` and `proto` never see a clock, entropy, a socket or tokio. `clock` is the only reader
//!   of time and entropy.
//! - axum stays in `http`, rocksdb in `store/rocks`, quinn and rustls in `peer`, foca in
//!   `proto/membership`.
//! - There is no leader, no quorum and no lock between nodes: whatever needs one is not here.
//! - Bytes from outside give an error, never a panic; a panic is a bug.

#![deny(missing_docs, unsafe_code, unused_must_use)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![deny(clippy::wildcard_imports, clippy::dbg_macro, clippy::todo, clippy::too_many_lines)]
#![warn(clippy::pedantic)]
#![allow(clippy::module_name_repetitions, clippy::missing_panics_doc)]
#![cfg_attr(test, allow(clippy::panic))]

pub mod cli;
pub mod clock;
pub mod config;
pub mod gossip;
pub mod http;
pub mod model;
pub mod node;
pub mod peer;
pub mod proto;
pub mod replication;
pub mod store;
pub mod telemetry;
