//! Counts and durations in words, for people.

use std::time::Duration;

/// Formats a count for people: `1 record`, `2 records`.
#[must_use]
pub fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Formats a duration for people: `7 ms`, `1.25 s`.
#[must_use]
pub fn span(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{} ms", span.as_millis())
    } else {
        format!("{}.{:02} s", span.as_secs(), span.subsec_millis() / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_durations_read_as_words() {
        assert_eq!([0, 1, 2].map(|n| count(n, "record")), ["0 records", "1 record", "2 records"]);
        assert_eq!(span(Duration::from_millis(7)), "7 ms");
        assert_eq!(span(Duration::from_millis(1257)), "1.25 s");
    }
}
