//! The token service as a process, beside an operator of its own, and a user issuer to trust.
//!
//! Use with `#[path = "../common/serve.rs"] mod service;` beside `mod common;`.
#![allow(dead_code, reason = "each test crate uses its part")]

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentid::crypto::{Algorithm, Authority, JwkSet, SigningKey};
use agentid::net::fetch::{FetchOptions, Fetched, Guard, Roots, fetch, post_form};
use agentid::net::listen::{Bounds, Handler, Request, Response, json, text};
use agentid::net::tls::Tls;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json as value};
use tokio_util::sync::CancellationToken;

use crate::common::{ControlPlane, Operator, Process, Setup, eventually, http_get, target_dir, unique};

/// A pod `p` of the account `runner`, and a resource named as the namespace that all may be granted.
pub const RUNNER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: runner}
---
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {agentid.dev/agent: ''}}
spec: {serviceAccountName: runner, containers: [{name: c, image: none}]}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS}
spec: {audience: 'https://$NS.example.com', scopes: [{name: read}], allow: [{namespaceSelector: {}}]}
";

/// A port that nothing listens on now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running token service.
pub struct Service {
    /// Its issuer, which is also its address.
    pub issuer: String,
    /// `127.0.0.1:<port>` of the port for proxies.
    pub proxies: String,
    /// `127.0.0.1:<port>` of the admin port.
    pub admin: String,
    /// What vouches for it (PEM).
    pub ca: String,
    process: Process,
}

/// How services and their operator are set up.
#[derive(Clone, Debug)]
pub struct Town {
    pub namespace: String,
    pub issuer: String,
    pub configuration: String,
    /// As whom the service asks the API server; the control plane's administrator when absent.
    pub kubeconfig: Option<PathBuf>,
}

impl Town {
    /// A configuration whose issuer is where the service will be; `more` is appended.
    pub fn new(namespace: &str, more: &str) -> Self {
        let issuer = format!("https://127.0.0.1:{}", free_port());
        let configuration = format!(
            "apiVersion: config.agentid.dev/v1alpha1\nkind: Configuration\nissuer: {issuer}\n\
             trustDomain: agents.example.com\nserving: {{ipAddresses: [127.0.0.1], rateLimits: {{perSource: \
             {{perSecond: 5000, burst: 5000}}, perAgent: {{perSecond: 500, burst: 500}}}}}}\n{more}"
        );
        Self { namespace: namespace.to_owned(), issuer, configuration, kubeconfig: None }
    }

    pub async fn operator(&self, control_plane: &ControlPlane) -> Operator {
        let setup = Setup {
            namespace: self.namespace.clone(),
            configuration: self.configuration.clone(),
            ..Setup::default()
        };
        Operator::start(control_plane, setup).await
    }

    /// Starts a service at the issuer's address and waits until it is ready.
    pub async fn serve(&self, control_plane: &ControlPlane) -> Service {
        self.serve_at(control_plane, self.issuer.trim_start_matches("https://")).await
    }

