//! The command line from outside: its output, its effects and its exit status.

pub mod commands;
pub mod kept_versions;
mod mistakes;
mod refused_starts;
mod strangers;
mod verify;
mod versions;
