//! A client for whoever leads, and no longer.
//!
//! Invariant: no call of it goes on once the claim has lapsed. The claim is looked at whenever the call gets to run, so a
//! process that was held still past its lease sends nothing of what it had in hand when it wakes.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use kube::Client;
use kube::client::Body;
use tower::service_fn;

use super::Claim;

/// The leadership has ended, or was not renewed in time.
#[derive(Debug, thiserror::Error)]
#[error("the lease is lost: nothing is sent any more")]
struct Lapsed;

impl Claim {
    /// The client, with every call bounded by this claim. Calls that had begun may have had their effect.
    #[must_use]
    pub fn fence(&self, client: &Client) -> Client {
        let (claim, inner) = (self.clone(), client.clone());
        let namespace = client.default_namespace().to_owned();
        let service = service_fn(move |request: http::Request<Body>| {
            let (claim, inner) = (claim.clone(), inner.clone());
            async move {
                let call = async move { inner.send(request).await.map_err(tower::BoxError::from) };
                claim.hold(call).await.unwrap_or_else(|| Err(Lapsed.into()))
            }
        });
        Client::new(service, namespace)
    }

    /// The outcome of some work, or `None` if the claim lapses before it is there. The work does not run once the
    /// claim has lapsed.
    async fn hold<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut lapse) = (pin!(work), pin!(self.lapse()));
        poll_fn(|cx| {
            // The clock and not the timer alone: of two that are due, the runtime may run the work first.
            if !self.is_current() || lapse.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Until the claim lapses, renewals included.
    async fn lapse(&self) {
        while self.is_current() {
            let until = *super::locked(&self.until);
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use http::Response;

    use super::*;
    use crate::cluster::client::{CallError, Class};

    fn claim(left: Duration) -> Claim {
        Claim { until: Arc::new(Mutex::new(Instant::now() + left)) }
    }

    /// A client that counts what reaches it and answers after a while.
    fn slow(pause: Duration) -> (Client, Arc<AtomicUsize>) {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let service = service_fn(move |_: http::Request<Body>| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(pause).await;
                Ok::<_, tower::BoxError>(Response::new(Body::from(b"{}".to_vec())))
            }
        });
        (Client::new(service, "default"), sent)
    }

    async fn call(client: &Client) -> Result<String, CallError> {
        let request = http::Request::get("/version").body(Vec::new()).unwrap();
        client.request_text(request).await.map_err(CallError::from_kube)
    }

    #[tokio::test]
    async fn a_call_is_made_while_the_claim_stands() {
        let (client, sent) = slow(Duration::ZERO);
        let fenced = claim(Duration::from_secs(60)).fence(&client);
        assert_eq!(call(&fenced).await.unwrap(), "{}");
        assert_eq!(sent.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn nothing_is_sent_once_it_has_lapsed() {
        let (client, sent) = slow(Duration::ZERO);
        let error = call(&claim(Duration::ZERO).fence(&client)).await.unwrap_err();
        assert!(
            error.class() == Class::Unreachable && error.message().contains("the lease is lost"),
            "{error}"
        );
        assert_eq!(sent.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_call_under_way_ends_with_the_claim_and_a_renewal_prolongs_it() {
        let (client, _) = slow(Duration::from_millis(300));
        let began = Instant::now();
        let short = claim(Duration::from_millis(50));
        assert!(call(&short.fence(&client)).await.is_err());
        assert!(began.elapsed() < Duration::from_millis(290));
        let renewed = claim(Duration::from_millis(100));
        let until = renewed.until.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            *until.lock().unwrap() = Instant::now() + Duration::from_secs(60);
        });
        assert!(call(&renewed.fence(&client)).await.is_ok());
    }

    #[tokio::test]
    async fn work_that_was_due_while_all_stood_still_does_not_run() {
        let claim = claim(Duration::from_millis(20));
        let ran = AtomicUsize::new(0);
        let work = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            ran.fetch_add(1, Ordering::SeqCst);
        };
        let held = claim.hold(work);
        let mut held = pin!(held);
        assert!(futures::poll!(held.as_mut()).is_pending());
        // As a SIGSTOP does it: both timers are overdue when this thread goes on.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(held.await, None);
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    }
}
