//! The answer for people.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::Trace;
use super::facts::{Now, Stands};
use crate::cli::text::{instant, printable};
use crate::issue::AuditLine;

impl Trace {
    /// For people.
    pub(super) fn text(&self, now: Timestamp) -> String {
        let mut out = format!("Token {}\n", printable(&self.jti));
        for (word, said) in lines(&self.mint, now) {
            // Writing to a String can't fail.
            let _ = writeln!(out, "  {word:<9} {}", printable(&said));
        }
        if let Some(now) = &self.now {
            tell(&mut out, now);
        }
        out
    }
}

fn lines(mint: &AuditLine, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let mut line = |word, text: Option<String>| lines.extend(text.map(|t| (word, t)));
    let of = |text: &Option<String>| text.clone().unwrap_or_else(|| "not said".to_owned());
    let names = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let and = |text: &str, more: &Option<String>, how: &str| match more {
        Some(more) => format!("{text} ({how}{more})"),
        None => text.to_owned(),
    };
    let namespace = of(&mint.namespace);
    line("agent", Some(format!("{namespace}/{}", of(&mint.name))));
    line("id", mint.agent_id.clone());
    line("blueprint", mint.blueprint.clone());
    line("mode", mint.mode.clone());
    line("for", mint.on_behalf_of.clone());
    line("resource", mint.resource.clone());
    line("audience", mint.audience.clone());
    line("grant", mint.grant.as_ref().map(|g| format!("{namespace}/{g}")));
    line("roles", Some(names(&mint.roles)));
    line("scopes", Some(names(&mint.scopes)));
    line("pod", mint.pod.as_ref().map(|p| and(&format!("{namespace}/{p}"), &mint.pod_uid, "UID ")));
    line("account", mint.service_account.clone());
    line(
        "asked",
        mint.endpoint.as_ref().map(|e| match e.as_str() {
            "secret" => "by the operator, for the agent's Secret".to_owned(),
            path => and(&format!("at {path}"), &mint.source, "from "),
        }),
    );
    // Lines have fractions of a second, which help nobody here.
    let minted = mint.time.map(|t| Timestamp::from_second(t.as_second()).unwrap_or(t));
    line("minted", minted.map(|t| instant(t, now)));
    line("expires", mint.expires_at.map(|t| instant(t, now)));
    line("key", mint.kid.clone());
    let status = mint.status_list.as_ref().zip(mint.status_index);
    let status = status.map(|(list, index)| format!("entry {index} of status list {list}"));
    line("status", Some(status.unwrap_or_else(|| "in no status list".to_owned())));
    lines
}

fn tell(out: &mut String, now: &Now) {
    let word = match now.stands {
        Stands::Accepted => "Accepted now.",
        Stands::Refused => "Refused now.",
        Stands::Unknown => "Whether it is accepted now can't be told.",
    };
    let _ = writeln!(out, "\n{word}");
    if let (Some(reason), Some(message)) = (now.reason, &now.message) {
        let _ = writeln!(out, "  {:<9} {}", "reason", printable(&format!("{reason}: {message}")));
    }
    for (word, fact) in
        [("agent", Some(&now.agent)), ("grant", now.grant.as_ref()), ("pod", now.pod.as_ref())]
    {
        if let Some(fact) = fact {
            let _ = writeln!(out, "  {word:<9} {}", printable(&fact.text));
        }
    }
    if !now.notes.is_empty() {
        out.push('\n');
    }
    for note in &now.notes {
        let _ = writeln!(out, "Note: {}", printable(note));
    }
}
