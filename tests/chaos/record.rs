//! What the record says afterwards: the API server's audit log about who led, the processes' logs about how they fared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What a leader's writes say.
#[derive(Default)]
pub struct Leaders {
    pub terms: usize,
    pub writes: usize,
    /// Writes of one that had been followed by another.
    pub late: Vec<String>,
    /// Those that threads were in the middle of sending when they were held still: no client can help that
    /// (docs/decisions/028-what-a-lease-does-not-fence.md).
    pub held: usize,
}

/// Reads the audit log: whoever has taken the Lease writes, and nobody else does until the Lease is taken again.
/// The operators are told apart by their users.
pub fn leaders(log: &Path, users: &[String]) -> Leaders {
    let file = File::open(log).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
    let mut takeovers: Vec<(String, usize)> = Vec::new();
    // When a write was received, by whom, and of what.
    let mut writes: Vec<(String, usize, String)> = Vec::new();
    let mut leases: Vec<(String, usize)> = Vec::new();
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        let Ok(entry) = serde_json::from_slice::<Value>(&line) else { continue };
        let user = entry["user"]["username"].as_str().unwrap_or_default();
        let Some(who) = users.iter().position(|u| u == user) else { continue };
        if !entry["responseStatus"]["code"].as_u64().is_some_and(|c| (200..300).contains(&c)) {
            continue;
        }
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        match object["resource"].as_str().unwrap_or_default() {
            "leases" => leases.push((text("stageTimestamp"), who)),
            // Told by whoever sees something, leader or not.
            "events" => {}
            resource => {
                let told = format!("{} {resource} {}/{}", entry["verb"], object["namespace"], object["name"]);
                writes.push((text("requestReceivedTimestamp"), who, told));
            }
        }
    }
    leases.sort();
    for lease in leases {
        if takeovers.last().is_none_or(|(_, who)| *who != lease.1) {
            takeovers.push(lease);
        }
    }
    let mut found = Leaders { terms: takeovers.len(), writes: writes.len(), ..Leaders::default() };
    let mut late: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (at, who, told) in writes {
        // RFC 3339 in UTC with six digits: as texts they are in order.
        let holder = takeovers.iter().take_while(|(since, _)| *since <= at).last();
        if let Some((since, holder)) = holder.filter(|(_, holder)| *holder != who) {
            let (who, holder) = (&users[who], &users[*holder]);
            let told = format!("{who} wrote {told} at {at}; {holder} leads since {since}");
            late.entry(since.clone()).or_default().push(told);
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for writes in late.into_values() {
        if writes.len() <= threads {
            found.held += writes.len();
        } else {
            found.late.extend(writes);
        }
    }
    found
}

/// What should not be in logs.
#[derive(Default)]
pub struct Complaints {
    pub panics: Vec<String>,
    pub errors: BTreeMap<String, (usize, PathBuf)>,
}

/// What a process may call an error while things break around it.
const EXPECTED: [&str; 3] = ["was lost (", "no signing keys: ", "can't be reached: "];

/// Reads the logs.
pub fn complaints(logs: &[PathBuf]) -> Complaints {
    let mut found = Complaints::default();
    for log in logs {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        for line in text.lines() {
            if line.contains("panicked") || line.contains("a panic in") || line.contains("a panic over") {
                found.panics.push(format!("{}: {line}", log.display()));
            }
            if line.contains(r#""level":"ERROR""#) && !EXPECTED.iter().any(|e| line.contains(e)) {
                let entry: Value = serde_json::from_str(line).unwrap_or_default();
                let told = entry["message"].as_str().unwrap_or(line).to_owned();
                found.errors.entry(told).or_insert_with(|| (0, log.clone())).0 += 1;
            }
        }
    }
    found
}
