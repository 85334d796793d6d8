//! The commands that look at agents and stop them: what they say, and what they write.

use std::process::{Output, Stdio};

use serde_json::Value;

use crate::common::{ControlPlane, eventually};
use crate::kit::*;

/// Runs a command against the control plane; standard input is no terminal.
pub fn agentid(words: &[&str]) -> Output {
    let kubeconfig = ControlPlane::shared().kubeconfig.to_string_lossy().into_owned();
    tokio::task::block_in_place(|| {
        std::process::Command::new(env!("CARGO_BIN_EXE_agentid"))
            .args(words)
            .args(["--kubeconfig", &kubeconfig])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    })
}

/// What a command printed as JSON; it succeeded or not.
pub fn json_of(words: &[&str]) -> (bool, Value) {
    let output = agentid(words);
    let said = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    (output.status.success(), json)
}

/// A resource, a blueprint with an agent `of`, and two agents with the grant `g`: a and b, labelled for the test.
async fn town(prefix: &str) -> Test {
    let t = Test::new(prefix).await;
    t.apply(&resource("res")).await;
    t.apply(
        "apiVersion: agentid.dev/v1alpha1\nkind: AgentBlueprint\nmetadata: {name: bots-$NS}\nspec: {namespaceSelector: \
         {matchLabels: {kubernetes.io/metadata.name: $NS}}}\n",
    )
    .await;
    for name in ["a", "b"] {
        let labelled = agent(name, "")
            .replace(&format!("{{name: {name}}}"), &format!("{{name: {name}, labels: {{of: $NS}}}}"));
        t.apply(&labelled).await;
    }
    t.apply(&agent("of", "blueprint: bots-$NS")).await;
    t.apply(&grant("g", "selector: {matchLabels: {of: $NS}}", "res", "")).await;
    for name in ["a", "b", "of"] {
        t.ready(name).await;
    }
    t.has_files("a-agentid", &["agent.json", "g.jwt", "identity.jwt"], SOON).await;
    t
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_shows_what_there_is() {
    let t = town("tree").await;
    let (done, said) = json_of(&["tree", "-n", &t.name, "-o", "json"]);
    assert!(done);
    let of = &said["blueprints"][0];
    assert_eq!((&of["name"], &of["agents"][0]["name"]), (&t.fill("bots-$NS").into(), &"of".into()), "{said}");
    let a = &said["namespaces"][0]["agents"][0];
    assert_eq!(
        (&a["name"], &a["state"], &a["grants"][0]["file"]),
        (&"a".into(), &"Ready".into(), &"g.jwt".into())
    );
    let renew: jiff::Timestamp = a["secret"]["renewAt"].as_str().unwrap().parse().unwrap();
    assert!(renew > jiff::Timestamp::now(), "{a}");
    let text = agentid(&["tree", "--blueprint", &t.fill("bots-$NS")]);
    says(
        &String::from_utf8(text.stdout).unwrap(),
        &[&t.fill("AgentBlueprint bots-$NS, of written agents"), "/of (written): Ready"],
    );
    let missing = agentid(&["tree", "--blueprint", "no-such"]);
    assert_eq!(missing.status.code(), Some(1));
    says(&String::from_utf8(missing.stderr).unwrap(), &["AgentBlueprint no-such does not exist"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_says_whom_it_hits_and_writes_only_when_it_may() {
    let t = town("stop").await;
    let labels = t.fill("of=$NS");
    let (done, said) = json_of(&["suspend", "-l", &labels, "--dry-run", "-o", "json"]);
    assert!(done && said["summary"]["changing"] == 2 && said["summary"]["grants"] == 2, "{said}");
    assert!(said["summary"]["tokensUntil"].is_string(), "{said}");
    let unasked = agentid(&["suspend", "-l", &labels]);
    assert_eq!(unasked.status.code(), Some(1));
    says(&String::from_utf8(unasked.stderr).unwrap(), &["nothing was changed", "--yes"]);
    tokio::time::sleep(PAUSE).await;
    assert_eq!(t.agent("a").await.unwrap().spec.suspend, None);

    let (done, said) = json_of(&["suspend", "-l", &labels, "--yes", "-o", "json"]);
    assert!(done && said["agents"][0]["outcome"] == "done", "{said}");
    for name in ["a", "b"] {
        t.withdrawn(&format!("{name}-agentid"), "Suspended").await;
    }
    t.ready("of").await;
    let fields = t.agent("a").await.unwrap().metadata.managed_fields.unwrap();
    assert!(fields.iter().any(|f| f.manager.as_deref() == Some("agentid-cli")), "{fields:?}");

    // What refuses the write is no absence.
    let fence = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: $NS-stays}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [agentid.dev], apiVersions: ['*'], operations: [UPDATE], resources: [agentidentities]}]
  validations: [{expression: 'false', message: it stays as it is}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: $NS-stays}
spec:
  policyName: $NS-stays
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}}
";
    t.apply(fence).await;
    eventually("the fence is up", SOON, || async {
        let denied = t.try_apply(&agent("of", "description: other, blueprint: bots-$NS")).await;
        denied.map_or(Ok(()), |_| Err("it could be changed"))
    })
    .await;
    let refused = agentid(&["resume", "a", "-n", &t.name, "--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    says(
        &String::from_utf8(refused.stderr).unwrap(),
        &["1 of 1 objects could not be changed", "it stays as it is"],
    );
    t.delete(fence).await;
    eventually("the fence is down", SOON, || async {
        t.try_apply(&agent("of", "description: o, blueprint: bots-$NS")).await
    })
    .await;

    let one = agentid(&["resume", "a", "-n", &t.name, "--yes"]);
    assert!(one.status.success());
    says(
        &String::from_utf8(one.stdout).unwrap(),
        &["1 of 1 agents get their credentials back", "1 object resumed"],
    );
    t.ready("a").await;
    let (done, said) = json_of(&["resume", "--all", "-n", &t.name, "--yes", "-o", "json"]);
    assert!(done && said["summary"]["changing"] == 1 && said["summary"]["staying"] == 2, "{said}");
    t.ready("b").await;
    assert_eq!(agentid(&["suspend", "no-such", "-n", &t.name, "--yes"]).status.code(), Some(1));
    assert_eq!(agentid(&["suspend", "--yes"]).status.code(), Some(2), "whom?");
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_of_a_blueprint_is_its_own_switch() {
    let t = town("stop-bp").await;
    let name = t.fill("bots-$NS");
    let (done, said) = json_of(&["suspend", "--blueprint", &name, "--yes", "-o", "json"]);
    assert!(done && said["blueprint"]["outcome"] == "done", "{said}");
    t.refused("of", "Suspended", &["AgentBlueprint bots-$NS"]).await;
    assert_eq!(t.agent("of").await.unwrap().spec.suspend, None);
    // Its own switch would not help it.
    let stays = agentid(&["resume", "of", "-n", &t.name, "--yes"]);
    says(
        &String::from_utf8(stays.stdout).unwrap(),
        &["1 stay as they are", &t.fill("AgentBlueprint bots-$NS: spec.suspend")],
    );
    assert!(agentid(&["resume", "--blueprint", &name, "--yes"]).status.success());
    t.ready("of").await;
    eventually("nothing is left to do", SOON, || async {
        let (_, said) = json_of(&["resume", "--blueprint", &name, "--dry-run", "-o", "json"]);
        if said["blueprint"]["unchanged"] == true { Ok(()) } else { Err(said) }
    })
    .await;
}
