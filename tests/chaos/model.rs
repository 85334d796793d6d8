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
            (Thing::Namespace { ns }, _) => {
                self.made.retain(|thing, _| Self::namespace_of(*thing) != ns);
                self.grants.retain(|thing, _| Self::namespace_of(*thing) != ns);
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
            | Thing::Stop { ns }
            | Thing::Namespace { ns } => ns,
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
        let mut all = vec![thing, Thing::Deny { ns }, Thing::Stop { ns }, Thing::Namespace { ns }];
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn after(deeds: &[(Thing, Deed)]) -> Model {
        let grants = (0..GRANTS.len()).filter(|g| GRANTS[*g].from_start);
        let mut model = Model::new(4, grants.map(|g| (Thing::Grant { ns: 1, g }, format!("u{g}"))).collect());
        for (thing, deed) in deeds {
            let event = Event { at: Duration::ZERO, thing: *thing, deed: *deed };
            model.begin(&event);
            let uid = matches!(deed, Deed::Create { .. }).then(|| "uid".to_owned());
            model.done(&event, uid);
        }
        model
    }

    fn said(model: &Model, thing: Thing) -> Vec<(Which, u8, &'static str, Option<&'static str>)> {
        let made = model.agent(thing).unwrap();
        model.dues(thing, made).into_iter().map(|d| (d.which, d.roles, d.state, d.reason)).collect()
    }

    const GOLD: Thing = Thing::Agent { ns: 1, n: 1 };
    const SILVER: Thing = Thing::Agent { ns: 1, n: 2 };
    const POD: Thing = Thing::Pod { ns: 1, n: 3 };
    const MADE: [(Thing, Deed); 3] = [
        (GOLD, Deed::Create { gold: true }),
        (SILVER, Deed::Create { gold: false }),
        (POD, Deed::Create { gold: false }),
    ];

    #[test]
    fn what_is_due_is_asked_and_allowed_and_not_denied() {
        let held = |which, roles| (which, roles, "Held", None);
        let model = after(&MADE);
        assert_eq!(
            said(&model, GOLD),
            [
                held(Which::Own(0), 0b011),
                held(Which::Own(1), 0b001),
                held(Which::Own(2), 0b110),
                held(Which::Own(4), 0)
            ]
        );
        assert_eq!(said(&model, SILVER), [held(Which::Own(0), 0b011), held(Which::Own(2), 0b110)]);
        assert_eq!(
            said(&model, POD),
            [held(Which::Own(0), 0b011), held(Which::Own(2), 0b110), held(Which::Inherited, 0b001)]
        );

        let (tickets, wiki) = (Thing::Allow { ns: 1, r: 0 }, Thing::Allow { ns: 1, r: 1 });
        let less = [
            (tickets, Deed::Allow(0b010)),
            (wiki, Deed::Allow(0b100)),
            (Thing::Deny { ns: 1 }, Deed::Create { gold: false }),
        ];
        let model = after(&[&MADE[..], &less].concat());
        assert_eq!(
            said(&model, POD),
            [
                (Which::Own(0), 0, "Refused", Some("PolicyDenied")),
                (Which::Own(2), 0b100, "Narrowed", Some("RoleNotAllowed")),
                (Which::Inherited, 0, "Refused", Some("RoleNotAllowed")),
            ]
        );
        let none = after(&[&MADE[..], &[(wiki, Deed::Allow(0))]].concat());
        assert_eq!(said(&none, POD)[1], (Which::Own(2), 0, "Refused", Some("NamespaceNotAllowed")));
    }

    #[test]
    fn who_is_suspended() {
        let of = |model: &Model| [GOLD, SILVER, POD].map(|t| model.is_suspended(t, model.agent(t).unwrap()));
        let with = |thing| after(&[&MADE[..], &[(thing, Deed::Suspend(true))]].concat());
        assert_eq!(of(&after(&MADE)), [false, false, false]);
        assert_eq!(of(&with(GOLD)), [true, false, false]);
        assert_eq!(of(&with(Thing::Stop { ns: 1 })), [false, true, false]);
        assert_eq!(of(&with(Thing::Blueprint { group: 0, of_pods: true })), [false, false, true]);
        assert_eq!(of(&with(Thing::Blueprint { group: 0, of_pods: false })), [false, false, false]);
    }

    #[test]
    fn what_is_under_way_is_not_settled() {
        let mut model = after(&MADE);
        assert!(model.settled_since(GOLD, Which::Own(0)).is_some());
        assert!(model.narrowed_since(GOLD, Which::Own(0)).is_none());
        let event =
            Event { at: Duration::ZERO, thing: Thing::Allow { ns: 1, r: 0 }, deed: Deed::Allow(0b001) };
        model.begin(&event);
        assert!(model.settled_since(GOLD, Which::Own(0)).is_none());
        assert!(model.settled_since(GOLD, Which::Own(1)).is_some(), "of another resource");
        model.done(&event, None);
        assert!(model.settled_since(GOLD, Which::Own(0)).is_some());
        assert!(model.narrowed_since(GOLD, Which::Own(0)).is_some());
    }
}
