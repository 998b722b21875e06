//! kvs: a masterless key-value store.
//!
//! ```text
//!     client --HTTP--> http --> store --feed--> replication --QUIC--> peer ==> another node
//!                                                    ^
//!                             gossip (SWIM over UDP) +  who is alive
//! ```
//!
//! # Modules, in reading order
//! - [`model`]: what the data is, and the rules that decide between writes. Pure.
//! - [`proto`]: how nodes talk. Machines without input and output.
//! - [`store`]: the one door to the data. Its wings: `write` (a view is read, effects are decided,
//!   a group applies them), `read`, `expiry`, `feed`, and `disk` (the engines and the bytes).
//! - [`peer`]: QUIC and mutual TLS: streams of frames between nodes of one cluster.
//! - [`gossip`]: sealed datagrams that carry the membership.
//! - [`replication`]: pushes clients' writes, and compares and merges with peers in sessions.
//! - [`http`]: the API: `server`, `request`, `resources`, `answer`.
//! - [`node`]: the composition root: opens, wires, owns the tasks, shuts down in order.
//! - [`cli`]: the commands of the binary.
//! - [`config`], [`clock`], [`telemetry`]: settings, time and entropy, logs and metrics.
//!
//! # Architecture invariants
//! - Direction: `model <- proto <- shells <- node <- cli, main`. Between shells only `http ->
//!   store` and `replication -> {store, peer}`; the rest crosses as a value over a bounded channel
//!   or a watch that `node` wires. `tests/tidy` holds the table.
//! - Every change of a record passes the one writer, and nothing is readable, nor sent to a peer,
//!   before it is durable.
//! - Decisions read a view and return effects; one place applies them.
//! - `model` and `proto` never see a clock, entropy, a socket or tokio. `clock` is the only reader
//!   of time and entropy.
//! - axum stays in `http`, rocksdb in `store/disk/rocks`, quinn and rustls in `peer`, foca in
//!   `proto/membership`.
//! - There is no leader, no quorum and no lock between nodes. A feature that needs one is not here.
//! - Bytes from outside give an error, never a panic; a panic is a bug.
//!
//! # Glossary
//! One word has one meaning, in code, comments and documents. First those that users meet:
//!
//! | word | meaning |
//! |---|---|
//! | node | one running `kvs serve`, with a persistent id and `joined_at` |
//! | member | a node as gossip knows it: `alive`, `suspect`, `down` or `left` |
//! | peer | a node that this node talks to over QUIC |
//! | key, prefix | a path of segments; a range of keys that begin with whole segments |
//! | value | the bytes that a client stores, with a content type |
//! | record | what is stored for a key: a value or a tombstone, with its header |
//! | header | all of a record but the bytes of its value |
//! | version | timestamp, `joined_at` of the origin, uuid: the order among the writes of a key |
//! | origin | the node that accepted a write from a client |
//! | parent, seen | the uuid that a write replaced; what its line of writes knew of each origin |
//! | tombstone | the record of a delete |
//! | dead | said of a tombstone and of an expired value |
//! | expired | said of a value whose `expires_at` has passed |
//! | swept | said of an expired value whose bytes were freed; its header stays |
//! | revision | an earlier record of a key in this node's history |
//! | outcome | what became of a revision: current, replaced, superseded, expired |
//! | superseded | said of an acknowledged write that lost a merge to one that did not know it |
//! | condition | what a write expects of the current record; a failed one refuses it |
//! | request id | the uuid that a client gives a request, and a hash of all that it asks |
//! | fingerprint | the digest of a range of records or of all; equal sets, equal fingerprints |
//! | converged | every other alive member's latest report shows this node's fingerprint |
//!
//! Then those of the inside:
//!
//! | word | meaning |
//! |---|---|
//! | job | a request to the writer |
//! | writer | the one task that changes data |
//! | group | jobs that are decided in order and committed as one transaction, with one sync |
//! | view | what a decision reads: the store as its group has changed it so far |
//! | effect | one named change, returned by a decision and applied by its group |
//! | current entry | what a key has now, as it is stored, dead or alive |
//! | feed | all changes of records in the order in which they became durable |
//! | position, epoch | the place of a change in the feed; positions of one epoch are comparable |
//! | ring, window | the feed's recent changes in memory; those on the disk |
//! | expiry clock | turns wall time into the time that expiry is judged by |
//! | watermark | the durable time up to which expiry may have been reported |
//! | digest | the tree of sums over key order that sessions compare |
//! | element, sum, block | what a record adds to the digest; their total; a range of the tree |
//! | report | what tells of one superseded write, which it keeps whole |
//! | session | a comparison of two nodes' records, and the exchange of those that differ |
//! | initiator, responder | the two sides of a session |
//! | push | sending a client's write to the peers at once |
//! | merge | deciding between the current record and one from a peer |
//! | floor | the time up to which nothing changes any more; dead records leave as it passes them |
//! | collect | raising the floor by one bounded step, and dropping the dead that it passes |
//! | held | said of a record from a peer that lies too far ahead to be merged yet |
//! | horizon | how far ahead records may lie that a node merges: its clock and the bound on drift |
//! | due | said of a held record once the horizon has reached it |
//! | sweep | freeing the bytes of expired values, and forgetting old requests |
//! | permit | a share of a memory budget |
//! | mode | whether a node takes writes of its clients: `normal` or `read_only` |
//! | lag | the age of the oldest write that was pushed to a peer and that it has not confirmed |

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
