//! What the driver, the tasks that answer, and those who hold a handle share; and what the group shows of this node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::Carried;
use super::Config;
use super::Peers;
use super::Standing;
use super::core::gate::Gate;
use super::core::lives::Life;
use super::core::lives::Lives;
use super::error::ControlError;
use super::machine::Command;
use super::machine::Outcome;
use super::machine::Refusal;
use super::machine::State;
use super::messages::Answer;
use super::messages::Message;
use super::metrics::Metrics;
use crate::base::clock::Clock;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::raft;
use crate::raft::Coded as _;
use crate::raft::Group;
use crate::raft::Papers;
use crate::raft::ProposeError;
use crate::raft::frame;
use crate::raft::frame::Badge;
use crate::raft::frame::Frame;
use crate::storage::GroupId;
use crate::transport::lanes::Lane;

/// Between two attempts to find who leads.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// One attempt. A commit takes two fsyncs and two ways.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);

/// See the file's header.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) metrics: Metrics,
    /// The group, once this node takes part.
    pub(super) group: ArcSwapOption<Group<State>>,
    pub(super) cluster: Mutex<Option<ClusterId>>,
    pub(super) lives: ArcSwap<Lives>,
    pub(super) standing: ArcSwap<Standing>,
    /// Why this node was not heard, if it must not go on for it.
    pub(super) expelled: Mutex<Option<Expelled>>,
    /// Another group of the same members. Weak: it holds this.
    pub(super) carried: OnceLock<Weak<dyn Carried>>,
}

/// Who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expelled {
    /// A member that does not hear this node any more.
    Member(frame::Refusal),
    /// The group, by its log.
    Group(Refusal),
}

impl Papers for Shared {
    fn badge(&self) -> Badge {
        let since = |it: &State| it.storages().get(&self.config.me).map_or(0, |it| it.since);
        let since = self.group.load().as_ref().map_or(0, |group| group.read(since));
        let Life { boot, nonce } = self.config.life;
        Badge { cluster: self.cluster.lock().map_or(0, |it| it.0), boot, nonce, since }
    }

    fn life_of(&self, storage: StorageId) -> Option<(u64, u64)> {
        let told = self.lives.load().get(storage);
        let known = self.group.load().as_ref().and_then(|group| group.read(|it| registered(it, storage)));
        told.max_by_boot(known).map(|it| (it.boot, it.nonce))
    }

    fn refused(&self, by: StorageId, why: frame::Refusal) {
        self.metrics.refused_by(why);
        let is_final = match why {
            frame::Refusal::Over | frame::Refusal::Copy | frame::Refusal::Forgotten => true,
            frame::Refusal::OtherCluster
            | frame::Refusal::OtherStorage
            | frame::Refusal::Outsider
            | frame::Refusal::Absent
            | frame::Refusal::Unreadable
            | frame::Refusal::Busy
            | frame::Refusal::Full
            | frame::Refusal::WrongLane => false,
        };
        if is_final {
            tracing::debug!(%by, why = why.as_str(), "a member does not hear this node any more");
            *self.expelled.lock() = Some(Expelled::Member(why));
        }
    }
}

/// The start of a data directory that the group has registered.
pub(super) fn registered(state: &State, storage: StorageId) -> Option<Life> {
    state.storages().get(&storage).map(|it| Life { boot: it.boot, nonce: it.nonce })
}

trait Latest {
    fn max_by_boot(self, other: Self) -> Self;
}

impl Latest for Option<Life> {
    fn max_by_boot(self, other: Self) -> Self {
        [self, other].into_iter().flatten().max_by_key(|it| it.boot)
    }
}

impl Shared {
    /// The other group of this node, if there is one.
    pub(super) fn carried(&self) -> Option<Arc<dyn Carried>> {
        self.carried.get().and_then(Weak::upgrade)
    }

    /// Answers a frame of a group, if it may be heard.
    pub(super) async fn serve(&self, from: StorageId, lane: Lane, bytes: &[u8]) -> frame::Answer {
        let heard = Frame::decode(bytes).ok_or(frame::Refusal::Unreadable);
        let heard = heard.and_then(|frame| match (lane, &frame.message) {
            (Lane::Bulk, frame::Message::Append(_) | frame::Message::Vote(_)) => Err(frame::Refusal::WrongLane),
            _ => self.admit(from, frame),
        });
        match heard {
            Ok((group, message)) => {
                if !group.has_room() && message.is_to_be_kept() {
                    self.metrics.refused(frame::Refusal::Full);
                }
                group.answer(message).await
            }
            Err(why) => {
                self.metrics.refused(why);
                frame::Answer::Refused(why.into())
            }
        }
    }

    /// Which group a frame is for, if it is heard. Every group has the control group's members, so that one gate is all groups'.
    fn admit(&self, from: StorageId, frame: Frame) -> Result<(Arc<dyn raft::Serve>, frame::Message), frame::Refusal> {
        let Frame { group: id, to, to_life, badge, message } = frame;
        let (Some(control), Some(cluster)) = (self.group.load_full(), *self.cluster.lock()) else {
            return Err(frame::Refusal::Absent);
        };
        let life = self.config.life;
        if to == self.config.me && to_life.is_some_and(|it| it.0 > life.boot) {
            // Whoever speaks means a later start of this data directory: this process goes on with a copy of it.
            *self.expelled.lock() = Some(Expelled::Member(frame::Refusal::Over));
            return Err(frame::Refusal::OtherStorage);
        }
        let status = control.status();
        let members: BTreeSet<StorageId> = status.voters.union(&status.learners).copied().collect();
        let lives = self.lives.load();
        control.read(|state| {
            let (me, applied) = (self.config.me, status.applied);
            let gate = Gate { me, cluster, lives: &lives, state, applied, members: &members };
            gate.admit(to, from, &badge)
        })?;
        let carried = || self.carried().filter(|it| it.id() == id).and_then(|it| it.group());
        let group = if id == GroupId::CONTROL { Some(control as Arc<dyn raft::Serve>) } else { carried() };
        Ok((group.ok_or(frame::Refusal::Absent)?, message))
    }

