//! Whole answers: a list's body, a refusal's Status. Invariant: no body is read for ever, and a refusal's
//! body never becomes a message unless it is a Status.

use std::time::Duration;

use http::Response;
use http::header::RETRY_AFTER;
use http_body_util::BodyExt;
use kube::client::Body;
use kube::core::Status;
use tokio::time::timeout;

use crate::cluster::client::{CallError, Class};

/// How long a body may pause.
const PAUSE: Duration = Duration::from_secs(10);
const ERROR_BODY_LIMIT: usize = 64 << 10;

/// Reads the Status of an answer that is none.
pub(super) async fn refusal(response: Response<Body>) -> CallError {
    let code = response.status().as_u16();
    let header = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let mut body = response.into_body();
    let status = match collect(&mut body, ERROR_BODY_LIMIT).await {
        Ok(bytes) => serde_json::from_slice::<Status>(&bytes).ok(),
        Err(_) => None,
    };
    let error = match status {
        Some(mut status) => {
            status.code = code;
            CallError::from_status(&status)
        }
        None if code == 404 => CallError::new(Class::NotFound, "the server doesn't serve this kind"),
        None => CallError::new(Class::of_status(code, ""), format!("HTTP {code} without a Status")),
    };
    if error.retry_after().is_some() { error } else { error.after(header) }
}

/// A whole body of at most `limit` bytes, as long as it doesn't pause.
pub(super) async fn collect(body: &mut Body, limit: usize) -> Result<Vec<u8>, CallError> {
    let mut bytes = Vec::new();
    loop {
        match timeout(PAUSE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    bytes.extend_from_slice(data);
                }
            }
            Ok(Some(Err(e))) => return Err(CallError::from_kube(e)),
            Ok(None) => return Ok(bytes),
            Err(_) => {
                return Err(CallError::new(Class::Timeout, format!("the answer stopped for {PAUSE:?}")));
            }
        }
        if bytes.len() > limit {
            return Err(CallError::new(Class::Server, "the answer is too long"));
        }
    }
}
