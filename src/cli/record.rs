//! The record as commands read it: audit lines out of files or standard input, one after the other.
//!
//! Invariants: no more than one line is held, and no more of it than an audit line can be long; whatever is no audit
//! line is passed over and counted.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use crate::issue::AuditLine;

/// Several times the longest audit line, in bytes: 128 roles and 128 scopes of 128 characters, escaped by a log
/// shipper.
const LONGEST: usize = 256 * 1024;

/// Where the record is.
#[derive(Clone, Debug, Args)]
pub(super) struct Record {
    /// A file with audit lines, - for standard input; may be repeated. Other lines in it are passed over
    #[arg(long = "file", short, value_name = "FILE|-", default_value = "-")]
    files: Vec<PathBuf>,
}

/// A part of the record that can't be read.
#[derive(Debug, Error)]
#[error("{from}: {source}; name the file with the audit lines by --file, or pipe them in")]
pub struct RecordError {
    /// The file.
    from: String,
    /// Why.
    source: io::Error,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reach {
    /// Lines of any kind.
    pub(super) lines: u64,
    /// Audit lines among them.
    pub(super) audit_lines: u64,
    /// Lines that were too long to be one.
    pub(super) too_long: u64,
    /// The time of the oldest audit line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest: Option<Timestamp>,
    /// The time of the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) newest: Option<Timestamp>,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: u64| if n == 1 { "" } else { "s" };
        match self.audit_lines {
            0 => write!(f, "no audit lines among {} line{}", self.lines, plural(self.lines))?,
            n => write!(f, "{n} audit line{} among {}", plural(n), self.lines)?,
        }
        if let (Some(oldest), Some(newest)) = (self.oldest, self.newest) {
            write!(f, ", from {oldest:.0} to {newest:.0}")?;
        }
        match self.too_long {
            0 => Ok(()),
            n => write!(f, "; {n} too long to be one"),
        }
    }
}

impl Record {
    /// Whether standard input is read.
    pub(super) fn is_stdin(&self) -> bool {
        self.files.iter().any(|f| f.as_os_str() == "-")
    }

    /// Hands every audit line over, until that is enough.
    pub(super) fn each(
        &self,
        mut take: impl FnMut(AuditLine) -> ControlFlow<()>,
    ) -> Result<Reach, RecordError> {
        let mut reach = Reach::default();
        for path in &self.files {
            let from = if path.as_os_str() == "-" {
                "standard input".to_owned()
            } else {
                path.display().to_string()
            };
            let failed = |source| RecordError { from: from.clone(), source };
            let stdin = io::stdin();
            let done = if path.as_os_str() == "-" {
                if stdin.is_terminal() {
                    eprintln!("note: reading audit lines from standard input; --file names a file");
                }
                scan(&mut stdin.lock(), &mut reach, &mut take)
            } else {
                let file = File::open(path).map_err(failed)?;
                scan(&mut BufReader::with_capacity(1 << 16, file), &mut reach, &mut take)
            };
            if done.map_err(failed)?.is_break() {
                break;
            }
        }
        Ok(reach)
    }
}

fn scan(
    from: &mut impl BufRead,
    reach: &mut Reach,
    take: &mut impl FnMut(AuditLine) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if from.by_ref().take(LONGEST as u64).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        reach.lines += 1;
        if bytes.len() == LONGEST && bytes.last() != Some(&b'\n') {
            from.skip_until(b'\n')?;
            reach.too_long += 1;
            continue;
        }
        let Some(line) = AuditLine::read(&String::from_utf8_lossy(&bytes)) else { continue };
        reach.audit_lines += 1;
        if let Some(time) = line.time {
            reach.oldest = Some(reach.oldest.map_or(time, |t| t.min(time)));
            reach.newest = Some(reach.newest.map_or(time, |t| t.max(time)));
        }
        if take(line).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;
    use crate::issue::Action;

    fn line(jti: &str, second: i64) -> String {
        let mut line = AuditLine::new(Action::Mint, Reason::Issued, Timestamp::from_second(second).unwrap());
        line.jti = Some(jti.to_owned());
        line.text()
    }

    fn read(text: &[u8]) -> (Reach, Vec<String>) {
        let (mut reach, mut found) = (Reach::default(), Vec::new());
        let mut take = |line: AuditLine| {
            found.extend(line.jti);
            ControlFlow::Continue(())
        };
        // A reader that gives little at a time, as a pipe does.
        let _ = scan(&mut BufReader::with_capacity(7, text), &mut reach, &mut take).unwrap();
        (reach, found)
    }

    #[test]
    fn audit_lines_are_found_among_others_in_any_order() {
        let mut text = Vec::new();
        for part in [
            b"INFO started\n".as_slice(),
            line("b", 1_800_000_200).as_bytes(),
            b"\n\xff\xfe garbage {{{\n",
            format!("[pod/x/agentid] {}", line("a", 1_800_000_100)).as_bytes(),
            b"{\"kind\":\"agentid.dev/audit\",\"time\":5}\n",
            // Without an end of line: the process was killed, or is still writing.
            line("c", 1_800_000_300).trim_end().as_bytes(),
        ] {
            text.extend(part);
        }
        let (reach, found) = read(&text);
        assert_eq!(found, ["b", "a", "c"]);
        assert_eq!((reach.lines, reach.audit_lines, reach.too_long), (7, 3, 0));
        assert_eq!(
            reach.to_string(),
            "3 audit lines among 7, from 2027-01-15T08:01:40Z to 2027-01-15T08:05:00Z"
        );
        assert_eq!(read(b"").0.to_string(), "no audit lines among 0 lines");
    }

    #[test]
    fn a_line_of_any_length_is_passed_over_in_bounded_memory() {
        for length in [LONGEST - 1, LONGEST, LONGEST + 1, 5 * LONGEST] {
            let mut text = vec![b'x'; length];
            text.push(b'\n');
            text.extend(line("after", 1_800_000_000).as_bytes());
            let (reach, found) = read(&text);
            assert_eq!(found, ["after"], "{length}");
            assert_eq!((reach.lines, reach.too_long), (2, u64::from(length >= LONGEST)), "{length}");
        }
    }

    #[test]
    fn reading_ends_when_enough_was_seen() {
        let text = line("a", 1_800_000_000) + &line("b", 1_800_000_001);
        let mut reach = Reach::default();
        let mut take = |_| ControlFlow::Break(());
        assert!(scan(&mut text.as_bytes(), &mut reach, &mut take).unwrap().is_break());
        assert_eq!(reach.lines, 1);
        let nowhere = Record { files: vec!["/nowhere".into()] };
        let error = nowhere.each(|_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere: ") && error.contains("--file"), "{error}");
    }
}
