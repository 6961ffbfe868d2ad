//! How the first group comes to be, once, and how a node comes to one that is there.
//!
//! ```text
//!            hears of a group ──────────────────────────────▶ Member
//! Fresh ──▶ lowest of N that see each other: grants itself, asks N-1 others ──all N──▶ Founding ──committed──▶ Member
//!   └─────▶ is asked: grants the asker ── hears of its group ─▶ Member
//! ```
//! A data directory gives at most one grant, on disk before it is told, and takes it back only by joining or when a person says so. A founder
//! needs N of them, so two groups need 2 N fresh directories: below that many there is one group, whatever is lost, doubled or split. A founder
//! begins alone; everybody else joins it as they would later.
//!
//! *Invariants.* 1. At most one grant a data directory. 2. A founder has N. 3. Who has a group never founds, grants or joins another. *Absent on purpose:* a
//! time after which a grant is void: the founder may only be slow.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use super::lives::Lives;
use crate::base::clock::Instant;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::control::faults::Fault;
use crate::control::faults::planted;

/// A node that expects nobody listens this long for a group before it founds one: a first node whose disk was emptied is greeted by its old members within
/// two seconds for each three of them.
pub const LISTEN: Duration = Duration::from_secs(10);
/// Those that see each other must stay the same this long before anybody is asked: in the first moments everybody sees others.
const SETTLE: Duration = Duration::from_secs(1);
/// What a node said of itself counts this long.
const SAID_COUNTS: Duration = Duration::from_secs(3);

/// What lies on this disk alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Whose it is.
    pub storage: StorageId,
    /// How far this data directory has come.
    pub stage: Stage,
    /// Only this cluster may be joined: another data directory of this node belonged to it.
    pub only: Option<ClusterId>,
    /// Which starts it was told of.
    pub lives: Lives,
}

/// See the file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It belongs to no group.
    Fresh,
    /// It does not, and this one may count it.
    Granted {
        /// Maybe itself.
        to: StorageId,
    },
    /// It makes this group.
    Founding {
        /// Drawn before.
        cluster: ClusterId,
    },
    /// It belongs to this one, for ever.
    Member {
        /// Which.
        cluster: ClusterId,
    },
}

impl Stage {
    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster(self) -> Option<ClusterId> {
        match self {
            Self::Fresh | Self::Granted { .. } => None,
            Self::Founding { cluster } | Self::Member { cluster } => Some(cluster),
        }
    }
}

/// What a node says of itself to each other one, a few times a second while it has no group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// How far it has come.
    pub stage: Stage,
    /// How many it expects.
    pub expect: u32,
    /// Whom it sees. BOUND: the members of the mesh; more than [`SEES_MAX`] are not told.
    pub sees: BTreeSet<StorageId>,
}

/// More fresh nodes than this do not found a group together: let one of them start alone.
pub const SEES_MAX: usize = 256;

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Have this on disk before anything that follows.
    Keep(Stage),
    /// Ask this one for its grant.
    AskGrant(StorageId),
    /// Make the group.
    Found(ClusterId),
    /// Take part in the group.
    Join(ClusterId),
}

/// How a node without a group stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Standing {
    /// It belongs to a group, or makes one.
    #[error("member of {0}")]
    Member(ClusterId),
    /// Fewer are there than expected.
    #[error(
        "no group yet: {seen} of {expect} expected nodes see each other; start the others, or say how many there are with --bootstrap-expect"
    )]
    Waiting {
        /// This one included.
        seen: usize,
        /// This one included.
        expect: usize,
    },
    /// Enough are there, and one of them collects grants.
    #[error(
        "no group yet: waiting for {founder} to found it; if that data directory is lost for good: smg mesh bootstrap --reset"
    )]
    Granted {
        /// Which.
        founder: StorageId,
    },
    /// This one collects grants, and somebody's is given away.
    #[error(
        "no group yet: {granted} of {expect} grants; given to others: {elsewhere:?}. If those are lost for good, on their nodes: smg mesh bootstrap --reset"
    )]
    Collecting {
        /// Grants so far.
        granted: usize,
        /// Grants needed.
        expect: usize,
        /// Who has given theirs to another.
        elsewhere: Vec<StorageId>,
    },
    /// Two groups are heard of.
    #[error(
        "two clusters are heard of, {0} and {1}, so none is joined: separate them, or make the nodes of one new (`smg mesh bootstrap --new-storage`)"
    )]
    TwoClusters(ClusterId, ClusterId),
    /// The group that is heard of is not the one this data directory belongs to.
    #[error(
        "this data directory belongs to {own}, and {heard} is heard of: use other seeds, or rejoin with `smg mesh bootstrap --new-storage`"
    )]
    OtherCluster {
        /// Its own.
        own: ClusterId,
        /// The other.
        heard: ClusterId,
    },
}

