//! What an agent may hold, said a second time and simply, from the objects on the API server alone. Nothing of
//! `decide` is used.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::api::{Application, Mode};
use crate::domain::guardrails::Violations;

/// What one token may say at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub audience: String,
    pub roles: BTreeSet<String>,
    pub scopes: BTreeSet<String>,
    pub seconds: i64,
    pub until: Option<Timestamp>,
}

pub(super) fn seconds(text: Option<&String>) -> Option<i64> {
    text.map(|t| i64::from(crate::api::parse_seconds(t).unwrap()))
}

fn set<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    names.into_iter().cloned().collect()
}

fn secret_name(agent: &AgentIdentity) -> String {
    let name = agent.metadata.name.as_deref().unwrap();
    agent.spec.secret_name.clone().unwrap_or_else(|| format!("{name}-agentid"))
}

pub(super) const fn mode_of(grant: &AgentGrant) -> Mode {
    if grant.spec.agent_user.is_some() { Mode::AgentUser } else { Mode::Application }
}

fn age(meta: &ObjectMeta) -> (Timestamp, Uid) {
    (meta.creation_timestamp.as_ref().unwrap().0, uid_of(meta))
}

impl Cluster {
    /// Whether an agent may hold anything, what it is bound to apart.
    pub fn oracle_enabled(&self, agent: &AgentIdentity) -> bool {
        let ns = agent.metadata.namespace.as_deref().unwrap();
        let rivals = self.agents.values().filter(|a| {
            a.metadata.namespace == agent.metadata.namespace && secret_name(a) == secret_name(agent)
        });
        let oldest = rivals.min_by_key(|a| age(&a.metadata)).unwrap();
        self.namespaces.contains_key(&Key::new("", ns))
            && oldest.metadata.uid == agent.metadata.uid
            && (agent.spec.blueprint.is_none() || self.oracle_blueprint_allows(agent, ns))
            && self.oracle_own_end(agent).is_none_or(|t| t > self.now)
            && agent.spec.suspend != Some(true)
            && self.oracle_complies(agent)
            && !self.foreign.contains(&Key::new(ns, secret_name(agent)))
    }

    fn oracle_blueprint_allows(&self, agent: &AgentIdentity, ns: &str) -> bool {
        let namespace = self.namespaces.get(&Key::new("", ns));
        self.oracle_blueprint(agent).is_some_and(|b| {
            b.spec.suspend != Some(true)
                && namespace.is_some_and(|n| b.spec.namespace_selector.matches(|k| n.labels.get(k)))
        })
    }

    /// Whether what an agent is bound to is there.
    pub fn oracle_bound(&self, agent: &AgentIdentity) -> bool {
        let Some(bound) = &agent.spec.bound_object_ref else { return true };
        let key = Key::new(agent.metadata.namespace.as_deref().unwrap(), bound.name.as_str());
        let kind = kind_name(&bound.api_version, &bound.kind);
        if !self.world.config().bound_kinds.iter().any(|k| kind_name(&k.api_version, &k.kind) == kind) {
            return false;
        }
        let Some(object) = self.bound.get(&(kind, key)) else { return false };
        let known = agent.status.as_ref().and_then(|s| s.bound_object_uid.clone());
        let exact = bound.uid.clone().or(if bound.kind == "Pod" { known } else { None });
        !object.unselected && !object.finished && exact.is_none_or(|u| u == object.meta.uid.to_string())
    }

    /// The grants that speak of an agent, are not over and have their file to themselves, those that come first first.
    fn oracle_grants(&self, agent: &AgentIdentity) -> Vec<AgentGrant> {
        let of_namespace = self.grants.values().filter(|g| g.metadata.namespace == agent.metadata.namespace);
        let mut grants: Vec<_> = of_namespace.cloned().collect();
        grants.sort_by_key(|g| age(&g.metadata));
        grants.extend(self.oracle_inherited(agent));
        grants.retain(|grant| {
            let named =
                grant.spec.agents.names.iter().flatten().any(|n| Some(n) == agent.metadata.name.as_ref());
            let labels = agent.metadata.labels.clone().unwrap_or_default();
            let label = |k: &str| labels.get(k).map(String::as_str);
            let selected = grant.spec.agents.selector.as_ref().is_some_and(|s| s.matches(label));
            let ends = [grant.spec.expires_at.as_ref().map(|t| t.0), self.oracle_grant_end(agent, grant)];
            let over = ends.into_iter().flatten().any(|end| end <= self.now);
            !over && (named || selected)
        });
        // Of those with one file the first has it; the others are refused as a whole.
        let mut taken = BTreeSet::new();
        grants.retain(|g| g.spec.secret_key.as_ref().is_none_or(|file| taken.insert(file.clone())));
        grants
    }

