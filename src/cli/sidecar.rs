//! `agentid sidecar`: the files of an agent's Secret, kept fresh in a directory; `agentid sidecar-ready`: whether they
//! are there.
//!
//! Invariants: a reader never sees files of two rounds beside each other; files whose agent is refused go at once,
//! those of a service that can't be reached stay until they have died by themselves.

mod swap;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::process::{LogFormat, init_logs};
use super::server::{Server, ServerError, borrowed};

/// Where the files are, where nothing else is said.
const DIRECTORY: &str = "/var/run/agentid";
/// The file that is in every round, whatever the answer.
const DOCUMENT: &str = "agent.json";

/// Keep the agent's credentials fresh in a directory, as its Secret would.
///
/// The pod proves who it is by its projected service-account token. The files are those of the agent's Secret
/// (identity.jwt, one per grant with a secretKey, agent.json) and of agentid-trust (jwks.json, issuer, ca.crt); all of
/// one round appear at once, as the kubelet does it. An agent that is refused loses its token files. For a startup
/// probe: agentid sidecar-ready.
///
/// Exit codes: 0 after SIGTERM, or once with --once; 1 the directory can't be written; 3 the agent is refused (--once);
/// 4 the token service can't be reached or answer (--once); 5 there is no service-account token (--once).
#[derive(Debug, Args)]
#[command(after_help = "Example, as a native sidecar (initContainers with restartPolicy: Always):
  agentid sidecar --server https://agents.example.com --ca /var/run/secrets/agentid/ca.crt \\
      --token-file /var/run/secrets/agentid/token --directory /var/run/agentid")]
pub struct SidecarArgs {
    #[command(flatten)]
    server: Server,
    /// Where the files are kept: a volume in memory that the agent's container mounts too
    #[arg(long, value_name = "DIRECTORY", default_value = DIRECTORY)]
    directory: PathBuf,
    /// The files' mode
    #[arg(long, value_name = "OCTAL", default_value = "0440", value_parser = mode)]
    mode: u32,
    /// Do one round and end
    #[arg(long)]
    once: bool,
    /// How logs are written, to standard error; what is logged follows RUST_LOG (default: info)
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

/// Tell whether the sidecar has written its files: for its startup probe.
///
/// The image has no shell and no other program that could tell. It asks nobody.
///
/// Exit codes: 0 the files are there, or a refusal is written down in agent.json; 1 not yet.
#[derive(Debug, Args)]
#[command(after_help = "Example, in the sidecar's container:
  startupProbe:
    exec: {command: [agentid, sidecar-ready]}
    periodSeconds: 1
    failureThreshold: 300")]
pub struct ReadyArgs {
    /// The sidecar's --directory
    #[arg(long, value_name = "DIRECTORY", default_value = DIRECTORY)]
    directory: PathBuf,
}

impl ReadyArgs {
    /// Looks once.
    ///
    /// # Errors
    /// [`SidecarError::Directory`], where there is nothing yet.
    pub fn run(self) -> Result<(), SidecarError> {
        let file = self.directory.join(DOCUMENT);
        match std::fs::metadata(&file) {
            Ok(_) => Ok(()),
            Err(source) => Err(SidecarError::Directory { directory: file.display().to_string(), source }),
        }
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).map_err(|_| "an octal mode, such as 0440".to_owned())?;
    if mode & !0o777 == 0 && mode & 0o400 != 0 {
        Ok(mode)
    } else {
        Err("the owner must be able to read, and nothing beyond 0777 is a file's mode".to_owned())
    }
}

/// Why the sidecar ended.
#[derive(Debug, Error)]
pub enum SidecarError {
    /// The directory.
    #[error("{directory}: {source}")]
    Directory {
        /// Which.
        directory: String,
        /// Why.
        source: std::io::Error,
    },
    /// The token service.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl SidecarError {
    /// The exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Directory { .. } => 1,
            Self::Server(e) => e.exit_code(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    files: BTreeMap<String, String>,
    renew_at: Timestamp,
}

impl SidecarArgs {
    /// Keeps the files until a signal.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn run(self) -> Result<(), SidecarError> {
        init_logs(self.log_format);
        let stop = CancellationToken::new();
        tokio::spawn(crate::net::signal::cancel_on_signal(stop.clone()));
        let mut failures = 0;
        loop {
            let pause = match self.round().await {
                Ok(renew_at) => {
                    failures = 0;
                    until(renew_at)
                }
                Err(SidecarError::Server(error)) if !self.once => {
                    failures += 1;
                    let pause = pause(failures, &error);
                    tracing::warn!(%error, retry_s = pause.as_secs(), "no new credentials");
                    if error.is_refusal() {
                        self.withdraw(&error)?;
                    }
                    pause
                }
                Err(error) => return Err(error),
            };
            if self.once {
                return Ok(());
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn round(&self) -> Result<Timestamp, SidecarError> {
        let form = self.server.identification()?;
        let answer = self.server.post("/credentials", &borrowed(&form)).await?;
        let credentials: Credentials = serde_json::from_value(answer)
            .map_err(|_| ServerError::Answer("it does not hold files and times"))?;
        self.put(&credentials.files)?;
        tracing::info!(files = credentials.files.len(), renew_at = %credentials.renew_at, "new credentials");
        Ok(credentials.renew_at)
    }

    fn withdraw(&self, error: &ServerError) -> Result<(), SidecarError> {
        let document = serde_json::json!({
            "version": "v1", "files": [], "missing": [], "withdrawn": {"message": error.to_string()},
        });
        self.put(&BTreeMap::from([(DOCUMENT.to_owned(), format!("{document:#}"))]))
    }

    fn put(&self, files: &BTreeMap<String, String>) -> Result<(), SidecarError> {
        swap::put(&self.directory, files, self.mode).map_err(|source| SidecarError::Directory {
            directory: self.directory.display().to_string(),
            source,
        })
    }
}

fn until(renew_at: Timestamp) -> Duration {
    let wait = renew_at.duration_since(Timestamp::now()).max(SignedDuration::from_secs(1));
    Duration::try_from(wait).unwrap_or(Duration::from_secs(60))
}

/// 1 s doubling to 60 s, never less than what the service asks for.
fn pause(failures: u32, error: &ServerError) -> Duration {
    let own = Duration::from_secs((1u64 << (failures.clamp(1, 7) - 1)).min(60));
    match error {
        ServerError::Later { after: Some(after), .. } => own.max(*after).min(Duration::from_secs(300)),
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_listen() {
        let refused = ServerError::Refused { code: "x".to_owned(), description: String::new(), remedy: "" };
        assert_eq!(pause(1, &refused), Duration::from_secs(1));
        assert_eq!(pause(4, &refused), Duration::from_secs(8));
        assert_eq!(pause(40, &refused), Duration::from_secs(60));
        let later = ServerError::Later {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            description: String::new(),
            after: Some(Duration::from_secs(30)),
        };
        assert_eq!(pause(1, &later), Duration::from_secs(30));
    }

    #[test]
    fn it_is_ready_once_there_is_an_agent_json() {
        let directory = std::env::temp_dir().join(format!("agentid-ready-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let look = || ReadyArgs { directory: directory.clone() }.run();
        let missing = look().unwrap_err();
        assert_eq!(missing.exit_code(), 1);
        assert!(missing.to_string().contains("agent.json"), "{missing}");
        std::fs::write(directory.join("agent.json"), "{}").unwrap();
        assert!(look().is_ok());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn modes_are_octal_and_readable() {
        assert_eq!(mode("0440"), Ok(0o440));
        for bad in ["", "9", "0040", "1777", "rw"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
