//! Our own tokens as they come back: verified, and read as far as their standing needs.
//!
//! Invariant: nothing is read of a token before its signature, issuer, audience and times are checked.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::state::Ring;
use crate::api::{Configuration, Mode};
use crate::crypto::{ExpectAny, Typ, Verified, VerifyError, inspect, verify_any_audience};
use crate::domain::agent_user::AGENT_USER_PREFIX;
use crate::domain::presented::Presented;
use crate::domain::{StatusRef, Uid};
use crate::issue::{Actor, UserSubject};

/// By how many seconds the clocks of our processes may differ.
const LEEWAY: u32 = 5;

/// A token of ours.
pub(super) struct Ours {
    pub(super) presented: Presented,
    /// In whose name it speaks.
    pub(super) subject: UserSubject,
    /// The actors, the outermost first; none where the agent speaks for itself.
    pub(super) actors: Vec<Actor>,
    pub(super) expires_at: Timestamp,
    pub(super) claims: Map<String, Value>,
}

/// Whose a token says that it is; nothing is verified.
pub(super) fn issuer_of(token: &str) -> Option<String> {
    let claims = inspect(token).ok()?.claims;
    claims.get("iss").and_then(Value::as_str).map(str::to_owned)
}

/// Verifies a token of ours of either kind.
pub(super) fn verify(
    ring: &Ring,
    config: &Configuration,
    token: &str,
    now: Timestamp,
) -> Result<Ours, VerifyError> {
    let header = inspect(token)?.header;
    let typ = header.get("typ").and_then(Value::as_str).unwrap_or_default();
    let typ = if Typ::Identity.matches(typ) { Typ::Identity } else { Typ::Access };
    let expect = ExpectAny { issuer: &config.issuer, typ, leeway: LEEWAY, now: now.as_second() };
    let mut verified = verify_any_audience(token, &ring.0.token_jwks, &expect)?;
    // The leeway is for clocks, not for the dead: what has expired here has expired.
    if let Some(exp) = verified.claims.get("exp").and_then(Value::as_i64)
        && exp <= now.as_second()
    {
        return Err(VerifyError::Exp { exp, now: now.as_second() });
    }
    let claims = std::mem::take(&mut verified.claims);
    Ok(read(config, &verified, claims, typ))
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn read(config: &Configuration, verified: &Verified, claims: Map<String, Value>, typ: Typ) -> Ours {
    let prefix = format!("spiffe://{}/agent/", config.trust_domain);
    let agent_of = |id: &str| id.strip_prefix(&prefix).and_then(|uid| uid.parse::<Uid>().ok());
    let own = claims.get("agentid.dev").and_then(Value::as_object);
    let own_text = |name| own.and_then(|o| o.get(name)).and_then(Value::as_str);
    let list_ref = |value: &Value| {
        let index = u32::try_from(value.get("idx")?.as_u64()?).ok()?;
        StatusRef::of_uri(&config.issuer, value.get("uri")?.as_str()?, index)
    };
    let actors = actors(claims.get("act"));
    let sub = text(&claims, "sub");
    let sub_id = claims.get("sub_id").and_then(Value::as_object);
    let subject = UserSubject {
        principal: sub.to_owned(),
        issuer: sub_id.map_or(config.issuer.as_str(), |s| text(s, "iss")).to_owned(),
        subject: sub_id.map_or(sub, |s| text(s, "sub")).to_owned(),
        is_agent: sub_id.is_none(),
        username: claims
            .get("preferred_username")
            .filter(|_| sub.starts_with(AGENT_USER_PREFIX))
            .and_then(Value::as_str)
            .map(str::to_owned),
        auth_time: claims.get("auth_time").and_then(Value::as_i64),
        acr: claims.get("acr").and_then(Value::as_str).map(str::to_owned),
        amr: claims
            .get("amr")
            .and_then(Value::as_array)
            .map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
    };
    // As its own user an agent acts as well, but nobody handed it a token.
    let as_user = own_text("mode") == Some(Mode::AgentUser.as_str());
    let delegated = !actors.is_empty() && !as_user;
    // Every agent that is named must stand: the actors behind the first, and an agent that began the chain.
    let mut others: Vec<_> = actors.iter().skip(1).filter_map(|a| agent_of(&a.subject)).collect();
    if delegated && subject.is_agent {
        others.extend(agent_of(sub));
    }
    let presented = Presented {
        // The name form of an identity token's subject names no UID; the private claim does.
        agent: own_text("uid").and_then(|u| u.parse().ok()),
        grant: own_text("grant").and_then(|g| g.parse().ok()),
        audience: verified.audience.clone(),
        is_access: typ == Typ::Access,
        roles: claims
            .get("roles")
            .and_then(Value::as_array)
            .map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default(),
        scopes: text(&claims, "scope").split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        user: delegated.then(|| (subject.issuer.clone(), subject.subject.clone())),
        username: subject.username.clone().filter(|_| as_user),
        actors: others,
        status: claims.get("status").and_then(|s| s.get("status_list")).and_then(list_ref),
        parents: own
            .and_then(|o| o.get("chain"))
            .and_then(Value::as_array)
            .map(|all| all.iter().filter_map(list_ref).collect())
            .unwrap_or_default(),
    };
    let exp = claims.get("exp").and_then(Value::as_i64).unwrap_or_default();
    Ours {
        presented,
        subject,
        actors,
        expires_at: Timestamp::from_second(exp).unwrap_or(Timestamp::UNIX_EPOCH),
        claims,
    }
}

fn actors(act: Option<&Value>) -> Vec<Actor> {
    let mut all = Vec::new();
    let mut next = act.and_then(Value::as_object);
    while let Some(act) = next {
        all.push(Actor { issuer: text(act, "iss").to_owned(), subject: text(act, "sub").to_owned() });
        next = act.get("act").and_then(Value::as_object);
    }
    all
}
