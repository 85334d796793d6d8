//! Who should hold what: from the answers to our own writes, in the fewest words, and knowing nothing of how agentid
//! decides.
//!
//! Invariant: a thing is taken for settled only while no write of ours about it is under way.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::schedule::{Deed, Event, Thing};
use crate::world::{ALL_ROLES, DENIED, GRANTS, GROUP, INHERITED, RESOURCES, Tier, of_group};

/// What we made: an AgentIdentity, or a pod or Deployment that one is made for.
#[derive(Clone, Debug)]
pub struct Made {
    pub uid: String,
    pub tier: Option<Tier>,
    pub suspended: bool,
}

/// Which grant of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    Own(usize),
    Inherited,
}

/// What an agent should have of one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub which: Which,
    /// A bit for each role that it holds; of the cluster's resource none.
    pub roles: u8,
    /// `Held`, `Narrowed` or `Refused`.
    pub state: &'static str,
    /// Why not all of it.
    pub reason: Option<&'static str>,
    /// The file, where it is delivered and held.
    pub file: Option<String>,
}

/// When we last touched a thing.
#[derive(Clone, Copy, Debug)]
struct Touch {
    writes_under_way: u32,
    at: Instant,
    /// When the last write began that could have taken something away.
    narrowed: Option<Instant>,
}

/// All that we wrote.
pub struct Model {
    pub namespaces: usize,
    made: BTreeMap<Thing, Made>,
    grants: BTreeMap<Thing, String>,
    allow: BTreeMap<Thing, u8>,
    denied: BTreeMap<Thing, bool>,
    stopped: BTreeMap<Thing, bool>,
    touched: BTreeMap<Thing, Touch>,
    began: Instant,
}

impl Model {
    pub fn new(namespaces: usize, grants: Vec<(Thing, String)>) -> Self {
        let allow = (0..namespaces)
            .flat_map(|ns| (0..RESOURCES.len()).map(move |r| (Thing::Allow { ns, r }, ALL_ROLES)))
            .collect();
        Self {
            namespaces,
            made: BTreeMap::new(),
            grants: grants.into_iter().collect(),
            allow,
            denied: BTreeMap::new(),
            stopped: BTreeMap::new(),
            touched: BTreeMap::new(),
            began: Instant::now(),
        }
    }

    /// A write is about to be tried.
    pub fn begin(&mut self, event: &Event) {
        let narrows = match event.deed {
            Deed::Create { .. } => matches!(event.thing, Thing::Deny { .. }),
            Deed::Delete { .. } => !matches!(event.thing, Thing::Deny { .. }),
            Deed::Suspend(on) => on,
            Deed::Allow(roles) => self.allowed(event.thing) & !roles != 0,
        };
        let now = Instant::now();
        let touch =
            self.touched.entry(event.thing).or_insert(Touch { writes_under_way: 0, at: now, narrowed: None });
        touch.writes_under_way += 1;
        if narrows {
            touch.narrowed = Some(now);
        }
    }

    /// It was answered; `uid` of what was created.
    pub fn done(&mut self, event: &Event, uid: Option<String>) {
        let thing = event.thing;
        match (thing, event.deed) {
            (Thing::Grant { .. }, Deed::Create { .. }) => {
                self.grants.insert(thing, uid.unwrap());
            }
            (Thing::Grant { .. }, _) => {
                self.grants.remove(&thing);
            }
            (Thing::Deny { .. }, deed) => {
                self.denied.insert(thing, matches!(deed, Deed::Create { .. }));
            }
            (_, Deed::Create { gold }) => {
                let tier = matches!(thing, Thing::Agent { .. }).then_some(if gold {
                    Tier::Gold
                } else {
                    Tier::Silver
                });
                self.made.insert(thing, Made { uid: uid.unwrap(), tier, suspended: false });
            }
            (_, Deed::Delete { .. }) => {
                self.made.remove(&thing);
            }
            (Thing::Agent { .. }, Deed::Suspend(on)) => {
                self.made.get_mut(&thing).unwrap().suspended = on;
            }
            (_, Deed::Suspend(on)) => {
                self.stopped.insert(thing, on);
            }
            (_, Deed::Allow(roles)) => {
                self.allow.insert(thing, roles);
            }
        }
        let touch = self.touched.get_mut(&thing).unwrap();
        touch.writes_under_way -= 1;
        touch.at = Instant::now();
    }

    /// The roles that each namespace of a resource's group may have, as if this were written.
    pub fn allow_of_group(&self, thing: Thing, roles: u8) -> Vec<u8> {
        let Thing::Allow { ns, r } = thing else { unreachable!("{thing:?}") };
        let first = ns / GROUP * GROUP;
        (first..first + of_group(ns / GROUP, self.namespaces))
            .map(|n| if n == ns { roles } else { self.allowed(Thing::Allow { ns: n, r }) })
            .collect()
    }

    fn allowed(&self, thing: Thing) -> u8 {
        self.allow.get(&thing).copied().unwrap_or_default()
    }

