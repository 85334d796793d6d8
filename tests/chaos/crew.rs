//! Two operators and two replicas of the token service: kept running as a Deployment would, and broken on purpose.
//!
//! Invariant: a process that is down is down because of a fault that says so, or its end is told and it is started anew.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::common::{ControlPlane, Operator, Setup, http_get};
use crate::schedule::{Break, Fault};
use crate::service::{Service, Town};

const LOOK: Duration = Duration::from_millis(300);
const LOGS: &str = "info";
/// How long a fault of the leader waits for there to be one.
const PATIENCE: Duration = Duration::from_secs(40);
/// After a fault that concerns it, a replica may take so long until it must be up to date.
const RECOVERY: Duration = Duration::from_secs(20);

/// A process of either kind.
pub enum Member {
    Operator(Operator),
    Serve(Service),
}

impl Member {
    fn runs(&self) -> bool {
        match self {
            Self::Operator(o) => o.runs(),
            Self::Serve(s) => s.runs(),
        }
    }

    fn signal(&self, name: &str) {
        match self {
            Self::Operator(o) => o.signal_if_running(name),
            Self::Serve(s) => s.signal_if_running(name),
        }
    }

    fn wait(self) -> Option<i32> {
        match self {
            Self::Operator(o) => o.wait().code(),
            Self::Serve(s) => s.wait().code(),
        }
    }

    fn kill(self) {
        self.signal("KILL");
        tokio::task::block_in_place(|| self.wait());
    }

    fn admin(&self) -> &str {
        match self {
            Self::Operator(o) => &o.admin,
            Self::Serve(s) => &s.admin,
        }
    }

    fn log(&self) -> &PathBuf {
        match self {
            Self::Operator(o) => o.log(),
            Self::Serve(s) => s.log(),
        }
    }
}

/// A place in the crew.
struct Slot {
    name: &'static str,
    member: tokio::sync::Mutex<Option<Member>>,
}

/// What happened to the crew.
#[derive(Default)]
pub struct Diary {
    pub logs: Vec<PathBuf>,
    pub under_way: Vec<String>,
    pub faults: Vec<(Break, Duration)>,
    /// Processes that ended by themselves as they should: having lost the lease.
    pub gave_way: usize,
    /// Processes that ended by themselves as they should not.
    pub fell: Vec<String>,
    /// When each replica last was in a fault, or the control plane under it.
    trouble: [Option<Instant>; 2],
}

pub struct Crew {
    pub control_plane: ControlPlane,
    town: Town,
    ca: String,
    /// Where the two replicas listen.
    pub addresses: [String; 2],
    setups: [Setup; 2],
    libfaketime: Option<PathBuf>,
    operators: [Slot; 2],
    serves: [Slot; 2],
    /// One fault of the control plane at a time.
    control: tokio::sync::Mutex<()>,
    pub diary: Mutex<Diary>,
}

impl Crew {
    pub fn new(control_plane: ControlPlane, town: Town, ca: String, setups: [Setup; 2]) -> Self {
        let slot = |name| Slot { name, member: tokio::sync::Mutex::new(None) };
        let second = format!("127.0.0.1:{}", crate::service::free_port());
        let addresses = [town.issuer.trim_start_matches("https://").to_owned(), second];
        Self {
            control_plane,
            town,
            ca,
            addresses,
            setups,
            libfaketime: libfaketime(),
            operators: [slot("operator 0"), slot("operator 1")],
            serves: [slot("serve 0"), slot("serve 1")],
            control: tokio::sync::Mutex::default(),
            diary: Mutex::default(),
        }
    }

    /// Whether clocks can be shifted here.
    pub const fn can_shift_clocks(&self) -> bool {
        self.libfaketime.is_some()
    }

    pub fn issuer(&self) -> &str {
        &self.town.issuer
    }

    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// Takes in an operator that runs already.
    pub async fn take(&self, operator: Operator) {
        let member = Member::Operator(operator);
        self.diary.lock().unwrap().logs.push(member.log().clone());
        *self.operators[0].member.lock().await = Some(member);
    }

    fn spawn(&self, operators: bool, slot: usize, shift: Option<i64>) -> Member {
        let member = if operators {
            let mut setup = self.setups[slot].clone();
            if let (Some(library), Some(shift)) = (&self.libfaketime, shift) {
                setup.environment.push(("LD_PRELOAD".to_owned(), library.to_string_lossy().into_owned()));
                setup.environment.push(("FAKETIME".to_owned(), format!("{shift:+}s")));
            }
            Member::Operator(Operator::spawn(&self.control_plane, &setup))
        } else {
            let (ca, at) = (self.ca.clone(), &self.addresses[slot]);
            Member::Serve(self.town.spawn_at(&self.control_plane, at, ca, LOGS))
        };
        self.diary.lock().unwrap().logs.push(member.log().clone());
        member
    }