/// Why a number of expected nodes is refused. The operator's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`--bootstrap-expect` {asked}: {nodes} nodes are named by seeds, and two groups could form among them; at least {least} are needed"
)]
pub struct TooFew {
    /// As given.
    pub asked: usize,
    /// Distinct seeds, and this node.
    pub nodes: usize,
    /// What would do.
    pub least: usize,
}

/// How many grants a group takes: as many as there are nodes by the seeds, this one included, or as many as the operator says, if that is more than half.
pub fn expect(nodes: usize, asked: Option<usize>) -> Result<usize, TooFew> {
    let least = nodes / 2 + 1;
    match asked {
        None => Ok(nodes.max(1)),
        Some(asked) if asked < least => Err(TooFew { asked, nodes, least }),
        Some(asked) => Ok(asked),
    }
}

/// One node's part.
#[derive(Debug)]
pub struct Core {
    me: StorageId,
    expect: usize,
    /// The id of the cluster that this node would found.
    draw: ClusterId,
    stage: Stage,
    /// See [`Kept::only`].
    only: Option<ClusterId>,
    said: BTreeMap<StorageId, (Instant, Said)>,
    started: Instant,
    /// Those that see each other, and since when.
    circle: (BTreeSet<StorageId>, Instant),
    granted: BTreeMap<StorageId, Instant>,
    denied: BTreeSet<StorageId>,
}

impl Core {
    /// Goes on from what is on disk. `draw`: random.
    #[must_use]
    pub fn new(
        now: Instant,
        me: StorageId,
        stage: Stage,
        expect: usize,
        draw: ClusterId,
        only: Option<ClusterId>,
    ) -> Self {
        let (said, granted, denied) = Default::default();
        let circle = (BTreeSet::new(), now);
        Self { me, expect, draw, stage, only, said, started: now, circle, granted, denied }
    }

    /// What this node says of itself. `active`: members of the mesh that it may speak to.
    #[must_use]
    pub fn says(&self, active: &BTreeSet<StorageId>) -> Said {
        let sees = active.iter().take(SEES_MAX).copied().collect();
        Said { stage: self.stage, expect: self.expect as u32, sees }
    }

    /// How far it has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// A node said this of itself. BOUND: members of the mesh; the rest is dropped at the next step.
    pub fn heard(&mut self, now: Instant, from: StorageId, said: Said) {
        self.said.insert(from, (now, said));
    }

    /// Time has passed, and these members may be spoken to.
    pub fn step(&mut self, now: Instant, active: &BTreeSet<StorageId>, effects: &mut Vec<Effect>) {
        self.said.retain(|from, (at, _)| active.contains(from) && now.saturating_duration_since(*at) <= SAID_COUNTS);
        if self.stage.cluster().is_some() {
            return;
        }
        let clusters = self.clusters();
        match clusters.first() {
            Some(cluster) if clusters.len() == 1 && self.only.is_none_or(|only| only == *cluster) => {
                self.keep(Stage::Member { cluster: *cluster }, effects);
                effects.push(Effect::Join(*cluster));
                return;
            }
            Some(_) => return,
            None => {}
        }
        let circle = self.circle(active);
        if circle != self.circle.0 {
            self.circle = (circle, now);
        }
        if self.is_founder(now) && self.only.is_none() {
            self.collect(now, effects);
        }
    }

    /// Whether it is this node's to found: it is the lowest of enough that see each other, and they have been the same for a while.
    fn is_founder(&self, now: Instant) -> bool {
        let (circle, since) = &self.circle;
        let patience = if self.expect == 1 { LISTEN } else { SETTLE };
        let is_mine = match self.stage {
            Stage::Fresh => circle.first() == Some(&self.me),
            Stage::Granted { to } => to == self.me,
            Stage::Founding { .. } | Stage::Member { .. } => false,
        };
        let is_settled =
            now.saturating_duration_since(if self.expect == 1 { self.started } else { *since }) >= patience;
        is_mine && is_settled && circle.len() >= self.expect
    }

