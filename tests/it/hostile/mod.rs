//! Bytes that no client or peer would send, and clients that take what all share: counted, logged,
//! and without any effect. And a process whose surroundings are bad: outputs that nobody reads, few
//! file descriptors, other users.

mod browsers;
mod chromium;
mod crowds;
mod descriptors;
mod garbage;
mod memory;
mod modes;
mod outputs;
