//! `agentid token get`: a token on demand, for a pod or for a human who runs an agent.
//!
//! Invariants: standard output carries the token and nothing else (or one JSON object); the kubeconfig's own credential
//! is never sent anywhere.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::super::look::{Output, documents, print};
use super::super::server::{Server, ServerError, borrowed, read_token};
use super::TokenError;

const AGENT_USER: &str = "https://agentid.dev/grant-type/agent-user";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Get a token for a resource.
///
/// In a pod: by the pod's service-account token. On a laptop: with --as and --user-token-file, a token of yours whose
/// audience is the issuer; you need the verb run on the AgentIdentity. The token is then the agent's own, 10 minutes at
/// most, and your name stands in the audit line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid token get https://tickets.example.com --server https://agents.example.com --scope tickets.read
  kubectl create token me --audience https://agents.example.com |
      agentid token get https://tickets.example.com --server https://agents.example.com --as support/triage --user-token-file -")]
pub(super) struct GetArgs {
    /// The resource: its audience, or the AgentResource's name
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// The scopes, separated by spaces; all that the grant holds when absent
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// Which AgentGrant, where several serve
    #[arg(long, value_name = "NAME")]
    grant: Option<String>,
    /// An identity token, for a resource that takes those
    #[arg(long, conflicts_with = "user_token_file")]
    identity: bool,
    /// A token of the agent's own user (spec.user of the AgentIdentity)
    #[arg(long, conflicts_with_all = ["identity", "user_token_file"])]
    agent_user: bool,
    /// On a laptop: the agent to run
    #[arg(long = "as", value_name = "NAMESPACE/AGENT", requires = "user_token_file")]
    run_as: Option<String>,
    /// On a laptop: your token whose audience is the issuer, - for standard input
    #[arg(long, value_name = "FILE|-", requires = "run_as")]
    user_token_file: Option<PathBuf>,
    /// How to print it: the token alone, or the whole answer
    #[arg(long, short, value_parser = documents(), default_value = "text")]
    output: Output,
    #[command(flatten)]
    server: Server,
}

impl GetArgs {
    pub(super) async fn run(self) -> Result<(), TokenError> {
        let form = self.form()?;
        let answer = self.server.post("/token", &borrowed(&form)).await?;
        let token = answer.get("access_token").and_then(Value::as_str);
        let token = token.ok_or(ServerError::Answer("it holds no access_token"))?;
        Ok(print(self.output, &answer, |_| format!("{token}\n"))?)
    }

    fn form(&self) -> Result<Vec<(&'static str, String)>, TokenError> {
        let mut form = match (&self.user_token_file, &self.run_as) {
            (Some(file), Some(agent)) => vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned()),
                ("assertion", self.users_token(file)?),
                ("client_id", agent.clone()),
            ],
            _ if self.identity => {
                let token = read_token(&self.server.token_file)?;
                let mut form = vec![
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange".to_owned()),
                    ("subject_token", token),
                    ("subject_token_type", JWT.to_owned()),
                    ("requested_token_type", JWT.to_owned()),
                ];
                form.extend(self.server.client_id.iter().map(|id| ("client_id", id.clone())));
                form
            }
            _ => {
                let mut form = self.server.identification()?;
                let grant_type = if self.agent_user { AGENT_USER } else { "client_credentials" };
                form.push(("grant_type", grant_type.to_owned()));
                form
            }
        };
        form.push(("audience", self.resource.clone()));
        form.extend(self.scope.iter().map(|s| ("scope", s.clone())));
        form.extend(self.grant.iter().map(|g| ("grant", g.clone())));
        Ok(form)
    }

    fn users_token(&self, file: &std::path::Path) -> Result<String, TokenError> {
        if file.as_os_str() == "-" { Ok(super::input::read("-")?) } else { Ok(read_token(file)?) }
    }
}
