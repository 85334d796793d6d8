//! How far a long command has come: how many of how many, at which rate, and how much longer.
//!
//! Invariant: it goes to standard error, over and over on one line of a terminal, else as a line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use super::text::span;

/// How often it is said, on a terminal and elsewhere.
const OFTEN: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(5);

/// The progress of a command.
#[derive(Debug)]
pub(super) struct Progress {
    /// What is counted, and what is done with it: `Secrets minted anew`.
    what: &'static str,
    all: usize,
    began: Instant,
    said: Option<Instant>,
    last: usize,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str, all: usize) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { what, all, began: Instant::now(), said: None, last: 0, terminal }
    }

    /// So many are done: it is said, if it is time.
    pub(super) fn at(&mut self, done: usize) {
        let pause = if self.terminal { OFTEN } else { SELDOM };
        let due = self.said.unwrap_or(self.began).elapsed() >= pause;
        if done == self.last || !due {
            return;
        }
        self.last = done;
        self.said = Some(Instant::now());
        let line = line(self.what, done, self.all, self.began.elapsed());
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Leaves the line, so that something else can be said.
    pub(super) fn end(&mut self) {
        if self.terminal && self.said.take().is_some() {
            eprintln!();
        }
    }
}

/// So far, for people.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate for people")]
fn line(what: &str, done: usize, all: usize, took: Duration) -> String {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let more = match all.saturating_sub(done) {
        0 => String::new(),
        _ if done == 0 => String::new(),
        left => {
            let seconds = (left as f64 / rate).ceil().min(1e9) as i64;
            format!(", about {} more", span(SignedDuration::from_secs(seconds)))
        }
    };
    format!("{done} of {all} {what}, {rate:.1}/s{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_and_time_left() {
        for (done, all, seconds, text) in [
            (0, 10, 5, "0 of 10 Secrets minted anew, 0.0/s"),
            (100, 1000, 5, "100 of 1000 Secrets minted anew, 20.0/s, about 45s more"),
            (1, 7200, 1, "1 of 7200 Secrets minted anew, 1.0/s, about 1h 59m more"),
            (10, 10, 5, "10 of 10 Secrets minted anew, 2.0/s"),
        ] {
            assert_eq!(line("Secrets minted anew", done, all, Duration::from_secs(seconds)), text);
        }
    }
}
