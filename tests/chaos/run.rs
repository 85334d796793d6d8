//! One run: the world is made, events and faults run side by side, everything comes to rest, and the end is checked.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::Client;
use kube::config::Kubeconfig;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::act::{Actor, Made};
use crate::check::{Differences, Seen};
use crate::common::{ControlPlane, Operator, Setup, target_dir, unique};
use crate::crew::Crew;
use crate::dice::Dice;
use crate::model::Model;
use crate::record;
use crate::report::{Report, not_made, say};
use crate::schedule::{Schedule, Thing};
use crate::service::Town;
use crate::tokens::{MAX_STALE, Thief, account_token};
use crate::world::{self, CLUSTER_ROLE, SYSTEM, apply};

const PROGRESS: Duration = Duration::from_secs(10);
/// How long the world may take to come to rest once nothing breaks any more.
const REST: Duration = Duration::from_secs(240);
/// For so long it must stay as it is.
const STAYS: Duration = Duration::from_secs(5);

/// Runs a schedule, with events for at most `bound`; whether all checks passed. The figures of a whole run are kept.
pub async fn run(schedule: &Schedule, bound: Duration, whole: bool) -> bool {
    let size = schedule.size;
    // A namespace is deleted as a whole at the end.
    let events = size.events + 1;
    say(format_args!(
        "SEED={}, schedule {}: {} events and {} faults over {:?}, {} namespaces, about {} agents at a time. The same \
         seed makes the same schedule; how it falls on the processes differs from run to run",
        schedule.seed,
        schedule.digest(),
        size.events,
        size.faults,
        size.spread,
        size.namespaces,
        size.alive
    ));
    let control_plane = tokio::task::spawn_blocking(|| ControlPlane::private("chaos")).await.unwrap();
    let client = control_plane.client().await;
    let audit_log = control_plane.audit_log.clone().unwrap();
    let (crew, users) = crew(control_plane, &client).await;
    let grants = world::make(&client, size.namespaces).await;
    let model = Arc::new(Mutex::new(Model::new(size.namespaces, grants)));
    let thief = Arc::new(Thief::new(client.clone(), crew.clone(), model.clone()).await);
    let actor = Arc::new(Actor {
        client: client.clone(),
        model: model.clone(),
        made: Mutex::default(),
        over: AtomicBool::new(false),
    });

    let (hands, eyes) = (CancellationToken::new(), CancellationToken::new());
    let keeper = tokio::spawn({
        let (crew, stop) = (crew.clone(), hands.clone());
        async move { crew.keep(stop).await }
    });
    let began = Instant::now();
    let mut watchers = Vec::new();
    for i in 0..2 {
        let (reader, stop) = (thief.clone(), eyes.clone());
        let dice = Dice::new(schedule.seed, &format!("reader {i}"));
        watchers.push(tokio::spawn(async move { reader.read(dice, stop).await }));
        let (thief, stop) = (thief.clone(), eyes.clone());
        let dice = Dice::new(schedule.seed, &format!("shopper {i}"));
        watchers.push(tokio::spawn(async move { thief.shop(dice, stop).await }));
    }
    for i in 0..4 {
        let (thief, stop) = (thief.clone(), eyes.clone());
        let dice = Dice::new(schedule.seed, &format!("asker {i}"));
        watchers.push(tokio::spawn(async move { thief.ask(dice, began, stop).await }));
    }
    watchers.push(tokio::spawn(progress(
        crew.clone(),
        actor.clone(),
        thief.clone(),
        events,
        began,
        eyes.clone(),
    )));

    let faults: Vec<_> = schedule
        .faults
        .iter()
        .map(|fault| {
            let (crew, fault) = (crew.clone(), *fault);
            tokio::spawn(async move { crew.fault(fault, began).await })
        })
        .collect();
    let making = actor.run(schedule, began);
    tokio::pin!(making);
    let mut hit = false;
    tokio::select! {
        () = &mut making => {}
        () = sleep(bound) => {
            hit = true;
            actor.over.store(true, Ordering::Relaxed);
            say(format_args!("the bound of {bound:?} is reached: no further events are made"));
            making.await;
        }
    }
    // Faults may still be under way.
    actor.end_namespace(size.namespaces - 1).await;
    for fault in faults {
        fault.await.unwrap();
    }
    let took = began.elapsed();
    say(format_args!("all is done after {took:.0?}; waiting for rest"));
    let (differences, rest) = rest(&crew, &client, &model).await;
    eyes.cancel();
    for watcher in watchers {
        watcher.await.unwrap();
    }

    let mut report = Report::default();
    let made = std::mem::take(&mut *actor.made.lock().unwrap());
    checks(&mut report, &crew, &client, &thief, &made, differences).await;
    hands.cancel();
    keeper.await.unwrap();
    let mut ended = crew.stop().await;
    let diary = std::mem::take(&mut *crew.diary.lock().unwrap());
    ended.extend(diary.fell.iter().cloned());
    report.check(
        "fell",
        ended,
        format_args!("processes that ended otherwise than they should; {} gave way", diary.gave_way),
    );
    let leaders = record::leaders(&audit_log, &users);
    report.check(
        "two leaders",
        leaders.late,
        format_args!(
            "{} terms, {} writes, {} of them held in the middle of sending",
            leaders.terms, leaders.writes, leaders.held
        ),
    );
    let complaints = record::complaints(&diary.logs);
    report.check("panics", complaints.panics, format_args!("{} logs", diary.logs.len()));
    let errors = complaints.errors.into_iter().map(|(e, (n, log))| format!("{n} × {e} ({})", log.display()));
    report.check("errors in logs", errors.collect(), "what no fault explains");
    // A run that made less than it promises has not shown what it is for; the short one is content with what was in time.
    if whole {
        report.check("events", not_made(made.all(), events), format_args!("{events} that were to be made"));
    }
    report.print(schedule, &made.by_word, &diary);
    say(format_args!(
        "{} of {} events in {took:.0?}{}, {} writes tried again; at rest {rest:.0?} later",
        made.all(),
        events,
        if hit { " (the bound was hit)" } else { "" },
        made.tried_again
    ));
    if !crew.can_shift_clocks() {
        say("!!! SKIPPED: clock shifts need libfaketime: apt-get install libfaketime");
    }
    if whole {
        report.write(&format!(
            "{} events, {} faults, SEED={}",
            made.all(),
            diary.faults.len(),
            schedule.seed
        ));
    }
    report.passed()
}

