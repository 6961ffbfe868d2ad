//! Every member there was, and how it ended: what SWIM forgets and people still want to see.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::base::ids::NodeId;
use crate::membership::view::Member;
use crate::membership::view::Status;
use crate::membership::view::View;
use crate::transport::Peer;

/// Members that are shown. Beyond it those that have been gone longest are forgotten; the active are never.
const MEMBERS_MAX: usize = 1024;

#[derive(Debug)]
struct Entry {
    member: Member,
    since: Instant,
}

/// The members, this node not included.
#[derive(Debug, Default)]
pub(super) struct Roster {
    entries: BTreeMap<NodeId, Entry>,
}

/// How a member changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who, as it is now.
    pub peer: Arc<Peer>,
    /// What it was; none: new.
    pub from: Option<Status>,
    /// What it is.
    pub to: Status,
}

impl Roster {
    /// This is how a member is now. Says what changed.
    pub(super) fn set(&mut self, now: Instant, peer: &Peer, status: Status, incarnation: u16) -> Option<Change> {
        let old = self.entries.get_mut(&peer.node);
        let from = old.as_ref().map(|it| it.member.status);
        if let Some(entry) = old.filter(|it| *it.member.peer == *peer) {
            let is_same = entry.member.status == status;
            entry.member.incarnation = incarnation;
            if is_same {
                return None;
            }
            (entry.member.status, entry.since) = (status, now);
            return Some(Change { peer: Arc::clone(&entry.member.peer), from, to: status });
        }
        let peer = Arc::new(peer.clone());
        let member = Member { peer: Arc::clone(&peer), status, incarnation };
        self.entries.insert(peer.node.clone(), Entry { member, since: now });
        self.bound();
        Some(Change { peer, from, to: status })
    }

    fn bound(&mut self) {
        while self.entries.len() > MEMBERS_MAX {
            let gone = self.entries.iter().filter(|it| !it.1.member.status.is_active());
            let Some(oldest) = gone.min_by_key(|it| it.1.since).map(|it| it.0.clone()) else { return };
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Member> {
        self.entries.get(node).map(|it| &it.member)
    }

    /// Forgets one that is gone. False: it is not known, or is here.
    pub(super) fn forget(&mut self, node: &NodeId) -> bool {
        let is_gone = self.get(node).is_some_and(|it| !it.status.is_active());
        is_gone && self.entries.remove(node).is_some()
    }

    /// Forgets those that have been gone for long. True: there were some.
    pub(super) fn expire(&mut self, now: Instant, after: Duration) -> bool {
        let before = self.entries.len();
        self.entries.retain(|_, it| it.member.status.is_active() || now.duration_since(it.since) < after);
        before != self.entries.len()
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Member> {
        self.entries.values().map(|it| &it.member).filter(|it| it.status.is_active())
    }

    /// Where those are to be found that went without a goodbye.
    pub(super) fn lost(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries.values().filter(|it| it.member.status == Status::Down).map(|it| it.member.peer.addr)
    }

    /// All, with this node.
    pub(super) fn view(&self, me: Member) -> View {
        let mut members: Vec<_> = self.entries.values().map(|it| it.member.clone()).collect();
        let at = members.partition_point(|it| it.peer.node < me.peer.node);
        members.insert(at, me);
        View { members }
    }
}
