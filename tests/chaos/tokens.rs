//! Tokens that were got while all this went on: collected like a thief would, and asked about like a service does.
//!
//! Invariant: a token counts as wrongly active only if nothing that it depends on has changed for longer than a replica
//! may know nothing, by the answers that our own writes got.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agentid::api::AgentIdentity;
use agentid::crypto::{StatusRef, inspect};
use agentid::net::fetch::{FetchOptions, Guard, Roots, post_form};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::crew::Crew;
use crate::dice::Dice;
use crate::model::{Model, Which};
use crate::schedule::Thing;
use crate::taken::{Taken, Verdict};
use crate::world::{ASKER, GROUP, INHERITED, ROLES, SYSTEM, audience, blueprint, name, namespace};

/// What `maxStale` says in the configuration of this run.
pub const MAX_STALE: Duration = Duration::from_secs(20);
/// On top of it: for a machine that is busy.
const SLACK: Duration = Duration::from_secs(10);
/// How late a revocation may show at a replica that no fault concerns. (Undisturbed, and on an idle machine, it is
/// below a second: `make bench ONLY=revoke_p99`.)
const CALM: Duration = Duration::from_secs(10);
const MOST: usize = 6000;
/// How long taking one may take.
const CALL: Duration = Duration::from_secs(20);
const BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What came of asking.
#[derive(Default)]
pub struct Asked {
    pub bought: usize,
    pub not_bought: BTreeMap<String, usize>,
    pub active: usize,
    pub inactive: usize,
    /// 503 and the like: a replica that does not know says so.
    pub no_answer: usize,
    pub unreachable: usize,
    /// Active although revoked long enough.
    pub violations: Vec<String>,
    /// The longest time after a revocation at which one was still said to be active.
    pub latest_active: Duration,
}

/// Collects and asks.
pub struct Thief {
    pub client: Client,
    pub crew: Arc<Crew>,
    pub model: Arc<Mutex<Model>>,
    pub taken: Mutex<Vec<Taken>>,
    seen: Mutex<BTreeSet<String>>,
    pub asked: Mutex<Asked>,
    asker: Mutex<String>,
}

impl Thief {
    pub async fn new(client: Client, crew: Arc<Crew>, model: Arc<Mutex<Model>>) -> Self {
        let asker = account_token(&client, crew.issuer(), SYSTEM, ASKER, None).await.unwrap();
        Self {
            client,
            crew,
            model,
            taken: Mutex::default(),
            seen: Mutex::default(),
            asked: Mutex::default(),
            asker: Mutex::new(asker),
        }
    }

    pub fn options(&self) -> FetchOptions {
        FetchOptions {
            roots: Roots::Pem(self.crew.ca().to_owned()),
            guard: Guard::Anywhere,
            limit: 8 << 20,
            timeout: Duration::from_secs(10),
            ..FetchOptions::default()
        }
    }

    pub fn url(&self, replica: usize, path: &str) -> String {
        format!("https://{}{path}", self.crew.addresses[replica])
    }

    /// Takes the tokens out of the Secrets of one namespace after the other, until told to stop.
    pub async fn read(&self, mut dice: Dice, stop: CancellationToken) {
        let namespaces = self.model.lock().unwrap().namespaces;
        while !stop.is_cancelled() {
            sleep(Duration::from_millis(250)).await;
            if self.taken.lock().unwrap().len() < MOST {
                let _ = timeout(CALL, self.read_namespace(dice.below(namespaces))).await;
            }
        }
    }

