//! What the edge holds: it takes units, at once where they are at hand, and asks the core where they are not.
//!
//! The fast way reads a published map and changes one word. The slow way steps the core in the asker's own thread, under a lock that nobody holds over an `.await`, and then
//! waits for what other nodes give. *Invariant:* units that nobody waits for any more are given back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Wake;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::LimitId;
use super::OnIsolation;
use super::core::Answer;
use super::core::Core;
use super::core::Effect;
use super::core::Event;
use super::core::Life;
use super::core::MayOpen;
use super::core::Refused;
use super::core::STREAM_WAIT_MAX;
use super::core::Standing;
use super::core::Ticket;
use super::faults::Fault;
use super::faults::planted;
use super::messages::Message;
use super::messages::Renewal;
use super::metrics::Metrics;
use super::permits::Permit;
use super::permits::Permits;
use super::purse::Purse;
use super::purse::Taken;
use crate::base::clock::Clock;
use crate::base::ids::StorageId;
use crate::transport;
use crate::transport::Peer;
use crate::transport::lanes::Lane;

/// Rounds end after 20 ms. A request that waits longer than this waits for a node that does not run.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// Takes units. Clones are the same one. Where there is no control group to divide limits, there are none here, but other members may know some: then it is as where a share was lost.
#[derive(Clone)]
pub struct Handle(pub(super) Result<Arc<Shared>, OnIsolation>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("is_nowhere", &self.0.is_err()).finish_non_exhaustive()
    }
}

impl Handle {
    /// Of a node that divides no limits, because it has no control group. It never has units of those that others tell it of.
    #[must_use]
    pub fn nowhere(on_isolation: OnIsolation) -> Self {
        Self(Err(on_isolation))
    }

    /// Whether it divides no limits.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        self.0.is_err()
    }

    /// Takes units of a limit, all or none. Waits only when they are not at hand: for a round of other nodes, some 20 ms. Dropped before it is answered it takes nothing.
    pub async fn take(&self, limit: LimitId, units: u64) -> Answer {
        let shared = match &self.0 {
            Ok(shared) => shared,
            Err(on_isolation) => return on_isolation.answer(limit),
        };
        let since = Clock.now();
        let taken = shared.purses.load().get(&limit).and_then(|it| it.take(since, units));
        if let Some(taken) = taken {
            shared.metrics.took(units);
            return Answer::Admitted(taken);
        }
        let answer = shared.ask(limit, WAIT_MAX, |ticket| Event::Ask(ticket, limit, units)).await;
        shared.metrics.answered(&answer, Taken::units, Clock.now().saturating_duration_since(since));
        answer
    }

    /// A permit for one stream of a [`Kind::Streams`](super::Kind::Streams) limit, to be held until the stream has ended. Waits only when none is at hand: for others' spare ones, or until a stream ends, 2 s at
    /// the longest. Dropped before it is answered it takes nothing.
    pub async fn permit(&self, limit: LimitId) -> MayOpen {
        let shared = match &self.0 {
            Ok(shared) => shared,
            Err(on_isolation) => return on_isolation.answer(limit),
        };
        let since = Clock.now();
        let permit = shared.permits.load().get(&limit).and_then(|it| it.take(since));
        if let Some(permit) = permit {
            shared.metrics.took(1);
            return Answer::Admitted(permit);
        }
        let answer = shared.ask(limit, STREAM_WAIT_MAX + WAIT_MAX, |ticket| Event::Open(ticket, limit)).await;
        shared.metrics.answered(&answer, |_| 1, Clock.now().saturating_duration_since(since));
        answer
    }

    /// How a limit stands here. None: it is not known here.
    #[must_use]
    pub fn standing(&self, limit: LimitId) -> Option<Standing> {
        let shared = self.0.as_ref().ok()?;
        let core = shared.core.lock();
        core.standing(Clock.now(), limit)
    }
}

/// What the edge and the driver have in common.
pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    /// Of each limit that is known. BOUND: the core's.
    pub(super) purses: ArcSwap<HashMap<LimitId, Arc<Purse>>>,
    /// Of each limit on streams that is known. BOUND: the same.
    pub(super) permits: ArcSwap<HashMap<LimitId, Arc<Permits>>>,
    /// Who is here.
    pub(super) peers: ArcSwap<HashMap<StorageId, Arc<Peer>>>,
    /// Who waits. BOUND: one for each request that the edge has admitted so far.
    pub(super) replies: Book<Taken>,
    /// Who waits for a permit. BOUND: the same.
    pub(super) openings: Book<Permit>,
    pub(super) tickets: AtomicU64,
    /// None: a node without a mesh.
    pub(super) transport: Option<transport::Handle>,
    /// The task is to wake earlier than it meant to.
    pub(super) sooner: Notify,
    /// A permit came back for which somebody waits.
    pub(super) freed: Arc<Freed>,
    pub(super) metrics: Metrics,
}

