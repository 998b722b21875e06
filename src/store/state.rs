//! Whether storage takes writes, as the writer and the watch on the disk know it.
//!
//! The disk may fill up, or its directory go, while nobody writes. So it is looked at regularly,
//! and by the writer whenever it has written a lot: nothing is acknowledged on a disk that is gone,
//! and writes end before the disk is full, so that deletes and the engine itself have room left.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::engine::EngineError;
use super::{ReadError, Shared, Store, WriteError};
use crate::telemetry::Metrics;

/// How often the disk is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much may be written before the writer itself looks at the disk.
pub(super) const LOOK_AFTER_BYTES: usize = 4 << 20;

/// Why storage takes no writes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The directory of the data is gone, or another one is in its place: reads may fail, too.
    Gone,
    /// The disk is full.
    Full,
    /// Less is free than the configured reserve. Deletes are taken.
    Low {
        /// How many bytes are free.
        free_bytes: u64,
        /// The configured reserve, in bytes.
        free_bytes_min: u64,
    },
    /// Storage failed and is being opened again.
    Failed,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str(
                "the data directory of this node is gone, or another one is in its place; put it \
                 back, or restart the node",
            ),
            Self::Full => f.write_str(
                "the disk of this node is full; writes are refused and reads are served until it \
                 has room",
            ),
            Self::Low { free_bytes, free_bytes_min } => write!(
                f,
                "the disk of this node has {free_bytes} bytes left, less than \
                 storage.free_bytes_min ({free_bytes_min}); until it has room, reads are served, \
                 deletes are the only writes, and merges wait"
            ),
            Self::Failed => f.write_str(
                "storage of this node failed and is being opened again; writes are refused until \
                 then",
            ),
        }
    }
}

/// The room on the disk of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageRoom {
    /// Whether storage takes all writes.
    pub writable: bool,
    /// How much is free, where the system tells.
    pub free_bytes: Option<u64>,
    /// What the files of the data take, where there are files.
    pub used_bytes: Option<u64>,
}

/// What is known of the disk.
pub(super) struct DiskState {
    free_bytes_min: u64,
    known: Mutex<Known>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Known {
    /// From the latest look: gone or low.
    seen: Option<Obstacle>,
    /// The writer's own: full or failed, until storage is open again.
    recovering: Option<Obstacle>,
}

impl DiskState {
    pub(super) fn new(free_bytes_min: u64, metrics: Arc<Metrics>) -> Self {
        metrics.storage_writable.set(1);
        Self { free_bytes_min, known: Mutex::default(), metrics }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        change(&mut known);
        self.metrics.storage_writable.set(i64::from(known.obstacle().is_none()));
    }

    /// Why storage takes no writes, if it does not.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        self.known().obstacle()
    }

    /// How much room is left, while that is too little.
    pub(super) fn low(&self) -> Option<Obstacle> {
        self.known().seen.filter(|seen| matches!(seen, Obstacle::Low { .. }))
    }

    /// Why records from peers are not taken now, though storage works or will again.
    fn merge_pause(&self) -> Option<Obstacle> {
        self.obstacle().filter(|why| matches!(why, Obstacle::Low { .. } | Obstacle::Full))
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.known().recovering.is_some()
    }

    /// Notes that the writer opens storage again, `None`: that it is open.
    pub(super) fn set_recovering(&self, why: Option<&ReadError>) {
        let obstacle = why.map(|why| match why {
            ReadError::Full(_) => Obstacle::Full,
            _ => Obstacle::Failed,
        });
        self.change(|known| known.recovering = obstacle);
    }

