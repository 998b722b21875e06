//! What goes out: values, JSON bodies, refusals.
//!
//! - [`code`]: the table of error codes; [`error`]: everything that can be refused, and its code;
//!   [`problem`]: the one place where an error becomes an answer.
//! - [`text`]: JSON answers and the memory they hold; [`written`]: the body of an accepted write;
//!   [`value`]: a value's bytes and headers.
//! - [`envelope`]: a live value as JSON; [`size`]: how much memory answers take.
//! - [`schema`], [`nullable`]: the forms of members that serde and schemars have no word for.
//!
//! Nothing here reads a request.

pub(crate) mod code;
pub(crate) mod envelope;
pub(crate) mod error;
pub(crate) mod nullable;
pub(crate) mod problem;
pub(crate) mod schema;
pub(crate) mod size;
pub(crate) mod text;
pub(crate) mod value;
pub(crate) mod written;
