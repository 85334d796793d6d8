//! A label selector with bounds: Kubernetes' own `LabelSelector`, whose schema has none.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Selects by labels, as Kubernetes' `metav1.LabelSelector` does: all of `matchLabels` and all of
/// `matchExpressions` must hold; `{}` selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must be there with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = rules::label_keys())]
    pub match_labels: BTreeMap<String, BoundedValue>,
    /// Further conditions on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<Requirement>,
}

/// A label's value: at most 63 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct BoundedValue(#[schemars(length(max = 63), regex(pattern = rules::LABEL_VALUE))] pub String);

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)")
        .message("values must be set with operator In and NotIn, and left out with Exists and DoesNotExist")
        .field_path(".values")
)]
pub struct Requirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317), regex(pattern = rules::LABEL_KEY))]
    pub key: String,
    /// How the label's value relates to `values`.
    pub operator: SelectorOperator,
    /// The values of `In` and `NotIn`; empty for `Exists` and `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub values: Vec<BoundedValue>,
}

/// The relation of a [`Requirement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// The label is there and its value is among `values`.
    In,
    /// The label is not there, or its value is not among `values`.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether labels, looked up by key, satisfy the selector.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.match_labels.iter().all(|(k, v)| label(k) == Some(v.0.as_str()))
            && self.match_expressions.iter().all(|r| {
                let listed = |v: &str| r.values.iter().any(|x| x.0 == v);
                match (r.operator, label(&r.key)) {
                    (SelectorOperator::In, v) => v.is_some_and(listed),
                    (SelectorOperator::NotIn, v) => !v.is_some_and(listed),
                    (SelectorOperator::Exists, v) => v.is_some(),
                    (SelectorOperator::DoesNotExist, v) => v.is_none(),
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(yaml: &str) -> LabelSelector {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn selects_as_kubernetes_does() {
        let label = |k: &str| match k {
            "team" => Some("support"),
            "tier" => Some("1"),
            _ => None,
        };
        for (yaml, wanted) in [
            ("{}", true),
            ("matchLabels: {team: support}", true),
            ("matchLabels: {team: support, tier: \"2\"}", false),
            ("matchLabels: {zone: a}", false),
            ("matchExpressions: [{key: team, operator: In, values: [sales, support]}]", true),
            ("matchExpressions: [{key: zone, operator: In, values: [a]}]", false),
            ("matchExpressions: [{key: zone, operator: NotIn, values: [a]}]", true),
            ("matchExpressions: [{key: team, operator: NotIn, values: [support]}]", false),
            ("matchExpressions: [{key: team, operator: Exists}]", true),
            ("matchExpressions: [{key: zone, operator: Exists}]", false),
            ("matchExpressions: [{key: zone, operator: DoesNotExist}]", true),
            (
                "{matchLabels: {team: support}, matchExpressions: [{key: tier, operator: DoesNotExist}]}",
                false,
            ),
        ] {
            assert_eq!(selector(yaml).matches(label), wanted, "{yaml}");
        }
    }
}
