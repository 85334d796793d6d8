//! What the pages in docs/ promise to name completely, they do name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

use agentid::api::{
    BoundKind, Configuration, PROTECTED, Reason, SigningAlgorithm, SubjectForm, TokenProfile, annotation,
};
use agentid::crypto::{Algorithm, SigningKey};
use agentid::domain::plan::{Issue, Missing, TokenSpec};
use agentid::domain::{Digest, Entitlement, Key, Refusal, Uid};
use agentid::issue::{Issuer, Signers};
use serde_json::Value;

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// The words in backquotes in the first column of a page's tables.
fn first_column(page: &str) -> Vec<&str> {
    page.lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn every_reason_is_explained_once() {
    let page = page("reasons.md");
    let mut told = first_column(&page);
    told.sort_unstable();
    let mut all: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    all.sort_unstable();
    assert_eq!(told, all);
}

#[test]
fn what_agents_never_write_is_on_the_page_on_security() {
    let page = page("security.md");
    let (_, told) = page.split_once("### What agents never write\n").unwrap();
    let told: Vec<_> = told.lines().skip_while(|l| !l.starts_with("|---")).skip(1).collect();
    let rows = PROTECTED.iter().map(|p| {
        let group = if p.group.is_empty() { "core".to_owned() } else { format!("`{}`", p.group) };
        let resources: Vec<_> = p.resources.iter().map(|r| format!("`{r}`")).collect();
        format!("| {group} | {} | {} |", resources.join(", "), p.why)
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(told[..rows.len()], rows);
    assert!(!told[rows.len()].starts_with('|'));
}

struct One(SigningKey);

impl Signers for One {
    fn signer(&self, _: SigningAlgorithm) -> Option<&SigningKey> {
        Some(&self.0)
    }
}

/// An Issue of which every optional member is there; with a refusal it is that of a withdrawn credential.
fn issue(refusal: Option<Refusal>) -> Issue {
    let token = TokenSpec {
        file: "tickets.jwt".into(),
        grant: Some("tickets".into()),
        grant_uid: None,
        resource: Some("tickets".into()),
        entitlement: Entitlement {
            mode: agentid::api::Mode::AgentUser,
            users: None,
            username: Some("triage@agents.example.com".into()),
            kubernetes: false,
            audience: "https://tickets.example.com".into(),
            profile: TokenProfile::Access,
            subject: SubjectForm::Id,
            algorithm: SigningAlgorithm::ES256,
            roles: vec!["triager".into()],
            scopes: vec!["tickets.read".into()],
            lifetime: 3600,
            not_after: None,
        },
        status: None,
    };
    Issue {
        blueprint: Some("bots".into()),
        agent: Key::new("support", "triage"),
        uid: Uid(7),
        secret: "triage-agentid".into(),
        tokens: if refusal.is_some() { Vec::new() } else { vec![token] },
        kubeconfig: Some("{}".into()),
        missing: vec![Missing {
            grant: "wiki".into(),
            resource: "wiki".into(),
            refusal: Some(Refusal::new(Reason::NamespaceNotAllowed, "ask its owner")),
        }],
        refusal,
        lifetime: 3600,
        rotation: Some(jiff::Timestamp::UNIX_EPOCH),
        plan: Digest::default(),
    }
}

fn members(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                found.insert(name.clone());
                members(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| members(item, found)),
        _ => {}
    }
}

#[test]
fn every_member_of_agent_json_is_explained() {
    let issuer = Issuer {
        issuer: "https://agents.example.com".into(),
        trust_domain: "agents.example.com".into(),
        audit: agentid::issue::Audit::to(drop),
    };
    let keys = One(SigningKey::generate(Algorithm::ES256).unwrap());
    let (mut written, mut annotations) = (BTreeSet::new(), BTreeSet::new());
    for refusal in [None, Some(Refusal::new(Reason::Suspended, "resume it"))] {
        let contents = issuer.mint(&issue(refusal), &keys, jiff::Timestamp::now()).unwrap();
        members(&serde_json::from_str(&contents.data["agent.json"]).unwrap(), &mut written);
        annotations.extend(contents.annotations.into_keys());
    }
    let page = page("agent-json.md");
    let told: BTreeSet<_> = first_column(&page).into_iter().map(str::to_owned).collect();
    let untold: Vec<_> = written.iter().chain(&annotations).filter(|m| !told.contains(*m)).collect();
    assert!(untold.is_empty(), "docs/agent-json.md does not explain {untold:?}");
    assert!(written.contains("withdrawn") && written.contains("issuedAt"), "{written:?}");
    assert!(annotations.contains(annotation::RENEW_AT), "{annotations:?}");
}

#[test]
fn every_field_of_the_configuration_is_explained() {
    let mut config = Configuration::new("https://agents.example.com", "agents.example.com");
    // What is left out where it is absent.
    config.kubernetes.server = Some(String::new());
    config.kubernetes.certificate_authority = Some(String::new());
    let Value::Object(fields) = serde_json::to_value(&config).unwrap() else { panic!("no object") };
    let mut paths = BTreeSet::new();
    for (name, value) in fields {
        match value {
            Value::Object(inner) => paths.extend(inner.into_iter().map(|(n, _)| format!("{name}.{n}"))),
            _ => {
                paths.insert(name);
            }
        }
    }
    let page = page("configuration.md");
    let fields = page.split("## ").next().unwrap();
    let told: BTreeSet<_> = first_column(fields).into_iter().map(str::to_owned).collect();
    assert_eq!(told, paths);
}

#[test]
fn the_example_configuration_has_every_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/configuration.yaml");
    let config = Configuration::from_yaml(&std::fs::read_to_string(path).unwrap()).unwrap();
    let defaults = Configuration::new("https://agents.example.com", "agents.example.com");
    assert_eq!(config, defaults);
    assert!(config.bound_kinds.contains(&BoundKind { api_version: "v1".into(), kind: "Pod".into() }));
}

/// What the README shows is what stands in examples/, which other tests apply.
#[test]
fn the_readme_shows_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    for name in ["tickets", "triage"] {
        let example = std::fs::read_to_string(root.join(format!("examples/{name}.yaml"))).unwrap();
        assert!(readme.contains(&example), "README.md does not show examples/{name}.yaml as it is");
    }
    let deployment = std::fs::read_to_string(root.join("examples/deployment.yaml")).unwrap();
    let (_, volumes) = deployment.split_once("      volumes:\n").unwrap();
    let shown =
        volumes.lines().map(|l| l.strip_prefix("      ").unwrap().to_owned() + "\n").collect::<String>();
    assert!(readme.contains(&format!("volumes:\n{shown}")), "README.md does not show the volume as it is");
}

