//! Globs: `*` is any run of characters, `?` one, everything else stands for itself.
//!
//! Invariant: matching takes at most pattern × text steps, whatever the pattern: only the last `*` is ever taken
//! up again, and nothing recurses.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// Whether it stands for the whole text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (matched, steps) = run(self.0.as_bytes(), text.as_bytes());
        count(steps);
        matched
    }

    /// The byte that every text of it begins with; `None` if that may be any.
    fn first(&self) -> Option<u8> {
        self.0.bytes().next().filter(|b| !matches!(b, b'*' | b'?'))
    }

    fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }
}

impl From<&str> for Glob {
    fn from(pattern: &str) -> Self {
        Self(pattern.into())
    }
}

/// Whether they match, and in how many steps. Both are UTF-8, and wildcards move by whole characters.
fn run(pattern: &[u8], text: &[u8]) -> (bool, usize) {
    let (mut p, mut t, mut steps) = (0, 0, 0);
    // Behind the last `*`, and where in the text it ends for now.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        steps += 1;
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(b'?') => {
                p += 1;
                t += width(text[t]);
            }
            Some(c) if *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((behind, end)) = star else { return (false, steps) };
                let end = end + width(text[end]);
                star = Some((behind, end));
                (p, t) = (behind, end);
            }
        }
    }
    (pattern[p..].iter().all(|c| *c == b'*'), steps)
}

#[cfg(test)]
std::thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn count(steps: usize) {
    STEPS.set(STEPS.get() + steps);
}

/// Only tests count.
#[cfg(not(test))]
const fn count(_: usize) {}

/// What comes of some work, and in how many steps of matching.
#[cfg(test)]
pub(crate) fn steps_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = STEPS.get();
    let done = work();
    (done, STEPS.get() - before)
}

/// The bytes of a character by its first.
const fn width(first: u8) -> usize {
    match first {
        0..0xc0 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    }
}

/// A list of globs, ordered so that a name is held against those alone that can match it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globs {
    any: bool,
    /// Without wildcards, sorted.
    literal: Box<[Box<str>]>,
    /// Sorted by the first byte, those that begin with a wildcard before all.
    wild: Box<[(Option<u8>, Glob)]>,
}

impl Globs {
    /// Whether one of them matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        if self.any || self.literal.binary_search_by(|l| (**l).cmp(text)).is_ok() {
            return true;
        }
        let first = text.bytes().next();
        let open = self.wild.partition_point(|(f, _)| f.is_none());
        let from = self.wild.partition_point(|(f, _)| *f < first);
        let to = self.wild.partition_point(|(f, _)| *f <= first);
        let begun = if first.is_some() { &self.wild[from..to] } else { &[] };
        self.wild[..open].iter().chain(begun).any(|(_, g)| g.matches(text))
    }
}

impl<S: AsRef<str>> FromIterator<S> for Globs {
    fn from_iter<I: IntoIterator<Item = S>>(patterns: I) -> Self {
        let globs: Vec<Glob> = patterns.into_iter().map(|p| p.as_ref().into()).collect();
        let any = globs.iter().any(|g| &*g.0 == "*");
        let (literal, wild): (Vec<_>, Vec<_>) = globs.into_iter().partition(Glob::is_literal);
        let mut literal: Vec<_> = literal.into_iter().map(|g| g.0).collect();
        literal.sort_unstable();
        let mut wild: Vec<_> = wild.into_iter().map(|g| (g.first(), g)).collect();
        wild.sort_by_key(|(first, _)| *first);
        Self { any, literal: literal.into(), wild: wild.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Said a second time and simply; exponential.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some('*'), _) => naive(&pattern[1..], text) || (!text.is_empty() && naive(pattern, &text[1..])),
            (Some('?'), Some(_)) => naive(&pattern[1..], &text[1..]),
            (Some(p), Some(t)) if p == t => naive(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    #[test]
    fn wildcards_stand_for_characters_and_all_else_for_itself() {
        for (pattern, text, wanted) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b.c:d", true),
            ("?", "", false),
            ("?", "é", true),
            ("*??", "€", false),
            ("tickets", "tickets", true),
            ("tickets", "ticketsx", false),
            ("*.admin", "x.admin", true),
            ("*.admin", "xadmin", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("[ab]", "a", false),
            ("[ab]", "[ab]", true),
            ("a\\*", "a\\x", true),
            ("A*", "abc", false),
        ] {
            assert_eq!(Glob::from(pattern).matches(text), wanted, "{pattern} {text}");
            assert_eq!(Globs::from_iter([pattern]).matches(text), wanted, "{pattern} {text}");
        }
        assert!(!Globs::from_iter(Vec::<&str>::new()).matches("a"));
    }

    #[test]
    fn the_worst_pattern_is_quick() {
        let text = "a".repeat(253);
        for pattern in [format!("{}b", "*a".repeat(126)), format!("{}*b", "a*".repeat(125))] {
            let (matched, steps) = run(pattern.as_bytes(), text.as_bytes());
            assert!(!matched && steps <= 253 * 254, "{steps}");
        }
    }

    proptest! {
        #[test]
        fn globs_are_what_they_say(
            patterns in prop::collection::vec("[ab*?é]{0,7}", 0..6), text in "[abé€]{0,9}",
        ) {
            let chars = |t: &str| t.chars().collect::<Vec<_>>();
            let one = |p: &String| naive(&chars(p), &chars(&text));
            for p in &patterns {
                prop_assert_eq!(Glob::from(p.as_str()).matches(&text), one(p), "{} {}", p, &text);
            }
            prop_assert_eq!(Globs::from_iter(&patterns).matches(&text), patterns.iter().any(one));
        }

        #[test]
        fn steps_are_bounded(pattern in "[ab*?]{0,60}", text in "[ab]{0,60}") {
            let (_, steps) = run(pattern.as_bytes(), text.as_bytes());
            prop_assert!(steps <= (pattern.len() + 1) * (text.len() + 1));
        }
    }
}