    /// Everything that should be an agent, and is there.
    pub fn agents(&self) -> impl Iterator<Item = (Thing, &Made)> {
        self.made.iter().map(|(t, m)| (*t, m))
    }

    pub fn agent(&self, thing: Thing) -> Option<&Made> {
        self.made.get(&thing)
    }

    pub fn grant(&self, ns: usize, g: usize) -> Option<&str> {
        self.grants.get(&Thing::Grant { ns, g }).map(String::as_str)
    }

    pub const fn namespace_of(thing: Thing) -> usize {
        match thing {
            Thing::Agent { ns, .. }
            | Thing::Pod { ns, .. }
            | Thing::Workload { ns, .. }
            | Thing::Grant { ns, .. }
            | Thing::Allow { ns, .. }
            | Thing::Deny { ns }
            | Thing::Stop { ns } => ns,
            Thing::Blueprint { group, .. } => group * GROUP,
        }
    }

    fn blueprint_of(thing: Thing) -> Option<Thing> {
        let group = Self::namespace_of(thing) / GROUP;
        match thing {
            Thing::Pod { .. } => Some(Thing::Blueprint { group, of_pods: true }),
            Thing::Workload { .. } => Some(Thing::Blueprint { group, of_pods: false }),
            _ => None,
        }
    }

    fn on(&self, thing: Thing) -> bool {
        self.stopped.get(&thing).copied().unwrap_or_default()
    }

    /// Whether the agent's credentials are taken away as a whole.
    pub fn is_suspended(&self, thing: Thing, made: &Made) -> bool {
        let ns = Self::namespace_of(thing);
        made.suspended
            || (made.tier == Some(Tier::Silver) && self.on(Thing::Stop { ns }))
            || Self::blueprint_of(thing).is_some_and(|b| self.on(b))
    }

    /// What an agent should have of each grant that is about it, whether or not it is suspended.
    pub fn dues(&self, thing: Thing, made: &Made) -> Vec<Due> {
        let ns = Self::namespace_of(thing);
        let own = (0..GRANTS.len())
            .filter(|g| self.grant(ns, *g).is_some() && GRANTS[*g].tier.is_none_or(|t| made.tier == Some(t)));
        let inherited = Self::blueprint_of(thing).map(|_| Which::Inherited);
        own.map(Which::Own).chain(inherited).map(|which| self.due(thing, which)).collect()
    }

    fn due(&self, thing: Thing, which: Which) -> Due {
        let ns = Self::namespace_of(thing);
        let (resource, asked, delivered) = match which {
            Which::Own(g) => (GRANTS[g].resource, GRANTS[g].roles, GRANTS[g].delivered),
            Which::Inherited => (Some(INHERITED.0), INHERITED.1, matches!(thing, Thing::Workload { .. })),
        };
        let Some(r) = resource else {
            return Due { which, roles: 0, state: "Held", reason: None, file: None };
        };
        let offered = self.allowed(Thing::Allow { ns, r });
        let allowed = asked & offered;
        let denied = self.denied.get(&Thing::Deny { ns }).copied().unwrap_or_default();
        let left = if denied { allowed & !DENIED } else { allowed };
        // What a policy has taken is said before what the resource's owner does not give.
        let reason = if offered == 0 {
            Some("NamespaceNotAllowed")
        } else if allowed == 0 {
            Some("RoleNotAllowed")
        } else if left != allowed {
            Some("PolicyDenied")
        } else if allowed != asked {
            Some("RoleNotAllowed")
        } else {
            None
        };
        let state = match reason {
            _ if left == 0 => "Refused",
            Some(_) => "Narrowed",
            None => "Held",
        };
        let file = (delivered && left != 0).then(|| match which {
            Which::Own(g) => format!("g{g}.jwt"),
            Which::Inherited => "base.jwt".to_owned(),
        });
        Due { which, roles: left, state, reason, file }
    }

    /// The things on which it depends what an agent holds of a grant.
    fn inputs(thing: Thing, which: Which) -> Vec<Thing> {
        let ns = Self::namespace_of(thing);
        let resource = match which {
            Which::Own(g) => GRANTS[g].resource,
            Which::Inherited => Some(INHERITED.0),
        };
        let mut all = vec![thing, Thing::Deny { ns }, Thing::Stop { ns }];
        all.extend(resource.map(|r| Thing::Allow { ns, r }));
        all.extend(Self::blueprint_of(thing));
        if let Which::Own(g) = which {
            all.push(Thing::Grant { ns, g });
        }
        all
    }

    /// Since when nothing of what it depends on has changed; `None` while a write is under way.
    pub fn settled_since(&self, thing: Thing, which: Which) -> Option<Instant> {
        let mut since = self.began;
        for touch in Self::inputs(thing, which).iter().filter_map(|t| self.touched.get(t)) {
            if touch.writes_under_way > 0 {
                return None;
            }
            since = since.max(touch.at);
        }
        Some(since)
    }

    /// When something last began to be taken away of what it depends on.
    pub fn narrowed_since(&self, thing: Thing, which: Which) -> Option<Instant> {
        Self::inputs(thing, which).iter().filter_map(|t| self.touched.get(t)?.narrowed).max()
    }
}
