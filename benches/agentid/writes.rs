//! How many writes a renewal costs, by the API server's audit log.

use std::time::Duration;

use crate::bed::{Bed, agents_of, metric};
use crate::common::audit::{self, Entry, Mark};
use crate::common::{Operator, eventually};
use crate::create::names;
use crate::report::{Report, say};
use crate::watch::{SeenAgent, Sightings};

const AGENTS: usize = 300;
/// Two thirds of this go by between renewals.
const LIFETIME: &str = "limits: {tokenLifetime: 30s, minTokenLifetime: 10s}\n";
const WINDOW: Duration = Duration::from_secs(60);

/// A write of the operator, its Lease apart.
pub fn is_operators(entry: &Entry) -> bool {
    entry.user_agent.starts_with("agentid/") && !entry.is_of("leases")
}

/// `renewal_writes`.
pub async fn renewals(bed: &Bed, report: &mut Report) {
    if !report.wants(&["renewal_writes"]) {
        return;
    }
    let namespace = bed.namespace("bench-renew").await;
    let operator = bed.operator(LIFETIME).await;
    let watch = Sightings::of::<SeenAgent>(&bed.client, &agents_of(&namespace.name)).await;
    bed.create_agents(&namespace.name, names("renew", AGENTS)).await;
    watch.until("renewal_writes: agents Ready", AGENTS).await;
    say(format_args!("renewal_writes: {AGENTS} agents renew for {} s", WINDOW.as_secs()));
    // The counts of grants and resources are written up to two seconds later.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let start = audit::mark(bed.control_plane());
    let before = counts(bed, &operator, start).await;
    tokio::time::sleep(WINDOW).await;
    let after = counts(bed, &operator, start).await;
    operator.stop();
    bed.clear(&namespace.name).await;
    let (renewals, writes) = (after.0 - before.0, after.1 - before.1);
    assert!(renewals >= 300.0, "only {renewals} renewals in {WINDOW:?}");
    let of = format!("{writes} writes for {renewals} renewals of {AGENTS} agents in {} s", WINDOW.as_secs());
    report.add("renewal_writes", writes / renewals, of);
}

/// Renewals that the operator counts and writes that the API server logged, at a moment between two renewals.
async fn counts(bed: &Bed, operator: &Operator, start: Mark) -> (f64, f64) {
    const RENEWALS: &str = "agentid_secret_writes_total{cause=\"renewal\"}";
    eventually("a moment without a renewal", Duration::from_secs(30), || async {
        let before = metric(&operator.metrics().await, RENEWALS);
        let writes = u32::try_from(audit::count(bed.control_plane(), start, is_operators)).unwrap();
        let text = operator.metrics().await;
        let still = metric(&text, "agentid_work_in_progress") == 0.0;
        let same = (metric(&text, RENEWALS) - before).abs() < 0.5;
        if still && same { Ok((before, f64::from(writes))) } else { Err("renewals are under way".to_owned()) }
    })
    .await
}
