//! `/token`: client credentials (RFC 6749 §4.4), jwt-bearer (RFC 7523 §2.1), token exchange (RFC 8693) and, for the agent's
//! own user, an extension grant (RFC 6749 §4.5).
//!
//! Invariant: every answer, token or refusal, leaves one audit line.

mod exchange;
mod laptop;
mod mint;

use jiff::Timestamp;

use self::mint::Wish;
use super::client::{Slot, assertion, client_id};
use super::fault::{Code, Fault};
use super::form::Form;
use super::state::State;
use crate::api::Reason;
use crate::domain::choose::Ask;
use crate::issue::audit::shortened;
use crate::issue::{Action, AuditLine};
use crate::net::listen::{Request, Response};

const CLIENT_CREDENTIALS: &str = "client_credentials";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The grant type by which an agent gets tokens of its own user.
pub(super) const AGENT_USER: &str = "https://agentid.dev/grant-type/agent-user";

/// Answers a token request.
pub(super) async fn answer(state: &State, request: &Request, now: Timestamp) -> Response {
    let mut line = AuditLine::new(Action::Refuse, Reason::Invalid, now);
    line.endpoint = Some("/token".to_owned());
    line.source = Some(request.peer.ip().to_string());
    match serve(state, request, &mut line, now).await {
        Ok(response) => {
            line.action = Action::Mint;
            line.reason = Reason::Issued.as_str().to_owned();
            state.metrics.issued(line.mode.as_deref().unwrap_or_default());
            state.issuer.audit.record(line);
            response
        }
        Err(fault) => refuse(state, line, &fault),
    }
}

/// Records a refusal and answers it.
pub(super) fn refuse(state: &State, mut line: AuditLine, fault: &Fault) -> Response {
    line.action = Action::Refuse;
    line.reason = fault.reason.as_str().to_owned();
    line.error = Some(fault.code.as_str().to_owned());
    line.message = Some(shortened(&fault.description));
    state.metrics.refused(fault.reason);
    state.issuer.audit.record(line);
    fault.response()
}

async fn serve(
    state: &State,
    request: &Request,
    line: &mut AuditLine,
    now: Timestamp,
) -> Result<Response, Fault> {
    let form = Form::of(request)?;
    match form.need("grant_type")? {
        kind @ (CLIENT_CREDENTIALS | AGENT_USER) => {
            let token = assertion(&form, request, false)?
                .ok_or_else(|| Fault::client(Reason::CredentialRejected, "client_assertion is missing"))?;
            let named = client_id(state, &form)?;
            let verified = state.service_account(token, Slot::Client, line, now).await?;
            let client = state.client(&verified, named.as_ref(), Slot::Client, line, now)?;
            let ask = Ask { as_agent_user: kind == AGENT_USER, ..ask(&form)? };
            mint::mint(state, &client, &Wish::own(ask), line, now)
        }
        JWT_BEARER => {
            if assertion(&form, request, false)?.is_some() {
                return Err(Fault::request("jwt-bearer is sent without client authentication"));
            }
            laptop::jwt_bearer(state, &form, line, now).await
        }
        TOKEN_EXCHANGE => exchange::exchange(state, request, &form, line, now).await,
        other => Err(Fault::new(
            Code::UnsupportedGrantType,
            Reason::Invalid,
            format!("grant_type {} is not served", other.chars().take(80).collect::<String>()),
        )),
    }
}

/// What is asked for: target, scopes, grant.
fn ask(form: &Form) -> Result<Ask<'_>, Fault> {
    Ok(Ask { target: target(form)?, scopes: scopes(form)?, grant: form.get("grant"), ..Ask::default() })
}

/// The one resource (RFC 8707 §2: an absolute URI without fragment) or audience.
fn target(form: &Form) -> Result<Option<&str>, Fault> {
    let refuse = |text: &str| Fault::new(Code::InvalidTarget, Reason::ResourceNotFound, text);
    let resource = form.get("resource");
    if let Some(uri) = resource {
        let absolute = uri.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
                && !rest.is_empty()
        });
        if !absolute || uri.contains('#') || uri.len() > 512 {
            return Err(refuse("resource must be one absolute URI without fragment"));
        }
    }
    match (resource, form.get("audience")) {
        (Some(a), Some(b)) if a != b => Err(refuse("resource and audience name two targets; name one")),
        (Some(one), _) | (None, Some(one)) => Ok(Some(one)),
        (None, None) => Ok(None),
    }
}

fn scopes(form: &Form) -> Result<Option<Vec<&str>>, Fault> {
    const MOST: usize = 128;
    let Some(text) = form.get("scope") else { return Ok(None) };
    let refuse = |text: &str| Fault::new(Code::InvalidScope, Reason::ScopeNotAllowed, text);
    let mut scopes = Vec::new();
    for scope in text.split(' ').filter(|s| !s.is_empty()) {
        let token = scope.bytes().all(|c| matches!(c, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        if !token || scope.len() > 128 {
            return Err(refuse("scope is not a list of scope-tokens (RFC 6749 section 3.3)"));
        }
        if scopes.len() == MOST {
            return Err(refuse("more scopes than any grant holds"));
        }
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(Some(scopes).filter(|s| !s.is_empty()))
}
