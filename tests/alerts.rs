//! The alerts and the dashboard that are shipped: they name metrics that exist, fire when they should and only then, and
//! each alert has its section in docs/operations.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "common/metrics.rs"]
mod metrics;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

const RULES: &str = "charts/agentid/files/alerts.yaml";
const TESTS: &str = "tests/alerts/alerts.test.yaml";

#[derive(Deserialize)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    _for: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn rules() -> Vec<Rule> {
    let file: File = serde_yaml::from_str(&read(RULES)).unwrap();
    file.groups.into_iter().flat_map(|g| g.rules).collect()
}

/// The anchors of a page's headings, as GitHub makes them of single words.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|l| l.strip_prefix("### "));
    headings.map(|h| h.trim().to_lowercase()).collect()
}

#[test]
fn every_alert_names_metrics_and_a_section() {
    let (known, page) = (metrics::documented(), read("docs/operations.md"));
    let sections = anchors(&page);
    let rules = rules();
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = &rule.alert;
        assert!(names.insert(name.to_lowercase()), "{name} stands there twice");
        let used = metrics::used(&rule.expr, &known).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!used.is_empty(), "{name} looks at nothing of agentid's");
        assert!(matches!(rule.labels["severity"].as_str(), "critical" | "warning"), "{name}");
        assert!(
            rule.annotations["summary"].len() < 90 && !rule.annotations["description"].is_empty(),
            "{name}"
        );
        assert_eq!(rule.annotations["runbook_url"], format!("docs/operations.md#{}", name.to_lowercase()));
        assert!(sections.contains(&name.to_lowercase()), "docs/operations.md has no section {name}");
    }
    let told: BTreeSet<_> = sections.into_iter().filter(|s| s.starts_with("agentid")).collect();
    assert_eq!(told, names, "docs/operations.md has a section for an alert that does not exist");
}

#[test]
fn every_alert_is_tested_both_ways() {
    let tests = read(TESTS);
    for rule in rules() {
        for case in ["fires", "does not fire"] {
            let name = format!("- name: {} {case}\n", rule.alert);
            assert_eq!(tests.matches(&name).count(), 1, "{TESTS} lacks {name:?}");
        }
    }
}

#[test]
fn the_dashboard_asks_for_what_exists() {
    let dashboard: Value = serde_json::from_str(&read("charts/agentid/files/dashboard.json")).unwrap();
    let known = metrics::documented();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 41 && dashboard["uid"].is_string());
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    let (mut ids, mut used) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: an id is used twice");
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title}: beyond the right edge");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} asks nothing");
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            let names = metrics::used(query, &known).unwrap_or_else(|e| panic!("{title}: {e}"));
            assert!(!names.is_empty(), "{title}: {query}");
            used.extend(names);
        }
    }
    for metric in [
        "agentid_leader",
        "agentid_agents",
        "agentid_renewals_late",
        "agentid_oldest_expiry_timestamp_seconds",
        "agentid_keys",
        "agentid_world_objects",
        "agentid_watch_age_seconds",
        "agentid_api_requests_total",
        "agentid_queue_depth",
        "agentid_serve_revocation_delay_seconds",
        "agentid_serve_request_duration_seconds",
        "agentid_serve_refusals_total",
        "process_resident_memory_bytes",
    ] {
        assert!(used.contains(metric), "the dashboard does not show {metric}");
    }
}

/// promtool, or why it can't be had.
fn promtool() -> Result<PathBuf, String> {
    let script = root().join("tests/alerts/setup.sh");
    let made = Command::new(&script).output().map_err(|e| format!("cannot run {}: {e}", script.display()))?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&made.stdout).trim().into())
}

fn run(promtool: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new(promtool).args(args).current_dir(root()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (output.status.success(), said)
}

#[test]
fn prometheus_own_tool_agrees() {
    let promtool = match promtool() {
        Ok(promtool) => promtool,
        Err(why) => {
            eprintln!("SKIPPED: the alerts were not tested with promtool, which can't be had:\n{why}");
            return;
        }
    };
    let (good, said) = run(&promtool, &["check", "rules", "--lint=all", "--lint-fatal", RULES]);
    assert!(good, "{said}");
    assert!(said.contains(&format!("{} rules found", rules().len())), "{said}");
    let (good, said) = run(&promtool, &["test", "rules", TESTS]);
    assert!(good, "{said}");

    // That a test which should fail does: the same tests, without any alert.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alerts");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("none.yaml"), "groups: []\n").unwrap();
    let tests = read(TESTS).replace(&format!("../../{RULES}"), "none.yaml");
    std::fs::write(dir.join("none.test.yaml"), tests).unwrap();
    let (good, said) = run(&promtool, &["test", "rules", &dir.join("none.test.yaml").to_string_lossy()]);
    assert!(!good && said.contains("AgentidNoLeader"), "{said}");
}
