//! The objects that the tests apply. `$NS` stands for the test's namespace.

/// An AgentResource `<name>-$NS` of `https://<name>.$NS.example.com` that offers the roles reader and writer
/// and the scope read; `allow` is the list of its allowances, `more` further fields (`, key: value`).
pub fn resource_with(name: &str, allow: &str, more: &str) -> String {
    format!(
        "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentResource\nmetadata: {{name: {name}-$NS}}\nspec: {{audience: \
         \"https://{name}.$NS.example.com\", roles: [{{name: reader}}, {{name: writer}}], scopes: [{{name: read}}], \
         allow: {allow}{more}}}\n"
    )
}

/// The allowance of everything to the test's namespace.
pub const THIS_NAMESPACE: &str =
    "[{namespaceSelector: {matchLabels: {\"kubernetes.io/metadata.name\": $NS}}}]";

/// A resource that allows everything to the test's namespace.
pub fn resource(name: &str) -> String {
    resource_with(name, THIS_NAMESPACE, "")
}

/// An AgentIdentity; `spec` is its spec's fields.
pub fn agent(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentIdentity\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// An AgentGrant of the role reader on `<resource>-$NS`, in the file `<name>.jwt`; `more` as above.
pub fn grant(name: &str, agents: &str, resource: &str, more: &str) -> String {
    grant_of(
        name,
        agents,
        resource,
        &format!("application: {{roles: [reader]}}, secretKey: {name}.jwt{more}"),
    )
}

/// An AgentGrant of whatever the spec's fields say.
pub fn grant_of(name: &str, agents: &str, resource: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: agentid.dev/v1alpha1\nkind: AgentGrant\nmetadata: {{name: {name}}}\nspec: {{agents: {{{agents}}}, \
         resource: {resource}-$NS, {spec}}}\n"
    )
}

/// A time so many seconds from now.
pub fn in_seconds(seconds: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(now + seconds).unwrap().to_string()
}

/// A pod that nothing runs.
pub fn pod(name: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{schedulerName: none, \
         containers: [{{name: c, image: example.com/none}}]}}\n"
    )
}

/// A Deployment without pods.
pub fn deployment(name: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{replicas: 0, selector: \
         {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: \
         [{{name: c, image: example.com/none}}]}}}}}}\n"
    )
}
