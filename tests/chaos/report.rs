//! What is said while it runs, and the table at the end.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::common::figures::{figure, keep};
use crate::common::target_dir;
use crate::crew::Diary;
use crate::schedule::Schedule;

/// A line of progress.
pub fn say(text: impl Display) {
    eprintln!("chaos: {text}");
}

/// So many of a check's findings are shown.
const SHOWN: usize = 12;

/// The checks and what they found.
#[derive(Default)]
pub struct Report {
    rows: Vec<(&'static str, usize, String)>,
    findings: Vec<(&'static str, Vec<String>)>,
}

impl Report {
    /// A check that must find nothing; `of` says what was looked at.
    pub fn check(&mut self, name: &'static str, found: Vec<String>, of: impl Display) {
        self.rows.push((name, found.len(), of.to_string()));
        if !found.is_empty() {
            self.findings.push((name, found));
        }
    }

    pub fn passed(&self) -> bool {
        self.findings.is_empty()
    }

    /// How many a check found.
    fn count(&self, name: &str) -> usize {
        self.rows.iter().filter(|r| r.0 == name).map(|r| r.1).sum()
    }

    /// Prints the table.
    pub fn print(&self, schedule: &Schedule, events: &BTreeMap<&'static str, usize>, diary: &Diary) {
        println!("\n{:<28} {:>7}", "event", "made");
        for (word, count) in events {
            println!("{word:<28} {count:>7}");
        }
        println!("{:<28} {:>7}", "all", events.values().sum::<usize>());
        println!("\n{:<28} {:>7} seconds", "fault", "times");
        let mut faults: BTreeMap<_, (usize, f64)> = BTreeMap::new();
        for (what, lasted) in &diary.faults {
            let sum = faults.entry(*what).or_default();
            *sum = (sum.0 + 1, sum.1 + lasted.as_secs_f64());
        }
        for (what, (times, seconds)) in faults {
            println!("{what:<28} {times:>7} {seconds:.0}");
        }
        println!("\n{:<28} {:>7} of", "check", "found");
        for (name, count, of) in &self.rows {
            println!("{name:<28} {count:>7} {of}");
        }
        for (name, found) in &self.findings {
            println!("\n{name}:");
            for one in found.iter().take(SHOWN) {
                println!("  {one}");
            }
            if found.len() > SHOWN {
                println!("  … {} in all", found.len());
            }
        }
        let logs = target_dir().join("test-logs");
        println!(
            "\n{}: SEED={} (schedule {}); logs in {}",
            if self.passed() { "PASS" } else { "FAIL" },
            schedule.seed,
            schedule.digest(),
            logs.display()
        );
    }

    /// Puts the figures beside those of `make bench`.
    pub fn write(&self, of: &str) {
        let found = |(name, check)| figure(name, self.count(check), "found", of);
        keep(
            &[
                ("chaos_orphans", "orphans"),
                ("chaos_valid_after_revoke", "valid after revoke"),
                ("chaos_lost", "lost"),
            ]
            .map(found),
        );
    }
}

/// What is to be said when the bound came before the end.
pub fn not_made(made: usize, events: usize) -> Vec<String> {
    let missing = events.saturating_sub(made);
    let said = || {
        format!(
            "{missing} of {events} events were not made in time: give it more (CHAOS_MINUTES=<n>) or make fewer (CHAOS_EVENTS=<n>)"
        )
    };
    (missing > 0).then(said).into_iter().collect()
}

#[test]
fn a_run_that_made_too_little_does_not_pass() {
    let mut report = Report::default();
    report.check("events", not_made(20_001, 20_001), "20001");
    assert!(report.passed());
    report.check("events", not_made(20_000, 20_001), "20001");
    assert!(!report.passed());
}
