//! The HTTP API from outside: one file for each part of CONTRACT.md's section 2, most of them on
//! one node.

mod conditions;
mod general;
mod history;
mod keys;
mod retries;
mod scan;
mod swap;
mod ttl;
mod txn;
pub mod values;
