//! Connections, and what all requests have in common.
//!
//! - [`listener`]: accepts, serves and ends connections; [`crowd`]: which of them makes room;
//!   [`activity`]: what one is doing; [`connection`]: its bytes.
//! - [`front`]: ids, common headers, log lines, the catch of panics; [`browsers`]: the wall against
//!   other people's web pages; [`counts`]: the metrics.
//! - [`limits`]: memory budgets; [`detached`]: writes that outlive their client.

pub(crate) mod activity;
pub(crate) mod browsers;
pub(crate) mod connection;
pub(crate) mod counts;
pub(crate) mod crowd;
pub(crate) mod detached;
pub(crate) mod front;
pub(crate) mod limits;
pub(crate) mod listener;
