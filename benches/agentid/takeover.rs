//! How long agents wait for a new leader after the old one was killed, or held still, under load.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::bed::{Bed, agents_of, quiet};
use crate::common::{Namespace, Operator};
use crate::report::{Report, percentile, say};
use crate::watch::{SeenAgent, Sightings};

/// Agents created, before the fault as after it.
const PER_SECOND: u32 = 10;
const BEFORE: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
const POLL: Duration = Duration::from_millis(10);

/// `takeover_kill_s`, `takeover_freeze_s`.
pub async fn takeover(bed: &Bed, report: &mut Report) {
    for (figure, freeze) in [("takeover_kill_s", false), ("takeover_freeze_s", true)] {
        if !report.wants(&[figure]) {
            continue;
        }
        let namespace = bed.namespace("bench-takeover").await;
        let watch = Sightings::of::<SeenAgent>(&bed.client, &agents_of(&namespace.name)).await;
        let mut leader = bed.operator("").await;
        let mut times = Vec::new();
        for round in 1..=ROUNDS {
            let next = bed.standby(bed.setup("")).await;
            times.push(fault(bed, &namespace, &watch, &format!("round{round}"), leader, freeze).await);
            say(format_args!("{figure}: round {round} of {ROUNDS}: {:.1} s", times[round - 1]));
            leader = next;
            quiet(&leader).await;
        }
        leader.stop();
        drop(watch);
        bed.clear(&namespace.name).await;
        let of = format!(
            "until the first agent that was created after the fault is Ready, at {PER_SECOND} new agents/s; median of {ROUNDS} rounds, {:.1} to {:.1}",
            percentile(&mut times, 0.0),
            percentile(&mut times, 1.0),
        );
        report.add(figure, percentile(&mut times, 0.5), of);
    }
}

/// Seconds from the leader's end until an agent that came later is Ready.
async fn fault(
    bed: &Bed,
    namespace: &Namespace,
    watch: &Sightings,
    prefix: &str,
    leader: Operator,
    freeze: bool,
) -> f64 {
    let made: Mutex<Vec<(String, Instant)>> = Mutex::default();
    let load = async {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
        for i in 0.. {
            tick.tick().await;
            let name = format!("{prefix}-{i:05}");
            made.lock().unwrap().push((format!("{}/{name}", namespace.name), Instant::now()));
            bed.create_agent(&namespace.name, name).await.unwrap();
        }
    };
    let measure = async {
        tokio::time::sleep(BEFORE).await;
        let began = Instant::now();
        let frozen = if freeze {
            leader.pause();
            Some(leader)
        } else {
            leader.kill9();
            None
        };
        let served = loop {
            let first = {
                let made = made.lock().unwrap();
                made.iter().filter(|(_, at)| *at >= began).filter_map(|(key, _)| watch.at(key)).min()
            };
            if let Some(first) = first {
                break first - began;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "nobody has taken over");
            tokio::time::sleep(POLL).await;
        };
        (served, frozen)
    };
    let (served, frozen) = tokio::select! {
        measured = measure => measured,
        () = load => unreachable!("it never ends"),
    };
    if let Some(frozen) = frozen {
        frozen.resume();
        assert_eq!(frozen.wait().code(), Some(1), "who has lost the lease ends");
    }
    served.as_secs_f64()
}
