//! The answer for people.

use std::fmt::Write as _;

use super::Report;
use super::inventory::Group;
use crate::cli::look::named;
use crate::cli::text::printable;

/// So many objects of a kind are named; the rest are counted.
const NAMED: usize = 10;

impl Report {
    /// How many objects are there.
    pub(super) fn objects(&self) -> usize {
        self.found.iter().map(|g| g.objects.len()).sum()
    }

    /// What is asked at the terminal.
    pub(super) fn question(&self) -> String {
        format!(
            "Delete these {} objects for good, and with them every credential of agentid's?",
            self.objects()
        )
    }

    /// The objects: those that are left where it was done.
    pub(super) fn names(&self) -> Vec<String> {
        let groups = self.left.as_ref().unwrap_or(&self.found);
        groups.iter().flat_map(|g| g.objects.iter().map(|o| named(g.kind, &o.name))).collect()
    }

    /// What is there, for people.
    pub(super) fn text(&self, everything: bool) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = self.write(&mut out, everything);
        out
    }

    fn write(&self, out: &mut String, everything: bool) -> std::fmt::Result {
        groups(out, &self.found)?;
        match self.objects() {
            0 => writeln!(out, "nothing of agentid's is there")?,
            n => writeln!(out, "{n} objects of agentid's are there")?,
        }
        if let Some(leader) = &self.leader {
            writeln!(out, "the operator {} leads", printable(leader))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {}", printable(note)))?;
        if !everything && self.objects() > 0 {
            let first =
                if self.leader.is_some() { "take the operator away (helm uninstall), then " } else { "" };
            writeln!(
                out,
                "Nothing was deleted: without the operator all of this stays as it is, and tokens live until they expire. To \
                 leave nothing: {first}agentid uninstall --everything"
            )?;
        }
        Ok(())
    }

    /// What was done, for people.
    pub(super) fn done(&self) -> String {
        let mut out = format!("{} objects were deleted", self.deleted);
        let left = self.left.as_deref().unwrap_or_default();
        if left.is_empty() {
            return out + "; nothing of agentid's is left\n";
        }
        out.push_str("; these are left:\n");
        let _ = groups(&mut out, left);
        out
    }
}

fn groups(out: &mut String, groups: &[Group]) -> std::fmt::Result {
    for group in groups.iter().filter(|g| !g.objects.is_empty()) {
        writeln!(out, "{} {}", group.objects.len(), group.kind)?;
        for object in group.objects.iter().take(NAMED) {
            let place =
                if object.namespace.is_empty() { String::new() } else { format!("{}/", object.namespace) };
            writeln!(out, "  {}", printable(&format!("{place}{}", object.name)))?;
        }
        if let Some(more @ 1..) = group.objects.len().checked_sub(NAMED) {
            writeln!(out, "  and {more} more")?;
        }
    }
    Ok(())
}
