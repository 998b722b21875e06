//! What comes in: each file reads one part of a request, strictly.
//!
//! - [`path`], [`query`]: keys, prefixes and parameters; [`unknown`]: refuses what no table lists.
//! - [`headers`], [`etag`], [`date`], [`range`], [`retry`]: header fields.
//! - [`body`]: bounded bodies; [`json`]: their members; [`intent`]: the members that the bodies of
//!   several operations share; [`import_lines`]: lines of an export.
//!
//! Nothing here decides a request or touches the store.

pub(crate) mod body;
pub(crate) mod date;
pub(crate) mod etag;
pub(crate) mod headers;
pub(crate) mod import_lines;
pub(crate) mod intent;
pub(crate) mod json;
pub(crate) mod path;
pub(crate) mod query;
pub(crate) mod range;
pub(crate) mod retry;
pub(crate) mod unknown;
