//! Budgets of memory, which requests share, wait for, and give back; and the pace of bodies.
//!
//! A request holds at most one permit of each budget, and takes them in one order: body, parsing,
//! answer. So no two requests can wait for each other. The permit of a body grows with its bytes;
//! [`BodyBudget`] says why that cannot lock either.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::http::answer::error::{Error, Unavailable};

/// The time that a client may take for a byte on average, of a body or of an answer: 1,000 bytes a
/// second.
pub(crate) const BYTE_TIME: Duration = Duration::from_millis(1);

/// From this size on, content counts against a budget and is worked on outside of the reactor.
pub(crate) const LARGE_BYTES_MIN: usize = 64 << 10;

/// How long a request waits for a permit before it is refused as `overloaded`.
pub(crate) const PERMIT_WAIT: Duration = Duration::from_secs(5);

/// The granularity of a budget.
const UNIT_BYTES: usize = 1024;

/// Memory that many requests share.
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    units_max: u32,
    wait: Duration,
}

/// A share of a [`Budget`]; dropping it returns it.
#[derive(Debug)]
pub(crate) struct Permit(OwnedSemaphorePermit);

impl Budget {
    /// A budget of `bytes_max`, rounded down to KiB but at least one. Requests wait up to `wait`.
    pub(crate) fn new(bytes_max: usize, wait: Duration) -> Self {
        let units_max = u32::try_from(bytes_max / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(units_max as usize)), units_max, wait }
    }

    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.units_max)
    }

    /// Waits for a permit of `bytes`; a request for more than the whole budget gets the whole.
    ///
    /// # Errors
    /// `overloaded` after the budget's wait.
    pub(crate) async fn permit(&self, bytes: usize) -> Result<Permit, Error> {
        if let Some(permit) = self.permit_now(bytes) {
            return Ok(permit);
        }
        let acquired = Arc::clone(&self.units).acquire_many_owned(self.units(bytes));
        match timeout(self.wait, acquired).await {
            Ok(Ok(permit)) => Ok(Permit(permit)),
            Ok(Err(_)) | Err(_) => Err(Unavailable::Overloaded.into()),
        }
    }

    /// A permit of `bytes`, `None` if it would have to be waited for.
    fn permit_now(&self, bytes: usize) -> Option<Permit> {
        Arc::clone(&self.units).try_acquire_many_owned(self.units(bytes)).ok().map(Permit)
    }

    /// A permit of at most `bytes`, as far as there are some left; `None` if there are none.
    fn rest(&self, bytes: usize) -> Option<Permit> {
        let left = u32::try_from(self.units.available_permits()).unwrap_or(u32::MAX);
        let units = self.units(bytes).min(left);
        let taken = Arc::clone(&self.units).try_acquire_many_owned(units).ok()?;
        (units > 0).then_some(Permit(taken))
    }

    /// Returns all of `permit` that `bytes` do not need.
    pub(crate) fn shrink(&self, permit: &mut Permit, bytes: usize) {
        let excess = permit.0.num_permits().saturating_sub(self.units(bytes) as usize);
        drop(permit.0.split(excess));
    }
}

/// Memory for the bodies of requests, taken as their bytes come: a client holds no more than it has
/// sent.
///
/// Small bodies have a part of their own, so that large ones cannot keep them out. Large bodies that
/// grow at once could each hold a part and wait for the rest for ever; so one of those that wait
/// gets a turn, and with it a part that is kept for it, until it is done.
pub(crate) struct BodyBudget {
    small: Budget,
    large: Budget,
    last: Budget,
    turn: Arc<Semaphore>,
}

/// The memory that one body holds; dropping it returns it.
#[derive(Debug, Default)]
pub(crate) struct BodyPermit {
    small: Option<Permit>,
    large: Option<Permit>,
    last: Option<(OwnedSemaphorePermit, Option<Permit>)>,
}

