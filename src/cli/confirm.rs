//! Asking at the terminal before something is done that can't be taken back.
//!
//! Invariant: where nobody can be asked, nothing is done.

use std::io::{self, BufRead, IsTerminal, Write};

use thiserror::Error;

use super::look::Output;

/// Why it is not done.
#[derive(Debug, Error)]
pub enum Unconfirmed {
    /// Nobody was asked.
    #[error(
        "nothing was changed: there is no terminal to ask at; add --yes to do it, or --dry-run to look only"
    )]
    NotAsked,
    /// The answer was no.
    #[error("nothing was changed")]
    Declined,
}

/// Asks, if there is a terminal and the answer of the command is for people.
///
/// # Errors
/// [`Unconfirmed`] where it is not to be done.
pub(super) fn confirm(question: &str, output: Output) -> Result<(), Unconfirmed> {
    if output != Output::Text || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Unconfirmed::NotAsked);
    }
    eprint!("{question} [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    let yes = read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if yes { Ok(()) } else { Err(Unconfirmed::Declined) }
}
