//! The clock that the age of remembered requests is measured by.
//!
//! Time that passed is measured by the monotonic clock: setting the wall clock must neither forget
//! a request before its window ends nor keep it for ever. A restart begins a new monotonic clock,
//! so the distance to the wall clock is kept on the disk, and a start goes on from there.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use crate::clock::Clock;
use crate::model::Timestamp;
use crate::store::ReadError;
use crate::store::disk::engine::{Engine, Family};
use crate::store::disk::layout;

/// A change of the distance to the wall clock is worth a write from this many microseconds on.
const DISTANCE_CHANGE_MIN: u64 = 1_000_000;

/// Microseconds since the epoch, as the wall clock showed them when the data was made, and from
/// there on by the monotonic clock.
///
/// Invariant: its time is never before the acceptance of a remembered request.
#[derive(Debug)]
pub(in crate::store) struct SteadyClock {
    base: Timestamp,
    since: Instant,
    /// The distance that is on the disk: wall time minus steady time.
    kept_distance: AtomicI64,
}

/// Steady time and wall time of one moment.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct SteadyReading {
    /// Steady time.
    pub now: Timestamp,
    wall: Timestamp,
}

impl SteadyReading {
    /// Wall time minus steady time, in microseconds.
    pub fn distance(self) -> i64 {
        // both are below 2^53
        self.wall.micros().cast_signed() - self.now.micros().cast_signed()
    }
}

impl SteadyClock {
    /// Goes on from what the disk holds: wall time less the distance, or the latest acceptance of a
    /// request, where the wall clock was set back in between.
    pub fn open(engine: &dyn Engine, clock: &Clock) -> Result<Self, ReadError> {
        let kept: Option<i64> = crate::store::meta(engine, layout::REQUESTS_DISTANCE)?;
        let distance = kept.unwrap_or_default();
        let wall = clock.now();
        let micros = wall.micros().saturating_add_signed(distance.saturating_neg());
        let mut base = Timestamp::saturating(micros);
        // only acceptances that lie ahead are visited
        let from = layout::request_times_from(base);
        engine.scan(Family::Requests, &from, None, &mut |entry, _| {
            let at = entry.get(1..).and_then(layout::split_instant).map(|(at, _)| at);
            base = at.map_or(base, |at| base.max(at));
            ControlFlow::Continue(())
        })?;
        Ok(Self { base, since: clock.instant(), kept_distance: distance.into() })
    }

    /// The time now; `wall` is what the wall clock shows.
    pub fn read(&self, clock: &Clock, wall: Timestamp) -> SteadyReading {
        let passed = clock.instant().saturating_duration_since(self.since);
        SteadyReading { now: self.base.plus(passed), wall }
    }

    /// Whether the distance on the disk no longer leads a restart to the right time.
    pub fn must_keep(&self, reading: SteadyReading) -> bool {
        let kept = self.kept_distance.load(Ordering::Relaxed);
        kept.abs_diff(reading.distance()) >= DISTANCE_CHANGE_MIN
    }

    /// Records that a group made this distance durable.
    pub fn kept(&self, distance: i64) {
        self.kept_distance.store(distance, Ordering::Relaxed);
    }
}
