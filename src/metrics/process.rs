//! The process itself, under the names that every exporter uses. From `/proc`: where there is none, nothing is told.

use std::sync::OnceLock;

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// proc(5): Linux counts a program's time in hundredths of a second, whatever it does itself.
const TICKS: f64 = 100.0;

/// What is read anew for every scrape.
struct Stat {
    cpu_seconds: f64,
    started_ticks: f64,
    threads: i64,
}

pub(super) fn register(registry: &mut Registry) {
    if let Some(stat) = stat() {
        let help = "Processor time used, of user and system";
        registry.register("process_cpu_seconds", help, ConstCounter::new(stat.cpu_seconds));
        registry.register("process_threads", "Threads", ConstGauge::new(stat.threads));
        if let Some(start) = started(&stat) {
            let help = "When the process was started";
            registry.register("process_start_time_seconds", help, ConstGauge::new(start));
        }
    }
    if let Some((resident, virtual_size)) = memory() {
        registry.register("process_resident_memory_bytes", "Resident memory", ConstGauge::new(resident));
        registry.register("process_virtual_memory_bytes", "Virtual memory", ConstGauge::new(virtual_size));
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let open = super::number(open.count());
        registry.register("process_open_fds", "Open file descriptors", ConstGauge::new(open));
    }
    if let Some(most) = most_files() {
        registry.register("process_max_fds", "The most file descriptors", ConstGauge::new(most));
    }
}

fn stat() -> Option<Stat> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // proc(5): the second field, in brackets, may hold spaces; what follows it begins with the third.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) / TICKS,
        started_ticks: field(22)?,
        threads: fields.get(20 - 3)?.parse().ok()?,
    })
}

/// In seconds since the epoch: read once, so that it does not move with the clock.
fn started(stat: &Stat) -> Option<f64> {
    static STARTED: OnceLock<Option<f64>> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = boot.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot + stat.started_ticks / TICKS)
    })
}

/// Resident and virtual, in bytes.
fn memory() -> Option<(i64, i64)> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse::<i64>().ok().map(|kb| kb * 1024)
    };
    Some((bytes("VmRSS:")?, bytes("VmSize:")?))
}

fn most_files() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
