//! Rights on the cluster itself: grants become RoleBindings, and nothing is left of them.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::common::{ControlPlane, Operator, Setup, eventually};
use crate::kit::*;

const READS: &str = "[{apiGroups: [\"\"], resources: [pods], verbs: [get, list]}]";
const EXECS: &str = "[{apiGroups: [\"\"], resources: [pods/exec], verbs: [create]}]";

pub fn role(name: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {name}}}\nrules: {rules}\n"
    )
}

/// The AgentResource `cluster-$NS`, which offers a ClusterRole.
pub fn cluster(role: &str) -> String {
    format!(
        "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentResource\nmetadata: {{name: cluster-$NS}}\nspec: {{audience: \
         \"https://kubernetes.$NS.example.com\", kubernetes: {{}}, roles: [{{name: {role}}}], allow: {THIS_NAMESPACE}}}\n"
    )
}

pub fn grant_role(name: &str, agents: &str, role: &str) -> String {
    grant_of(name, agents, "cluster", &format!("application: {{roles: [{role}]}}"))
}

/// Our RoleBindings of the test's namespace.
async fn bindings(t: &Test) -> Vec<RoleBinding> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=agentid");
    t.api::<RoleBinding>().list(&ours).await.unwrap().items
}

fn subjects(bindings: &[RoleBinding]) -> Vec<String> {
    let mut all: Vec<_> =
        bindings.iter().flat_map(|b| b.subjects.iter().flatten()).map(|s| s.name.clone()).collect();
    all.sort_unstable();
    all
}

/// Waits until the subjects of our RoleBindings are these agents.
pub async fn bound(t: &Test, agents: &[&str]) -> Vec<RoleBinding> {
    eventually(format!("bound are {agents:?}"), LATER, || async {
        let mut wanted = Vec::new();
        for agent in agents {
            let id = t.agent(agent).await.and_then(|a| a.status).and_then(|s| s.agent_id);
            wanted.push(id.ok_or_else(|| format!("{agent} has no id"))?);
        }
        wanted.sort_unstable();
        let found = bindings(t).await;
        if subjects(&found) == wanted && found.is_empty() == wanted.is_empty() {
            Ok(found)
        } else {
            Err(format!("{:?}", subjects(&found)))
        }
    })
    .await
}

