//! Several nodes, with no fault beyond the one under test: joining, leaving, returning, pushes,
//! sessions, the first data, members that cannot be reached, certificates, an orderly stop.

mod certificates;
mod clocks;
mod copies;
mod floor;
mod leave;
mod life;
mod push;
mod sessions;
mod shutdown;
mod superseded;
mod syncing;
mod unreached;
