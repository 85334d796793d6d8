//! The answer for people.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::Step;
use super::hits::{Action, Hit, Outcome, Report};
use crate::cli::text::{instant, printable};

/// So many agents are named; the rest are counted.
const NAMED: usize = 20;

/// What is asked at the terminal.
pub(super) fn question(action: Action, report: &Report) -> String {
    let word = if action == Action::Suspend { "Suspend" } else { "Resume" };
    match &report.blueprint {
        Some(b) => {
            format!("{word} AgentBlueprint {} and its {} agents?", printable(&b.name), report.agents.len())
        }
        None => format!("{word} {} agents?", report.steps().len()),
    }
}

/// The object of a step.
pub(super) fn object(step: &Step) -> String {
    match step {
        Step::Agent(key, _) => format!("AgentIdentity {}", printable(&key.to_string())),
        Step::Blueprint(name, _) => format!("AgentBlueprint {}", printable(name)),
    }
}

impl Report {
    /// Whom it hits, for people.
    pub(super) fn text(&self, now: Timestamp) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = self.write(&mut out, now);
        out
    }

    fn write(&self, out: &mut String, now: Timestamp) -> std::fmt::Result {
        let suspend = self.action == Action::Suspend;
        let s = &self.summary;
        if let Some(b) = &self.blueprint {
            let unchanged = match (b.unchanged, suspend) {
                (false, _) => "",
                (true, true) => ", suspended already",
                (true, false) => ", not suspended itself",
            };
            writeln!(out, "AgentBlueprint {}{unchanged}: {} agents", printable(&b.name), s.agents)?;
        }
        let word = if suspend { "lose their credentials" } else { "get their credentials back" };
        writeln!(out, "{} of {} agents {word}, with {} held grants", s.changing, s.agents, s.grants)?;
        let (changing, staying): (Vec<_>, Vec<_>) = self
            .agents
            .iter()
            .partition(|a| a.before != a.after && (a.before == "Ready" || a.after == "Ready"));
        named(out, &changing, |out, a| {
            let until = a.tokens_until.map(|t| format!("; tokens good until {} at most", instant(t, now)));
            writeln!(out, "  {}: {} grants{}", name(a), a.grants, until.unwrap_or_default())
        })?;
        if !staying.is_empty() {
            let word = if suspend { "have none to lose now" } else { "stay as they are" };
            writeln!(out, "{} {word}", staying.len())?;
            named(out, &staying, |out, a| {
                let why = a.message.as_ref().map(|m| format!(": {}", printable(m))).unwrap_or_default();
                writeln!(out, "  {}: {}{why}", name(a), a.after)
            })?;
        }
        if let Some(until) = s.tokens_until {
            writeln!(
                out,
                "Copies of their tokens are refused at once by who introspects, soon by who reads status lists, and else \
                 when they expire: {} at the latest",
                instant(until, now)
            )?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {}", printable(note)))
    }

    /// What was done, for people.
    pub(super) fn done(&self) -> String {
        let all = self.agents.iter().map(|a| &a.outcome).chain(self.blueprint.iter().map(|b| &b.outcome));
        let (mut done, mut gone) = (0, 0);
        for outcome in all.flatten() {
            done += usize::from(*outcome == Outcome::Done);
            gone += usize::from(*outcome == Outcome::Gone);
        }
        let word = if self.action == Action::Suspend { "suspended" } else { "resumed" };
        let what = match &self.blueprint {
            Some(b) if done == 1 => format!("AgentBlueprint {} is {word}", printable(&b.name)),
            _ if done + gone == 0 => "nothing was to be changed".to_owned(),
            _ => format!("{done} {} {word}", if done == 1 { "object" } else { "objects" }),
        };
        let gone = if gone > 0 { format!("; {gone} were gone meanwhile") } else { String::new() };
        format!("{what}{gone}\n")
    }
}

fn name(hit: &Hit) -> String {
    printable(&format!("{}/{}", hit.namespace, hit.name))
}

fn named(
    out: &mut String,
    hits: &[&Hit],
    each: impl Fn(&mut String, &Hit) -> std::fmt::Result,
) -> std::fmt::Result {
    hits.iter().take(NAMED).try_for_each(|a| each(out, a))?;
    match hits.len().saturating_sub(NAMED) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}
