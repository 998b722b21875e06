//! Durations in the text form of the contract: `[1-9][0-9]*(ms|s|m|h|d)?`; without a unit, seconds.

use std::time::Duration;

/// The shortest duration that the text form has: one millisecond.
pub const DURATION_MIN: Duration = Duration::from_millis(1);
/// The longest duration that [`parse`] accepts: 36,500 days, about a century.
pub const DURATION_MAX: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

/// A text that is not a duration, cut to 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a duration; write a whole number and ms, s, m, h or d (no unit: seconds), \
     from 1ms to 36500d, as in `250ms` or `10s`"
)]
pub struct DurationError(pub String);

/// Parses a duration from [`DURATION_MIN`] to [`DURATION_MAX`].
///
/// # Errors
/// When `text` has another form or is out of range.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(super::shown(text));
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || number.starts_with('0') {
        return Err(error());
    }
    let number: u64 = number.parse().map_err(|_| error())?;
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    let duration = Duration::from_millis(number.checked_mul(millis).ok_or_else(error)?);
    if duration <= DURATION_MAX { Ok(duration) } else { Err(error()) }
}

/// Formats a duration of whole milliseconds in the largest unit that is exact; [`parse`] reads it
/// back.
#[must_use]
pub fn format(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_holds() {
        for (text, millis) in
            [("1ms", 1), ("5", 5_000), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("36500d"), Ok(DURATION_MAX));
        for bad in
            ["", "0", "01s", "1.5s", "-1", "+1", "1 s", "1w", "s", "36501d", "99999999999999999999"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_formatted_duration_parses_back() {
        for text in ["1ms", "1500ms", "90s", "2m", "36h", "1d"] {
            assert_eq!(parse(text).map(format), Ok(text.to_owned()));
        }
    }
}
