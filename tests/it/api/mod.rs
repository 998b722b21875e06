//! The HTTP API from outside: one file for each part of the API, mostly on one node.

mod conditions;
mod connections;
mod general;
mod history;
mod keys;
mod mode;
mod retries;
mod scan;
mod swap;
mod ttl;
mod txn;
pub mod values;