    /// Answers a command of another member: only a leader takes it.
    pub(super) async fn propose_here(&self, cluster: ClusterId, command: Vec<u8>) -> Answer {
        if *self.cluster.lock() != Some(cluster) {
            return Answer::OtherCluster;
        }
        let Some(group) = self.group.load_full() else { return Answer::NotLeader(None) };
        // An entry that cannot be read would stop the group at every node, after every restart.
        if Command::decode(&command).is_err() {
            return Answer::NotLeader(None);
        }
        let status = group.status();
        // BOUND: a leader that hears no majority would gather entries that nobody confirms.
        if status.voters.len() > 1 && status.unanswered.is_some_and(|it| it > ATTEMPT_LIMIT) {
            return Answer::NotLeader(None);
        }
        match timeout(ATTEMPT_LIMIT, group.propose(command)).await {
            Ok(Ok(committed)) => Outcome::decode(&committed.outcome).map_or(Answer::NotLeader(None), Answer::Proposed),
            Ok(Err(ProposeError::NotLeader { leader })) => Answer::NotLeader(leader),
            Ok(Err(ProposeError::NoRoom)) => Answer::NoRoom,
            Ok(Err(ProposeError::Busy(_) | ProposeError::Stopped(_) | ProposeError::TooLarge(_))) | Err(_) => {
                Answer::NotLeader(None)
            }
        }
    }

    /// Brings a command to whoever leads, and waits for what becomes of it.
    pub(super) async fn propose(&self, command: &Command, limit: Duration) -> Result<Outcome, ControlError> {
        let until = Clock.now() + limit;
        let cluster =
            (*self.cluster.lock()).ok_or_else(|| ControlError::NoCluster((**self.standing.load()).clone()))?;
        let bytes = command.encode().map_err(|_bug| ControlError::Unanswered)?;
        let mut hint = self.group.load().as_ref().and_then(|it| it.status().leader);
        let mut others = Vec::new();
        loop {
            let target = match hint.take() {
                Some(leader) => leader,
                None => {
                    if others.is_empty() {
                        others = self.peers.active().into_iter().chain([self.config.me]).collect();
                    }
                    others.pop().unwrap_or(self.config.me)
                }
            };
            let answer = self.propose_at(target, cluster, bytes.clone()).await;
            let is_full = answer == Some(Answer::NoRoom);
            match answer {
                Some(Answer::Proposed(outcome)) => return Ok(outcome),
                Some(Answer::NotLeader(leader)) => hint = leader.filter(|it| *it != target),
                _ => {}
            }
            if Clock.now() >= until {
                return Err(if is_full { ControlError::NoRoom } else { ControlError::Unanswered });
            }
            Clock.sleep(RETRY_AFTER).await;
        }
    }

    pub(super) fn leads(&self) -> Option<u64> {
        let status = self.group.load().as_ref()?.status();
        (status.leader == Some(self.config.me)).then_some(status.term)
    }

    /// See [`Handle::confirm`](super::Handle::confirm).
    pub(super) async fn confirm(&self, term: u64, limit: Duration) -> bool {
        let Some(group) = self.group.load_full() else { return false };
        let is_confirmed = raft::owned(timeout(limit, group.confirm())).await.unwrap_or(false);
        is_confirmed && self.leads() == Some(term)
    }

    /// See [`Handle::lead`](super::Handle::lead).
    pub(super) async fn lead(&self, term: u64, command: &Command, limit: Duration) -> Result<Outcome, ControlError> {
        let cluster =
            (*self.cluster.lock()).ok_or_else(|| ControlError::NoCluster((**self.standing.load()).clone()))?;
        let bytes = command.encode().map_err(|_bug| ControlError::Unanswered)?;
        if self.leads() != Some(term) {
            return Err(ControlError::Unanswered);
        }
        match timeout(limit, raft::owned(self.propose_here(cluster, bytes))).await {
            Ok(Answer::Proposed(outcome)) => Ok(outcome),
            Ok(_) | Err(_) => Err(ControlError::Unanswered),
        }
    }

    async fn propose_at(&self, target: StorageId, cluster: ClusterId, command: Vec<u8>) -> Option<Answer> {
        if target == self.config.me {
            return Some(self.propose_here(cluster, command).await);
        }
        self.ask(target, &Message::Propose { cluster, command }, ATTEMPT_LIMIT).await
    }

    /// The group refused to register this node.
    pub(super) fn refuse(&self, refusal: Refusal) {
        *self.expelled.lock() = Some(Expelled::Group(refusal));
    }

    /// Asks another node. None: no answer that can be read.
    pub(super) async fn ask(&self, to: StorageId, message: &Message, limit: Duration) -> Option<Answer> {
        let bytes = message.encode().ok()?;
        let answer = raft::Mesh::ask(&*self.peers, to, Lane::Raft, bytes, limit).await.ok()?;
        Answer::decode(&answer).ok()
    }
}
