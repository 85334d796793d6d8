//! Pods that ask for it get their credentials: the Secret as a volume, or the sidecar.
//!
//! Invariant: a pod that has the volume, or mounts anything at its place, is left as it is; so is one that does not
//! say which agent it is. A pod never fails to be created by these policies.

use serde_json::{Value, json};

use super::object::{Body, Failure, Policy, leaving, rule, text, value};
use crate::api::{AGENT_LABEL, INJECT_LABEL, SECRET_NAME_ANNOTATION, TRUST_NAME};

/// Where the files are.
const DIRECTORY: &str = "/var/run/agentid";
/// Where the sidecar finds what it proves itself with.
const PROOF: &str = "/var/run/secrets/agentid";
/// The volume, and the sidecar's container.
const VOLUME: &str = "agentid";
/// The volume of the sidecar's proof.
const PROOF_VOLUME: &str = "agentid-token";

/// A patch that adds to a list that may be missing.
fn append(list: &str, path: &str, item: &str) -> String {
    format!(
        "[has({list}) ? JSONPatch{{op: 'add', path: '{path}/-', value: {item}}} \
         : JSONPatch{{op: 'add', path: '{path}', value: [{item}]}}]"
    )
}

/// The patches that mount the volume in all containers.
fn mounts() -> String {
    let mount = value(&json!({"name": VOLUME, "mountPath": DIRECTORY, "readOnly": true}));
    let of = |list: &str| {
        format!(
            "transformList(i, c, has(c.volumeMounts) \
             ? JSONPatch{{op: 'add', path: '/spec/{list}/' + string(i) + '/volumeMounts/-', value: {mount}}} \
             : JSONPatch{{op: 'add', path: '/spec/{list}/' + string(i) + '/volumeMounts', value: [{mount}]}})"
        )
    };
    format!(
        "object.spec.containers.{} +\n(has(object.spec.initContainers) ? object.spec.initContainers.{} : [])",
        of("containers"),
        of("initContainers")
    )
}

