//! What the API server is asked about others: whose a token is, and who may run an agent as.
//!
//! Invariants: the token is in no log line and no error, and neither is an answer, which repeats it; what an answer
//! does not say plainly is no.

use std::fmt;

use http::{Request, header::CONTENT_TYPE};
use kube::Client;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{CallError, Class, timed};
use crate::api::GROUP;
use crate::crypto::Secret;
use crate::domain::Key;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// `system:serviceaccount:<namespace>:<name>` for a service account.
    pub username: String,
    /// The account's UID; empty where the API server says none.
    pub uid: String,
    /// Name and UID of the pod that the token is bound to.
    pub pod: Option<(String, String)>,
}

/// Asks for reviews. Needs `create` on `tokenreviews` and `subjectaccessreviews`.
#[derive(Clone)]
pub struct Reviews(Client);

impl fmt::Debug for Reviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reviews")
    }
}

impl Reviews {
    /// Asks through this client.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self(client)
    }

    /// Whose a token for an audience is; `None` if it is nobody's, or for somebody else.
    ///
    /// # Errors
    /// A failed call, or [`Class::Server`] for an answer that can't be read.
    pub async fn token_review(&self, token: &str, audience: &str) -> Result<Option<Reviewed>, CallError> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        });
        let answer = self.post(TOKEN_REVIEWS, &body).await.map_err(|e| {
            // A webhook's message might quote what it was asked about.
            let quoted = e.message().contains(token);
            if quoted { CallError::new(e.class(), "the TokenReview failed") } else { e }
        })?;
        token_answer(answer.expose(), audience)
    }

    /// Whether a user may have an agent run for them: the verb `run` on the AgentIdentity. An empty `uid` is none.
    ///
    /// # Errors
    /// A failed call, or [`Class::Server`] for an answer that can't be read.
    pub async fn may_run(
        &self,
        user: &str,
        groups: &[String],
        uid: &str,
        agent: &Key,
    ) -> Result<bool, CallError> {
        let answer = self.post(ACCESS_REVIEWS, &access_question(user, groups, uid, agent)).await?;
        access_answer(answer.expose())
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Secret<String>, CallError> {
        let request = Request::post(path)
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())
            .map_err(|_| CallError::new(Class::Invalid, "the path can't be asked for"))?;
        // As text: kube's decoder logs what it can't decode.
        timed(self.0.request_text(request)).await.map(Secret::new)
    }
}

fn access_question(user: &str, groups: &[String], uid: &str, agent: &Key) -> Value {
    let mut spec = Map::from_iter([
        ("user".to_owned(), user.into()),
        ("groups".to_owned(), groups.into()),
        (
            "resourceAttributes".to_owned(),
            json!({
                "group": GROUP, "version": "v1alpha1", "resource": "agentidentities", "verb": "run",
                "namespace": &*agent.namespace, "name": &*agent.name,
            }),
        ),
    ]);
    if !uid.is_empty() {
        spec.insert("uid".to_owned(), uid.into());
    }
    json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
}

/// serde's messages quote what they stumble over: the error is dropped.
fn unreadable(what: &str) -> CallError {
    CallError::new(Class::Server, format!("the answer to the {what} can't be read"))
}

fn token_answer(text: &str, audience: &str) -> Result<Option<Reviewed>, CallError> {
    #[derive(Deserialize)]
    struct Review {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        #[serde(default)]
        authenticated: bool,
        #[serde(default)]
        audiences: Vec<String>,
        user: Option<User>,
    }
    #[derive(Deserialize)]
    struct User {
        #[serde(default)]
        username: String,
        #[serde(default)]
        uid: String,
        #[serde(default)]
        extra: Option<Map<String, Value>>,
    }
    let Review { status } = serde_json::from_str(text).map_err(|_| unreadable("TokenReview"))?;
    let Some(user) = status.user.filter(|u| status.authenticated && !u.username.is_empty()) else {
        return Ok(None);
    };
    // Without audiences in the answer, the authenticator knew nothing of ours.
    if !status.audiences.iter().any(|a| a == audience) {
        return Ok(None);
    }
    let extra = |name: &str| match user.extra.as_ref()?.get(name)?.as_array()?.as_slice() {
        [Value::String(only)] => Some(only.clone()),
        _ => None,
    };
    let pod = extra(POD_NAME).zip(extra(POD_UID));
    Ok(Some(Reviewed { pod, username: user.username, uid: user.uid }))
}

fn access_answer(text: &str) -> Result<bool, CallError> {
    #[derive(Deserialize)]
    struct Review {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        allowed: bool,
        #[serde(default)]
        denied: bool,
    }
    let Review { status } = serde_json::from_str(text).map_err(|_| unreadable("SubjectAccessReview"))?;
    Ok(status.allowed && !status.denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: &str = "https://agents.example.com";

    fn answer(status: &Value) -> Result<Option<Reviewed>, CallError> {
        let text = json!({"kind": "TokenReview", "spec": {"token": "s3cret"}, "status": status}).to_string();
        token_answer(&text, US)
    }

    #[test]
    fn whose_a_token_is() {
        let user = json!({
            "username": "system:serviceaccount:shop:bot", "uid": "u-1", "groups": ["system:authenticated"],
            "extra": {POD_NAME: ["bot-0"], POD_UID: ["p-1"]},
        });
        let good = json!({"authenticated": true, "user": user, "audiences": ["x", US]});
        let reviewed = answer(&good).unwrap().unwrap();
        assert_eq!(reviewed.username, "system:serviceaccount:shop:bot");
        assert_eq!(reviewed.uid, "u-1");
        assert_eq!(reviewed.pod, Some(("bot-0".to_owned(), "p-1".to_owned())));
        for (name, value) in [
            ("authenticated", json!(false)),
            ("authenticated", Value::Null),
            ("audiences", json!([])),
            ("audiences", json!(["https://kubernetes.default.svc"])),
            ("user", Value::Null),
            ("user", json!({})),
        ] {
            let mut status = good.clone();
            status[name] = value.clone();
            if value.is_null() {
                status.as_object_mut().unwrap().remove(name);
            }
            assert_eq!(answer(&status).unwrap(), None, "{name}: {value}");
        }
        let error = token_answer(r#"{"spec":{"token":"s3cret"},"status":"s3cret"}"#, US).unwrap_err();
        assert_eq!(error.class(), Class::Server);
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn who_may_run_an_agent() {
        let groups = ["a".to_owned(), "b".to_owned()];
        let question = access_question("ann", &groups, "", &Key::new("shop", "bot"));
        assert_eq!(
            question["spec"],
            json!({
                "user": "ann", "groups": ["a", "b"],
                "resourceAttributes": {
                    "group": "agentid.dev", "version": "v1alpha1", "resource": "agentidentities",
                    "verb": "run", "namespace": "shop", "name": "bot",
                },
            })
        );
        assert_eq!(access_question("ann", &[], "u-1", &Key::new("shop", "bot"))["spec"]["uid"], "u-1");
        for (status, wanted) in [
            (r#"{"allowed":true}"#, Some(true)),
            (r#"{"allowed":true,"denied":true}"#, Some(false)),
            (r#"{"allowed":false}"#, Some(false)),
            (r#"{}"#, None),
            (r#""yes""#, None),
        ] {
            assert_eq!(access_answer(&format!(r#"{{"status":{status}}}"#)).ok(), wanted, "{status}");
        }
    }
}
