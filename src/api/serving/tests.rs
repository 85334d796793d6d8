//! What is read of the configuration, and what is refused.

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
    let user = |url: &str, prefix: &str| format!("- issuer: {{url: '{url}'}}\n  subjectPrefix: '{prefix}'\n");
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
            format!("userIssuers:\n{}{}", user("https://a.example", "c:"), user("https://b.example", "c:d:")),
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