    /// Keeps all running until told otherwise.
    pub async fn keep(&self, stop: CancellationToken) {
        for (operators, slot) in [(true, 1), (false, 0), (false, 1)] {
            *self.slot(operators, slot).member.lock().await = Some(self.spawn(operators, slot, None));
        }
        while !stop.is_cancelled() {
            for (operators, slot) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
                let place = self.slot(operators, slot);
                let mut member = place.member.lock().await;
                if member.as_ref().is_none_or(Member::runs) {
                    continue;
                }
                let ended = member.take().unwrap();
                let log = ended.log().clone();
                let code = tokio::task::block_in_place(|| ended.wait());
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                {
                    let mut diary = self.diary.lock().unwrap();
                    if operators && code == Some(1) && said.contains(r#""message":"leadership lost""#) {
                        diary.gave_way += 1;
                    } else {
                        let why = format!("{} ended by itself ({code:?}): {}", place.name, log.display());
                        diary.fell.push(why);
                    }
                }
                sleep(Duration::from_secs(1)).await;
                *member = Some(self.spawn(operators, slot, None));
            }
            sleep(LOOK).await;
        }
    }

    const fn slot(&self, operators: bool, slot: usize) -> &Slot {
        if operators { &self.operators[slot] } else { &self.serves[slot] }
    }

    /// Lets a fault happen at its time; returns when it is over.
    pub async fn fault(&self, fault: Fault, began: Instant) {
        sleep_until((began + fault.at).into()).await;
        match fault.what {
            Break::ApiServerKilled | Break::EtcdPaused => self.break_control_plane(fault).await,
            Break::OperatorKilled => self.kill(true, fault).await,
            Break::ServeKilled => self.kill(false, fault).await,
            Break::ClockShifted if self.can_shift_clocks() => self.shift_clock(fault).await,
            Break::ClockShifted => {}
            Break::LeaderFrozen => {
                let slot = self.leader_within(PATIENCE).await.unwrap_or(fault.slot);
                self.freeze(true, Fault { slot, ..fault }).await;
            }
            Break::ServeFrozen => self.freeze(false, fault).await,
        }
    }

    async fn break_control_plane(&self, fault: Fault) {
        let _turn = self.control.lock().await;
        let mark = self.begin(fault, "");
        let etcd = fault.what == Break::EtcdPaused;
        let control_plane = &self.control_plane;
        tokio::task::block_in_place(|| {
            if etcd { control_plane.pause_etcd() } else { control_plane.kill_apiserver() }
        });
        sleep(fault.lasts).await;
        tokio::task::block_in_place(|| {
            if etcd { control_plane.resume_etcd() } else { control_plane.start_apiserver() }
        });
        self.end(fault, mark, &[0, 1]);
    }

    /// Kills it and starts it again.
    async fn kill(&self, operators: bool, fault: Fault) {
        let place = self.slot(operators, fault.slot);
        let mark = self.begin(fault, &format!(" {}", place.name));
        let mut member = place.member.lock().await;
        if let Some(member) = member.take() {
            member.kill();
        }
        sleep(fault.lasts).await;
        *member = Some(self.spawn(operators, fault.slot, None));
        drop(member);
        self.end(fault, mark, if operators { &[] } else { std::slice::from_ref(&fault.slot) });
    }

    /// Lets an operator lead whose clock is off: it stands by, and the one that leads is taken away.
    async fn shift_clock(&self, fault: Fault) {
        let leads = self.leader_within(PATIENCE).await.unwrap_or(1 - fault.slot);
        let (mine, other) = (self.slot(true, 1 - leads), self.slot(true, leads));
        let mark = self.begin(fault, &format!(" {} {:+} s", mine.name, fault.shift));
        {
            let mut member = mine.member.lock().await;
            if let Some(member) = member.take() {
                member.kill();
            }
            *member = Some(self.spawn(true, 1 - leads, Some(fault.shift)));
        }
        sleep(Duration::from_secs(3)).await;
        {
            let mut member = other.member.lock().await;
            if let Some(member) = member.take() {
                member.kill();
            }
            // The lease, and a little.
            sleep(Duration::from_secs(18)).await;
            *member = Some(self.spawn(true, leads, None));
        }
        sleep(fault.lasts).await;
        {
            let mut member = mine.member.lock().await;
            if let Some(member) = member.take() {
                member.kill();
            }
            *member = Some(self.spawn(true, 1 - leads, None));
        }
        self.end(fault, mark, &[]);
    }

    async fn freeze(&self, operators: bool, fault: Fault) {
        let place = self.slot(operators, fault.slot);
        let mark = self.begin(fault, &format!(" {}", place.name));
        for (signal, then) in [("STOP", fault.lasts), ("CONT", Duration::ZERO)] {
            if let Some(member) = &*place.member.lock().await {
                member.signal(signal);
            }
            sleep(then).await;
        }
        self.end(fault, mark, if operators { &[] } else { std::slice::from_ref(&fault.slot) });
    }

    fn begin(&self, fault: Fault, more: &str) -> (String, Instant) {
        let text = format!("{}{more}", fault.what);
        self.diary.lock().unwrap().under_way.push(text.clone());
        (text, Instant::now())
    }

    fn end(&self, fault: Fault, (text, since): (String, Instant), replicas: &[usize]) {
        let mut diary = self.diary.lock().unwrap();
        if let Some(at) = diary.under_way.iter().position(|t| *t == text) {
            diary.under_way.swap_remove(at);
        }
        diary.faults.push((fault.what, since.elapsed()));
        for replica in replicas {
            diary.trouble[*replica] = Some(Instant::now());
        }
    }

    /// Since when a replica has been spared by every fault that could keep news from it; `None` while it is not.
    pub fn calm_since(&self, replica: usize, began: Instant) -> Option<Instant> {
        let diary = self.diary.lock().unwrap();
        let own = self.serves[replica].name;
        let hit = |t: &String| t.contains(own) || t.starts_with("API server") || t.starts_with("etcd");
        if diary.under_way.iter().any(hit) {
            return None;
        }
        Some(diary.trouble[replica].map_or(began, |t| t + RECOVERY))
    }

    async fn leader_within(&self, patience: Duration) -> Option<usize> {
        let began = Instant::now();
        loop {
            let leader = self.leader().await;
            if leader.is_some() || began.elapsed() > patience {
                return leader;
            }
            sleep(LOOK).await;
        }
    }

    /// Which operator says that it leads.
    pub async fn leader(&self) -> Option<usize> {
        for (slot, place) in self.operators.iter().enumerate() {
            let admin = place.member.lock().await.as_ref().map(|m| m.admin().to_owned());
            let Some(admin) = admin else { continue };
            let metrics = tokio::time::timeout(Duration::from_secs(1), http_get(&admin, "/metrics")).await;
            if metrics.is_ok_and(|m| m.is_ok_and(|(_, text)| text.lines().any(|l| l == "agentid_leader 1"))) {
                return Some(slot);
            }
        }
        None
    }

    /// Who is not ready, and what it says.
    pub async fn unready(&self) -> Vec<String> {
        let mut unready = Vec::new();
        for place in self.operators.iter().chain(&self.serves) {
            let admin = place.member.lock().await.as_ref().map(|m| m.admin().to_owned());
            let Some(admin) = admin else {
                unready.push(format!("{} is down", place.name));
                continue;
            };
            let answer = tokio::time::timeout(Duration::from_secs(5), http_get(&admin, "/readyz")).await;
            match answer {
                // What it adds is a watch that is too old.
                Ok(Ok((200, body))) if body.trim() == "ok" => {}
                Ok(Ok((code, body))) => unready.push(format!("{}: {code} {body}", place.name)),
                other => unready.push(format!("{}: {other:?}", place.name)),
            }
        }
        unready
    }

    /// Ends all, orderly; gives who did not end so.
    pub async fn stop(&self) -> Vec<String> {
        let mut bad = Vec::new();
        for place in self.serves.iter().chain(&self.operators) {
            if let Some(member) = place.member.lock().await.take() {
                member.signal("TERM");
                let code = tokio::task::block_in_place(|| member.wait());
                if code != Some(0) {
                    bad.push(format!("{} ended with {code:?} on SIGTERM", place.name));
                }
            }
        }
        for path in self.setups.iter().filter_map(|s| s.kubeconfig.as_ref()) {
            let _ = std::fs::remove_file(path);
        }
        bad
    }
}

/// The Debian package libfaketime.
fn libfaketime() -> Option<PathBuf> {
    let dirs = std::fs::read_dir("/usr/lib").ok()?;
    dirs.filter_map(Result::ok).map(|d| d.path().join("faketime/libfaketime.so.1")).find(|p| p.exists())
}
