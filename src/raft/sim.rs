//! Nodes in one paused runtime: each task belongs to a node, and a node can be stopped as by `SIGSTOP`, killed, and left to run again. Tests only.
//!
//! A task is wrapped when it is spawned and inherits its node from whoever spawns it. While its node is paused it is not polled, so its timers run out
//! unseen and all fire at once when it runs again, which is what a real pause does. A killed node's tasks are dropped where they stand.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use openraft::raft::AppendEntriesRequest;
use openraft::raft::InstallSnapshotRequest;
use parking_lot::Mutex;

use super::frame::Answer;
use super::frame::Frame;
use super::frame::Message;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::storage::GroupId;
use crate::storage::Store;
use crate::storage::keys::Key;
use crate::storage::memory::Disk;
use crate::transport::lanes::Lane;

thread_local! {
    static NODE: RefCell<Option<Life>> = const { RefCell::new(None) };
    static DRAWS: RefCell<Option<Entropy>> = const { RefCell::new(None) };
}

/// One process. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_paused: bool,
    is_dead: bool,
    waiting: Vec<Waker>,
}

impl Life {
    pub(crate) fn pause(&self) {
        self.0.lock().is_paused = true;
    }

    pub(crate) fn resume(&self) {
        let mut state = self.0.lock();
        state.is_paused = false;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn kill(&self) {
        let mut state = self.0.lock();
        state.is_dead = true;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Starts a task of this process.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) {
        self.within(|| drop(<super::runtime::Runtime as openraft::AsyncRuntime>::spawn(future)));
    }

    /// Does something as this process: tasks that it starts are its own.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = NODE.with(|it| it.replace(Some(self.clone())));
        let done = work();
        NODE.with(|it| it.replace(before));
        done
    }
}

/// From here on this thread's draws come from this seed.
pub(crate) fn seed(entropy: Entropy) {
    DRAWS.with(|it| it.replace(Some(entropy)));
}

pub(super) fn draws() -> Option<Entropy> {
    DRAWS.with(|it| it.borrow().clone())
}

/// The future as a task of the process that spawns it, if there is one.
pub(super) fn of_this_node<F: Future>(future: F) -> Owned<F> {
    Owned { life: NODE.with(|it| it.borrow().clone()), future: Some(Box::pin(future)) }
}

/// See [`of_this_node`].
pub(super) struct Owned<F> {
    life: Option<Life>,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Owned<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if let Some(life) = &self.life {
            let mut state = life.0.lock();
            if state.is_dead {
                drop(state);
                self.future = None; // what it held is gone with its process; nobody hears of it
                return Poll::Pending;
            }
            if state.is_paused {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        let before = NODE.with(|it| it.replace(self.life.clone()));
        let polled = self.future.as_mut().map_or(Poll::Pending, |it| it.as_mut().poll(context));
        NODE.with(|it| it.replace(before));
        polled
    }
}

/// What a member has promised to whom.
pub(crate) type Vote = openraft::Vote<StorageId>;

/// The vote that was granted and in which group, if this is a request for one and its answer.
pub(crate) fn granted(asked: &[u8], answered: &[u8]) -> Option<(GroupId, Vote)> {
    let frame = Frame::decode(asked)?;
    let Message::Vote(request) = frame.message else { return None };
    let Answer::Vote(answer) = Answer::decode(answered).ok()? else { return None };
    answer.vote_granted.then_some((frame.group, request.vote))
}

/// What a message takes a follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Entries of the one with the most.
    pub(crate) entries_max: usize,
    /// Bytes of the longest that has entries.
    pub(crate) bytes_max: usize,
    /// Pieces of snapshots, on the bulk lane.
    pub(crate) pieces: usize,
    /// First ones, wherever they came.
    pub(crate) firsts: usize,
    /// Last ones.
    pub(crate) lasts: usize,
    /// Those that came with everything else.
    pub(crate) pieces_between: usize,
}

impl Traffic {
    /// Counts a message.
    pub(crate) fn count(&mut self, lane: Lane, asked: &[u8]) {
        match Frame::decode(asked).map(|it| it.message) {
            Some(Message::Append(it)) => {
                self.entries_max = self.entries_max.max(it.entries.len());
                self.bytes_max = self.bytes_max.max(asked.len());
            }
            Some(Message::Snapshot(it)) => {
                *(if lane == Lane::Bulk { &mut self.pieces } else { &mut self.pieces_between }) += 1;
                self.firsts += usize::from(it.offset == 0);
                self.lasts += usize::from(it.done);
            }
            Some(Message::Vote(_)) | None => {}
        }
    }
}

/// Whether any entry of a group's log has these bytes.
pub(crate) fn log_has(disk: &Disk, group: GroupId, bytes: &[u8]) -> bool {
    let store = Store::in_memory(disk.clone());
    let entries = store.scan::<openraft::Entry<super::TypeConfig>>(Key::Entry(group, 0));
    entries.map(|it| it.expect("it can be read").1).any(|it| match it.payload {
        openraft::EntryPayload::Normal(command) => command.0.windows(bytes.len()).any(|it| it == bytes),
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => false,
    })
}

/// Whether whoever told the first may not tell or keep the second after it.
pub(crate) fn is_taken_back(told: &Vote, after: &Vote) -> bool {
    !matches!(after.partial_cmp(told), Some(Ordering::Greater | Ordering::Equal))
}

/// What somebody says who wants to lead in this term, or to be taken for whoever does: a request for a vote, a heartbeat, a snapshot of nothing.
pub(crate) fn usurp(term: u64, from: StorageId) -> [Message; 3] {
    let vote = Vote::new_committed(term, from);
    let append = AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
    let meta = openraft::SnapshotMeta { snapshot_id: "forged".to_owned(), ..Default::default() };
    let snapshot = InstallSnapshotRequest { vote, meta, offset: 0, data: Vec::new(), done: true };
    [
        Message::Vote(openraft::raft::VoteRequest::new(Vote::new(term, from), None)),
        Message::Append(append),
        Message::Snapshot(snapshot),
    ]
}
