//! How slow a stream may be: silence is bounded, and the speed in all has a floor.
//!
//! The length of a frame sets no limit, so that a thin link gets the largest one through. Must not
//! know what a frame is.

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Sleep, sleep, timeout};

use super::error::FrameError;

/// The least speed of a frame, in bytes per second, beyond the bound on silence. A thin link gets
/// through; a peer that dribbles to hold a stream does not.
const BYTES_PER_SECOND_MIN: u32 = 1000;

/// The bounds of one frame: on silence, and on the speed in all.
pub(super) struct StreamPace {
    idle: Duration,
    /// Fires when too few bytes have moved in all. Each byte moves it by its share of a second.
    floor: Pin<Box<Sleep>>,
}

impl StreamPace {
    /// The bounds of a frame that begins now. Takes `idle` for the longest silence.
    pub(super) fn new(idle: Duration) -> Self {
        Self { idle, floor: Box::pin(sleep(idle)) }
    }

    /// Waits for one read or write, which says how many bytes it moved. Cancel-safe if that is.
    pub(super) async fn keep(
        &mut self,
        moving: impl Future<Output = std::io::Result<usize>>,
        silent: impl FnOnce(Duration) -> FrameError,
    ) -> Result<usize, FrameError> {
        let moved = tokio::select! {
            biased;
            moved = timeout(self.idle, moving) => moved.map_err(|_| silent(self.idle))??,
            () = &mut self.floor => return Err(FrameError::Slow),
        };
        let share = Duration::from_secs(1) / BYTES_PER_SECOND_MIN;
        let earned = share.saturating_mul(u32::try_from(moved).unwrap_or(u32::MAX));
        let deadline = self.floor.deadline() + earned;
        self.floor.as_mut().reset(deadline);
        Ok(moved)
    }
}

/// Writes all of `bytes`, at a pace if one is given.
pub(super) async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    pace: &mut Option<StreamPace>,
) -> Result<(), FrameError> {
    let Some(pace) = pace else { return Ok(writer.write_all(bytes).await?) };
    let mut rest = bytes;
    while !rest.is_empty() {
        let taken = pace.keep(writer.write(rest), FrameError::Stuck).await?;
        if taken == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
        }
        assert!(taken <= rest.len(), "a write takes no more than it is given");
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(())
}

/// One read, bounded by `idle`. Cancel-safe because tokio's `read_buf` is.
pub(super) async fn read(
    reading: impl Future<Output = std::io::Result<usize>>,
    idle: Option<Duration>,
) -> Result<usize, FrameError> {
    let Some(idle) = idle else { return Ok(reading.await?) };
    match timeout(idle, reading).await {
        Ok(bytes) => Ok(bytes?),
        Err(_) => Err(FrameError::Silent(idle)),
    }
}