    fn collect(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.stage == Stage::Fresh {
            self.keep(Stage::Granted { to: self.me }, effects);
        }
        self.granted.insert(self.me, now);
        // A grant that was not confirmed lately may have been taken back by a person.
        self.granted.retain(|_, at| now.saturating_duration_since(*at) <= SAID_COUNTS);
        let enough = if planted(Fault::AMajorityFounds) { self.expect / 2 + 1 } else { self.expect };
        if self.granted.len() >= enough {
            self.keep(Stage::Founding { cluster: self.draw }, effects);
            effects.push(Effect::Found(self.draw));
            return;
        }
        effects.extend(self.circle.0.iter().filter(|it| **it != self.me).map(|it| Effect::AskGrant(*it)));
    }

    /// A node asks for this one's grant, and needs `expect` of them. What is to be done must be done before it is answered.
    pub fn asked(&mut self, from: StorageId, expect: usize, effects: &mut Vec<Effect>) -> bool {
        match self.stage {
            // Who needs fewer grants than this node would could be one of two.
            Stage::Fresh if expect < self.expect || self.only.is_some() => false,
            Stage::Fresh => {
                self.keep(Stage::Granted { to: from }, effects);
                true
            }
            Stage::Granted { to } => to == from || planted(Fault::GrantsAreGivenTwice),
            Stage::Founding { .. } | Stage::Member { .. } => false,
        }
    }

    /// The answer to [`Effect::AskGrant`].
    pub fn answered(&mut self, now: Instant, from: StorageId, is_granted: bool) {
        if is_granted {
            self.denied.remove(&from);
            self.granted.insert(from, now);
        } else {
            self.granted.remove(&from);
            self.denied.insert(from);
        }
    }

    /// The group that this node made is there.
    pub fn founded(&mut self, effects: &mut Vec<Effect>) {
        if let Stage::Founding { cluster } = self.stage {
            self.keep(Stage::Member { cluster }, effects);
        }
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let clusters = self.clusters();
        let mut heard = clusters.iter();
        match (self.stage.cluster().or(self.only), heard.next(), heard.next()) {
            (Some(own), Some(first), second) if *first != own || second.is_some() => {
                Standing::OtherCluster { own, heard: if *first == own { *second.unwrap_or(first) } else { *first } }
            }
            (None, Some(first), Some(second)) => Standing::TwoClusters(*first, *second),
            _ => match self.stage {
                Stage::Founding { cluster } | Stage::Member { cluster } => Standing::Member(cluster),
                Stage::Granted { to } if to != self.me => Standing::Granted { founder: to },
                Stage::Granted { .. } => Standing::Collecting {
                    granted: self.granted.len(),
                    expect: self.expect,
                    elsewhere: self.denied.iter().copied().collect(),
                },
                Stage::Fresh => Standing::Waiting { seen: self.circle.0.len(), expect: self.expect },
            },
        }
    }

    fn keep(&mut self, stage: Stage, effects: &mut Vec<Effect>) {
        self.stage = stage;
        effects.push(Effect::Keep(stage));
    }

    /// Clusters that members of the mesh say they belong to. One that is being founded is none yet.
    fn clusters(&self) -> BTreeSet<ClusterId> {
        let stages = self.said.values().map(|it| it.1.stage);
        stages.filter_map(|it| if let Stage::Member { cluster } = it { Some(cluster) } else { None }).collect()
    }

    /// The fresh nodes that see each other and this one, taken from the lowest id on; this one is in it.
    fn circle(&self, active: &BTreeSet<StorageId>) -> BTreeSet<StorageId> {
        let sees = |a: StorageId, b: StorageId| match self.said.get(&a) {
            Some((_, said)) => said.sees.contains(&b),
            None => a == self.me && active.contains(&b),
        };
        let mut circle = BTreeSet::from([self.me]);
        for (id, (_, said)) in &self.said {
            let is_free = match said.stage {
                Stage::Fresh | Stage::Granted { .. } => true,
                Stage::Founding { .. } | Stage::Member { .. } => false,
            };
            if is_free && circle.iter().all(|it| sees(*it, *id) && sees(*id, *it)) {
                circle.insert(*id);
            }
        }
        circle
    }
}