    fn oracle_begun(&self, grant: &AgentGrant) -> bool {
        grant.spec.not_before.as_ref().is_none_or(|t| t.0 <= self.now)
    }

    /// The files that an agent must have beside its identity token.
    pub fn oracle_files(&self, agent: &AgentIdentity) -> BTreeMap<String, Held> {
        let mut files = BTreeMap::new();
        for grant in self.oracle_grants(agent) {
            let Some(file) = &grant.spec.secret_key else { continue };
            if !self.oracle_begun(&grant) {
                continue;
            }
            if let Some(held) = self.oracle_held(agent, &grant)
                && held.seconds >= 600
            {
                files.insert(file.clone(), held);
            }
        }
        files
    }

    /// The ClusterRoles that an agent must be bound to, as namespace, role and name.
    pub fn oracle_roles(&self, agent: &AgentIdentity) -> BTreeSet<(String, String, String)> {
        if !self.oracle_enabled(agent) || !self.oracle_bound(agent) {
            return BTreeSet::new();
        }
        let (namespace, name) = (agent.metadata.namespace.clone(), agent.metadata.name.clone());
        let [namespace, name] = [namespace.unwrap(), name.unwrap()];
        let grants = self.oracle_grants(agent);
        let on_cluster = grants.iter().filter(|g| self.oracle_begun(g)).filter(|g| {
            let resource = self.resources.get(&Key::new("", g.spec.resource.as_str()));
            resource.is_some_and(|r| r.spec.kubernetes.is_some())
        });
        let held = on_cluster.filter_map(|g| self.oracle_held(agent, g));
        held.flat_map(|h| h.roles).map(|role| (namespace.clone(), role, name.clone())).collect()
    }

    pub(super) fn oracle_blueprint(&self, agent: &AgentIdentity) -> Option<&AgentBlueprint> {
        let blueprint = self.blueprints.get(&Key::new("", agent.spec.blueprint.as_deref()?))?;
        let made = agent.metadata.labels.as_ref().and_then(|l| l.get(crate::api::MADE_LABEL));
        made.is_none_or(|uid| Some(uid) == blueprint.metadata.uid.as_ref()).then_some(blueprint)
    }

    /// What an agent inherits, as grants of its namespace.
    fn oracle_inherited(&self, agent: &AgentIdentity) -> Vec<AgentGrant> {
        let blueprint = self.oracle_blueprint(agent);
        let grants = blueprint.into_iter().flat_map(|b| &b.spec.grants);
        let as_own = grants.map(|g| AgentGrant {
            metadata: ObjectMeta {
                namespace: agent.metadata.namespace.clone(),
                creation_timestamp: blueprint.and_then(|b| b.metadata.creation_timestamp.clone()),
                ..ObjectMeta::default()
            },
            spec: crate::api::AgentGrantSpec {
                agents: crate::api::AgentSelection {
                    names: None,
                    selector: Some(crate::api::LabelSelector::default()),
                },
                resource: g.resource.clone(),
                application: g.application.clone(),
                delegation: g.delegation.clone(),
                agent_user: g.agent_user.clone(),
                not_before: g.not_before.clone(),
                expires_at: g.expires_at.clone(),
                secret_key: g.secret_key.clone(),
            },
            status: None,
        });
        as_own.collect()
    }

    /// When an agent's time is over by itself or its blueprint.
    pub(super) fn oracle_own_end(&self, agent: &AgentIdentity) -> Option<Timestamp> {
        let default = || {
            let lifetime = seconds(self.oracle_blueprint(agent)?.spec.defaults.as_ref()?.lifetime.as_ref())?;
            Some(age(&agent.metadata).0 + SignedDuration::from_secs(lifetime))
        };
        agent.spec.expires_at.as_ref().map(|t| t.0).or_else(default)
    }

    /// Whether an agent has its user's name to itself, or an older right to it.
    fn oracle_user(&self, agent: &AgentIdentity) -> bool {
        let name = |a: &AgentIdentity| a.spec.user.as_ref().map(|u| u.username.to_lowercase());
        let Some(wanted) = name(agent) else { return false };
        let domains = &self.world.config().agent_user_domains;
        let rivals = self.agents.values().filter(|a| name(a).as_ref() == Some(&wanted));
        let oldest = rivals.min_by_key(|a| age(&a.metadata)).unwrap();
        oldest.metadata.uid == agent.metadata.uid
            && domains.iter().any(|d| wanted.ends_with(&format!("@{d}")))
    }

