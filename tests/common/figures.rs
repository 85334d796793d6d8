//! `target/bench.jsonl`: what benches and tests have measured.
//!
//! Invariant: one line a figure, the newest.

use std::fs;

use serde_json::{Value, json};

use super::target_dir;

/// A figure: its name, its value and unit, and what was measured.
#[must_use]
pub fn figure(name: &str, value: impl Into<Value>, unit: &str, of: &str) -> Value {
    json!({"bench": name, "value": value.into(), "unit": unit, "of": of})
}

/// Puts figures in the place of those of the same name.
pub fn keep(figures: &[Value]) {
    let path = target_dir().join("bench.jsonl");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let earlier = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let others = earlier.filter(|line| figures.iter().all(|f| f["bench"] != line["bench"]));
    let lines: String = others.chain(figures.iter().cloned()).map(|l| format!("{l}\n")).collect();
    fs::write(&path, lines).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