/// What the API server would answer `kubectl auth can-i --as <user>`.
pub async fn can(t: &Test, user: &str, verb: &str, resource: &str, namespace: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some(vec!["agentid:agents".to_owned()]),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some(verb.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer =
        Api::<SubjectAccessReview>::all(t.client.clone()).create(&PostParams::default(), &review).await;
    answer.unwrap().status.unwrap().allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_becomes_a_role_binding_and_goes_with_it() {
    let t = Test::new("kube").await;
    let grant = grant_role("k", "names: [a, b]", "behave-reader");
    t.apply(
        &[role("behave-reader", READS), cluster("behave-reader"), agent("a", ""), agent("b", "")].concat(),
    )
    .await;
    t.apply(&grant).await;
    let found = bound(&t, &["a", "b"]).await;
    let [binding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(binding.role_ref.kind, "ClusterRole");
    assert_eq!(binding.role_ref.name, "behave-reader");
    let [owner] = &binding.metadata.owner_references.clone().unwrap()[..] else { panic!("{binding:?}") };
    let uid = t.grant("k").await.unwrap().metadata.uid.unwrap();
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), &owner.uid), ("AgentGrant", "k", &uid));

    let id = t.agent("a").await.unwrap().status.unwrap().agent_id.unwrap();
    for (verb, resource, namespace, wanted) in [
        ("list", "pods", &*t.name, true),
        ("get", "pods", &*t.name, true),
        ("delete", "pods", &*t.name, false),
        ("list", "secrets", &*t.name, false),
        ("create", "pods/exec", &*t.name, false),
        ("list", "pods", "default", false),
        ("list", "pods", "", false),
    ] {
        assert_eq!(
            can(&t, &id, verb, resource, namespace).await,
            wanted,
            "{verb} {resource} in {namespace:?}"
        );
    }

    // What others change is healed, what they delete comes back.
    let name = binding.metadata.name.clone().unwrap();
    let more = json!({"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}]});
    let api = t.api::<RoleBinding>();
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&more)).await.unwrap();
    bound(&t, &["a", "b"]).await;
    let unlabelled = json!({"metadata": {"labels": null}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&unlabelled)).await.unwrap();
    bound(&t, &["a", "b"]).await;
    // One that says to be of no grant is not lost sight of, whatever else is changed.
    let stray = json!({"metadata": {"labels": {"agentid.dev/grant": "x"}}, "subjects": more["subjects"]});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&stray)).await.unwrap();
    eventually("it is of its grant again", LATER, || async {
        let labels = api.get_opt(&name).await.unwrap().and_then(|b| b.metadata.labels).unwrap_or_default();
        if labels.get("agentid.dev/grant") == Some(&uid) { Ok(()) } else { Err(format!("{labels:?}")) }
    })
    .await;
    bound(&t, &["a", "b"]).await;
    api.delete(&name, &Default::default()).await.unwrap();
    bound(&t, &["a", "b"]).await;

    t.delete(&agent("b", "")).await;
    bound(&t, &["a"]).await;
    t.delete(&grant).await;
    bound(&t, &[]).await;
    assert!(!can(&t, &id, "list", "pods", &t.name).await);
    t.apply(&grant).await;
    bound(&t, &["a"]).await;
    t.delete(&cluster("behave-reader")).await;
    bound(&t, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_goes_with_the_pod_that_the_agent_is_bound_to() {
    let t = Test::for_pods("kube-pod").await;
    let bound_to = "boundObjectRef: {apiVersion: v1, kind: Pod, name: p}";
    let pod = pod("p", "agentid.dev/agent: a");
    t.apply(
        &[role("behave-reader", READS), cluster("behave-reader"), pod.clone(), agent("a", bound_to)].concat(),
    )
    .await;
    t.apply(&grant_role("k", "names: [a]", "behave-reader")).await;
    bound(&t, &["a"]).await;
    t.delete(&pod).await;
    bound(&t, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_becomes_too_wide_is_withdrawn() {
    let t = Test::new("kube-wide").await;
    t.apply(&[role("behave-widened", READS), cluster("behave-widened"), agent("a", "")].concat()).await;
    t.apply(&grant_role("k", "names: [a]", "behave-widened")).await;
    bound(&t, &["a"]).await;
    let read = "{apiGroups: [\"\"], resources: [pods], verbs: [get]}";
    let exec = "{apiGroups: [\"\"], resources: [\"*\"], resourceNames: [x], verbs: [create]}";
    t.apply(&role("behave-widened", &format!("[{read}, {exec}]"))).await;
    t.grant_is("a", "k", "Refused", "GuardrailDenied").await;
    bound(&t, &[]).await;
    t.grant_says(
        "k",
        "False",
        "GuardrailDenied",
        &["ClusterRole \"behave-widened\"", "name a ClusterRole without it"],
    )
    .await;
    t.apply(&role("behave-widened", READS)).await;
    bound(&t, &["a"]).await;
    t.delete(&role("behave-widened", READS)).await;
    t.grant_is("a", "k", "Refused", "RoleNotOffered").await;
    bound(&t, &[]).await;
}

/// An aggregated ClusterRole has the rules that the controller gathers from others by their labels.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_gathers_too_much_is_withdrawn() {
    let t = Test::new("kube-gathered").await;
    let gathered = "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: behave-gathered}\n\
                    aggregationRule: {clusterRoleSelectors: [{matchLabels: {behave.example.com/gather: $NS}}]}\n";
    let part = |name: &str, rules: &str| {
        role(&format!("behave-gathered-{name}"), rules)
            .replace("metadata: {", "metadata: {labels: {behave.example.com/gather: $NS}, ")
    };
    t.apply(&[gathered, &part("reads", READS), &cluster("behave-gathered"), &agent("a", "")].concat()).await;
    t.apply(&grant_role("k", "names: [a]", "behave-gathered")).await;
    bound(&t, &["a"]).await;
    let user = t.agent("a").await.unwrap().status.unwrap().agent_id.unwrap();
    eventually("its right is that of the part", LATER, || async {
        if can(&t, &user, "list", "pods", &t.name).await { Ok(()) } else { Err("not yet") }
    })
    .await;
    // Nobody touches the role itself.
    t.apply(&part("execs", EXECS)).await;
    t.grant_is("a", "k", "Refused", "GuardrailDenied").await;
    bound(&t, &[]).await;
    t.delete(&part("execs", EXECS)).await;
    bound(&t, &["a"]).await;
    t.delete(&[gathered, &part("reads", READS)].concat()).await;
    bound(&t, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guardrails_and_the_configuration_refuse() {
    let t = Test::new("kube-no").await;
    let roles = [
        role("behave-exec", EXECS),
        role("behave-unlisted", READS),
        // What others may do about a role of the system's own changes nothing.
        agent("a", ""),
    ];
    t.apply(&roles.concat()).await;
    for (role, reason) in [
        ("behave-exec", "GuardrailDenied"),
        ("behave-unlisted", "RoleNotAllowed"),
        ("\"system:basic-user\"", "GuardrailDenied"),
        ("cluster-admin", "GuardrailDenied"),
        ("behave-no-such-role", "RoleNotOffered"),
    ] {
        t.apply(&cluster(role)).await;
        t.apply(&grant_role("k", "names: [a]", role)).await;
        t.grant_is("a", "k", "Refused", reason).await;
        assert!(bindings(&t).await.is_empty(), "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_role_binding_is_left_alone() {
    let t = Test::new("kube-foreign").await;
    t.apply(&[role("behave-reader", READS), cluster("behave-reader"), agent("a", "")].concat()).await;
    t.apply(&grant_role("k", "names: [a]", "behave-reader")).await;
    let found = bound(&t, &["a"]).await;
    let name = found[0].metadata.name.clone().unwrap();
    t.delete(&agent("a", "")).await;
    bound(&t, &[]).await;
    let foreign = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: \"{name}\"}}\nroleRef: {{apiGroup: \
         rbac.authorization.k8s.io, kind: ClusterRole, name: view}}\nsubjects: []\n"
    );
    let before = t.apply(&foreign).await.metadata.resource_version;
    t.apply(&agent("a", "")).await;
    t.event("k", "Warning ForeignObject", &["is not agentid's and is left alone", "delete or rename it"])
        .await;
    let after = t.api::<RoleBinding>().get(&name).await.unwrap().metadata.resource_version;
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_holders_are_several_role_bindings_written_few_times() {
    let t = Test::new("kube-many").await;
    t.apply(&[role("behave-many", READS), cluster("behave-many")].concat()).await;
    t.apply(&grant_role("k", "selector: {}", "behave-many")).await;
    let agents: String = (0..210).map(|i| agent(&format!("m{i}"), "")).collect();
    let since = mark();
    t.apply(&agents).await;
    let found = eventually("210 are bound", LATER, || async {
        let found = bindings(&t).await;
        if subjects(&found).len() == 210 { Ok(found) } else { Err(format!("{}", subjects(&found).len())) }
    })
    .await;
    let mut sizes: Vec<_> = found.iter().map(|b| b.subjects.iter().flatten().count()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [10, 200]);
    let writes = t.writes(since).into_iter().filter(|w| w.contains("rolebindings")).count();
    assert!(writes < 60, "{writes} writes for 210 agents");
    t.delete(&grant_role("k", "selector: {}", "behave-many")).await;
    bound(&t, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_while_no_operator_ran_leaves_no_role_binding() {
    let control_plane = ControlPlane::private("kube-down");
    let t = Test::on(&control_plane, "kube-down").await;
    let setup = Setup {
        configuration: Setup::default().configuration + "kubernetes: {bindableRoles: [behave-reader]}\n",
        ..Setup::default()
    };
    let operator = Operator::start(&control_plane, setup.clone()).await;
    t.apply(&[role("behave-reader", READS), cluster("behave-reader")].concat()).await;
    t.apply(&["a", "b", "c"].map(|n| agent(n, "")).concat()).await;
    t.apply(
        &[
            grant_role("k", "names: [a, b]", "behave-reader"),
            grant_role("gone", "names: [c]", "behave-reader"),
        ]
        .concat(),
    )
    .await;
    bound(&t, &["a", "b", "c"]).await;
    operator.stop();
    t.delete(&agent("b", "")).await;
    t.orphan::<agentid::api::AgentGrant>("gone").await;
    assert_eq!(subjects(&bindings(&t).await).len(), 3);
    let _operator = Operator::start(&control_plane, setup).await;
    let left = bound(&t, &["a"]).await;
    assert_eq!(left.len(), 1);
    assert!(left[0].metadata.name.as_ref().unwrap().starts_with("agentid-k-behave-reader-"));
}
