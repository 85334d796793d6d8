//! Bounded requests to servers that a configuration, an issuer or a user names.
//!
//! Invariants: a limit on the bytes and on the time of every answer; no redirect is followed and no proxy is used;
//! nothing comes over a connection that somebody else could have written to (https, or http to this very machine);
//! the address that was checked against the [`Guard`] is the one that is connected to, whatever a name resolves to
//! afterwards; no error holds a body, a form or a password.

mod connect;
mod guard;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use thiserror::Error;

use self::connect::{Host, connect};
pub use self::guard::{Guard, is_refused};

/// Which certificates may vouch for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The system's.
    System,
    /// These (PEM), and no other.
    Pem(String),
}

/// How something is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Which certificates may vouch for the server.
    pub roots: Roots,
    /// Where it may be.
    pub guard: Guard,
    /// The media types that are asked for.
    pub accept: &'static str,
    /// The longest answer, in bytes.
    pub limit: usize,
    /// How long all of it may take.
    pub timeout: Duration,
}

impl Default for FetchOptions {
    /// JSON from public addresses: 1 MiB at most, within 10 s.
    fn default() -> Self {
        Self {
            roots: Roots::System,
            guard: Guard::Public { allowed: Vec::new() },
            accept: "application/json",
            limit: 1 << 20,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum FetchError {
    /// A URL that is not fetched.
    #[error("{url}: {problem}")]
    Url {
        /// The URL.
        url: String,
        /// Why not, and what to do.
        problem: &'static str,
    },
    /// A server at an address that is not reached from here.
    #[error("{url}: {address} is no public address and in no allowed network")]
    Guarded {
        /// The URL.
        url: String,
        /// The address.
        address: IpAddr,
    },
    /// The certificates of [`Roots`] can't be used.
    #[error("the certificates that may vouch for a server can't be used: {0}")]
    Certificates(String),
    /// An answer that says no.
    #[error("{url}: {status}")]
    Status {
        /// The URL.
        url: String,
        /// What it says.
        status: StatusCode,
    },
    /// No answer, or none that can be used.
    #[error("{url}: {problem}")]
    Answer {
        /// The URL.
        url: String,
        /// Why.
        problem: String,
    },
}

/// An answer, read whole.
#[derive(Clone)]
pub struct Fetched {
    /// The status. What [`fetch`] returns was a success.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Fetched {
    /// For how long the answer may be used without asking again (RFC 9111 §4.2): 0 if not at all, `None` if that is
    /// not said.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        let mut age = None;
        let fields = self.headers.get_all(header::CACHE_CONTROL).iter().filter_map(|f| f.to_str().ok());
        for directive in fields.flat_map(|f| f.split(',')) {
            let directive = directive.trim();
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" => return Some(Duration::ZERO),
                // Nonsense is the same as nothing (RFC 9111 §4.2.1).
                "max-age" => age = value.trim_matches('"').parse().ok().map(Duration::from_secs).or(age),
                _ => {}
            }
        }
        let spent = self.headers.get(header::AGE).and_then(|a| a.to_str().ok()?.parse().ok());
        age.map(|age| age.saturating_sub(Duration::from_secs(spent.unwrap_or(0))))
    }
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Fetches a document.
///
/// # Errors
/// [`FetchError`] unless a whole, successful answer came in time.
pub async fn fetch(url: &str, options: &FetchOptions) -> Result<Fetched, FetchError> {
    let answer = exchange(url, options, None).await?;
    if !answer.status.is_success() {
        return Err(FetchError::Status { url: shown(url), status: answer.status });
    }
    Ok(answer)
}

/// Posts a form (`application/x-www-form-urlencoded`) and reads the answer, whatever its status: the errors of OAuth
/// are in the body of a 400.
///
/// # Errors
/// [`FetchError`] unless a whole answer came in time. A redirect is an error: it would take the form elsewhere.
pub async fn post_form(
    url: &str,
    form: &[(&str, &str)],
    options: &FetchOptions,
) -> Result<Fetched, FetchError> {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    exchange(url, options, Some(form)).await
}

/// The address of a URL, if it may be fetched at all.
///
/// # Errors
/// Why not, and what to do.
pub fn address(url: &str, guard: &Guard) -> Result<Uri, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "not a URL")?;
    let authority = uri.authority().ok_or("a URL without a host")?;
    if authority.as_str().contains('@') {
        return Err("a URL with a user name or password is not fetched");
    }
    let host = Host::of(&uri)?;
    match (uri.scheme_str(), guard) {
        (Some("https"), _) => Ok(uri),
        (Some("http"), Guard::Anywhere) if host.claims_loopback() => Ok(uri),
        (Some("http"), Guard::Anywhere) => {
            Err("what comes over http could be anybody's: use https (http is taken from loopback only)")
        }
        _ => Err("only https is fetched"),
    }
}

