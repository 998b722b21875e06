//! The product from outside: real processes of `kvs`, real sockets, real disks.
//!
//! Each test starts nodes of its own on free ports, in a temporary directory, with certificates and
//! secrets that the command line made. It waits for conditions, never for a guess; `KVS_TEST_SCALE`
//! makes the long ones longer. Whatever a test is about, a log with a panic or an error fails it.

#![allow(clippy::disallowed_methods, reason = "time is real here")]

#[path = "../support/mod.rs"]
mod support;

mod api;
mod cli;
mod conditions;
mod crash;
mod garbage;
mod keys;
mod life;
mod load;
mod push;
mod scan;
mod sessions;
mod shutdown;
mod start;
mod swap;
mod syncing;
mod values;
