//! A node that loses its process, its power or its disk keeps every acknowledged write. The clients
//! in `load` and `mixed_load` record what each answer promised.

pub mod disk_faults;
mod disk_room;
mod kill_mixed;
pub mod kill_writes;
pub mod load;
mod mixed_load;
mod power_loss;