/// The crew with one operator that leads, and the users as whom the operators come.
async fn crew(control_plane: ControlPlane, client: &Client) -> (Arc<Crew>, Vec<String>) {
    let more = format!(
        "maxStale: {}s\nkeys: {{signFor: 3m, publishAhead: 1m}}\nstatusLists: {{capacity: 1024}}\nlimits: \
         {{onDemandTokenLifetime: 1h}}\nkubernetes: {{bindableRoles: [{CLUSTER_ROLE}]}}\n",
        MAX_STALE.as_secs()
    );
    let town = Town::new(SYSTEM, &more);
    apply(client, &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {SYSTEM}}}}}")).await;
    let mut setups = Vec::new();
    for name in ["operator-0", "operator-1"] {
        setups.push(Setup {
            namespace: SYSTEM.to_owned(),
            configuration: town.configuration.clone(),
            environment: vec![
                ("RUST_LOG".to_owned(), "info".to_owned()),
                ("POD_NAME".to_owned(), name.to_owned()),
            ],
            patience: Duration::from_secs(120),
            kubeconfig: Some(kubeconfig(&control_plane, client, name).await),
        });
    }
    let setups: [Setup; 2] = setups.try_into().unwrap();
    let first = Operator::start(&control_plane, setups[0].clone()).await;
    let ca = town.ca(&control_plane).await;
    let crew = Crew::new(control_plane, town, ca, setups);
    crew.take(first).await;
    let users = ["operator-0", "operator-1"].map(|n| format!("system:serviceaccount:{SYSTEM}:{n}"));
    (Arc::new(crew), users.to_vec())
}

/// An account of an operator's own, so that the audit log tells the two apart.
async fn kubeconfig(control_plane: &ControlPlane, client: &Client, name: &str) -> std::path::PathBuf {
    apply(client, &format!(
        "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}, namespace: {SYSTEM}}}}}\n---\n\
         {{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: {name}}}, roleRef: \
         {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}, subjects: [{{kind: \
         ServiceAccount, name: {name}, namespace: {SYSTEM}}}]}}"
    ))
    .await;
    let audience = "https://kubernetes.default.svc.cluster.local";
    let token = account_token(client, audience, SYSTEM, name, None).await.unwrap();
    let admin = Kubeconfig::read_from(&control_plane.kubeconfig).unwrap();
    let cluster = admin.clusters[0].cluster.as_ref().unwrap();
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": cluster.server,
            "certificate-authority-data": cluster.certificate_authority_data,
            "certificate-authority": cluster.certificate_authority}}],
        "users": [{"name": "u", "user": {"token": token}}],
    });
    let path = target_dir().join("control-planes").join(format!("chaos-{name}-{}.kubeconfig", unique()));
    // It holds an administrator's token; the crew removes it when it stops.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.write_all(text.to_string().as_bytes()).unwrap();
    path
}

