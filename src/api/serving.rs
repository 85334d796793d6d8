//! The parts of the configuration that the token service reads: whose users it trusts, how it is reached, how
//! much it takes, and its status lists.
//!
//! Invariants: no two user issuers share a URL or a subject prefix, so a delegated `sub` names one user of one
//! issuer and never an agent; no agent user's name lies in a domain that a user issuer serves.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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

/// The most audiences of one issuer that stand for blueprints.
const BLUEPRINT_AUDIENCES: usize = 64;

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

/// Holds these parts against what can be used.
pub(super) fn check(config: &Configuration) -> Result<(), ConfigError> {
    let refuse = |field, problem: String| Err(ConfigError::Value { field, problem });
    for (i, user) in config.user_issuers.iter().enumerate() {
        let UserIssuerSource { url, discovery_url, .. } = &user.issuer;
        for (field, value) in [
            ("userIssuers[].issuer.url", Some(url)),
            ("userIssuers[].issuer.discoveryURL", discovery_url.as_ref()),
        ] {
            if let Some(value) = value
                && !is_https(value)
            {
                return refuse(
                    field,
                    format!("{value:?} must be an https URL without user, query and fragment"),
                );
            }
        }
        if *url == config.issuer {
            return refuse("userIssuers[].issuer.url", format!("{url:?} is agentid's own issuer"));
        }
        if discovery_url.as_ref() == Some(url) {
            return refuse("userIssuers[].issuer.discoveryURL", "must differ from url".to_owned());
        }
        let prefix = &user.subject_prefix;
        let reserved = ["spiffe:", "agent-user:", "system:"]
            .iter()
            .any(|r| prefix.starts_with(r) || r.starts_with(prefix.as_str()));
        if prefix.len() > 64
            || !prefix.ends_with(':')
            || !prefix.chars().all(|c| c.is_ascii_graphic())
            || reserved
        {
            return refuse(
                "userIssuers[].subjectPrefix",
                format!(
                    "{prefix:?} must end in ':' and not be spiffe:, agent-user: or system:, such as \"corp:\""
                ),
            );
        }
        check_blueprint_audiences(config, user)?;
        let clash = config.user_issuers[..i].iter().any(|other| {
            other.issuer.url == *url
                || other.subject_prefix.starts_with(prefix.as_str())
                || prefix.starts_with(&other.subject_prefix)
        });
        if clash {
            return refuse(
                "userIssuers",
                format!("{url:?}: two entries share the URL, or one's subjectPrefix begins with the other's"),
            );
        }
    }
    check_domains(config)?;
    let rates = [config.serving.rate_limits.per_source, config.serving.rate_limits.per_agent];
    if rates.iter().any(|r| r.per_second == 0 || r.burst == 0) {
        return refuse("serving.rateLimits", "perSecond and burst must be above 0".to_owned());
    }
    let CertificateTimes { authority, serving } = config.serving.certificates;
    if serving.0 < 10 || authority.0 < 2 * serving.0 {
        return refuse(
            "serving.certificates",
            "serving must be at least 10s and authority at least twice as long".to_owned(),
        );
    }
    let StatusLists { ttl, lifetime, capacity } = config.status_lists;
    if ttl.0 == 0 || lifetime < ttl || lifetime.0 > 86_400 {
        return refuse(
            "statusLists",
            "ttl must be above 0s, lifetime at least ttl and at most 24h".to_owned(),
        );
    }
    if capacity == 0 || !capacity.is_multiple_of(8) || capacity > 1 << 24 {
        return refuse("statusLists.capacity", "must be a multiple of 8, at most 16777216".to_owned());
    }
    Ok(())
}

