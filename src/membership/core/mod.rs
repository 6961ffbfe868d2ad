//! The decisions of membership: SWIM (foca inside), whom to look for, and not to blame others for one's own sleep.
//!
//! The core is told the time and what happened, and says what to do. It owns its timers, so that it can move them: **time in which this node did not run does not
//! count**. A node that was stopped for seconds finds every probe unanswered and every suspicion expired; all of it is put off by as long as the node slept, and suspicions by as
//! much again as a suspect has, so that what waits in the socket is heard first (Lifeguard, Dadgar et al. 2018, has the measurements of what happens otherwise).
//!
//! *Ground state:* foca's members, timers. *Derived:* the roster, which remembers longer and is what the view shows.

#[cfg(test)]
mod older;
mod roster;
mod seeds;
mod swim;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foca::OwnedNotification;
use foca::State;
use foca::Timer;

use self::roster::Roster;
use self::seeds::Seeds;
use self::swim::Collected;
use self::swim::Foca;
use super::Config;
use super::faults::Fault;
use super::faults::planted;
use super::view::Member;
use super::view::Status;
use super::view::View;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::transport::Peer;
use crate::transport::wire;

pub use roster::Change;

/// The core wants a step this often, so that it can tell a sleep from a quiet hour.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// A step that comes later than this after the one before: the node slept. Below it a busy machine would seem asleep for ever.
const SLEEP_MIN: Duration = Duration::from_millis(600);
/// Kinds of packets on the lane, after the version byte.
const SWIM: u8 = 0;
/// See [`SWIM`].
const FAREWELL: u8 = 1;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Wake,
    /// The seeds' names stand for these addresses.
    LookedUp(Vec<SocketAddr>),
    /// Somebody answered a greeting.
    Met(SocketAddr, Box<Peer>),
    /// Nobody did.
    Missed(SocketAddr),
    /// A packet came. The node id of its sender is certified.
    Received(Arc<Peer>, Vec<u8>),
    /// This node is about to stop.
    Leave,
    /// An operator says that this member will not come back.
    Forget(NodeId),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Find out who is there.
    Greet(SocketAddr),
    /// Look the seeds' names up.
    LookUp,
    /// Send a packet.
    Send(Box<Peer>, Vec<u8>),
    /// That life is over: its connections are of no use.
    Evict(Arc<Peer>),
    /// Others held this node for dead; from now on it is this.
    Renewed(Box<Peer>),
    /// A member changed; the view is another now.
    Changed(Change),
    /// Members were forgotten; the view is another now.
    Forgotten,
    /// This node slept for so long, and suspects nobody for it.
    Slept(Duration),
    /// A packet was ignored: it could not be read, or names another sender than its connection.
    Ignored,
}

/// One node's membership.
pub struct Core {
    foca: Foca,
    config: Config,
    entropy: Entropy,
    roster: Roster,
    seeds: Seeds,
    timers: BTreeMap<(Instant, u64), Timer<Peer>>,
    timers_made: u64,
    /// Who said goodbye, until SWIM agrees.
    leaving: BTreeSet<NodeId>,
    last_step: Instant,
    /// How often this node has refuted in its life, as its packets say.
    incarnation: u16,
    has_left: bool,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("me", self.me()).finish_non_exhaustive()
    }
}

impl Core {
    /// Membership of `me`, alone so far.
    #[must_use]
    pub fn new(now: Instant, me: Peer, config: Config, entropy: Entropy) -> Self {
        Self {
            foca: swim::new(me, &config, entropy.clone()),
            config,
            entropy,
            roster: Roster::default(),
            seeds: Seeds::new(now),
            timers: BTreeMap::new(),
            timers_made: 0,
            leaving: BTreeSet::new(),
            last_step: now,
            incarnation: 0,
            has_left: false,
        }
    }

    /// This node, in the life it says to be.
    #[must_use]
    pub fn me(&self) -> &Peer {
        self.foca.identity()
    }

