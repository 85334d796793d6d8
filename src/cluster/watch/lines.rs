//! The body of a watch, cut into lines. Owns the buffer; invariant: a line is handed out once and whole,
//! whatever its length, and what follows a broken end is never taken for a line.

use http_body_util::BodyExt;
use kube::client::Body;

use crate::cluster::client::{CallError, Class};

/// More than any object the API server can store takes when written as one line of JSON.
const LINE_LIMIT: usize = 64 << 20;
/// What the buffer is cut back to after a long line.
const BUFFER_KEPT: usize = 64 << 10;

pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Start of the first line that was not handed out yet.
    start: usize,
    /// No line feed before this place.
    scanned: usize,
}

impl Lines {
    pub(super) const fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), start: 0, scanned: 0 }
    }

    /// The next line without its line feed, or `None` at an orderly end. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, CallError> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                let line = self.start..self.scanned + at;
                self.start = line.end + 1;
                self.scanned = self.start;
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(&self.buffer[line]));
            }
            self.compact();
            if self.buffer.len() > LINE_LIMIT {
                return Err(CallError::new(Class::Server, "a line of the watch has no end"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(e)) => return Err(CallError::from_kube(e)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(CallError::new(Class::Unreachable, "the watch broke off within a line")),
            }
        }
    }

    /// Forgets what was handed out, keeping the beginning of an unfinished line.
    fn compact(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.scanned = self.buffer.len();
        if self.buffer.len() < BUFFER_KEPT && self.buffer.capacity() > 2 * BUFFER_KEPT {
            self.buffer.shrink_to(BUFFER_KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &str) -> (Vec<String>, Option<CallError>) {
        let mut lines = Lines::new(Body::from(text.as_bytes().to_vec()));
        let mut out = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => out.push(String::from_utf8(line.to_vec()).unwrap()),
                Ok(None) => return (out, None),
                Err(e) => return (out, Some(e)),
            }
        }
    }

    #[tokio::test]
    async fn lines_come_whole_and_once() {
        assert_eq!(all("a\n\nbc\n").await, (vec!["a".to_owned(), "bc".to_owned()], None));
        assert_eq!(all("").await, (vec![], None));
        let long = "x".repeat(3 << 20);
        let (lines, error) = all(&format!("{long}\ny\n")).await;
        assert_eq!((lines[0].len(), lines[1].as_str(), error), (3 << 20, "y", None));
    }

    #[tokio::test]
    async fn a_torn_line_is_no_line() {
        let (lines, error) = all("a\nhalf").await;
        assert_eq!(lines, ["a"]);
        assert_eq!(error.unwrap().class(), Class::Unreachable);
    }
}
