//! Between the keeper of the ring and the loop: the keeper learns what is published and which tokens live, the
//! loop which keys sign.
//!
//! Invariants: a generation counts as published only once every trust ConfigMap of ours carries it; the Lease of this
//! term bears the highest generation that was good in it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::keykeeper::{Inputs, KeyKeeper, LiveTokens};
use super::keys::KeyView;
use super::trust;
use crate::api::{Configuration, Reason};
use crate::cluster::keystore::{KeyStore, LeaseNote, Loaded, SECRET_NAME};
use crate::cluster::keywatch::KeyState;
use crate::cluster::lease::{LEASE_NAME, LeaseHandle};
use crate::domain::plan::KeysSeen;
use crate::domain::{Key, Source, Uid, World};

/// How often what is published, and what lives, is looked at.
const PERIOD: Duration = Duration::from_millis(300);

/// Keeps the ring while this process leads.
pub(super) fn keep(
    client: &kube::Client,
    namespace: &str,
    cx: Arc<Context>,
    lease: LeaseHandle,
    views: watch::Sender<Arc<KeyView>>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let keeper = KeyKeeper::new(
        KeyStore::new(client.clone(), namespace),
        LeaseNote::new(client.clone(), namespace, LEASE_NAME),
        cx.world.read().config(),
    );
    let (published, published_seen) = watch::channel(0);
    let (state, states) = watch::channel(KeyState::Loading);
    let namespace = namespace.to_owned();
    tokio::spawn(async move {
        let counted = cx.clone();
        let live = Arc::new(move |now| live_tokens(&counted.world.read(), now));
        let inputs = Inputs { published: published_seen, live };
        let bridge = bridge(&cx, &namespace, &lease, states, &views, &published);
        tokio::select! {
            () = keeper.run(inputs, &state, &stop) => {}
            () = bridge => {}
        }
    })
}

async fn bridge(
    cx: &Context,
    namespace: &str,
    lease: &LeaseHandle,
    mut states: watch::Receiver<KeyState>,
    views: &watch::Sender<Arc<KeyView>>,
    published: &watch::Sender<u64>,
) {
    let mut generation = None;
    loop {
        {
            let state = states.borrow_and_update().clone();
            let next = view(&state, &views.borrow());
            if let Some(next) = next {
                if let Some(problem) =
                    next.seen.problem.as_ref().filter(|_| !matches!(state, KeyState::Loading))
                {
                    tracing::error!(%problem, "the key ring can't be used");
                    let key = Key::new(namespace, SECRET_NAME);
                    cx.note("v1", "Secret", &key, "", false, Reason::KeysUnavailable, problem);
                }
                generation = next.seen.problem.is_none().then_some(next.generation);
                lease.keep_generation(generation.unwrap_or_default());
                views.send_replace(Arc::new(next));
            }
        }
        if let Some(generation) = generation
            && *published.borrow() < generation
            && trust::is_carried(cx)
        {
            published.send_replace(generation);
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// The view of a state, if it differs from the one before.
fn view(state: &KeyState, before: &KeyView) -> Option<KeyView> {
    match state {
        KeyState::Loading => None,
        KeyState::Unavailable { message } => (before.seen.problem.as_deref() != Some(message.as_str()))
            .then(|| KeyView::unavailable(message, before)),
        KeyState::Ready(loaded) => (before.seen.problem.is_some()
            || before.generation != loaded.ring.generation)
            .then(|| of_ring(loaded)),
    }
}

fn of_ring(loaded: &Loaded) -> KeyView {
    KeyView {
        seen: KeysSeen { good: loaded.ring.published_kids().map(Arc::from).collect(), problem: None },
        active: Configuration::ALGORITHMS
            .into_iter()
            .filter_map(|a| loaded.signer(a).map(|k| (a, k.clone())))
            .collect::<HashMap<_, _>>(),
        status: loaded.status_signer().cloned(),
        token_jwks: Some(Arc::new(loaded.token_jwks.clone())),
        jwks: Some(loaded.jwks.to_json().into()),
        ring: Some(Arc::new(loaded.ring.clone())),
        generation: loaded.ring.generation,
        loading: false,
    }
}

fn live_tokens(world: &World, now: Timestamp) -> LiveTokens {
    if ![Source::Secrets, Source::Agents].iter().all(|s| world.is_fresh(s, now)) {
        return LiveTokens::Unknown;
    }
    let longest = world.config().limits.max_token_lifetime.signed();
    let (mut kids, mut latest_expiry) = (BTreeSet::new(), None);
    for secret in world.secrets().filter(|s| s.agent.is_some_and(|u: Uid| u != Uid(0))) {
        if secret.tokens.is_empty() {
            continue;
        }
        // The annotation tells when the first token dies; the last lives no longer than the longest allowed. Where it was
        // taken off, nobody knows.
        let last = secret.expires_at.checked_add(longest).unwrap_or(Timestamp::MAX);
        if last > now {
            kids.extend(secret.kids.iter().map(ToString::to_string));
            latest_expiry = latest_expiry.max(Some(last));
        }
    }
    LiveTokens::Known { kids, latest_expiry, agents: world.agents().next().is_some() }
}