impl BodyBudget {
    /// A budget of `bytes_max`, of which one body needs at most `body_bytes_max`.
    pub(crate) fn new(bytes_max: usize, body_bytes_max: usize, wait: Duration) -> Self {
        let small = bytes_max / 8;
        let last = body_bytes_max.min((bytes_max - small) / 2);
        Self {
            small: Budget::new(small, wait),
            large: Budget::new(bytes_max - small - last, wait),
            last: Budget::new(last, wait),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Waits until `permit` covers `bytes`.
    ///
    /// # Errors
    /// `overloaded` after the budget's wait.
    pub(crate) async fn grow(&self, permit: &mut BodyPermit, bytes: usize) -> Result<(), Error> {
        if bytes <= LARGE_BYTES_MIN && permit.large.is_none() && permit.last.is_none() {
            let more = missing(bytes, &[permit.small.as_ref()]);
            if more > 0 {
                add(&mut permit.small, self.small.permit(more).await?);
            }
            return Ok(());
        }
        let held = permit.last.as_ref().and_then(|(_, last)| last.as_ref());
        let more = missing(bytes, &[permit.large.as_ref(), held]);
        if more == 0 {
            return Ok(());
        }
        if permit.last.is_none() {
            if let Some(more) = self.large.permit_now(more) {
                add(&mut permit.large, more);
            } else {
                tokio::select! {
                    biased;
                    more = self.large.permit(more) => add(&mut permit.large, more?),
                    // the semaphore is never closed
                    Ok(turn) = Arc::clone(&self.turn).acquire_owned() => {
                        permit.last = Some((turn, None));
                    }
                }
            }
        }
        if let Some((_, last)) = &mut permit.last
            && let Some(more) = self.last.rest(more)
        {
            add(last, more);
        }
        permit.small = None;
        Ok(())
    }

    /// Returns what `bytes` do not need.
    pub(crate) fn shrink(&self, permit: &mut BodyPermit, bytes: usize) {
        if let (Some(large), None) = (&mut permit.large, &permit.last) {
            self.large.shrink(large, bytes);
        }
        if let Some(small) = &mut permit.small {
            self.small.shrink(small, bytes);
        }
    }
}

/// How many bytes the permits lack to cover `bytes`.
fn missing(bytes: usize, permits: &[Option<&Permit>]) -> usize {
    let held: usize = permits.iter().flatten().map(|permit| permit.0.num_permits()).sum();
    bytes.saturating_sub(held * UNIT_BYTES)
}

fn add(permit: &mut Option<Permit>, more: Permit) {
    match permit {
        Some(permit) => permit.0.merge(more.0),
        None => *permit = Some(more),
    }
}

/// The end of the patience with a client that sends a body: bytes extend it, at [`BYTE_TIME`] each,
/// but never beyond the longest silence from now.
pub(crate) struct Pace {
    silence_max: Duration,
    /// When the body ends as too slow.
    pub(crate) deadline: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant, silence_max: Duration) -> Self {
        Self { silence_max, deadline: now + silence_max }
    }

    /// Notes that `bytes` came.
    pub(crate) fn came(&mut self, bytes: usize, now: Instant) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.deadline = (self.deadline + BYTE_TIME * bytes).min(now + self.silence_max);
    }

    /// Leaves out a time in which the client was not asked for bytes.
    pub(crate) fn paused(&mut self, pause: Duration) {
        self.deadline += pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_budget_is_shared_waited_for_and_returned() {
        let budget = Budget::new(10 * UNIT_BYTES, Duration::from_millis(1));
        let mut most = budget.permit(9 * UNIT_BYTES).await.unwrap();
        let refused = budget.permit(2 * UNIT_BYTES).await;
        assert!(matches!(refused, Err(Error::Unavailable(Unavailable::Overloaded))));
        let one = budget.permit(0).await.unwrap();
        budget.shrink(&mut most, UNIT_BYTES + 1);
        assert_eq!(most.0.num_permits(), 2);
        drop(one);
        drop(most);
        let all = budget.permit(100 * UNIT_BYTES).await.unwrap();
        assert_eq!(all.0.num_permits(), 10, "never more than the budget");
        drop(all);
        assert_eq!(budget.units.available_permits(), 10);
    }

    const MIB: usize = 1 << 20;

    fn bodies() -> Arc<BodyBudget> {
        Arc::new(BodyBudget::new(64 * MIB, 16 * MIB, Duration::from_secs(5)))
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_that_grow_at_once_all_end() {
        let budget = bodies();
        let mut growing = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let budget = Arc::clone(&budget);
            growing.spawn(async move {
                let mut permit = BodyPermit::default();
                for size in 1..=16 {
                    budget.grow(&mut permit, size * MIB).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
        }
        while let Some(grown) = growing.join_next().await {
            grown.unwrap();
        }
        for part in [&budget.small, &budget.large, &budget.last] {
            assert_eq!(part.units.available_permits(), part.units_max as usize);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_keep_no_small_one_out() {
        let budget = bodies();
        let mut held = Vec::new();
        for _ in 0..20 {
            let mut permit = BodyPermit::default();
            let grown = budget.grow(&mut permit, 4 * MIB).await;
            held.push((grown.is_ok(), permit));
        }
        assert!(held.iter().any(|(grown, _)| !grown), "the memory for large bodies is taken");
        for _ in 0..1000 {
            let mut small = BodyPermit::default();
            budget.grow(&mut small, 2000).await.unwrap();
            budget.grow(&mut small, LARGE_BYTES_MIN).await.unwrap();
        }
    }

    #[test]
    fn a_steady_client_has_all_the_time_that_its_bytes_need() {
        let (seconds, start) = (Duration::from_secs, crate::clock::Clock::system().instant());
        let mut pace = Pace::new(start, seconds(30));
        for second in 1..100_000 {
            assert!(start + seconds(second) < pace.deadline);
            pace.came(1000, start + seconds(second));
        }
        let mut slow = Pace::new(start, seconds(30));
        slow.came(25, start + seconds(29));
        assert_eq!(slow.deadline, start + seconds(30) + Duration::from_millis(25));
        let mut silent = Pace::new(start, seconds(30));
        silent.came(16 << 20, start);
        assert_eq!(silent.deadline, start + seconds(30), "bytes buy no silence");
    }
}
