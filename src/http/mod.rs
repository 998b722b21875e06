//! The HTTP API: axum in front of the store. This file is the map of its rooms.
//!
//! - `resources`: one file a resource. Each describes its operations once, in a table that
//!   routing, metrics, parsers and tests read.
//! - `request`: what comes in: paths, queries, headers, bodies.
//! - `answer`: what goes out: values, JSON bodies, and the one table of error codes.
//! - `server`: connections, what all requests have in common, memory budgets.
//! - `state`: what the handlers share.
//!
//! A request passes `server/listener` and `server/connection` (bytes), `server/front` (request id,
//! counting), `resources` (routing), the resource's file, and comes back through `answer`.
//!
//! Rooms to come: `openapi` (the tables as one document), `access` (tokens, rate limits, audit),
//! `ui` (static files), and `watch` and `ls` among the resources.
//!
//! Of gossip and replication the API knows only the values that [`State`] carries. Files of these
//! rooms import each other without circles.

mod answer;
mod request;
mod resources;
mod server;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use answer::envelope::write_record_line;
pub(crate) use request::import_lines::{AsideLine, read_aside_line};
pub(crate) use server::crowd::SURPLUS_MAX;
pub use server::listener::serve;
pub use state::{LeaveRequest, Outlook, State};

/// The resources as a service, for requests that are made inside this process. The parts that
/// [`serve`] adds to every answer are missing: node and request ids, counts, the catch of panics.
pub fn router(state: State) -> axum::Router {
    resources::router(Arc::new(state::App::new(state)))
}
