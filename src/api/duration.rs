//! Durations as they stand in specs and in the configuration: `^([0-9]+(s|m|h))+$`, such as `90s` or `1h30m`.

use thiserror::Error;

/// A duration that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DurationError {
    /// Not of the form `^([0-9]{1,7}(s|m|h)){1,3}$`.
    #[error("{0:?} is not a duration: write numbers with s, m or h, such as 90s or 1h30m")]
    Malformed(String),
}

/// Reads a duration, in seconds.
///
/// # Errors
/// [`DurationError::Malformed`] for anything but one to three numbers with units.
pub fn parse_seconds(text: &str) -> Result<u32, DurationError> {
    let malformed = || DurationError::Malformed(text.chars().take(64).collect());
    let (mut total, mut digits, mut parts) = (0u64, String::new(), 0);
    for c in text.chars() {
        if c.is_ascii_digit() && digits.len() < 7 {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return Err(malformed()),
        };
        total += digits.parse::<u64>().map_err(|_| malformed())? * unit;
        digits.clear();
        parts += 1;
    }
    if !digits.is_empty() || parts == 0 || parts > 3 {
        return Err(malformed());
    }
    u32::try_from(total).map_err(|_| malformed())
}

/// Writes seconds as people read them: `1h30m`, `45s`.
#[must_use]
pub fn format_seconds(seconds: u64) -> String {
    let (h, m, s) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    let mut text = String::new();
    for (n, unit) in [(h, 'h'), (m, 'm'), (s, 's')] {
        if n > 0 {
            text.push_str(&n.to_string());
            text.push(unit);
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_pattern_allows() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("720h", 2_592_000)] {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for text in ["", "1", "s", "-1s", "1d", "1.5h", "1h 30m", "99999999h", "1h1h1h1h", "9999999h9999999h"]
        {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for seconds in [0, 1, 59, 60, 61, 3599, 3600, 3661, 86_400] {
            assert_eq!(u64::from(parse_seconds(&format_seconds(seconds)).unwrap()), seconds);
        }
    }
}
