//! AgentPolicies from YAML, as strictly as `kubectl apply` takes them: an unknown field is an error, since a
//! misspelt `deny` would test a policy that denies nothing.

use serde_json::Value;
use thiserror::Error;

use crate::api::{API_VERSION, AgentPolicy};
use crate::domain::policy::Rules;

/// Why a file is no list of policies.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DocumentError {
    /// It is not YAML.
    #[error("is not YAML: {0}")]
    Syntax(String),
    /// There is nothing in it.
    #[error("has no document")]
    Empty,
    /// Another kind.
    #[error("document {number} is of kind {kind}, not an AgentPolicy of {API_VERSION}: leave it out")]
    Kind {
        /// Which.
        number: usize,
        /// What it is.
        kind: String,
    },
    /// Something in it can't be used.
    #[error("document {number}: {problem}")]
    Field {
        /// Which.
        number: usize,
        /// What.
        problem: String,
    },
}

/// The policies of a text.
pub(super) fn read(text: &str) -> Result<Vec<AgentPolicy>, DocumentError> {
    let documents: Vec<Value> =
        serde_yaml::from_multiple(text).map_err(|e| DocumentError::Syntax(e.to_string()))?;
    let mut policies = Vec::new();
    for (i, value) in documents.into_iter().enumerate().filter(|(_, v)| !v.is_null()) {
        let number = i + 1;
        let field = |problem: String| DocumentError::Field { number, problem };
        let kind = value["kind"].as_str().unwrap_or("none").to_owned();
        if kind != "AgentPolicy" || value["apiVersion"] != API_VERSION {
            return Err(DocumentError::Kind { number, kind });
        }
        let policy: AgentPolicy = serde_json::from_value(value.clone()).map_err(|e| field(e.to_string()))?;
        if policy.metadata.name.as_deref().unwrap_or_default().is_empty() {
            return Err(field("metadata.name is missing".to_owned()));
        }
        let known = serde_json::to_value(&policy.spec).unwrap_or_default();
        if let Some(unknown) = unknown("spec", &value["spec"], &known) {
            return Err(field(format!("unknown field {unknown}")));
        }
        Rules::try_from(&policy.spec).map_err(|e| field(e.to_string()))?;
        policies.push(policy);
    }
    if policies.is_empty() { Err(DocumentError::Empty) } else { Ok(policies) }
}

/// The first field that was written and not understood. What is empty is as good as not written.
fn unknown(path: &str, written: &Value, known: &Value) -> Option<String> {
    match written {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            let empty = value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty);
            match known.get(name) {
                Some(known) => unknown(&path, value, known),
                None => (!empty).then_some(path),
            }
        }),
        Value::Array(items) => {
            let mut each = items.iter().enumerate();
            each.find_map(|(i, item)| unknown(&format!("{path}[{i}]"), item, known.get(i)?))
        }
        _ => None,
    }
}
