//! The watches that feed the world, and how far each can be believed.
//!
//! Invariant: unknown is not absent. A source that never synced, or has not been heard of for longer than
//! `maxStale`, says nothing, neither that an object is there nor that it is gone; nor does one that was heard of at a
//! time that is yet to come.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{View, World};
use crate::domain::{KindName, POD};

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// AgentIdentities.
    Agents,
    /// AgentResources.
    Resources,
    /// AgentGrants.
    Grants,
    /// AgentBlueprints.
    Blueprints,
    /// AgentPolicies.
    Policies,
    /// Namespaces.
    Namespaces,
    /// Secrets of our type.
    Secrets,
    /// The trust ConfigMaps.
    Trust,
    /// ServiceAccounts.
    ServiceAccounts,
    /// The leader's Lease.
    Lease,
    /// ClusterRoles: what `kubernetes` grants give.
    ClusterRoles,
    /// RoleBindings of ours.
    Bindings,
    /// A kind that agents may be bound to, or a hop on the way to one.
    Bound(KindName),
}

impl Source {
    /// The sources of the operator, beside the bound kinds.
    pub const CORE: [Self; 8] = [
        Self::Agents,
        Self::Resources,
        Self::Grants,
        Self::Blueprints,
        Self::Policies,
        Self::Namespaces,
        Self::Secrets,
        Self::Trust,
    ];
    /// The sources of the token service, beside the bound kinds: it may not list Secrets.
    pub const SERVICE: [Self; 8] = [
        Self::Agents,
        Self::Resources,
        Self::Grants,
        Self::Blueprints,
        Self::Policies,
        Self::Namespaces,
        Self::ServiceAccounts,
        Self::Lease,
    ];

    /// The sources of the operator that hold back only what needs them, beside the bound kinds.
    pub const BESIDE: [Self; 2] = [Self::ClusterRoles, Self::Bindings];

    /// Whether resourceVersions are etcd's, and so comparable. A kind that is bound may be one of an aggregated API
    /// server, which counts as it likes; the cluster's own kinds and ours are not.
    #[must_use]
    pub fn is_of_etcd(&self) -> bool {
        let Self::Bound(kind) = self else { return true };
        kind_is_of_etcd(kind)
    }

    /// Whether what an agent holds is decided by it. The trust ConfigMaps decide nothing; service accounts and
    /// the Lease decide who asks and what a status list says.
    #[must_use]
    pub const fn decides(&self) -> bool {
        !matches!(self, Self::Trust | Self::ServiceAccounts | Self::Lease | Self::Bindings)
    }
}

pub(super) fn kind_is_of_etcd(kind: &KindName) -> bool {
    ["v1/", "apps/", "batch/"].iter().any(|own| kind.starts_with(own))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agents => f.write_str("agentidentities"),
            Self::Resources => f.write_str("agentresources"),
            Self::Grants => f.write_str("agentgrants"),
            Self::Blueprints => f.write_str("agentblueprints"),
            Self::Policies => f.write_str("agentpolicies"),
            Self::Namespaces => f.write_str("namespaces"),
            Self::Secrets => f.write_str("secrets"),
            Self::Trust => f.write_str("configmaps"),
            Self::ServiceAccounts => f.write_str("serviceaccounts"),
            Self::Lease => f.write_str("leases"),
            Self::ClusterRoles => f.write_str("clusterroles"),
            Self::Bindings => f.write_str("rolebindings"),
            Self::Bound(kind) => f.write_str(kind),
        }
    }
}

/// Why a watch says nothing at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The API server does not serve the kind: its CRD is missing.
    NotServed,
    /// We may not watch it.
    Forbidden,
    /// The API server cannot be reached, or answers with an error.
    Unreachable,
}

/// How far a source can be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// A list has been taken in completely.
    pub synced: bool,
    /// When it was last heard of: an event, a bookmark, an answered watch.
    pub heard: Option<Timestamp>,
    /// Why the last try failed.
    pub lost: Option<Lost>,
}