    fn oracle_held(&self, agent: &AgentIdentity, grant: &AgentGrant) -> Option<Held> {
        let resource = self.resources.get(&Key::new("", grant.spec.resource.as_str()))?;
        let rivals = self.resources.values().filter(|r| r.spec.audience == resource.spec.audience);
        let oldest = rivals.min_by_key(|r| age(&r.metadata))?;
        if oldest.metadata.uid != resource.metadata.uid {
            return None;
        }
        let namespace = self.namespaces.get(&Key::new("", grant.metadata.namespace.as_deref()?))?;
        let (mut roles, mut scopes, mut allowed) = (BTreeSet::new(), BTreeSet::new(), false);
        for entry in &resource.spec.allow {
            let mode = mode_of(grant);
            let in_mode = entry.modes.as_ref().map_or(mode == Mode::Application, |m| m.contains(&mode));
            if !entry.namespace_selector.matches(|k| namespace.labels.get(k)) || !in_mode {
                continue;
            }
            allowed = true;
            if entry.roles.is_none() && entry.scopes.is_none() {
                roles.extend(resource.spec.roles.iter().map(|o| o.name.clone()));
                scopes.extend(resource.spec.scopes.iter().map(|o| o.name.clone()));
            }
            roles.extend(entry.roles.iter().flatten().cloned());
            scopes.extend(entry.scopes.iter().flatten().cloned());
        }
        if !allowed {
            return None;
        }
        let offered_roles = set(resource.spec.roles.iter().map(|o| &o.name));
        let offered_scopes = set(resource.spec.scopes.iter().map(|o| &o.name));
        let as_user = || {
            let rights = grant.spec.agent_user.clone().filter(|_| self.oracle_user(agent))?;
            Some(Application { roles: Vec::new(), scopes: rights.scopes })
        };
        let asked = grant.spec.application.clone().or_else(as_user)?;
        roles.retain(|r| offered_roles.contains(r) && asked.roles.contains(r));
        scopes.retain(|s| offered_scopes.contains(s) && asked.scopes.contains(s));
        if resource.spec.kubernetes.is_some() {
            let harmless = |r: &ClusterRole| r.violations == Violations::default();
            roles.retain(|r| self.cluster_roles.get(&Key::new("", r.as_str())).is_some_and(harmless));
        }
        if roles.is_empty() && scopes.is_empty() && !(asked.roles.is_empty() && asked.scopes.is_empty()) {
            return None;
        }
        let default = self.oracle_blueprint(agent).and_then(|b| b.spec.defaults.as_ref());
        let default = default.and_then(|d| seconds(d.token_lifetime.as_ref()));
        let own = seconds(agent.spec.token_lifetime.as_ref()).or(default).unwrap_or(3600).clamp(600, 86_400);
        let most = seconds(resource.spec.max_token_lifetime.as_ref()).unwrap_or(i64::MAX);
        let ends = [grant.spec.expires_at.as_ref().map(|t| t.0), self.oracle_own_end(agent)];
        let until = ends.into_iter().flatten().min();
        let audience = resource.spec.audience.clone();
        self.oracle_left(agent, grant, Held { audience, roles, scopes, seconds: own.min(most), until })
    }

    /// No token is minted that says more, or lives longer, than what is granted and allowed at this moment.
    pub fn check_minted(&self, agent: &Key, tokens: &[Minted]) {
        let Some(agent) = self.agents.get(agent) else {
            assert!(tokens.is_empty(), "minted for an agent that is gone: {agent}");
            return;
        };
        if !tokens.is_empty() {
            assert!(self.oracle_enabled(agent) && self.oracle_bound(agent), "minted for {agent:?}");
        }
        let files = self.oracle_files(agent);
        for token in tokens {
            assert!(token.iat == self.now && token.exp > self.now, "{token:?}");
            assert!(self.oracle_own_end(agent).is_none_or(|end| token.exp <= end), "{token:?}");
            assert!(self.oracle_end(agent).is_none_or(|end| token.exp <= end), "{token:?}");
            if &*token.file == crate::api::IDENTITY_KEY {
                assert_eq!(&*token.entitlement.audience, "https://agentid.example.com");
                assert!(token.entitlement.roles.is_empty() && token.entitlement.scopes.is_empty());
                continue;
            }
            let held = files.get(&*token.file).unwrap_or_else(|| panic!("not held: {token:?}"));
            let entitlement = &token.entitlement;
            assert_eq!(*entitlement.audience, *held.audience);
            assert!(entitlement.roles.iter().all(|r| held.roles.contains(&**r)), "{token:?} {held:?}");
            assert!(entitlement.scopes.iter().all(|s| held.scopes.contains(&**s)), "{token:?} {held:?}");
            assert!(token.exp.duration_since(token.iat).as_secs() <= held.seconds, "{token:?} {held:?}");
            assert!(held.until.is_none_or(|u| token.exp <= u), "{token:?} {held:?}");
        }
    }
}
