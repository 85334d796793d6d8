//! What the integration tests share: a real control plane, a namespace for each test, the operator as a
//! process, and waiting that says what it saw.
//!
//! Invariant: nothing outlives the test process, however it ends: processes are tied to a pipe that it
//! holds, control planes to its PID. Only `AGENTID_TEST_CONTEXT` makes the tests use a cluster that they did
//! not start.
#![allow(dead_code, unused_imports)] // every test binary uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail tests

pub mod audit;
mod control_plane;
pub mod figures;
mod namespace;
mod objects;
mod operator;
mod process;

use std::fmt::{Debug, Display};
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

pub use control_plane::ControlPlane;
pub use namespace::Namespace;
pub use objects::{api_of, burst_resources, message, parse, resource_for, resource_of};
pub use operator::{Operator, Setup};
pub use process::{Process, tail};

/// How often [`eventually`] looks.
const POLL: Duration = Duration::from_millis(50);

/// What one look of [`eventually`] saw.
pub trait Look {
    /// What is waited for.
    type Found;
    /// What is waited for, or what was seen instead.
    fn found(self) -> Result<Self::Found, String>;
}

impl<T> Look for Option<T> {
    type Found = T;
    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Debug> Look for Result<T, E> {
    type Found = T;
    fn found(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Looks every 50 ms until the closure answers `Some` or `Ok`, and gives what it found. An `Err` carries
/// what was seen instead; the last one stands in the failure, with the end of the operators' logs.
///
/// # Panics
/// After `timeout`.
#[track_caller]
pub fn eventually<L, F>(
    what: impl Display,
    timeout: Duration,
    look: impl FnMut() -> F,
) -> impl Future<Output = L::Found>
where
    L: Look,
    F: Future<Output = L>,
{
    let caller = std::panic::Location::caller();
    eventually_at(caller, what, timeout, look)
}

async fn eventually_at<L, F>(
    caller: &std::panic::Location<'_>,
    what: impl Display,
    timeout: Duration,
    mut look: impl FnMut() -> F,
) -> L::Found
where
    L: Look,
    F: Future<Output = L>,
{
    let began = Instant::now();
    let mut last = "no answer to the first look".to_owned();
    loop {
        let left = timeout.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, look()).await.map(Look::found) {
            Ok(Ok(found)) => return found,
            Ok(Err(seen)) => last = seen,
            Err(_) => {}
        }
        if began.elapsed() >= timeout {
            operator::print_log_tails();
            panic!("{caller}: {what}: not within {timeout:?}; last seen: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The condition of this type among an object's conditions.
pub fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Cargo's target directory, in which everything that tests write lies.
pub fn target_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// A text that no other call and no other process gives: short, of lower-case letters and digits.
pub fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    format!("{:x}{:x}{call:x}", since.as_secs() & 0xff_ffff, std::process::id())
}

/// Answers `GET http://<address><path>`: the status code and the body.
pub async fn http_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    // HTTP/1.0: the body ends with the connection, and is never chunked.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|c| c.parse().ok());
    code.map(|c| (c, body.to_owned())).ok_or_else(|| std::io::Error::other(format!("not HTTP: {head:?}")))
}
