//! `examples/service` and `examples/client` as they are: from a pod's service-account token to an answer, and to the
//! refusal once the pod is gone.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Process, eventually, target_dir, unique};
use crate::kit::{SOON, Test};
use crate::{SCOPE, agent, ca, identity, made, program, run, service};

/// An agent that lives and dies with a pod, and its right.
const ERRAND: &str = "
apiVersion: agentid.dev/v1alpha1
kind: AgentIdentity
metadata: {name: $NAME}
spec: {serviceAccountName: $NAME, boundObjectRef: {apiVersion: v1, kind: Pod, name: $NAME}}
---
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: $NAME}
spec: {agents: {names: [$NAME]}, resource: $NS, application: {scopes: [tickets.read]}}
";
/// The words of the service where it has read a list anew.
const READ_LIST: &str = "read the status list";

/// The words that run a program of examples/.
fn example(program: &str, words: &[&str]) -> Vec<String> {
    let python = made()["AGENTID_INTEROP_PYTHON"].display().to_string();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(program).display().to_string();
    [&[python.as_str(), "-B", &file], words].concat().into_iter().map(str::to_owned).collect()
}

fn in_logs(name: &str) -> std::path::PathBuf {
    target_dir().join("test-logs").join(format!("example-{name}-{}", unique()))
}

/// The example service as a process.
struct Tickets {
    address: String,
    process: Process,
}

impl Tickets {
    async fn start(t: &Test, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", service::free_port());
        let (ca, aud) = (ca(t).display().to_string(), t.aud());
        let issuer = t.stage.town.issuer.as_str();
        let words = ["--issuer", issuer, "--audience", &aud, "--ca", &ca, "--listen", &address];
        let words = example("service/service.py", &[&words[..], more].concat());
        let this = Self { process: Process::spawn(in_logs("service.log"), &words, &[]), address };
        eventually("the example service listens", SOON, || async {
            assert!(this.process.runs(), "it ended by itself: {}", this.log());
            tokio::net::TcpStream::connect(&this.address).await.map(drop)
        })
        .await;
        this
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.process.log).unwrap()
    }

    fn lists_read(&self) -> usize {
        self.log().matches(READ_LIST).count()
    }

    /// GETs a path: the status, the head and the body.
    async fn get(&self, path: &str, headers: &[String]) -> (u16, String, Value) {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        let head: String = headers.iter().map(|h| format!("Authorization: {h}\r\n")).collect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: tickets\r\nConnection: close\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), serde_json::from_str(body).unwrap())
    }

    async fn call(&self, token: &str) -> (u16, String, Value) {
        self.get("/tickets", &[format!("Bearer {token}")]).await
    }
}

/// A pod and the agent that is bound to it; gives the words of the client that runs in it.
async fn errand(t: &Test, name: &str) -> Vec<String> {
    t.account(name).await;
    t.pod(name, name).await;
    t.apply(&ERRAND.replace("$NAME", name)).await;
    let projected = in_logs("token");
    std::fs::write(&projected, t.sa_token_for(name, Some(name), &t.stage.town.issuer).await).unwrap();
    let (ca, aud, projected) = (ca(t).display().to_string(), t.aud(), projected.display().to_string());
    let issuer = t.stage.town.issuer.as_str();
    example(
        "client/client.py",
        &["--issuer", issuer, "--ca", &ca, "--token-file", &projected, "--resource", &aud],
    )
}

fn calling(client: &[String], tickets: &Tickets, more: &[&str]) -> Vec<String> {
    let url = format!("http://{}/tickets", tickets.address);
    let words = [&["--service", url.as_str()], more].concat();
    client.iter().cloned().chain(words.into_iter().map(str::to_owned)).collect()
}

