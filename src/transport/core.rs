//! Which connection to a peer is used, when one is dialled, and which are closed. Pure; the driver does what it says.
//!
//! ```text
//! Wanted ──▶ Dial ──▶ Made ──▶ Use        two nodes may dial each other at once: both connections live, the newer is used
//!              └────▶ Failed ──▶ GiveUp   and nobody is dialled before the pause is over
//! Silent ──▶ Dial ──▶ Made ──▶ Close, Use a connection whose packets were lost for a while repeats them ever more rarely: a new one does not
//! Evict  ──▶ Close                        a peer that restarted or was declared down does not know our old connection
//! ```
//!
//! *Invariants:* 1. a peer has at most one connection of each class and side; 2. connections to an earlier life of a peer are closed
//! as soon as a later one is heard of: they look alive until they time out, and swallow what is sent (found in a prototype: 22 s); 3. at most [`PEERS_MAX`] peers are remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lanes::Class;
use crate::base::clock::Instant;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;

/// Peers that are remembered. Beyond it, those without a connection are forgotten; more cost only memory.
pub const PEERS_MAX: usize = 4096;
/// Pause after a failed dial, doubled up to [`PAUSE_MAX`]. Shorter floods a host that is down; longer delays a rejoin.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// One connection of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Who began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node.
    Dialled,
    /// The peer.
    Accepted,
}

/// One life of a peer: its data directory and start.
pub type Life = (StorageId, u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wants to send, and there is no connection.
    Wanted(NodeId, Class),
    /// A dial failed, or was not needed any more.
    Failed(NodeId, Class),
    /// On the connection that is used nothing came for a while, though something was asked.
    Silent(NodeId, Class),
    /// A connection was made and both sides confirmed it.
    Made {
        /// Which.
        link: LinkId,
        /// To whom.
        node: NodeId,
        /// In which life.
        life: Life,
        /// What for.
        class: Class,
        /// Who began it.
        side: Side,
    },
    /// A connection is gone.
    Ended(LinkId),
    /// This life of a peer is over.
    Evict(NodeId, Life),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dial the peer.
    Dial(NodeId, Class),
    /// Drop what waits for this peer: it cannot be reached now.
    GiveUp(NodeId, Class),
    /// Send over this one from now on; what waits, too.
    Use(NodeId, Class, LinkId),
    /// There is none any more.
    Unuse(NodeId, Class),
    /// Close it.
    Close(LinkId),
}

#[derive(Debug, Default)]
struct Peer {
    life: Option<Life>,
    /// Oldest first; the last one is used.
    links: Vec<(LinkId, Class, Side)>,
    /// What for, and which silent one is to be replaced.
    dialling: Vec<(Class, Option<LinkId>)>,
    failures: u32,
    dial_after: Option<Instant>,
}

impl Peer {
    fn used(&self, class: Class) -> Option<LinkId> {
        self.links.iter().rev().find(|it| it.1 == class).map(|it| it.0)
    }

    fn is_dialling(&self, class: Class) -> bool {
        self.dialling.iter().any(|it| it.0 == class)
    }

    fn close_all(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.links.drain(..).map(|it| Effect::Close(it.0)));
    }
}

/// The connections of this node.
#[derive(Debug, Default)]
pub struct Links {
    peers: BTreeMap<NodeId, Peer>,
}