    /// Notes what a look at the disk has shown: the free bytes where they are known, or why the
    /// directory cannot be used. Logs each change.
    fn saw(&self, look: Result<Option<u64>, &ReadError>) {
        let before = self.known().seen;
        let now = match look {
            Err(_) => Some(Obstacle::Gone),
            Ok(None) => None,
            Ok(Some(free_bytes)) => {
                self.metrics.storage_free_bytes.set(i64::try_from(free_bytes).unwrap_or(i64::MAX));
                let free_bytes_min = self.free_bytes_min;
                // room that comes and goes must not change the state each time
                let is_low = matches!(before, Some(Obstacle::Low { .. }));
                let margin = if is_low { free_bytes_min / 8 } else { 0 };
                (free_bytes < free_bytes_min.saturating_add(margin))
                    .then_some(Obstacle::Low { free_bytes, free_bytes_min })
            }
        };
        self.change(|known| known.seen = now);
        match (before, now) {
            (Some(Obstacle::Low { .. }), Some(Obstacle::Low { .. })) => {}
            (_, Some(Obstacle::Low { .. })) => tracing::error!(
                "the disk is full but for a reserve: {}",
                now.map(|now| now.to_string()).unwrap_or_default()
            ),
            (Some(Obstacle::Low { .. }), None) => {
                tracing::info!("the disk has room again; writes and merges are accepted");
            }
            // the writer logs what it recovers from
            _ => {}
        }
    }
}

impl Known {
    fn obstacle(&self) -> Option<Obstacle> {
        match (self.seen, self.recovering) {
            (Some(Obstacle::Gone), _) => self.seen,
            (_, Some(recovering)) => Some(recovering),
            (seen, None) => seen,
        }
    }
}

impl Shared {
    /// Learns the state of the disk before the store serves.
    pub(super) fn begin_disk_state(&self) {
        // an error shows again at the first write
        let _ = self.look_at_disk();
        if let Some(full @ EngineError::Full(_)) = self.engine.opened().err() {
            self.disk.set_recovering(Some(&full.into()));
        }
    }

    /// Looks at the disk.
    ///
    /// # Errors
    /// When the directory of the data is gone, or cannot be looked at.
    pub(super) fn look_at_disk(&self) -> Result<(), ReadError> {
        let look = self.engine.free_bytes().map_err(ReadError::from);
        self.disk.saw(look.as_ref().copied());
        look.map(drop)
    }
}

impl Store {
    /// Why this store takes no writes now, if it does not. See [`Obstacle::Low`] for deletes.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.shared.disk.obstacle()
    }

    /// Why merges are paused, if they are: the disk has too little room. Whoever gives records then
    /// keeps them, and a session brings them when there is room again.
    #[must_use]
    pub fn merge_pause(&self) -> Option<Obstacle> {
        self.shared.disk.merge_pause()
    }

    /// The room on the disk now. Reads the directory of the data.
    #[must_use]
    pub fn room(&self) -> StorageRoom {
        let engine = self.shared.engine.as_ref();
        let (free_bytes, used_bytes) = (engine.free_bytes(), engine.used_bytes());
        StorageRoom {
            writable: self.obstacle().is_none(),
            free_bytes: free_bytes.unwrap_or_default(),
            used_bytes: used_bytes.unwrap_or_default(),
        }
    }

    /// Looks at the disk regularly, until `stop`, so that its state is known while nobody writes.
    pub async fn watch_disk(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let looked = self.blocking(|store| store.shared.look_at_disk()).await;
            if looked.is_err() && !self.shared.disk.is_recovering() {
                // the writer looks, too, and begins to open storage again
                if let Err(WriteError::ShuttingDown) = self.sweep().await {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_nearly_full_disk_has_a_margin_and_a_lost_directory_goes_before_all() {
        let metrics = Metrics::new();
        let disk = DiskState::new(800, metrics.clone());
        let low = |free| Some(Obstacle::Low { free_bytes: free, free_bytes_min: 800 });
        for (free, expected) in
            [(800, None), (799, low(799)), (899, low(899)), (900, None), (800, None)]
        {
            disk.saw(Ok(Some(free)));
            assert_eq!((disk.obstacle(), disk.low()), (expected, expected), "{free}");
            assert_eq!(metrics.storage_writable.get(), i64::from(expected.is_none()));
        }
        let failed = ReadError::Engine("a test".to_owned());
        disk.set_recovering(Some(&failed));
        assert_eq!(disk.obstacle(), Some(Obstacle::Failed));
        disk.saw(Ok(Some(1)));
        disk.set_recovering(Some(&ReadError::Full("a test".to_owned())));
        assert_eq!(disk.obstacle(), Some(Obstacle::Full));
        disk.saw(Err(&failed));
        assert_eq!((disk.obstacle(), disk.low()), (Some(Obstacle::Gone), None));
        disk.saw(Ok(None));
        disk.set_recovering(None);
        assert_eq!(disk.obstacle(), None, "an engine without a disk");
    }
}
