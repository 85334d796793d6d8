//! What the two service accounts asked of the API server, by its audit log, held against the RBAC rules that the chart
//! has installed for them: nothing is refused, nothing is allowed by anything else, and no rule is there for nothing.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::common::ControlPlane;
use crate::common::audit::{self, Entry, Mark};
use crate::helm::NAMESPACE;

/// Rights that the story can't show in the log, each with why.
const NOT_ASKED: &[(&str, &str)] = &[(
    "operator: bind clusterroles.rbac.authorization.k8s.io chart-pod-reader",
    "it is looked at while a RoleBinding is created, which without it is refused: the story has one created",
)];
/// What any service account may read, by the roles that every cluster has. Requests for no object.
const OPEN: &[&str] =
    &["/api/", "/apis/", "/version", "/openid/v1/jwks", "/.well-known/openid-configuration"];

/// A right, as a rule gives it; also what was asked, as the audit log has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    /// Of which process.
    process: &'static str,
    /// The namespace in which a Role gives it; `None`: a ClusterRole, everywhere.
    namespace: Option<String>,
    group: String,
    /// With its subresource.
    resource: String,
    /// The one object; `None`: all.
    name: Option<String>,
    verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, namespace, group, resource, name, verb } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{process}: {verb} {resource}{dot}{group}")?;
        name.iter().chain(namespace).try_for_each(|part| write!(f, " {part}"))
    }
}

impl Right {
    fn covers(&self, asked: &Self) -> bool {
        let fits = |given: &Option<String>, asked: &Option<String>| given.is_none() || given == asked;
        (self.process, &self.group, &self.resource, &self.verb)
            == (asked.process, &asked.group, &asked.resource, &asked.verb)
            && fits(&self.namespace, &asked.namespace)
            && fits(&self.name, &asked.name)
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// The rights that a role's rules give, one by one.
fn rights_of(process: &'static str, namespace: Option<&str>, role: &Value) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let names = texts(&rule["resourceNames"]);
        let names: Vec<_> = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    assert!(
                        ![&group, &resource, &verb].contains(&&"*".to_owned()),
                        "{process}: a wildcard: {rule}"
                    );
                    for name in &names {
                        rights.insert(Right {
                            process,
                            namespace: namespace.map(str::to_owned),
                            group: group.clone(),
                            resource: resource.clone(),
                            name: name.clone(),
                            verb: verb.clone(),
                        });
                    }
                }
            }
        }
    }
    rights
}

/// What is installed.
fn given(control_plane: &ControlPlane) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for (process, role) in [("operator", "agentid-operator"), ("serve", "agentid-serve")] {
        let get = |args: &[&str]| -> Value {
            let all = ["get", "--output=json"].iter().chain(args).copied();
            serde_json::from_str(&control_plane.kubectl(all)).unwrap()
        };
        rights.extend(rights_of(process, None, &get(&["clusterrole", role])));
        rights.extend(rights_of(process, Some(NAMESPACE), &get(&["role", role, "--namespace", NAMESPACE])));
    }
    rights
}

/// The process whose account made the request.
fn process_of(entry: &Entry) -> Option<&'static str> {
    let account = entry.user.username.strip_prefix("system:serviceaccount:agentid-system:agentid-")?;
    ["operator", "serve"].into_iter().find(|p| *p == account)
}

fn asked(process: &'static str, entry: &Entry) -> Option<Right> {
    let object = entry.object_ref.as_ref()?;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let resource = [object.resource.as_str(), &object.subresource];
    Some(Right {
        process,
        namespace: some(&object.namespace),
        group: object.api_group.clone(),
        resource: resource.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/"),
        // The name of what is to be created decides nothing.
        name: some(&object.name).filter(|_| entry.verb != "create"),
        verb: entry.verb.clone(),
    })
}

/// Holds what was asked since a mark against the rules.
///
/// # Panics
/// With every request that was refused or that no rule of the chart allows, and every right that nobody used.
pub fn check(control_plane: &ControlPlane, since: Mark) {
    let given = given(control_plane);
    let (mut wrong, mut used, mut requests) = (BTreeSet::new(), BTreeSet::new(), [0, 0]);
    for entry in audit::since(control_plane, since, |e| process_of(e).is_some()) {
        let process = process_of(&entry).unwrap();
        requests[usize::from(process == "serve")] += 1;
        let refused = entry.response_status.as_ref().is_some_and(|r| [401, 403].contains(&r.code));
        let Some(asked) = asked(process, &entry) else {
            let path = entry.request_uri.split('?').next().unwrap_or_default();
            // The story takes the published keys away for a while.
            let taken = refused && process == "serve" && OPEN[3..].contains(&path);
            if (refused && !taken) || !OPEN.iter().any(|open| path.starts_with(open)) {
                wrong.insert(format!("{process}: {} {path}: {:?}", entry.verb, entry.response_status));
            }
            continue;
        };
        let allowing: Vec<_> = given.iter().filter(|g| g.covers(&asked)).collect();
        if refused || allowing.is_empty() {
            wrong.insert(format!("{asked}: no rule of the chart, answered {:?}", entry.response_status));
        }
        used.extend(allowing.into_iter().cloned());
    }
    assert!(requests.iter().all(|n| *n > 20), "the audit log lacks the processes' requests: {requests:?}");
    let excused = |right: &Right| NOT_ASKED.iter().any(|(name, _)| *name == right.to_string());
    wrong.extend(
        given.difference(&used).filter(|r| !excused(r)).map(|r| format!("{r}: a right that nobody used")),
    );
    wrong.extend(used.iter().filter(|r| excused(r)).map(|r| format!("{r}: used, so needs no excuse")));
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