fn policy(
    name: &'static str,
    description: String,
    mode: &str,
    conditions: Vec<(&'static str, String)>,
    variables: Vec<(&'static str, String)>,
    patches: &[String],
) -> Policy {
    let free = |list: &str| {
        format!("{list}.all(c, !has(c.volumeMounts) || c.volumeMounts.all(m, m.mountPath != '{DIRECTORY}'))")
    };
    let untouched = format!(
        "(!has(object.spec.volumes) || object.spec.volumes.all(v, !(v.name in ['{VOLUME}', '{PROOF_VOLUME}']))) && {} && \
         (!has(object.spec.initContainers) || ({} && object.spec.initContainers.all(c, c.name != '{VOLUME}')))",
        free("object.spec.containers"),
        free("object.spec.initContainers"),
    );
    Policy {
        name,
        description,
        failure: Failure::Ignore,
        rules: vec![rule("", &["CREATE"], &["pods"])],
        selector: Some(json!({"matchLabels": {INJECT_LABEL: mode}})),
        conditions: [("has-none-yet", untouched)].into_iter().chain(conditions).collect(),
        variables: [leaving()].into_iter().chain(variables).collect(),
        body: Body::Mutate(format!("variables.leaving ? [] :\n{}", patches.join(" +\n"))),
    }
}

/// The pod's service-account token, by which the token service knows it.
fn token(issuer: &str) -> Value {
    json!({"serviceAccountToken": {"path": "token", "audience": issuer, "expirationSeconds": 3600}})
}

/// The Secret as a volume.
fn secret(issuer: &str) -> Policy {
    let name = format!(
        "object.metadata.?annotations[?{}].orValue(object.metadata.?labels[?{agent}].orValue('') == '' ? '' : \
         object.metadata.labels[{agent}] + '-agentid')",
        text(SECRET_NAME_ANNOTATION),
        agent = text(AGENT_LABEL),
    );
    let trust = json!({"configMap": {"name": TRUST_NAME, "optional": true}});
    let volume = format!(
        "{{'name': dyn('{VOLUME}'), 'projected': dyn({{'sources': [dyn({{'secret': {{'name': variables.secret}}}}), \
         dyn({}), dyn({})]}})}}",
        value(&trust),
        value(&token(issuer))
    );
    policy(
        "agentid-inject",
        format!("Mounts an agent's Secret at {DIRECTORY} in pods labelled {INJECT_LABEL}=true."),
        "true",
        vec![("names-its-secret", format!("({name}) != ''"))],
        vec![("secret", name)],
        &[mounts(), append("object.spec.volumes", "/spec/volumes", &volume)],
    )
}

/// The sidecar, which keeps the same files without a Secret.
fn sidecar(issuer: &str, image: &str) -> Policy {
    let container = json!({
        "name": VOLUME,
        "image": image,
        "restartPolicy": "Always",
        // The files are in a volume of this pod alone, and its containers may run as any user.
        "args": ["sidecar", "--server", issuer, "--ca", format!("{PROOF}/ca.crt"),
                 "--token-file", format!("{PROOF}/token"), "--directory", DIRECTORY, "--mode", "0444"],
        // The image holds agentid and nothing else: no shell, no `test`.
        "startupProbe": {"exec": {"command": ["agentid", "sidecar-ready", "--directory", DIRECTORY]},
                         "periodSeconds": 1, "failureThreshold": 300},
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                            "runAsNonRoot": true, "runAsUser": 65532, "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "volumeMounts": [{"name": PROOF_VOLUME, "mountPath": PROOF, "readOnly": true},
                         {"name": VOLUME, "mountPath": DIRECTORY}],
    });
    let ca = json!({"configMap": {"name": TRUST_NAME, "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
    let volumes = [
        json!({"name": VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        json!({"name": PROOF_VOLUME, "projected": {"sources": [token(issuer), ca]}}),
    ]
    .map(|v| value(&v));
    let path = "/spec/volumes";
    // The second is appended to what the first has made.
    let second = format!("[JSONPatch{{op: 'add', path: '{path}/-', value: {}}}]", volumes[1]);
    let container = value(&container);
    let start = format!(
        "[has(object.spec.initContainers) ? JSONPatch{{op: 'add', path: '/spec/initContainers/0', value: {container}}} \
         : JSONPatch{{op: 'add', path: '/spec/initContainers', value: [{container}]}}]"
    );
    policy(
        "agentid-inject-sidecar",
        format!(
            "Runs agentid sidecar, with its files at {DIRECTORY}, in pods labelled {INJECT_LABEL}=sidecar."
        ),
        "sidecar",
        Vec::new(),
        Vec::new(),
        &[mounts(), append("object.spec.volumes", path, &volumes[0]), second, start],
    )
}

/// Tells whoever creates a pod that asked and got nothing.
fn not_injected() -> Policy {
    Policy {
        name: "agentid-not-injected",
        description: "Warns whoever creates a pod that asks for its credentials and got no volume."
            .to_owned(),
        failure: Failure::Ignore,
        rules: vec![rule("", &["CREATE"], &["pods"])],
        selector: Some(json!({"matchExpressions": [{"key": INJECT_LABEL, "operator": "Exists"}]})),
        conditions: Vec::new(),
        variables: vec![leaving()],
        body: Body::Validate {
            checks: vec![(
                format!(
                    "variables.leaving || object.spec.?volumes.orValue([]).exists(v, v.name == '{VOLUME}')"
                ),
                format!(
                    "'pod ' + object.metadata.?name.orValue(object.metadata.?generateName.orValue('')) + ': label \
                     {INJECT_LABEL}=' + object.metadata.labels[{}] + ': no credentials were mounted: the value must be \
                     true or sidecar, and with true the label {AGENT_LABEL} must name the agent or the annotation \
                     {SECRET_NAME_ANNOTATION} its Secret'",
                    text(INJECT_LABEL)
                ),
            )],
            actions: &["Warn"],
        },
    }
}

/// All for which enough is known, each a file.
pub(super) fn policies(issuer: Option<&str>, image: Option<&str>) -> Vec<[Value; 2]> {
    let Some(issuer) = issuer else { return Vec::new() };
    let sidecar = image.map(|image| sidecar(issuer, image));
    [secret(issuer)].into_iter().chain(sidecar).chain([not_injected()]).map(Policy::objects).collect()
}
