//! The answer for people.

use std::fmt::Write as _;

use super::findings::{Check, Report};
use crate::cli::text::printable;

impl Check {
    const fn title(self) -> &'static str {
        match self {
            Self::Orphan => "Left behind",
            Self::Conflict => "In each other's way",
            Self::BoundByHand => "Roles bound to agents by hand",
            Self::DefaultToken => "Pods with a default service-account token",
            Self::BroadRights => "Rights through groups that everybody is in",
        }
    }
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let mut check = None;
        for f in &self.findings {
            if check != Some(f.check) {
                writeln!(out, "{}", f.check.title())?;
                check = Some(f.check);
            }
            writeln!(out, "  {}\n    {}", printable(&f.object), printable(&f.message))?;
            writeln!(out, "    $ {}", printable(&f.remedy))?;
        }
        if self.findings.is_empty() {
            writeln!(out, "nothing found")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {}", printable(note)))
    }
}
