//! Label selectors as text, as `kubectl -l` takes them: `a`, `!a`, `a=b`, `a!=b`, `a in (b, c)`, `a notin (b)`.

use thiserror::Error;

use super::{BoundedValue, LabelSelector, Requirement, SelectorOperator};

/// A selector that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a label selector: write terms such as key, !key, key=value, key!=value, key in (a, b)")]
pub struct SelectorError(String);

impl std::str::FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let refuse = || SelectorError(text.chars().take(256).collect());
        let mut selector = Self::default();
        for term in terms(text) {
            selector.match_expressions.push(requirement(term.trim()).ok_or_else(refuse)?);
        }
        Ok(selector)
    }
}

/// Splits at commas that are not in parentheses.
fn terms(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut terms) = (0i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn requirement(term: &str) -> Option<Requirement> {
    let one = |key: &str, operator, values: Vec<&str>| {
        let key = key.trim();
        let good = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        let values: Vec<_> = values.into_iter().map(|v| BoundedValue(v.trim().to_owned())).collect();
        let sound =
            values.iter().all(|v| v.0.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)));
        (good && sound).then(|| Requirement { key: key.to_owned(), operator, values })
    };
    if let Some(key) = term.strip_prefix('!') {
        return one(key, SelectorOperator::DoesNotExist, Vec::new());
    }
    if let Some((key, value)) = term.split_once("!=") {
        return one(key, SelectorOperator::NotIn, vec![value]);
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return one(key, SelectorOperator::In, vec![value]);
    }
    if let Some(list) = term.strip_suffix(')') {
        let (head, list) = list.split_once('(')?;
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let operator = match word {
            "in" => SelectorOperator::In,
            "notin" => SelectorOperator::NotIn,
            _ => return None,
        };
        return one(key, operator, list.split(',').collect());
    }
    one(term, SelectorOperator::Exists, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubectl_reads() {
        let label = |k: &str| match k {
            "agentid.dev/agent" => Some("triage"),
            "tier" => Some("b"),
            _ => None,
        };
        for (text, selected) in [
            ("agentid.dev/agent", true),
            ("!agentid.dev/agent", false),
            ("tier=b", true),
            ("tier==b, agentid.dev/agent", true),
            ("tier!=b", false),
            ("tier in (a, b),zone notin (x)", true),
            ("tier notin (a,b)", false),
            ("zone", false),
        ] {
            assert_eq!(text.parse::<LabelSelector>().unwrap().matches(label), selected, "{text}");
        }
        for text in ["", ",", "a b", "a in b", "a in (b", "a=b=c", "=b", "a=(b)"] {
            assert!(text.parse::<LabelSelector>().is_err(), "{text}");
        }
    }
}
