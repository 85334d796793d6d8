//! `agentid kube-auth-config`: the file by which a kube-apiserver takes agents' tokens.
//!
//! Invariants: only an agent's own identity token for an audience of this cluster is a login, never one in a user's
//! name; the user's name is the agent's id and can't be a system user's; nothing is written.

use std::io::{self, Write};

use clap::Args;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use thiserror::Error;

use super::connection::Connection;
use super::publish::{PublishError, agreed, find};
use crate::api::{AGENTS_GROUP, AgentResource, TRUST_NAME};
use crate::cluster::client::{CallError, ClientError, connect, timed};

/// Print the AuthenticationConfiguration by which the API server takes agents for users
///
/// For kube-apiserver's --authentication-config (Kubernetes 1.34 and later). The issuer and what vouches for it are read
/// from the ConfigMap agentid-trust, the audiences from the AgentResources with `kubernetes`. Print it again when the
/// issuer's CA is rolled over; the API server reads the file again by itself.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid kube-auth-config > authentication.yaml               every AgentResource that is this cluster
  agentid kube-auth-config cluster -n agentid-system           one, and the ConfigMap of this namespace alone
  agentid kube-auth-config --discovery-url https://10.0.0.9/.well-known/openid-configuration")]
pub struct KubeAuthConfigArgs {
    /// AgentResources with `kubernetes`; all of them when absent
    #[arg(value_parser = super::why::object_name)]
    resources: Vec<String>,
    /// Believe the ConfigMap of this namespace alone: one in which nobody but administrators may write ConfigMaps
    #[arg(long, short)]
    namespace: Option<String>,
    /// Where the API server finds the discovery document, if not below the issuer's URL
    #[arg(long, value_name = "URL")]
    discovery_url: Option<String>,
    /// The issuer's certificate is vouched for by the authorities that the API server's system knows, not by agentid's own CA
    #[arg(long)]
    system_roots: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Why nothing was printed.
#[derive(Debug, Error)]
pub enum KubeAuthConfigError {
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The ConfigMap.
    #[error(transparent)]
    Trust(#[from] PublishError),
    /// AgentResources can't be listed.
    #[error("the AgentResources can't be listed: {0}")]
    Call(#[from] CallError),
    /// None is this cluster.
    #[error(
        "no AgentResource is this cluster: create one with spec.kubernetes: {{}}; its audience is what the API server will expect"
    )]
    None,
    /// One that was named is not.
    #[error("AgentResource {0} does not exist or has no spec.kubernetes: name one that has, or none")]
    NotThisCluster(String),
    /// Tokens for its audience are another service's.
    #[error(
        "the audience {audience} of AgentResource {name} is that of the older AgentResource {holder}, which is not this \
         cluster: what agents hand to that service would be a login; create {name} anew with another audience, or name \
         the AgentResources that are meant"
    )]
    Taken {
        /// The AgentResource.
        name: String,
        /// Its audience.
        audience: String,
        /// Whose it is.
        holder: String,
    },
    /// The namespaces say different CAs.
    #[error(
        "the ConfigMaps {TRUST_NAME} say different CAs: try again when a roll-over has reached all, or name a namespace in \
         which only administrators may write with -n"
    )]
    Differ,
    /// Not writable as YAML.
    #[error("cannot write YAML: {0}")]
    Yaml(String),
    /// Standard output can't be written.
    #[error("cannot write to standard output: {0}")]
    Print(#[source] io::Error),
}

