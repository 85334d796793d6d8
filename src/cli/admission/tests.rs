use std::path::Path;

use super::*;

fn settings() -> Settings {
    Settings {
        namespace: "agentid-system".to_owned(),
        service_account: "agentid-operator".to_owned(),
        trust_domain: Some("agents.example.com".to_owned()),
        issuer: Some("https://agents.example.com".to_owned()),
        image: Some("example.com/agentid".to_owned()),
    }
}

fn objects(generated: &Generated) -> Vec<Value> {
    let parse = |text: &str| serde_yaml::from_str(text).unwrap();
    generated.documents.iter().flat_map(|d| d.text.split("---\n").map(parse).collect::<Vec<_>>()).collect()
}

#[test]
fn the_checked_in_policies_are_up_to_date() {
    generated(&settings()).unwrap().check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("admission")).unwrap();
}

#[test]
fn no_policy_sees_deletions_or_statuses() {
    let objects = objects(&generated(&settings()).unwrap());
    let policies: Vec<_> = objects.iter().filter(|o| o["spec"]["policyName"].is_null()).collect();
    assert_eq!(policies.len(), 9);
    for policy in policies {
        let name = &policy["metadata"]["name"];
        let bound = objects.iter().filter(|o| o["spec"]["policyName"] == *name).count();
        assert_eq!(bound, 1, "{name} has one binding");
        let rules = policy["spec"]["matchConstraints"]["resourceRules"].as_array().unwrap();
        assert!(!rules.is_empty(), "{name}");
        for rule in rules {
            for operation in rule["operations"].as_array().unwrap() {
                assert!(
                    ["CREATE", "UPDATE", "CONNECT"].contains(&operation.as_str().unwrap()),
                    "{name}: {rule}"
                );
            }
            for resource in rule["resources"].as_array().unwrap() {
                let resource = resource.as_str().unwrap();
                assert!(!resource.ends_with("/status") && !resource.ends_with("/*"), "{name}: {rule}");
            }
        }
        // A binding on its way out still binds, and nobody who cleans up adds a subject.
        if name == "agentid-bindings" {
            continue;
        }
        assert_eq!(policy["spec"]["variables"][0]["name"], "leaving", "{name}");
        let says = |field: &str| policy["spec"][field].to_string().contains("variables.leaving");
        assert!(says("validations") || says("mutations"), "{name} asks what is on its way out");
    }
}

#[test]
fn without_a_configuration_nothing_is_mounted() {
    let bare = Settings { issuer: None, trust_domain: None, image: None, ..settings() };
    let names =
        |s: &Settings| -> Vec<_> { generated(s).unwrap().documents.into_iter().map(|d| d.name).collect() };
    assert!(names(&bare).iter().all(|n| !n.contains("inject")));
    let no_image = Settings { image: None, ..settings() };
    assert!(names(&no_image).contains(&"agentid-inject.yaml".to_owned()));
    assert!(!names(&no_image).contains(&"agentid-inject-sidecar.yaml".to_owned()));
}

#[test]
fn names_that_the_api_server_would_refuse_are_not_printed() {
    use clap::Parser;
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: AdmissionArgs,
    }
    for (wrong, said) in [
        (["--namespace", "A b"], "--namespace"),
        (["--service-account", "x'y"], "--service-account"),
        (["--image", ""], "--image"),
        (["--image", "a b"], "--image"),
        (["--config", "/none/such.yaml"], "/none/such.yaml"),
    ] {
        let line = Line::parse_from(["agentid"].iter().chain(&wrong));
        let error = line.args.settings().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
