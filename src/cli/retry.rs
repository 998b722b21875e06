//! When an import sends a request again that failed, which is harmless: it stores the same values.

use std::time::Duration;

use super::error::CliError;

/// How often a request is repeated.
pub(super) const RETRIES_MAX: u32 = 6;
/// The wait before the first retry. It doubles each time; a longer Retry-After of the node wins.
pub(super) const RETRY_WAIT: Duration = Duration::from_millis(100);
/// The longest wait before a retry, even if the node asks for more.
pub(super) const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long to wait before a request is sent again that failed with `error`; `None` where that
/// would not help. `reached` is true once the node has answered.
pub(super) fn retry_after(error: &CliError, reached: bool, wait: Duration) -> Option<Duration> {
    match error {
        CliError::Refused(refusal) if refusal.status == 503 => refusal.retry_after,
        CliError::Unreachable { connected, .. } if *connected || reached => Some(wait),
        // a proxy says that the node behind it does not answer now
        CliError::Stranger { status: 502..=504, .. } if reached => Some(wait),
        CliError::Cut { .. } => Some(wait),
        _ => None,
    }
}
