use clap::Parser;
use serde_json::{Value, json};

use super::judge::{Live, Verdict};
use super::*;
use crate::api::Reason;
use crate::cli::record::Reach;
use crate::issue::{Action, AuditLine};

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
}

/// A grant that was created on day 0.
fn grant(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["resource"] = json!("tickets");
    if spec.get("agents").is_none() {
        spec["agents"] = json!({"names": ["a"]});
    }
    json!({"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentGrant", "spec": spec, "metadata": {
        "namespace": "ns", "name": name, "uid": "u", "resourceVersion": "7", "generation": 1,
        "creationTimestamp": at(0).to_string(), "labels": {"team": "support"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "managedFields": [
            {"manager": "flux", "operation": "Apply", "time": at(0).to_string(), "fieldsType": "FieldsV1",
             "fieldsV1": {"f:spec": {}}},
            {"manager": "agentid", "operation": "Update", "subresource": "status", "time": at(99).to_string(),
             "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}}]}})
}

fn live(value: Value) -> Live {
    Live::of(value).unwrap()
}

fn used(grant: &str, day: i64, roles: &[&str], scopes: &[&str]) -> AuditLine {
    let texts = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    AuditLine {
        namespace: Some("ns".into()),
        name: Some("a".into()),
        grant: Some(grant.into()),
        endpoint: Some("/token".into()),
        roles: texts(roles),
        scopes: texts(scopes),
        ..AuditLine::new(Action::Mint, Reason::Issued, at(day))
    }
}

fn usage(lines: &[AuditLine]) -> Usage {
    let mut usage = Usage::since(at(10));
    lines.iter().for_each(|line| usage.take(line));
    usage
}

#[test]
fn each_grant_is_judged_by_what_can_be_told() {
    let usage = usage(&[
        used("full", 12, &["r"], &["x"]),
        used("part", 13, &["r"], &["x"]),
        used("part", 11, &["r"], &["y"]),
        used("user", 12, &[], &["x"]),
        used("before", 9, &["r"], &["x"]),
        used("secret", 12, &["r"], &["x"]),
        used("partial", 12, &["r"], &["never in part"]),
    ]);
    let full = json!({"application": {"roles": ["r"], "scopes": ["x"]}});
    let more = json!({"application": {"roles": ["r", "q"], "scopes": ["x", "y", "z"]}});
    let users = json!({"delegation": {"issuer": "https://idp.example.com", "scopes": ["x", "y"]}});
    let mut secret = more.clone();
    secret["secretKey"] = json!("t.jwt");
    let mut later = full.clone();
    later["notBefore"] = json!(at(11).to_string());
    let mut many = full.clone();
    many["agents"] = json!({"names": ["a", "b"]});
    type Row<'a> = (&'a str, &'a Value, Verdict, &'a [&'a str], &'a [&'a str]);
    let own_user = json!({"agentUser": {"scopes": ["x", "y"]}});
    let rows: [Row<'_>; 10] = [
        ("full", &full, Verdict::Used, &[], &[]),
        ("full", &many, Verdict::Used, &[], &[]),
        ("part", &more, Verdict::Narrower, &["q"], &["z"]),
        ("user", &users, Verdict::Narrower, &[], &["y"]),
        ("user", &own_user, Verdict::Narrower, &[], &["y"]),
        ("before", &full, Verdict::Unused, &[], &[]),
        ("par", &full, Verdict::Unused, &[], &[]),
        ("secret", &secret, Verdict::Delivered, &[], &[]),
        ("never-secret", &secret, Verdict::Delivered, &[], &[]),
        ("later", &later, Verdict::TooYoung, &[], &[]),
    ];
    for (name, spec, verdict, roles, scopes) in rows {
        let grant = live(grant(name, spec));
        let judged = judge(&grant, &usage, at(10));
        assert_eq!((judged.verdict, &*judged.roles, &*judged.scopes), (verdict, roles, scopes), "{name}");
        assert_eq!(judged.narrowed.is_some(), verdict == Verdict::Narrower, "{name}");
    }
    let own_user = live(grant("user", &own_user));
    let narrowed = judge(&own_user, &usage, at(10)).narrowed.unwrap();
    assert_eq!(narrowed["spec"]["agentUser"], json!({"scopes": ["x"]}));
    let many = live(grant("full", &many));
    assert_eq!(judge(&many, &usage, at(10)).agents, ["b"]);
}

#[test]
fn what_is_younger_than_the_time_is_not_judged() {
    let spec = json!({"application": {"roles": ["r"]}});
    let none = usage(&[]);
    let verdict = |value: Value| judge(&live(value), &none, at(10)).verdict;
    // Days after the start, and seconds after that.
    for (day, seconds, wanted) in [
        (11, 0, Verdict::TooYoung),
        (10, 0, Verdict::TooYoung),
        (10, -1, Verdict::Unused),
        (9, 0, Verdict::Unused),
    ] {
        let mut young = grant("g", &spec);
        let created = at(day) + SignedDuration::from_secs(seconds);
        young["metadata"]["creationTimestamp"] = json!(created.to_string());
        assert_eq!(verdict(young), wanted, "{day} {seconds}");
    }
    // Changed on day 11: what was added then has had no time.
    let mut changed = grant("g", &spec);
    changed["metadata"]["managedFields"][0]["time"] = json!(at(11).to_string());
    assert_eq!(verdict(changed.clone()), Verdict::Unused, "of the first generation nothing was changed");
    changed["metadata"]["generation"] = json!(2);
    assert_eq!(verdict(changed), Verdict::TooYoung);
    let mut manifest = grant("g", &spec);
    manifest["metadata"] = json!({"namespace": "ns", "name": "g"});
    assert_eq!(verdict(manifest), Verdict::Unused);
}

#[test]
fn a_narrower_grant_differs_in_its_lists_alone() {
    let spec = json!({
        "application": {"roles": ["r"], "scopes": ["x", "y", "on", "1e3"]}, "expiresAt": at(400).to_string(),
        "ofALaterVersion": {"kept": true}, "agents": {"selector": {"matchLabels": {"l": "v"}}},
    });
    let usage = usage(&[used("g", 12, &["r"], &["on", "x", "1e3"])]);
    let grant = live(grant("g", &spec));
    let judged = judge(&grant, &usage, at(10));
    let mut wanted = spec;
    wanted["resource"] = json!("tickets");
    wanted["application"]["scopes"] = json!(["x", "on", "1e3"]);
    let narrowed = judged.narrowed.clone().unwrap();
    assert_eq!(narrowed["spec"], wanted);
    assert_eq!(narrowed["metadata"], json!({"name": "g", "namespace": "ns", "labels": {"team": "support"}}));
    // It is read back from the stream as it is.
    let reach = Reach::default();
    let findings = Findings { since: at(10), now: at(20), reach: &reach, judged: &[judged] };
    let text = findings.text().unwrap();
    let documents: Vec<Value> = serde_yaml::from_multiple(&text).unwrap();
    assert_eq!(documents.into_iter().filter(|d| !d.is_null()).collect::<Vec<_>>(), [narrowed]);
    assert!(text.contains("# kubectl apply --server-side --field-manager=flux -f -\n"), "{text}");
}

#[test]
fn everything_but_the_narrower_grants_is_a_comment() {
    let usage = usage(&[used("part", 12, &["r"], &[])]);
    let secret = json!({"application": {}, "secretKey": "t.jwt"});
    let mut odd = grant("part", &json!({"application": {"roles": ["r", "x\nkind: Secret"]}}));
    odd["metadata"]["managedFields"] = Value::Null;
    let grants =
        [live(grant("idle", &json!({"application": {}}))), live(odd), live(grant("secret", &secret))];
    let judged: Vec<_> = grants.iter().map(|g| judge(g, &usage, at(10))).collect();
    let reach =
        Reach { lines: 9, audit_lines: 3, oldest: Some(at(1)), newest: Some(at(19)), ..Reach::default() };
    let findings = Findings { since: at(10), now: at(20), reach: &reach, judged: &judged };
    let text = findings.text().unwrap();
    for wanted in [
        "# What was used of 3 AgentGrants since 2027-01-25T08:00:00Z (10d).\n",
        "# The record: 3 audit lines among 9, from 2027-01-16T08:00:00Z to 2027-02-03T08:00:00Z.\n",
        "# ns/idle    unused     never         no token was asked for\n",
        "# ns/part    narrower   8d ago        no token carried the roles x\\nkind: Secret\n",
        "# ns/secret  delivered  -             delivered in a Secret (t.jwt); use can't be told from the record\n",
        "#   kubectl delete agentgrants.agentid.dev -n ns idle\n",
        "# kubectl replace -f -\n",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let (comments, _) = text.split_once("---\n").unwrap();
    assert!(comments.lines().all(|l| l.starts_with('#')), "{comments}");
    assert_eq!(text.matches("---\n").count(), 1, "{text}");

    let value = findings.json();
    assert_eq!(value["grants"][0]["verdict"], "Unused");
    assert_eq!(value["grants"][1]["unusedRoles"], json!(["x\nkind: Secret"]));
    assert_eq!(value["grants"][1]["narrowed"]["spec"]["application"]["roles"], json!(["r"]));
    assert_eq!(value["record"]["auditLines"], 3);
}

fn arguments(words: &[&str]) -> Result<UnusedArgs, clap::Error> {
    let parsed = crate::cli::Cli::try_parse_from(["agentid", "unused"].iter().chain(words))?;
    match parsed.command {
        crate::cli::Command::Unused(args) => Ok(args),
        _ => panic!("another command"),
    }
}

#[test]
fn times_and_manifests_are_read() {
    for (text, seconds) in
        [("30d", 2_592_000), ("12h", 43_200), ("90m", 5400), ("45s", 45), ("2w", 1_209_600)]
    {
        assert_eq!(since(text), Ok(Since::Ago(SignedDuration::from_secs(seconds))), "{text}");
    }
    assert_eq!(since("2027-01-15T08:00:00Z"), Ok(Since::At(at(0))));
    for text in ["", "d", "30", "-1d", "0d", "1.5d", "9999999d", "30é", "yesterday"] {
        assert!(since(text).is_err(), "{text}");
    }
    let args = arguments(&["-n", "ns", "--since", "1d"]).unwrap();
    let other = "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}";
    let one = "{apiVersion: agentid.dev/v1alpha1, kind: AgentGrant, metadata: {name: x}, spec: {}}";
    let elsewhere = one.replace("name: x", "name: x, namespace: other");
    let list = format!("{{apiVersion: v1, kind: List, items: [{one}, {elsewhere}]}}");
    let parsed = args.parsed(&format!("{other}\n---\n{one}\n---\n{list}\n")).unwrap();
    assert_eq!(parsed.len(), 2);
    assert!(parsed.iter().all(|g| g["metadata"]["namespace"] == "ns"));
    let args = arguments(&[]).unwrap();
    assert!(args.parsed(one).unwrap_err().contains("say which one with -n"));
    assert!(args.parsed(other).unwrap_err().contains("no AgentGrant"));
    assert!(args.parsed("{").is_err());
    for wrong in [vec!["-n", "a", "-A"], vec!["--since", "x"], vec!["--manifests", "f", "--context", "c"]] {
        assert_eq!(arguments(&wrong).err().map(|e| e.exit_code()), Some(2), "{wrong:?}");
    }
}
