//! Bytes that no client or peer would send, and clients that take what all share: counted, logged,
//! and without any effect.

mod browsers;
mod chromium;
mod crowds;
mod garbage;
