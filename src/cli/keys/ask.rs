//! What is asked of the leader, and what came of it.
//!
//! Invariant: standard output has the answer alone; what goes on meanwhile is on standard error.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PartialObjectMeta};
use serde::Serialize;

use super::KeysError;
use crate::api::{SECRET_TYPE, annotation};
use crate::cluster::client::{CallError, timed};
use crate::cluster::keystore::{KeyStore, KeysAnswer, KeysRequest, Operation, Outcome, Stored};

/// How long the leader may take to answer: it looks every two seconds, and a takeover takes fifteen.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(300);

/// The answer. Members are only ever added.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    operation: Operation,
    /// The key that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// How many Secrets held tokens that it hits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secrets: Option<usize>,
    /// Absent: nothing was asked of the leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    /// What the leader says.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// After how long all their tokens were minted anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
}

impl Report {
    pub(super) const fn new(operation: Operation) -> Self {
        Self { operation, key: None, secrets: None, outcome: None, message: None, seconds: None }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = match (&self.key, self.secrets) {
            (Some(kid), Some(n)) => format!("{kid} signed tokens in {n} Secrets\n"),
            (None, Some(n)) => format!("{n} Secrets hold tokens\n"),
            (_, None) => String::new(),
        };
        let message = self.message.as_deref().unwrap_or_default();
        text += &match (self.outcome, self.operation) {
            (Some(Outcome::Done), _) => format!("done: {message}\n"),
            (Some(Outcome::Scheduled), _) => format!("scheduled: {message}\n"),
            // An error says it.
            (Some(Outcome::Refused), _) | (None, Operation::Rotate) => String::new(),
            (None, Operation::Revoke) => "nothing was done: with --yes it goes out of the key sets at once, verifiers \
                 refuse these tokens as soon as they fetch them, and all are minted anew\n"
                .to_owned(),
            (None, Operation::Reset) => "nothing was done: with --yes every key is thrown away, new ones are made and \
                 published, and all tokens are minted anew; restore the Secret from a backup instead if there is one\n"
                .to_owned(),
        };
        if let Some(seconds) = self.seconds {
            text += &format!("all tokens were minted anew in {seconds:.1}s\n");
        }
        text
    }
}

/// Asks the leader and waits for its answer.
pub(super) async fn ask(
    store: &KeyStore,
    request: KeysRequest,
    report: &mut Report,
) -> Result<(), KeysError> {
    store.ask(&request).await?;
    eprintln!("asked the leader; waiting for its answer");
    let answered = async {
        loop {
            if let Ok(Some(Stored { answer: Some(answer), .. })) = store.fetch().await
                && answer.id == request.id
            {
                return answer;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let KeysAnswer { outcome, message, .. } =
        tokio::time::timeout(PATIENCE, answered).await.map_err(|_| KeysError::NoAnswer)?;
    if outcome == Outcome::Refused {
        return Err(KeysError::Refused(message));
    }
    (report.outcome, report.message) = (Some(outcome), Some(message));
    Ok(())
}

/// How many Secrets of ours hold tokens of such keys.
pub(super) async fn signed_by(
    client: &kube::Client,
    such: impl Fn(&str) -> bool,
) -> Result<usize, CallError> {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::all(client.clone());
    let mut params = ListParams::default().fields(&format!("type={SECRET_TYPE}")).limit(500);
    let mut count = 0;
    loop {
        let page = timed(secrets.list(&params)).await?;
        count += page
            .items
            .iter()
            .filter_map(|s| s.metadata.annotations.as_ref()?.get(annotation::KEY_IDS))
            .filter(|kids| such(kids))
            .count();
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(next) => params.continue_token = Some(next),
            None => return Ok(count),
        }
    }
}

/// Shows how the minting of what a key had signed goes on, until all is done; after how many seconds it was.
pub(super) async fn follow(
    client: &kube::Client,
    all: usize,
    such: impl Fn(&str) -> bool,
) -> Result<f64, KeysError> {
    let began = Instant::now();
    let mut last = usize::MAX;
    loop {
        let left = signed_by(client, &such).await?;
        if left == 0 {
            return Ok(began.elapsed().as_secs_f64());
        }
        let done = all.saturating_sub(left);
        if left != last {
            #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
            let pace = done as f32 / began.elapsed().as_secs_f32().max(0.1);
            #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
            let eta =
                if pace > 0.0 { format!(", about {:.0}s more", left as f32 / pace) } else { String::new() };
            eprintln!("{done} of {all} Secrets minted anew{eta}");
            last = left;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_asked_and_what_came_of_it_is_said_in_both_forms() {
        let mut report = Report::new(Operation::Revoke);
        (report.key, report.secrets) = (Some("k0".to_owned()), Some(3));
        assert!(
            report.text().starts_with("k0 signed tokens in 3 Secrets\nnothing was done: with --yes it goes")
        );
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value, json!({"operation": "revoke", "key": "k0", "secrets": 3}));
        (report.outcome, report.message) = (Some(Outcome::Done), Some("k1 signs".to_owned()));
        report.seconds = Some(1.25);
        assert_eq!(
            report.text(),
            "k0 signed tokens in 3 Secrets\ndone: k1 signs\nall tokens were minted anew in 1.2s\n"
        );
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!((&value["outcome"], &value["seconds"]), (&json!("done"), &json!(1.25)));

        let mut rotated = Report::new(Operation::Rotate);
        (rotated.outcome, rotated.message) = (Some(Outcome::Scheduled), Some("at noon".to_owned()));
        assert_eq!(rotated.text(), "scheduled: at noon\n");
    }
}
