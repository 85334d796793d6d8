//! What the flags leave out, asked at a terminal.
//!
//! Invariant: an answer passes the same check as a flag.

use std::io::{self, BufRead, Write};

use super::InitError;

/// How often a question is asked that is answered wrongly.
const TRIES: usize = 3;

/// What must be said.
pub(super) fn needed<T>(
    given: Option<T>,
    asks: bool,
    flag: &'static str,
    question: &'static str,
    check: impl Fn(&str) -> Result<T, String>,
) -> Result<T, InitError> {
    match given {
        Some(given) => Ok(given),
        None if !asks => Err(InitError::Missing(flag)),
        None => ask(&mut io::stdin().lock(), question, check)?.ok_or(InitError::NoAnswer(question)),
    }
}

/// What may be left out.
pub(super) fn wanted<T>(
    given: Option<T>,
    asks: bool,
    question: &'static str,
    check: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, InitError> {
    if given.is_some() || !asks {
        return Ok(given);
    }
    ask(&mut io::stdin().lock(), question, check)
}

/// Asks, a few times if need be; `None` for an empty answer.
pub(super) fn ask<T>(
    input: &mut impl BufRead,
    question: &'static str,
    check: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, InitError> {
    for _ in 0..TRIES {
        eprint!("{question}: ");
        let _ = io::stderr().flush();
        let mut line = String::new();
        if !matches!(input.read_line(&mut line), Ok(1..)) {
            break;
        }
        match line.trim() {
            "" => return Ok(None),
            answer => match check(answer) {
                Ok(value) => return Ok(Some(value)),
                Err(problem) => eprintln!("{problem}"),
            },
        }
    }
    Err(InitError::NoAnswer(question))
}
