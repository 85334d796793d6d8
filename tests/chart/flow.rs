//! That the API server puts the requests of the two processes into the chart's FlowSchemas, as its answers say.

use std::path::Path;
use std::time::Duration;

use kube::api::{Api, DynamicObject};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};

use crate::common::{ControlPlane, eventually};
use crate::helm::NAMESPACE;

const LATER: Duration = Duration::from_secs(60);
/// Bears the UID of the FlowSchema that a request was put into.
const HEADER: &str = "x-kubernetes-pf-flowschema-uid";

async fn client_of(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn uid(control_plane: &ControlPlane, name: &str) -> String {
    let kind = GroupVersionKind::gvk("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema");
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::all_with(control_plane.client().await, &resource);
    api.get(name).await.unwrap().metadata.uid.unwrap()
}

/// A request of an account's goes by this FlowSchema.
async fn goes_by(control_plane: &ControlPlane, kubeconfig: &Path, path: &str, schema: &str) {
    let (client, wanted) = (client_of(kubeconfig).await, uid(control_plane, schema).await);
    // The API server takes note of a new one in its own time.
    eventually(format!("{path} goes by FlowSchema {schema}"), LATER, || async {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let answer = client.send(request).await.map_err(|e| e.to_string())?;
        match answer.headers().get(HEADER) {
            Some(found) if found.as_bytes() == wanted.as_bytes() => Ok(()),
            other => Err(format!("{other:?}, not {wanted}")),
        }
    })
    .await;
}

/// What both processes ask, and the Lease by a way of its own.
pub async fn check(control_plane: &ControlPlane, operator: &Path, serve: &Path) {
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/agentid-operator");
    goes_by(control_plane, operator, &lease, "agentid-leader-election").await;
    for kubeconfig in [operator, serve] {
        goes_by(control_plane, kubeconfig, "/api/v1/namespaces?limit=1", "agentid").await;
        goes_by(control_plane, kubeconfig, "/version", "agentid").await;
    }
}
