//! The answer for people.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::blame::Blame;
use super::report::{Report, SecretReport};
use crate::api::format_seconds;
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
        writeln!(out, "AgentIdentity {}/{}: {}", self.namespace, self.name, self.standing)?;
        let line =
            |out: &mut String, word: &str, text: &str| writeln!(out, "  {word:<9} {}", printable(text));
        if let Some(refusal) = &self.refusal {
            blame(out, refusal)?;
        }
        if let Some(id) = &self.agent_id {
            line(out, "id", id)?;
        }
        line(out, "Secret", &self.secret.text(now))?;
        for c in &self.conditions {
            let said = format!("{}={} {}: {} (since {})", c.r#type, c.status, c.reason, c.message, c.since);
            line(out, "status", &said)?;
        }
        if let Some(until) = self.until {
            line(out, "stands", &format!("until {}", instant(until, now)))?;
        }
        if self.grants.is_empty() && self.not_granted.is_none() {
            writeln!(out, "\nNo AgentGrant in namespace {} speaks of this agent.", self.namespace)?;
        }
        for g in &self.grants {
            writeln!(out, "\n{} AgentResource {} by AgentGrant {}", g.state, g.resource, g.grant)?;
            if let Some(e) = &g.entitlement {
                let held = matches!(g.state, "Held" | "Narrowed");
                if !held {
                    writeln!(out, "  would otherwise be held:")?;
                }
                let names =
                    |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                line(out, "audience", &e.audience)?;
                let end =
                    e.not_after.map(|t| format!(", none beyond {}", instant(t, now))).unwrap_or_default();
                let lifetime = format_seconds(u64::from(e.lifetime_seconds));
                line(out, "token", &format!("{:?}, {:?}, lives {lifetime}{end}", e.profile, e.algorithm))?;
                if let Some(username) = &e.username {
                    line(out, "user", username)?;
                }
                line(out, "roles", &names(&e.roles))?;
                line(out, "scopes", &names(&e.scopes))?;
                line(out, "file", e.file.as_deref().unwrap_or("none: not delivered in the Secret"))?;
            }
            if let Some(refusal) = &g.refusal {
                blame(out, refusal)?;
            }
        }
        for a in &self.audited {
            let what = a.grant.as_ref().map_or_else(|| "the agent".to_owned(), |g| format!("AgentGrant {g}"));
            writeln!(out, "\nAudited: AgentPolicy {} would take from {what}", a.policy)?;
            blame(out, &a.refusal)?;
        }
        if let Some(n) = &self.not_granted {
            writeln!(
                out,
                "\nNot granted: no AgentGrant in namespace {} gives this agent {}",
                self.namespace, n.resource
            )?;
            let allowed = if n.namespace_allowed { "allows" } else { "does not allow" };
            line(
                out,
                "allow",
                &format!("AgentResource {} {allowed} namespace {}", n.resource, self.namespace),
            )?;
            for other in &n.others {
                line(out, "other", other)?;
            }
            line(out, "remedy", &n.remedy)?;
        }
        if !self.notes.is_empty() {
            writeln!(out)?;
        }
        for note in &self.notes {
            writeln!(out, "Note: {}", printable(note))?;
        }
        Ok(())
    }
}

impl SecretReport {
    fn text(&self, now: Timestamp) -> String {
        let Self { name, exists, files, renew_at, expires_at } = self;
        if name.is_empty() {
            return "none: the pod's own service-account token buys what the agent needs".to_owned();
        }
        match exists {
            None => return format!("{name}: not to be seen as you"),
            Some(false) => return format!("{name}: not there"),
            Some(true) => {}
        }
        let mut text = format!("{name}: {}", files.join(", "));
        if let Some(at) = renew_at {
            let _ = write!(text, "; renewal {}", instant(*at, now));
        }
        if let Some(at) = expires_at {
            let _ = write!(text, "; expiry {}", instant(*at, now));
        }
        text
    }
}

fn blame(out: &mut String, blame: &Blame) -> std::fmt::Result {
    let Blame { reason, message, object, field, remedy } = blame;
    writeln!(out, "  {:<9} {}", "reason", printable(&format!("{reason}: {message}")))?;
    let field = field.as_ref().map(|f| format!(", {f}")).unwrap_or_default();
    writeln!(out, "  {:<9} {}", "by", printable(&format!("{object}{field}")))?;
    match remedy {
        Some(remedy) => writeln!(out, "  {:<9} {}", "remedy", printable(remedy)),
        None => Ok(()),
    }
}
