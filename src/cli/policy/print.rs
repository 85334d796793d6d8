//! The answer for people.

use std::fmt::Write as _;

use super::compare::{Loss, Report};
use crate::cli::text::printable;

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        for p in &self.policies {
            let replaces = if p.replaces { ", in place of the one of this name" } else { "" };
            let (name, matched) = (printable(&p.name), p.matched);
            writeln!(out, "AgentPolicy {name} ({:?}): speaks of {matched} agents{replaces}", p.enforcement)?;
        }
        let mut agent = None;
        for l in &self.losses {
            let key = (&l.namespace, &l.agent);
            if agent != Some(key) {
                writeln!(out, "\nAgentIdentity {}/{}", printable(&l.namespace), printable(&l.agent))?;
                agent = Some(key);
            }
            writeln!(out, "  loses {}", printable(&what(l)))?;
            writeln!(out, "    {}: {}", l.reason, printable(&l.message))?;
        }
        let s = &self.summary;
        writeln!(
            out,
            "\n{} of {} agents would lose something: {} their whole credential; {} grants of others are refused or \
             narrowed",
            s.agents_losing, s.agents, s.agents_withdrawn, s.grants_losing
        )?;
        if s.grants_shortened > 0 {
            writeln!(out, "the tokens of {} grants would live shorter or end earlier", s.grants_shortened)?;
        }
        if s.agents_gaining > 0 {
            writeln!(out, "{} agents would hold more than now", s.agents_gaining)?;
        }
        if s.agents_unknown > 0 {
            writeln!(out, "of {} agents it can't be told", s.agents_unknown)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {}", printable(note)))
    }
}

fn what(l: &Loss) -> String {
    let Some(grant) = &l.grant else { return "its whole credential".to_owned() };
    let on = format!("AgentGrant {grant} on AgentResource {}", l.resource.as_deref().unwrap_or_default());
    if l.whole {
        return on;
    }
    let mut parts = Vec::new();
    for (one, names) in [("roles", &l.roles), ("scopes", &l.scopes)] {
        if !names.is_empty() {
            parts.push(format!("{one} {}", names.join(", ")));
        }
    }
    parts.extend(l.file.as_ref().map(|f| format!("the file {f}")));
    format!("{} of {on}", parts.join(" and "))
}