async fn exchange(url: &str, options: &FetchOptions, form: Option<String>) -> Result<Fetched, FetchError> {
    let uri = address(url, &options.guard).map_err(|problem| FetchError::Url { url: shown(url), problem })?;
    match tokio::time::timeout(options.timeout, send(&uri, options, form)).await {
        Ok(answer) => answer,
        Err(_) => Err(FetchError::Answer {
            url: shown(url),
            problem: format!("no whole answer within {} s", options.timeout.as_secs_f32()),
        }),
    }
}

async fn send(uri: &Uri, options: &FetchOptions, form: Option<String>) -> Result<Fetched, FetchError> {
    let url = shown(&uri.to_string());
    let failed = |problem: &str| FetchError::Answer { url: url.clone(), problem: printable(problem) };
    let request = request(uri, options, form).map_err(|e| failed(&e.to_string()))?;
    let stream = connect(uri, &url, options).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(io)
        .await
        .map_err(|e| failed(&causes(&e)))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|e| failed(&causes(&e)))?;
        let (head, body) = answer.into_parts();
        if head.status.is_redirection() {
            let problem = format!("{}: redirects are not followed; give the final address", head.status);
            return Err(failed(&problem));
        }
        let body = Limited::new(body, options.limit).collect().await.map_err(|e| {
            let too_long = e.is::<LengthLimitError>();
            failed(&if too_long {
                format!("longer than {}", size(options.limit))
            } else {
                causes(e.as_ref())
            })
        })?;
        let body = String::from_utf8(body.to_bytes().into()).map_err(|_| failed("not UTF-8"))?;
        Ok(Fetched { status: head.status, headers: head.headers, body })
    };
    let (answer, connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    match futures::future::select(answer, connection).await {
        futures::future::Either::Left((answer, _)) => answer,
        // What the connection had to say is on its way to the answer.
        futures::future::Either::Right((_, answer)) => answer.await,
    }
}

fn request(uri: &Uri, options: &FetchOptions, form: Option<String>) -> http::Result<Request<Full<Bytes>>> {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let authority = uri.authority().map_or("", |a| a.as_str());
    let mut request = Request::builder()
        .method(if form.is_some() { Method::POST } else { Method::GET })
        .uri(if path.is_empty() { "/" } else { path })
        .header(header::HOST, authority)
        .header(header::ACCEPT, options.accept)
        .header(header::USER_AGENT, concat!("agentid/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if form.is_some() {
        const TYPE: HeaderName = header::CONTENT_TYPE;
        request = request.header(TYPE, "application/x-www-form-urlencoded");
    }
    request.body(Full::new(form.unwrap_or_default().into()))
}

fn size(bytes: usize) -> String {
    match bytes {
        n if n > 0 && n.is_multiple_of(1 << 20) => format!("{} MiB", n >> 20),
        n if n > 0 && n.is_multiple_of(1 << 10) => format!("{} KiB", n >> 10),
        n => format!("{n} bytes"),
    }
}

/// A URL as errors show it: without a user name or password.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return printable(url) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
    printable(&format!("{scheme}://{}", &rest[host..]))
}

/// What a server or a user wrote, with what could steer a terminal escaped, cut at 512 characters.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == 512 {
            out.push('…');
            break;
        }
        if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() {
            out.push(c);
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "{}", c.escape_unicode());
        }
    }
    out
}

/// An error and its causes, each said once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}