impl KubeAuthConfigArgs {
    /// Reads the cluster and prints.
    ///
    /// # Errors
    /// [`KubeAuthConfigError`].
    pub async fn run(self) -> Result<(), KubeAuthConfigError> {
        let clients = connect(&self.connection.options()).await?;
        let found = find(&clients.write, self.namespace.as_deref()).await.map_err(PublishError::Call)?;
        let place = self
            .namespace
            .as_ref()
            .map_or_else(|| "in any namespace".to_owned(), |n| format!("in namespace {n}"));
        let published = agreed(&found, place)?;
        let authority = if self.system_roots { None } else { authority(&found)? };
        let resources: Api<AgentResource> = Api::all(clients.write.clone());
        let all = timed(resources.list(&ListParams::default())).await?.items;
        let audiences = audiences(&all, &self.resources)?;
        let document = document(&published.issuer, self.discovery_url.as_deref(), authority, &audiences);
        let text = serde_yaml::to_string(&document).map_err(|e| KubeAuthConfigError::Yaml(e.to_string()))?;
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // Whoever reads has seen enough, as `head` does.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(KubeAuthConfigError::Print),
        }
    }
}

/// What vouches for the issuer, on which all must agree.
fn authority(found: &[ConfigMap]) -> Result<Option<&str>, KubeAuthConfigError> {
    let mut said = found.iter().map(|m| m.data.as_ref().and_then(|d| d.get("ca.crt")).map(String::as_str));
    let first = said.next().flatten();
    if said.all(|other| other == first) { Ok(first) } else { Err(KubeAuthConfigError::Differ) }
}

/// The audiences of this cluster, sorted.
fn audiences(all: &[AgentResource], wanted: &[String]) -> Result<Vec<String>, KubeAuthConfigError> {
    let named = |r: &AgentResource, name: &String| r.metadata.name.as_ref() == Some(name);
    let ours: Vec<_> = all.iter().filter(|r| r.spec.kubernetes.is_some()).collect();
    if let Some(missing) = wanted.iter().find(|w| !ours.iter().any(|r| named(r, w))) {
        return Err(KubeAuthConfigError::NotThisCluster(missing.clone()));
    }
    let chosen = ours.iter().filter(|r| wanted.is_empty() || wanted.iter().any(|w| named(r, w)));
    let mut audiences = Vec::new();
    for resource in chosen {
        let audience = &resource.spec.audience;
        if let Some(holder) = holder(all, audience).filter(|h| h.spec.kubernetes.is_none()) {
            return Err(KubeAuthConfigError::Taken {
                name: resource.name_any(),
                audience: audience.clone(),
                holder: holder.name_any(),
            });
        }
        audiences.push(audience.clone());
    }
    audiences.sort_unstable();
    audiences.dedup();
    if audiences.is_empty() { Err(KubeAuthConfigError::None) } else { Ok(audiences) }
}

/// Whose an audience is: the oldest's that has it, then the one's of the lower UID.
fn holder<'a>(all: &'a [AgentResource], audience: &str) -> Option<&'a AgentResource> {
    let rivals =
        all.iter().filter(|r| r.spec.audience == audience && r.metadata.deletion_timestamp.is_none());
    rivals.min_by_key(|r| (r.metadata.creation_timestamp.clone(), r.metadata.uid.clone()))
}

