//! The world that watches feed and others ask.
//!
//! Invariant: a change is told after it was made, never under the lock; the first proof that the cluster was set back
//! stands.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::api::Configuration;
use crate::cluster::watch::Rewound;
use crate::domain::{Object, Origin, View, World};

/// The world, shared between the watches that feed it and those who ask it.
#[derive(Debug)]
pub struct SharedWorld {
    world: RwLock<World>,
    changed: Notify,
    /// When the first change was told that nobody has taken up yet.
    since: Mutex<Option<Instant>>,
    rewound: watch::Sender<Option<Rewound>>,
}

impl SharedWorld {
    /// An empty world of a view.
    #[must_use]
    pub fn new(config: Configuration, view: View) -> Arc<Self> {
        let world = RwLock::new(World::of(config, view));
        let rewound = watch::Sender::new(None);
        Arc::new(Self { world, changed: Notify::new(), since: Mutex::default(), rewound })
    }

    /// The world to ask. A panic of another holder does not spread: what it held is still a picture.
    pub fn read(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world to change; [`Self::tell`] afterwards.
    pub fn write(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the answer to a write in.
    pub fn answer(&self, object: Object) {
        self.write().take(object, Origin::Answer);
        self.tell();
    }

    /// Tells that something may have become dirty.
    pub fn tell(&self) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.changed.notify_one();
    }

    /// Waits until something may have become dirty.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits for the proof that this is a picture of what never was: whoever acts on it must end.
    pub async fn until_rewound(&self) -> Rewound {
        let mut rewound = self.rewound.subscribe();
        match rewound.wait_for(Option::is_some).await.map(|r| r.clone()) {
            Ok(Some(rewound)) => rewound,
            // The sender is ours.
            _ => std::future::pending().await,
        }
    }

    /// The proof, if there is one.
    #[must_use]
    pub fn rewound(&self) -> Option<Rewound> {
        self.rewound.borrow().clone()
    }

    /// Notes the proof.
    pub(super) fn give_up(&self, proof: Rewound) {
        self.rewound.send_if_modified(|rewound| {
            let first = rewound.is_none();
            if first {
                tracing::error!("{proof}");
                *rewound = Some(proof);
            }
            first
        });
    }

    /// Since when, at the longest, what is dirty now has been so; to be asked by who takes it up, before it does.
    pub fn taken_up(&self) -> Instant {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner).take();
        since.unwrap_or_else(Instant::now)
    }
}
