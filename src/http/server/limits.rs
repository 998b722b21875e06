//! Budgets of memory, which requests share, wait for, and give back.
//!
//! A request holds at most one permit of each budget, and takes them in one order: body, parsing,
//! answer. So no two requests can wait for each other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::answer::error::{Error, Unavailable};

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
        let units = self.units(bytes);
        if let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(units) {
            return Ok(Permit(permit));
        }
        let acquired = Arc::clone(&self.units).acquire_many_owned(units);
        match timeout(self.wait, acquired).await {
            Ok(Ok(permit)) => Ok(Permit(permit)),
            Ok(Err(_)) | Err(_) => Err(Unavailable::Overloaded.into()),
        }
    }

    /// Returns all of `permit` that `bytes` do not need.
    pub(crate) fn shrink(&self, permit: &mut Permit, bytes: usize) {
        let excess = permit.0.num_permits().saturating_sub(self.units(bytes) as usize);
        drop(permit.0.split(excess));
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
}
