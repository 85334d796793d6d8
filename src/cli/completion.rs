//! `agentid completion`: scripts by which shells, and `kubectl`, complete the command line.
//!
//! Invariant: what is offered comes from the command line's own definition, so that none is forgotten, and for kubectl from
//! the cluster's objects; a cluster that does not answer keeps nobody from typing on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::time::Duration;

use clap::{Arg, ArgAction, Args, Command, ValueEnum};
use clap_complete::{Shell, generate};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::connection::Connection;
use super::look::{LookError, write};
use crate::api::{AgentBlueprint, AgentIdentity, AgentResource};
use crate::cluster::client::connect;

/// For `kubectl agentid`: kubectl looks for a program of this name, and asks it.
const FOR_KUBECTL: &str = "#!/bin/sh
# Completion of `kubectl agentid`: an executable file named kubectl_complete-agentid, on the PATH as kubectl-agentid is.
exec kubectl-agentid __complete -- \"$@\"
";

/// Print a script that completes the command line.
///
/// For bash, zsh and fish: source it, or put it where the shell looks for such scripts. For `kubectl agentid` (kubectl
/// 1.26 and later): save it as an executable file kubectl_complete-agentid on the PATH.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(agentid completion bash)
  agentid completion zsh > \"${fpath[1]}/_agentid\"
  agentid completion fish > ~/.config/fish/completions/agentid.fish
  agentid completion kubectl > /usr/local/bin/kubectl_complete-agentid
  chmod +x /usr/local/bin/kubectl_complete-agentid")]
pub struct CompletionArgs {
    /// For whom
    #[arg(value_enum)]
    shell: For,
}

/// Who completes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum For {
    /// Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
    /// kubectl, for its plugin.
    Kubectl,
}

/// Say what may come next, as kubectl asks its plugins.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// What was typed; the last is what is being typed
    #[arg(last = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

impl CompletionArgs {
    /// Prints the script.
    ///
    /// # Errors
    /// Where standard output can't be written.
    pub fn run(&self, mut command: Command) -> Result<(), LookError> {
        let shell = match self.shell {
            For::Bash => Shell::Bash,
            For::Zsh => Shell::Zsh,
            For::Fish => Shell::Fish,
            For::Kubectl => return write(FOR_KUBECTL),
        };
        let mut script = Vec::new();
        generate(shell, &mut command, "agentid", &mut script);
        write(&String::from_utf8_lossy(&script))
    }
}

impl CompleteArgs {
    /// Prints what may come next, one a line, and then kubectl's directive.
    ///
    /// # Errors
    /// Where standard output can't be written.
    pub async fn run(&self, mut command: Command) -> Result<(), LookError> {
        command.build();
        let words: Vec<_> = self.words.iter().map(|w| w.to_string_lossy().into_owned()).collect();
        let mut offered = offers(&command, &words);
        if let Some(named) = &offered.named {
            // A cluster that can't be asked, or not soon, has no names to offer.
            let names = tokio::time::timeout(PATIENCE, named.names()).await;
            offered.words.extend(names.ok().and_then(Result::ok).unwrap_or_default());
        }
        // 4: no file names beside these; 0: files where we know of nothing.
        let directive = if offered.words.is_empty() && offered.named.is_none() { 0 } else { 4 };
        let lines: String = offered.words.iter().map(|o| format!("{o}\n")).collect();
        write(&format!("{lines}:{directive}\n"))
    }
}

/// How long a shell waits for names.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many names are asked for at once.
const PAGE: u32 = 500;

/// What may come next.
#[derive(Debug, Default)]
struct Offers {
    /// With what it is after a tab.
    words: Vec<String>,
    /// Objects whose names fit, too.
    named: Option<Named>,
}

/// What kind of object is named, where, and what of the name is there.
#[derive(Debug)]
struct Named {
    kind: Kind,
    begun: String,
    namespace: Option<String>,
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Agent,
    Blueprint,
    Resource,
    Namespace,
}

