//! Every call to the API server, counted: a layer of the clients.
//!
//! Invariant: every label is of a closed set; a kind that this program does not know by itself counts as `other`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tower::Layer;
use tower::Service;

/// What is called by its own name.
const RESOURCES: &[&str] = &[
    "agentidentities",
    "agentidentities/status",
    "agentresources",
    "agentresources/status",
    "agentgrants",
    "agentgrants/status",
    "agentblueprints",
    "agentblueprints/status",
    "agentpolicies",
    "agentpolicies/status",
    "clusterroles",
    "configmaps",
    "cronjobs",
    "daemonsets",
    "deployments",
    "events",
    "jobs",
    "leases",
    "namespaces",
    "pods",
    "replicasets",
    "rolebindings",
    "secrets",
    "serviceaccounts",
    "statefulsets",
    "subjectaccessreviews",
    "tokenreviews",
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    verb: &'static str,
    resource: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVerb {
    verb: &'static str,
}

/// The calls of one process, of all its clients.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    calls: Family<Call, Counter>,
    seconds: Family<ByVerb, Histogram>,
}

impl Default for Calls {
    fn default() -> Self {
        let buckets: fn() -> Histogram = || Histogram::new([0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0]);
        Self(Arc::new(Counts { calls: Family::default(), seconds: Family::new_with_constructor(buckets) }))
    }
}

impl Calls {
    /// Registers what was counted.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Calls to the API server, by what came of them; none: no answer";
        registry.register("api_requests", help, self.0.calls.clone());
        let help = "From a call to the API server to its answer's head; without watches";
        registry.register("api_request_duration_seconds", help, self.0.seconds.clone());
    }

    fn count(&self, verb: &'static str, resource: &'static str, code: &'static str, began: Instant) {
        self.0.calls.get_or_create(&Call { verb, resource, code }).inc();
        if verb != "watch" {
            self.0.seconds.get_or_create(&ByVerb { verb }).observe(began.elapsed().as_secs_f64());
        }
    }
}

impl<S> Layer<S> for Calls {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, calls: self.clone() }
    }
}

/// A client's service, whose calls are counted.
#[derive(Clone, Debug)]
pub struct Counting<S> {
    inner: S,
    calls: Calls,
}

impl<S, A, B> Service<Request<A>> for Counting<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (verb, resource) = named(request.method(), request.uri().path(), request.uri().query());
        let mut under_way =
            UnderWay { calls: self.calls.clone(), verb, resource, began: Instant::now(), code: "none" };
        let answer: Pin<Box<S::Future>> = Box::pin(self.inner.call(request));
        Box::pin(async move {
            let answer = answer.await;
            if let Ok(answer) = &answer {
                under_way.code = code(answer.status());
            }
            drop(under_way);
            answer
        })
    }
}

/// Counts when it is dropped: also where nobody waits for the answer any more.
struct UnderWay {
    calls: Calls,
    verb: &'static str,
    resource: &'static str,
    began: Instant,
    code: &'static str,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.calls.count(self.verb, self.resource, self.code, self.began);
    }
}

const fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "2xx",
        401 => "401",
        403 => "403",
        404 => "404",
        409 => "409",
        410 => "410",
        422 => "422",
        429 => "429",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}

/// The verb, in Kubernetes' words, and the resource of a request.
fn named(method: &Method, path: &str, query: Option<&str>) -> (&'static str, &'static str) {
    let (resource, name) = split(path);
    let watches = query.is_some_and(|q| q.split('&').any(|p| matches!(p, "watch=true" | "watch=1")));
    let verb = match *method {
        Method::GET | Method::HEAD if watches => "watch",
        Method::GET | Method::HEAD if name || resource.is_none() => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    let known = resource.and_then(|r| RESOURCES.iter().find(|known| **known == r));
    (verb, known.copied().unwrap_or("other"))
}

/// The resource of a path with its subresource, and whether the path names an object.
fn split(path: &str) -> (Option<String>, bool) {
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let parts: Vec<&str> = match parts.next() {
        Some("api") => parts.skip(1).collect(),
        Some("apis") => parts.skip(2).collect(),
        _ => return (None, true),
    };
    let parts = match parts.as_slice() {
        // Namespaces themselves have no third part but a subresource.
        ["namespaces", _, resource, rest @ ..] if *resource != "status" && *resource != "finalize" => {
            [&[*resource], rest].concat()
        }
        other => other.to_vec(),
    };
    match parts.as_slice() {
        [] => (None, true),
        [resource] => (Some((*resource).to_owned()), false),
        [resource, _] => (Some((*resource).to_owned()), true),
        [resource, _, sub, ..] => (Some(format!("{resource}/{sub}")), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_kubernetes_own_names() {
        let of = |method: Method, uri: &str| {
            let uri: http::Uri = uri.parse().unwrap();
            named(&method, uri.path(), uri.query())
        };
        for (method, uri, named) in [
            (Method::GET, "/api/v1/secrets?fieldSelector=x&limit=500", ("list", "secrets")),
            (Method::GET, "/api/v1/secrets?watch=true&resourceVersion=1", ("watch", "secrets")),
            (Method::GET, "/api/v1/namespaces", ("list", "namespaces")),
            (Method::GET, "/api/v1/namespaces/a", ("get", "namespaces")),
            (Method::GET, "/api/v1/namespaces/a/pods/p", ("get", "pods")),
            (Method::POST, "/api/v1/namespaces/a/secrets?fieldManager=agentid", ("create", "secrets")),
            (
                Method::PATCH,
                "/apis/agentid.dev/v1alpha1/namespaces/a/agentidentities/b/status",
                ("patch", "agentidentities/status"),
            ),
            (
                Method::DELETE,
                "/apis/agentid.dev/v1alpha1/namespaces/a/agentidentities/b",
                ("delete", "agentidentities"),
            ),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/s/leases/agentid-operator",
                ("update", "leases"),
            ),
            (Method::GET, "/apis/example.com/v1/namespaces/a/sandboxes", ("list", "other")),
            (Method::GET, "/apis/apps/v1", ("get", "other")),
            (Method::GET, "/openid/v1/jwks", ("get", "other")),
        ] {
            assert_eq!(of(method, uri), named, "{uri}");
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_counts_as_unanswered() {
        let calls = Calls::default();
        let service = |answer: Option<StatusCode>| {
            calls.layer(tower_fn(move |_: Request<()>| async move {
                let Some(status) = answer else { return std::future::pending().await };
                Ok::<_, String>(Response::builder().status(status).body(()).unwrap())
            }))
        };
        let request = || Request::get("/api/v1/secrets").body(()).unwrap();
        service(Some(StatusCode::OK)).call(request()).await.unwrap();
        service(Some(StatusCode::CONFLICT)).call(request()).await.unwrap();
        drop(service(None).call(request()));
        let mut registry = Registry::default();
        calls.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "api_requests_total{verb=\"list\",resource=\"secrets\",code=\"2xx\"} 1",
            "api_requests_total{verb=\"list\",resource=\"secrets\",code=\"409\"} 1",
            "api_requests_total{verb=\"list\",resource=\"secrets\",code=\"none\"} 1",
            "api_request_duration_seconds_count{verb=\"list\"} 3",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    /// A service of a function.
    fn tower_fn<F>(f: F) -> Function<F> {
        Function(f)
    }

    struct Function<F>(F);

    impl<F, R, T, E> Service<Request<()>> for Function<F>
    where
        F: FnMut(Request<()>) -> R,
        R: Future<Output = Result<T, E>>,
    {
        type Response = T;
        type Error = E;
        type Future = R;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> R {
            (self.0)(request)
        }
    }
}
