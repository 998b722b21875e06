//! Connections, and what all requests have in common.
//!
//! - [`listener`]: accepts, serves and ends connections; [`connection`]: the bytes of one.
//! - [`front`]: ids, common headers, log lines, the catch of panics; [`counts`]: the metrics.
//! - [`limits`]: memory budgets; [`detached`]: writes that outlive their client.

pub(crate) mod connection;
pub(crate) mod counts;
pub(crate) mod detached;
pub(crate) mod front;
pub(crate) mod limits;
pub(crate) mod listener;