/// An audience that stands for a blueprint stands for nothing else.
fn check_blueprint_audiences(config: &Configuration, user: &UserIssuer) -> Result<(), ConfigError> {
    const FIELD: &str = "userIssuers[].blueprintAudiences";
    let refuse = |problem: String| Err(ConfigError::Value { field: FIELD, problem });
    let all = &user.blueprint_audiences;
    if all.len() > BLUEPRINT_AUDIENCES {
        return refuse(format!("has {} entries; at most {BLUEPRINT_AUDIENCES} are taken", all.len()));
    }
    for (i, BlueprintAudience { audience, blueprint }) in all.iter().enumerate() {
        if audience.is_empty() || audience.len() > 512 || !audience.chars().all(|c| c.is_ascii_graphic()) {
            return refuse(format!(
                "audience {audience:?} must be 1 to 512 characters of printable ASCII without spaces"
            ));
        }
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
        if blueprint.is_empty() || blueprint.len() > 63 || !blueprint.bytes().all(plain) {
            return refuse(format!("blueprint {blueprint:?} must be the name of an AgentBlueprint"));
        }
        if config.is_own_audience(audience) || audience.starts_with("spiffe:") {
            return refuse(format!(
                "audience {audience:?} is agentid's own or an agent's id; choose one that only the users' issuer \
                 gives out"
            ));
        }
        if user.issuer.audiences.contains(audience) {
            return refuse(format!(
                "audience {audience:?} is among issuer.audiences too, whose tokens must name the agent by may_act; \
                 leave it out of one of the two"
            ));
        }
        if all[..i].iter().any(|other| other.audience == *audience) {
            return refuse(format!("audience {audience:?} stands twice; it may stand for one blueprint"));
        }
    }
    Ok(())
}

fn check_domains(config: &Configuration) -> Result<(), ConfigError> {
    let refuse = |field, problem: String| Err(ConfigError::Value { field, problem });
    let unfit = |domain: &String| {
        format!("{domain:?} must be a DNS domain in lower case, such as agents.example.com")
    };
    for user in &config.user_issuers {
        if let Some(domain) = user.domains.iter().find(|d| !is_domain(d)) {
            return refuse("userIssuers[].domains", unfit(domain));
        }
    }
    for domain in &config.agent_user_domains {
        if !is_domain(domain) {
            return refuse("agentUserDomains", unfit(domain));
        }
        if let Some(user) = config.issuer_of_domain(domain) {
            return refuse(
                "agentUserDomains",
                format!(
                    "{domain:?} is served by the user issuer {:?}, so an agent user could bear a person's name; \
                     choose a domain of the agents' own",
                    user.issuer.url
                ),
            );
        }
    }
    Ok(())
}

/// A DNS domain in lower case (RFC 1123 §2.1).
fn is_domain(text: &str) -> bool {
    let fit = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let label = |l: &str| {
        (1..=63).contains(&l.len()) && l.bytes().all(fit) && !l.starts_with('-') && !l.ends_with('-')
    };
    text.len() <= 189 && text.split('.').all(label)
}