/// The commands that do something, as they are typed, with the forms of output that each takes.
fn commands(command: &clap::Command, prefix: &str, found: &mut Vec<(String, Vec<String>)>) {
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        let name = format!("{prefix}{}", sub.get_name());
        if sub.has_subcommands() {
            commands(sub, &format!("{name} "), found);
            continue;
        }
        let forms = sub.get_arguments().find(|a| a.get_id() == "output");
        let forms = forms.map(|a| a.get_possible_values()).unwrap_or_default();
        found.push((name, forms.iter().map(|f| f.get_name().to_owned()).collect()));
    }
}

#[test]
fn every_command_and_its_forms_are_in_the_reference() {
    let mut all = Vec::new();
    commands(&agentid::cli::command(false), "", &mut all);
    let page = page("cli.md");
    let part =
        |title: &str| page.split(&format!("## {title}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let mut told = first_column(part("Commands"));
    told.sort_unstable();
    let mut names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(told, names);
    let with_forms: Vec<_> = all.iter().filter(|(_, forms)| !forms.is_empty()).collect();
    let rows: Vec<_> = part("Forms of output").lines().filter(|l| l.starts_with("| `")).collect();
    assert_eq!(rows.len(), with_forms.len());
    for (name, forms) in with_forms {
        let row = rows.iter().find(|r| r.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/cli.md says nothing of the forms of {name}"));
        let has = |cell: usize| !row.split('|').nth(cell + 2).unwrap().trim().is_empty();
        for (at, form) in ["text", "json", "yaml", "name"].into_iter().enumerate() {
            assert_eq!(has(at), forms.iter().any(|f| f == form), "{name} -o {form}: {row}");
        }
    }
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for (name, _) in &all {
        let top = name.split(' ').next().unwrap();
        assert!(readme.contains(&format!("agentid {top}")), "README.md does not name agentid {top}");
    }
}
