//! Who wrote when, by the audit log.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::common::ControlPlane;
use crate::common::audit::{self, Entry, Mark};
use crate::scene::Member;

/// The operators that led, in their order.
pub struct Terms {
    mark: Mark,
    names: Vec<String>,
}

/// What an operator sent that arrived after its successor's first write.
#[derive(Debug, Default)]
pub struct Late {
    /// Refused by a precondition, or because the object is there or gone: how many, by verb and code. A patch is a 409
    /// only for its resourceVersion.
    pub refused: BTreeMap<String, usize>,
    /// Secrets that were created although their agent is gone: no precondition speaks of another object.
    pub created: Vec<String>,
    /// Everything else.
    pub harmful: Vec<String>,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refused, created, harmful } = self;
        write!(
            f,
            "refused {refused:?}, {} Secrets created, {} with effect {harmful:?}",
            created.len(),
            harmful.len()
        )
    }
}

impl Terms {
    pub fn new(mark: Mark, first: &str) -> Self {
        Self { mark, names: vec![first.to_owned()] }
    }

    pub fn begin(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }

    /// What an operator sent, Events apart: whoever stands by tells what it can't read, too.
    fn writes(&self, cp: &ControlPlane, name: &str) -> Vec<Entry> {
        let user = Member::user(name);
        audit::since(cp, self.mark, |e| e.user.username == user && !e.is_of("events"))
    }

    /// When the first write of an operator was answered, its taking of the Lease apart.
    pub fn first_write(&self, cp: &ControlPlane, name: &str) -> Timestamp {
        let writes = self.writes(cp, name);
        writes.iter().find(|e| e.succeeded() && !e.is_of("leases")).expect("a write").answered
    }

    /// What came late of an operator whose successor is `next`.
    pub fn late(&self, cp: &ControlPlane, name: &str, next: &str) -> Late {
        let taken = self.writes(cp, next).into_iter().find(Entry::succeeded).expect("a write").received;
        let mut late = Late::default();
        for entry in self.writes(cp, name).into_iter().filter(|e| e.answered > taken) {
            let object = entry.object_ref.as_ref().expect("an object");
            let said = format!(
                "{} {} {}/{} {} at {}",
                entry.verb,
                object.resource,
                object.namespace,
                object.name,
                object.subresource,
                entry.answered
            );
            match entry.succeeded() {
                false => {
                    let code = entry.response_status.as_ref().map_or(0, |r| r.code);
                    *late.refused.entry(format!("{} {code}", entry.verb)).or_default() += 1;
                }
                true if entry.is_of("secrets") && entry.verb == "create" => late.created.push(said),
                true => late.harmful.push(said),
            }
        }
        late
    }

    /// Each operator wrote only before the next one's first write, and each that led wrote something.
    pub fn check(&self, cp: &ControlPlane) {
        for pair in self.names.windows(2) {
            let late = self.late(cp, &pair[0], &pair[1]);
            let own = self.writes(cp, &pair[0]).iter().filter(|e| e.succeeded()).count();
            println!("{}: {own} writes; late: {late}", pair[0]);
            assert!(own > 10, "{} led", pair[0]);
            assert!(late.harmful.is_empty(), "{} wrote while {} led: {late:#?}", pair[0], pair[1]);
        }
    }
}
