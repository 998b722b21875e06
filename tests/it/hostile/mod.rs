//! Bytes that no client or peer would send: counted, logged, and without any effect. And a process
//! whose surroundings are bad: outputs that nobody reads, few file descriptors, other users.

mod descriptors;
mod garbage;
mod memory;
mod modes;
mod outputs;
