//! Files that a command generates: printed, written to a directory, or held against what lies there.
//!
//! Invariant: what is printed, written and checked is the same text, and a file that is no longer generated is
//! named as drift, so that nobody installs what was left behind.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{fs, iter};

use clap::Args;
use serde::Serialize;
use thiserror::Error;

/// Where generated files go.
#[derive(Args, Clone, Debug, Default)]
pub struct Destination {
    /// Write one file per object to this directory, which is made if need be
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    pub output_dir: Option<PathBuf>,
    /// Write nothing; fail and name the files of this directory that differ from what would be written
    #[arg(long, value_name = "DIR")]
    pub check: Option<PathBuf>,
}

/// One generated file.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// Its name.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// What a command generates.
#[derive(Debug)]
pub(super) struct Generated {
    /// How the files are written anew.
    pub command: &'static str,
    /// How the names of all files begin that it ever generated.
    pub prefix: &'static str,
    /// The files, in the order in which they are printed.
    pub documents: Vec<Document>,
}

/// Why files could not be printed or written, or that they differ.
#[derive(Debug, Error)]
pub enum GeneratedError {
    /// An object that can't be written as YAML.
    #[error("cannot write an object as YAML: {0}")]
    Yaml(String),
    /// Standard output can't be written.
    #[error("cannot write to standard output: {0}")]
    Print(#[source] io::Error),
    /// A file or directory that can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The files that differ, each with how.
    #[error("{}; write them anew with: {command} --output-dir {}", files.join(", "), dir.display())]
    Drift {
        /// The directory that was checked.
        dir: PathBuf,
        /// The files, each with how it differs.
        files: Vec<String>,
        /// How they are written anew.
        command: &'static str,
    },
}

/// A file's text: a line that says where it comes from, then the objects.
pub(super) fn yaml<T: Serialize>(header: &str, objects: &[T]) -> Result<String, GeneratedError> {
    let mut text = header.to_owned();
    for (i, object) in objects.iter().enumerate() {
        if i > 0 {
            text.push_str("---\n");
        }
        text += &serde_yaml::to_string(object).map_err(|e| GeneratedError::Yaml(e.to_string()))?;
    }
    Ok(text)
}

impl Destination {
    /// Prints, writes or checks.
    pub(super) fn deliver(&self, generated: &Generated) -> Result<(), GeneratedError> {
        if let Some(dir) = &self.check {
            return generated.check(dir);
        }
        let Some(dir) = &self.output_dir else { return print(&generated.documents) };
        fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
        for document in &generated.documents {
            let path = dir.join(&document.name);
            fs::write(&path, &document.text).map_err(|e| failed(&path, e))?;
        }
        Ok(())
    }
}

fn failed(path: &Path, source: io::Error) -> GeneratedError {
    GeneratedError::File { path: path.to_owned(), source }
}

fn print(documents: &[Document]) -> Result<(), GeneratedError> {
    let mut out = io::stdout().lock();
    let separators = iter::once("").chain(iter::repeat("---\n"));
    let printed = documents
        .iter()
        .zip(separators)
        .try_for_each(|(document, separator)| write!(out, "{separator}{}", document.text))
        .and_then(|()| out.flush());
    match printed {
        // Whoever reads has seen enough, as `head` does.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(GeneratedError::Print),
    }
}

impl Generated {
    /// Holds the files of a directory against what would be written.
    pub(super) fn check(&self, dir: &Path) -> Result<(), GeneratedError> {
        let mut files = Vec::new();
        for Document { name, text } in &self.documents {
            let path = dir.join(name);
            match fs::read_to_string(&path) {
                Ok(found) if found == *text => {}
                Ok(_) => files.push(format!("{} is out of date", path.display())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    files.push(format!("{} is missing", path.display()));
                }
                Err(e) => return Err(failed(&path, e)),
            }
        }
        // What is no longer generated must not be installed from a file left behind.
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let name = entry.map_err(|e| failed(dir, e))?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(self.prefix) && !self.documents.iter().any(|d| d.name == *name) {
                files.push(format!("{} is no longer generated: delete it", dir.join(&*name).display()));
            }
        }
        if files.is_empty() {
            return Ok(());
        }
        Err(GeneratedError::Drift { dir: dir.to_owned(), files, command: self.command })
    }
}
