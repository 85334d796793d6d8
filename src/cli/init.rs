//! `agentid init`: a first set of manifests, from flags or from questions.
//!
//! Invariant: no file is overwritten unasked, and what is written passes the schema: what is typed is checked by the
//! same rules first.

mod manifests;
mod questions;
mod rules;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use thiserror::Error;

use self::manifests::{Manifest, manifests};
use self::questions::{needed, wanted};
use self::rules::{
    Sponsor, Workload, agent_name, audience, issuer, labels, right, service, sponsor, trust_domain, workload,
};
use super::look::{LookError, write};
use super::why::object_name;
use crate::api::IdentityPer;

/// Write a first set of manifests.
///
/// An AgentResource for a service, an AgentIdentity for an agent, and an AgentGrant that gives the agent rights on the
/// service and its token as a file; or, with --blueprint, an AgentBlueprint by which pods become agents with these
/// rights by themselves. With --policy also an AgentPolicy that only says what it would refuse. What the flags don't say
/// is asked at a terminal. They are printed, or written to a directory, one file each; files that are there are left
/// alone without --force. Nothing is sent to a cluster.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("one").args(["agent", "workload", "service_account"]).multiple(true).conflicts_with("new_blueprint"))]
#[command(after_help = "Examples:
  agentid init                                       # asks
  agentid init -n support --agent triage --workload Deployment/triage --sponsor ann@example.com \\
      --resource tickets --audience https://tickets.example.com --role triager --scope tickets.read \\
      --output-dir manifests
  agentid init -n support --blueprint bots --pods app=bot --identity-per Pod --sponsor Group:support \\
      --resource tickets --audience https://tickets.example.com --role reader --policy
  agentid init … | kubectl apply --dry-run=server -f -")]
pub struct InitArgs {
    /// The namespace of the agent, or of the pods
    #[arg(long, short, value_parser = agent_name)]
    namespace: Option<String>,
    /// The agent's name
    #[arg(long, value_name = "NAME", value_parser = agent_name)]
    agent: Option<String>,
    /// What the agent lives and dies with, such as Deployment/triage; nothing when absent
    #[arg(long, value_name = "KIND/NAME", value_parser = workload)]
    workload: Option<Workload>,
    /// The service account of its pods, to buy tokens on demand
    #[arg(long, value_name = "NAME", value_parser = object_name)]
    service_account: Option<String>,
    /// Instead of one agent: the name of a blueprint, by which pods become agents
    #[arg(long = "blueprint", value_name = "NAME", value_parser = agent_name)]
    new_blueprint: Option<String>,
    /// Which pods become agents: labels of theirs, with commas
    #[arg(long, value_name = "LABEL=VALUE", requires = "new_blueprint", value_parser = labels)]
    pods: Option<Labels>,
    /// What is an agent: the pods' workload, such as their Deployment, or each pod
    #[arg(long, value_name = "WHAT", requires = "new_blueprint", default_value = "Workload", value_parser = ["Workload", "Pod"])]
    identity_per: String,
    /// Who answers for it: a user, or Group:NAME. May be given several times
    #[arg(long = "sponsor", value_name = "[User:|Group:]NAME", value_parser = sponsor)]
    sponsors: Vec<Sponsor>,
    /// The service's name
    #[arg(long, value_name = "NAME", value_parser = service)]
    resource: Option<String>,
    /// What the service takes as the audience of its tokens
    #[arg(long, value_name = "URI", value_parser = audience)]
    audience: Option<String>,
    /// A role at the service. May be given several times, or with commas
    #[arg(long = "role", value_name = "NAME", value_delimiter = ',', value_parser = right)]
    roles: Vec<String>,
    /// A scope at the service. May be given several times, or with commas
    #[arg(long = "scope", value_name = "NAME", value_delimiter = ',', value_parser = right)]
    scopes: Vec<String>,
    /// Write a policy too, which says (and only says) which agents of the namespace nobody answers for, and which
    /// tokens live longer than an hour
    #[arg(long)]
    policy: bool,
    /// Write agentid's configuration file too, for this issuer
    #[arg(long, value_name = "URL", value_parser = issuer)]
    issuer: Option<String>,
    /// Its SPIFFE trust domain; the issuer's host when absent
    #[arg(long, value_name = "NAME", requires = "issuer", value_parser = trust_domain)]
    trust_domain: Option<String>,
    /// Write one file per object to this directory, which is made if need be; printed when absent
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long, requires = "output_dir")]
    force: bool,
}

