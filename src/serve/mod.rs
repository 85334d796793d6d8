//! The token service over HTTP: metadata, tokens, introspection, status lists, verification for proxies.
//!
//! Invariants: it writes nothing into the cluster but reviews; every answer comes from the same decide as the
//! operator's; a World staler than `maxStale` fails closed; no leader is needed.

pub mod callers;
mod client;
mod credentials;
mod fault;
mod form;
mod health;
mod introspect;
mod keysets;
pub mod lists;
pub mod metadata;
mod metrics;
mod ours;
mod proxy;
mod router;
mod state;
mod token;
pub mod users;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use form::{Form, parse_form};
pub use proxy::AGENT_HEADERS;

use self::callers::{ApiServer, Callers};
use self::health::Tells;
use self::lists::Lists;
use self::metrics::Metrics;
use self::router::{Proxies, Public};
use self::state::State;
use self::users::UserIssuers;
use crate::api::Configuration;
use crate::cluster::certstore::ServingStore;
use crate::cluster::client::{ClientError, ClientOptions, connect};
use crate::cluster::discovery::Discovery;
use crate::cluster::feed::{Report, SharedWorld, Skipped, feed_service};
use crate::cluster::keystore::{KeyStore, LeaseNote};
use crate::cluster::keywatch::{KeyState, KeyWatcher};
use crate::cluster::lease::LEASE_NAME;
use crate::cluster::reviews::Reviews;
use crate::cluster::watch::Rewound;
use crate::domain::{Key, View};
use crate::issue::{Audit, Issuer};
use crate::net::admin::{self, AdminError};
use crate::net::listen::{Bounds, serve};
use crate::net::rate::Limiter;
use crate::net::tls::{Tls, TlsError};

/// Sources and agents whose rates are remembered at once.
const RATED: usize = 100_000;
/// How often the serving Secret is looked at.
const CERTIFICATE_POLL: Duration = Duration::from_secs(2);
/// How long the first certificate may be waited for before that is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the token service is started.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub config: Configuration,
    /// Which cluster.
    pub client: ClientOptions,
    /// The namespace of the key Secrets and the operator's Lease.
    pub namespace: String,
    /// Where the service is served, over HTTPS.
    pub listen: SocketAddr,
    /// Where proxies ask, over plain HTTP; `None`: nowhere.
    pub verify_listen: Option<SocketAddr>,
    /// The admin port.
    pub admin_listen: SocketAddr,
    /// A certificate chain and its key (PEM) in the place of the self-managed ones.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Why the service did not start, or ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No admin port.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A port that can't be had.
    #[error("port {address}: {source}; choose another with {flag}")]
    Port {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
        /// The flag that names it.
        flag: &'static str,
    },
    /// The certificate given by files.
    #[error("the certificate: {0}")]
    Tls(#[from] TlsError),
    /// What is known of the cluster never was.
    #[error(transparent)]
    Rewound(#[from] Rewound),
}

/// Runs until a signal, or until the cluster turns out to be set back to an older state; then lets the requests under
/// way come to their end.
///
/// # Errors
/// [`ServeError`].
pub async fn run(options: Options) -> Result<(), ServeError> {
    let Options { config, client, namespace, listen, verify_listen, admin_listen, certificate } = options;
    let clients = connect(&client).await?;
    let config = clients.complete(config);
    let stop = CancellationToken::new();
    tokio::spawn(crate::net::signal::cancel_on_signal(stop.clone()));
    tracing::info!(server = %clients.server, %namespace, issuer = %config.issuer, version = env!("CARGO_PKG_VERSION"), "starting");
    let public = bind(listen, "--listen").await?;
    let proxies = match verify_listen {
        Some(address) => Some(bind(address, "--verify-listen").await?),
        None => None,
    };
    let admin = admin::bind(admin_listen).await?;

    let metrics = Arc::new(Metrics::default());
    let world = SharedWorld::new(config.clone(), View::Service);
    let lease = Key::new(namespace.as_str(), LEASE_NAME);
    feed_service(&clients.watch, &world, &report(), &lease, &stop);
    {
        let (world, stop) = (world.clone(), stop.clone());
        tokio::spawn(async move {
            world.until_rewound().await;
            stop.cancel();
        });
    }

    let (key_sender, keys) = watch::channel(KeyState::Loading);
    let watcher = KeyWatcher::new(
        KeyStore::new(clients.write.clone(), &namespace),
        LeaseNote::new(clients.write.clone(), &namespace, LEASE_NAME),
        &config,
    );
    {
        let stop = stop.clone();
        tokio::spawn(async move { watcher.run(&key_sender, &stop).await });
    }
    let rates = config.serving.rate_limits.clone();
    let state = Arc::new(State {
        issuer: Issuer {
            issuer: config.issuer.as_str().into(),
            trust_domain: config.trust_domain.as_str().into(),
            audit: Audit::stdout(),
        },
        callers: Callers::new(
            ApiServer {
                discovery: Discovery::new(clients.write.clone()),
                reviews: Reviews::new(clients.write.clone()),
            },
            &config.issuer,
        ),
        users: UserIssuers::new(&config),
        reviews: Reviews::new(clients.write.clone()),
        lists: Lists::new(&config),
        metrics: metrics.clone(),
        per_source: Limiter::new(rates.per_source.per_second, rates.per_source.burst, RATED),
        per_agent: Limiter::new(rates.per_agent.per_second, rates.per_agent.burst, RATED),
        world: world.clone(),
        keys,
        ca: RwLock::default(),
        tls: OnceLock::new(),
        calls: clients.calls.clone(),
        config,
    });
    {
        // So that the first caller needn't wait for the cluster's keys.
        let state = state.clone();
        tokio::spawn(async move { state.callers.prepare().await });
    }
    tokio::spawn(admin::serve(admin, Arc::new(Tells(state.clone())), stop.clone()));
    {
        let (state, stop) = (state.clone(), stop.clone());
        tokio::spawn(async move { state.lists.run(state.world.clone(), stop).await });
    }
    let tls = match &certificate {
        Some((chain, key)) => {
            let tls = Tls::from_files(chain, key)?;
            let (watched, chain, key, stop) = (tls.clone(), chain.clone(), key.clone(), stop.clone());
            tokio::spawn(async move { watched.watch_files(chain, key, stop).await });
            Some(tls)
        }
        None => certificate_of_secret(&state, &clients.write, &namespace, &stop).await,
    };
    // Without a certificate it was told to stop before one came.
    let Some(tls) = tls else { return ended(&world) };
    let _ = state.tls.set(tls.clone());
    let bounds = Bounds::default();
    let for_proxies = proxies.map(|listener| {
        let handler = Arc::new(Proxies(state.clone()));
        tokio::spawn(serve(listener, None, bounds, handler, metrics.proxies.clone(), stop.clone()))
    });
    tracing::info!(%listen, "serving");
    let handler = Arc::new(Public(state.clone()));
    serve(public, Some(tls), bounds, handler, metrics.public.clone(), stop.clone()).await;
    if let Some(for_proxies) = for_proxies {
        let _ = for_proxies.await;
    }
    state.issuer.audit.flush().await;
    tracing::info!("stopped");
    ended(&world)
}

/// Why it was told to stop.
fn ended(world: &SharedWorld) -> Result<(), ServeError> {
    world.rewound().map_or(Ok(()), |proof| Err(proof.into()))
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Port { address, source, flag })
}

