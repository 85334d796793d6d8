//! Where a token is read from: a file, standard input or the command line.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

use crate::crypto::MAX_TOKEN_BYTES;

/// Why no token could be read. The token is never part of the message.
#[derive(Debug, Error)]
pub enum InputError {
    /// A file or standard input that can't be read.
    #[error("{from}: {source}")]
    Read {
        /// The file, or `standard input`.
        from: String,
        /// Why.
        source: io::Error,
    },
    /// Nothing was there.
    #[error("{0} is empty; expected a token")]
    Empty(String),
    /// Neither a file nor a token.
    #[error(
        "{0}: no such file, and not a token either (three parts joined by dots); give a file, or - to read standard \
         input"
    )]
    Neither(String),
}

/// Reads the token that an argument names.
pub(super) fn read(argument: &str) -> Result<String, InputError> {
    if argument == "-" {
        return all(io::stdin().lock(), "standard input");
    }
    let path = Path::new(argument);
    if path.exists() {
        let from = path.display().to_string();
        return match File::open(path) {
            Ok(file) => all(file, &from),
            Err(source) => Err(InputError::Read { from, source }),
        };
    }
    if looks_like_a_token(argument) {
        eprintln!(
            "warning: a token on the command line stays in the shell's history and is seen in the process list; \
             prefer a file, or - for standard input"
        );
        return Ok(argument.trim().to_owned());
    }
    let mut shown: String = super::super::text::printable(argument).chars().take(80).collect();
    if shown.len() < argument.len() {
        shown.push('…');
    }
    Err(InputError::Neither(shown))
}

pub(super) fn looks_like_a_token(text: &str) -> bool {
    let text = text.trim();
    text.split('.').count() == 3
        && text.starts_with("ey")
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'='))
}

/// One byte more than the longest token and its line end are taken, so that a longer one is told as too long.
fn all(from: impl Read, name: &str) -> Result<String, InputError> {
    let mut bytes = Vec::new();
    from.take(MAX_TOKEN_BYTES as u64 + 3)
        .read_to_end(&mut bytes)
        .map_err(|source| InputError::Read { from: name.to_owned(), source })?;
    let text = String::from_utf8_lossy(&bytes);
    match text.trim() {
        "" => Err(InputError::Empty(name.to_owned())),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_tokens_and_neither() {
        let path = std::env::temp_dir().join(format!("agentid-token-{}", std::process::id()));
        std::fs::write(&path, " eyJh.eyJi.c2ln\n").unwrap();
        assert_eq!(read(&path.display().to_string()).unwrap(), "eyJh.eyJi.c2ln");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(read(&path.display().to_string()), Err(InputError::Empty(_))));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read("eyJh.eyJi.c2ln").unwrap(), "eyJh.eyJi.c2ln");
        let error = read("tickets.jwt").unwrap_err().to_string();
        assert!(error.starts_with("tickets.jwt: no such file"), "{error}");
        assert!(matches!(read("/"), Err(InputError::Read { .. })), "a directory");
    }

    #[test]
    fn a_mistyped_token_is_not_shown_whole() {
        let almost = format!("eyJh.{}", "x".repeat(400));
        let error = read(&almost).unwrap_err().to_string();
        assert!(!error.contains(&"x".repeat(100)), "{error}");
    }

    #[test]
    fn what_is_too_long_stays_too_long() {
        let long = "x".repeat(MAX_TOKEN_BYTES * 2);
        assert!(all(long.as_bytes(), "it").unwrap().len() > MAX_TOKEN_BYTES);
    }
}
