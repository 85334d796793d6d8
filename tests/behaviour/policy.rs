//! What policies take, and that it comes back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{ControlPlane, condition, eventually};
use crate::kit::*;

const NONE: &[&str] = &["agent.json", "identity.jwt"];
const HELD: &[&str] = &["agent.json", "g.jwt", "identity.jwt"];

/// Of the agents of the test's namespace alone.
const OURS: &str = "namespaceSelector: {matchLabels: {\"kubernetes.io/metadata.name\": $NS}}";

/// An AgentPolicy `<name>-$NS` about the test's namespace.
fn policy(name: &str, spec: &str) -> String {
    policy_for(name, OURS, spec)
}

fn policy_for(name: &str, matches: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: {name}-$NS}}\nspec: {{match: \
         {{{matches}}}, {spec}}}\n"
    )
}

/// An agent `a` that holds the grant `g`: two roles and a scope.
async fn held(prefix: &str) -> Test {
    let t = Test::new(prefix).await;
    let asks = "application: {roles: [reader, writer], scopes: [read]}, secretKey: g.jwt";
    t.apply(&[resource("r"), agent("a", ""), grant_of("g", "names: [a]", "r", asks)].concat()).await;
    t.has_files("a-agentid", HELD, SOON).await;
    t.ready("a").await;
    t.grant_says("g", "True", "Issued", &["held by 1 agents"]).await;
    t
}

