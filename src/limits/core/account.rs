//! One limit at one node: its rights, window by window.
//!
//! Three windows are kept: the one at hand, whose units lie in the purse; the next, of which units are given and received ahead; and the last, whose rest is still good
//! for a node whose clock is behind. *Invariants.* 1. A window's share is fixed when it is first used or given from, and no mint changes it any more.
//! 2. Totals given to and received from one life only grow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Around;
use super::Ignored;
use super::Life;
use super::round::Waiting;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::limits::Mint;
use crate::limits::calendar::Place;
use crate::limits::faults::Fault;
use crate::limits::faults::planted;
use crate::limits::messages::Given;
use crate::limits::messages::Told;
use crate::limits::mint::UNITS_MAX;
use crate::limits::purse::Purse;

/// A limit that was asked for is looked at so many times a window: told, and its units given ahead.
const LOOKS: u32 = 20;
/// Looks at one limit are not closer than this: shorter windows than a second do not exist.
const LOOK_MIN: Duration = Duration::from_millis(50);
/// And not further: what peers believe of a long window is at most a second old.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// After so many looks peers are told again what has not changed: it may have been lost, or overtaken by something older.
const LOOKS_UNSAID: u32 = 5;

/// What one window has had. See [`Account`].
#[derive(Debug, Default)]
pub(super) struct Slot {
    window: u64,
    /// This node's own part, once it was used.
    share: Option<u64>,
    /// What is left; of the window at hand it lies in the purse.
    left: u64,
    pub(super) received: BTreeMap<Life, u64>,
    pub(super) given: BTreeMap<Life, u64>,
}

/// What was last heard of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) window: u64,
    pub(super) left: u64,
    pub(super) demand: u64,
}

impl Heard {
    /// What a member says, as far as it can be so. BOUND: what all of them say is added up.
    pub(super) fn of(window: u64, left: u64, demand: u64) -> Self {
        Self { window, left: left.min(UNITS_MAX), demand: demand.min(UNITS_MAX) }
    }
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) mint: Mint,
    pub(super) purse: Arc<Purse>,
    /// First window of which this life may use its share: an earlier one may have used it before.
    first: u64,
    /// First window that goes by the mint.
    pub(super) adopted_from: u64,
    at_hand: Option<u64>,
    /// By window, at most three.
    slots: Vec<Slot>,
    /// Units asked for when the window at hand began, and in the window before.
    asked_before: u64,
    demand_before: u64,
    /// BOUND: nodes of the mint; what is two windows old is dropped.
    pub(super) heard: BTreeMap<StorageId, Heard>,
    pub(super) waiting: Waiting,
    said: Option<(Instant, Told)>,
    /// The window for which units were given ahead.
    pub(super) ahead: u64,
    /// Looked at until the window after this one; a peer may want units, or clients do.
    active: u64,
    pub(super) look_at: Option<Instant>,
}

impl Account {
    /// `first`: first window of which the share may be used.
    pub(super) fn new(mint: Mint, around: &Around<'_>, first: u64) -> Self {
        let purse = Arc::new(Purse::new(mint.limit, mint.window_ms, *around.calendar));
        let mut account = Self {
            purse,
            first,
            adopted_from: 0,
            at_hand: None,
            slots: Vec::new(),
            asked_before: 0,
            demand_before: 0,
            heard: BTreeMap::new(),
            waiting: Waiting::default(),
            said: None,
            ahead: 0,
            active: 0,
            look_at: None,
            mint,
        };
        account.adopted_from = account.unused_from(around);
        account
    }

    pub(super) fn place(&self, around: &Around<'_>) -> Place {
        around.calendar.place(around.now, self.mint.window_ms)
    }

    /// First window in which no share was used yet by this life or the one before.
    fn unused_from(&self, around: &Around<'_>) -> u64 {
        let used = self.slots.iter().filter(|it| it.share.is_some()).map(|it| it.window + 1).max();
        let used = if planted(Fault::AdoptedInUse) { None } else { used };
        used.unwrap_or_default().max(self.place(around).window).max(self.first)
    }

    /// Goes by another mint from now on, in windows that were not begun.
    pub(super) fn adopt(&mut self, around: &Around<'_>, mint: Mint) {
        self.mint = mint;
        self.adopted_from = self.unused_from(around);
    }

    /// Begins the window that it is by now, if that was not done yet.
    pub(super) fn roll(&mut self, around: &Around<'_>) -> Place {
        let place = self.place(around);
        if self.at_hand.is_some_and(|it| it >= place.window) {
            return place;
        }
        let left = self.purse.open(place.window);
        if let Some(slot) = self.at_hand.and_then(|it| self.slot(it)) {
            slot.left = left;
        }
        let asked = self.purse.counters().asked;
        let was_last = self.at_hand.is_some_and(|it| it + 1 == place.window);
        self.demand_before = if was_last { asked - self.asked_before } else { 0 };
        self.asked_before = asked;
        self.at_hand = Some(place.window);
        self.slots.retain(|it| it.window + 1 >= place.window);
        self.heard.retain(|_, it| it.window + 2 >= place.window);
        let left = std::mem::take(&mut self.slot_or_new(place.window).left);
        self.purse.put(place.window, left);
        place
    }

