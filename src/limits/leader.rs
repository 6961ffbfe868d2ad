//! What the driver does while this node leads the control group: it answers renewals once the office is confirmed, and proposes what the office wants.
//!
//! One confirmation at a time serves all renewals that came before it began; those that come meanwhile wait for the next. *Invariant:* a renewal is answered only after a
//! majority has confirmed, since it came, the office in which it was heard.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Definition;
use super::Settings;
use super::calendar::Calendar;
use super::core::Ignored;
use super::core::Life;
use super::core::Office;
use super::faults::Fault;
use super::faults::planted;
use super::group::Group;
use super::group::Proposed;
use super::messages::Renewal;
use super::messages::Renewed;
use super::metrics::Metrics;
use crate::base::clock::Instant;
use crate::transport::Reply;

/// Between two looks at what is pending. Longer, and a change takes force later by as much.
const TICK: Duration = Duration::from_millis(100);
/// Others are told of news this often at most: each answers with a renewal. Between two looks it is told at the second.
const NEWS_EVERY: Duration = Duration::from_millis(50);
/// Pending mints that are looked at as soon as a node says that it goes by them. More are looked at with the next tick: that takes longer.
const URGENT_LEN_MAX: usize = 32;
/// Renewals that wait to be answered. Beyond it they are not, and counted: the next ones come in half a second.
const WAITING_LEN_MAX: usize = 1024;

/// Where an answer goes.
pub(super) enum Way {
    /// To another node.
    Peer(Reply),
    /// To this one.
    Own(oneshot::Sender<Renewed>),
}

struct Waiting {
    number: u64,
    seen: u64,
    way: Way,
}

/// See the file's header.
pub(super) struct Leader {
    group: Arc<dyn Group>,
    settings: Settings,
    calendar: Calendar,
    metrics: Metrics,
    office: Option<Office>,
    /// What came after the confirmation began that is under way. BOUND: [`WAITING_LEN_MAX`].
    waiting: Vec<Waiting>,
    /// What came before it. BOUND: the same.
    covered: Vec<Waiting>,
    /// For which term, and whether it was. BOUND: one at a time.
    confirming: JoinSet<(u64, bool)>,
    /// BOUND: those of one look.
    proposing: JoinSet<Proposed>,
    tick_at: Option<Instant>,
    /// The newest entry that others were told of, and when.
    told: Option<(u64, Instant)>,
}

/// What became of something that was under way.
pub(super) enum Done {
    Confirmed(u64, bool),
    Proposed(Proposed),
}

impl Leader {
    pub(super) fn new(group: Arc<dyn Group>, settings: Settings, calendar: Calendar, metrics: Metrics) -> Self {
        let (waiting, covered, confirming, proposing) = Default::default();
        let (office, tick_at, told) = (None, None, None);
        Self { group, settings, calendar, metrics, office, waiting, covered, confirming, proposing, tick_at, told }
    }

