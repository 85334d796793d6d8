//! Colours: how something stands, at a terminal.
//!
//! Invariants: what is read by programs (`-o json|yaml|name`, pipes, files) never has any; without them nothing is
//! missing, since the word itself says it.

use std::io::IsTerminal;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// How something stands, and its colour.
const WORDS: [(&str, &str); 10] = [
    ("Ready", GREEN),
    ("Allowed", GREEN),
    ("Held", GREEN),
    ("Narrowed", YELLOW),
    ("Unknown", YELLOW),
    ("Ending", YELLOW),
    ("Orphaned", YELLOW),
    ("Suspended", RED),
    ("Refused", RED),
    ("Ended", RED),
];

/// Whether a stream is painted: `NO_COLOR` (https://no-color.org) says never, `CLICOLOR_FORCE` always; else a terminal.
pub(super) fn wanted(stream: &impl IsTerminal) -> bool {
    let said = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    decide(
        said("NO_COLOR").is_some(),
        said("CLICOLOR_FORCE").is_some_and(|v| v != "0"),
        said("TERM").as_deref() == Some("dumb"),
        stream.is_terminal(),
    )
}

const fn decide(never: bool, force: bool, dumb: bool, terminal: bool) -> bool {
    !never && (force || (terminal && !dumb))
}

/// The word that begins a message of failure.
pub(super) fn error() -> String {
    if wanted(&std::io::stderr()) { format!("{RED}error:{PLAIN}") } else { "error:".to_owned() }
}

/// Paints the words that say how something stands: at the start of a line, or after a colon.
pub(super) fn paint(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> String {
    for (word, colour) in WORDS {
        if line.strip_prefix(word).is_some_and(|rest| rest.starts_with(' ')) {
            return format!("{colour}{word}{PLAIN}{}", &line[word.len()..]);
        }
        let said = format!(": {word}");
        if let Some((before, after)) = line.split_once(&said)
            && (after.is_empty() || after.starts_with([',', ';', ':', '\n']))
        {
            return format!("{before}: {colour}{word}{PLAIN}{after}");
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_honoured() {
        for (never, force, dumb, terminal, painted) in [
            (false, false, false, true, true),
            (false, false, false, false, false),
            (false, false, true, true, false),
            (true, true, false, true, false),
            (false, true, true, false, true),
        ] {
            assert_eq!(decide(never, force, dumb, terminal), painted, "{never} {force} {dumb} {terminal}");
        }
    }

    #[test]
    fn only_what_says_how_something_stands_is_painted() {
        for (plain, painted) in [
            ("  a/b (written): Ready\n", "  a/b (written): \x1b[32mReady\x1b[0m\n"),
            ("    g on r: Refused, X: y\n", "    g on r: \x1b[31mRefused\x1b[0m, X: y\n"),
            ("Held AgentResource r\n", "\x1b[32mHeld\x1b[0m AgentResource r\n"),
            ("  status    Ready=True Issued: Ready to go\n", "  status    Ready=True Issued: Ready to go\n"),
            ("a: Readyness\n", "a: Readyness\n"),
        ] {
            assert_eq!(paint(plain), painted);
        }
    }
}
