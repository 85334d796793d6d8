//! What both processes say at /metrics after a small story, held against docs/metrics.md.

use std::collections::BTreeSet;
use std::time::Duration;

use agentid::api::AgentIdentity;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::common::eventually;
use crate::kit::{SOON, Test, stage};
use crate::metrics::{documented, samples, scraped, value};

/// The text of every source file that registers metrics.
fn sources() -> String {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    [
        "operator/metrics.rs",
        "serve/metrics.rs",
        "metrics/mod.rs",
        "metrics/process.rs",
        "cluster/client/calls.rs",
    ]
    .map(|file| std::fs::read_to_string(src.join(file)).unwrap())
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_scraped_is_what_is_documented() {
    let stage = stage().await;
    let t = Test::new("metrics").await;
    let (operator, service) = (&stage.operator, &stage.service);

    // A token, a refusal.
    let issued = |text: &str| value(text, "agentid_serve_tokens_issued_total", &[("mode", "autonomous")]);
    let refused = |text: &str| value(text, "agentid_serve_refusals_total", &[("reason", "ResourceNotFound")]);
    let before = service.metrics().await;
    t.token(&[]).await;
    let (status, body) = t.ask(&t.sa_token().await, &[("resource", "https://nobody.example.com")]).await;
    assert_eq!(status, 400, "{body}");
    let after = service.metrics().await;
    assert!(issued(&after) >= issued(&before) + 1.0, "{after}");
    assert!(refused(&after) >= refused(&before) + 1.0, "{after}");
    let answered = value(&after, "agentid_serve_request_duration_seconds_count", &[("endpoint", "token")]);
    assert!(answered >= 2.0, "{after}");

    // A withdrawal: the Secret is emptied, the status list says so.
    let withdrawn = "agentid_withdrawal_delay_seconds_count";
    let revoked = "agentid_serve_revocation_delay_seconds_count";
    let (at_first, listed) = (value(&operator.metrics().await, withdrawn, &[]), value(&after, revoked, &[]));
    let agents: Api<AgentIdentity> = Api::namespaced(t.client.clone(), &t.name);
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    agents.patch("a", &PatchParams::default(), &suspend).await.unwrap();
    eventually("the withdrawal is counted in both", SOON, || async {
        let (ours, theirs) = (operator.metrics().await, service.metrics().await);
        let counts = (value(&ours, withdrawn, &[]), value(&theirs, revoked, &[]));
        let agents = value(&ours, "agentid_agents", &[("reason", "Suspended")]);
        if counts.0 > at_first && counts.1 > listed && agents >= 1.0 { Ok(()) } else { Err(counts) }
    })
    .await;
    let text = operator.metrics().await;
    for (name, labels) in [
        ("agentid_leader", &[][..]),
        ("agentid_keys_available", &[]),
        ("agentid_build_info", &[("component", "operator")]),
        ("agentid_keys", &[("purpose", "tokens"), ("algorithm", "ES256"), ("state", "Active")]),
    ] {
        assert!((value(&text, name, labels) - 1.0).abs() < 0.1, "{name} {labels:?}\n{text}");
    }
    assert!(value(&text, "agentid_secret_writes_total", &[("cause", "new")]) >= 1.0, "{text}");
    assert!(value(&text, "agentid_secret_writes_total", &[("cause", "withdrawn")]) >= 1.0, "{text}");
    assert!(value(&text, "agentid_tokens_issued_total", &[("mode", "identity")]) >= 1.0, "{text}");
    assert!(
        value(&text, "agentid_agent_grants", &[("state", "Refused"), ("reason", "Suspended")]) >= 1.0,
        "{text}"
    );
    let calls = |verb, resource| {
        let labels = [("verb", verb), ("resource", resource), ("code", "2xx")];
        value(&text, "agentid_api_requests_total", &labels)
    };
    assert!(calls("create", "secrets") >= 1.0 && calls("patch", "agentidentities/status") >= 1.0, "{text}");
    assert!(calls("update", "leases") >= 1.0 && calls("watch", "namespaces") >= 1.0, "{text}");
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!(value(&text, "agentid_key_rotation_due_timestamp_seconds", &[("purpose", "status-lists")]) > now);
    let served = service.metrics().await;
    let expires = value(&served, "agentid_serve_certificate_expiry_timestamp_seconds", &[]);
    let starts = value(&served, "agentid_serve_certificate_start_timestamp_seconds", &[]);
    assert!(expires > now + 86400.0 && starts < now, "{starts} {expires}");
    let updated = value(&served, "agentid_serve_status_lists_updated_timestamp_seconds", &[]);
    assert!(updated > now - 60.0 && updated < now + 5.0, "{updated}");
    assert!(value(&served, "agentid_serve_status_list_entries", &[("status", "INVALID")]) >= 1.0, "{served}");

    // The names and the labels.
    let (told, sources) = (documented(), sources());
    let mut seen = BTreeSet::new();
    for text in [&text, &served] {
        for (name, labels) in scraped(text) {
            let documented = told.get(&name).unwrap_or_else(|| panic!("docs/metrics.md lacks {name}"));
            assert!(labels.is_empty() || labels == *documented, "{name}: {labels:?}, not {documented:?}");
            seen.insert(name);
        }
    }
    for name in told.keys().filter(|n| !seen.contains(*n)) {
        // A family that has counted nothing yet says nothing; it is registered all the same.
        let registered = name.trim_start_matches("agentid_").trim_end_matches("_total");
        assert!(sources.contains(&format!("\"{registered}\"")), "docs/metrics.md tells of {name}");
    }
    // No object's name, and nothing that only one agent has, is a label's value.
    for (name, labels, _) in samples(&text).into_iter().chain(samples(&served)) {
        for value in labels.values() {
            assert!(!value.contains(&t.name) && !value.contains("spiffe:"), "{name}: {value}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_log_is_json() {
    let stage = stage().await;
    let t = Test::new("logs").await;
    t.token(&[]).await;
    for log in [stage.operator.log(), stage.service.log()] {
        let lines = eventually("whole lines, an audit line among them", Duration::from_secs(10), || async {
            let text = std::fs::read_to_string(log).unwrap();
            if text.ends_with('\n') && text.contains("agentid.dev/audit") { Ok(text) } else { Err("none") }
        })
        .await;
        let mut levels = BTreeSet::new();
        let mut audited = 0;
        for line in lines.lines() {
            let line: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", log.display()));
            match line["level"].as_str() {
                Some(level) => {
                    levels.insert(level.to_owned());
                    let at = line["timestamp"].as_str().unwrap();
                    at.parse::<jiff::Timestamp>().unwrap();
                    assert!(line["target"].is_string() && line["message"].is_string(), "{line}");
                }
                // The audit line, on standard output.
                None => audited += usize::from(line["kind"] == "agentid.dev/audit"),
            }
        }
        assert!(levels.contains("INFO") && audited > 0, "{levels:?} {audited}");
    }
}
