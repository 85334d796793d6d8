//! The parts of the configuration that the token service reads: whose users it trusts, how it is reached, how
//! much it takes, and its status lists.
//!
//! Invariants: no two user issuers share a URL or a subject prefix, so a delegated `sub` names one user of one
//! issuer and never an agent; no agent user's name lies in a domain that a user issuer serves.

mod check;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(super) use self::check::check;
use super::{ConfigError, Configuration, Seconds};

/// An issuer whose users may let agents act for them; its `issuer` is written as in Kubernetes'
/// AuthenticationConfiguration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserIssuer {
    /// Who it is and where its keys are.
    pub issuer: UserIssuerSource,
    /// What stands before a user's `sub` in delegated tokens, such as `corp:`; unique.
    pub subject_prefix: String,
    /// Whether the scopes of the users' tokens bound those of delegated ones: true when absent. False says that
    /// they are another vocabulary.
    #[serde(default = "yes")]
    pub scopes_apply: bool,
    /// Audiences of this issuer's tokens that stand for the agents of a blueprint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blueprint_audiences: Vec<BlueprintAudience>,
    /// The DNS domains in which its users' names lie, beside the host of its URL: none of them may be an agent user's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}

/// An audience that stands for the agents of a blueprint: a user's token for it is a token for any of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlueprintAudience {
    /// The `aud` of the users' tokens.
    pub audience: String,
    /// The name of an AgentBlueprint.
    pub blueprint: String,
}

/// Who a user issuer is and where its keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserIssuerSource {
    /// The `iss` of its tokens: an https URL.
    pub url: String,
    /// Where its discovery document is, if not at `<url>/.well-known/openid-configuration`.
    #[serde(default, rename = "discoveryURL", skip_serializing_if = "Option::is_none")]
    pub discovery_url: Option<String>,
    /// The certificates (PEM) that vouch for its server; the system's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// Audiences of tokens that name the agent by `may_act`; a token whose audience is the agent's id needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Private, loopback or link-local networks in which its server may be; none when absent, so that no
    /// configuration slip makes agentid fetch from inside the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_networks: Vec<IpNet>,
}

/// How the token service is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Serving {
    /// The names on the self-managed certificate, beside the issuer's host and
    /// `agentid.<operator's namespace>.svc`.
    pub dns_names: Vec<String>,
    /// The addresses on the self-managed certificate.
    pub ip_addresses: Vec<IpAddr>,
    /// How long the self-managed certificates live.
    pub certificates: CertificateTimes,
    /// How many requests are taken.
    pub rate_limits: RateLimits,
}

/// How long the self-managed certificates live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CertificateTimes {
    /// A CA: 8760h (365 days) when absent. The next one is published when half of it has passed.
    pub authority: Seconds,
    /// A serving certificate: 720h (30 days) when absent. It is made anew when two thirds have passed.
    pub serving: Seconds,
}

/// How many requests are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RateLimits {
    /// From one address: 500 a second, 1000 at once, when absent.
    pub per_source: RateLimit,
    /// By one agent: 20 a second, 100 at once, when absent.
    pub per_agent: RateLimit,
}

/// A rate, with how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second, sustained.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
}

/// The status lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StatusLists {
    /// How long a verifier may use a list before it asks again: 30s when absent.
    pub ttl: Seconds,
    /// How long a list is valid at most: 5m when absent.
    pub lifetime: Seconds,
    /// Entries a list: 1048576 when absent. A full list is followed by another.
    pub capacity: u32,
}

impl UserIssuer {
    /// Whether one of these audiences stands for the agents of a blueprint.
    #[must_use]
    pub fn is_for_blueprint(&self, audiences: &[String], blueprint: &str) -> bool {
        self.blueprint_audiences.iter().any(|a| a.blueprint == blueprint && audiences.contains(&a.audience))
    }
}

const fn yes() -> bool {
    true
}

impl Default for CertificateTimes {
    fn default() -> Self {
        Self { authority: Seconds(8760 * 3600), serving: Seconds(720 * 3600) }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            per_source: RateLimit { per_second: 500, burst: 1000 },
            per_agent: RateLimit { per_second: 20, burst: 100 },
        }
    }
}

impl Default for StatusLists {
    fn default() -> Self {
        Self { ttl: Seconds(30), lifetime: Seconds(300), capacity: 1 << 20 }
    }
}

impl Configuration {
    /// The trusted user issuer of a URL.
    #[must_use]
    pub fn user_issuer(&self, url: &str) -> Option<&UserIssuer> {
        self.user_issuers.iter().find(|u| u.issuer.url == url)
    }

    /// The user issuer that serves a domain, if one does: by its `domains` or the host of its URL.
    fn issuer_of_domain(&self, domain: &str) -> Option<&UserIssuer> {
        self.user_issuers.iter().find(|u| {
            host_of(&u.issuer.url).eq_ignore_ascii_case(domain) || u.domains.iter().any(|d| d == domain)
        })
    }

    /// The names on the self-managed certificate.
    #[must_use]
    pub fn serving_names(&self, namespace: &str) -> Vec<String> {
        let host = host_of(&self.issuer);
        let service = format!("agentid.{namespace}.svc");
        let mut names = Vec::new();
        for name in [host, &service].into_iter().chain(self.serving.dns_names.iter().map(String::as_str)) {
            let is_address = name.parse::<IpAddr>().is_ok() || name.starts_with('[');
            if !is_address && !name.is_empty() && !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}

/// The host of an https URL.
fn host_of(url: &str) -> &str {
    let authority = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

#[cfg(test)]
mod tests;
