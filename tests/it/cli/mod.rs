//! The command line from outside: what it prints, stores and exits with.

mod commands;
mod refused_starts;
mod versions;
