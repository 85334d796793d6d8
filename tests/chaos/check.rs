//! The state at the end, held against the model: who is there, who holds what, and what is left of those who went.

use std::collections::{BTreeMap, BTreeSet};

use agentid::api::{AgentIdentity, GrantState};
use agentid::crypto::inspect;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;

use crate::common::condition;
use crate::model::{Due, Made, Model, Which};
use crate::schedule::Thing;
use crate::world::{GROUP, Tier, blueprint, name, namespace, roles};

/// Where the state differs from the model.
#[derive(Default)]
pub struct Differences {
    /// What is there and should not be.
    pub orphans: Vec<String>,
    /// Agents that are not there, or have less than they should.
    pub lost: Vec<String>,
    /// Agents that have more than they should, or say something else of themselves.
    pub wrong: Vec<String>,
}

impl Differences {
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.orphans.iter().chain(&self.lost).chain(&self.wrong)
    }
}

type Key = (String, String);

/// What there is.
pub struct Seen {
    agents: BTreeMap<Key, AgentIdentity>,
    secrets: BTreeMap<Key, Secret>,
    bindings: Vec<RoleBinding>,
    trust: BTreeSet<String>,
}

fn key(meta: &kube::core::ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

impl Seen {
    /// One look at the cluster.
    pub async fn look(client: &Client) -> Result<Self, kube::Error> {
        let all = ListParams::default();
        let agents = Api::<AgentIdentity>::all(client.clone()).list(&all).await?.items;
        let typed = ListParams::default().fields("type=agentid.dev/credentials");
        let secrets = Api::<Secret>::all(client.clone()).list(&typed).await?.items;
        let managed = ListParams::default().labels("app.kubernetes.io/managed-by=agentid");
        let bindings = Api::<RoleBinding>::all(client.clone()).list(&managed).await?.items;
        let named = ListParams::default().fields("metadata.name=agentid-trust");
        let trust = Api::<ConfigMap>::all(client.clone()).list(&named).await?.items;
        Ok(Self {
            agents: agents.into_iter().map(|a| (key(&a.metadata), a)).collect(),
            secrets: secrets.into_iter().map(|s| (key(&s.metadata), s)).collect(),
            bindings,
            trust: trust.into_iter().filter_map(|c| c.metadata.namespace).collect(),
        })
    }

    /// The UID of every agent.
    pub fn uids(&self) -> BTreeMap<Key, String> {
        let uids = self.agents.iter().map(|(k, a)| (k.clone(), a.metadata.uid.clone().unwrap_or_default()));
        uids.collect()
    }

    /// Where this differs from what should be.
    pub fn against(&self, model: &Model) -> Differences {
        let mut found = Differences::default();
        let mut wanted = BTreeSet::new();
        let mut secrets = BTreeSet::new();
        let mut bound: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        let mut populated = BTreeSet::new();
        for (thing, made) in model.agents() {
            let ns = Model::namespace_of(thing);
            let key = (namespace(ns), name(thing));
            populated.insert(key.0.clone());
            if !matches!(thing, Thing::Pod { .. }) {
                secrets.insert((key.0.clone(), format!("{}-agentid", key.1)));
            }
            match self.agents.get(&key).filter(|a| is_of(thing, made, a)) {
                Some(agent) => {
                    self.agent(model, thing, made, agent, &mut found);
                    if made.tier == Some(Tier::Gold) && !model.is_suspended(thing, made) {
                        let id = agent.status.as_ref().and_then(|s| s.agent_id.clone());
                        bound.entry(ns).or_default().extend(id);
                    }
                }
                None => found.lost.push(format!("{}/{}: the agent is not there", key.0, key.1)),
            }
            wanted.insert(key);
        }
        for key in self.agents.keys().filter(|k| !wanted.contains(*k)) {
            found.orphans.push(format!("AgentIdentity {}/{}", key.0, key.1));
        }
        for key in self.secrets.keys().filter(|k| !secrets.contains(*k)) {
            found.orphans.push(format!("Secret {}/{}", key.0, key.1));
        }
        for ns in &self.trust {
            if !populated.contains(ns) {
                found.orphans.push(format!("ConfigMap {ns}/agentid-trust"));
            }
        }
        for ns in populated.iter().filter(|ns| !self.trust.contains(*ns)) {
            found.lost.push(format!("ConfigMap {ns}/agentid-trust is not there"));
        }
        self.bindings(model, &bound, &mut found);
        found
    }

    fn agent(
        &self,
        model: &Model,
        thing: Thing,
        made: &Made,
        agent: &AgentIdentity,
        found: &mut Differences,
    ) {
        let key = key(&agent.metadata);
        let told = format!("{}/{}", key.0, key.1);
        let Some(status) = &agent.status else {
            found.lost.push(format!("{told}: no status"));
            return;
        };
        let suspended = model.is_suspended(thing, made);
        let wanted = if suspended { ("False", "Suspended") } else { ("True", "Issued") };
        let ready = condition(&status.conditions, "Ready").map(|c| (&*c.status, &*c.reason));
        if ready != Some(wanted) {
            let list = if suspended { &mut found.wrong } else { &mut found.lost };
            list.push(format!("{told}: Ready is {ready:?}, should be {wanted:?}"));
        }
        let dues = model.dues(thing, made);
        let ns = Model::namespace_of(thing);
        for due in &dues {
            let (grant, uid) = match due.which {
                Which::Own(g) => (name(Thing::Grant { ns, g }), model.grant(ns, g)),
                Which::Inherited => {
                    let of_pods = matches!(thing, Thing::Pod { .. });
                    (format!("{}/base", blueprint(ns / GROUP, of_pods)), None)
                }
            };
            let said = status.grants.iter().find(|g| g.name == grant && uid.is_none_or(|u| g.uid == u));
            let Some(said) = said else {
                found.lost.push(format!("{told}: nothing is said of the grant {grant}"));
                continue;
            };
            let state = match said.state {
                GrantState::Held => "Held",
                GrantState::Narrowed => "Narrowed",
                GrantState::Refused => "Refused",
            };
            let wanted = if suspended { ("Refused", Some("Suspended")) } else { (due.state, due.reason) };
            if (state, said.reason.as_deref()) != wanted {
                let reason = &said.reason;
                found.wrong.push(format!("{told}: {grant} is {state} {reason:?}, should be {wanted:?}"));
            }
        }
        if status.grants.len() != dues.len() {
            let (has, should) = (status.grants.len(), dues.len());
            found.wrong.push(format!("{told}: speaks of {has} grants, should of {should}"));
        }
        if !matches!(thing, Thing::Pod { .. }) {
            self.files(model, thing, agent, if suspended { None } else { Some(&dues) }, found);
        }
    }

    /// Exactly these files with exactly these roles; without dues none but the report.
    fn files(
        &self,
        model: &Model,
        thing: Thing,
        agent: &AgentIdentity,
        dues: Option<&Vec<Due>>,
        found: &mut Differences,
    ) {
        let key = key(&agent.metadata);
        let told = format!("{}/{}", key.0, key.1);
        let secret = self.secrets.get(&(key.0, format!("{}-agentid", key.1)));
        let data = secret.and_then(|s| s.data.clone()).unwrap_or_default();
        let uid = agent.metadata.uid.clone().unwrap_or_default();
        if let Some(secret) = secret {
            let owners: Vec<_> =
                secret.metadata.owner_references.iter().flatten().map(|o| o.uid.clone()).collect();
            if owners != [uid.clone()] {
                found.orphans.push(format!("Secret of {told}: owners {owners:?}, the agent is {uid}"));
            }
        }
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        if let Some(dues) = dues {
            wanted.extend(["agent.json".to_owned(), "identity.jwt".to_owned()]);
            wanted.extend(dues.iter().filter_map(|d| d.file.clone()));
        } else if secret.is_some() {
            wanted.insert("agent.json".to_owned());
        }
        let has: BTreeSet<String> = data.keys().cloned().collect();
        for file in wanted.difference(&has) {
            found.lost.push(format!("{told}: the file {file} is missing"));
        }
        for file in has.difference(&wanted) {
            found.wrong.push(format!("{told}: the file {file} should not be there"));
        }
        let ns = Model::namespace_of(thing);
        for due in dues.into_iter().flatten() {
            let Some(content) = due.file.as_ref().and_then(|f| data.get(f)) else { continue };
            let file = due.file.as_deref().unwrap_or_default();
            let Ok(token) = inspect(&String::from_utf8_lossy(&content.0)) else {
                found.lost.push(format!("{told}: {file} is no token"));
                continue;
            };
            let own = &token.claims["agentid.dev"];
            let carries: Vec<_> =
                token.claims.get("roles").and_then(Value::as_array).cloned().unwrap_or_default();
            let grant = match due.which {
                Which::Own(g) => model.grant(ns, g) == own["grant"].as_str(),
                Which::Inherited => true,
            };
            if carries != roles(due.roles) || own["uid"] != *uid || !grant {
                found.wrong.push(format!(
                    "{told}: {file} carries {carries:?} of {own}, should {:?}",
                    roles(due.roles)
                ));
            }
        }
    }

    fn bindings(&self, model: &Model, bound: &BTreeMap<usize, BTreeSet<String>>, found: &mut Differences) {
        for ns in 0..model.namespaces {
            // The one of the cluster's resource.
            let granted = model.grant(ns, 4);
            let wanted = bound.get(&ns).filter(|_| granted.is_some()).cloned().unwrap_or_default();
            let here = self.bindings.iter().filter(|b| b.metadata.namespace == Some(namespace(ns)));
            let mut has = BTreeSet::new();
            for binding in here {
                let name = binding.metadata.name.as_deref().unwrap_or_default();
                let label = binding.metadata.labels.as_ref().and_then(|l| l.get("agentid.dev/grant"));
                if granted.is_none() || label.map(String::as_str) != granted {
                    found.orphans.push(format!("RoleBinding {}/{name} without its grant", namespace(ns)));
                }
                let subjects: Vec<_> = binding.subjects.iter().flatten().map(|s| s.name.clone()).collect();
                if subjects.is_empty() {
                    found.orphans.push(format!("RoleBinding {}/{name} of nobody", namespace(ns)));
                }
                has.extend(subjects);
            }
            for id in has.difference(&wanted) {
                found.orphans.push(format!("{} is bound to {id}", namespace(ns)));
            }
            for id in wanted.difference(&has) {
                found.lost.push(format!("{} is not bound to {id}", namespace(ns)));
            }
        }
    }
}

/// The agent is that of the object that we made.
fn is_of(thing: Thing, made: &Made, agent: &AgentIdentity) -> bool {
    let going = agent.metadata.deletion_timestamp.is_some();
    !going
        && match thing {
            Thing::Agent { .. } => agent.metadata.uid.as_ref() == Some(&made.uid),
            _ => agent.metadata.owner_references.iter().flatten().any(|o| o.uid == made.uid),
        }
}
