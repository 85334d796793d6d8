//! `agentid man`: manual pages, from the same texts as `--help`.

use std::path::PathBuf;
use std::{fs, io};

use clap::{Args, Command};
use clap_mangen::{Man, generate_to};
use thiserror::Error;

use super::look::{LookError, write};

/// Print the manual page, or write one for each command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  agentid man | man -l -
  agentid man --output-dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write the pages of all commands to this directory, which is made if need be
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

/// Why there is no page.
#[derive(Debug, Error)]
pub enum ManError {
    /// The directory, or a page in it, can't be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Standard output can't be written.
    #[error(transparent)]
    Print(#[from] LookError),
}

impl ManArgs {
    /// Prints or writes.
    ///
    /// # Errors
    /// [`ManError`].
    pub fn run(&self, command: Command) -> Result<(), ManError> {
        let Some(path) = &self.output_dir else {
            let mut page = Vec::new();
            // Writing to memory can't fail.
            let _ = Man::new(command).render(&mut page);
            return Ok(write(&String::from_utf8_lossy(&page))?);
        };
        fs::create_dir_all(path)
            .and_then(|()| generate_to(command, path))
            .map_err(|source| ManError::File { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    /// The names of the pages of a command and those below it.
    fn pages(command: &Command, prefix: &str, found: &mut Vec<String>) {
        found.push(format!("{prefix}.1"));
        for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
            pages(sub, &format!("{prefix}-{}", sub.get_name()), found);
        }
    }

    #[test]
    fn each_command_has_a_page() {
        let dir = std::env::temp_dir().join(format!("agentid-man-{}", std::process::id()));
        ManArgs { output_dir: Some(dir.clone()) }.run(command(false)).unwrap();
        let mut wanted = Vec::new();
        pages(&command(false), "agentid", &mut wanted);
        let mut written: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        wanted.sort_unstable();
        written.sort_unstable();
        assert_eq!(written, wanted);
        assert!(written.iter().any(|p| p == "agentid-keys-status.1"), "{written:?}");
        let page = fs::read_to_string(dir.join("agentid-rotate.1")).unwrap();
        assert!(page.contains(".SH NAME") && page.contains("Examples"), "{page}");
        fs::remove_dir_all(dir).unwrap();
    }
}
