//! Secrets of others under the names of ours.
//!
//! Invariant: what we do not control is looked at, never written; no watch shows it, so it is looked at again
//! until it is gone.

use jiff::{SignedDuration, Timestamp};

use super::apply::{Failure, call};
use super::context::Context;
use crate::domain::plan::Issue;
use crate::domain::{Foreign, Key, Object};

/// How long what was seen of a foreign Secret is believed. Less than decide's pause until it asks again.
const FOREIGN_STANDS: SignedDuration = SignedDuration::from_secs(15);

/// Looks again whether something that is not ours still bears the name of an agent's Secret: no watch shows it.
pub(super) async fn look_again(cx: &Context, key: &Key) -> Result<(), Failure> {
    let now = Timestamp::now();
    let secret = {
        let world = cx.world.read();
        let Some(agent) = world.agent(key) else { return Ok(()) };
        let secret = key.sibling(agent.secret_name.clone());
        match world.foreign(&secret) {
            Some(f) if now.duration_since(f.checked) >= FOREIGN_STANDS => secret,
            _ => return Ok(()),
        }
    };
    let found = cx.writer.secret_in_the_way(&secret).await.map_err(call("look for the Secret"))?;
    let foreign = found.map(|_| Foreign { what: "a Secret".into(), checked: now });
    cx.world.write().note_foreign(&secret, foreign);
    Ok(())
}

/// Something bears the name of the Secret: ours of a moment ago, or somebody else's.
pub(super) async fn in_the_way(cx: &Context, key: &Key, issue: &Issue) -> Result<(), Failure> {
    let found = cx.writer.secret_in_the_way(key).await.map_err(call("look for the Secret"))?;
    let Some(found) = found else { return Ok(()) };
    let found = found.credentials()?;
    if found.agent == Some(issue.uid) && found.drift.is_none() {
        cx.world.answer(Object::Secret(Box::new(found)));
        return Ok(());
    }
    let foreign = Foreign { what: "a Secret".into(), checked: Timestamp::now() };
    cx.world.write().note_foreign(key, Some(foreign));
    Ok(())
}
