//! A JWK set from a file or a URL, and a status list from its URL.
//!
//! Invariants: at most 1 MiB of keys and 8 MiB of a list are read; what comes by a URL comes as [`net::fetch`](crate::net::fetch) has it.

use std::io;
use std::path::Path;

use http::Uri;
use thiserror::Error;

use super::super::text::printable;
use crate::crypto::MAX_STATUS_LIST_TOKEN_BYTES;
use crate::net;
use crate::net::fetch::{FetchOptions, Guard, Roots};

/// The longest document that is read, in bytes.
const LIMIT: usize = 1 << 20;

/// Why a JWK set can't be had.
#[derive(Debug, Error)]
pub enum FetchError {
    /// A file that can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// An address that is not fetched.
    #[error("{url}: {problem}")]
    Url {
        /// The URL.
        url: String,
        /// Why not, and what to do.
        problem: &'static str,
    },
    /// Certificates that can't be used.
    #[error("{path}: {problem}")]
    Certificates {
        /// The file.
        path: String,
        /// Why.
        problem: String,
    },
    /// No answer, or none that can be used.
    #[error(transparent)]
    Answer(net::fetch::FetchError),
}

/// Reads a document from a file or, where it begins with `http:` or `https:`, from a URL.
pub(super) async fn document(from: &str, ca: Option<&Path>) -> Result<String, FetchError> {
    if !is_url(from) {
        return file(from);
    }
    fetched(from, ca, "application/jwk-set+json, application/json", LIMIT).await
}

/// Fetches a status list.
pub(super) async fn status_list(url: &str, ca: Option<&Path>) -> Result<String, FetchError> {
    // Over http, which is spoken on loopback alone, nobody vouches for anything.
    let ca = ca.filter(|_| !is_http(url));
    fetched(url, ca, "application/statuslist+jwt", MAX_STATUS_LIST_TOKEN_BYTES).await
}

async fn fetched(
    from: &str,
    ca: Option<&Path>,
    accept: &'static str,
    limit: usize,
) -> Result<String, FetchError> {
    let roots = match ca {
        None => Roots::System,
        Some(_) if is_http(from) => {
            let problem = "--ca has no meaning without https";
            return Err(FetchError::Url { url: printable(from), problem });
        }
        Some(path) => Roots::Pem(file(&path.to_string_lossy())?),
    };
    let options = FetchOptions { roots, guard: Guard::Anywhere, accept, limit, ..FetchOptions::default() };
    match net::fetch::fetch(from, &options).await {
        Ok(fetched) => Ok(fetched.body),
        Err(net::fetch::FetchError::Certificates(problem)) => Err(match ca {
            Some(path) => FetchError::Certificates { path: path.display().to_string(), problem },
            None => FetchError::Certificates {
                path: "the system's certificates".to_owned(),
                problem: format!("{problem}; name some with --ca"),
            },
        }),
        Err(e) => Err(FetchError::Answer(e)),
    }
}

fn is_http(url: &str) -> bool {
    address(url).is_ok_and(|uri| uri.scheme_str() == Some("http"))
}

fn is_url(from: &str) -> bool {
    let scheme = |s: &str| from.get(..s.len()).is_some_and(|head| head.eq_ignore_ascii_case(s));
    scheme("http://") || scheme("https://")
}

fn file(path: &str) -> Result<String, FetchError> {
    use std::io::Read;
    let failed = |source| FetchError::File { path: printable(path), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LIMIT as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > LIMIT {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "longer than 1 MiB")));
    }
    Ok(text)
}

/// The address, if it may be fetched.
pub(super) fn address(url: &str) -> Result<Uri, &'static str> {
    net::fetch::address(url, &Guard::Anywhere)
}