    fn slot(&mut self, window: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|it| it.window == window)
    }

    pub(super) fn slot_or_new(&mut self, window: u64) -> &mut Slot {
        let at = self.slots.partition_point(|it| it.window < window);
        if self.slots.get(at).is_none_or(|it| it.window != window) {
            self.slots.insert(at, Slot { window, ..Slot::default() });
        }
        &mut self.slots[at]
    }

    /// Uses this node's share of the window at hand or the next, if it may and has not.
    pub(super) fn open(&mut self, around: &Around<'_>, window: u64) {
        let is_open = self.slot_or_new(window).share.is_some();
        if !is_open && around.is_held && window >= self.first {
            let share = self.mint.share(around.me.0, window);
            self.slot_or_new(window).share = Some(share);
            self.credit(window, share);
        }
    }

    /// What may be spent in a window that is not over: what is left, and, where nobody has asked in it yet, the share.
    pub(super) fn spendable(&self, around: &Around<'_>, window: u64) -> u64 {
        let is_open = self.slots.iter().any(|it| it.window == window && it.share.is_some());
        let to_come = if is_open || !around.is_held || window < self.first {
            0
        } else {
            self.mint.share(around.me.0, window).saturating_sub(self.purse.debt())
        };
        self.left(window) + to_come
    }

    /// Whether this node has a share of the window at hand.
    pub(super) fn is_open(&self) -> bool {
        self.slots.iter().any(|it| Some(it.window) == self.at_hand && it.share.is_some())
    }

    pub(super) fn credit(&mut self, window: u64, units: u64) {
        if self.at_hand == Some(window) {
            self.purse.put(window, units);
        } else {
            self.slot_or_new(window).left += units;
        }
    }

    /// Takes up to so many units out of a window.
    pub(super) fn debit(&mut self, window: u64, units: u64) -> u64 {
        if self.at_hand == Some(window) {
            return self.purse.take_back(window, units);
        }
        let left = &mut self.slot_or_new(window).left;
        let got = units.min(*left);
        *left -= got;
        got
    }

    pub(super) fn left(&self, window: u64) -> u64 {
        match self.slots.iter().find(|it| it.window == window) {
            Some(_) if self.at_hand == Some(window) => self.purse.left(window),
            Some(slot) => slot.left,
            None => 0,
        }
    }

    /// Gives units to another life: subtracted here before anybody hears of it.
    pub(super) fn give(&mut self, window: u64, to: Life, units: u64) -> Given {
        let got = if planted(Fault::GivenIsNotSubtracted) { units } else { self.debit(window, units) };
        let slot = self.slot_or_new(window);
        let total = slot.given.entry(to).or_default();
        *total += got;
        let total = *total;
        Given { limit: self.mint.limit, window, boot: to.1, total, left: self.left(window) }
    }

    /// A donor says how much it has given to this life in all.
    pub(super) fn receive(&mut self, around: &Around<'_>, from: Life, given: &Given) -> Result<(), Ignored> {
        if given.boot != around.me.1 && !planted(Fault::LivesAreOne) {
            return Err(Ignored::Stranger);
        }
        let window = self.roll(around).window;
        if !(window..=window + 1).contains(&given.window) {
            return Err(Ignored::Late);
        }
        let bound = self.mint.bound();
        let total = self.slot_or_new(given.window).received.entry(from).or_default();
        let known = if planted(Fault::TransferCountsAgain) { 0 } else { *total };
        let more = given.total.checked_sub(known).filter(|it| *it > 0).ok_or(Ignored::Late)?;
        if more > bound {
            return Err(Ignored::Absurd);
        }
        *total = given.total;
        self.credit(given.window, more);
        Ok(())
    }

    /// What one life has given to this node in a window.
    pub(super) fn had(&self, from: Life, window: u64) -> u64 {
        let slot = self.slots.iter().find(|it| it.window == window);
        slot.and_then(|it| it.received.get(&from)).copied().unwrap_or_default()
    }

    /// Units that are asked for in a window, about: the window at hand and, as far as it has not passed, the one before.
    pub(super) fn demand(&self, place: Place) -> u64 {
        let at_hand = self.purse.counters().asked - self.asked_before;
        let before = self.demand_before as f64 * (1.0 - place.passed);
        at_hand + before.round() as u64 + self.purse.debt()
    }

    /// How far apart looks are.
    pub(super) fn look_every(&self) -> Duration {
        let window = Duration::from_millis(u64::from(self.mint.window_ms));
        (window / LOOKS).clamp(LOOK_MIN, LOOK_MAX)
    }

    /// Somebody wants units of this limit, here or elsewhere: it is looked at from now on, until a window has passed without that.
    pub(super) fn wake(&mut self, around: &Around<'_>) {
        self.active = self.place(around).window;
        if self.look_at.is_none() {
            self.look_at = Some(around.now + self.look_every());
        }
    }

    /// Plans the next look, or none.
    pub(super) fn looked(&mut self, around: &Around<'_>, place: Place) {
        if self.demand(place) > 0 {
            self.active = place.window;
        }
        let begins = around.calendar.begins(around.now, self.mint.window_ms, place.window + 1);
        let next = (around.now + self.look_every()).min(begins);
        self.look_at = (self.active + 1 >= place.window).then_some(next);
    }

    /// What the others should know by now, if that is something else than they know.
    pub(super) fn say(&mut self, around: &Around<'_>, place: Place) -> Option<Told> {
        let (window, limit) = (place.window, self.mint.limit);
        let told = Told { limit, window, left: self.left(window), demand: self.demand(place) };
        let share = self.mint.share(around.me.0, window);
        // What a peer believes that hears nothing: the whole share in a new window, and the demand it heard of before.
        let known = match self.said {
            Some((_, said)) if said.window == window => said,
            Some((_, said)) => Told { left: share, ..said },
            None => Told { left: share, demand: 0, ..told },
        };
        let is_much = |a: u64, b: u64| a.abs_diff(b) > a.max(b) / 8;
        let is_news = is_much(told.left, known.left) || is_much(told.demand, known.demand);
        let is_old = self.said.is_some_and(|it| around.now - it.0 >= self.look_every() * LOOKS_UNSAID);
        let is_said = is_news || is_old;
        if is_said {
            self.said = Some((around.now, told));
        }
        is_said.then_some(told)
    }
}