/// Why nothing was written.
#[derive(Debug, Error)]
pub enum InitError {
    /// Nobody can be asked.
    #[error("{0} must be given: there is no terminal to ask at")]
    Missing(&'static str),
    /// No answer that would do.
    #[error("no answer to: {0}")]
    NoAnswer(&'static str),
    /// What would be written is refused by agentid itself.
    #[error("the configuration would not do: {0}")]
    Config(#[from] crate::api::ConfigError),
    /// It can't be written as YAML.
    #[error(transparent)]
    Yaml(#[from] super::generated::GeneratedError),
    /// Something is there.
    #[error("{} is there already; nothing was written: name another directory, or add --force", .0.display())]
    Exists(PathBuf),
    /// A file or directory that can't be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Standard output can't be written.
    #[error(transparent)]
    Print(#[from] LookError),
}

/// Labels of pods.
type Labels = BTreeMap<String, String>;

/// Who is to be an agent.
#[derive(Debug)]
enum Whom {
    /// One, that is written.
    Agent { name: String, workload: Option<Workload>, service_account: Option<String> },
    /// Pods, by a blueprint.
    Pods { blueprint: String, labels: Labels, per: IdentityPer },
}

/// All that is known in the end.
#[derive(Debug)]
struct Plan {
    namespace: String,
    whom: Whom,
    sponsors: Vec<Sponsor>,
    resource: String,
    audience: String,
    roles: Vec<String>,
    scopes: Vec<String>,
    policy: bool,
    issuer: Option<(String, String)>,
}

impl InitArgs {
    /// Asks, and writes.
    ///
    /// # Errors
    /// [`InitError`].
    pub fn run(self) -> Result<(), InitError> {
        let (dir, force) = (self.output_dir.clone(), self.force);
        let asks = io::stdin().is_terminal() && io::stderr().is_terminal();
        let plan = self.plan(asks)?;
        let all = manifests(&plan)?;
        match dir {
            Some(dir) => {
                write_files(&dir, &all, force)?;
                Ok(write(&next_steps(&dir, &all))?)
            }
            None => {
                let texts: Vec<_> = all.iter().map(|m| m.text.as_str()).collect();
                Ok(write(&texts.join("---\n"))?)
            }
        }
    }

    fn plan(self, asks: bool) -> Result<Plan, InitError> {
        let namespace = needed(self.namespace, asks, "--namespace", "Namespace of the agent", agent_name)?;
        let whom = match self.new_blueprint {
            Some(blueprint) => {
                let question = "Labels of the pods that become agents, such as app=bot";
                let labels = needed(self.pods, asks, "--pods", question, labels)?;
                let per = if self.identity_per == "Pod" { IdentityPer::Pod } else { IdentityPer::Workload };
                Whom::Pods { blueprint, labels, per }
            }
            None => {
                let name = needed(self.agent, asks, "--agent", "Name of the agent", agent_name)?;
                let question = "Workload that it lives with, such as Deployment/triage (empty: none)";
                let workload = wanted(self.workload, asks, question, workload)?;
                Whom::Agent { name, workload, service_account: self.service_account }
            }
        };
        let mut sponsors = self.sponsors;
        if sponsors.is_empty() {
            sponsors.extend(wanted(
                None,
                asks,
                "Who answers for it, such as ann@example.com or Group:support (empty: nobody)",
                sponsor,
            )?);
        }
        let resource =
            needed(self.resource, asks, "--resource", "Name of the service that it calls", service)?;
        let audience = needed(
            self.audience,
            asks,
            "--audience",
            "The service's audience, such as https://tickets.example.com",
            audience,
        )?;
        let (mut roles, mut scopes) = (self.roles, self.scopes);
        if roles.is_empty() && scopes.is_empty() {
            roles = wanted(None, asks, "Roles at the service, with commas (empty: none)", rights)?
                .unwrap_or_default();
            scopes = wanted(None, asks, "Scopes at the service, with commas (empty: none)", rights)?
                .unwrap_or_default();
        }
        let issuer = self.issuer.map(|issuer| {
            let domain = self.trust_domain.unwrap_or_else(|| rules::host(&issuer));
            (issuer, domain)
        });
        Ok(Plan { namespace, whom, sponsors, resource, audience, roles, scopes, policy: self.policy, issuer })
    }
}

fn rights(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(str::trim).map(right).collect()
}

fn write_files(dir: &Path, all: &[Manifest], force: bool) -> Result<(), InitError> {
    let failed = |path: &Path, source| InitError::File { path: path.to_owned(), source };
    fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    // All or nothing, as far as it can be told beforehand.
    let there = all.iter().map(|m| dir.join(m.file)).find(|path| !force && path.exists());
    if let Some(path) = there {
        return Err(InitError::Exists(path));
    }
    for manifest in all {
        let path = dir.join(manifest.file);
        let mut options = OpenOptions::new();
        options.write(true);
        if force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let written = options.open(&path).and_then(|mut file| file.write_all(manifest.text.as_bytes()));
        written.map_err(|e| failed(&path, e))?;
    }
    Ok(())
}

fn next_steps(dir: &Path, all: &[Manifest]) -> String {
    let mut text = String::new();
    for manifest in all {
        text += &format!("{}: {}\n", dir.join(manifest.file).display(), manifest.what);
    }
    let files: Vec<_> =
        all.iter().filter(|m| m.applies).map(|m| format!("-f {}", dir.join(m.file).display())).collect();
    text + &format!("Next: kubectl apply {}\n", files.join(" "))
}

#[cfg(test)]
mod tests;
