//! What is left of whom a token names, and whether it would be accepted now. Pure: the cluster was looked at before.
//!
//! Invariants: how the token stands is [`stands`]'s answer for what the record says of it; a name alone identifies
//! nobody (an agent, a grant or a pod that came later under the same name is another one); what can't be seen is unknown.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::api::{Mode, Reason};
use crate::cluster::client::Class;
use crate::cluster::snapshot::Snapshot;
use crate::domain::presented::{Presented, stands};
use crate::domain::{
    Agent, Decision, Grant, Key, RecordedBy, Refusal, Source, StatusRef, Uid, Users, World, decide,
};
use crate::issue::AuditLine;

/// A Secret's token may be read before its index is recorded; that takes no longer.
const NEWBORN: SignedDuration = SignedDuration::from_secs(15);

/// What was seen of the cluster.
pub(super) struct Seen<'a> {
    /// The agent's surroundings; `None`: no agent bears the name.
    pub(super) snapshot: Option<&'a Snapshot>,
    pub(super) pod: PodSeen,
    /// Whether the key is published; `None` if that can't be seen.
    pub(super) published: Option<bool>,
}

/// What was seen of the pod.
pub(super) enum PodSeen {
    /// No pod asked.
    None,
    Gone,
    There {
        uid: String,
        phase: String,
    },
    /// Why not.
    Unseen(String),
}

/// How a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Stands {
    Accepted,
    Refused,
    Unknown,
}

/// An object that the record names.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Fact {
    /// `present`, `absent`, `replaced`, `finished` or `unknown`.
    pub(super) state: &'static str,
    /// For people.
    pub(super) text: String,
}

fn fact(state: &'static str, text: impl Into<String>) -> Fact {
    Fact { state, text: text.into() }
}

/// How everything stands now.
#[derive(Debug, Serialize)]
pub(super) struct Now {
    pub(super) stands: Stands,
    /// Of the closed set of reasons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    pub(super) agent: Fact,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grant: Option<Fact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Fact>,
    pub(super) notes: Vec<String>,
}

impl Now {
    /// Of what was minted and what was seen.
    pub(super) fn of(mint: &AuditLine, seen: &Seen<'_>, now: Timestamp) -> Self {
        let token = Token::new(mint);
        let (agent, found) = token.agent(seen.snapshot);
        let grant = found.and_then(|(snapshot, _)| token.grant(snapshot));
        let grant = grant.or_else(|| {
            // The agent's namespace is not seen, so neither is the grant.
            mint.grant.as_ref().map(|_| fact("unknown", "was not looked at, since the agent is gone"))
        });
        let pod = token.pod(&seen.pod);
        let verdict = token.standing(seen, found, (&agent, grant.as_ref()), now).err();
        let stands = match &verdict {
            None => Stands::Accepted,
            Some(r) if r.reason == Reason::Unknown => Stands::Unknown,
            Some(_) => Stands::Refused,
        };
        let notes = token.notes(seen, stands, pod.as_ref());
        Self {
            stands,
            reason: verdict.as_ref().map(|r| r.reason.as_str()),
            message: verdict.map(|r| r.message),
            agent,
            grant,
            pod,
            notes,
        }
    }
}

/// A token as the record has it.
struct Token<'a> {
    mint: &'a AuditLine,
    uid: Option<Uid>,
    key: Key,
    at: Option<StatusRef>,
}

type Found<'a> = Option<(&'a Snapshot, &'a Agent)>;

impl<'a> Token<'a> {
    fn new(mint: &'a AuditLine) -> Self {
        let id = mint.agent_id.as_deref().unwrap_or_default();
        let at = mint.status_list.as_deref().zip(mint.status_index);
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        Self {
            mint,
            uid: id.rsplit_once("/agent/").and_then(|(_, uid)| uid.parse().ok()),
            key: Key::new(text(&mint.namespace), text(&mint.name)),
            at: at.and_then(|(list, index)| Some(StatusRef { list: list.parse().ok()?, index })),
        }
    }

