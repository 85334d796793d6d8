//! The world in which chaos happens: what is there from the start, and how each thing is written.
//!
//! Invariant: what a thing says follows from its name alone, so that the schedule and the model need to know no more.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::common::{parse, resource_of};
use crate::schedule::Thing;

/// So many namespaces share resources and blueprints.
pub const GROUP: usize = 4;
pub const ROLES: [&str; 3] = ["reader", "writer", "admin"];
/// The role that [`Thing::Deny`] takes away.
pub const DENIED: u8 = 0b010;
pub const ALL_ROLES: u8 = 0b111;
pub const RESOURCES: [&str; 3] = ["tickets", "wiki", "mail"];
/// The ClusterRole that agents may hold.
pub const CLUSTER_ROLE: &str = "chaos-reader";
/// The namespace of the operator, the key ring and whoever introspects.
pub const SYSTEM: &str = "agentid-chaos";
/// The account that introspects.
pub const ASKER: &str = "asker";

/// What a grant says.
pub struct GrantForm {
    /// The place in [`RESOURCES`]; `None`: the cluster itself.
    pub resource: Option<usize>,
    /// Which agents: all, or those of a tier.
    pub tier: Option<Tier>,
    /// A bit for each of [`ROLES`].
    pub roles: u8,
    pub delivered: bool,
    pub from_start: bool,
}

/// The label of written agents; made ones have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Gold,
    Silver,
}

impl Tier {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gold => "gold",
            Self::Silver => "silver",
        }
    }
}

const fn grant(
    resource: Option<usize>,
    tier: Option<Tier>,
    roles: u8,
    delivered: bool,
    from_start: bool,
) -> GrantForm {
    GrantForm { resource, tier, roles, delivered, from_start }
}

/// The grants that there may be in each namespace.
pub const GRANTS: [GrantForm; 6] = [
    grant(Some(0), None, 0b011, true, true),
    grant(Some(1), Some(Tier::Gold), 0b001, true, true),
    grant(Some(1), None, 0b110, false, true),
    grant(Some(2), Some(Tier::Silver), 0b111, true, false),
    grant(None, Some(Tier::Gold), 0, false, true),
    grant(Some(0), None, 0b100, true, false),
];
/// What both blueprints grant: roles on a resource.
pub const INHERITED: (usize, u8) = (1, 0b001);

pub fn namespace(ns: usize) -> String {
    format!("chaos-{ns}")
}

pub fn resource(group: usize, r: usize) -> String {
    format!("{}-{group}", RESOURCES[r])
}

pub fn audience(group: usize, r: usize) -> String {
    format!("https://{}.example.com", resource(group, r))
}

pub fn blueprint(group: usize, of_pods: bool) -> String {
    format!("{}-{group}", if of_pods { "solo" } else { "bots" })
}

pub fn roles(bits: u8) -> Vec<&'static str> {
    ROLES.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, r)| *r).collect()
}

/// The name of the object of a thing.
pub fn name(thing: Thing) -> String {
    match thing {
        Thing::Agent { n, .. } => format!("a{n}"),
        Thing::Pod { n, .. } => format!("p{n}"),
        Thing::Workload { n, .. } => format!("w{n}"),
        Thing::Grant { g, .. } => format!("g{g}"),
        Thing::Allow { ns, r } => resource(ns / GROUP, r),
        Thing::Deny { ns } => format!("deny-{ns}"),
        Thing::Stop { ns } => format!("stop-{ns}"),
        Thing::Blueprint { group, of_pods } => blueprint(group, of_pods),
        Thing::Namespace { ns } => namespace(ns),
    }
}