/// Waits until a policy's status counts so: matched, refused, refused grants.
async fn counts(t: &Test, name: &str, wanted: (i64, i64, i64)) {
    eventually(format!("AgentPolicy {name} counts {wanted:?}"), LATER, || async {
        let found = t.policy(&format!("{name}-$NS")).await.ok_or("there is none")?;
        let status = found.status.clone().unwrap_or_default();
        let counted = (status.matched, status.refused, status.refused_grants);
        let fresh = status.observed_generation == found.metadata.generation;
        let wanted = (Some(wanted.0), Some(wanted.1), Some(wanted.2));
        if fresh && counted == wanted { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_role_leaves_the_token() {
    let t = held("deny-role").await;
    t.apply(&policy("p", "deny: [{roles: [\"wr*\"], reason: Writers are people}]")).await;
    let left = t.grant_is("a", "g", "Narrowed", "PolicyDenied").await;
    assert_eq!((left.roles, left.scopes), (vec!["reader".to_owned()], vec!["read".to_owned()]));
    let parts = [
        "AgentPolicy p-$NS: spec.deny[0]",
        "role \"writer\" of AgentResource r-$NS is denied (Writers are people)",
        "remove it from the grant",
    ];
    t.condition("a", "GrantsHeld", "False", "PolicyDenied", &parts).await;
    t.grant_says("g", "False", "PolicyDenied", &parts).await;
    t.ready("a").await;
    assert_eq!(t.verified("a-agentid").await["g.jwt"].claims["roles"], json!(["reader"]));
    says(&t.files("a-agentid").await["agent.json"], &["PolicyDenied", "Writers are people"]);
    counts(&t, "p", (1, 1, 1)).await;
    let row = ControlPlane::shared().kubectl(["get", "apol", &t.fill("p-$NS")]);
    assert_eq!(
        row.split_whitespace().take(5).collect::<Vec<_>>(),
        ["NAME", "ENFORCEMENT", "SUSPEND", "MATCHED", "REFUSED"]
    );

    t.delete(&policy("p", "suspend: false")).await;
    t.grant_is("a", "g", "Held", "").await;
    // The index of a wider answer is recorded before its token is handed out.
    eventually("the token has both roles again", SOON, || async {
        let roles = t.verified("a-agentid").await["g.jwt"].claims["roles"].clone();
        if roles == json!(["reader", "writer"]) { Ok(()) } else { Err(roles) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_audit_it_only_says() {
    let t = held("audit").await;
    let before = t.secret("a-agentid").await.unwrap().metadata.resource_version;
    let rules = "require: [Sponsor], deny: [{resources: [\"*\"]}]";
    t.apply(&policy("p", &format!("enforcement: Audit, {rules}"))).await;
    let parts = [
        "only audited",
        "AgentPolicy p-$NS: spec.require: Sponsor",
        "AgentGrant g: PolicyDenied",
        "spec.deny[0]",
    ];
    t.condition("a", "PolicyCompliant", "False", "PolicyDenied", &parts).await;
    counts(&t, "p", (1, 1, 1)).await;
    eventually("the grant says so too", SOON, || async {
        let status = t.grant("g").await.and_then(|g| g.status).ok_or("no status")?;
        let said = condition(&status.conditions, "PolicyCompliant").ok_or_else(|| format!("{status:?}"))?;
        says(&said.message, &["from 1 agents", "AgentIdentity a", "spec.deny[0]"]);
        Ok::<_, String>(())
    })
    .await;
    t.ready("a").await;
    t.grant_is("a", "g", "Held", "").await;
    assert_eq!(
        t.secret("a-agentid").await.unwrap().metadata.resource_version,
        before,
        "nothing is rewritten"
    );

    t.apply(&policy("p", rules)).await;
    t.refused("a", "RequirementMissing", &["AgentPolicy p-$NS", "spec.sponsors"]).await;
    t.withdrawn("a-agentid", "RequirementMissing").await;
    t.apply(&agent("a", "sponsors: [{kind: User, name: ann}]")).await;
    t.ready("a").await;
    t.has_files("a-agentid", NONE, SOON).await;
    t.grant_is("a", "g", "Refused", "PolicyDenied").await;
    let conditions = t.agent("a").await.unwrap().status.unwrap().conditions;
    assert!(condition(&conditions, "PolicyCompliant").is_none(), "{conditions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_denies_everything_is_seen_and_taken_back() {
    let t = held("deny-all").await;
    t.apply(&agent("b", "")).await;
    t.ready("b").await;
    t.apply(&policy("p", "deny: [{resources: [\"*\"]}]")).await;
    t.has_files("a-agentid", NONE, SOON).await;
    t.grant_is("a", "g", "Refused", "PolicyDenied").await;
    let parts = ["AgentPolicy p-$NS: spec.deny[0]", "Application grants on AgentResource r-$NS are denied"];
    t.grant_says("g", "False", "PolicyDenied", &parts).await;
    t.event("a", "Warning PolicyDenied", &parts).await;
    counts(&t, "p", (2, 1, 1)).await;
    // Who it is an agent may always say.
    t.ready("a").await;
    t.delete(&policy("p", "suspend: false")).await;
    t.has_files("a-agentid", HELD, SOON).await;
    t.grant_is("a", "g", "Held", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_switch_withdraws_and_lifts() {
    let t = held("kill").await;
    t.apply(&agent("b", "")).await;
    t.ready("b").await;
    let began = Instant::now();
    t.apply(&policy("p", "suspend: true")).await;
    t.has_files("a-agentid", &["agent.json"], SOON).await;
    eprintln!("withdrawn after {:?}", began.elapsed());
    t.withdrawn("b-agentid", "Suspended").await;
    t.refused("a", "Suspended", &["AgentPolicy p-$NS: spec.suspend is true", "set it to false"]).await;
    t.grant_is("a", "g", "Refused", "Suspended").await;
    counts(&t, "p", (2, 2, 0)).await;
    t.apply(&policy("p", "suspend: false")).await;
    t.has_files("a-agentid", HELD, SOON).await;
    t.ready("b").await;
    counts(&t, "p", (2, 0, 0)).await;

    // Of one resource: its grants alone.
    let one = format!("{OURS}, resources: [\"r-*\"]");
    t.apply(&policy_for("p", &one, "suspend: true")).await;
    t.has_files("a-agentid", NONE, SOON).await;
    t.grant_is("a", "g", "Refused", "Suspended").await;
    t.ready("a").await;
    t.apply(&policy_for("p", &one.replace("r-*", "q-*"), "suspend: true")).await;
    t.has_files("a-agentid", HELD, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_come_and_go() {
    let t = held("policy-limits").await;
    t.apply(&policy("p", "limits: {tokenLifetime: 5m, grantLifetime: 720h}")).await;
    eventually("tokens live five minutes", SOON, || async {
        let all = t.verified("a-agentid").await;
        let lives: Vec<_> = all
            .values()
            .map(|v| v.claims["exp"].as_i64().unwrap() - v.claims["iat"].as_i64().unwrap())
            .collect();
        if lives == [300, 300] { Ok(()) } else { Err(format!("{lives:?}")) }
    })
    .await;
    t.apply(&policy("p", "limits: {tokenLifetime: 1m}")).await;
    t.grant_is("a", "g", "Narrowed", "LifetimeTooShort").await;
    t.condition(
        "a",
        "GrantsHeld",
        "False",
        "LifetimeTooShort",
        &["AgentPolicy p-$NS: spec.limits.tokenLifetime"],
    )
    .await;
    t.has_files("a-agentid", NONE, SOON).await;
    // A minute is over soon; nobody touches anything.
    t.apply(&policy("p", "limits: {grantLifetime: 1m}")).await;
    t.grant_is("a", "g", "Refused", "Expired").await;
    let parts = ["AgentPolicy p-$NS: spec.limits.grantLifetime", "create the grant anew"];
    t.condition("a", "GrantsHeld", "False", "Expired", &parts).await;
    t.apply(&policy("p", "limits: {agentLifetime: 1m}")).await;
    t.refused("a", "Expired", &["AgentPolicy p-$NS: spec.limits.agentLifetime", "create the agent anew"])
        .await;
    t.delete(&policy("p", "suspend: false")).await;
    t.has_files("a-agentid", HELD, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_edited_all_the_time_harms_nobody() {
    let (t, other) = (held("edited").await, Test::new("bystander").await);
    t.apply(&policy("p", "deny: [{roles: [r0]}]")).await;
    counts(&t, "p", (1, 0, 0)).await;
    let since = mark();
    let until = Instant::now() + Duration::from_secs(4);
    let edit = async {
        let mut n = 0;
        while Instant::now() < until {
            n += 1;
            t.apply(&policy("p", &format!("deny: [{{roles: [r{n}]}}]"))).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        n
    };
    let (edits, ()) = tokio::join!(edit, async {
        other.apply(&[resource("r"), agent("a", ""), grant("g", "names: [a]", "r", "")].concat()).await;
        other.has_files("a-agentid", HELD, SOON).await;
    });
    assert!(edits >= 3, "{edits}: as fast as the machine does them");
    tokio::time::sleep(PAUSE).await;
    assert_eq!(t.writes(since), [""; 0], "edits that take nothing write nothing");

    // On and off, and off at the end.
    let until = Instant::now() + Duration::from_secs(4);
    let mut on = false;
    while Instant::now() < until || on {
        on = !on;
        t.apply(&policy("p", &format!("suspend: {on}"))).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    t.has_files("a-agentid", HELD, SOON).await;
    t.ready("a").await;
    t.verified("a-agentid").await;
    counts(&t, "p", (1, 0, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_policies_of_many_globs_cost_no_write_more() {
    let t = held("many").await;
    let globs: Vec<_> = (0..64).map(|i| format!("\"*{i}*a*b*c*\"")).collect();
    let many = format!("deny: [{{resources: [{0}], roles: [{0}]}}, {{roles: [{0}]}}]", globs.join(", "));
    let since = mark();
    for chunk in (0..500).collect::<Vec<_>>().chunks(25) {
        let applied = chunk.iter().map(|i| {
            let one = policy(&format!("p{i}"), &many);
            let t = &t;
            async move { t.apply(&one).await }
        });
        futures::future::join_all(applied).await;
    }
    counts(&t, "p499", (1, 0, 0)).await;
    counts(&t, "p0", (1, 0, 0)).await;
    assert_eq!(t.writes(since), [""; 0]);
    let since = mark();
    t.apply(&policy("p250", "deny: [{roles: [writer]}]")).await;
    t.grant_is("a", "g", "Narrowed", "PolicyDenied").await;
    assert_eq!(t.verified("a-agentid").await["g.jwt"].claims["roles"], json!(["reader"]));
    counts(&t, "p250", (1, 1, 1)).await;
    counts(&t, "p251", (1, 0, 0)).await;
    let mut writes = t.writes(since);
    writes.sort();
    assert_eq!(writes, ["patch agentgrants/status", "patch agentidentities/status", "patch secrets"]);
}

/// `agentid policy test` of a policy, as a cluster administrator: whether it succeeded, and its JSON.
fn tested(t: &Test, policy: &str, more: &[&str]) -> (bool, Value) {
    use std::io::Write;
    use std::process::{Command, Stdio};

    let output = tokio::task::block_in_place(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
        command.args(["policy", "test", "-f", "-", "-o", "json"]).args(more);
        command.arg("--kubeconfig").arg(&ControlPlane::shared().kubeconfig);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(t.fill(policy).as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    (output.status.success(), json)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_tested_before_it_is_applied() {
    let t = held("tested").await;
    t.apply(&agent("b", "sponsors: [{kind: User, name: ann}]")).await;
    t.ready("b").await;
    let since = mark();
    let harsh = policy("p", "enforcement: Audit, deny: [{roles: [writer], reason: Writers are people}]");
    let (done, said) = tested(&t, &harsh, &[]);
    assert!(done, "losses alone are no failure");
    assert_eq!(said["policies"][0]["matched"], 2, "{said}");
    let losses = said["losses"].as_array().unwrap();
    assert_eq!(losses.len(), 1, "{said}");
    assert_eq!((&losses[0]["agent"], &losses[0]["roles"]), (&json!("a"), &json!(["writer"])));
    says(losses[0]["message"].as_str().unwrap(), &[&t.fill("AgentPolicy p-$NS"), "Writers are people"]);
    let (done, _) = tested(&t, &harsh, &["--fail-on-loss"]);
    assert!(!done);
    let both = format!("{}{}", policy("p", "deny: [{roles: [none]}]"), policy("q", "require: [Sponsor]"));
    let (done, said) = tested(&t, &both, &["--fail-on-loss"]);
    assert!(!done);
    assert_eq!(
        (&said["losses"][0]["agent"], &said["losses"][0]["reason"]),
        (&json!("a"), &json!("RequirementMissing"))
    );
    let (done, said) = tested(&t, &policy("p", "deny: [{roles: [none]}]"), &["--fail-on-loss"]);
    assert!(done && said["losses"] == json!([]), "{said}");
    tokio::time::sleep(PAUSE).await;
    assert!(t.policy("p-$NS").await.is_none());
    assert_eq!(t.writes(since), [""; 0]);
    t.has_files("a-agentid", HELD, SOON).await;
}