/// Runs the client once: what it printed, or why it was refused.
async fn once(t: &Test, client: &[String], tickets: &Tickets) -> Result<Value, String> {
    let words = calling(client, tickets, &[]).into_iter().map(Into::into).collect();
    let output = run(t, words, String::new()).await;
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs it over and over, from when its first call is answered.
async fn over_and_over(client: &[String], tickets: &Tickets) -> Process {
    let words = calling(client, tickets, &["--every", "0.2"]);
    let client = Process::spawn(in_logs("client.log"), &words, &[]);
    eventually("the first answer", SOON, || async {
        let said = std::fs::read_to_string(&client.log).unwrap();
        if said.contains("on_behalf_of") { Ok(()) } else { Err(said) }
    })
    .await;
    client
}

/// Waits until a client is refused; gives how long that took since `began`.
async fn until_refused(client: Process, began: Instant) -> Duration {
    eventually("the client is refused", SOON, || async { (!client.runs()).then_some(()) }).await;
    let took = began.elapsed();
    let said = std::fs::read_to_string(&client.log).unwrap();
    assert_eq!(client.wait().code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("the service refuses: 401") && last.contains("error=\"invalid_token\""),
        "{last}"
    );
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_work_from_a_pods_token_to_its_end() {
    let t = agent("example").await;
    let asker = in_logs("token");
    std::fs::write(&asker, t.sa_token_for("asker", None, &t.stage.town.issuer).await).unwrap();
    let by_list = Tickets::start(&t, &[]).await;
    let by_question = Tickets::start(&t, &["--introspect", &asker.display().to_string()]).await;
    let client = errand(&t, "errand").await;
    t.ready("errand").await;
    let who =
        json!({"agent": t.agent_id("errand").await, "name": t.fill("$NS/errand"), "on_behalf_of": null});
    for tickets in [&by_list, &by_question] {
        // Until the grant is known.
        let said = eventually("an answer", SOON, || once(&t, &client, tickets)).await;
        assert_eq!(said["caller"], who);
    }

    // Whose list is from before its birth is taken all the same. Its `ttl` is short here, so that the list may be
    // read anew just then: another agent is born in that case.
    let own = t.token(&[]).await;
    let mut born = 0;
    loop {
        let before = by_list.lists_read();
        eventually("a fresh list", SOON, || async {
            assert_eq!(by_list.call(&own).await.0, 200);
            (by_list.lists_read() > before).then_some(())
        })
        .await;
        let (read, name) = (by_list.lists_read(), format!("newborn{born}"));
        let newborn = errand(&t, &name).await;
        let said = eventually("an answer to the newborn", SOON, || once(&t, &newborn, &by_list)).await;
        assert_eq!(said["caller"]["name"], t.fill(&format!("$NS/{name}")));
        if by_list.lists_read() == read {
            break;
        }
        born += 1;
        assert!(born < 20, "each of {born} newborns came with a list that was read after its birth");
    }

    // The same call as before, with the same token, after the end of the pod.
    let (asked, listed) =
        tokio::join!(over_and_over(&client, &by_question), over_and_over(&client, &by_list));
    t.end_pod("errand").await;
    let began = Instant::now();
    let (asked, listed) = tokio::join!(until_refused(asked, began), until_refused(listed, began));
    eprintln!("refused by introspection after {asked:?}, by the list after {listed:?}");
    // The client calls each 0.2 s, the bit turns within 2 s, `ttl` is 2 s; the rest is for a busy machine.
    assert!(asked < Duration::from_secs(2), "{asked:?}");
    assert!(listed < Duration::from_secs(7), "{listed:?}");
    // As long as its own token is new, its pod might as well not have been seen yet.
    eventually("no token for good", SOON, || async {
        let why = once(&t, &client, &by_list).await.unwrap_err();
        assert!(why.starts_with("no token: "), "{why}");
        if why.starts_with("no token: 401") && why.contains("invalid_client") { Ok(()) } else { Err(why) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_service_says_for_whom_and_challenges_the_rest() {
    let t = agent("challenge").await;
    let tickets = Tickets::start(&t, &[]).await;
    let id = t.agent_id("a").await;
    let delegated = {
        let user = t.stage.idp.token("alice", &id, 300, json!({"scope": SCOPE}));
        t.delegated(&user, &[]).await
    };
    let (status, _, body) = tickets.call(&delegated).await;
    let who = json!({"agent": id, "name": t.fill("$NS/a"), "on_behalf_of": "corp:alice"});
    assert_eq!((status, &body["caller"]), (200, &who), "{body}");

    let good = t.token(&[]).await;
    let (unsigned, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{unsigned}.{}", signature.chars().rev().collect::<String>());
    let (account, identity) = (t.sa_token().await, identity(&t).await);
    let invalid = Some("error=\"invalid_token\"");
    let bearer = |token: &str| vec![format!("Bearer {token}")];
    for (what, headers, status, says) in [
        ("nothing", vec![], 401, None),
        ("another scheme", vec!["Basic YTpi".to_owned()], 401, None),
        ("two headers", [bearer(&good), bearer(&good)].concat(), 400, Some("error=\"invalid_request\"")),
        ("no token", bearer(""), 401, invalid),
        ("junk", bearer("a.b.c"), 401, invalid),
        ("another signature", bearer(&forged), 401, invalid),
        ("an identity token", bearer(&identity), 401, invalid),
        ("a service-account token", bearer(&account), 401, invalid),
    ] {
        let (got, head, body) = tickets.get("/tickets", &headers).await;
        assert_eq!(got, status, "{what}: {head} {body}");
        let challenge = head.lines().find_map(|l| l.strip_prefix("WWW-Authenticate: Bearer ")).unwrap();
        match says {
            Some(error) => assert!(challenge.contains(error), "{what}: {challenge}"),
            None => assert!(!challenge.contains("error"), "{what}: {challenge}"),
        }
        assert!(head.contains("Cache-Control: no-store"), "{what}: {head}");
    }
    assert_eq!(tickets.get("/", &bearer(&good)).await.0, 404);
    assert_eq!(tickets.call(&good).await.0, 200, "what is good is still taken");
    assert!(!tickets.log().contains(signature), "the log holds a token");

    let demanding = Tickets::start(&t, &["--scope", "tickets.write"]).await;
    let (status, head, _) = demanding.call(&good).await;
    assert_eq!(status, 403, "{head}");
    assert!(
        head.contains("error=\"insufficient_scope\"") && head.contains("scope=\"tickets.write\""),
        "{head}"
    );
}

/// What a real agentid never serves: lists and tokens that are wrong in one thing, by a stand-in for the issuer.
#[test]
fn the_example_service_refuses_what_is_wrong_in_one_thing() {
    let words = program("python", "tickets.py").unwrap();
    let output = std::process::Command::new(&words[0]).args(&words[1..]).output().unwrap();
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{why}");
}
