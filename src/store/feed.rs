//! The feed: what this node's clients wrote, in the order in which it became durable.
//!
//! A bounded ring. Whoever reads too slowly is told that something was missed, and fetches it by a
//! session; a slow reader never holds up the writer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::model::{Header, Key};

/// One durable write of a client of this node.
#[derive(Debug)]
pub struct Commit {
    /// The key.
    pub key: Key,
    /// The new record's header.
    pub header: Header,
    /// Its value where that is small; a large one is read from the store when it is sent.
    pub body: Option<Bytes>,
}

/// The sending side; cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed(broadcast::Sender<Arc<Commit>>);

impl Feed {
    /// A feed that keeps `capacity` commits for its slowest reader.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(broadcast::Sender::new(capacity))
    }

    /// Tells all readers.
    pub fn publish(&self, commit: Commit) {
        // an error says that nobody listens, which is fine
        let _ = self.0.send(Arc::new(commit));
    }

    /// A reader of everything from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Commit>> {
        self.0.subscribe()
    }
}