/// The self-managed certificate: waited for at first, then followed. `None` if told to stop meanwhile.
async fn certificate_of_secret(
    state: &Arc<State>,
    client: &kube::Client,
    namespace: &str,
    stop: &CancellationToken,
) -> Option<Tls> {
    let store = ServingStore::new(client.clone(), namespace);
    let began = std::time::Instant::now();
    let mut told = false;
    let (tls, mut seen) = loop {
        let problem = match store.fetch().await {
            Ok(Some(found)) => match Tls::new(&found.chain_pem, found.key_pem.expose()) {
                Ok(tls) => {
                    state.set_ca(found.ca_pem);
                    break (tls, found.resource_version);
                }
                Err(e) => e.to_string(),
            },
            Ok(None) => "the operator has not made it yet".to_owned(),
            Err(e) => e.to_string(),
        };
        if began.elapsed() > PATIENCE && !told {
            tracing::warn!(%problem, "no serving certificate yet; is the operator running in this namespace?");
            told = true;
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
    };
    let (following, state, stop) = (tls.clone(), state.clone(), stop.clone());
    tokio::spawn(async move {
        let follow = async {
            loop {
                tokio::time::sleep(CERTIFICATE_POLL).await;
                match store.resource_version().await {
                    Ok(Some(version)) if version == seen => continue,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "the serving certificate can't be looked at");
                        continue;
                    }
                }
                let Ok(Some(found)) = store.fetch().await else { continue };
                match following.replace(&found.chain_pem, found.key_pem.expose()) {
                    Ok(()) => {
                        tracing::info!("a new serving certificate");
                        state.set_ca(found.ca_pem);
                    }
                    Err(error) => tracing::warn!(%error, "the new serving certificate can't be used"),
                }
                seen = found.resource_version;
            }
        };
        stop.run_until_cancelled(follow).await;
    });
    Some(tls)
}

/// Objects that can't be read are told in the log; the operator tells them in an Event.
fn report() -> Report {
    Arc::new(|skipped: Skipped| {
        let Skipped { source, key, problem, .. } = skipped;
        tracing::warn!(%source, object = %key, %problem, "an object can't be read and is skipped");
    })
}