impl Links {
    /// Takes one event.
    pub fn step(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Wanted(node, class) => self.wanted(now, node, class, effects),
            Event::Failed(node, class) => self.failed(now, node, class, effects),
            Event::Silent(node, class) => self.silent(now, node, class, effects),
            Event::Made { link, node, life, class, side } => {
                if let Some(class) = self.made(link, &node, life, class, side, effects) {
                    effects.push(Effect::Use(node, class, link));
                }
            }
            Event::Ended(link) => self.ended(link, effects),
            Event::Evict(node, life) => self.evict(node, life, effects),
        }
    }

    /// The silent connection that a dial which is under way is to replace.
    #[must_use]
    pub fn replaced(&self, node: &NodeId, class: Class) -> Option<LinkId> {
        self.peers.get(node)?.dialling.iter().find(|it| it.0 == class)?.1
    }

    fn peer(&mut self, node: &NodeId) -> &mut Peer {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(node) {
            // BOUND: whoever has neither connection nor dial is only a pause that is forgotten.
            self.peers.retain(|_, peer| !peer.links.is_empty() || !peer.dialling.is_empty());
        }
        self.peers.entry(node.clone()).or_default()
    }

    fn wanted(&mut self, now: Instant, node: NodeId, class: Class, effects: &mut Vec<Effect>) {
        let peer = self.peer(&node);
        if let Some(link) = peer.used(class) {
            effects.push(Effect::Use(node, class, link)); // it was made while the wish was under way
        } else if peer.is_dialling(class) {
            // The dial that is under way will do.
        } else if peer.dial_after.is_some_and(|at| now < at) {
            effects.push(Effect::GiveUp(node, class));
        } else {
            peer.dialling.push((class, None));
            effects.push(Effect::Dial(node, class));
        }
    }

    fn silent(&mut self, now: Instant, node: NodeId, class: Class, effects: &mut Vec<Effect>) {
        let peer = self.peer(&node);
        let Some(link) = peer.used(class).filter(|_| !peer.is_dialling(class)) else { return };
        if peer.dial_after.is_none_or(|at| at <= now) {
            peer.dialling.push((class, Some(link)));
            effects.push(Effect::Dial(node, class));
        }
    }

    fn failed(&mut self, now: Instant, node: NodeId, class: Class, effects: &mut Vec<Effect>) {
        let peer = self.peer(&node);
        peer.dialling.retain(|it| it.0 != class);
        if peer.used(class).is_some() {
            // The members say that it lives, so the way to it may be there again at any time.
            peer.dial_after = Some(now + PAUSE_MIN);
            return;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << peer.failures.min(8)).min(PAUSE_MAX);
        peer.failures += 1;
        peer.dial_after = Some(now + pause);
        effects.push(Effect::GiveUp(node, class));
    }

    /// The class that the link is used for, unless it is closed at once.
    fn made(
        &mut self,
        link: LinkId,
        node: &NodeId,
        life: Life,
        class: Class,
        side: Side,
        effects: &mut Vec<Effect>,
    ) -> Option<Class> {
        let peer = self.peer(node);
        let mut silent = None;
        if side == Side::Dialled {
            silent = peer.dialling.iter().find(|it| it.0 == class).and_then(|it| it.1);
            peer.dialling.retain(|it| it.0 != class);
        }
        match peer.life {
            // The last packets of a process that is gone: the later life of the same directory has been heard already.
            Some(known) if known.0 == life.0 && life.1 < known.1 => {
                effects.push(Effect::Close(link));
                return None;
            }
            Some(known) if known != life => peer.close_all(effects),
            Some(_) | None => {}
        }
        let is_replaced = |it: &(LinkId, Class, Side)| (it.1, it.2) == (class, side) || Some(it.0) == silent;
        effects.extend(peer.links.extract_if(.., |it| is_replaced(it)).map(|it| Effect::Close(it.0)));
        peer.life = Some(life);
        (peer.failures, peer.dial_after) = (0, None);
        peer.links.push((link, class, side));
        Some(class)
    }

    fn ended(&mut self, link: LinkId, effects: &mut Vec<Effect>) {
        for (node, peer) in &mut self.peers {
            let Some(at) = peer.links.iter().position(|it| it.0 == link) else { continue };
            let (_, class, _) = peer.links.remove(at);
            effects.push(match peer.used(class) {
                Some(other) => Effect::Use(node.clone(), class, other),
                None => Effect::Unuse(node.clone(), class),
            });
        }
    }

    fn evict(&mut self, node: NodeId, life: Life, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&node).filter(|it| it.life == Some(life)) else { return };
        peer.close_all(effects);
        (peer.failures, peer.dial_after) = (0, None);
        effects.extend([Class::Main, Class::Bulk].map(|class| Effect::Unuse(node.clone(), class)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    const LIFE: Life = (StorageId(1), 1);
    const LATER: Life = (StorageId(1), 2);

    fn node() -> NodeId {
        NodeId::parse("a").unwrap()
    }

    fn made(link: u64, life: Life, side: Side) -> Event {
        Event::Made { link: LinkId(link), node: node(), life, class: Class::Main, side }
    }

    fn step(links: &mut Links, now: Instant, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        links.step(now, event, &mut effects);
        effects
    }

    #[test]
    fn a_peer_is_dialled_once_and_not_again_before_the_pause_is_over() {
        let (mut links, mut now) = (Links::default(), Clock.now());
        let want = || Event::Wanted(node(), Class::Main);
        assert_eq!(step(&mut links, now, want()), [Effect::Dial(node(), Class::Main)]);
        assert_eq!(step(&mut links, now, want()), []);
        for pause in [100, 200, 400, 800, 1600, 2000, 2000] {
            assert_eq!(
                step(&mut links, now, Event::Failed(node(), Class::Main)),
                [Effect::GiveUp(node(), Class::Main)]
            );
            now += Duration::from_millis(pause - 1);
            assert_eq!(step(&mut links, now, want()), [Effect::GiveUp(node(), Class::Main)]);
            now += Duration::from_millis(1);
            assert_eq!(step(&mut links, now, want()), [Effect::Dial(node(), Class::Main)]);
        }
        assert_eq!(step(&mut links, now, made(1, LIFE, Side::Dialled)), [Effect::Use(node(), Class::Main, LinkId(1))]);
    }

    #[test]
    fn a_silent_connection_is_used_until_another_was_made_and_is_dialled_again_soon() {
        let (mut links, mut now) = (Links::default(), Clock.now());
        let silent = || Event::Silent(node(), Class::Main);
        assert_eq!(step(&mut links, now, silent()), [], "there is none");
        step(&mut links, now, made(1, LIFE, Side::Accepted));
        for _ in 0..5 {
            assert_eq!(step(&mut links, now, silent()), [Effect::Dial(node(), Class::Main)]);
            assert_eq!(links.replaced(&node(), Class::Main), Some(LinkId(1)));
            assert_eq!(step(&mut links, now, silent()), [], "one dial is enough");
            assert_eq!(step(&mut links, now, Event::Failed(node(), Class::Main)), [], "what waits goes on waiting");
            assert_eq!(step(&mut links, now, silent()), []);
            now += PAUSE_MIN;
        }
        step(&mut links, now, silent());
        let used = Effect::Use(node(), Class::Main, LinkId(2));
        assert_eq!(step(&mut links, now, made(2, LIFE, Side::Dialled)), [Effect::Close(LinkId(1)), used]);
        assert_eq!(links.replaced(&node(), Class::Main), None);
        // One that ended meanwhile, and what the peer began in its place.
        step(&mut links, now, silent());
        assert_eq!(step(&mut links, now, Event::Ended(LinkId(2))), [Effect::Unuse(node(), Class::Main)]);
        assert_eq!(step(&mut links, now, made(3, LIFE, Side::Accepted)), [Effect::Use(node(), Class::Main, LinkId(3))]);
        assert_eq!(step(&mut links, now, made(4, LIFE, Side::Dialled)), [Effect::Use(node(), Class::Main, LinkId(4))]);
    }

    #[test]
    fn the_newest_connection_is_used_and_the_other_one_when_it_ends() {
        let (mut links, now) = (Links::default(), Clock.now());
        let used = |link| Effect::Use(node(), Class::Main, LinkId(link));
        assert_eq!(step(&mut links, now, made(1, LIFE, Side::Dialled)), [used(1)]);
        assert_eq!(step(&mut links, now, made(2, LIFE, Side::Accepted)), [used(2)]);
        assert_eq!(step(&mut links, now, made(3, LIFE, Side::Accepted)), [Effect::Close(LinkId(2)), used(3)]);
        assert_eq!(step(&mut links, now, Event::Ended(LinkId(2))), []);
        assert_eq!(step(&mut links, now, Event::Ended(LinkId(3))), [used(1)]);
        assert_eq!(step(&mut links, now, Event::Ended(LinkId(1))), [Effect::Unuse(node(), Class::Main)]);
    }

    #[test]
    fn connections_to_an_earlier_life_are_closed_and_it_cannot_come_back() {
        let (mut links, now) = (Links::default(), Clock.now());
        step(&mut links, now, made(1, LIFE, Side::Dialled));
        let used = |link| Effect::Use(node(), Class::Main, LinkId(link));
        assert_eq!(step(&mut links, now, made(2, LATER, Side::Accepted)), [Effect::Close(LinkId(1)), used(2)]);
        assert_eq!(step(&mut links, now, made(3, LIFE, Side::Accepted)), [Effect::Close(LinkId(3))]);
        let elsewhere = (StorageId(9), 1);
        assert_eq!(step(&mut links, now, made(4, elsewhere, Side::Accepted)), [Effect::Close(LinkId(2)), used(4)]);
    }

    #[test]
    fn a_life_that_is_over_loses_its_connections_and_a_later_one_does_not() {
        let (mut links, now) = (Links::default(), Clock.now());
        step(&mut links, now, made(1, LATER, Side::Dialled));
        assert_eq!(step(&mut links, now, Event::Evict(node(), LIFE)), []);
        assert_eq!(step(&mut links, now, Event::Evict(node(), LATER))[0], Effect::Close(LinkId(1)));
        assert_eq!(step(&mut links, now, Event::Wanted(node(), Class::Main)), [Effect::Dial(node(), Class::Main)]);
    }

    #[test]
    fn peers_that_are_only_talked_of_do_not_grow_without_bound() {
        let (mut links, now) = (Links::default(), Clock.now());
        step(&mut links, now, made(1, LIFE, Side::Accepted));
        for n in 0..2 * PEERS_MAX {
            let other = NodeId::parse(&format!("n-{n}")).unwrap();
            step(&mut links, now, Event::Failed(other, Class::Main));
        }
        assert!(links.peers.len() <= PEERS_MAX);
        assert!(links.peers.contains_key(&node()), "who is connected is remembered");
    }
}
