//! The `agentid-trust` ConfigMap of each namespace that has agents or asks for it.
//!
//! Invariants: a foreign one is reported and never overwritten; it goes with the namespace's last agent; what
//! was published stays published while the ring or the authorities can't be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::apply::{Failure, call};
use super::context::Context;
use crate::api::{Reason, TRUST_NAME};
use crate::cluster::client::{CallError, Class};
use crate::cluster::wire::{Wire, WireTrust, trust_digest};
use crate::cluster::write::At;
use crate::domain::{Digest, Key, Source, Trust};

/// The data that every trust ConfigMap is to have now; `None` before a ring was read.
fn wanted(cx: &Context) -> Option<BTreeMap<String, String>> {
    let jwks = cx.keys().jwks.clone()?;
    let mut data = BTreeMap::from([
        ("jwks.json".to_owned(), jwks.to_string()),
        ("issuer".to_owned(), cx.issuer.issuer.to_string()),
    ]);
    if let Some(ca_pem) = &cx.certificates().ca_pem {
        data.insert("ca.crt".to_owned(), ca_pem.to_string());
    }
    Some(data)
}

/// The digest of [`wanted`].
fn wanted_digest(cx: &Context) -> Option<Digest> {
    wanted(cx).map(|d| trust_digest(&d))
}

/// Whether every trust ConfigMap of ours is known to carry what is wanted now.
pub(super) fn is_carried(cx: &Context) -> bool {
    let Some(digest) = wanted_digest(cx) else { return false };
    let world = cx.world.read();
    // Before the first lists no namespace seems to want any.
    world.is_synced() && world.trust_carries(digest)
}

/// Makes sure that a namespace's verifiers know the keys before a token arrives there.
pub(super) async fn ensure(cx: &Context, namespace: &Arc<str>) -> Result<(), Failure> {
    let Some(digest) = wanted_digest(cx) else { return Ok(()) };
    let seen = cx.world.read().trust(namespace).map(|t| (t.ours, t.digest));
    match seen {
        Some((true, d)) if d == digest => Ok(()),
        Some((false, _)) => Ok(()),
        _ => one(cx, namespace).await.map(drop),
    }
}

/// Works on a namespace's ConfigMap: creates, heals, deletes, reports.
pub(super) async fn one(cx: &Context, namespace: &Arc<str>) -> Result<Option<Timestamp>, Failure> {
    let now = Timestamp::now();
    let (wants, seen, fresh, leaving) = {
        let world = cx.world.read();
        (
            world.wants_trust(namespace),
            world.trust(namespace).cloned(),
            Source::CORE.iter().all(|s| world.is_fresh(s, now)),
            world.namespace(namespace).is_none_or(|n| n.meta.deleting),
        )
    };
    if !fresh {
        return Ok(Some(now + SignedDuration::from_secs(5)));
    }
    let Some(data) = wanted(cx) else { return Ok(None) };
    let digest = trust_digest(&data);
    match (wants, seen) {
        (true, None) => {
            let answer = cx.writer.create_trust::<WireTrust>(namespace, &data).await;
            match answer {
                Err(e) if e.class() == Class::AlreadyExists => {
                    // A watch will show it in a moment.
                    return Ok(Some(now + SignedDuration::from_secs(1)));
                }
                answer => written(cx, answer, namespace, None)?,
            }
        }
        (true, Some(trust)) if !trust.ours => report(cx, &trust),
        (true, Some(trust)) if trust.digest != digest => {
            let answer = cx.writer.update_trust::<WireTrust>(namespace, At::seen(&trust.meta), &data).await;
            match answer {
                // Immutable, or otherwise beyond mending in place.
                Err(e) if e.class() == Class::Invalid => {
                    delete(cx, namespace, &trust).await?;
                    let answer = cx.writer.create_trust::<WireTrust>(namespace, &data).await;
                    written(cx, answer, namespace, None)?;
                }
                answer => written(cx, answer, namespace, Some(&trust))?,
            }
        }
        (false, Some(trust)) if trust.ours && !leaving => delete(cx, namespace, &trust).await?,
        _ => {}
    }
    Ok(None)
}

fn written(
    cx: &Context,
    answer: Result<WireTrust, CallError>,
    namespace: &Arc<str>,
    old: Option<&Trust>,
) -> Result<(), Failure> {
    match answer {
        Ok(trust) => {
            let object = trust.object(&Source::Trust)?;
            cx.world.answer(object);
            Ok(())
        }
        Err(e) if e.class() == Class::NotFound => {
            if let Some(old) = old {
                cx.world.write().remove(&Source::Trust, &old.meta.key, old.meta.uid, 0);
            }
            Ok(())
        }
        Err(e) if e.message().contains("being terminated") => {
            tracing::debug!(%namespace, "the namespace is going");
            Ok(())
        }
        Err(e) => Err(call("write the trust ConfigMap")(e)),
    }
}

async fn delete(cx: &Context, namespace: &Arc<str>, trust: &Trust) -> Result<(), Failure> {
    cx.writer.delete_trust(namespace, trust.meta.uid).await.map_err(call("delete the trust ConfigMap"))?;
    cx.world.write().remove(&Source::Trust, &trust.meta.key, trust.meta.uid, 0);
    Ok(())
}

fn report(cx: &Context, trust: &Trust) {
    let note = format!(
        "ConfigMap {TRUST_NAME} is not agentid's and is left alone, so verifiers in this namespace do not get the \
         keys; delete or rename it"
    );
    let Key { namespace, .. } = &trust.meta.key;
    tracing::warn!(%namespace, "{note}");
    cx.note(
        "v1",
        "ConfigMap",
        &trust.meta.key,
        &trust.meta.uid.to_string(),
        false,
        Reason::ForeignObject,
        &note,
    );
}
