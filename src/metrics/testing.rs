//! What the tests of the alerts begin with, for the tests of what is told.
//!
//! Invariant: a counter that an alert is tested with is one that a process tells from its start, as 0: beside one that
//! comes with its first increase, that increase is not seen, and a sum with it is nothing.

/// Holds what a process tells before it has done anything against the counters that the alerts are tested with.
pub fn tells_counters_from_the_start(text: &str, whose: impl Fn(&str) -> bool) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alerts/alerts.test.yaml");
    let tests = std::fs::read_to_string(path).unwrap();
    let mut seen = 0;
    for line in tests.lines() {
        let Some((series, _)) = line.split_once("series: '").and_then(|(_, rest)| rest.split_once('\''))
        else {
            continue;
        };
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        // Of calls there is no list: their alert takes a share of what there was.
        if !name.ends_with("_total") || name == "agentid_api_requests_total" || !whose(name) {
            continue;
        }
        // What a scraper adds.
        let own = labels.split(',').filter(|l| !l.starts_with("instance=") && !l.starts_with("job="));
        let own: Vec<_> = own.filter(|l| !l.is_empty()).collect();
        let told = |l: &str| {
            l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && own.iter().all(|o| l.contains(o))
        };
        assert!(text.lines().any(told), "{series} is not told from the start:\n{text}");
        seen += 1;
    }
    assert!(seen > 3, "{path} begins with {seen} of them");
}
