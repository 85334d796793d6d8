use serde_json::json;

use super::inventory::group_for_tests;
use super::*;

fn report() -> Report {
    let agents: Vec<_> = (0..12).map(|i| format!("a{i}")).collect();
    let agents: Vec<_> = agents.iter().map(|a| ("support", a.as_str())).collect();
    let found = vec![
        group_for_tests("agentidentity.agentid.dev", "/apis/agentid.dev/v1alpha1/agentidentities", &agents),
        group_for_tests("secret", "/api/v1/secrets", &[]),
    ];
    Report { found, leader: None, deleted: 0, left: None, notes: Vec::new() }
}

#[test]
fn a_takeover_is_waited_for_to_its_end() {
    // The Lease's 15 s, and twice the longest pause between two tries: docs/operations.md says 15 to 20 s.
    assert!(takeover() > Duration::from_secs(20), "{:?}", takeover());
}

#[test]
fn what_is_there_is_said() {
    let mut report = report();
    let text = report.text(false);
    for words in [
        "12 agentidentity.agentid.dev\n  support/a0\n",
        "  and 2 more\n12 objects of agentid's are there\n",
        "Nothing was deleted",
        "To leave nothing: agentid uninstall --everything",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(!text.contains("secret"), "{text}");
    assert!(!report.text(true).contains("Nothing was deleted"));
    report.leader = Some("pod-1".to_owned());
    assert!(report.text(false).contains("the operator pod-1 leads\n"));
    assert!(report.text(false).contains("take the operator away (helm uninstall), then agentid uninstall"));
    assert_eq!(report.names().len(), 12);
    assert_eq!(report.names()[0], "agentidentity.agentid.dev/a0");
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["found"][1], json!({"kind": "secret", "count": 0, "objects": []}));
    assert!(value.get("left").is_none());
}

#[test]
fn what_is_left_is_said() {
    let mut report = report();
    report.deleted = 12;
    report.left = Some(Vec::new());
    assert_eq!(report.done(), "12 objects were deleted; nothing of agentid's is left\n");
    report.left = Some(vec![group_for_tests("secret", "/api/v1/secrets", &[("support", "x")])]);
    assert_eq!(report.done(), "12 objects were deleted; these are left:\n1 secret\n  support/x\n");
    assert_eq!(report.names(), ["secret/x"]);
}
