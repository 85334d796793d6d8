//! Clients that are not of our making before a real token service: each finds it by discovery, over TLS, unmodified.
//! docs/interop.md names them; the programs are in tests/interop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "common/mod.rs"]
mod common;
#[path = "interop/example.rs"]
mod example;
#[allow(dead_code, reason = "the part of the service's tests that these need")]
#[path = "serve/kit.rs"]
mod kit;
#[path = "common/serve.rs"]
mod service;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use common::{eventually, target_dir, unique};
use kit::{ACCESS, EXCHANGE, JWT, JWT_BEARER_ASSERTION, SOON, Test, claims};

const TRUST_DOMAIN: &str = "agents.example.com";
const PARTY: &str = "https://$NS.as.partner.example";
const SCOPE: &str = "tickets.read";
const USER: &str = "alice";

/// On top of the kit's: what an identity token is for, and the right to act for users.
const MORE: [&str; 3] = [
    "
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS-party}
spec:
  audience: https://$NS.as.partner.example
  tokenProfile: Identity
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}, modes: [Application]}]
",
    "
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: party}
spec: {agents: {names: [a]}, resource: $NS-party, application: {}}
",
    "
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: for-users}
spec:
  agents: {names: [a]}
  resource: $NS
  delegation: {issuer: $IDP, scopes: [tickets.read]}
",
];

/// What setup.sh made, by the names that it prints.
fn made() -> &'static BTreeMap<String, PathBuf> {
    static MADE: OnceLock<Result<BTreeMap<String, PathBuf>, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let script = tests().join("setup.sh");
        let made = Command::new(&script).output().map_err(|e| format!("{}: {e}", script.display()))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(format!("{} failed, so no client can be asked:\n{said}", script.display()));
        }
        let printed = String::from_utf8_lossy(&made.stdout);
        let lines = printed.lines().filter_map(|line| line.split_once('='));
        Ok(lines.map(|(name, value)| (name.to_owned(), value.into())).collect())
    });
    made.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// A program in the language's own runtime; none only where there is no node.
fn program(language: &str, name: &str) -> Option<Vec<PathBuf>> {
    let place = made().get(&format!("AGENTID_INTEROP_{}", language.to_uppercase()));
    let Some(place) = place.cloned() else {
        assert_eq!(language, "node", "setup.sh did not say where {language} is");
        // Not by eprintln!, which a test that passes keeps to itself.
        let why = format!("SKIPPED: {name}: node or npm is not installed (Debian and Ubuntu: nodejs npm)\n");
        std::io::stderr().write_all(why.as_bytes()).unwrap();
        return None;
    };
    Some(match language {
        "node" => vec!["node".into(), place.join(name)],
        "python" => vec![place, "-B".into(), tests().join("python").join(name)],
        _ => vec![place],
    })
}

/// The file of the CA that vouches for the service.
fn ca(t: &Test) -> PathBuf {
    let file = target_dir().join("test-logs").join(format!("interop-ca-{}.pem", unique()));
    std::fs::write(&file, &t.service().ca).unwrap();
    file
}

/// Runs a client that trusts the service's CA, as each runtime is told of it.
async fn run(t: &Test, words: Vec<PathBuf>, input: String) -> Output {
    let ca = ca(t);
    let running = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .envs(["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"].map(|name| (name, &ca)))
            .envs([("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1")])
            // Where schemathesis leaves what it found.
            .current_dir(target_dir().join("test-logs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{words:?}: {e}"));
        // Dropped at once, so that the client sees the end; one that fails early reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    running.await.unwrap()
}

/// Asks a client, which must succeed.
async fn ask(t: &Test, words: Vec<PathBuf>, question: &Value) -> Value {
    let name = words.last().unwrap().display().to_string();
    let output = run(t, words, question.to_string()).await;
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{said}{why}", output.status);
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{name}: {e}: {said}{why}"))
}

/// An agent that may do everything the clients ask for, all of it known to the service.
async fn agent(prefix: &str) -> Test {
    let t = Test::new(prefix).await;
    for yaml in MORE {
        t.apply(&yaml.replace("$IDP", &t.stage.idp.issuer)).await;
    }
    t.token(&[]).await;
    identity(&t).await;
    let (account, user, audience) = (t.sa_token().await, user(&t).await, t.aud());
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", user.as_str()),
        ("subject_token_type", ACCESS),
        ("actor_token", account.as_str()),
        ("actor_token_type", JWT),
        ("resource", audience.as_str()),
    ];
    until_issued(&t, &form).await;
    t
}

/// POSTs to `/token` until it gives one: what a new grant needs to become known.
async fn until_issued(t: &Test, form: &[(&str, &str)]) -> String {
    eventually("a token", SOON, || async {
        let (status, body) = t.settled("/token", form).await;
        body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
    })
    .await
}

async fn user(t: &Test) -> String {
    let scope = json!({"scope": "tickets.read tickets.write"});
    t.stage.idp.token(USER, &t.agent_id("a").await, 600, scope)
}

/// An identity token for the party.
async fn identity(t: &Test) -> String {
    let (account, party) = (t.sa_token().await, t.fill(PARTY));
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", account.as_str()),
        ("subject_token_type", JWT),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", account.as_str()),
        ("requested_token_type", JWT),
        ("audience", party.as_str()),
    ];
    until_issued(t, &form).await
}

