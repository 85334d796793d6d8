//! Whose tokens are meant, and how each stands.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Pace;
use crate::cli::look::named;
use crate::cli::text::{printable, span};
use crate::domain::{Agent, Key, Uid, World};

/// So many are named; the rest are counted.
const NAMED: usize = 20;

/// The answer. Members are only ever added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The rotation: when it was begun, which `--since` takes.
    pub(super) rotation: Timestamp,
    #[serde(serialize_with = "text")]
    pub(super) pace: Pace,
    pub(super) secrets: Vec<Hit>,
    /// Agents of which nothing is minted.
    pub(super) left_out: Vec<LeftOut>,
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hit {
    pub(super) namespace: String,
    pub(super) agent: String,
    pub(super) secret: String,
    #[serde(skip)]
    pub(super) uid: Uid,
    pub(super) state: State,
    /// Why it could not be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// How a Secret stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// To be asked for.
    Waiting,
    /// Asked for.
    Asked,
    Minted,
    /// Its agent lost its credentials meanwhile.
    Withdrawn,
    /// It, or its agent, is gone.
    Gone,
    Failed,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeftOut {
    pub(super) namespace: String,
    pub(super) agent: String,
    pub(super) why: &'static str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn text<S: serde::Serializer>(pace: &Pace, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(pace)
}

/// Whose tokens are meant.
pub(super) fn report(
    world: &World,
    agents: &[Agent],
    rotation: Timestamp,
    pace: Pace,
    notes: Vec<String>,
) -> Report {
    let (mut secrets, mut left_out) = (Vec::new(), Vec::new());
    for agent in agents {
        let Key { namespace, name } = &agent.meta.key;
        let secret = world.secret(&agent.meta.key.sibling(agent.secret_name.clone()));
        let secret = secret.filter(|s| s.agent == Some(agent.meta.uid));
        let why = match secret {
            _ if !agent.has_secret() => "it has no Secret and buys tokens on demand",
            None => "its Secret is not there yet: it is new, or refused (see `agentid why`)",
            Some(s) if s.tokens.is_empty() => "its credentials are withdrawn (see `agentid why`)",
            Some(s) => {
                let state = match (agent.rotation == Some(rotation), s.rotated == Some(rotation)) {
                    (_, true) => State::Minted,
                    (true, false) => State::Asked,
                    (false, false) => State::Waiting,
                };
                secrets.push(Hit {
                    namespace: namespace.to_string(),
                    agent: name.to_string(),
                    secret: agent.secret_name.to_string(),
                    uid: agent.meta.uid,
                    state,
                    problem: None,
                });
                continue;
            }
        };
        left_out.push(LeftOut { namespace: namespace.to_string(), agent: name.to_string(), why });
    }
    Report { rotation, pace, secrets, left_out, notes }
}

impl Report {
    pub(super) fn count(&self, state: State) -> usize {
        self.secrets.iter().filter(|s| s.state == state).count()
    }

    /// What is still to be minted anew.
    pub(super) fn waiting(&self) -> usize {
        self.count(State::Waiting) + self.count(State::Asked)
    }

    /// The Secrets.
    pub(super) fn names(&self) -> Vec<String> {
        self.secrets.iter().map(|s| named("secret", &s.secret)).collect()
    }

    /// Whose tokens are meant, for people.
    pub(super) fn text(&self, dry_run: bool) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = self.write(&mut out, dry_run);
        out
    }

    fn write(&self, out: &mut String, dry_run: bool) -> std::fmt::Result {
        let waiting = self.waiting();
        let takes = SignedDuration::try_from(self.pace.takes(waiting)).unwrap_or(SignedDuration::MAX);
        let word = if dry_run { "would be minted anew" } else { "are to be minted anew" };
        writeln!(out, "{waiting} Secrets {word}, at {}: about {}", self.pace, span(takes))?;
        if dry_run {
            let open = self.secrets.iter().filter(|s| s.state != State::Minted);
            for hit in open.clone().take(NAMED) {
                let name = printable(&format!("{}/{}", hit.namespace, hit.agent));
                writeln!(out, "  {name}: Secret {}", printable(&hit.secret))?;
            }
            more(out, open.count())?;
        }
        let minted = self.count(State::Minted);
        if minted > 0 {
            writeln!(out, "{minted} were minted anew for it already")?;
        }
        if !self.left_out.is_empty() {
            writeln!(out, "{} agents are left out", self.left_out.len())?;
            for left in self.left_out.iter().take(NAMED) {
                let name = printable(&format!("{}/{}", left.namespace, left.agent));
                writeln!(out, "  {name}: {}", left.why)?;
            }
            more(out, self.left_out.len())?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {}", printable(note)))
    }

    /// What came of it, for people.
    pub(super) fn done(&self) -> String {
        let mut text = format!("{} Secrets were minted anew", self.count(State::Minted));
        for (state, what) in [
            (State::Withdrawn, "withdrawn meanwhile"),
            (State::Gone, "gone meanwhile"),
            (State::Asked, "asked for and still to come"),
            (State::Waiting, "not asked for yet"),
            (State::Failed, "could not be asked for"),
        ] {
            let n = self.count(state);
            if n > 0 {
                let _ = write!(text, "; {n} {what}");
            }
        }
        text + "\n"
    }
}

fn more(out: &mut String, all: usize) -> std::fmt::Result {
    match all.saturating_sub(NAMED) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}
