//! The two verifiers that are not of our making: joserfc with Authlib in Python, go-oidc in Go.
//!
//! Made by `tests/verifiers/setup.sh` at first use. Use with `#[path = "common/verifiers.rs"] mod verifiers;`.
#![allow(dead_code, reason = "each test crate uses its part")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which kind of token is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An access token.
    Access,
    /// An identity token.
    Identity,
}

/// A verifier.
#[derive(Debug)]
pub struct Verifier {
    /// Its libraries.
    pub name: &'static str,
    program: PathBuf,
}

/// Both verifiers; makes them if need be.
///
/// # Errors
/// What setup.sh says, where they can't be made.
pub fn verifiers() -> Result<&'static [Verifier; 2], String> {
    static MADE: OnceLock<Result<[Verifier; 2], String>> = OnceLock::new();
    MADE.get_or_init(make).as_ref().map_err(Clone::clone)
}

fn make() -> Result<[Verifier; 2], String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers/setup.sh");
    let made = Command::new(&script)
        .arg("--print-env")
        .output()
        .map_err(|e| format!("cannot run {}: {e}", script.display()))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        return Err(format!("{} failed, so no verifier can be asked:\n{said}", script.display()));
    }
    let printed = String::from_utf8_lossy(&made.stdout);
    let find = |name: &'static str, variable: &str| -> Result<Verifier, String> {
        let value = printed.lines().find_map(|l| l.strip_prefix(variable)?.strip_prefix('='));
        let program = value.ok_or_else(|| format!("setup.sh did not print {variable}"))?;
        Ok(Verifier { name, program: program.into() })
    };
    Ok([find("joserfc, Authlib", "AGENTID_VERIFIER_PYTHON")?, find("go-oidc", "AGENTID_VERIFIER_GO")?])
}

impl Verifier {
    /// Asks it. The inner error is a refusal, the outer one says that it could not be asked.
    ///
    /// # Errors
    /// Where it can't be run, or answers neither way.
    pub fn ask(
        &self,
        jwks_json: &str,
        issuer: &str,
        audience: &str,
        kind: Kind,
        token: &str,
    ) -> Result<Result<(), String>, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let failed = |e: std::io::Error| format!("{}: {e}", self.name);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let jwks = std::env::temp_dir().join(format!("agentid-jwks-{}-{number}.json", std::process::id()));
        std::fs::write(&jwks, jwks_json).map_err(failed)?;
        let kind = match kind {
            Kind::Access => "access",
            Kind::Identity => "identity",
        };
        let output = Command::new(&self.program)
            .args([jwks.as_os_str(), issuer.as_ref(), audience.as_ref(), kind.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                // Dropped at once, so that the verifier sees the end.
                if let Some(mut stdin) = child.stdin.take() {
                    stdin.write_all(token.as_bytes())?;
                }
                child.wait_with_output()
            });
        let _ = std::fs::remove_file(&jwks);
        let output = output.map_err(failed)?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match output.status.code() {
            Some(0) if said == "accepted" => Ok(Ok(())),
            Some(1) if said.starts_with("refused: ") => Ok(Err(said)),
            _ => Err(format!(
                "{}: {}: {said}{}",
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }
}

/// Whether both verifiers accept a token.
///
/// # Errors
/// Who refused it and why, or why one could not be asked.
pub fn verify_all(
    jwks_json: &str,
    issuer: &str,
    audience: &str,
    kind: Kind,
    token: &str,
) -> Result<(), String> {
    for verifier in verifiers()? {
        verifier
            .ask(jwks_json, issuer, audience, kind, token)?
            .map_err(|refusal| format!("{}: {refusal}", verifier.name))?;
    }
    Ok(())
}

/// Whether both verifiers refuse a token: what each said.
///
/// # Errors
/// Who accepted it, or why one could not be asked.
pub fn refuse_all(
    jwks_json: &str,
    issuer: &str,
    audience: &str,
    kind: Kind,
    token: &str,
) -> Result<Vec<String>, String> {
    let mut refusals = Vec::new();
    for verifier in verifiers()? {
        match verifier.ask(jwks_json, issuer, audience, kind, token)? {
            Ok(()) => return Err(format!("{} accepted it", verifier.name)),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Ok(refusals)
}
