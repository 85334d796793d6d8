//! What is assumed of what could not be seen, and how a missing agent is told.

use jiff::Timestamp;

use super::*;
use crate::cluster::client::Class;
use crate::domain::Lost;

#[test]
fn what_is_assumed_of_a_cluster() {
    let trust = serde_json::json!({"data": {"issuer": "https://agents.example.com", "jwks.json": "{}"}});
    assert_eq!(issuer_of(&trust).as_deref(), Some("https://agents.example.com"));
    assert_eq!(issuer_of(&serde_json::json!({"metadata": {}})), None);
    assert_eq!(trust_domain_of("spiffe://agents.example.com/agent/1"), Some("agents.example.com"));
    assert_eq!(trust_domain_of("https://x/"), None);
}

#[test]
fn what_may_not_be_read_is_unknown_unless_it_changes_no_grant() {
    let mut taking = Taking {
        of_blueprint: false,
        world: World::new(Configuration::new("https://i.example", "i.example")),
        unseen: vec![],
        skipped: vec![],
    };
    let now = Timestamp::now();
    for (source, class, fresh) in [
        (Source::Secrets, Class::Forbidden, true),
        (Source::Trust, Class::Unreachable, false),
        (Source::Grants, Class::Forbidden, false),
        (Source::Resources, Class::NotFound, false),
    ] {
        taking.failed(source.clone(), CallError::new(class, "no"));
        assert_eq!(taking.world.is_fresh(&source, now), fresh, "{source}");
    }
    assert_eq!(taking.world.source(&Source::Resources).lost, Some(Lost::NotServed));
    assert_eq!(
        taking.unseen.iter().map(|u| u.assumed_empty).collect::<Vec<_>>(),
        [true, false, false, false]
    );
}

#[test]
fn a_missing_agent_is_told_with_what_may_be_meant() {
    let error = |similar: &[&str], elsewhere: &[&str], others| {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        SnapshotError::AgentNotFound {
            agent: Key::new("support", "triag"),
            similar: owned(similar),
            elsewhere: owned(elsewhere),
            others,
        }
        .to_string()
    };
    assert!(error(&["triage"], &[], 1).ends_with("in namespace support; did you mean triage?"));
    assert!(error(&[], &["ops"], 0).contains("is in namespace ops (-n)"));
    assert!(error(&[], &[], 0).contains("which has none"));
    assert!(error(&[], &[], 4).contains("4 of other names"));
}
