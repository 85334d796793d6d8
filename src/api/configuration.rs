//! The configuration file of all processes: `config.agentid.dev/v1alpha1`, kind `Configuration`.
//!
//! Invariant: what is not understood is refused, with its line; nothing is guessed.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{DurationError, Kubernetes, Serving, SigningAlgorithm, StatusLists, UserIssuer, parse_seconds};

/// The configuration, as it stands in the file given by `--config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    /// `config.agentid.dev/v1alpha1`.
    pub api_version: String,
    /// `Configuration`.
    pub kind: String,
    /// The `iss` of every token: an https URL without query, fragment or trailing slash. Fixed while tokens
    /// live.
    pub issuer: String,
    /// The SPIFFE trust domain of the agent ids: lower-case letters, digits, `.`, `-`, `_`. Fixed while tokens
    /// live.
    pub trust_domain: String,
    /// The label selector by which pods are seen; `agentid.dev/agent` (the label is there) when absent.
    #[serde(default = "default_pod_selector")]
    pub pod_selector: String,
    /// The kinds that agents may be bound to.
    #[serde(default = "default_bound_kinds")]
    pub bound_kinds: Vec<BoundKind>,
    /// How long signing keys live in each state.
    #[serde(default)]
    pub keys: KeyTimes,
    /// Bounds on lifetimes.
    #[serde(default)]
    pub limits: Limits,
    /// How old the picture of the cluster may be before nothing is minted: 60s when absent.
    #[serde(default = "default_max_stale")]
    pub max_stale: Seconds,
    /// The issuers whose users may let agents act for them; none when absent.
    #[serde(default)]
    pub user_issuers: Vec<UserIssuer>,
    /// The DNS domains in which the names of agent users lie; none when absent, so that there are no agent users. None
    /// may be a domain that a user issuer serves.
    #[serde(default)]
    pub agent_user_domains: Vec<String>,
    /// How the token service is served.
    #[serde(default)]
    pub serving: Serving,
    /// The status lists.
    #[serde(default)]
    pub status_lists: StatusLists,
    /// What agents may hold on this cluster, and how they reach it.
    #[serde(default)]
    pub kubernetes: Kubernetes,
}

/// A kind that agents may be bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BoundKind {
    /// Group and version, such as `apps/v1`.
    pub api_version: String,
    /// The kind, such as `Deployment`.
    pub kind: String,
}

/// How long signing keys live in each state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeyTimes {
    /// How long an active key signs: 720h (30 days) when absent.
    pub sign_for: Seconds,
    /// How long a next key is published before it signs: 24h when absent.
    pub publish_ahead: Seconds,
}

/// Bounds on the lifetimes of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// The lifetime of an agent that names none: 1h when absent.
    pub token_lifetime: Seconds,
    /// The shortest lifetime that is delivered in a Secret: 10m when absent. The kubelet needs up to two
    /// minutes to bring a new token into a pod.
    pub min_token_lifetime: Seconds,
    /// The longest lifetime of any token: 24h when absent.
    pub max_token_lifetime: Seconds,
    /// The longest lifetime of an access token that is got on demand: 10m when absent.
    pub on_demand_token_lifetime: Seconds,
    /// The longest lifetime of an identity token that is got on demand: 5m when absent.
    pub identity_token_lifetime: Seconds,
}

/// A duration of the configuration, in whole seconds; written like `90s` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u32);

impl Seconds {
    /// The duration for arithmetic on timestamps.
    #[must_use]
    pub const fn signed(self) -> jiff::SignedDuration {
        jiff::SignedDuration::from_secs(self.0 as i64)
    }
}

impl Serialize for Seconds {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format_seconds(u64::from(self.0)))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        parse_seconds(&text).map(Self).map_err(|e: DurationError| serde::de::Error::custom(e))
    }
}

