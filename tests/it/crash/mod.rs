//! A node that loses its process, its power or its disk: every acknowledged write is there
//! afterwards. `load` and `mixed_load` are the clients that keep the books.

pub mod disk_faults;
mod kill_mixed;
pub mod kill_writes;
pub mod load;
mod mixed_load;
mod power_loss;
