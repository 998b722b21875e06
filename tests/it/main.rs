//! The product from outside: real processes of `kvs`, real sockets, real disks.
//!
//! Each test starts its own nodes on free ports, in a temporary directory, with certificates and
//! secrets that the command line made. It waits for conditions, never for a fixed time. A panic or
//! an unexpected error in a node's log fails every test; a failing test prints the log ends.
//!
//! `KVS_TEST_SCALE=N` makes the long tests N times longer; `KVS_TEST_BIN=FILE` tests that binary
//! instead of this build's.

#![allow(clippy::disallowed_methods, reason = "time is real here")]

#[path = "../support/mod.rs"]
mod support;

mod api;
mod chaos;
mod cli;
mod cluster;
mod crash;
mod hostile;