    /// When [`Leader::tick`] is due, while this node leads and there is something to divide.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.tick_at
    }

    /// Something that was under way has ended. Waits for ever while nothing is.
    pub(super) async fn done(&mut self) -> Done {
        loop {
            tokio::select! {
                Some(Ok((term, is_confirmed))) = self.confirming.join_next() => return Done::Confirmed(term, is_confirmed),
                Some(Ok(proposed)) = self.proposing.join_next() => return Done::Proposed(proposed),
                else => std::future::pending().await,
            }
        }
    }

    /// Takes office, or leaves it, as the group has it.
    pub(super) fn see(&mut self, now: Instant) {
        let term = self.group.leads();
        if self.office.as_ref().map(Office::term) == term {
            return;
        }
        // Whoever waits hears that there is no answer, and renews where another leads.
        self.waiting.clear();
        self.covered.clear();
        self.office = term.map(|it| Office::new(now, it, self.settings, self.calendar));
        self.tick_at = self.office.as_ref().map(|_| now);
        self.told = None;
        if self.office.is_none() {
            self.metrics.unusable(0);
        }
        self.confirm();
    }

    /// A node renews its shares.
    pub(super) fn hear(&mut self, now: Instant, from: Life, renewal: Renewal, way: Way) {
        self.see(now);
        let Some(office) = &mut self.office else { return };
        let (number, seen) = (renewal.number, renewal.seen);
        // A request waits for what is to be divided, or somebody for who goes by it now.
        let is_urgent = !renewal.adopted.is_empty() && renewal.adopted.len() <= URGENT_LEN_MAX
            || renewal.uses.iter().any(|it| it.wanted > 0);
        if self.waiting.len() >= WAITING_LEN_MAX {
            self.metrics.ignored(Ignored::TooMany);
            return;
        }
        match office.renewed(now, from, renewal) {
            Ok(()) => self.waiting.push(Waiting { number, seen, way }),
            Err(why) => self.metrics.ignored(why),
        }
        let tick_at = self.tick_at.get_or_insert(now);
        if is_urgent {
            *tick_at = now;
        }
        self.confirm();
    }

    /// The newest entry, if it is time to tell others that there is one: they renew then, and need not wait until they would.
    pub(super) fn news(&mut self, now: Instant) -> Option<u64> {
        let seen = self.office.as_ref().filter(|it| it.is_confirmed())?.seen();
        let is_news = self.told.is_none_or(|it| it.0 < seen && now >= it.1 + NEWS_EVERY);
        if is_news {
            self.told = Some((seen, now));
        }
        is_news.then_some(seen)
    }

    /// Has the office confirmed, if somebody waits for it and nothing is under way.
    fn confirm(&mut self) {
        let Some(office) = &self.office else { return };
        let is_wanted = !self.waiting.is_empty() || !office.is_confirmed();
        if is_wanted && self.confirming.is_empty() {
            self.covered = std::mem::take(&mut self.waiting);
            let (group, term) = (Arc::clone(&self.group), office.term());
            self.confirming.spawn(async move { (term, group.confirm(term).await) });
        }
    }

    /// Something has ended.
    pub(super) fn take(&mut self, now: Instant, done: Done) {
        match done {
            Done::Confirmed(term, is_confirmed) => self.confirmed(now, term, is_confirmed),
            Done::Proposed(how) => {
                self.metrics.proposed(how);
                self.learn();
                self.tick_at = self.tick_at.map(|_| now);
            }
        }
    }

    fn confirmed(&mut self, now: Instant, term: u64, is_confirmed: bool) {
        self.see(now);
        let mut covered = std::mem::take(&mut self.covered);
        if planted(Fault::ConfirmedBefore) {
            covered.append(&mut self.waiting);
        }
        if is_confirmed && self.office.as_ref().is_some_and(|it| it.term() == term) {
            self.learn();
            let Some(office) = &mut self.office else { return };
            office.confirmed();
            for Waiting { number, seen, way } in covered {
                let renewed = office.answer(number, seen);
                match way {
                    Way::Own(reply) => drop(reply.send(renewed)), // gone: the node stops
                    Way::Peer(reply) => {
                        if let Ok(bytes) = renewed.encode() {
                            reply.send(bytes.into());
                        }
                    }
                }
            }
            self.tick_at = Some(now);
        }
        if !self.waiting.is_empty() {
            self.confirm();
        }
    }

    fn learn(&mut self) {
        if let Some(office) = &mut self.office {
            office.learn(self.group.changes(office.seen()));
        }
    }

    /// All limits are to be looked at: definitions have changed.
    pub(super) fn defined(&mut self, now: Instant) {
        if let Some(office) = &mut self.office {
            office.look_soon(now);
            self.tick_at = Some(now);
        }
    }

    /// Proposes what the office wants, once what it wanted before is decided.
    pub(super) fn tick(&mut self, now: Instant, definitions: &[Definition]) {
        self.see(now);
        self.confirm();
        let Some(office) = &mut self.office else { return };
        let is_idle = definitions.is_empty() && office.is_confirmed() && !office.has_mints();
        self.tick_at = (!is_idle).then_some(now + TICK);
        if !self.proposing.is_empty() {
            return;
        }
        let wanted = office.look(now, definitions);
        if let Some(unusable) = wanted.unusable {
            self.metrics.unusable(unusable);
        }
        let term = office.term();
        for proposal in wanted.proposals {
            let group = Arc::clone(&self.group);
            self.proposing.spawn(async move { group.propose(term, proposal).await });
        }
    }
}
