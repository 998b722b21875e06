//! Several nodes without faults but those that a test makes itself: joining, leaving, returning,
//! pushes, sessions, the first data, an orderly stop.

mod life;
mod push;
mod sessions;
mod shutdown;
mod syncing;