impl Default for KeyTimes {
    fn default() -> Self {
        Self { sign_for: Seconds(720 * 3600), publish_ahead: Seconds(24 * 3600) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            token_lifetime: Seconds(3600),
            min_token_lifetime: Seconds(600),
            max_token_lifetime: Seconds(24 * 3600),
            on_demand_token_lifetime: Seconds(600),
            identity_token_lifetime: Seconds(300),
        }
    }
}

fn default_pod_selector() -> String {
    super::AGENT_LABEL.to_owned()
}

const fn default_max_stale() -> Seconds {
    Seconds(60)
}

fn default_bound_kinds() -> Vec<BoundKind> {
    [
        ("v1", "Pod"),
        ("batch/v1", "Job"),
        ("batch/v1", "CronJob"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
    ]
    .map(|(v, k)| BoundKind { api_version: v.to_owned(), kind: k.to_owned() })
    .into()
}

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not YAML, an unknown field, or a value of the wrong form; says the line.
    #[error("configuration: {0}")]
    Syntax(String),
    /// A value that cannot be used.
    #[error("configuration: {field}: {problem}")]
    Value {
        /// The field, as a path.
        field: &'static str,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
}

impl Configuration {
    /// A configuration with every default, for an issuer and a trust domain.
    #[must_use]
    pub fn new(issuer: &str, trust_domain: &str) -> Self {
        Self {
            api_version: "config.agentid.dev/v1alpha1".to_owned(),
            kind: "Configuration".to_owned(),
            issuer: issuer.to_owned(),
            trust_domain: trust_domain.to_owned(),
            pod_selector: default_pod_selector(),
            bound_kinds: default_bound_kinds(),
            keys: KeyTimes::default(),
            limits: Limits::default(),
            max_stale: default_max_stale(),
            user_issuers: Vec::new(),
            agent_user_domains: Vec::new(),
            serving: Serving::default(),
            status_lists: StatusLists::default(),
            kubernetes: Kubernetes::default(),
        }
    }

    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with the line of what can't be read, [`ConfigError::Value`] with the field of
    /// what can't be used.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_yaml::from_str(text).map_err(|e| ConfigError::Syntax(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field, problem: String| Err(ConfigError::Value { field, problem });
        if self.api_version != "config.agentid.dev/v1alpha1" || self.kind != "Configuration" {
            return refuse(
                "apiVersion, kind",
                "must be config.agentid.dev/v1alpha1 and Configuration".to_owned(),
            );
        }
        let host = self.issuer.strip_prefix("https://").unwrap_or_default();
        if host.is_empty()
            || host.starts_with('/')
            || self.issuer.len() > 512
            || self.issuer.ends_with('/')
            || self.issuer.contains(['?', '#', '@', '"', '\\'])
            || !self.issuer.chars().all(|c| c.is_ascii_graphic())
        {
            return refuse(
                "issuer",
                format!(
                    "{:?} must be an https URL without query, fragment, user or trailing slash",
                    self.issuer
                ),
            );
        }
        if self.trust_domain.is_empty()
            || self.trust_domain.len() > 255
            || !self.trust_domain.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
        {
            return refuse(
                "trustDomain",
                format!(
                    "{:?} must be of lower-case letters, digits, '.', '-' and '_' (SPIFFE-ID section 2.1)",
                    self.trust_domain
                ),
            );
        }
        let Limits {
            token_lifetime,
            min_token_lifetime,
            max_token_lifetime,
            on_demand_token_lifetime,
            identity_token_lifetime,
        } = self.limits;
        let demand = [on_demand_token_lifetime, identity_token_lifetime];
        if demand.iter().any(|l| l.0 < 10 || *l > Seconds(3600)) {
            return refuse(
                "limits.onDemandTokenLifetime, limits.identityTokenLifetime",
                "must lie between 10s and 1h".to_owned(),
            );
        }
        if min_token_lifetime.0 == 0 || max_token_lifetime.0 > 24 * 3600 {
            return refuse("limits", "lifetimes must be above 0s and at most 24h".to_owned());
        }
        if token_lifetime < min_token_lifetime || token_lifetime > max_token_lifetime {
            return refuse(
                "limits.tokenLifetime",
                "must lie between minTokenLifetime and maxTokenLifetime".to_owned(),
            );
        }
        if self.keys.sign_for.0 == 0 || self.keys.publish_ahead > self.keys.sign_for {
            return refuse("keys", "signFor must be above 0s and publishAhead at most signFor".to_owned());
        }
        if self.max_stale.0 < 10 {
            return refuse("maxStale", "must be at least 10s".to_owned());
        }
        for kind in &self.bound_kinds {
            let core = kind.api_version == "v1" || kind.api_version.split('/').count() == 2;
            if !core || kind.kind.is_empty() || !kind.kind.chars().all(|c| c.is_ascii_alphanumeric()) {
                return refuse(
                    "boundKinds",
                    format!(
                        "{} {:?} is not a kind: write apiVersion: apps/v1, kind: Deployment",
                        kind.api_version, kind.kind
                    ),
                );
            }
            if kind.kind == "Secret" {
                return refuse(
                    "boundKinds",
                    "Secret can't be bound: agentid does not read Secrets".to_owned(),
                );
            }
        }
        if let Err(e) = self.pod_selector.parse::<super::LabelSelector>() {
            return refuse("podSelector", e.to_string());
        }
        self.kubernetes.check()?;
        super::serving::check(self)
    }

    /// Whether an audience belongs to the issuer itself, so that no resource may have it.
    #[must_use]
    pub fn is_own_audience(&self, audience: &str) -> bool {
        audience
            .strip_prefix(self.issuer.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    }

    /// The algorithms of which a key is always there.
    pub const ALGORITHMS: [SigningAlgorithm; 2] = [SigningAlgorithm::ES256, SigningAlgorithm::RS256];
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: config.agentid.dev/v1alpha1\nkind: Configuration\nissuer: https://agents.example.com\ntrustDomain: agents.example.com\n";

    #[test]
    fn reads_defaults_and_own_output() {
        let config = Configuration::from_yaml(GOOD).unwrap();
        assert_eq!(config, Configuration::new("https://agents.example.com", "agents.example.com"));
        let text = serde_yaml::to_string(&config).unwrap();
        assert_eq!(Configuration::from_yaml(&text).unwrap(), config);
    }

    #[test]
    fn refuses_with_the_line_or_field() {
        for (extra, wanted) in [
            ("surprise: 1\n", "surprise"),
            ("keys: {signFor: 1d}\n", "1d"),
            ("keys: {signFor: 1m, publishAhead: 2m}\n", "keys"),
            ("limits: {tokenLifetime: 48h, maxTokenLifetime: 48h}\n", "limits"),
            ("limits: {tokenLifetime: 1m}\n", "limits.tokenLifetime"),
            ("maxStale: 1s\n", "maxStale"),
            ("boundKinds: [{apiVersion: v1, kind: Secret}]\n", "boundKinds"),
            ("podSelector: \"\"\n", "podSelector"),
        ] {
            let error = Configuration::from_yaml(&format!("{GOOD}{extra}")).unwrap_err().to_string();
            assert!(error.contains(wanted), "{extra}: {error}");
        }
        let error = Configuration::from_yaml(&format!("{GOOD}surprise: 1\n")).unwrap_err().to_string();
        assert!(error.contains("line 5"), "{error}");
        for (from, to) in [
            ("https://agents", "http://agents"),
            ("example.com\ntrust", "example.com/\ntrust"),
            ("trustDomain: agents", "trustDomain: Agents"),
        ] {
            assert!(Configuration::from_yaml(&GOOD.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn own_endpoints_are_no_audience() {
        let config = Configuration::new("https://agents.example.com", "x");
        for (audience, own) in [
            ("https://agents.example.com", true),
            ("https://agents.example.com/token", true),
            ("https://agents.example.com.evil.example", false),
            ("https://tickets.example.com", false),
        ] {
            assert_eq!(config.is_own_audience(audience), own, "{audience}");
        }
    }
}
