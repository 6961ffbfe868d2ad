//! The decisions of the ledgers. One node plays three parts: it *tells* owners what it has in flight (`teller`), it *keeps* the ledgers of some workers
//! (`books`), and it *asks* the owners of others (`patience`). Who owns what follows from the members alone (`order`).
//!
//! *Ground state:* accounts of members, what was told to whom. *Derived:* owners. All of it may be lost: the next reports bring it back.

mod books;
pub mod gossip;
mod order;
mod patience;
mod teller;

use std::sync::Arc;
use std::time::Duration;

use self::books::Books;
use self::order::View;
use self::order::Views;
use self::patience::Patience;
use self::teller::Teller;
use super::InFlight;
use super::messages::Commit;
use super::messages::Message;
use super::messages::Probe;
use super::messages::Report;
use super::messages::Said;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::observability::labels::label;
use crate::transport::Peer;

pub use books::Life;
pub use order::Owners;

/// A step that comes later than this after the one before: this node did not run. Two of its own steps are half a second apart at most.
const SLEEP_MIN: Duration = Duration::from_millis(750);

label! {
    /// Why something that was said changed nothing, or was not passed on.
    pub enum Ignored {
        /// It came twice, or after something later.
        Late = "late",
        /// Who said it is no member here, or was started anew since.
        Stranger = "stranger",
        /// More commits than are kept between two reports.
        TooMany = "too_many",
        /// It could not be read.
        Unreadable = "unreadable",
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// These members are to be spoken to now, this node included.
    Members(Vec<Arc<Peer>>),
    /// Time has passed.
    Wake,
    /// All that this node has in flight, as counted after `number` was drawn. Workers without load are named, too.
    Looked {
        /// See [`Report::number`].
        number: u64,
        /// Each worker.
        loads: Vec<(WorkerId, InFlight)>,
    },
    /// This node has begun a request.
    Started(Commit),
    /// A member says what it has in flight.
    Reported(Life, Report),
    /// A member has begun requests.
    Committed(Life, Vec<Commit>),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Say this.
    Send(Arc<Peer>, Message),
    /// Count this.
    Ignored(Ignored),
}

/// Where a worker's ledger is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Here.
    Here(Said),
    /// There.
    Ask(Arc<Peer>),
    /// Nowhere: neither of its owners answers.
    Nobody,
}

/// One node's part in the ledgers.
#[derive(Debug)]
pub struct Core {
    me: Life,
    views: Views,
    books: Books,
    teller: Teller,
    patience: Patience,
    last_step: Instant,
}

impl Core {
    /// A node that is alone so far.
    #[must_use]
    pub fn new(now: Instant, me: Life) -> Self {
        let (views, books, patience) = Default::default();
        Self { me, views, books, teller: Teller::new(now), patience, last_step: now }
    }

    /// When the next step is due if nothing happens before; none: this node is alone.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        if self.is_alone() { None } else { Some(self.teller.next_wake()) }
    }

    /// Whether the next step should be [`Event::Looked`].
    #[must_use]
    pub fn wants_look(&self, now: Instant) -> bool {
        !self.is_alone() && now >= self.teller.look_at()
    }

    /// Whether there is nobody to tell and to ask.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.views.now().members.len() < 2
    }

    /// Takes one event.
    pub fn step(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.last_step, now));
        if gap > SLEEP_MIN && !self.is_alone() {
            self.books.slept(now);
        }
        match event {
            Event::Members(members) => self.members(now, members),
            Event::Wake => self.teller.flush(now, self.views.now(), effects),
            Event::Looked { number, loads } => self.looked(now, number, &loads, effects),
            Event::Started(commit) => {
                effects.extend(self.books.commit(self.me, commit).err().map(Effect::Ignored));
                self.teller.started(now, self.me.0, self.views.now(), commit, effects);
            }
            Event::Reported(from, report) => {
                effects.extend(self.books.report(now, from, &report).err().map(Effect::Ignored));
            }
            Event::Committed(from, commits) => {
                for commit in commits {
                    effects.extend(self.books.commit(from, commit).err().map(Effect::Ignored));
                }
            }
        }
    }

    fn members(&mut self, now: Instant, members: Vec<Arc<Peer>>) {
        let view = View::new(members);
        let is_same = |a: &View, b: &View| a.members.iter().map(|it| &**it).eq(b.members.iter().map(|it| &**it));
        if is_same(&view, self.views.now()) {
            return;
        }
        self.books.members(now, view.members.iter().map(|it| (it.storage, it.boot)));
        self.patience.keep(|it| view.get(it).is_some());
        self.teller.members(now, &view, self.me.0);
        self.views.set(view);
    }

    fn looked(&mut self, now: Instant, number: u64, loads: &[(WorkerId, InFlight)], effects: &mut Vec<Effect>) {
        let some = loads.iter().filter(|it| !it.1.is_none()).map(|it| (it.0.0, it.1)).collect();
        let own = Report { number, view: self.views.now().hash, is_complete: true, loads: some };
        effects.extend(self.books.report(now, self.me, &own).err().map(Effect::Ignored));
        self.teller.looked(now, self.me.0, self.views.now(), number, loads, effects);
    }

    /// What this node, as an owner, says to `asker` of a worker.
    #[must_use]
    pub fn said(&self, now: Instant, asker: StorageId, worker: WorkerId) -> Said {
        self.books.said(now, self.me.0, &self.views, asker, worker)
    }

    /// Where this node reads a worker's ledger.
    #[must_use]
    pub fn plan(&mut self, now: Instant, worker: WorkerId) -> Plan {
        let view = self.views.now();
        match self.patience.whom(now, self.teller.owners_of(view, worker)) {
            Some(owner) if owner == self.me.0 => Plan::Here(self.said(now, self.me.0, worker)),
            Some(owner) => view.get(owner).map_or(Plan::Nobody, |it| Plan::Ask(Arc::clone(it))),
            None => Plan::Nobody,
        }
    }

    /// The question to an owner. What was begun since it was last told goes with it.
    #[must_use]
    pub fn question(&mut self, owner: StorageId, workers: Vec<u64>) -> Message {
        Message::Probe(Probe { workers, begun: self.teller.riding(owner) })
    }

    /// An owner answered.
    pub fn answered(&mut self, owner: StorageId) {
        self.patience.answered(owner);
    }

    /// An owner that was asked at `since` did not answer within `limit`. True: it is not asked for a while.
    pub fn missed(&mut self, now: Instant, owner: StorageId, since: Instant, limit: Duration) -> bool {
        self.patience.missed(now, owner, since, limit)
    }

    /// Who keeps a worker's ledger.
    #[must_use]
    pub fn owners(&self, worker: WorkerId) -> Owners {
        self.views.now().owners(worker)
    }
}
