//! What the chart renders, and which values it refuses. No control plane.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use agentid::api::Configuration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::common::target_dir;
use crate::helm::{
    NAMESPACE, at, chart, documents, helm, object, objects, template, template_for, try_helm, values,
};

/// Where the sidecar's policy names its user.
const SIDECAR_USER: &str = ", 'runAsUser': dyn(65532)";
/// Set it to write the golden files anew; read the difference before you commit it.
const UPDATE: &str = "AGENTID_UPDATE_GOLDEN";

#[test]
fn lint_has_nothing_to_say() {
    for name in ["minimal.yaml", "everything.yaml"] {
        let said = helm(&["lint", &chart(), "--strict", "--namespace", NAMESPACE, "--values", &values(name)]);
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{name}: {said}");
    }
}

/// The golden files leave out the definitions and the policies, which are held against their source below.
#[test]
fn renders_what_the_golden_files_show() {
    let update = std::env::var_os(UPDATE).is_some();
    for name in ["minimal.yaml", "everything.yaml"] {
        let rendered = template(&["--values", &values(name)]);
        assert_eq!(
            rendered,
            template(&["--values", &values(name)]),
            "{name}: rendered differently the second time"
        );
        let generated = |text: &str| {
            text.contains("# Source: agentid/templates/crds.yaml")
                || text.contains("# Source: agentid/templates/admission.yaml")
        };
        let shown: Vec<_> =
            documents(&rendered).into_iter().filter(|d| !generated(d)).map(str::trim).collect();
        let shown = shown.join("\n---\n") + "\n";
        let path = at("tests/chart/golden").join(name);
        if update {
            fs::write(&path, &shown).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        let first = shown.lines().zip(golden.lines()).position(|(a, b)| a != b);
        let line = first.unwrap_or_else(|| shown.lines().count().min(golden.lines().count()));
        assert!(
            shown == golden,
            "{} differs from line {} on: {:?}, rendered: {:?}; if it is meant, write it anew with {UPDATE}=1",
            path.display(),
            line + 1,
            golden.lines().nth(line),
            shown.lines().nth(line)
        );
    }
}

#[test]
fn the_generated_files_are_up_to_date() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
        let output = command.args(args).env_remove("POD_NAMESPACE").current_dir(at("")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["crds", "--check", "charts/agentid/files/crds"]);
    let words = "admission --namespace namespace.placeholder --config charts/placeholders.yaml --image image.placeholder \
                 --check charts/agentid/files/admission";
    run(&words.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn the_definitions_are_ours_and_are_kept() {
    let all = objects(&template(&["--values", &values("minimal.yaml")]));
    let rendered: Vec<_> = all.iter().filter(|o| o["kind"] == "CustomResourceDefinition").collect();
    let ours = agentid::api::crds().unwrap();
    assert_eq!(rendered.len(), ours.len());
    for definition in ours {
        let rendered = object(&all, "CustomResourceDefinition", definition.metadata.name.as_deref().unwrap());
        assert_eq!(rendered["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        // As what it means: 0 and 0.0 are one number there.
        let found: CustomResourceDefinition = serde_json::from_value(rendered.clone()).unwrap();
        assert!(found.spec == definition.spec, "{:?} differs from ours", definition.metadata.name);
    }
    let without = template(&["--values", &values("minimal.yaml"), "--set", "crds.install=false"]);
    assert!(!without.contains("CustomResourceDefinition"));
}

/// The policies as they would be printed for the chart's values.
fn printed(config: &str, image: &str) -> Vec<Value> {
    let dir = target_dir().join("chart");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("printed-{}.yaml", crate::common::unique()));
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentid"));
    command.args(["admission", "--namespace", NAMESPACE, "--image", image, "--config"]).arg(&path);
    let output = command.output().unwrap();
    fs::remove_file(&path).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    objects(&String::from_utf8(output.stdout).unwrap())
}

fn configuration(all: &[Value]) -> &str {
    object(all, "ConfigMap", "agentid")["data"]["configuration.yaml"].as_str().unwrap()
}

#[test]
fn the_policies_are_those_that_are_printed_for_these_values() {
    for name in ["minimal.yaml", "everything.yaml"] {
        let all = objects(&template(&["--values", &values(name)]));
        let image = &object(&all, "Deployment", "agentid-serve")["spec"]["template"]["spec"]["containers"][0]
            ["image"];
        let printed = printed(configuration(&all), image.as_str().unwrap());
        let admission = |o: &&Value| o["apiVersion"] == "admissionregistration.k8s.io/v1";
        assert_eq!(all.iter().filter(admission).count(), printed.len());
        for wanted in printed {
            let found =
                object(&all, wanted["kind"].as_str().unwrap(), wanted["metadata"]["name"].as_str().unwrap());
            // Its values leave the user to the cluster.
            let named = wanted["spec"].to_string();
            let unnamed = named.replace(SIDECAR_USER, "");
            let spec = if name == "everything.yaml" { &unnamed } else { &named };
            assert_eq!(found["spec"].to_string(), *spec);
            assert_eq!(found["metadata"]["annotations"], wanted["metadata"]["annotations"]);
        }
    }
}

/// The sidecar runs as the chart's own pods do: on OpenShift as whom the cluster chooses.
#[test]
fn the_injected_sidecar_names_the_user_of_these_values() {
    let spec = |set: &str| {
        let all = objects(&template(&["--values", &values("minimal.yaml"), "--set", set]));
        object(&all, "MutatingAdmissionPolicy", "agentid-inject-sidecar")["spec"].to_string()
    };
    let named = spec("podSecurityContext.runAsGroup=1");
    // Where there are init containers, and where there are none.
    assert_eq!(named.matches(SIDECAR_USER).count(), 2, "{named}");
    let unnamed = spec("podSecurityContext.runAsUser=null");
    assert!(!unnamed.contains("runAsUser") && unnamed.contains("'runAsNonRoot': dyn(true)"), "{unnamed}");
    assert_eq!(spec("podSecurityContext.runAsUser=1234"), named.replace("65532", "1234"));
}

#[test]
fn an_older_kubernetes_gets_no_mutating_policies() {
    let render = |kubernetes, more: &[&str]| {
        let minimal = values("minimal.yaml");
        let args: Vec<_> = ["--values", &minimal].into_iter().chain(more.iter().copied()).collect();
        template_for(kubernetes, &args)
    };
    let older = render("v1.35.4", &[]);
    assert!(
        older.contains("kind: ValidatingAdmissionPolicy") && !older.contains("kind: MutatingAdmissionPolicy")
    );
    // A version of a distribution's own is one of that release.
    assert!(render("v1.36.1-eks-1a2b3c", &[]).contains("kind: MutatingAdmissionPolicy"));
    assert!(!render("v1.37.1", &["--set", "admissionPolicies.enabled=false"]).contains("AdmissionPolicy"));
}

#[test]
fn the_processes_take_the_configuration() {
    let minimal = objects(&template(&["--values", &values("minimal.yaml")]));
    let read = Configuration::from_yaml(configuration(&minimal)).unwrap();
    assert_eq!(read, Configuration::new("https://agentid.agentid-system.svc", "prod.example.com"));

    let everything = objects(&template(&["--values", &values("everything.yaml")]));
    let read = Configuration::from_yaml(configuration(&everything)).unwrap();
    let text = fs::read_to_string(values("everything.yaml")).unwrap();
    let given: Value = serde_yaml::from_str(&text).unwrap();
    let mut wanted = given["config"].clone();
    wanted["apiVersion"] = json!("config.agentid.dev/v1alpha1");
    wanted["kind"] = json!("Configuration");
    for kind in wanted["boundKinds"].as_array_mut().unwrap() {
        kind.as_object_mut().unwrap().remove("resource");
    }
    // Every field is given, so that none is forgotten here or in the schema.
    assert_eq!(serde_json::to_value(read).unwrap(), wanted);
}

/// The kinds that may be seen are those that are configured, also where these are none.
#[test]
fn the_bound_kinds_are_all_that_may_be_seen() {
    let minimal = values("minimal.yaml");
    let none = ["--values", &minimal, "--set-json", "config.boundKinds=[]"];
    let one =
        ["--values", &minimal, "--set-json", r#"config.boundKinds=[{"apiVersion":"batch/v1","kind":"Job"}]"#];
    let default = ["--values", &minimal];
    for (args, wanted) in [
        (&none[..], &[][..]),
        (&one[..], &["jobs"]),
        (
            &default[..],
            &["cronjobs", "daemonsets", "deployments", "jobs", "pods", "replicasets", "statefulsets"],
        ),
    ] {
        let all = objects(&template(args));
        let configured = Configuration::from_yaml(configuration(&all)).unwrap().bound_kinds.len();
        // ReplicaSets are the hop to Deployments.
        assert_eq!(configured, wanted.iter().filter(|k| **k != "replicasets").count());
        for process in ["agentid-operator", "agentid-serve"] {
            let rules = object(&all, "ClusterRole", process)["rules"].as_array().unwrap().clone();
            let workload = |group: &Value| group == "apps" || group == "batch";
            let seen: BTreeSet<_> = rules
                .iter()
                .flat_map(|rule| {
                    let within = rule["apiGroups"].as_array().unwrap().iter().any(workload);
                    let resources = rule["resources"].as_array().unwrap().iter().map(|r| r.as_str().unwrap());
                    resources.filter(move |r| within || *r == "pods")
                })
                .collect();
            assert_eq!(seen, wanted.iter().copied().collect(), "{process}");
        }
    }
}

#[test]
fn a_change_of_the_configuration_rolls_the_pods() {
    let checksum = |more: &str| {
        let all = objects(&template(&["--values", &values("minimal.yaml"), "--set", more]));
        ["agentid-operator", "agentid-serve"].map(|name| {
            object(&all, "Deployment", name)["spec"]["template"]["metadata"]["annotations"]["checksum/configuration"].clone()
        })
    };
    let first = checksum("config.maxStale=30s");
    assert_eq!(first, checksum("config.maxStale=30s"));
    for (a, b) in first.iter().zip(checksum("config.maxStale=40s")) {
        assert!(a.is_string() && *a != b, "{a}");
    }
}

#[test]
fn what_is_unknown_or_unfit_is_refused() {
    let minimal = values("minimal.yaml");
    for (set, wanted) in [
        ("surprise=1", "surprise"),
        ("config.surprise=1", "surprise"),
        ("operator.surprise=1", "surprise"),
        ("serve.service.surprise=1", "surprise"),
        ("config.kubernetes.guardrails=off", "guardrails"),
        ("config.trustDomain=Prod", "trustDomain"),
        ("config.trustDomain=", "config.trustDomain is empty"),
        ("image.repository=", "image.repository is empty"),
        ("config.issuer=http://agents.example.com", "issuer"),
        ("config.issuer=https://agents.example.com/", "issuer"),
        ("config.issuer=https://a'b.example.com", "issuer"),
        ("config.keys.signFor=1d", "signFor"),
        ("config.limits.tokenLifetime=60", "tokenLifetime"),
        ("config.statusLists.capacity=7", "capacity"),
        ("config.kubernetes.bindableRoles={system:node}", "bindableRoles"),
        ("config.kubernetes.bindableRoles={*}", "bindableRoles"),
        ("config.boundKinds[0].apiVersion=v1,config.boundKinds[0].kind=Secret", "boundKinds"),
        ("config.boundKinds[0].apiVersion=example.com/v1,config.boundKinds[0].kind=Crew", "add `resource`"),
        ("operator.replicas=two", "replicas"),
        ("operator.replicas=-1", "replicas"),
        ("crds.install=1", "install"),
        ("image.digest=latest", "digest"),
        ("logFormat=xml", "logFormat"),
        ("serve.service.type=ExternalName", "type"),
        ("serve.verify.enabled=true", "serve.verify.from is empty"),
        ("networkPolicy.metricsFrom[0].surprise=1", "surprise"),
        ("serve.extraEnv[0].value=x", "name"),
        ("monitoring.prometheusRule.runbooks=wiki", "runbooks"),
    ] {
        let chart = chart();
        let output = try_helm(&[
            "template",
            "agentid",
            &chart,
            "--namespace",
            NAMESPACE,
            "--values",
            &minimal,
            "--set",
            set,
        ]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{set} is accepted");
        assert!(said.contains(wanted), "{set}: {wanted:?} is not said, but: {said}");
    }
    for set in [
        "global.x=1",
        "serve.replicas=null",
        "podSecurityContext.runAsUser=null",
        "config.boundKinds[0].apiVersion=example.com/v1,config.boundKinds[0].kind=Crew,config.boundKinds[0].resource=crews",
    ] {
        template(&["--values", &minimal, "--set", set]);
    }
}

/// Every field of the schema of the configuration is one of the program's, and the other way round.
#[test]
fn the_schema_knows_every_field_of_the_configuration() {
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(at("charts/agentid/values.schema.json")).unwrap()).unwrap();
    let known: BTreeSet<_> =
        schema["properties"]["config"]["properties"].as_object().unwrap().keys().cloned().collect();
    let config = serde_json::to_value(Configuration::new("https://a.example.com", "a")).unwrap();
    let fields = config.as_object().unwrap().keys().filter(|k| *k != "apiVersion" && *k != "kind");
    assert_eq!(known, fields.cloned().collect());
}

#[test]
fn the_notes_tell_the_next_three_commands() {
    let minimal = values("minimal.yaml");
    let said = helm(&[
        "install",
        "agentid",
        &chart(),
        "--namespace",
        NAMESPACE,
        "--dry-run=client",
        "--values",
        &minimal,
    ]);
    let (_, notes) = said.split_once("NOTES:").unwrap();
    assert_eq!(notes.lines().filter(|l| l.contains("kubectl --namespace")).count(), 3, "{notes}");
    assert!(notes.contains("https://agentid.agentid-system.svc"), "{notes}");
}

/// The container runs `agentid` with these words: the program takes them.
#[test]
fn the_program_takes_the_arguments() {
    for name in ["minimal.yaml", "everything.yaml"] {
        let all = objects(&template(&["--values", &values(name)]));
        for deployment in ["agentid-operator", "agentid-serve"] {
            let container =
                &object(&all, "Deployment", deployment)["spec"]["template"]["spec"]["containers"][0];
            let words = container["args"].as_array().unwrap().iter().map(|w| w.as_str().unwrap());
            let output = Command::new(env!("CARGO_BIN_EXE_agentid")).args(words).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            // All is understood, and the first that is missing is the file.
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("/etc/agentid/configuration.yaml"), "{said}");
        }
    }
}
