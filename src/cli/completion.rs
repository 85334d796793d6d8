//! `agentid completion`: scripts by which shells, and `kubectl`, complete the command line.
//!
//! Invariant: what is offered comes from the command line's own definition, so that none is forgotten.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Args, Command, ValueEnum};
use clap_complete::{Shell, generate};

use super::look::{LookError, write};

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
    pub fn run(&self, mut command: Command) -> Result<(), LookError> {
        command.build();
        let words: Vec<_> = self.words.iter().map(|w| w.to_string_lossy().into_owned()).collect();
        let offered = offers(&command, &words);
        // 4: no file names beside these; 0: files where we know of nothing.
        let directive = if offered.is_empty() { 0 } else { 4 };
        let lines: String = offered.iter().map(|o| format!("{o}\n")).collect();
        write(&format!("{lines}:{directive}\n"))
    }
}

/// What may come next, with what it is after a tab.
fn offers(command: &Command, words: &[String]) -> Vec<String> {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let mut here = command;
    let mut value_of: Option<&Arg> = None;
    for word in before {
        if value_of.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            let takes = |a: &&Arg| matches!(a.get_action(), ArgAction::Set | ArgAction::Append);
            value_of = here.get_arguments().find(|a| names(a).any(|n| n == *word)).filter(takes);
        } else if let Some(sub) = here.get_subcommands().find(|s| s.get_name() == word) {
            here = sub;
        }
    }
    let values = |arg: &Arg| -> Vec<String> {
        let possible = arg.get_possible_values();
        possible.iter().filter(|v| !v.is_hide_set()).map(|v| v.get_name().to_owned()).collect()
    };
    let said = |text: Option<&clap::builder::StyledStr>| {
        text.map(|t| t.to_string()).and_then(|t| t.lines().next().map(str::to_owned)).unwrap_or_default()
    };
    let offered: Vec<(String, String)> = if let Some(arg) = value_of {
        values(arg).into_iter().map(|v| (v, String::new())).collect()
    } else if last.starts_with('-') {
        let flags = here.get_arguments().filter(|a| !a.is_hide_set());
        flags.filter_map(|a| Some((format!("--{}", a.get_long()?), said(a.get_help())))).collect()
    } else {
        let subs = here.get_subcommands().filter(|s| !s.is_hide_set());
        let subs = subs.map(|s| (s.get_name().to_owned(), said(s.get_about())));
        let positional = here.get_positionals().flat_map(values).map(|v| (v, String::new()));
        subs.chain(positional).collect()
    };
    let fits = offered.into_iter().filter(|(word, _)| word.starts_with(last));
    fits.map(|(word, help)| if help.is_empty() { word } else { format!("{word}\t{help}") }).collect()
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
        offers(&command, &words).into_iter().map(only).collect()
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
}
