//! Waiting for conditions, never for a guessed time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Long enough for everything that the product does unasked, on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);
/// How often to check a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until `condition` holds and returns its value. Panics after `within` with `what` and the
/// last reason why it did not hold.
pub async fn eventually<T>(
    within: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let began = Instant::now();
    loop {
        let looked = condition().await;
        match looked {
            Ok(found) => return found,
            Err(reason) if began.elapsed() > within => {
                panic!("{what}: not within {within:?}: {reason}")
            }
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

/// A condition and the reason why it does not hold.
pub fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}

/// The factor by which tests run longer than usual, from `KVS_TEST_SCALE`; 1 without it.
pub fn scale() -> usize {
    let given = std::env::var("KVS_TEST_SCALE").ok();
    given.map_or(1, |text| text.parse().expect("KVS_TEST_SCALE is a whole number"))
}