/// Wakes the task that gives permits to those who wait.
#[derive(Default)]
pub(super) struct Freed(pub(super) Notify);

impl Wake for Freed {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Those who wait, by what they were told to wait with.
pub(super) type Book<T> = Mutex<HashMap<Ticket, oneshot::Sender<Answer<T>>>>;

/// What somebody waits for.
pub(super) trait Awaited: Sized {
    /// Who waits for one.
    fn book(shared: &Shared) -> &Book<Self>;

    /// Nobody waits for it any more.
    fn give_back(self);
}

impl Awaited for Taken {
    fn book(shared: &Shared) -> &Book<Self> {
        &shared.replies
    }

    fn give_back(self) {
        Taken::give_back(self);
    }
}

impl Awaited for Permit {
    fn book(shared: &Shared) -> &Book<Self> {
        &shared.openings
    }

    fn give_back(self) {
        drop(self); // and so it comes back
    }
}

/// A request that waits. Dropped, it gives back what it may have got.
struct Pending<'a, T: Awaited> {
    shared: &'a Shared,
    ticket: Ticket,
    reply: oneshot::Receiver<Answer<T>>,
}

impl<T: Awaited> Drop for Pending<'_, T> {
    fn drop(&mut self) {
        let is_unanswered = T::book(self.shared).lock().remove(&self.ticket).is_some();
        if is_unanswered {
            let renewal = self.shared.step(Event::GaveUp(self.ticket));
            debug_assert!(renewal.is_none(), "only time brings renewals");
        }
        // ORDER: closed first, so that an answer that comes now goes back to who sends it.
        self.reply.close();
        if let Ok(Answer::Admitted(got)) = self.reply.try_recv() {
            got.give_back();
        }
    }
}

impl Shared {
    /// Asks the core and waits for its answer, for so long at the most.
    async fn ask<T: Awaited>(&self, limit: LimitId, most: Duration, event: impl FnOnce(Ticket) -> Event) -> Answer<T> {
        let (sender, reply) = oneshot::channel();
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        T::book(self).lock().insert(ticket, sender);
        let mut pending = Pending { shared: self, ticket, reply };
        let renewal = self.step(event(ticket));
        debug_assert!(renewal.is_none(), "only time brings renewals");
        match timeout(most, &mut pending.reply).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Answer::Refused(Refused::Busy(limit)),
        }
    }

    /// Steps the core and does what it says; a renewal is left to whoever reaches the leader. The task is woken if it sleeps for longer than the core waits now.
    pub(super) fn step(&self, event: Event) -> Option<Renewal> {
        let mut effects = Vec::new();
        let is_sooner = {
            let mut core = self.core.lock();
            let before = core.next_wake();
            core.step(Clock.now(), event, &mut effects);
            core.next_wake() < before
        };
        if is_sooner {
            self.sooner.notify_one();
        }
        let mut renewal = None;
        for effect in effects {
            match effect {
                Effect::Send(to, message) => self.send(to, &message),
                Effect::Tell(told) => self.tell(&Message::Told(told)),
                Effect::Renew(it) => renewal = Some(it),
                Effect::Answer(ticket, answer) => self.answer(ticket, answer),
                Effect::Permit(ticket, answer) => self.answer(ticket, answer),
                Effect::Ignored(why) => self.metrics.ignored(why),
            }
        }
        renewal
    }

    pub(super) fn answer<T: Awaited>(&self, ticket: Ticket, answer: Answer<T>) {
        let reply = T::book(self).lock().remove(&ticket);
        let unheard = match reply {
            Some(reply) => reply.send(answer).err(),
            None => Some(answer),
        };
        if let Some(Answer::Admitted(got)) = unheard.filter(|_| !planted(Fault::LeftBehind)) {
            got.give_back();
        }
    }

    fn send(&self, to: Life, message: &Message) {
        let peers = self.peers.load();
        let peer = peers.get(&to.0).filter(|it| it.boot == to.1);
        if let (Some(peer), Some(transport), Ok(bytes)) = (peer, &self.transport, message.encode()) {
            self.metrics.said(message);
            let _ = transport.send(peer, Lane::Limits, bytes.into()); // counted there; units are asked for again
        }
    }

    pub(super) fn tell(&self, message: &Message) {
        let (Some(transport), Ok(bytes)) = (&self.transport, message.encode()) else { return };
        let bytes = bytes::Bytes::from(bytes);
        for peer in self.peers.load().values() {
            self.metrics.said(message);
            let _ = transport.send(peer, Lane::Limits, bytes.clone()); // counted there; it is told again
        }
    }
}
