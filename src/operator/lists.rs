//! The open status list of this leader's term, and what the Lease says of it.
//!
//! Invariant: the Lease names a list before the first of its indexes is handed out, and names another only once
//! every index of the one before is recorded or abandoned.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;

use super::context::Context;
use crate::cluster::lease::{LeaseError, LeaseHandle};
use crate::cluster::wire::{STATUS_LIST_ANNOTATION, write_mark};
use crate::domain::ListId;
use crate::domain::statuslist::{HandOut, Mark};

/// How often the mark is looked at; it is written with the Lease's next renewal.
const PERIOD: Duration = Duration::from_millis(500);

/// Why no list could be opened.
#[derive(Debug, Error)]
pub enum ListError {
    /// The system gave no random bytes.
    #[error("no random bytes to name a status list by")]
    Random,
    /// The Lease is not ours.
    #[error("the status list can't be noted on the Lease: {0}")]
    Lease(#[from] LeaseError),
}

fn annotations(mark: &Mark) -> BTreeMap<String, String> {
    BTreeMap::from([(STATUS_LIST_ANNOTATION.to_owned(), write_mark(mark))])
}

fn name() -> Result<ListId, ListError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ListError::Random)?;
    Ok(ListId(u128::from_be_bytes(bytes)))
}

/// Opens the term's first list.
///
/// # Errors
/// [`ListError`].
pub(super) async fn open(lease: &LeaseHandle, capacity: u32) -> Result<HandOut, ListError> {
    let list = name()?;
    lease.write_annotations(annotations(&Mark { list, mark: 0, version: 0 })).await?;
    tracing::info!(%list, "a status list is open");
    Ok(HandOut::open(list, capacity))
}

/// Keeps the Lease's note while this process leads, and opens the next list when one is full.
pub(super) async fn keep(cx: &Context, lease: &LeaseHandle) {
    let mut noted = None;
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = Timestamp::now();
        let (mark, spent) = {
            let world = cx.world.read();
            let mut indexes = cx.indexes();
            indexes.forget_gone(&world);
            (indexes.mark(now), indexes.is_spent(now))
        };
        if spent {
            match follow(lease).await {
                Ok(list) => {
                    cx.indexes().reopen(list);
                    tracing::info!(%list, "a status list is full and is followed by another");
                }
                Err(error) => tracing::warn!(%error, "no further status list could be opened"),
            }
        } else if noted != Some(mark) {
            lease.set_annotations(annotations(&mark));
            noted = Some(mark);
        }
    }
}

async fn follow(lease: &LeaseHandle) -> Result<ListId, ListError> {
    let list = name()?;
    lease.write_annotations(annotations(&Mark { list, mark: 0, version: 0 })).await?;
    Ok(list)
}