    fn agent<'s>(&self, snapshot: Option<&'s Snapshot>) -> (Fact, Found<'s>) {
        let named = format!("AgentIdentity {}", self.key);
        let Some(snapshot) = snapshot else { return (fact("absent", format!("{named} is gone")), None) };
        match (snapshot.world.agent(&self.key), self.uid) {
            (None, _) => (fact("unknown", format!("{named} is there, but can't be listed")), None),
            (Some(agent), Some(uid)) if agent.meta.uid != uid => (
                fact(
                    "replaced",
                    format!("the agent is gone; today's {named} is another one, of UID {}", agent.meta.uid),
                ),
                None,
            ),
            (Some(_), None) => {
                (fact("unknown", format!("the record does not say which {named} it was")), None)
            }
            (Some(agent), Some(_)) => {
                let going = if agent.meta.deleting { ", and is being deleted" } else { "" };
                (fact("present", format!("{named} is there{going}")), Some((snapshot, agent)))
            }
        }
    }

    fn grant(&self, snapshot: &Snapshot) -> Option<Fact> {
        let key = self.key.sibling(self.mint.grant.as_deref()?);
        let named = format!("AgentGrant {key}");
        if snapshot.unseen.iter().any(|u| u.source == Source::Grants) {
            return Some(fact("unknown", "AgentGrants can't be listed"));
        }
        Some(match snapshot.world.grant(&key) {
            None => fact("absent", format!("{named} is gone")),
            Some(grant) if self.is_later(grant) => {
                fact("replaced", format!("the grant is gone; today's {named} was created after the token"))
            }
            Some(_) => fact("present", format!("{named} is there")),
        })
    }

    fn is_later(&self, grant: &Grant) -> bool {
        self.mint.time.is_some_and(|minted| grant.meta.created > minted)
    }

    fn pod(&self, seen: &PodSeen) -> Option<Fact> {
        let named = format!("Pod {}", self.key.sibling(self.mint.pod.as_deref()?));
        Some(match seen {
            PodSeen::None => return None,
            PodSeen::Gone => fact("absent", format!("{named} is gone")),
            PodSeen::Unseen(why) => fact("unknown", why.as_str()),
            PodSeen::There { uid, .. } if self.mint.pod_uid.as_ref().is_some_and(|u| u != uid) => {
                fact("replaced", format!("the pod is gone; today's {named} is another one"))
            }
            PodSeen::There { phase, .. } if matches!(phase.as_str(), "Succeeded" | "Failed") => {
                fact("finished", format!("{named} has finished ({phase})"))
            }
            PodSeen::There { .. } => fact("present", format!("{named} is there")),
        })
    }

    /// Whether it would be accepted, and else why not.
    fn standing(
        &self,
        seen: &Seen<'_>,
        found: Found<'_>,
        (agent_fact, grant): (&Fact, Option<&Fact>),
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let refuse = |reason, message: String| Err(Refusal::new(reason, message));
        if self.mint.expires_at.is_some_and(|e| e <= now) {
            return refuse(Reason::Expired, "it has expired".to_owned());
        }
        if seen.published == Some(false) {
            let kid = self.mint.kid.as_deref().unwrap_or_default();
            let message = format!(
                "the key that signed it, {kid}, is no longer published: it was revoked or its time is over"
            );
            return refuse(Reason::CredentialRejected, message);
        }
        let Some((snapshot, agent)) = found else {
            let gone = matches!(agent_fact.state, "absent" | "replaced");
            let reason = if gone { Reason::AgentNotFound } else { Reason::Unknown };
            return refuse(reason, agent_fact.text.clone());
        };
        let world = &snapshot.world;
        if self.is_newborn(world, now) {
            let message =
                "it was minted just now and its index is about to be recorded; ask again in a few seconds";
            return refuse(Reason::Unknown, message.to_owned());
        }
        stands(world, &self.presented(world, agent), now).map(drop).map_err(|refusal| {
            let revoked = self.at.is_some() && refusal.reason == Reason::CredentialRejected;
            if revoked { self.why_revoked(world, grant, refusal, now) } else { refusal }
        })
    }

    fn is_newborn(&self, world: &World, now: Timestamp) -> bool {
        let young = self.mint.time.is_some_and(|t| now.duration_since(t) < NEWBORN);
        let unrecorded = self.at.is_some_and(|at| world.recorded_by(at) == RecordedBy::Nobody);
        young && unrecorded && self.mint.endpoint.as_deref() == Some("secret")
    }

    /// What the token says, as far as the record has it. Through whom it was passed on is not in the record.
    fn presented(&self, world: &World, agent: &Agent) -> Presented {
        let recorded = self.at.and_then(|at| agent.status.recorded_at(at)).map(|r| r.grant);
        let named = self.mint.grant.as_deref().and_then(|g| world.grant(&self.key.sibling(g)));
        let named = named.filter(|grant| !self.is_later(grant));
        let delegated = self.mint.mode.as_deref() == Some(Mode::Delegation.as_str());
        let as_user = self.mint.mode.as_deref() == Some(Mode::AgentUser.as_str());
        let audience = match &self.mint.grant {
            Some(_) => self.mint.audience.clone().unwrap_or_default(),
            // The identity token of the Secret is for the issuer, whom this look may not know.
            None => world.config().issuer.clone(),
        };
        Presented {
            agent: self.uid,
            // One that is gone: a UID of nobody.
            grant: self
                .mint
                .grant
                .as_ref()
                .map(|_| recorded.or_else(|| named.map(|g| g.meta.uid)).unwrap_or(Uid(0))),
            audience,
            is_access: self.mint.mode.as_deref() != Some("identity"),
            roles: self.mint.roles.clone(),
            scopes: self.mint.scopes.clone(),
            user: delegated.then(|| self.user(named.and_then(|g| g.users.as_ref()))),
            username: self.mint.on_behalf_of.clone().filter(|_| as_user),
            actors: Vec::new(),
            status: self.at,
            parents: Vec::new(),
        }
    }

    /// The user by issuer and `sub`. The record has both in one word, behind the issuer's prefix.
    fn user(&self, users: Option<&Users>) -> (String, String) {
        let whom = self.mint.on_behalf_of.as_deref().unwrap_or_default();
        let issuer = users.map(|u| u.issuer.to_string()).unwrap_or_default();
        let subjects = users.and_then(|u| u.subjects.as_deref()).unwrap_or_default();
        let subject = subjects.iter().find(|s| whom.ends_with(&***s)).map_or(whom, |s| s);
        (issuer, subject.to_owned())
    }

    /// An entry reads INVALID for many reasons; this is the one that can be seen.
    fn why_revoked(&self, world: &World, grant: Option<&Fact>, said: Refusal, now: Timestamp) -> Refusal {
        if let Some(gone) = grant.filter(|g| matches!(g.state, "absent" | "replaced")) {
            return Refusal::new(said.reason, gone.text.clone());
        }
        let decision: Option<Decision> = decide(world, &self.key, now);
        let name = self.mint.grant.as_deref().unwrap_or_default();
        let of_grant = decision.as_ref().and_then(|d| d.grants.iter().find(|g| *g.grant == *name));
        if let Some(refusal) = of_grant.and_then(|g| g.refusal.clone()) {
            return Refusal::new(refusal.reason, format!("AgentGrant {name}: {}", refusal.message));
        }
        let unrecorded = self.at.is_some_and(|at| !matches!(world.recorded_by(at), RecordedBy::One(_)));
        if !unrecorded {
            return said;
        }
        let message = "its index is no longer recorded: since it was minted, the agent or the grant was refused for a \
                       time (suspended, say), or the grant or the resource was changed";
        Refusal::new(said.reason, message)
    }

    fn notes(&self, seen: &Seen<'_>, stands: Stands, pod: Option<&Fact>) -> Vec<String> {
        let mut notes = Vec::new();
        if stands == Stands::Accepted
            && pod.is_some_and(|p| matches!(p.state, "absent" | "replaced" | "finished"))
        {
            notes.push(format!(
                "the token does not die with the pod, since AgentIdentity {} is not bound to it (spec.boundObjectRef)",
                self.key
            ));
        }
        if stands == Stands::Accepted && self.mint.mode.as_deref() == Some(Mode::Delegation.as_str()) {
            notes.push(
                "the record does not say through whom the token was passed on: if a caller before this agent is gone, \
                 or the token that it was got with is withdrawn, introspection refuses it"
                    .to_owned(),
            );
        }
        if seen.published.is_none() {
            notes.push(format!(
                "whether its key is still published can't be seen (ConfigMap agentid-trust in namespace {})",
                self.key.namespace
            ));
        }
        for u in seen.snapshot.iter().flat_map(|s| &s.unseen).filter(|u| u.source.decides()) {
            let whose = if u.error.class() == Class::Forbidden { " as you" } else { "" };
            notes.push(format!("{} can't be read{whose}: {}", u.source, u.error));
        }
        notes
    }
}