    async fn read_namespace(&self, ns: usize) -> Result<(), kube::Error> {
        let typed = ListParams::default().fields("type=agentid.dev/credentials");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &namespace(ns));
        let secrets = secrets.list(&typed).await?.items;
        // After the Secrets: what is recorded by now, was handed out.
        let agents: Api<AgentIdentity> = Api::namespaced(self.client.clone(), &namespace(ns));
        let agents = agents.list(&ListParams::default()).await?.items;
        let agents: BTreeMap<_, _> = agents.iter().map(|a| (a.metadata.name.clone(), a)).collect();
        let made: Vec<_> = {
            let model = self.model.lock().unwrap();
            let here = model.agents().filter(|(t, _)| Model::namespace_of(*t) == ns);
            here.map(|(thing, made)| (name(thing), thing, made.uid.clone())).collect()
        };
        for secret in secrets {
            let of =
                secret.metadata.name.as_deref().and_then(|n| n.strip_suffix("-agentid")).unwrap_or_default();
            let Some((_, thing, uid)) = made.iter().find(|(name, ..)| name == of) else { continue };
            let Some(agent) = agents.get(&Some(of.to_owned())) else { continue };
            for (file, content) in secret.data.into_iter().flatten() {
                let which = match &*file {
                    "base.jwt" => Which::Inherited,
                    _ => match file.strip_prefix('g').and_then(|f| f.strip_suffix(".jwt")?.parse().ok()) {
                        Some(g) => Which::Own(g),
                        None => continue,
                    },
                };
                self.keep(*thing, which, uid, agent, String::from_utf8_lossy(&content.0).into_owned());
            }
        }
        Ok(())
    }

    /// Buys tokens as pods at random, until told to stop.
    pub async fn shop(&self, mut dice: Dice, stop: CancellationToken) {
        while !stop.is_cancelled() {
            sleep(Duration::from_millis(100)).await;
            let pod = {
                let model = self.model.lock().unwrap();
                let all: Vec<_> = model.agents().filter(|(t, _)| matches!(t, Thing::Pod { .. })).collect();
                if all.is_empty() || self.taken.lock().unwrap().len() >= MOST {
                    continue;
                }
                let (thing, made) = all[dice.below(all.len())];
                (thing, made.uid.clone())
            };
            let _ = timeout(CALL, self.buy(pod.0, &pod.1, dice.below(2))).await;
        }
    }

    /// Buys a token as the pod.
    async fn buy(&self, thing: Thing, made: &str, replica: usize) -> Option<()> {
        let bought = self.token_of_pod(thing, made, replica).await;
        match bought {
            Ok(token) => {
                let agent = self.agent(thing).await?;
                self.keep(thing, Which::Inherited, made, &agent, token);
                self.asked.lock().unwrap().bought += 1;
            }
            Err(why) => *self.asked.lock().unwrap().not_bought.entry(why).or_default() += 1,
        }
        Some(())
    }

    /// A pod's token for what its blueprint grants.
    pub async fn token_of_pod(&self, thing: Thing, made: &str, replica: usize) -> Result<String, String> {
        let ns = Model::namespace_of(thing);
        let pod = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name(thing)),
            uid: Some(made.to_owned()),
        };
        let token =
            account_token(&self.client, self.crew.issuer(), &namespace(ns), "runner", Some(pod)).await;
        let assertion = token.map_err(|_| "no service-account token".to_owned())?;
        let group = ns / GROUP;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", BEARER),
            ("client_assertion", &assertion),
            ("resource", &audience(group, INHERITED.0)),
            ("grant", &format!("{}/base", blueprint(group, true))),
        ];
        let answer = post_form(&self.url(replica, "/token"), &form, &self.options()).await;
        let answer = answer.map_err(|_| "unreachable".to_owned())?;
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let why = || {
            let text = body["error_description"].as_str().unwrap_or_default();
            // The reason, where it begins with one.
            let reason = text.split(':').next().filter(|r| !r.contains(' ')).unwrap_or_default();
            format!("{} {} {reason}", answer.status.as_u16(), body["error"].as_str().unwrap_or_default())
        };
        body["access_token"].as_str().map(str::to_owned).ok_or_else(why)
    }

    async fn agent(&self, thing: Thing) -> Option<AgentIdentity> {
        let ns = namespace(Model::namespace_of(thing));
        Api::namespaced(self.client.clone(), &ns).get_opt(&name(thing)).await.ok()?
    }

    fn keep(&self, thing: Thing, which: Which, made: &str, agent: &AgentIdentity, token: String) {
        let Ok(inspected) = inspect(&token) else { return };
        let claims = inspected.claims;
        let own = |field: &str| claims["agentid.dev"][field].as_str().unwrap_or_default().to_owned();
        let Ok(Some(status)) = StatusRef::from_claims(&claims) else { return };
        let recorded = agent.status.iter().flat_map(|s| &s.grants).any(|g| {
            g.status_index
                .as_ref()
                .is_some_and(|i| u64::try_from(i.index) == Ok(status.index) && status.uri.ends_with(&i.list))
        });
        let has = |role: &str| {
            claims.get("roles").and_then(Value::as_array).is_some_and(|all| all.iter().any(|r| r == role))
        };
        let roles = ROLES.iter().enumerate().filter(|(_, r)| has(r)).fold(0, |bits, (i, _)| bits | 1 << i);
        let number = |claim: &str| claims.get(claim).and_then(Value::as_i64).unwrap_or_default();
        let taken = Taken {
            thing,
            which,
            made: made.to_owned(),
            agent: own("uid"),
            grant: own("grant"),
            roles,
            status,
            iat: number("iat"),
            exp: number("exp"),
            recorded,
            taken: Instant::now(),
            token,
        };
        // The agent of the object that we know, not of an earlier one of the name.
        if agent.metadata.uid.as_deref() == Some(&taken.agent) && self.is_of(&taken, agent) {
            let jti = claims.get("jti").and_then(Value::as_str).unwrap_or_default().to_owned();
            if self.seen.lock().unwrap().insert(jti) {
                self.taken.lock().unwrap().push(taken);
            }
        }
    }

    fn is_of(&self, taken: &Taken, agent: &AgentIdentity) -> bool {
        match taken.thing {
            Thing::Agent { .. } => taken.agent == taken.made,
            _ => agent.metadata.owner_references.iter().flatten().any(|o| o.uid == taken.made),
        }
    }

    /// Asks about tokens at random, until told to stop.
    pub async fn ask(&self, mut dice: Dice, began: Instant, stop: CancellationToken) {
        while !stop.is_cancelled() {
            sleep(Duration::from_millis(25)).await;
            let taken = {
                let all = self.taken.lock().unwrap();
                if all.is_empty() {
                    continue;
                }
                all[dice.below(all.len())].clone()
            };
            self.ask_one(&taken, dice.below(2), began).await;
        }
    }

    async fn ask_one(&self, taken: &Taken, replica: usize, began: Instant) {
        // Of the moment before the question: what is revoked meanwhile may be active.
        let (verdict, settled) = {
            let model = self.model.lock().unwrap();
            (taken.verdict(&model), taken.settled_since(&model))
        };
        let calm = self.crew.calm_since(replica, began);
        let asked_at = Instant::now();
        let answer = self.introspect(taken, replica).await;
        let mut asked = self.asked.lock().unwrap();
        match answer {
            None => asked.unreachable += 1,
            Some((200, false)) => asked.inactive += 1,
            Some((200, true)) => {
                asked.active += 1;
                let (Verdict::Revoked, Some(since)) = (verdict, settled) else { return };
                let late = asked_at.saturating_duration_since(since);
                asked.latest_active = asked.latest_active.max(late);
                let calm =
                    calm.is_some_and(|from| asked_at.saturating_duration_since(from.max(since)) > CALM);
                if late > MAX_STALE + SLACK || calm {
                    let told = taken.told();
                    asked
                        .violations
                        .push(format!("{told}: active at replica {replica} {late:?} after its end"));
                }
            }
            Some(_) => asked.no_answer += 1,
        }
    }

    pub async fn introspect(&self, taken: &Taken, replica: usize) -> Option<(u16, bool)> {
        let asker = self.asker.lock().unwrap().clone();
        let form = [("client_assertion_type", BEARER), ("client_assertion", &asker), ("token", &taken.token)];
        let answer = post_form(&self.url(replica, "/introspect"), &form, &self.options()).await.ok()?;
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        Some((answer.status.as_u16(), body["active"] == true))
    }
}

/// A service account's token for the issuer.
pub async fn account_token(
    client: &Client,
    issuer: &str,
    namespace: &str,
    account: &str,
    bound: Option<BoundObjectReference>,
) -> Result<String, kube::Error> {
    let spec = TokenRequestSpec {
        audiences: vec![issuer.to_owned()],
        bound_object_ref: bound,
        expiration_seconds: Some(7200),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.unwrap().token)
}