/// Where the objects of a thing's kind are.
pub fn collection(thing: Thing) -> String {
    let ours = "/apis/agentid.dev/v1alpha1";
    match thing {
        Thing::Agent { ns, .. } => format!("{ours}/namespaces/{}/agentidentities", namespace(ns)),
        Thing::Grant { ns, .. } => format!("{ours}/namespaces/{}/agentgrants", namespace(ns)),
        Thing::Pod { ns, .. } => format!("/api/v1/namespaces/{}/pods", namespace(ns)),
        Thing::Workload { ns, .. } => format!("/apis/apps/v1/namespaces/{}/deployments", namespace(ns)),
        Thing::Allow { .. } => format!("{ours}/agentresources"),
        Thing::Deny { .. } | Thing::Stop { .. } => format!("{ours}/agentpolicies"),
        Thing::Blueprint { .. } => format!("{ours}/agentblueprints"),
        Thing::Namespace { .. } => "/api/v1/namespaces".to_owned(),
    }
}

/// The object that is created for a thing.
pub fn object(thing: Thing, gold: bool) -> Value {
    let name = name(thing);
    let ours = "agentid.dev/v1alpha1";
    match thing {
        Thing::Agent { .. } => {
            let tier = if gold { Tier::Gold } else { Tier::Silver };
            // Half of them renew within a long run.
            let lifetime = if gold { "10m" } else { "1h" };
            json!({"apiVersion": ours, "kind": "AgentIdentity",
                "metadata": {"name": name, "labels": {"tier": tier.as_str()}}, "spec": {"tokenLifetime": lifetime}})
        }
        Thing::Pod { .. } => json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "solo", "agentid.dev/agent": ""}}, "spec": pod_spec()}),
        Thing::Workload { .. } => {
            let labels = json!({"app": "bots", "w": name, "agentid.dev/agent": ""});
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"w": name}},
                    "template": {"metadata": {"labels": labels}, "spec": pod_spec()}}})
        }
        Thing::Grant { ns, g } => {
            let form = &GRANTS[g];
            let agents =
                form.tier.map_or_else(|| json!({}), |t| json!({"matchLabels": {"tier": t.as_str()}}));
            let (resource, roles) = match form.resource {
                Some(r) => (resource(ns / GROUP, r), roles(form.roles)),
                None => ("cluster".to_owned(), vec![CLUSTER_ROLE]),
            };
            let mut spec = json!({"agents": {"selector": agents}, "resource": resource, "application": {"roles": roles}});
            if form.delivered {
                spec["secretKey"] = json!(format!("{name}.jwt"));
            }
            json!({"apiVersion": ours, "kind": "AgentGrant", "metadata": {"name": name}, "spec": spec})
        }
        Thing::Deny { ns } => json!({"apiVersion": ours, "kind": "AgentPolicy", "metadata": {"name": name},
            "spec": {"match": {"namespaceSelector": only(ns)}, "deny": [{"roles": roles(DENIED)}]}}),
        Thing::Allow { .. } | Thing::Stop { .. } | Thing::Blueprint { .. } | Thing::Namespace { .. } => {
            unreachable!("{name} is there from the start")
        }
    }
}

/// No kubelet: they are there, and never run.
fn pod_spec() -> Value {
    json!({"serviceAccountName": "runner", "schedulerName": "none", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "example.com/none"}]})
}

fn only(ns: usize) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": namespace(ns)}})
}

/// The `allow` of a resource, from the roles that each namespace of its group may have; none is no entry.
pub fn allow(group: usize, bits: &[u8]) -> Value {
    let entries = bits
        .iter()
        .enumerate()
        .filter(|(_, b)| **b != 0)
        .map(|(i, b)| json!({"namespaceSelector": only(group * GROUP + i), "roles": roles(*b)}));
    Value::Array(entries.collect())
}

/// The namespaces of a group.
pub fn of_group(group: usize, namespaces: usize) -> usize {
    GROUP.min(namespaces - group * GROUP)
}

