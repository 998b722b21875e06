//! Several nodes, with no fault beyond the one under test: joining, leaving, returning, pushes,
//! sessions, the first data, an orderly stop.

mod life;
mod push;
mod sessions;
mod shutdown;
mod syncing;