/// By how much a source may be heard of after what is now for who asks: a request that has waited for the API server, or for an
/// issuer's keys, is as of its beginning. More, and the clock was set back.
const AHEAD: SignedDuration = SignedDuration::from_secs(30);

impl SourceState {
    /// Whether it can be believed.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp, max_stale: SignedDuration) -> bool {
        let age = self.heard.map(|h| now.duration_since(h));
        self.synced && age.is_some_and(|age| -AHEAD <= age && age <= max_stale)
    }

    /// In words, for a condition.
    #[must_use]
    pub const fn problem(&self) -> &'static str {
        match (self.lost, self.synced) {
            (Some(Lost::NotServed), _) => "the API server does not serve this kind: install its CRD",
            (Some(Lost::Forbidden), _) => {
                "agentid may not list and watch this kind: grant it the verbs get, list and watch"
            }
            (_, false) => "the first list is not complete yet",
            (_, true) => "nothing was heard from the API server for longer than maxStale",
        }
    }
}

impl World {
    /// How far a source can be believed.
    #[must_use]
    pub fn source(&self, source: &Source) -> SourceState {
        self.sources.get(source).copied().unwrap_or_default()
    }

    /// All sources with their states, in a stable order.
    #[must_use]
    pub fn sources(&self) -> BTreeMap<Source, SourceState> {
        let bound = self.bound.keys().cloned().map(Source::Bound);
        let beside = match self.view {
            View::Operator => &Source::BESIDE[..],
            View::Service => &Source::BESIDE[..1],
        };
        self.core()
            .iter()
            .cloned()
            .chain(beside.iter().cloned())
            .chain(bound)
            .map(|s| (s.clone(), self.source(&s)))
            .collect()
    }

    /// The sources without which this view decides nothing.
    #[must_use]
    pub const fn core(&self) -> &'static [Source] {
        match self.view {
            View::Operator => &Source::CORE,
            View::Service => &Source::SERVICE,
        }
    }

    /// The hops from pods to their workloads that this view watches.
    #[must_use]
    pub fn hops(&self) -> Vec<KindName> {
        self.bound.keys().filter(|k| !self.kinds.contains(*k)).cloned().collect()
    }

    /// Whether every source that all decisions need has synced once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.core().iter().all(|s| self.source(s).synced)
    }

    /// The sources whose first list is to be waited for before anybody is answered: all, but one that only some answers
    /// need (a kind that may be bound, ClusterRoles) may be missing for good, and is waited for only until it is refused or not
    /// served, or its own API server does not answer.
    /// Pods and the hops to their workloads all answers need: they tell who asks.
    #[must_use]
    pub fn awaited(&self) -> Vec<Source> {
        let needed = |source: &Source| match source {
            Source::Bound(kind) => **kind == *POD || !self.kinds.contains(kind),
            source => self.core().contains(source),
        };
        let awaited = |(source, state): (Source, SourceState)| {
            let coming = match state.lost {
                None => true,
                // The cluster's own API server: whoever asks it waits for all.
                Some(Lost::Unreachable) => source.is_of_etcd(),
                Some(Lost::NotServed | Lost::Forbidden) => false,
            };
            (!state.synced && (coming || needed(&source))).then_some(source)
        };
        self.sources().into_iter().filter_map(awaited).collect()
    }

    /// Whether a source can be believed now.
    #[must_use]
    pub fn is_fresh(&self, source: &Source, now: Timestamp) -> bool {
        self.source(source).is_fresh(now, self.config.max_stale.signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_fresh_for_longer() {
        let at = |second: i64| Timestamp::from_second(1_000 + second).unwrap();
        let max_stale = SignedDuration::from_secs(60);
        let mut state = SourceState { synced: true, heard: Some(at(0)), lost: None };
        for (now, fresh) in [(-3_600, false), (-31, false), (-30, true), (0, true), (60, true), (61, false)] {
            assert_eq!(state.is_fresh(at(now), max_stale), fresh, "{now}");
        }
        state.synced = false;
        assert!(!state.is_fresh(at(0), max_stale));
    }
}
