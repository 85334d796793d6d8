//! The commands that look at agents and stop them: what they say, and what they write.

use std::process::{Output, Stdio};

use serde_json::Value;

use crate::common::ControlPlane;
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
