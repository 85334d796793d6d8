//! `agentid mount`: what goes into a pod's spec so that it finds an agent's credentials.
//!
//! Invariant: nothing is written; the names are the live agent's.

use clap::Args;
use serde_json::{Value, json};
use thiserror::Error;

use super::look::{Look, LookError, Output, documents, print};
use super::pod;
use super::text::printable;
use super::why::object_name;
use crate::api::AGENT_LABEL;
use crate::cluster::snapshot::{SnapshotError, snapshot};
use crate::domain::{Agent, Key};

/// Print what a pod needs to find an agent's credentials.
///
/// A part of a pod template: the volume with the agent's Secret, the published keys and a service-account token for the
/// token service, its mount in the container, the service account and the label by which pods are seen. An agent that
/// was made for one pod has no Secret: then it is the sidecar, which keeps the same files. Admission policies mount the
/// same by a label (`agentid admission`).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid mount triage -n support
  kubectl patch deployment triage -n support --patch \\
      \"{\\\"spec\\\": {\\\"template\\\": $(agentid mount triage -n support --container app -o json)}}\"
  agentid mount bot-5d9c-x2x7q -n support --image example.com/agentid:1.0     # without a Secret: the sidecar")]
pub struct MountArgs {
    /// The AgentIdentity's name
    #[arg(value_parser = object_name)]
    agent: String,
    /// The agent's namespace; the kubeconfig context's when absent
    #[arg(long, short, value_parser = object_name)]
    namespace: Option<String>,
    /// The container that gets the files
    #[arg(long, value_name = "NAME", default_value = "agent", value_parser = object_name)]
    container: String,
    /// The image of agentid, for the sidecar
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// How to print it
    #[arg(long, short, value_parser = documents(), default_value = "text")]
    output: Output,
    #[command(flatten)]
    look: Look,
}

/// Why nothing is printed.
#[derive(Debug, Error)]
pub enum MountError {
    /// The cluster can't be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The agent.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Nobody says who issues.
    #[error(
        "the issuer is not known: the ConfigMap agentid-trust of namespace {0} is not there or can't be read; give --config"
    )]
    NoIssuer(String),
    /// The sidecar needs an image.
    #[error(
        "AgentIdentity {0} was made for one pod and has no Secret: its pods need the sidecar; name agentid's image with --image"
    )]
    NoImage(Key),
}

impl MountArgs {
    /// Looks and prints.
    ///
    /// # Errors
    /// [`MountError`].
    pub async fn run(self) -> Result<(), MountError> {
        let config = self.look.configuration()?;
        let clients = self.look.clients().await?;
        let namespace = self.namespace.as_ref().unwrap_or(&clients.namespace_default);
        let key = Key::new(namespace.as_str(), self.agent.as_str());
        let seen = snapshot(&clients.write, config, &key).await?;
        let issuer =
            seen.issuer.filter(|i| !i.is_empty()).ok_or_else(|| MountError::NoIssuer(namespace.clone()))?;
        // The snapshot has found it; a list may have been refused since.
        let Some(agent) = seen.world.agent(&key) else {
            let (similar, elsewhere) = (Vec::new(), Vec::new());
            return Err(SnapshotError::AgentNotFound { agent: key, similar, elsewhere, others: 0 }.into());
        };
        let template = template(agent, &issuer, &self.container, self.image.as_deref())?;
        Ok(print(self.output, &template, |t| words(agent) + &serde_yaml::to_string(t).unwrap_or_default())?)
    }
}

/// The part of a pod template.
fn template(agent: &Agent, issuer: &str, container: &str, image: Option<&str>) -> Result<Value, MountError> {
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "containers": [{"name": container, "volumeMounts": [pod::mount()]}],
    });
    if let Some(account) = &agent.service_account {
        spec["serviceAccountName"] = json!(&**account);
    }
    if agent.has_secret() {
        spec["volumes"] = json!([pod::secret_volume(issuer, &agent.secret_name)]);
    } else {
        let image = image.ok_or_else(|| MountError::NoImage(agent.meta.key.clone()))?;
        spec["initContainers"] = json!([pod::sidecar(issuer, image)]);
        spec["volumes"] = json!(pod::sidecar_volumes(issuer));
    }
    let mut template = json!({"spec": spec});
    // Pods of which agents are made bear a label already, and are seen by it.
    if agent.made_by.is_none() {
        template["metadata"] = json!({"labels": {AGENT_LABEL: &*agent.meta.key.name}});
    }
    Ok(template)
}

