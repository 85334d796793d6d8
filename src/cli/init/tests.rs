use super::questions::ask;
use super::*;

fn args(more: &[&str]) -> InitArgs {
    use clap::Parser;
    let line = ["agentid", "init"].iter().chain(more);
    let parsed = crate::cli::Cli::try_parse_from(line).unwrap();
    let crate::cli::Command::Init(args) = parsed.command else { panic!("init") };
    args
}

const ALL: &[&str] = &[
    "-n",
    "support",
    "--agent",
    "triage",
    "--workload",
    "deployment/triage",
    "--sponsor",
    "ann@example.com",
    "--sponsor",
    "Group:support",
    "--resource",
    "tickets",
    "--audience",
    "https://tickets.example.com",
    "--role",
    "triager,reader",
    "--scope",
    "tickets.read",
    "--issuer",
    "https://agents.example.com",
    "--service-account",
    "triage",
];

#[test]
fn what_is_written_says_what_was_asked_for() {
    let plan = args(ALL).plan(false).unwrap();
    let all = manifests(&plan).unwrap();
    let files: Vec<_> = all.iter().map(|m| m.file).collect();
    assert_eq!(files, ["resource.yaml", "agent.yaml", "grant.yaml", "configuration.yaml"]);
    let resource: crate::api::AgentResource = serde_yaml::from_str(&all[0].text).unwrap();
    assert_eq!(resource.spec.allow[0].roles.as_ref().unwrap(), &["triager", "reader"]);
    let agent: crate::api::AgentIdentity = serde_yaml::from_str(&all[1].text).unwrap();
    assert_eq!(agent.spec.bound_object_ref.unwrap().api_version, "apps/v1");
    assert_eq!(agent.spec.sponsors.len(), 2);
    let grant: crate::api::AgentGrant = serde_yaml::from_str(&all[2].text).unwrap();
    assert_eq!(grant.spec.secret_key.as_deref(), Some("tickets.jwt"));
    assert!(all[3].text.contains("trustDomain: \"agents.example.com\""), "{}", all[3].text);
    let next = next_steps(Path::new("m"), &all);
    assert!(
        next.ends_with("Next: kubectl apply -f m/resource.yaml -f m/agent.yaml -f m/grant.yaml\n"),
        "{next}"
    );
}

const BLUEPRINT: &[&str] = &[
    "-n",
    "support",
    "--blueprint",
    "bots",
    "--pods",
    "app=bot, example.com/tier=",
    "--sponsor",
    "Group:support",
    "--resource",
    "tickets",
    "--audience",
    "https://tickets.example.com",
    "--role",
    "reader",
    "--policy",
];

#[test]
fn pods_become_agents_by_a_blueprint() {
    let written = |more: &[&str]| {
        let all = manifests(&args(&[BLUEPRINT, more].concat()).plan(false).unwrap()).unwrap();
        let files: Vec<_> = all.iter().map(|m| m.file).collect();
        assert_eq!(files, ["resource.yaml", "blueprint.yaml", "policy.yaml"]);
        let blueprint: crate::api::AgentBlueprint = serde_yaml::from_str(&all[1].text).unwrap();
        let policy: crate::api::AgentPolicy = serde_yaml::from_str(&all[2].text).unwrap();
        (blueprint.spec, policy.spec)
    };
    let (blueprint, policy) = written(&[]);
    let labels = blueprint.pod_selector.unwrap().match_labels;
    let labels: Vec<_> = labels.iter().map(|(k, v)| (k.as_str(), v.0.as_str())).collect();
    assert_eq!(labels, [("app", "bot"), ("example.com/tier", "")]);
    assert_eq!(blueprint.namespace_selector, policy.matches.unwrap().namespace_selector.unwrap());
    assert_eq!(blueprint.sponsors.len(), 1);
    assert_eq!(blueprint.identity_per, Some(IdentityPer::Workload));
    assert_eq!(blueprint.grants[0].secret_key.as_deref(), Some("tickets.jwt"));
    assert_eq!(policy.enforcement, Some(crate::api::Enforcement::Audit));

    let (blueprint, _) = written(&["--identity-per", "Pod"]);
    assert_eq!(blueprint.identity_per, Some(IdentityPer::Pod));
    assert_eq!(blueprint.grants[0].secret_key, None);
}

