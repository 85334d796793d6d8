//! A world that is being put together from what is listed.
//!
//! Invariant: a source that could not be listed says nothing, unless it can change no grant and may not be seen.

use jiff::Timestamp;
use serde_json::Value;

use super::Unseen;
use crate::cluster::client::{CallError, Class, shape_error};
use crate::cluster::feed::Skipped;
use crate::cluster::wire::Wire;
use crate::domain::{Lost, Object, Origin, Source, Unfit, World};

/// What is being put together.
pub(super) struct Taking {
    pub(super) world: World,
    pub(super) unseen: Vec<Unseen>,
    pub(super) skipped: Vec<Skipped>,
    /// The agent names a blueprint.
    pub(super) of_blueprint: bool,
}

impl Taking {
    pub(super) fn object(&mut self, source: &Source, object: Result<Object, Unfit>) {
        match object {
            Ok(object) => self.world.take(object, Origin::Watch),
            Err(unfit) => tracing::warn!(%source, %unfit, "an object is left out"),
        }
    }

    /// A source that was listed completely.
    pub(super) fn listed(&mut self, source: &Source) {
        self.world.end_list(source, Timestamp::now());
    }

    /// A source that could not be listed. Who asks may see less than the operator does: what changes no grant
    /// is then taken for empty, and said.
    pub(super) fn failed(&mut self, source: Source, error: CallError) {
        let changes_nothing = matches!(source, Source::Secrets | Source::Trust)
            || (source == Source::Blueprints && !self.of_blueprint);
        let assumed_empty = changes_nothing && error.class() == Class::Forbidden;
        if assumed_empty {
            self.listed(&source);
        } else {
            self.world.lost(&source, lost(&error));
        }
        self.unseen.push(Unseen { source, error, assumed_empty });
    }
}

fn lost(error: &CallError) -> Lost {
    match error.class() {
        Class::NotFound => Lost::NotServed,
        Class::Forbidden => Lost::Forbidden,
        _ => Lost::Unreachable,
    }
}

impl Taking {
    /// A source of which one object by name is all that is needed.
    pub(super) fn one<T: Wire>(&mut self, source: &Source, found: Result<Option<Value>, CallError>) {
        let found = match found {
            Ok(Some(value)) => match serde_json::from_value::<T>(value) {
                Ok(object) => Ok(Some(object)),
                Err(e) => Err(CallError::new(Class::Server, shape_error(&e))),
            },
            Ok(None) => Ok(None),
            Err(e) => Err(e),
        };
        self.read(source, found);
    }

    pub(super) fn read<T: Wire>(&mut self, source: &Source, found: Result<Option<T>, CallError>) {
        match found {
            Ok(found) => {
                if let Some(object) = found {
                    self.object(source, object.object(source));
                }
                self.listed(source);
            }
            Err(error) => self.failed(source.clone(), error),
        }
    }
}
