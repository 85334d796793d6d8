//! The commands by which pods and people get tokens.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use agentid::crypto::Typ;

use crate::common::{eventually, target_dir, unique};
use crate::kit::*;

struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let path = target_dir().join("test-logs").join(format!("client-{}", unique()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn agentid(words: &[&str], t: &Test, ca: &Path, token: &Path) -> Output {
    tokio::task::block_in_place(|| {
        Command::new(env!("CARGO_BIN_EXE_agentid"))
            .args(words)
            .args(["--server", &t.stage.town.issuer, "--ca"])
            .arg(ca)
            .arg("--token-file")
            .arg(token)
            .output()
            .unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_keeps_what_the_secret_would_hold() {
    let t = Test::new("sidecar").await;
    t.token(&[]).await;
    let files = Files::new();
    let (ca, token) = (files.write("ca.crt", &t.service().ca), files.write("token", &t.sa_token().await));
    let directory = files.0.join("out");
    let words = ["sidecar", "--once", "--directory", directory.to_str().unwrap()];
    let done = agentid(&words, &t, &ca, &token);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let mut names: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|n| !n.starts_with(".."))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["agent.json", "ca.crt", "identity.jwt", "issuer", "jwks.json", "tickets.jwt"]);
    let ticket = std::fs::read_to_string(directory.join("tickets.jwt")).unwrap();
    t.verified(&ticket, &t.aud(), Typ::Access).await;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!said.contains(&ticket[ticket.len() - 30..]), "a token in the log");

    // Its exit code says what is wrong.
    let none = files.0.join("no-token");
    assert_eq!(agentid(&words, &t, &ca, &none).status.code(), Some(5));
    let nowhere = Command::new(env!("CARGO_BIN_EXE_agentid"))
        .args(words)
        .args(["--server", "https://127.0.0.1:1", "--token-file"])
        .arg(&token)
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(4));
    t.suspend("a", true).await;
    eventually("the agent is refused", SOON, || async {
        let code = agentid(&words, &t, &ca, &token).status.code();
        if code == Some(3) { Ok(()) } else { Err(code) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_get_prints_a_token_and_nothing_else() {
    let t = Test::new("get").await;
    t.token(&[]).await;
    let files = Files::new();
    let (ca, token) = (files.write("ca.crt", &t.service().ca), files.write("token", &t.sa_token().await));
    let got = agentid(&["token", "get", &t.aud(), "--scope", "tickets.read"], &t, &ca, &token);
    assert_eq!(got.status.code(), Some(0), "{}", String::from_utf8_lossy(&got.stderr));
    let printed = String::from_utf8(got.stdout).unwrap();
    assert_eq!(printed.lines().count(), 1);
    t.verified(printed.trim(), &t.aud(), Typ::Access).await;
    let refused = agentid(&["token", "get", &t.aud(), "--scope", "tickets.write"], &t, &ca, &token);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("invalid_scope") && said.contains("ask for less"), "{said}");
}