#[test]
fn a_service_called_identity_does_not_take_the_identity_tokens_file() {
    let mut line = ALL.to_vec();
    *line.iter_mut().find(|word| **word == "tickets").unwrap() = "identity";
    let plan = args(&line).plan(false).unwrap();
    assert_eq!(plan.resource, "identity", "{line:?}");
    let grant: crate::api::AgentGrant = serde_yaml::from_str(&manifests(&plan).unwrap()[2].text).unwrap();
    assert_eq!(grant.spec.secret_key.as_deref(), Some("identity-access.jwt"));
}

#[test]
fn one_agent_or_a_blueprint_not_both() {
    use clap::Parser;
    for more in [&["--agent", "a"][..], &["--workload", "Pod/p"], &["--service-account", "s"]] {
        let line = ["agentid", "init"].iter().chain(BLUEPRINT).chain(more);
        assert!(crate::cli::Cli::try_parse_from(line).is_err(), "{more:?}");
    }
    assert!(crate::cli::Cli::try_parse_from(["agentid", "init", "--pods", "app=bot"]).is_err());
    let no_pods = args(&[&BLUEPRINT[..4], &BLUEPRINT[6..]].concat()).plan(false).unwrap_err();
    assert_eq!(no_pods.to_string(), "--pods must be given: there is no terminal to ask at");
}

#[test]
fn what_is_missing_is_named_where_nobody_can_be_asked() {
    let missing = args(&["-n", "support", "--agent", "a", "--resource", "r"]).plan(false).unwrap_err();
    assert_eq!(missing.to_string(), "--audience must be given: there is no terminal to ask at");
}

#[test]
fn answers_are_checked_and_asked_for_again() {
    let mut input = "Triage\n tria_ge\ntriage\n".as_bytes();
    assert_eq!(ask(&mut input, "Name", agent_name).unwrap().as_deref(), Some("triage"));
    assert_eq!(ask(&mut "\n".as_bytes(), "Name", agent_name).unwrap(), None);
    assert!(ask(&mut "A\nB\nC\nd\n".as_bytes(), "Name", agent_name).is_err());
    assert!(ask(&mut "".as_bytes(), "Name", agent_name).is_err());
}

#[test]
fn bad_input_is_refused() {
    for (good, bad) in [
        ("https://t.example.com", "t.example.com"),
        ("urn:example:tickets", "urn:"),
        ("https://t.example.com:8443/api", "https://ann@t.example.com"),
        ("spiffe://td/x", "https://t.example.com#a"),
        ("https://[::1]/x", "HTTPS://t.example.com"),
    ] {
        assert!(audience(good).is_ok(), "{good}");
        assert!(audience(bad).is_err(), "{bad}");
    }
    assert!(workload("Pod/p").is_ok() && workload("Secret/p").is_err() && workload("triage").is_err());
    assert_eq!(sponsor("Group:a:b").unwrap(), Sponsor { kind: "Group", name: "a:b".to_owned() });
    assert!(sponsor("").is_err() && sponsor("a\nb").is_err() && sponsor("User:").is_err());
    assert!(right("tickets.read").is_ok() && right("a b").is_err() && right("").is_err());
    assert!(issuer("https://agents.example.com").is_ok() && issuer("http://agents.example.com").is_err());
    assert!(trust_domain("Bad Domain").is_err());
    assert!(agent_name(&"a".repeat(64)).is_err());
    assert!(service(&"a".repeat(180)).is_ok() && service(&"a".repeat(181)).is_err());
    for bad in ["app", "app=-", "=bot", "app=bot,", "a b=c", "/app=bot", "Example.com/app=bot", "app=a=b"] {
        assert!(labels(bad).is_err(), "{bad}");
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let dir = std::env::temp_dir().join(format!("agentid-init-{}", std::process::id()));
    let all = manifests(&args(ALL).plan(false).unwrap()).unwrap();
    write_files(&dir, &all, false).unwrap();
    fs::write(dir.join("agent.yaml"), "mine").unwrap();
    fs::remove_file(dir.join("resource.yaml")).unwrap();
    assert!(matches!(write_files(&dir, &all, false), Err(InitError::Exists(_))));
    assert!(!dir.join("resource.yaml").exists(), "nothing is written if one is there");
    assert_eq!(fs::read_to_string(dir.join("agent.yaml")).unwrap(), "mine");
    write_files(&dir, &all, true).unwrap();
    assert_eq!(fs::read_to_string(dir.join("agent.yaml")).unwrap(), all[1].text);
    fs::remove_dir_all(dir).unwrap();
}
