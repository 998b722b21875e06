//! The time to live that a write gives its value.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::model::duration;

/// A time to live, as the option and the API write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Keeps the expiry of the value that is replaced.
    Keep,
    /// Counts from the moment of the write.
    For(Duration),
}

impl Ttl {
    /// Reads `keep` or a duration.
    ///
    /// # Errors
    /// What is wrong and what is allowed, for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "keep" {
            return Ok(Self::Keep);
        }
        duration::parse(text).map(Self::For).map_err(|e| format!("{e}; or write `keep`"))
    }

    /// The query to append to a path that has none.
    #[must_use]
    pub fn query(self) -> String {
        format!("?ttl={self}")
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::For(duration) => f.write_str(&duration::format(*duration)),
        }
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_keep_or_a_duration() {
        let sent = |text| Ttl::parse(text).map(|ttl| ttl.to_string());
        for (text, form) in [("keep", "keep"), ("90", "90s"), ("1500ms", "1500ms"), ("24h", "1d")] {
            assert_eq!(sent(text).as_deref(), Ok(form));
        }
        assert_eq!(serde_json::to_string(&Ttl::parse("90").unwrap()).unwrap(), r#""90s""#);
        for bad in ["", "Keep", "0", "1w", "-1s", "1.5h", "36501d"] {
            let error = sent(bad).expect_err(bad);
            assert!(error.contains("from 1ms to 36500d") && error.ends_with("`keep`"), "{error}");
        }
    }
}
