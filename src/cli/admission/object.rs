//! How an admission policy and its binding are written.
//!
//! Invariant: no policy of ours sees a DELETE or a status: a rule asks for CREATE, UPDATE and CONNECT alone, of
//! resources that are named, and `*` names no subresource.

use serde_json::{Value, json};

use crate::api::MANAGED_BY;

const API: &str = "admissionregistration.k8s.io/v1";

/// What is done where a policy can't be evaluated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    /// The request is refused.
    Fail,
    /// The request passes.
    Ignore,
}

/// A policy of either kind; `body` is what the kinds don't share.
#[derive(Debug)]
pub(super) struct Policy {
    pub name: &'static str,
    /// For whoever reads the object.
    pub description: String,
    pub failure: Failure,
    pub rules: Vec<Value>,
    /// The labels of the objects that it sees; all where absent.
    pub selector: Option<Value>,
    /// Name and expression: all must hold, else the policy is not asked.
    pub conditions: Vec<(&'static str, String)>,
    /// Name and expression, each seeing those before it.
    pub variables: Vec<(&'static str, String)>,
    pub body: Body,
}

/// What a policy does.
#[derive(Debug)]
pub(super) enum Body {
    /// Refuses, or warns, unless these hold: expression and message (an expression too).
    Validate { checks: Vec<(String, String)>, actions: &'static [&'static str] },
    /// Patches: an expression that gives a list of JSONPatch.
    Mutate(String),
}

/// A rule: what is seen.
pub(super) fn rule(group: &str, operations: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": resources})
}

/// A value in an expression. The API server asks that the values of a list or map be of one type, so they are `dyn`
/// where they aren't all texts.
pub(super) fn value(value: &Value) -> String {
    let texts = |mut values: Box<dyn Iterator<Item = &Value> + '_>| values.all(Value::is_string);
    let of = |v: &Value, plain: bool| if plain { self::value(v) } else { format!("dyn({})", self::value(v)) };
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => {
            let plain = texts(Box::new(items.iter()));
            let items: Vec<_> = items.iter().map(|v| of(v, plain)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let plain = texts(Box::new(map.values()));
            let items: Vec<_> = map.iter().map(|(k, v)| format!("{}: {}", text(k), of(v, plain))).collect();
            format!("{{{}}}", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// A text in an expression.
pub(super) fn text(value: &str) -> String {
    // CEL reads JSON's escapes; apostrophes make the YAML easier to read where nothing is to be escaped.
    if value.contains(['\'', '\\', '\n']) { Value::from(value).to_string() } else { format!("'{value}'") }
}

impl Policy {
    /// The policy and its binding.
    pub(super) fn objects(self) -> [Value; 2] {
        let (kind, body, actions) = match self.body {
            Body::Validate { checks, actions } => {
                let validations: Vec<_> = checks
                    .into_iter()
                    .map(|(expression, message)| {
                        json!({"expression": expression, "messageExpression": message, "reason": "Forbidden"})
                    })
                    .collect();
                ("ValidatingAdmissionPolicy", json!({"validations": validations}), Some(actions))
            }
            Body::Mutate(patches) => {
                let body = json!({
                    "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patches}}],
                    "reinvocationPolicy": "IfNeeded",
                });
                ("MutatingAdmissionPolicy", body, None)
            }
        };
        let named = |list: Vec<(&'static str, String)>| -> Vec<Value> {
            list.into_iter()
                .map(|(name, expression)| json!({"name": name, "expression": expression}))
                .collect()
        };
        let mut policy = json!({
            "apiVersion": API,
            "kind": kind,
            "metadata": {
                "name": self.name,
                "labels": {MANAGED_BY.0: MANAGED_BY.1},
                "annotations": {"kubernetes.io/description": self.description},
            },
            "spec": body,
        });
        let spec = &mut policy["spec"];
        spec["failurePolicy"] = match self.failure {
            Failure::Fail => "Fail".into(),
            Failure::Ignore => "Ignore".into(),
        };
        spec["matchConstraints"] = json!({"resourceRules": self.rules});
        if let Some(selector) = self.selector {
            spec["matchConstraints"]["objectSelector"] = selector;
        }
        for (field, list) in [("matchConditions", self.conditions), ("variables", self.variables)] {
            if !list.is_empty() {
                spec[field] = named(list).into();
            }
        }
        let mut binding = json!({
            "apiVersion": API,
            "kind": format!("{kind}Binding"),
            "metadata": {"name": self.name, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
            "spec": {"policyName": self.name},
        });
        if let Some(actions) = actions {
            binding["spec"]["validationActions"] = json!(actions);
        }
        [policy, binding]
    }
}

/// The variable that says that the object or its namespace is on its way out: then nothing is refused or changed,
/// so that nothing hangs on us. It asks what is stored, not what is sent: anybody may send a deletionTimestamp.
pub(super) fn leaving() -> (&'static str, String) {
    let expression = "(oldObject != null && has(oldObject.metadata.deletionTimestamp)) || \
                      (namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp))";
    ("leaving", expression.to_owned())
}