/// Makes what is there from the start; gives the UIDs of the grants.
pub async fn make(client: &Client, namespaces: usize) -> Vec<(Thing, String)> {
    let all: Api<Namespace> = Api::all(client.clone());
    for ns in 0..namespaces {
        let labels = json!({"group": format!("g{}", ns / GROUP)});
        let one = json!({"metadata": {"name": namespace(ns), "labels": labels}});
        all.create(&PostParams::default(), &serde_json::from_value(one).unwrap()).await.unwrap();
        apply(client, &account(&namespace(ns), "runner")).await;
    }
    apply(client, &account(SYSTEM, ASKER)).await;
    apply(client, &format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: {CLUSTER_ROLE}}}, \
         rules: [{{apiGroups: [''], resources: [pods], verbs: [get, list]}}]}}\n---\n\
         {{apiVersion: agentid.dev/v1alpha1, kind: AgentResource, metadata: {{name: cluster}}, spec: {{audience: \
         'https://kubernetes.example.com', kubernetes: {{}}, roles: [{{name: {CLUSTER_ROLE}}}], allow: [{{namespaceSelector: {{}}}}]}}}}"
    ))
    .await;
    for group in 0..namespaces.div_ceil(GROUP) {
        for r in 0..RESOURCES.len() {
            let roles: Vec<_> = ROLES.iter().map(|r| json!({"name": r})).collect();
            let spec = json!({"audience": audience(group, r), "roles": roles,
                "allow": allow(group, &vec![ALL_ROLES; of_group(group, namespaces)]),
                "introspectors": [{"namespace": SYSTEM, "serviceAccountName": ASKER}]});
            let resource = json!({"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentResource",
                "metadata": {"name": resource(group, r)}, "spec": spec});
            apply(client, &resource.to_string()).await;
        }
        for of_pods in [false, true] {
            apply(client, &blueprint_object(group, of_pods).to_string()).await;
        }
    }
    let mut grants = Vec::new();
    for ns in 0..namespaces {
        let policy = json!({"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentPolicy",
            "metadata": {"name": name(Thing::Stop { ns })}, "spec": {"suspend": false,
            "match": {"namespaceSelector": only(ns), "agentSelector": {"matchLabels": {"tier": "silver"}}}}});
        apply(client, &policy.to_string()).await;
        for g in (0..GRANTS.len()).filter(|g| GRANTS[*g].from_start) {
            let thing = Thing::Grant { ns, g };
            let mut grant = object(thing, false);
            grant["metadata"]["namespace"] = json!(namespace(ns));
            grants.push((thing, apply(client, &grant.to_string()).await));
        }
    }
    grants
}

fn blueprint_object(group: usize, of_pods: bool) -> Value {
    let (app, per) = if of_pods { ("solo", "Pod") } else { ("bots", "Workload") };
    let mut inherited = json!({"name": "base", "resource": resource(group, INHERITED.0),
        "application": {"roles": roles(INHERITED.1)}});
    if !of_pods {
        inherited["secretKey"] = json!("base.jwt");
    }
    json!({"apiVersion": "agentid.dev/v1alpha1", "kind": "AgentBlueprint",
        "metadata": {"name": blueprint(group, of_pods)},
        "spec": {"namespaceSelector": {"matchLabels": {"group": format!("g{group}")}},
            "podSelector": {"matchLabels": {"app": app}}, "identityPer": per, "grants": [inherited]}})
}

fn account(namespace: &str, name: &str) -> String {
    format!("{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}, namespace: {namespace}}}}}")
}

/// Applies objects, and gives the UID of the last.
pub async fn apply(client: &Client, yaml: &str) -> String {
    let mut uid = None;
    for object in parse(yaml) {
        let (resource, namespaced) = resource_of(&object);
        let api: Api<DynamicObject> = match object.metadata.namespace.as_deref().filter(|_| namespaced) {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let name = object.metadata.name.clone().unwrap();
        let params = PatchParams::apply("chaos").force().validation_strict();
        uid = api.patch(&name, &params, &Patch::Apply(&object)).await.unwrap().metadata.uid;
    }
    uid.unwrap()
}
