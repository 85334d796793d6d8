//! Metrics as a scraper gets them, as docs/metrics.md tells them, and as queries use them.
//!
//! Use with `#[path = "../common/metrics.rs"] mod metrics;`.
#![allow(dead_code, reason = "each test crate uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Names of labels.
pub type Labels = BTreeSet<String>;

/// A sample's name and labels with their values, and its value.
pub fn samples(text: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|line| {
            let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
            let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("no labels: {line}"));
            let pairs = labels.split("\",").filter(|p| !p.is_empty()).map(|pair| {
                let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
                (label.to_owned(), value.trim_end_matches('"').to_owned())
            });
            (name.to_owned(), pairs.collect(), value.parse().unwrap())
        })
        .collect()
}

/// The value of the one sample of this name with these labels among its own; 0 where there is none.
pub fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |of: &BTreeMap<String, String>| {
        labels.iter().all(|(label, value)| of.get(*label).map(String::as_str) == Some(*value))
    };
    samples(text).iter().filter(|(n, of, _)| n == name && has(of)).map(|(_, _, v)| v).sum()
}

/// What a scrape offers: by the names that docs/metrics.md has, with the labels that were seen.
pub fn scraped(text: &str) -> BTreeMap<String, Labels> {
    let types = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' '));
    let mut found: BTreeMap<String, Labels> = types
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        .map(|name| (name, Labels::new()))
        .collect();
    for (name, labels, _) in samples(text) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
        let base = base.filter(|b| found.contains_key(*b)).unwrap_or(&name).to_owned();
        let known = found.get_mut(&base).unwrap_or_else(|| panic!("{name} has no TYPE"));
        known.extend(labels.into_keys().filter(|l| l != "le"));
    }
    found
}

/// What docs/metrics.md promises: by name, with the labels.
pub fn documented() -> BTreeMap<String, Labels> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut told = BTreeMap::new();
    for row in page.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').collect();
        let labels: Labels = quoted(cells[2]).into_iter().collect();
        for name in quoted(cells[1]) {
            assert!(told.insert(name.clone(), labels.clone()).is_none(), "{name} is told twice");
        }
    }
    assert!(told.len() > 40, "{told:?}");
    told
}

/// The metrics that a query names, by their documented names.
pub fn used(query: &str, known: &BTreeMap<String, Labels>) -> Result<BTreeSet<String>, String> {
    let mut outside = String::new();
    let mut in_text = false;
    for c in query.chars() {
        in_text ^= c == '"';
        outside.push(if in_text { ' ' } else { c });
    }
    let words = outside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|w| w.starts_with("agentid_") || w.starts_with("process_"));
    ours.map(|word| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| word.strip_suffix(s));
        let name = [word].into_iter().chain(base).find(|name| known.contains_key(*name));
        name.map(str::to_owned).ok_or_else(|| format!("{word} is no metric: {query}"))
    })
    .collect()
}