/// What people should know, as comments.
fn words(agent: &Agent) -> String {
    let key = printable(&agent.meta.key.to_string());
    let account = match &agent.service_account {
        Some(account) => format!(
            "# Pods that run as the service account {} may be it at the token service.\n",
            printable(account)
        ),
        None => "# It names no service account (spec.serviceAccountName), so its pods have these files and can't buy tokens.\n"
            .to_owned(),
    };
    format!(
        "# For the pods of AgentIdentity {key}: a part of the pod template, as of a Deployment's spec.template.\n{account}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::Cluster;

    const ISSUER: &str = "https://agents.example.com";

    fn example(file: &str, kind: &str) -> Value {
        let text =
            std::fs::read_to_string(format!("{}/examples/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let documents: Vec<Value> = text.split("\n---\n").map(|d| serde_yaml::from_str(d).unwrap()).collect();
        documents.into_iter().find(|d| d["kind"] == kind).unwrap()
    }

    fn agent(c: &Cluster, name: &str) -> Agent {
        c.world.agent(&Key::new("support", name)).unwrap().clone()
    }

    #[test]
    fn it_is_what_the_examples_mount() {
        let mut c = Cluster::new();
        c.namespace("support", &[]);
        c.apply("{kind: AgentIdentity, metadata: {name: triage, namespace: support}, spec: {}}");
        c.apply("{kind: AgentIdentity, metadata: {name: errand, namespace: support}, spec: {serviceAccountName: errand}}");
        c.settle();
        let triage = template(&agent(&c, "triage"), ISSUER, "agent", None).unwrap();
        let deployment = &example("deployment.yaml", "Deployment")["spec"]["template"];
        assert_eq!(triage["spec"]["volumes"], deployment["spec"]["volumes"]);
        let mounts = &deployment["spec"]["containers"][0]["volumeMounts"];
        assert_eq!(&triage["spec"]["containers"][0]["volumeMounts"], mounts);
        assert_eq!(triage["metadata"]["labels"][AGENT_LABEL], deployment["metadata"]["labels"][AGENT_LABEL]);
        assert!(triage["spec"].get("serviceAccountName").is_none());
        assert!(words(&agent(&c, "triage")).contains("It names no service account"));

        let errand = template(&agent(&c, "errand"), ISSUER, "agent", None).unwrap();
        let pod = &example("pod.yaml", "Pod")["spec"];
        assert_eq!(errand["spec"]["volumes"], pod["volumes"]);
        assert_eq!(errand["spec"]["serviceAccountName"], pod["serviceAccountName"]);
    }

    #[test]
    fn an_agent_without_a_secret_gets_the_sidecar() {
        let mut c = Cluster::new();
        c.namespace("support", &[]);
        c.apply("{kind: AgentIdentity, metadata: {name: bot, namespace: support}, spec: {}}");
        c.settle();
        let mut bot = agent(&c, "bot");
        bot.made_by = Some(crate::domain::Uid(1));
        bot.labels = [(crate::api::PER_LABEL, "Pod")].into_iter().collect();
        let missing = template(&bot, ISSUER, "agent", None).unwrap_err();
        assert!(missing.to_string().contains("--image"), "{missing}");
        let template = template(&bot, ISSUER, "agent", Some("example.com/agentid:1")).unwrap();
        assert_eq!(template["spec"]["initContainers"][0]["image"], "example.com/agentid:1");
        assert_eq!(template["spec"]["initContainers"][0]["args"][2], ISSUER);
        assert_eq!(template["spec"]["volumes"].as_array().unwrap().len(), 2);
        assert!(template.get("metadata").is_none() && !template.to_string().contains("\"secret\""));
    }
}
