//! Waiting for conditions, never for a guess.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Enough for anything that the product does by itself, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until `condition` holds and gives what it gives. When it does not hold within `within`,
/// fails with `what` was waited for and the last reason why not.
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

/// A condition with the reason why it does not hold.
pub fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}

/// How many times longer than usual a test is to try, from `KVS_TEST_SCALE`; 1 without it.
pub fn scale() -> usize {
    let given = std::env::var("KVS_TEST_SCALE").ok();
    given.map_or(1, |text| text.parse().expect("KVS_TEST_SCALE is a whole number"))
}