    /// Everybody at this moment.
    #[must_use]
    pub fn view(&self) -> View {
        let status = if self.has_left { Status::Left } else { Status::Alive };
        self.roster.view(Member { peer: Arc::new(self.me().clone()), status, incarnation: self.incarnation })
    }

    /// When the next step is due if nothing happens before.
    #[must_use]
    pub fn next_wake(&self) -> Instant {
        let timer = self.timers.first_key_value().map(|it| it.0.0);
        let due = (self.last_step + HEARTBEAT).min(self.seeds.next_at());
        timer.map_or(due, |timer| timer.min(due))
    }

    /// Takes one event.
    pub fn step(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        if self.has_left {
            return;
        }
        self.notice_sleep(now, effects);
        match event {
            Event::Wake => self.wake(now, effects),
            Event::LookedUp(addresses) => self.seeds.looked_up(now, addresses),
            Event::Met(addr, peer) => self.meet(now, addr, *peer, effects),
            Event::Missed(addr) => self.seeds.missed(addr),
            Event::Received(from, packet) => self.receive(now, &from, &packet, effects),
            Event::Leave => self.leave(effects),
            Event::Forget(node) => {
                if self.roster.forget(&node) {
                    effects.push(Effect::Forgotten);
                }
            }
        }
    }

    fn notice_sleep(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let gap = now.saturating_duration_since(self.last_step);
        self.last_step = now;
        if gap < SLEEP_MIN || planted(Fault::SleepCounts) {
            return;
        }
        // ORDER: before any timer is looked at. A suspect gets its whole time again: its refutation may wait in the socket.
        for ((due, n), timer) in std::mem::take(&mut self.timers) {
            let more = match timer {
                Timer::ChangeSuspectToDown { .. } if planted(Fault::SuspicionsRunOn) => Duration::ZERO,
                Timer::ChangeSuspectToDown { .. } => gap + self.config.suspect_for,
                _ => gap,
            };
            self.timers.insert((due + more, n), timer);
        }
        effects.push(Effect::Slept(gap));
    }

    fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(first) = self.timers.first_entry().filter(|it| it.key().0 <= now) {
            // What a timer brings counts from now, however late it is: a node that slept would find others silent for as long.
            let at = if planted(Fault::SleepCounts) { first.key().0 } else { now };
            let timer = first.remove();
            if self.is_still_due(&timer) {
                self.swim(at, effects, |foca, out| foca.handle_timer(timer, out));
            }
        }
        if self.roster.expire(now, self.config.forget_after) {
            effects.push(Effect::Forgotten);
        }
        let me = self.me().node.clone();
        let mut here: BTreeSet<_> = self.roster.active().map(|it| it.peer.addr).collect();
        here.insert(self.me().addr);
        let is_here = |node: &NodeId| *node == me || self.roster.get(node).is_some_and(|it| it.status.is_active());
        let round = self.seeds.round(now, &self.entropy, is_here, &here, self.roster.lost());
        effects.extend(round.look_up.then_some(Effect::LookUp));
        effects.extend(round.greet.into_iter().map(Effect::Greet));
    }

    /// A suspicion's end is nothing once it was refuted. foca 2.0 would not declare the member down either, but it would tell it that it was: the member would begin
    /// a new life, be missed by probes of the old one, and be suspected again.
    fn is_still_due(&self, timer: &Timer<Peer>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return true };
        let is_it = |it: &foca::Member<Peer>| it.id() == member_id && it.incarnation() == *incarnation;
        self.foca.iter_members().any(|it| is_it(it) && it.state() == State::Suspect)
    }

    fn meet(&mut self, now: Instant, addr: SocketAddr, peer: Peer, effects: &mut Vec<Effect>) {
        self.seeds.met(addr, peer.node.clone());
        if peer.node != self.me().node {
            self.swim(now, effects, |foca, out| foca.announce(peer, out));
        }
    }

    fn receive(&mut self, now: Instant, from: &Peer, packet: &[u8], effects: &mut Vec<Effect>) {
        match packet {
            [wire::VERSION, SWIM, packet @ ..] => {
                // A certificate stands for one node: what another says in its name is not its word.
                let is_own = |(sender, _): (Peer, u16)| sender.node == from.node || planted(Fault::AnySenderIsBelieved);
                if !swim::sender(packet).is_some_and(is_own) {
                    return effects.push(Effect::Ignored);
                }
                self.swim(now, effects, |foca, out| foca.handle_data(packet, out));
            }
            [wire::VERSION, FAREWELL] if !planted(Fault::GoodbyesAreNotHeard) => {
                self.leaving.insert(from.node.clone());
                let down = foca::Member::down(self.roster.get(&from.node).map_or(from, |it| &it.peer).clone());
                self.swim(now, effects, |foca, out| foca.apply_many(std::iter::once(down), true, out));
                if let Some(member) = self.roster.get(&from.node).filter(|it| it.status == Status::Down).cloned() {
                    effects.extend(self.roster.set(now, &member.peer, Status::Left, 0).map(Effect::Changed));
                }
                self.leaving.remove(&from.node);
            }
            _ => effects.push(Effect::Ignored),
        }
    }

    /// Goodbye is said to each directly: who misses it finds out by probing.
    fn leave(&mut self, effects: &mut Vec<Effect>) {
        for member in self.roster.active() {
            let peer = Box::new(Peer::clone(&member.peer));
            effects.push(Effect::Send(peer, vec![wire::VERSION, FAREWELL]));
        }
        self.has_left = true;
        self.timers.clear();
    }

    /// Lets foca do something, then does what it wants.
    fn swim(
        &mut self,
        now: Instant,
        effects: &mut Vec<Effect>,
        work: impl FnOnce(&mut Foca, &mut Collected) -> Result<(), foca::Error>,
    ) {
        let mut out = Collected::default();
        if work(&mut self.foca, &mut out).is_err() {
            effects.push(Effect::Ignored); // foca's errors leave its members as they were
        }
        for (after, timer) in out.timers {
            self.timers_made += 1;
            self.timers.insert((now + after, self.timers_made), timer);
        }
        for note in out.notes {
            self.note(now, note, effects);
        }
        if let Some((_, incarnation)) = out.packets.last().and_then(|it| swim::sender(&it.1)) {
            self.incarnation = incarnation;
        }
        for (to, packet) in out.packets {
            effects.push(Effect::Send(Box::new(to), [&[wire::VERSION, SWIM][..], &packet].concat()));
        }
        self.compare(now, effects);
    }

    fn note(&mut self, now: Instant, note: OwnedNotification<Peer>, effects: &mut Vec<Effect>) {
        match note {
            OwnedNotification::MemberDown(peer) => {
                let status = if self.leaving.contains(&peer.node) { Status::Left } else { Status::Down };
                // A life that another has replaced is no member that went down.
                let is_last = self.roster.get(&peer.node).is_none_or(|it| *it.peer == peer);
                if is_last {
                    effects.extend(self.roster.set(now, &peer, status, 0).map(Effect::Changed));
                }
                effects.push(Effect::Evict(Arc::new(peer)));
                self.seeds.hurry(now);
            }
            // A restarted peer does not know our connection to its old self. One that only renewed itself does.
            OwnedNotification::Rename(old, new) => {
                if !old.is_same_life(&new) {
                    effects.push(Effect::Evict(Arc::new(old)));
                }
            }
            OwnedNotification::Rejoin(me) => {
                effects.push(Effect::Renewed(Box::new(me)));
                self.seeds.hurry(now); // those that hold us for dead are looked for again under the new name
            }
            OwnedNotification::MemberUp(_)
            | OwnedNotification::Active
            | OwnedNotification::Idle
            | OwnedNotification::Defunct => {}
        }
    }

    /// Brings what foca holds for active into the roster: it tells of suspicion and refutation by its state alone.
    fn compare(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for member in self.foca.iter_members() {
            let status = match member.state() {
                State::Alive => Status::Alive,
                State::Suspect => Status::Suspect,
                State::Down => continue,
            };
            let change = self.roster.set(now, member.id(), status, member.incarnation());
            effects.extend(change.map(Effect::Changed));
        }
    }
}