    /// Starts one at another address.
    pub async fn serve_at(&self, control_plane: &ControlPlane, listen: &str) -> Service {
        let service =
            self.spawn_at(control_plane, listen, self.ca(control_plane).await, "info,agentid=debug");
        eventually("the token service is ready", Duration::from_secs(60), || async {
            assert!(service.process.runs(), "it ended by itself: {}", service.log_text());
            let (code, body) = http_get(&service.admin, "/readyz").await.map_err(|e| e.to_string())?;
            if code != 200 {
                return Err(format!("/readyz: {code} {body}"));
            }
            tokio::net::TcpStream::connect(listen).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
        service
    }

    /// Starts one at another address and does not wait.
    pub fn spawn_at(&self, control_plane: &ControlPlane, listen: &str, ca: String, logs: &str) -> Service {
        let dir = target_dir().join("test-logs");
        std::fs::create_dir_all(&dir).unwrap();
        let id = unique();
        let config = dir.join(format!("serve-{id}.yaml"));
        std::fs::write(&config, &self.configuration).unwrap();
        let (proxies, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let words = [
            env!("CARGO_BIN_EXE_agentid"),
            "serve",
            "--config",
            &config.to_string_lossy(),
            "--namespace",
            &self.namespace,
            "--kubeconfig",
            &self.kubeconfig.as_ref().unwrap_or(&control_plane.kubeconfig).to_string_lossy(),
            "--listen",
            listen,
            "--verify-listen",
            &proxies,
            "--admin-listen",
            &admin,
        ]
        .map(str::to_owned);
        let environment = [("RUST_LOG".to_owned(), logs.to_owned())];
        let process = Process::spawn(dir.join(format!("serve-{id}.log")), &words, &environment);
        Service { issuer: self.issuer.clone(), proxies, admin, ca, process }
    }

    /// The CA of the self-managed certificate.
    pub async fn ca(&self, control_plane: &ControlPlane) -> String {
        let secrets: Api<Secret> = Api::namespaced(control_plane.client().await, &self.namespace);
        eventually("the serving Secret", Duration::from_secs(60), || async {
            let secret = secrets.get_opt("agentid-serving").await.map_err(|e| e.to_string())?;
            let data = secret.and_then(|s| s.data).ok_or("none")?;
            let ca = data.get("ca.crt").ok_or("no ca.crt")?;
            String::from_utf8(ca.0.clone()).map_err(|e| e.to_string())
        })
        .await
    }
}

/// Who asks a service from a task of its own, and takes no answer for an answer too.
pub struct Asker {
    issuer: String,
    options: FetchOptions,
}

impl Asker {
    /// POSTs a form: the status and body.
    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<(u16, Value), String> {
        let answer = post_form(&format!("{}{path}", self.issuer), form, &self.options).await;
        let answer = answer.map_err(|e| e.to_string())?;
        Ok((answer.status.as_u16(), serde_json::from_str(&answer.body).map_err(|e| e.to_string())?))
    }
}

impl Service {
    fn options(&self) -> FetchOptions {
        FetchOptions {
            roots: Roots::Pem(self.ca.clone()),
            guard: Guard::Anywhere,
            limit: 8 << 20,
            ..FetchOptions::default()
        }
    }

    /// Somebody who asks it.
    pub fn asker(&self) -> Asker {
        Asker { issuer: self.issuer.clone(), options: self.options() }
    }

    /// POSTs a form: the status, headers and body.
    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, http::HeaderMap, Value) {
        let answer = post_form(&format!("{}{path}", self.issuer), form, &self.options()).await.unwrap();
        let body = serde_json::from_str(&answer.body).unwrap_or_else(|_| Value::String(answer.body.clone()));
        (answer.status.as_u16(), answer.headers, body)
    }

    /// GETs a path.
    pub async fn get(&self, path: &str) -> Result<Fetched, String> {
        fetch(&format!("{}{path}", self.issuer), &self.options()).await.map_err(|e| e.to_string())
    }

    /// The published keys.
    pub async fn keys(&self) -> JwkSet {
        JwkSet::parse(&self.get("/jwks").await.unwrap().body).unwrap().set
    }

    /// Its log, the audit lines among it.
    pub fn log(&self) -> &PathBuf {
        &self.process.log
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.process.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        self.process.runs()
    }

    /// Waits for its end; gives its exit status.
    pub fn wait(self) -> ExitStatus {
        self.process.wait()
    }

    /// Sends it a signal, if it still runs.
    pub fn signal_if_running(&self, name: &str) {
        self.process.signal_if_running(name);
    }

    pub fn stop(self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    pub async fn metrics(&self) -> String {
        http_get(&self.admin, "/metrics").await.unwrap().1
    }
}

/// An issuer of users' tokens.
pub struct Idp {
    /// Its `iss`.
    pub issuer: String,
    /// What vouches for it (PEM).
    pub ca: String,
    keys: Arc<Mutex<Vec<Arc<SigningKey>>>>,
    stop: CancellationToken,
}

struct Published {
    issuer: String,
    keys: Arc<Mutex<Vec<Arc<SigningKey>>>>,
}

impl Handler for Published {
    async fn handle(&self, request: Request) -> Response {
        match request.path.as_str() {
            "/.well-known/openid-configuration" => json(
                StatusCode::OK,
                &value!({"issuer": self.issuer, "jwks_uri": format!("{}/keys", self.issuer)}),
            ),
            "/keys" => {
                let set: JwkSet = self.keys.lock().unwrap().iter().map(|k| k.public_jwk()).collect();
                json(StatusCode::OK, &serde_json::from_str::<Value>(&set.to_json()).unwrap())
            }
            _ => text(StatusCode::NOT_FOUND, "no\n"),
        }
    }
}

impl Idp {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://{}", listener.local_addr().unwrap());
        let (from, until) = (
            Timestamp::now() - SignedDuration::from_hours(1),
            Timestamp::now() + SignedDuration::from_hours(24),
        );
        let authority = Authority::generate("idp", from, until).unwrap();
        let address = ["127.0.0.1".parse().unwrap()];
        let issued = authority.issue_server(&[], &address, from, until).unwrap();
        let tls = Tls::new(&issued.chain_pem, issued.key_pem.expose()).unwrap();
        let keys = Arc::new(Mutex::new(
            [Algorithm::ES256, Algorithm::RS256].map(|a| Arc::new(SigningKey::generate(a).unwrap())).to_vec(),
        ));
        let stop = CancellationToken::new();
        let handler = Arc::new(Published { issuer: issuer.clone(), keys: keys.clone() });
        tokio::spawn(agentid::net::listen::serve(
            listener,
            Some(tls),
            Bounds::default(),
            handler,
            Arc::default(),
            stop.clone(),
        ));
        Self { issuer, ca: authority.certificate_pem().to_owned(), keys, stop }
    }

    /// The entry of `userIssuers`, as YAML.
    pub fn entry(&self, prefix: &str, more: &str) -> String {
        let ca = self.ca.trim().replace('\n', "\n      ");
        format!(
            "- issuer:\n    url: {}\n    allowedNetworks: [127.0.0.0/8]\n    certificateAuthority: |\n      {ca}\n  \
             subjectPrefix: '{prefix}'\n{more}",
            self.issuer
        )
    }

    /// Its keys: one for ES256, which signs, and one for RS256.
    pub fn keys(&self) -> Vec<Arc<SigningKey>> {
        self.keys.lock().unwrap().clone()
    }

    /// A user's token.
    #[expect(clippy::needless_pass_by_value, reason = "every caller makes it on the spot")]
    pub fn token(&self, sub: &str, aud: &str, seconds: i64, more: Value) -> String {
        let now = Timestamp::now().as_second();
        let mut claims = value!({
            "iss": self.issuer, "sub": sub, "aud": aud, "iat": now, "exp": now + seconds, "jti": unique(),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let key = self.keys.lock().unwrap()[0].clone();
        key.sign("JWT", &claims).unwrap()
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
