//! The pure machines, compiled apart from the shells.

#[path = "../../src/model/mod.rs"]
pub mod model;

/// The part of `proto` that the exploration drives.
#[path = "../../src/proto"]
pub mod proto {
    pub mod stability;
}
