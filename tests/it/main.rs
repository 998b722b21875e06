//! The product from outside: real processes of `kvs`, real sockets, real disks.
//!
//! Each test starts nodes of its own on free ports, in a temporary directory, with certificates and
//! secrets that the command line made. It waits for conditions, never for a guess. Whatever a test
//! is about, a log with a panic or an error fails it; when it fails, the ends of the logs are
//! shown.
//!
//! `KVS_TEST_SCALE=N` makes the long ones N times longer, `KVS_TEST_BIN=FILE` tests another binary
//! than that of this build.

#![allow(clippy::disallowed_methods, reason = "time is real here")]

#[path = "../support/mod.rs"]
mod support;

mod api;
mod chaos;
mod cli;
mod cluster;
mod crash;
mod hostile;