fn document(issuer: &str, discovery: Option<&str>, authority: Option<&str>, audiences: &[String]) -> Value {
    let claim = |name: &str| format!("string(claims['agentid.dev'].{name})");
    let extra =
        |key: &str, value: String| json!({"key": format!("agentid.dev/{key}"), "valueExpression": value});
    let rule = |expression: &str, message: &str| json!({"expression": expression, "message": message});
    let mut of = json!({"url": issuer, "audiences": audiences, "audienceMatchPolicy": "MatchAny"});
    if let Some(url) = discovery {
        of["discoveryURL"] = url.into();
    }
    if let Some(pem) = authority {
        of["certificateAuthority"] = pem.into();
    }
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": of,
            "claimValidationRules": [
                rule("!has(claims.act)", "a token in somebody's name is no login"),
                rule(
                    "!has(claims.client_id) && !has(claims.scope) && has(claims.sub_profile) && claims.sub_profile == 'ai_agent'",
                    "only an agent's identity token is a login",
                ),
                rule(
                    "string(claims.sub).endsWith('/agent/' + string(claims['agentid.dev'].uid))",
                    "the subject must be the agent's id",
                ),
                rule("string(claims.sub).startsWith('spiffe://')", "the subject must be the agent's id"),
                rule("claims.exp - claims.iat <= 86400", "no token lives longer than 24 hours"),
            ],
            "claimMappings": {
                "username": {"expression": "string(claims.sub)"},
                "groups": {"expression": format!("['{AGENTS_GROUP}']")},
                "uid": {"expression": claim("uid")},
                "extra": [
                    extra("namespace", claim("namespace")),
                    extra("name", claim("name")),
                    extra("blueprint", claim("?blueprint.orValue('')")),
                    extra("jti", "string(claims.jti)".to_owned()),
                ],
            },
            "userValidationRules": [rule("!user.username.startsWith('system:')", "no agent is a system user")],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, audience: &str, kubernetes: bool) -> AgentResource {
        let mut resource = AgentResource::new(name, Default::default());
        resource.spec.audience = audience.to_owned();
        resource.spec.kubernetes = kubernetes.then(Default::default);
        resource
    }

    #[test]
    fn audiences_are_those_of_this_cluster() {
        let all = [resource("b", "y", true), resource("a", "x", true), resource("t", "z", false)];
        assert_eq!(audiences(&all, &[]).unwrap(), ["x", "y"]);
        assert_eq!(audiences(&all, &["b".to_owned()]).unwrap(), ["y"]);
        for wrong in ["t", "missing"] {
            let error = audiences(&all, &[wrong.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("spec.kubernetes"), "{error}");
        }
        assert!(audiences(&all[2..], &[]).unwrap_err().to_string().contains("kubernetes: {}"));
    }

    #[test]
    fn an_audience_of_an_older_service_is_no_login() {
        let born = |mut r: AgentResource, second: i64| {
            let at = jiff::Timestamp::from_second(second).unwrap();
            r.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
            r
        };
        let cluster = born(resource("cluster", "x", true), 2);
        let mut all = [cluster, born(resource("vault", "x", false), 1), resource("b", "y", true)];
        let error = audiences(&all, &[]).unwrap_err().to_string();
        assert!(error.contains("cluster") && error.contains("older AgentResource vault"), "{error}");
        assert_eq!(audiences(&all, &["b".to_owned()]).unwrap(), ["y"]);
        // A younger one takes nothing, and one that is this cluster too may share.
        all[1] = born(resource("vault", "x", false), 3);
        assert_eq!(audiences(&all, &[]).unwrap(), ["x", "y"]);
        all[1] = born(resource("vault", "x", true), 1);
        assert_eq!(audiences(&all, &[]).unwrap(), ["x", "y"]);
    }

    #[test]
    fn says_what_a_login_is() {
        let document =
            document("https://i.example", Some("https://d.example/x"), Some("PEM"), &["k".to_owned()]);
        let jwt = &document["jwt"][0];
        assert_eq!(jwt["issuer"]["certificateAuthority"], "PEM");
        assert_eq!(jwt["issuer"]["discoveryURL"], "https://d.example/x");
        assert_eq!(jwt["claimMappings"]["username"]["expression"], "string(claims.sub)");
        assert_eq!(jwt["claimMappings"]["groups"]["expression"], "['agentid:agents']");
        assert!(jwt["claimValidationRules"].to_string().contains("!has(claims.act)"));
        // Kubernetes' own domains are not for others.
        for extra in jwt["claimMappings"]["extra"].as_array().unwrap() {
            assert!(extra["key"].as_str().unwrap().starts_with("agentid.dev/"));
        }
    }

    #[test]
    fn namespaces_must_agree_on_the_authority() {
        let map = |ca: &str| ConfigMap {
            data: Some([("ca.crt".to_owned(), ca.to_owned())].into()),
            ..ConfigMap::default()
        };
        assert_eq!(authority(&[map("a"), map("a")]).unwrap(), Some("a"));
        assert!(authority(&[map("a"), map("b")]).is_err());
        assert_eq!(authority(&[ConfigMap::default()]).unwrap(), None);
    }
}
