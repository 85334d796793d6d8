//! What the API server accepts and refuses of AgentIdentities.

use super::agent;
use crate::common::{ControlPlane, Namespace};

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_accepted() {
    let ns = Namespace::new(ControlPlane::shared(), "agents-ok").await;
    let sponsors: Vec<_> = (0..16).map(|i| format!("{{kind: User, name: u{i}}}")).collect();
    for spec in [
        "",
        "boundObjectRef: {apiVersion: apps/v1, kind: Deployment, name: triage}",
        "boundObjectRef: {apiVersion: v1, kind: Pod, name: p, uid: 0b5f4b3e-6f0e-4c64-9a51-0f4f1f0e7a11}",
        "boundObjectRef: {apiVersion: agents.example.com/v1beta2, kind: Crew, name: x.y}",
        "secretName: my.secret",
        "tokenLifetime: 10m",
        "tokenLifetime: 600s",
        "tokenLifetime: 24h",
        "tokenLifetime: 1h30m30s",
        "expiresAt: \"2030-12-31T23:59:59Z\", ttlSecondsAfterExpired: 0",
        "expiresAt: \"2020-01-01T00:00:00+02:00\"",
        "suspend: true, displayName: \"Triage (EU)\", description: \"two\\nlines\"",
        // Rendered by a template without a value: as if left out.
        "tokenLifetime: null, boundObjectRef: null, sponsors: null, suspend: null",
        // Two of one name, of different kinds.
        "sponsors: [{kind: User, name: ann}, {kind: Group, name: ann}]",
        &format!("sponsors: [{}]", sponsors.join(", ")),
    ] {
        ns.expect_accepted(&agent(spec)).await;
    }
    ns.expect_accepted(&agent("").replace("name: a}", &format!("name: {}}}", "a".repeat(63)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_refused() {
    let ns = Namespace::new(ControlPlane::shared(), "agents-bad").await;
    let sponsors: Vec<_> = (0..17).map(|i| format!("{{kind: User, name: u{i}}}")).collect();
    let bound = |field: &str| format!("boundObjectRef: {{apiVersion: v1, kind: Pod, name: p, {field}}}");
    let lifetime = ["spec.tokenLifetime", "from 10m to 24h", "such as 1h30m"];
    for (spec, wanted) in [
        ("blueprint: X".to_owned(), &["spec.blueprint", "lower-case letters"][..]),
        ("serviceAccountName: Runner".to_owned(), &["spec.serviceAccountName", "lower-case letters"]),
        ("tokenLifetime: 0s".to_owned(), &lifetime),
        ("tokenLifetime: \"0\"".to_owned(), &lifetime),
        ("tokenLifetime: -1h".to_owned(), &lifetime),
        ("tokenLifetime: 876000h".to_owned(), &lifetime),
        ("tokenLifetime: 9m59s".to_owned(), &lifetime),
        ("tokenLifetime: 24h0m1s".to_owned(), &lifetime),
        ("tokenLifetime: soon".to_owned(), &lifetime),
        ("tokenLifetime: 1.5h".to_owned(), &lifetime),
        ("tokenLifetime: 99999h99999h99999h".to_owned(), &lifetime),
        ("tokenLifetime: \"99999999999999999999h\"".to_owned(), &lifetime),
        ("tokenLifetime: 3600".to_owned(), &["spec.tokenLifetime", "string"]),
        (format!("tokenLifetime: {}h", "0".repeat(300)), &["spec.tokenLifetime", "may not be more than 24"]),
        ("expiresAt: tomorrow".to_owned(), &["spec.expiresAt", "tomorrow", "date-time"]),
        ("expiresAt: \"2030-01-01\"".to_owned(), &["spec.expiresAt", "date-time"]),
        ("expiresAt: \"2030-01-01T00:00:00\"".to_owned(), &["spec.expiresAt", "date-time"]),
        ("expiresAt: \"2030-02-30T00:00:00Z\"".to_owned(), &["spec.expiresAt", "date-time"]),
        (
            "expiresAt: \"2030-01-01t00:00:00z\"".to_owned(),
            &["spec.expiresAt", "such as 2030-12-31T23:59:59Z"],
        ),
        ("expiresAt: \"9999-12-31T23:59:59Z\"".to_owned(), &["spec.expiresAt", "leave it out for never"]),
        ("ttlSecondsAfterExpired: 60".to_owned(), &["spec.ttlSecondsAfterExpired", "needs expiresAt"]),
        (
            "ttlSecondsAfterExpired: -1, expiresAt: \"2030-01-01T00:00:00Z\"".to_owned(),
            &["spec.ttlSecondsAfterExpired", "greater than or equal to 0"],
        ),
        (
            "ttlSecondsAfterExpired: 4294967296, expiresAt: \"2030-01-01T00:00:00Z\"".to_owned(),
            &["spec.ttlSecondsAfterExpired", "less than or equal to"],
        ),
        ("secretName: Bad_Name".to_owned(), &["spec.secretName", "Bad_Name", "lower-case letters"]),
        ("secretName: ../x".to_owned(), &["spec.secretName", "../x", "lower-case letters"]),
        ("secretName: \"\"".to_owned(), &["spec.secretName", "lower-case letters"]),
        (format!("secretName: {}", "a".repeat(254)), &["spec.secretName", "may not be more than 253"]),
        (format!("sponsors: [{}]", sponsors.join(", ")), &["spec.sponsors", "at most 16 items"]),
        (
            "sponsors: [{kind: User, name: ann}, {kind: User, name: ann}]".to_owned(),
            &["spec.sponsors[1]", "Duplicate value", "ann"],
        ),
        (
            "sponsors: [{kind: Robot, name: r}]".to_owned(),
            &["spec.sponsors[0].kind", "Robot", "\"User\", \"Group\""],
        ),
        ("sponsors: [{kind: User}]".to_owned(), &["spec.sponsors[0].name", "Required"]),
        ("sponsors: [{kind: User, name: \"a\\nb\"}]".to_owned(), &["spec.sponsors[0].name", "one line"]),
        (bound("uid: 12345"), &["spec.boundObjectRef.uid", "string"]),
        (bound("uid: not-a-uid"), &["spec.boundObjectRef.uid", "metadata.uid"]),
        (bound("uid: 0B5F4B3E-6F0E-4C64-9A51-0F4F1F0E7A11"), &["spec.boundObjectRef.uid", "metadata.uid"]),
        (bound("namespace: other"), &["unknown field \"spec.boundObjectRef.namespace\""]),
        ("boundObjectRef: {kind: Pod, name: p}".to_owned(), &["spec.boundObjectRef.apiVersion", "Required"]),
        (
            "boundObjectRef: {apiVersion: apps, kind: Deployment, name: p}".to_owned(),
            &["spec.boundObjectRef.apiVersion", "such as apps/v1"],
        ),
        (
            "boundObjectRef: {apiVersion: a/b/v1, kind: Deployment, name: p}".to_owned(),
            &["spec.boundObjectRef.apiVersion", "such as apps/v1"],
        ),
        (
            "boundObjectRef: {apiVersion: apps/v1, kind: deployments, name: p}".to_owned(),
            &["spec.boundObjectRef.kind", "such as Deployment"],
        ),
        (
            "boundObjectRef: {apiVersion: apps/v1, kind: Deployment, name: ../p}".to_owned(),
            &["spec.boundObjectRef.name", "lower-case letters"],
        ),
        (format!("displayName: {}", "x".repeat(257)), &["spec.displayName", "may not be more than 256"]),
        (format!("description: {}", "x".repeat(4097)), &["spec.description", "may not be more than 4096"]),
    ] {
        ns.expect_rejected(&agent(&spec), wanted).await;
    }
    for length in [64, 253] {
        let named = agent("").replace("name: a}", &format!("name: {}}}", "a".repeat(length)));
        ns.expect_rejected(&named, &["metadata.name must be at most 63 characters", "shorter"]).await;
    }
    let misplaced = agent("").replace("spec:", "status: {grantsHeld: 1/1, nonsense: 1}, spec:");
    ns.expect_rejected(&misplaced, &["unknown field \"status.nonsense\""]).await;
}
