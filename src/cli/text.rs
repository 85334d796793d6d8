//! How commands put values into words.
//!
//! Invariant: what comes from a token, a server or the cluster never reaches a terminal as a control sequence.

use jiff::{SignedDuration, Timestamp};

/// A text with everything that is not printable escaped, cut at 512 characters.
pub(super) fn printable(text: &str) -> String {
    const LIMIT: usize = 512;
    let mut out = String::with_capacity(text.len().min(LIMIT));
    for (n, c) in text.chars().enumerate() {
        if n == LIMIT {
            out.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => out.push(c),
            // Marks of writing direction are not control characters, and can make a line read as another one.
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                out.extend(c.escape_unicode());
            }
            c => out.extend(c.escape_debug()),
        }
    }
    out
}

/// How long something lasts, by its two largest units.
pub(super) fn span(duration: SignedDuration) -> String {
    let total = duration.as_secs().unsigned_abs();
    let units = [(total / 86_400, "d"), (total / 3600 % 24, "h"), (total / 60 % 60, "m"), (total % 60, "s")];
    let said: Vec<String> = units
        .into_iter()
        .skip_while(|(n, _)| *n == 0)
        .take(2)
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect();
    if said.is_empty() { "0s".to_owned() } else { said.join(" ") }
}

/// An instant and how far it is from now.
pub(super) fn instant(at: Timestamp, now: Timestamp) -> String {
    let distance = at.duration_since(now);
    if distance.is_negative() {
        format!("{at}, {} ago", span(distance))
    } else {
        format!("{at}, in {}", span(distance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_instants() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3661, "1h 1m"),
            (3605, "1h"),
            (90_000, "1d 1h"),
            (-61, "1m 1s"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
        let now: Timestamp = "2026-11-24T01:00:00Z".parse().unwrap();
        assert_eq!(instant("2026-11-24T00:30:00Z".parse().unwrap(), now), "2026-11-24T00:30:00Z, 30m ago");
        assert_eq!(instant("2026-11-24T01:30:00Z".parse().unwrap(), now), "2026-11-24T01:30:00Z, in 30m");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("a \"b\" ü"), "a \"b\" ü");
        assert_eq!(printable("\u{1b}[31m\n\u{7f}\u{9b}\u{202e}"), "\\u{1b}[31m\\n\\u{7f}\\u{9b}\\u{202e}");
        assert_eq!(printable(&"x".repeat(600)).chars().count(), 513);
    }
}
