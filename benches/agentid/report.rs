//! The figures: their goals, the table, and `target/bench.jsonl`.

use std::fmt;

use crate::common::figures::{figure, keep};

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Less than this.
    Below(f64),
    /// This and nothing else.
    Exactly(f64),
    /// Told for comparison.
    Told,
}

impl Goal {
    fn is_met(self, value: f64) -> Option<bool> {
        Some(match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
            Self::Below(goal) => value < goal,
            Self::Exactly(goal) => (value - goal).abs() < 1e-9,
            Self::Told => return None,
        })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::AtLeast(goal) => format!(">= {goal}"),
            Self::AtMost(goal) => format!("<= {goal}"),
            Self::Below(goal) => format!("< {goal}"),
            Self::Exactly(goal) => format!("{goal}"),
            Self::Told => "-".to_owned(),
        };
        f.pad(&text)
    }
}

/// Every figure: its name, unit and goal.
const FIGURES: [(&str, &str, Goal); 25] = [
    ("create_rate", "ratio", Goal::AtLeast(0.9)),
    ("create_latency_p50", "s", Goal::Told),
    ("create_latency_p99", "s", Goal::Told),
    ("burst_rate", "agents/s", Goal::Told),
    ("burst_writes_per_agent", "writes", Goal::AtMost(3.0)),
    ("cleanup_rate", "ratio", Goal::AtLeast(0.5)),
    ("renewal_writes", "writes", Goal::Exactly(1.0)),
    ("memory_foreign_secrets", "ratio", Goal::AtMost(1.05)),
    ("memory_per_agent", "bytes", Goal::AtMost(6000.0)),
    ("restart_writes", "writes", Goal::Exactly(0.0)),
    ("memory_at_rest_operator", "bytes", Goal::Told),
    ("memory_at_rest_serve", "bytes", Goal::Told),
    ("upgrade_writes", "writes", Goal::Exactly(0.0)),
    ("takeover_kill_s", "s", Goal::AtMost(20.0)),
    ("takeover_freeze_s", "s", Goal::AtMost(20.0)),
    ("withdraw_busy_p99", "s", Goal::Below(1.0)),
    ("token_rate", "ratio", Goal::AtLeast(0.5)),
    ("token_latency_p50", "s", Goal::Told),
    ("token_latency_p99", "s", Goal::Told),
    ("revoke_p99", "s", Goal::Below(1.0)),
    ("suspend_refused_p99", "s", Goal::Below(2.0)),
    ("suspend_emptied_p99", "s", Goal::Told),
    ("statuslist_bytes", "bytes", Goal::Told),
    ("statuslist_ms", "ms", Goal::Below(100.0)),
    ("image_bytes", "bytes", Goal::Told),
];

/// The figures of one run.
pub struct Report {
    only: Option<String>,
    rows: Vec<(usize, f64, String)>,
}

impl Report {
    /// A report of one figure, or of all.
    ///
    /// # Errors
    /// The names, if there is no such figure.
    pub fn new(only: Option<String>) -> Result<Self, String> {
        let names: Vec<_> = FIGURES.iter().map(|f| f.0).collect();
        match only {
            Some(name) if !names.contains(&name.as_str()) => {
                Err(format!("there is no figure {name:?}; there are {}", names.join(", ")))
            }
            only => Ok(Self { only, rows: Vec::new() }),
        }
    }

    /// Whether any of these figures is asked for.
    pub fn wants(&self, names: &[&str]) -> bool {
        self.only.as_deref().is_none_or(|only| names.contains(&only))
    }

    /// Whether figures beside these are asked for.
    pub fn wants_others(&self, names: &[&str]) -> bool {
        self.only.as_deref().is_none_or(|only| !names.contains(&only))
    }

    /// Tells a figure, and adds it to table and file if it is asked for; `of` says what was measured.
    pub fn add(&mut self, name: &str, value: f64, of: String) {
        let index = FIGURES.iter().position(|f| f.0 == name).expect("a figure of the table");
        say(format_args!("{name} = {} {} ({of})", short(value), FIGURES[index].1));
        if !self.wants(&[name]) {
            return;
        }
        self.rows.push((index, value, of));
        self.write();
    }

    /// Replaces the lines of this run's figures; the others of earlier runs stay.
    fn write(&self) {
        let rows = self.rows.iter().map(|(i, value, of)| figure(FIGURES[*i].0, *value, FIGURES[*i].1, of));
        keep(&rows.collect::<Vec<_>>());
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{:<24} {:>10} {:<8} {:<10} {:<4} of", "figure", "value", "unit", "goal", "met");
        for (i, value, of) in &self.rows {
            let (name, unit, goal) = FIGURES[*i];
            let met = goal.is_met(*value).map_or("-", |met| if met { "yes" } else { "NO" });
            println!("{name:<24} {:>10} {unit:<8} {goal:<10} {met:<4} {of}", short(*value));
        }
    }
}

fn short(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// A line of progress.
pub fn say(text: impl fmt::Display) {
    eprintln!("bench: {text}");
}

/// The value below which this share of the values lies, by nearest rank; sorts them.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = (share * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}
