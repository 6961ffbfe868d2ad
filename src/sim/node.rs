//! One node of a simulated cluster: its cores, its disk, its clock, and what its drivers would remember.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::cluster::Packet;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::membership;
use crate::replication;
use crate::replication::core::EditError;
use crate::replication::core::Member;
use crate::replication::core::Settled;
use crate::replication::dots::Actor;
use crate::replication::store::Store as _;
use crate::replication::store::memory::Memory;
use crate::replication::tables::Spec;
use crate::transport::Peer;

/// See the file's header. Nothing of it is there while it is down but its disk.
pub(super) struct Node {
    pub(super) name: NodeId,
    pub(super) membership: Option<membership::core::Core>,
    pub(super) tables: Option<replication::core::Core>,
    pub(super) disk: Memory,
    /// A copy of some time ago.
    pub(super) old_disk: Memory,
    /// How often it was started or ended: what was due in another life is not.
    pub(super) life: u32,
    /// How far its wall clock is from the truth.
    pub(super) clock_ms: i64,
    pub(super) started: Instant,
    pub(super) disk_free: Instant,
    pub(super) wake_at: Option<Instant>,
    pub(super) stopped_until: Option<Instant>,
    pub(super) socket: Vec<(SocketAddr, Packet)>,
    pub(super) greeting: BTreeSet<SocketAddr>,
    pub(super) answers: BTreeMap<u64, Result<Settled, EditError>>,
    addr: SocketAddr,
    storage: u128,
    boot: u64,
    generation: u64,
    knows: BTreeSet<NodeId>,
    /// Whether it has seen a member in this life.
    has_met: bool,
    was_ready: bool,
}

impl Node {
    pub(super) fn new(n: usize, now: Instant) -> Self {
        let (disk, old_disk, greeting, answers, knows) = Default::default();
        Self {
            name: name(n),
            membership: None,
            tables: None,
            disk,
            old_disk,
            life: 0,
            clock_ms: 0,
            started: now,
            disk_free: now,
            wake_at: None,
            stopped_until: None,
            socket: Vec::new(),
            greeting,
            answers,
            addr: addr(n),
            storage: 0,
            boot: 0,
            generation: 0,
            knows,
            has_met: false,
            was_ready: false,
        }
    }

    /// Begins its next life, with this disk; on another data directory if there is one.
    #[expect(clippy::too_many_arguments, reason = "a life has that many circumstances")]
    pub(super) fn start(
        &mut self,
        now: Instant,
        disk: Memory,
        storage: Option<u128>,
        clock_ms: i64,
        wall_ms: i64,
        specs: &[Spec],
        entropy: Entropy,
    ) {
        if let Some(storage) = storage {
            (self.storage, self.boot, self.generation) = (storage, 0, 0);
        }
        self.boot += 1;
        self.life += 1;
        // As a data directory does it: later than any life before, whatever the clock says.
        self.generation = (self.generation + 1).max(wall_ms.max(0).unsigned_abs());
        (self.clock_ms, self.started, self.disk_free, self.disk) = (clock_ms, now, now, disk);
        (self.wake_at, self.stopped_until, self.socket) = (None, None, Vec::new());
        self.greeting.clear();
        self.knows.clear();
        (self.has_met, self.was_ready) = (false, false);
        let me = Member { node: self.name.clone(), actor: Actor { storage: self.storage(), boot: self.boot } };
        let rows = self.disk.load().expect("memory loads");
        let tables = replication::core::Core::new(me, specs, Entropy::seeded(entropy.next_u64()), rows);
        self.tables = Some(tables.expect("what was written is read"));
        self.membership = Some(membership::core::Core::new(now, self.peer(), membership::Config::default(), entropy));
    }

    pub(super) fn crash(&mut self, kept: usize) {
        self.disk.crash(kept);
        (self.membership, self.tables) = (None, None);
        self.life += 1;
        (self.stopped_until, self.socket) = (None, Vec::new());
    }

    pub(super) fn is_up(&self) -> bool {
        self.membership.is_some()
    }

    pub(super) fn storage(&self) -> StorageId {
        StorageId(self.storage)
    }

    pub(super) fn boot(&self) -> u64 {
        self.boot
    }

    pub(super) fn swim(&self) -> &membership::core::Core {
        self.membership.as_ref().expect("it is up")
    }

    pub(super) fn core(&self) -> &replication::core::Core {
        self.tables.as_ref().expect("it is up")
    }

    pub(super) fn is_alone(&self) -> bool {
        self.knows.is_empty()
    }

    /// Whether it has the cluster's tables, as `replication::Handle::is_in_force` has it. Once it had them it stays so.
    pub(super) fn is_ready(&self) -> bool {
        self.was_ready || self.has_met && self.core().is_in_force()
    }

    /// To be called after each step of its tables.
    pub(super) fn note_ready(&mut self) {
        self.was_ready |= self.is_up() && self.is_ready();
    }

    /// Whether its driver has an address of that node.
    pub(super) fn knows(&self, node: &NodeId) -> bool {
        self.knows.contains(node)
    }

    /// Who replication is to speak to now, and who is to be dropped because its data directory was forgotten.
    pub(super) fn look(&mut self) -> (Vec<Member>, Vec<NodeId>) {
        let view = self.swim().view();
        let member = |it: &std::sync::Arc<Peer>| Member {
            node: it.node.clone(),
            actor: Actor { storage: it.storage, boot: it.boot },
        };
        let members: Vec<Member> = view.others(&self.name).map(member).collect();
        let gone = view.members.iter().filter(|it| !it.status.is_active());
        let forgotten = gone.filter(|it| self.core().is_forgotten(it.peer.storage)).map(|it| it.peer.node.clone());
        let forgotten = forgotten.collect();
        self.knows = members.iter().map(|it| it.node.clone()).collect();
        self.has_met |= !members.is_empty();
        (members, forgotten)
    }

    fn peer(&self) -> Peer {
        Peer {
            node: self.name.clone(),
            storage: self.storage(),
            boot: self.boot,
            generation: self.generation,
            renewals: 0,
            addr: self.addr,
            zone: None,
        }
    }
}

pub(super) fn name(n: usize) -> NodeId {
    NodeId::parse(&format!("n-{n:04}")).expect("a plain name")
}

pub(super) fn index(node: &NodeId) -> usize {
    node.as_str()[2..].parse().expect("a name of ours")
}

pub(super) fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (n / 250) as u8, (n % 250) as u8 + 1], 30001))
}