async fn progress(
    crew: Arc<Crew>,
    actor: Arc<Actor>,
    thief: Arc<Thief>,
    events: usize,
    began: Instant,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(PROGRESS) => {}
        }
        let under_way = crew.diary.lock().unwrap().under_way.join(", ");
        let alive = actor.model.lock().unwrap().agents().count();
        let made = actor.made.lock().unwrap().all();
        let tokens = thief.taken.lock().unwrap().len();
        let asked = thief.asked.lock().unwrap();
        say(format_args!(
            "{:.0?}: {made} of {events} events, {alive} agents, {tokens} tokens taken, {} answers, {} wrong; {}",
            began.elapsed(),
            asked.active + asked.inactive + asked.no_answer,
            asked.violations.len(),
            if under_way.is_empty() { "nothing is broken" } else { &under_way },
        ));
    }
}

/// Waits until the cluster is as the model says, and stays so; gives what is different at the end of patience.
async fn rest(crew: &Crew, client: &Client, model: &Mutex<Model>) -> (Differences, Duration) {
    let began = Instant::now();
    let mut since: Option<Instant> = None;
    let mut told = Instant::now();
    loop {
        let unready = crew.unready().await;
        let mut found = match Seen::look(client).await {
            Ok(seen) => seen.against(&model.lock().unwrap()),
            Err(e) => Differences { wrong: vec![format!("the API server: {e}")], ..Differences::default() },
        };
        found.wrong.extend(unready);
        let clean = found.all().next().is_none();
        if clean && since.get_or_insert_with(Instant::now).elapsed() >= STAYS {
            return (found, began.elapsed() - STAYS);
        }
        if !clean {
            since = None;
            if began.elapsed() > REST {
                return (found, began.elapsed());
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let (all, one) = (found.all().count(), found.all().next().cloned().unwrap_or_default());
                say(format_args!("not at rest: {all} differences, such as {one}"));
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn checks(
    report: &mut Report,
    crew: &Crew,
    client: &Client,
    thief: &Thief,
    made: &Made,
    differences: Differences,
) {
    let agents = thief.model.lock().unwrap().agents().count();
    let Differences { orphans, mut lost, wrong } = differences;
    lost.extend(made.surprises.iter().cloned());
    if let Ok(seen) = Seen::look(client).await {
        lost.extend(thief.replaced(&seen.uids()));
    }
    report.check("orphans", orphans, "agents, Secrets, RoleBindings and ConfigMaps of nobody");
    report.check("lost", lost, format_args!("{agents} agents: there, Ready, with all of their files"));
    report.check("wrong", wrong, "reasons, files and roles beyond what is due");
    report.check(
        "no leader",
        if crew.leader().await.is_some() { vec![] } else { vec!["nobody leads".to_owned()] },
        "one",
    );

    say("asking about every token");
    let verdicts = thief.judge().await;
    let asked = std::mem::take(&mut *thief.asked.lock().unwrap());
    let mut valid = verdicts.valid_after_revoke;
    valid.extend(asked.violations);
    report.check(
        "valid after revoke",
        valid,
        format_args!(
            "{} tokens: {} revoked and {} standing entries at two replicas, and {} answers on the way ({} active, {} \
             inactive, {} that it can't tell now, {} unreachable); the latest active one {:.1?} after its end",
            verdicts.tokens,
            verdicts.revoked,
            verdicts.standing,
            asked.active + asked.inactive + asked.no_answer,
            asked.active,
            asked.inactive,
            asked.no_answer,
            asked.unreachable,
            asked.latest_active
        ),
    );
    report.check(
        "revoked for nothing",
        verdicts.revoked_for_nothing,
        "tokens from which nothing was ever taken",
    );
    report.check("contradictions", verdicts.contradictions, "introspection and list say the same");
    let (bought, unsold) = buy(thief).await;
    report.check(
        "not sold",
        unsold,
        format_args!(
            "{bought} tokens at the end, {} before, {:?} refused then",
            asked.bought, asked.not_bought
        ),
    );
}

/// Every pod's agent gets the token that it is due, at both replicas, and one that is suspended gets none.
async fn buy(thief: &Thief) -> (usize, Vec<String>) {
    let pods: Vec<_> = {
        let model = thief.model.lock().unwrap();
        let pods = model.agents().filter(|(t, _)| matches!(t, Thing::Pod { .. }));
        pods.map(|(t, m)| {
            let due =
                model.dues(t, m).iter().any(|d| d.which == crate::model::Which::Inherited && d.roles != 0);
            (t, m.uid.clone(), due && !model.is_suspended(t, m))
        })
        .collect()
    };
    let (mut bought, mut wrong) = (0, Vec::new());
    for (thing, uid, due) in pods {
        for replica in 0..2 {
            match (thief.token_of_pod(thing, &uid, replica).await, due) {
                (Ok(_), true) => bought += 1,
                (Err(_), false) => {}
                (Ok(_), false) => wrong.push(format!("{thing:?}: sold by replica {replica}, and not due")),
                (Err(why), true) => wrong.push(format!("{thing:?}: replica {replica}: {why}")),
            }
        }
    }
    (bought, wrong)
}
