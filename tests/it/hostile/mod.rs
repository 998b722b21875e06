//! Bytes that no client or peer would send: counted, logged, and without any effect.

mod garbage;
