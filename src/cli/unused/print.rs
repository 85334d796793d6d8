//! The findings, as one YAML stream or as JSON.
//!
//! Invariants: in the stream everything but the narrower grants is a comment, whatever the names hold; both forms say
//! the same.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::UnusedError;
use super::judge::{Judged, Verdict};
use crate::cli::look::{GRANT, named};
use crate::cli::record::Reach;
use crate::cli::text::{instant, printable, span};

/// All that is said.
pub(super) struct Findings<'a> {
    pub(super) since: Timestamp,
    pub(super) now: Timestamp,
    pub(super) reach: &'a Reach,
    pub(super) judged: &'a [Judged<'a>],
}

impl Findings<'_> {
    /// As YAML.
    pub(super) fn text(&self) -> Result<String, UnusedError> {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = self.table(&mut out);
        for j in self.judged {
            if let Some(manifest) = &j.narrowed {
                self.document(&mut out, j, manifest)?;
            }
        }
        Ok(out)
    }

    fn table(&self, out: &mut String) -> std::fmt::Result {
        let ago = span(self.now.duration_since(self.since));
        writeln!(
            out,
            "# What was used of {} AgentGrants since {:.0} ({ago}).",
            self.judged.len(),
            self.since
        )?;
        writeln!(out, "# The record: {}.", self.reach)?;
        let names: Vec<_> = self
            .judged
            .iter()
            .map(|j| printable(&format!("{}/{}", j.grant.namespace, j.grant.name)))
            .collect();
        let width = names.iter().map(|n| n.chars().count()).max().unwrap_or_default().max(5);
        writeln!(out, "#\n# {:<width$}  {:<9}  {:<12}  FINDING", "GRANT", "VERDICT", "LAST USED")?;
        for (j, name) in self.judged.iter().zip(&names) {
            let last = match j.used.and_then(|u| u.last) {
                Some(last) => format!("{} ago", span(self.now.duration_since(last))),
                None if j.verdict == Verdict::Unused => "never".to_owned(),
                None => "-".to_owned(),
            };
            let line = format!(
                "# {name:<width$}  {:<9}  {last:<12}  {}",
                word(j.verdict),
                printable(&finding(j, self.now))
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        let unused: Vec<_> = self.judged.iter().filter(|j| j.verdict == Verdict::Unused).collect();
        if !unused.is_empty() {
            writeln!(out, "#\n# Never used. To take them away:")?;
        }
        for j in unused {
            let (namespace, name) = (printable(&j.grant.namespace), printable(&j.grant.name));
            writeln!(out, "#   kubectl delete agentgrants.agentid.dev -n {namespace} {name}")?;
        }
        if self.judged.iter().any(|j| j.narrowed.is_some()) {
            writeln!(
                out,
                "#\n# Narrower grants, for where the grants' manifests are kept. Server-side apply takes away only what \
                 the\n# same field manager gave; each says which one, or that it takes kubectl replace."
            )?;
        }
        Ok(())
    }

    fn document(&self, out: &mut String, j: &Judged<'_>, manifest: &Value) -> Result<(), UnusedError> {
        let name = format!("{}/{}", j.grant.namespace, j.grant.name);
        let yaml = serde_yaml::to_string(manifest).map_err(|e| UnusedError::Manifest {
            from: format!("AgentGrant {}", printable(&name)),
            problem: format!("can't be written as YAML: {e}"),
        })?;
        let how = match &j.grant.applied_by {
            Some(manager) => format!("kubectl apply --server-side --field-manager={}", printable(manager)),
            None => "kubectl replace".to_owned(),
        };
        let _ = write!(
            out,
            "---\n# {}: {}\n# {how} -f -\n{yaml}",
            printable(&name),
            printable(&finding(j, self.now))
        );
        if !out.ends_with('\n') {
            out.push('\n');
        }
        Ok(())
    }

    /// The grants that nobody used.
    pub(super) fn names(&self) -> Vec<String> {
        let unused = self.judged.iter().filter(|j| j.verdict == Verdict::Unused);
        unused.map(|j| named(GRANT, &j.grant.name)).collect()
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let grants: Vec<_> = self
            .judged
            .iter()
            .map(|j| {
                json!({
                    "namespace": j.grant.namespace,
                    "name": j.grant.name,
                    "resource": j.grant.spec.resource,
                    "verdict": j.verdict,
                    "finding": finding(j, self.now),
                    "tokens": j.used.map_or(0, |u| u.tokens),
                    "lastUsed": j.used.and_then(|u| u.last),
                    "unusedRoles": j.roles,
                    "unusedScopes": j.scopes,
                    "agentsNotSeen": j.agents,
                    "narrowed": j.narrowed,
                })
            })
            .collect();
        json!({"since": self.since, "record": self.reach, "grants": grants})
    }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unused => "unused",
        Verdict::Narrower => "narrower",
        Verdict::Used => "used",
        Verdict::Delivered => "delivered",
        Verdict::TooYoung => "too young",
    }
}

fn finding(j: &Judged<'_>, now: Timestamp) -> String {
    let mut said = Vec::new();
    match j.verdict {
        Verdict::Delivered => {
            let file = j.grant.spec.secret_key.as_deref().unwrap_or_default();
            said.push(format!("delivered in a Secret ({file}); use can't be told from the record"));
        }
        Verdict::TooYoung => {
            let begins = j.grant.since.max(j.grant.spec.not_before.as_ref().map(|t| t.0));
            let at = begins.map(|t| instant(t, now)).unwrap_or_default();
            said.push(format!("created, changed or begun {at}; too young to tell"));
        }
        Verdict::Unused => said.push("no token was asked for".to_owned()),
        Verdict::Narrower | Verdict::Used => {}
    }
    for (what, names) in [("roles", &j.roles), ("scopes", &j.scopes)] {
        if !names.is_empty() {
            said.push(format!("no token carried the {what} {}", names.join(", ")));
        }
    }
    if !j.agents.is_empty() {
        said.push(format!("not seen: the agents {}", j.agents.join(", ")));
    }
    said.join("; ")
}