impl Kind {
    /// What the value of an argument names; `positional`: it exists (`init --agent` names one that does not).
    fn of(arg: &Arg, positional: bool) -> Option<Self> {
        match arg.get_id().as_str() {
            "agent" if positional => Some(Self::Agent),
            "resource" if positional => Some(Self::Resource),
            "blueprint" => Some(Self::Blueprint),
            "namespace" => Some(Self::Namespace),
            _ => None,
        }
    }
}

impl Named {
    /// The names of those that are there.
    async fn names(&self) -> Result<Vec<String>, LookError> {
        let clients = connect(&self.connection.options()).await?;
        let namespace = self.namespace.as_deref().unwrap_or(&clients.namespace_default);
        let client = clients.write.clone();
        let listed = match self.kind {
            Kind::Agent => listed(&Api::<AgentIdentity>::namespaced(client, namespace)).await,
            Kind::Blueprint => listed(&Api::<AgentBlueprint>::all(client)).await,
            Kind::Resource => listed(&Api::<AgentResource>::all(client)).await,
            Kind::Namespace => listed(&Api::<Namespace>::all(client)).await,
        };
        Ok(listed.into_iter().filter(|name| name.starts_with(&self.begun)).collect())
    }
}

/// The names alone are asked for. What may not be listed has none.
async fn listed<K>(api: &Api<K>) -> Vec<String>
where
    K: Clone + DeserializeOwned + Debug + Resource<DynamicType = ()>,
{
    let (mut names, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    while let Ok(page) = api.list_metadata(&params).await {
        names.extend(page.items.into_iter().filter_map(|o| o.metadata.name));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    names
}

/// Where in the command line a word stands.
struct Place<'c> {
    /// The command that was named last.
    command: &'c Command,
    /// The option whose value comes next.
    value_of: Option<&'c Arg>,
    /// How many words stand behind the command that are no options.
    positionals: usize,
    /// What options were given.
    given: BTreeMap<String, String>,
}

impl<'c> Place<'c> {
    fn after(command: &'c Command, words: &[String]) -> Self {
        let mut here = Self { command, value_of: None, positionals: 0, given: BTreeMap::new() };
        for word in words {
            if let Some(arg) = here.value_of.take() {
                here.given.insert(arg.get_id().to_string(), word.clone());
            } else if word.starts_with('-') {
                let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
                let takes = |a: &&Arg| matches!(a.get_action(), ArgAction::Set | ArgAction::Append);
                let arg = here.command.get_arguments().find(|a| names(a).any(|n| n == name)).filter(takes);
                match (arg, value) {
                    (Some(arg), Some(value)) => {
                        here.given.insert(arg.get_id().to_string(), value.to_owned());
                    }
                    (arg, _) => here.value_of = arg,
                }
            } else if let Some(sub) = here.command.get_subcommands().find(|s| s.get_name() == word) {
                here.command = sub;
            } else {
                here.positionals += 1;
            }
        }
        here
    }

    fn named(&self, kind: Kind, begun: &str) -> Named {
        let given = |id: &str| self.given.get(id);
        let connection = Connection {
            kubeconfig: given("kubeconfig").map(Into::into),
            context: given("context").cloned(),
        };
        Named { kind, begun: begun.to_owned(), namespace: given("namespace").cloned(), connection }
    }
}

/// What may come next.
fn offers(command: &Command, words: &[String]) -> Offers {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let here = Place::after(command, before);
    let values = |arg: &Arg| -> Vec<(String, String)> {
        let possible = arg.get_possible_values();
        let shown = possible.iter().filter(|v| !v.is_hide_set());
        shown.map(|v| (v.get_name().to_owned(), String::new())).collect()
    };
    let said = |text: Option<&clap::builder::StyledStr>| {
        text.map(|t| t.to_string()).and_then(|t| t.lines().next().map(str::to_owned)).unwrap_or_default()
    };
    let (offered, kind): (Vec<(String, String)>, Option<Kind>) = if let Some(arg) = here.value_of {
        (values(arg), Kind::of(arg, false))
    } else if last.starts_with('-') {
        let flags = here.command.get_arguments().filter(|a| !a.is_hide_set());
        (flags.filter_map(|a| Some((format!("--{}", a.get_long()?), said(a.get_help())))).collect(), None)
    } else {
        let subs = here.command.get_subcommands().filter(|s| !s.is_hide_set());
        let subs = subs.map(|s| (s.get_name().to_owned(), said(s.get_about())));
        let positional = here.command.get_positionals().nth(here.positionals);
        let offered = subs.chain(positional.into_iter().flat_map(values)).collect();
        (offered, positional.and_then(|arg| Kind::of(arg, true)))
    };
    let fits = offered.into_iter().filter(|(word, _)| word.starts_with(last));
    let words =
        fits.map(|(word, help)| if help.is_empty() { word } else { format!("{word}\t{help}") }).collect();
    Offers { words, named: kind.map(|kind| here.named(kind, last)) }
}

fn names(arg: &Arg) -> impl Iterator<Item = String> + '_ {
    let long = arg.get_long().map(|l| format!("--{l}"));
    long.into_iter().chain(arg.get_short().map(|s| format!("-{s}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    fn offered(words: &[&str]) -> Vec<String> {
        let words: Vec<_> = words.iter().map(|w| (*w).to_owned()).collect();
        let mut command = command(false);
        command.build();
        let only = |o: String| o.split('\t').next().unwrap_or_default().to_owned();
        offers(&command, &words).words.into_iter().map(only).collect()
    }

    fn named(words: &[&str]) -> Option<(Kind, Option<String>, Option<String>)> {
        let words: Vec<_> = words.iter().map(|w| (*w).to_owned()).collect();
        let mut command = command(false);
        command.build();
        offers(&command, &words).named.map(|n| (n.kind, n.namespace, n.connection.context))
    }

    #[test]
    fn what_may_come_next() {
        let all = offered(&[""]);
        for name in ["tree", "why", "rotate", "uninstall", "init", "mount", "completion"] {
            assert!(all.iter().any(|o| o == name), "{name} is not offered: {all:?}");
        }
        assert!(!all.iter().any(|o| o.starts_with("__")), "{all:?}");
        assert_eq!(offered(&["su"]), ["suspend"]);
        assert_eq!(offered(&["keys", "re"]), ["revoke", "reset"]);
        assert_eq!(offered(&["tree", "-o", ""]), ["text", "json", "yaml", "name"]);
        assert_eq!(offered(&["keys", "status", "--output", "y"]), ["yaml"]);
        assert_eq!(offered(&["tree", "--blue"]), ["--blueprint"]);
        assert_eq!(offered(&["tree", "-n", "support", "--out"]), ["--output"]);
        assert_eq!(offered(&["completion", "b"]), ["bash"]);
        assert_eq!(offered(&["why", "tri"]), Vec::<String>::new());
    }

    #[test]
    fn objects_of_the_cluster_may_come_next() {
        let of = |kind| Some((kind, None, None));
        for (words, wanted) in [
            (&["why", ""] as &[_], of(Kind::Agent)),
            (&["why", "triage", "tic"], of(Kind::Resource)),
            (&["why", "triage", "tickets", ""], None),
            (&["why", "--names"], None),
            (&["suspend", ""], of(Kind::Agent)),
            (&["suspend", "--blueprint", ""], of(Kind::Blueprint)),
            (&["tree", "-n", ""], of(Kind::Namespace)),
            (&["init", "--agent", ""], None),
            (&["init", "--blueprint", ""], None),
            (&["keys", "rotate", ""], None),
            (&["why", "-n", "support", ""], Some((Kind::Agent, Some("support".into()), None))),
            (
                &["mount", "--context=prod", "--namespace=support", "tri"],
                Some((Kind::Agent, Some("support".into()), Some("prod".into()))),
            ),
        ] {
            assert_eq!(named(words), wanted, "{words:?}");
        }
    }
}