/// What most clients need to know.
async fn question(t: &Test) -> Value {
    json!({
        "issuer": t.stage.town.issuer,
        "trust_domain": TRUST_DOMAIN,
        "audience": t.aud(),
        "party": t.fill(PARTY),
        "scope": SCOPE,
        "agent": t.agent_id("a").await,
    })
}

async fn question_with_tokens(t: &Test) -> Value {
    let mut question = question(t).await;
    question["access"] = t.token(&[("scope", SCOPE)]).await.into();
    question["identity"] = identity(t).await.into();
    question
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth4webapi_gets_tokens_by_every_grant_and_takes_them() {
    let Some(client) = program("node", "oauth.mjs") else { return };
    let t = agent("webapi").await;
    let mut question = question(&t).await;
    question["account_token"] = t.sa_token().await.into();
    question["user_token"] = user(&t).await.into();
    for name in ["asker", "stranger"] {
        let token = t.sa_token_for(name, None, &t.stage.town.issuer).await;
        question[format!("{name}_token")] = token.into();
    }
    let tokens = ask(&t, client, &question).await;
    let delegated = claims(tokens["delegated"].as_str().unwrap());
    assert_eq!(delegated["sub"], json!(format!("corp:{USER}")));
    assert_eq!(claims(tokens["identity"].as_str().unwrap())["aud"], question["party"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_and_pyjwt_take_tokens_and_refuse_the_wrong_ones() {
    let t = agent("pyjwt").await;
    ask(&t, program("python", "resource.py").unwrap(), &question_with_tokens(&t).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spiffe_takes_identity_tokens_by_the_bundle_and_no_access_tokens() {
    let t = agent("svid").await;
    let answer = ask(&t, program("python", "svid.py").unwrap(), &question_with_tokens(&t).await).await;
    assert_eq!(answer["id"], json!(t.agent_id("a").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn go_oidc_takes_tokens_by_discovery() {
    let t = agent("gooidc").await;
    let answer = ask(&t, program("go", "ask").unwrap(), &question_with_tokens(&t).await).await;
    let id = json!(t.agent_id("a").await);
    assert_eq!(answer, json!({"access": id, "identity": id}));
}

#[tokio::test(flavor = "multi_thread")]
async fn sd_jwt_reads_a_suspension_from_the_status_list() {
    let Some(client) = program("node", "status.mjs") else { return };
    let t = Test::new("sdjwt").await;
    let mut question = question(&t).await;
    question["token"] = t.token(&[]).await.into();
    let answer = ask(&t, client.clone(), &question).await;
    assert_eq!(answer, json!({"status": 0, "ttl": 2}));
    t.suspend("a", true).await;
    eventually("the list says that it is invalid", SOON, || async {
        let status = ask(&t, client.clone(), &question).await["status"].clone();
        if status == 1 { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_the_service_as_its_description_says() {
    let t = agent("schema").await;
    let python = program("python", "").unwrap().remove(0);
    let url = format!("{}/openapi.json", t.stage.town.issuer);
    let account = t.sa_token().await;
    let header = format!("Authorization: Bearer {account}");
    // Once as nobody; once as somebody, where the header says who it is.
    for more in [vec![], vec!["--include-path", "/introspect", "--header", &header]] {
        let mut words = vec![python.with_file_name("schemathesis"), "--config-file".into()];
        words.extend([tests().join("schemathesis.toml"), "run".into(), url.clone().into()]);
        words.extend(SCHEMATHESIS.split_whitespace().map(PathBuf::from));
        words.extend(["--url".into(), t.stage.town.issuer.clone().into()]);
        words.extend(["--tls-verify".into(), ca(&t)]);
        words.extend(more.iter().map(PathBuf::from));
        let output = run(&t, words, String::new()).await;
        let said = String::from_utf8_lossy(&output.stdout).replace(&account, "<token>");
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("No issues found"), "{said}");
    }
}

const SCHEMATHESIS: &str = "--no-color --seed 1 --max-examples 15 --phases examples,coverage,fuzzing --no-shrink \
    --generation-database none --request-timeout 10 --warnings off --checks not_a_server_error,\
    status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance";

#[tokio::test(flavor = "multi_thread")]
async fn the_mcp_sdk_gets_a_token_and_calls_a_guarded_tool() {
    let t = Test::new("mcp").await;
    let port = service::free_port();
    let audience = format!("http://127.0.0.1:{port}/mcp");
    for yaml in [
        "
apiVersion: agentid.dev/v1alpha1
kind: AgentResource
metadata: {name: $NS-mcp}
spec:
  audience: $AUD
  scopes: [{name: tickets.read}]
  allow: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}, modes: [Application]}]
",
        "
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: mcp}
spec: {agents: {names: [a]}, resource: $NS-mcp, application: {scopes: [tickets.read]}}
",
    ] {
        t.apply(&yaml.replace("$AUD", &audience)).await;
    }
    let account = t.sa_token().await;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", account.as_str()),
        ("resource", audience.as_str()),
    ];
    until_issued(&t, &form).await;
    let mut question = question(&t).await;
    question["audience"] = audience.into();
    question["account_token"] = account.into();
    question["port"] = port.into();
    let answer = ask(&t, program("python", "tool.py").unwrap(), &question).await;
    assert_eq!(answer["said"], json!(t.agent_id("a").await));
}
