//! Holds what the token service reads of the configuration against what can be used.
//!
//! Invariant: what is refused is named by its field, with what to write instead.

use super::{
    BlueprintAudience, CertificateTimes, ConfigError, Configuration, StatusLists, UserIssuer,
    UserIssuerSource,
};

/// The most audiences of one issuer that stand for blueprints.
const BLUEPRINT_AUDIENCES: usize = 64;

/// Holds these parts against what can be used.
pub(in crate::api) fn check(config: &Configuration) -> Result<(), ConfigError> {
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

fn is_https(url: &str) -> bool {
    url.strip_prefix("https://").is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && url.len() <= 512
            && !rest.contains(['?', '#', '@', '"', '\\'])
            && rest.chars().all(|c| c.is_ascii_graphic())
    })
}