/// The host of an https URL.
fn host_of(url: &str) -> &str {
    let authority = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn is_https(url: &str) -> bool {
    url.strip_prefix("https://").is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && url.len() <= 512
            && !rest.contains(['?', '#', '@', '"', '\\'])
            && rest.chars().all(|c| c.is_ascii_graphic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "apiVersion: config.agentid.dev/v1alpha1\nkind: Configuration\nissuer: https://agents.example.com:8443/x\ntrustDomain: agents.example.com\n";

    fn read(more: &str) -> Result<Configuration, ConfigError> {
        Configuration::from_yaml(&format!("{BASE}{more}"))
    }

    #[test]
    fn user_issuers_are_read_as_kubernetes_writes_them() {
        let config = read(
            "userIssuers:\n- issuer: {url: https://idp.example.com, discoveryURL: https://10.0.0.1/d, audiences: [a], allowedNetworks: [10.0.0.0/8]}\n  subjectPrefix: 'corp:'\n  blueprintAudiences: [{audience: p, blueprint: bots}, {audience: q, blueprint: bots}]\n",
        )
        .unwrap();
        let user = config.user_issuer("https://idp.example.com").unwrap();
        assert!(user.scopes_apply);
        for (audience, blueprint, wanted) in
            [("p", "bots", true), ("q", "bots", true), ("p", "b", false), ("a", "bots", false)]
        {
            let audiences = ["x".to_owned(), audience.to_owned()];
            assert_eq!(user.is_for_blueprint(&audiences, blueprint), wanted, "{audience} {blueprint}");
        }
        let both = "userIssuers:\n- issuer: {url: https://idp.example.com}\n  subjectPrefix: 'corp:'\n  domains: [example.com]\n";
        // The agents' own domain may lie below the people's.
        assert!(read(&format!("{both}agentUserDomains: [agents.example.com]\n")).is_ok());
        assert_eq!(user.issuer.discovery_url.as_deref(), Some("https://10.0.0.1/d"));
        assert_eq!(config.serving_names("sys"), ["agents.example.com", "agentid.sys.svc"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_field() {
        let user =
            |url: &str, prefix: &str| format!("- issuer: {{url: '{url}'}}\n  subjectPrefix: '{prefix}'\n");
        let audiences = |all: &str| {
            format!(
                "userIssuers:\n- issuer: {{url: https://idp.example.com, audiences: [here]}}\n  subjectPrefix: 'c:'\n  \
                 blueprintAudiences: [{all}]\n"
            )
        };
        for (more, field) in [
            (format!("userIssuers:\n{}", user("http://idp.example.com", "c:")), "issuer.url"),
            (format!("userIssuers:\n{}", user("https://u@idp.example.com", "c:")), "issuer.url"),
            (format!("userIssuers:\n{}", user("https://agents.example.com:8443/x", "c:")), "issuer.url"),
            (format!("userIssuers:\n{}", user("https://idp.example.com", "")), "subjectPrefix"),
            (format!("userIssuers:\n{}", user("https://idp.example.com", "spiffe:")), "subjectPrefix"),
            (format!("userIssuers:\n{}", user("https://idp.example.com", "s")), "subjectPrefix"),
            (
                format!(
                    "userIssuers:\n{}{}",
                    user("https://a.example", "c:"),
                    user("https://b.example", "c:d:")
                ),
                "userIssuers",
            ),
            (audiences("{audience: https://p.example.com, blueprint: B}"), "name of an AgentBlueprint"),
            (audiences("{audience: 'a b', blueprint: b}"), "blueprintAudiences"),
            (audiences("{audience: '', blueprint: b}"), "blueprintAudiences"),
            (audiences("{audience: 'https://agents.example.com:8443/x', blueprint: b}"), "own"),
            (audiences("{audience: 'spiffe://agents.example.com/agent/1', blueprint: b}"), "agent's id"),
            (audiences("{audience: here, blueprint: b}"), "issuer.audiences too"),
            (audiences("{audience: a, blueprint: b}, {audience: a, blueprint: c}"), "stands twice"),
            (audiences(&vec!["{audience: a, blueprint: b}"; 65].join(", ")), "at most 64"),
            (audiences("{audience: a}"), "blueprint"),
            ("agentUserDomains: [Agents.example.com]\n".to_owned(), "agentUserDomains: \"Agents"),
            ("agentUserDomains: [\u{430}gents.example.com]\n".to_owned(), "such as agents.example.com"),
            ("agentUserDomains: [\"*.example.com\"]\n".to_owned(), "agentUserDomains"),
            ("agentUserDomains: [\"\"]\n".to_owned(), "agentUserDomains"),
            (
                format!(
                    "agentUserDomains: [idp.example.com]\nuserIssuers:\n{}",
                    user("https://IdP.example.com:8443/x", "c:")
                ),
                "is served by the user issuer",
            ),
            (
                format!(
                    "agentUserDomains: [a.example, b.example]\nuserIssuers:\n{}  domains: [b.example]\n",
                    user("https://idp.example.com", "c:")
                ),
                "\"b.example\" is served by",
            ),
            (
                format!("userIssuers:\n{}  domains: [B.example]\n", user("https://idp.example.com", "c:")),
                "userIssuers[].domains",
            ),
            ("serving: {rateLimits: {perAgent: {perSecond: 0, burst: 1}}}\n".to_owned(), "rateLimits"),
            ("serving: {certificates: {authority: 1h, serving: 1h}}\n".to_owned(), "certificates"),
            ("statusLists: {ttl: 10m}\n".to_owned(), "statusLists"),
            ("statusLists: {capacity: 7}\n".to_owned(), "capacity"),
            ("limits: {onDemandTokenLifetime: 2h}\n".to_owned(), "onDemand"),
        ] {
            let error = read(&more).unwrap_err().to_string();
            assert!(error.contains(field), "{more}: {error}");
        }
    }
}
