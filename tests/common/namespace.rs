//! A namespace for each test, and what a test does in it.

use std::fmt::Debug;
use std::path::PathBuf;

use agentid::api::{AgentBlueprint, AgentGrant, AgentIdentity, AgentPolicy, AgentResource};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde_json::json;

use super::objects::{api_of, message, parse, resource_of};
use super::{ControlPlane, eventually, unique};

/// On what lies outside the namespace: the namespace of the test that it belongs to.
const OWNER_LABEL: &str = "agentid.dev/test-namespace";
/// The field manager of the tests.
const MANAGER: &str = "test";

/// A namespace of one test. Dropped, it is deleted without waiting (that takes seconds), with the cluster's
/// objects that the test applied.
///
/// In YAML, `$NS` stands for its name: names outside namespaces must contain it, so that tests that run at
/// the same time don't meet.
pub struct Namespace {
    /// Its name, as `$NS` stands for it.
    pub name: String,
    /// A cluster administrator.
    pub client: Client,
    kubeconfig: PathBuf,
}

impl Namespace {
    /// Makes one; the prefix tells whoever looks at the cluster which test it is.
    pub async fn new(control_plane: &ControlPlane, prefix: &str) -> Self {
        let client = control_plane.client().await;
        let name = format!("t-{prefix}-{}", unique());
        let namespace = serde_json::from_value(
            json!({"metadata": {"name": name, "labels": {"agentid.dev/test": "true"}}}),
        );
        Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace.unwrap())
            .await
            .unwrap();
        Self { name, client, kubeconfig: control_plane.kubeconfig.clone() }
    }

    /// One in which pods can be made: a controller must have made its service account first.
    pub async fn for_pods(control_plane: &ControlPlane, prefix: &str) -> Self {
        let namespace = Self::new(control_plane, prefix).await;
        let accounts: Api<ServiceAccount> = Api::namespaced(namespace.client.clone(), &namespace.name);
        eventually("the namespace's service account", std::time::Duration::from_secs(60), || {
            accounts.get("default")
        })
        .await;
        namespace
    }

    /// The objects of a YAML stream, with `$NS` filled in, in this namespace unless they name another.
    fn objects(&self, yaml: &str) -> Vec<DynamicObject> {
        let mut objects = parse(&yaml.replace("$NS", &self.name));
        for object in &mut objects {
            if resource_of(object).1 {
                object.metadata.namespace.get_or_insert_with(|| self.name.clone());
            } else {
                let labels = object.metadata.labels.get_or_insert_default();
                labels.insert(OWNER_LABEL.to_owned(), self.name.clone());
            }
        }
        objects
    }

    async fn patch(&self, object: &DynamicObject, dry_run: bool) -> Result<DynamicObject, kube::Error> {
        let params = PatchParams { dry_run, ..PatchParams::apply(MANAGER).force().validation_strict() };
        let name = object.metadata.name.as_deref().expect("metadata.name");
        let api = api_of(self.client.clone(), object);
        let began = std::time::Instant::now();
        loop {
            let done = api.patch(name, &params, &Patch::Apply(object)).await;
            // A kind whose definition is brand-new is served a moment later.
            let new = matches!(&done, Err(kube::Error::Api(e)) if e.message.contains("There can be a delay"));
            if !new || began.elapsed() > std::time::Duration::from_secs(15) {
                return done;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    /// Creates as `kubectl create` does: unknown fields are refused.
    async fn create(&self, object: &DynamicObject, dry_run: bool) -> Result<DynamicObject, kube::Error> {
        let (resource, namespaced) = resource_of(object);
        let namespace = object.metadata.namespace.as_deref().filter(|_| namespaced);
        let path = DynamicObject::url_path(&resource, namespace);
        let dry_run = if dry_run { "&dryRun=All" } else { "" };
        let request =
            http::Request::post(format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict{dry_run}"))
                .header("content-type", "application/json")
                .body(serde_json::to_vec(object).unwrap())
                .unwrap();
        self.client.request(request).await
    }

    /// Applies (server-side; a field that an earlier apply set and this one doesn't is unset).
    ///
    /// # Errors
    /// The API server's refusal of the first object that it refuses.
    pub async fn try_apply(&self, yaml: &str) -> Result<Vec<DynamicObject>, kube::Error> {
        let mut applied = Vec::new();
        for object in self.objects(yaml) {
            applied.push(self.patch(&object, false).await?);
        }
        Ok(applied)
    }

    /// Applies; gives the last object as it now is.
    ///
    /// # Panics
    /// If it is refused.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> impl Future<Output = DynamicObject> {
        let (yaml, caller) = (yaml.to_owned(), std::panic::Location::caller());
        async move {
            match self.try_apply(&yaml).await {
                Ok(mut applied) => applied.pop().expect("an object"),
                Err(e) => panic!("{caller}: {e}\n{yaml}"),
            }
        }
    }

    /// The object may be created (nothing is).
    ///
    /// # Panics
    /// If it is refused.
    pub async fn expect_accepted(&self, yaml: &str) {
        for object in self.objects(yaml) {
            if let Err(e) = self.create(&object, true).await {
                panic!("refused: {}\n{yaml}", message(&e));
            }
        }
    }

    /// The object may not be created, and the refusal says all this.
    ///
    /// # Panics
    /// If it is accepted, or refused in other words, or says twice what is wrong.
    pub async fn expect_rejected(&self, yaml: &str, wanted: &[&str]) {
        for object in self.objects(yaml) {
            check_refusal(yaml, self.create(&object, true).await, wanted);
        }
    }

    /// The objects may be changed so (nothing is).
    ///
    /// # Panics
    /// If one is refused.
    pub async fn expect_change_accepted(&self, yaml: &str) {
        for object in self.objects(yaml) {
            if let Err(e) = self.patch(&object, true).await {
                panic!("refused: {}\n{yaml}", message(&e));
            }
        }
    }

    /// The object may not be changed so, and the refusal says all this.
    ///
    /// # Panics
    /// If it is accepted, or refused in other words.
    pub async fn expect_change_rejected(&self, yaml: &str, wanted: &[&str]) {
        for object in self.objects(yaml) {
            check_refusal(yaml, self.patch(&object, true).await, wanted);
        }
    }

    /// The agent of this name.
    pub async fn agent(&self, name: &str) -> Option<AgentIdentity> {
        Api::namespaced(self.client.clone(), &self.name).get_opt(name).await.unwrap()
    }

    /// The grant of this name.
    pub async fn grant(&self, name: &str) -> Option<AgentGrant> {
        Api::namespaced(self.client.clone(), &self.name).get_opt(name).await.unwrap()
    }

    /// The resource of this name (`$NS` is filled in).
    pub async fn resource(&self, name: &str) -> Option<AgentResource> {
        let name = name.replace("$NS", &self.name);
        Api::all(self.client.clone()).get_opt(&name).await.unwrap()
    }

    /// The policy of this name (`$NS` is filled in).
    pub async fn policy(&self, name: &str) -> Option<AgentPolicy> {
        let name = name.replace("$NS", &self.name);
        Api::all(self.client.clone()).get_opt(&name).await.unwrap()
    }

    /// The Secret of this name.
    pub async fn secret(&self, name: &str) -> Option<Secret> {
        Api::namespaced(self.client.clone(), &self.name).get_opt(name).await.unwrap()
    }

    /// Deletes what the YAML names, now.
    ///
    /// # Panics
    /// If it isn't there.
    pub async fn delete(&self, yaml: &str) {
        for object in self.objects(yaml) {
            let name = object.metadata.name.clone().unwrap_or_default();
            let now = DeleteParams::default().grace_period(0);
            api_of(self.client.clone(), &object).delete(&name, &now).await.unwrap();
        }
    }
}

fn check_refusal(yaml: &str, answer: Result<impl Debug, kube::Error>, wanted: &[&str]) {
    let Err(error) = answer else { panic!("accepted, but should be refused with {wanted:?}:\n{yaml}") };
    let said = message(&error);
    for part in wanted {
        assert!(said.contains(part), "{part:?} is not said of\n{yaml}\nbut: {said}");
    }
    // The server's own remark that it looked no further is no second fault.
    let kube::Error::Api(status) = &error else { unreachable!("message() has looked") };
    let causes = status.details.iter().flat_map(|d| &d.causes);
    let faults = causes.filter(|c| !c.message.contains("some validation rules were not checked")).count();
    assert!(faults <= 1, "one fault is said {faults} times: {said}\n{yaml}");
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let (name, kubeconfig) = (self.name.clone(), self.kubeconfig.clone());
        // The test's own runtime may be ending: another thread has one of its own.
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let limit = std::time::Duration::from_secs(10);
            runtime.block_on(async { tokio::time::timeout(limit, clean(name, kubeconfig)).await })?
        });
        if let Ok(Err(e)) = deleted.join() {
            eprintln!("{}: not deleted: {e}", self.name);
        }
    }
}

async fn clean(name: String, kubeconfig: PathBuf) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let ours = ListParams::default().labels(&format!("{OWNER_LABEL}={name}"));
    Api::<AgentBlueprint>::all(client.clone()).delete_collection(&DeleteParams::default(), &ours).await?;
    Api::<AgentPolicy>::all(client.clone()).delete_collection(&DeleteParams::default(), &ours).await?;
    Api::<AgentResource>::all(client.clone()).delete_collection(&DeleteParams::default(), &ours).await?;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client);
    namespaces.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}
