//! The answer for people.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::build::{AgentNode, GrantNode, Report, SecretNode};
use crate::cli::text::{instant, printable};

impl Report {
    /// For people.
    pub(super) fn text(&self, now: Timestamp) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = self.write(&mut out, now);
        out
    }

    fn write(&self, out: &mut String, now: Timestamp) -> std::fmt::Result {
        for b in &self.blueprints {
            let per = match (b.exists, b.identity_per) {
                (false, _) => ", which does not exist".to_owned(),
                (true, Some(per)) => format!(", one agent per {per}"),
                (true, None) => ", of written agents".to_owned(),
            };
            let suspend = if b.suspend { ", suspended" } else { "" };
            writeln!(out, "AgentBlueprint {}{per}{suspend}", printable(&b.name))?;
            if b.agents.is_empty() {
                writeln!(out, "  no agents")?;
            }
            b.agents.iter().try_for_each(|a| agent(out, a, now))?;
        }
        for n in &self.namespaces {
            writeln!(out, "Namespace {}, agents without a blueprint", printable(&n.name))?;
            n.agents.iter().try_for_each(|a| agent(out, a, now))?;
        }
        let s = &self.summary;
        let counts = [
            (s.ready, "ready"),
            (s.suspended, "suspended"),
            (s.refused, "refused"),
            (s.ending, "ending"),
            (s.unknown, "unknown"),
        ];
        let counts: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, w)| format!("{n} {w}")).collect();
        let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
        writeln!(out, "{} agents{counts}", s.agents)?;
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {}", printable(note)))
    }
}

fn agent(out: &mut String, a: &AgentNode, now: Timestamp) -> std::fmt::Result {
    let how = if a.made { "made" } else { "written" };
    let bound = a.bound_to.as_ref().map(|b| format!(" for {}", printable(b))).unwrap_or_default();
    let name = printable(&format!("{}/{}", a.namespace, a.name));
    write!(out, "  {name} ({how}{bound}): {}", a.state)?;
    why(out, a.reason, a.message.as_ref())?;
    match &a.secret {
        Some(s) => secret(out, s, now)?,
        None => writeln!(out, "    no Secret: tokens on demand")?,
    }
    a.grants.iter().try_for_each(|g| grant(out, g))
}

fn why(out: &mut String, reason: Option<&'static str>, message: Option<&String>) -> std::fmt::Result {
    match (reason, message) {
        (Some(r), Some(m)) => writeln!(out, ", {r}: {}", printable(m)),
        (None, Some(m)) => writeln!(out, ", {}", printable(m)),
        (Some(r), None) => writeln!(out, ", {r}"),
        (None, None) => writeln!(out),
    }
}

fn secret(out: &mut String, s: &SecretNode, now: Timestamp) -> std::fmt::Result {
    let name = printable(&s.name);
    match (s.exists, s.renew_at, s.expires_at) {
        (None, ..) => writeln!(out, "    Secret {name}: can't be seen"),
        (Some(false), ..) => writeln!(out, "    Secret {name}: is not there"),
        (Some(true), Some(renew), Some(expires)) => writeln!(
            out,
            "    Secret {name}: renewed {}; expires {}",
            instant(renew, now),
            instant(expires, now)
        ),
        (Some(true), ..) => writeln!(out, "    Secret {name}: withdrawn, no tokens"),
    }
}

fn grant(out: &mut String, g: &GrantNode) -> std::fmt::Result {
    write!(out, "    {} on {}: {}", printable(&g.grant), printable(&g.resource), g.state)?;
    for (word, names) in [("roles", &g.roles), ("scopes", &g.scopes)] {
        if !names.is_empty() {
            write!(out, ", {word} {}", printable(&names.join(" ")))?;
        }
    }
    if matches!(g.state, "Held" | "Narrowed") {
        match &g.file {
            Some(file) => write!(out, ", file {}", printable(file))?,
            None => write!(out, ", on demand")?,
        }
    }
    why(out, g.reason, g.message.as_ref())
}
