//! The bytes on the disk: the storage engines, the layout of what they hold, and the identity of
//! the node that it belongs to.
//!
//! [`engine`] says what the store needs of an engine; [`rocks`] and [`memory`] are the two there
//! are. [`layout`] is the one place that knows the bytes, [`meta_entries`] the names in the meta
//! family, `migrate` what an older layout lacks. Nothing here decides on writes.

pub mod engine;
pub mod identity;
pub mod layout;
pub mod memory;
pub mod meta_entries;
mod migrate;
pub mod rocks;
pub mod split;
