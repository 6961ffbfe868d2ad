//! What a leader does in office: it hears renewals, divides limits over those it hears, and answers with what was minted.
//!
//! *Ground state:* the group's log. *Derived:* all of this; it is made anew whenever a node takes office. *Invariant:* a limit that goes is first divided into nothing, and is
//! dropped only when nobody uses anything of it, so that one that is made anew under its number begins with nobody in it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use super::Holders;
use super::Ignored;
use super::Life;
use super::redivide;
use super::redivide::Turns;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::limits::MINTS_MAX;
use crate::limits::Definition;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::Settings;
use crate::limits::calendar::Calendar;
use crate::limits::faults::Fault;
use crate::limits::faults::planted;
use crate::limits::group::Change;
use crate::limits::group::Changes;
use crate::limits::group::Proposal;
use crate::limits::messages::GONE_LEN_MAX;
use crate::limits::messages::MINTS_LEN_MAX;
use crate::limits::messages::Renewal;
use crate::limits::messages::Renewed;
use crate::limits::mint::WINDOWS_APART_MAX;

/// Proposals made at a time. More, and a change of every limit keeps the group from anything else.
pub const PROPOSALS_LEN_MAX: usize = 32;
/// How long a leader hears renewals before it divides a limit that nobody has a share of: each node renews twice in it. Shorter, and the first to be heard has all of it, and
/// dividing it anew takes as long.
const GATHER: Duration = Duration::from_secs(1);
/// How long a definition must be missing before its limit goes. A node that was started anew may lead before it has heard of all definitions.
const MISSING: Duration = Duration::from_secs(30);
/// All limits are looked at so often; those that are pending, at each look. Longer, and a node that comes or is lost is noticed later.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a leader wants now.
#[derive(Debug, Default)]
pub struct Wanted {
    /// To be proposed. The next look waits for what becomes of them.
    pub proposals: Vec<Proposal>,
    /// Definitions that cannot be minted, if all were looked at: a limit too large, another kind or window under a number that was in use, or one more than the group keeps.
    pub unusable: Option<usize>,
}

/// See the file's header.
#[derive(Debug)]
pub struct Office {
    term: u64,
    holders: Holders,
    calendar: Calendar,
    /// When the first renewal was heard.
    heard: Option<Instant>,
    /// Whether a majority has confirmed this office, and all that was decided before it is known.
    is_confirmed: bool,
    book: Book,
    missing: BTreeMap<LimitId, Instant>,
    turns: Turns,
    look_at: Instant,
}

/// The last mint of every limit, in the order of the log.
#[derive(Debug, Default)]
struct Book {
    seen: u64,
    epoch_dropped: u64,
    mints: BTreeMap<LimitId, (u64, Mint)>,
    pending: BTreeSet<LimitId>,
    gone: BTreeMap<LimitId, u64>,
    order: BTreeMap<u64, LimitId>,
}

impl Book {
    fn learn(&mut self, changes: Changes) {
        self.epoch_dropped = changes.epoch_dropped;
        for (at, change) in changes.changes {
            let limit = match &change {
                Change::Minted(mint) => mint.limit,
                Change::Gone(limit) => *limit,
            };
            let before = self.mints.remove(&limit).map(|it| it.0).or_else(|| self.gone.remove(&limit));
            if let Some(at) = before {
                self.order.remove(&at);
            }
            self.pending.remove(&limit);
            self.order.insert(at, limit);
            match change {
                Change::Minted(mint) => {
                    if !mint.is_settled {
                        self.pending.insert(limit);
                    }
                    self.mints.insert(limit, (at, mint));
                }
                Change::Gone(limit) => drop(self.gone.insert(limit, at)),
            }
            self.seen = self.seen.max(at);
        }
        while self.gone.len() > GONE_LEN_MAX {
            let Some((limit, at)) = self.gone.iter().min_by_key(|it| *it.1).map(|it| (*it.0, *it.1)) else { break };
            self.gone.remove(&limit);
            self.order.remove(&at);
        }
    }
}

impl Office {
    /// A node takes office.
    #[must_use]
    pub fn new(now: Instant, term: u64, settings: Settings, calendar: Calendar) -> Self {
        let (book, missing, turns) = Default::default();
        let holders = Holders::new(now, settings);
        Self { term, holders, calendar, heard: None, is_confirmed: false, book, missing, turns, look_at: now }
    }

    /// In which term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether a majority has confirmed it once.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// Whether there is anything to divide, or to take back.
    #[must_use]
    pub fn has_mints(&self) -> bool {
        !self.book.mints.is_empty()
    }

    /// The newest entry that it knows.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.book.seen
    }

    /// This was decided.
    pub fn learn(&mut self, changes: Changes) {
        self.book.learn(changes);
    }

    /// A majority has confirmed it, and everything that was decided before was learned.
    pub fn confirmed(&mut self) {
        self.is_confirmed = true;
    }

    /// A renewal came. It is answered once a majority has confirmed this office after that.
    pub fn renewed(&mut self, now: Instant, from: Life, renewal: Renewal) -> Result<(), Ignored> {
        let short: Vec<LimitId> = renewal.uses.iter().filter(|it| it.wanted > 0).map(|it| it.limit).collect();
        self.holders.renewed(now, from, renewal)?;
        short.into_iter().filter(|it| self.book.mints.contains_key(it)).for_each(|it| self.turns.want(it));
        self.heard.get_or_insert(now);
        Ok(())
    }

    /// The answer to a renewal: what was minted since what that node has seen, as much as fits.
    #[must_use]
    pub fn answer(&self, number: u64, seen: u64) -> Renewed {
        let (mut mints, mut gone, mut last) = (Vec::new(), Vec::new(), seen);
        for (at, limit) in self.book.order.range(seen.saturating_add(1)..) {
            match self.book.mints.get(limit) {
                Some(_) if mints.len() >= MINTS_LEN_MAX => break,
                Some((_, mint)) => mints.push(mint.clone()),
                None => gone.push(*limit),
            }
            last = *at;
        }
        Renewed { number, seen: last, mints, gone }
    }

    /// All limits are to be looked at with the next look: definitions have changed.
    pub fn look_soon(&mut self, now: Instant) {
        self.look_at = now;
    }

    /// Looks at what is defined and at who holds what. Nothing is to be under way from an earlier look.
    pub fn look(&mut self, now: Instant, definitions: &[Definition]) -> Wanted {
        if !self.is_confirmed {
            return Wanted::default();
        }
        let ms = self.calendar.ms(now);
        if now < self.look_at {
            let pending = self.book.pending.iter().filter_map(|it| Some(&self.book.mints.get(it)?.1));
            let mut proposals: Vec<Proposal> =
                pending.filter_map(|it| self.settled(now, ms, it)).take(PROPOSALS_LEN_MAX).collect();
            self.redivide(now, ms, &mut proposals);
            return Wanted { proposals, unusable: None };
        }
        let defined: BTreeMap<LimitId, &Definition> = definitions.iter().map(|it| (it.limit, it)).collect();
        let (book, holders) = (&self.book, &self.holders);
        self.missing.retain(|it, _| book.mints.contains_key(it) && !defined.contains_key(it));
        let (mut proposals, mut unusable) = (Vec::new(), 0);
        for (limit, (_, mint)) in &book.mints {
            let same = (mint.revision, mint.units());
            let (revision, units) = match defined.get(limit) {
                Some(it) if (it.kind, it.window_ms) != (mint.kind, mint.window_ms) => {
                    unusable += 1;
                    same
                }
                // An older one is what this node has not heard the end of.
                Some(it) if it.revision < mint.revision && !planted(Fault::EditsGoBack) => same,
                Some(it) => (it.revision, it.units),
                None if now < *self.missing.entry(*limit).or_insert(now) + MISSING => same,
                None => (mint.revision, 0),
            };
            let window = ms.checked_div(u64::from(mint.window_ms)).unwrap_or_default();
            let has_come = window >= mint.from.saturating_add(WINDOWS_APART_MAX) || !mint.kind.has_windows();
            let is_over = mint.is_settled && has_come;
            let is_unused = mint.units() == 0 && mint.bound() == 0;
            let may_drop = is_over && is_unused || planted(Fault::DroppedInUse);
            if units == 0 && !defined.contains_key(limit) && may_drop {
                proposals.push(Proposal::Drop { seen: mint.epoch, limit: *limit });
                continue;
            }
            let over = holders.over(now, Some(mint));
            let next = if mint.kind.has_windows() {
                mint.next(revision, units, &over, window)
            } else if same == (revision, units) && is_over_the_same(mint, &over) {
                Ok(None) // who is short has its turn
            } else {
                redivide::next(now, holders, mint, (revision, units), &over)
            };
            match next {
                Ok(Some(next)) => proposals.push(Proposal::Mint { seen: mint.epoch, mint: next }),
                Ok(None) => proposals.extend(self.settled(now, ms, mint)),
                Err(_) => unusable += 1,
            }
        }
        let has_gathered = self.heard.is_some_and(|it| now >= it + GATHER);
        let (over, epoch) = (holders.over(now, None), book.epoch_dropped + 1);
        let new: Vec<_> = defined.values().filter(|it| !book.mints.contains_key(&it.limit)).collect();
        let is_early = !new.is_empty() && !has_gathered;
        // Beyond what the group keeps there is no use in asking: it would refuse each of them at every look.
        let room = MINTS_MAX.saturating_sub(book.mints.len());
        unusable += new.len().saturating_sub(room);
        for it in new.into_iter().take(room).filter(|_| has_gathered) {
            match Mint::first(it.limit, it.revision, epoch, (it.kind, it.window_ms), it.units, &over) {
                Ok(mint) if !mint.shares.is_empty() => proposals.push(Proposal::Mint { seen: 0, mint }),
                Ok(_nobody) => {}
                Err(_) => unusable += 1,
            }
        }
        // What is left over is found again by the next look.
        let is_all = proposals.len() <= PROPOSALS_LEN_MAX && !is_early;
        proposals.truncate(PROPOSALS_LEN_MAX);
        self.look_at = if is_all { now + LOOK_EVERY } else { now };
        self.redivide(now, ms, &mut proposals);
        Wanted { proposals, unusable: Some(unusable) }
    }

    /// Divides limits without windows of which somebody is short, as far as it is their turn and nothing else is proposed for them.
    fn redivide(&mut self, now: Instant, ms: u64, proposals: &mut Vec<Proposal>) {
        for limit in self.turns.due(now) {
            let Some((_, mint)) = self.book.mints.get(&limit).filter(|it| !it.1.kind.has_windows()) else { continue };
            let is_proposed = |it: &Proposal| matches!(it, Proposal::Mint { mint, .. } if mint.limit == limit);
            let is_settling = self.settled(now, ms, mint).is_some() || proposals.iter().any(is_proposed);
            if is_settling || proposals.len() >= PROPOSALS_LEN_MAX || !self.turns.may() {
                self.turns.want(limit);
                continue;
            }
            let over = self.holders.over(now, Some(mint));
            let next = redivide::next(now, &self.holders, mint, (mint.revision, mint.units()), &over).ok().flatten();
            self.turns.had(now, limit, next.is_some());
            proposals.extend(next.map(|next| Proposal::Mint { seen: mint.epoch, mint: next }));
        }
    }

    fn settled(&self, now: Instant, ms: u64, mint: &Mint) -> Option<Proposal> {
        let pending = Some(mint).filter(|it| !it.is_settled)?;
        let mint = pending.settled(self.holders.settles(now, ms, pending)?);
        Some(Proposal::Mint { seen: pending.epoch, mint })
    }
}

fn is_over_the_same(mint: &Mint, over: &BTreeSet<StorageId>) -> bool {
    mint.shares.iter().filter(|it| it.1.is_in).map(|it| it.0).eq(over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::limits::Kind;
    use crate::limits::faults::plant;
    use crate::limits::messages::Adopted;

    const LIMIT: LimitId = LimitId(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn definition(revision: u64, units: u64) -> Definition {
        Definition { limit: LIMIT, revision, kind: Kind::Requests, window_ms: 1000, units }
    }

    /// A leader, the log it writes, and two nodes that renew and go by what they hear.
    struct Stage {
        now: Instant,
        office: Office,
        entries: u64,
        number: u64,
        mint: Option<Mint>,
        epoch_dropped: u64,
    }

    impl Stage {
        fn new() -> Self {
            let now = Clock.now();
            let calendar = Calendar::new(now, Duration::from_secs(1000));
            let mut office = Office::new(now, 1, Settings::default(), calendar);
            office.confirmed();
            Self { now, office, entries: 0, number: 0, mint: None, epoch_dropped: 0 }
        }

        fn renew(&mut self) {
            self.number += 1;
            let window = self.office.calendar.place(self.now, 1000).window;
            let pending = self.mint.iter().filter(|it| !it.is_settled);
            let adopted: Vec<Adopted> =
                pending.map(|it| Adopted { limit: LIMIT, epoch: it.epoch, from: window + 1 }).collect();
            for storage in [1, 2] {
                let renewal = Renewal { number: self.number, adopted: adopted.clone(), ..Renewal::default() };
                self.office.renewed(self.now, (StorageId(storage), 1), renewal).unwrap();
            }
        }

        /// Lets a second pass: both renew, the office looks, and the group takes what it wants.
        fn pass(&mut self, definitions: &[Definition]) -> Wanted {
            self.now += SECOND;
            self.renew();
            let wanted = self.office.look(self.now, definitions);
            for proposal in &wanted.proposals {
                self.entries += 1;
                let change = match proposal.clone() {
                    Proposal::Mint { seen, mint } => {
                        assert_eq!(seen, self.mint.as_ref().map_or(0, |it| it.epoch));
                        mint.check(self.mint.as_ref()).expect("it follows the one before");
                        assert!(mint.epoch > self.epoch_dropped);
                        self.mint = Some(mint.clone());
                        Change::Minted(mint)
                    }
                    Proposal::Drop { seen, limit } => {
                        assert_eq!(self.mint.take().map(|it| it.epoch), Some(seen));
                        self.epoch_dropped = seen;
                        Change::Gone(limit)
                    }
                };
                self.office.learn(Changes { changes: vec![(self.entries, change)], epoch_dropped: self.epoch_dropped });
            }
            wanted
        }

        fn units(&self) -> Option<u64> {
            self.mint.as_ref().map(Mint::units)
        }
    }

    #[test]
    fn a_limit_is_divided_over_all_that_were_heard_in_a_second() {
        let mut stage = Stage::new();
        let limits = [definition(1, 20)];
        assert_eq!(stage.office.look(stage.now, &limits).proposals, [], "nobody was heard");
        stage.renew();
        assert_eq!(stage.office.look(stage.now + SECOND / 2, &limits).proposals, [], "others may come");
        stage.pass(&limits);
        let shares: Vec<u64> = stage.mint.iter().flat_map(|it| it.shares.values().map(|it| it.units)).collect();
        assert_eq!(shares, [10, 10]);
        assert_eq!(stage.pass(&limits).proposals, []);
    }

    #[test]
    fn nothing_is_wanted_before_a_majority_has_confirmed_the_office() {
        let mut stage = Stage::new();
        stage.office = Office::new(stage.now, 2, Settings::default(), stage.office.calendar);
        stage.renew();
        let wanted = stage.office.look(stage.now + 2 * SECOND, &[definition(1, 20)]);
        assert!(wanted.proposals.is_empty() && wanted.unusable.is_none());
    }

    #[test]
    fn more_limits_than_the_group_keeps_are_counted_and_not_asked_for() {
        let mut stage = Stage::new();
        let some = Mint::first(LIMIT, 1, 1, (Kind::Requests, 1000), 9, &[StorageId(1)].into()).unwrap();
        let kept = |it: u64| (it, Change::Minted(Mint { limit: LimitId(it), ..some.clone() }));
        let changes = (1..MINTS_MAX as u64).map(kept).collect();
        stage.office.learn(Changes { changes, epoch_dropped: 0 });
        let defined: Vec<Definition> =
            (1..MINTS_MAX as u64 + 10).map(|it| Definition { limit: LimitId(it), ..definition(1, 9) }).collect();
        stage.renew();
        let wanted = stage.office.look(stage.now + 2 * SECOND, &defined);
        let new = wanted.proposals.iter().filter(|it| matches!(it, Proposal::Mint { seen: 0, .. })).count();
        assert!(new <= 1, "{new} are asked for where one has room");
        assert_eq!(wanted.unusable, Some(9));
    }

    fn goes_when_nobody_uses_it() {
        let mut stage = Stage::new();
        for _ in 0..3 {
            stage.pass(&[definition(1, 20)]);
        }
        assert_eq!(stage.units(), Some(20));
        for _ in 0..29 {
            stage.pass(&[]);
        }
        assert_eq!(stage.units(), Some(20), "the definition may only not have come here yet");
        let mut divided = Vec::new();
        while stage.mint.is_some() && divided.len() < 20 {
            stage.pass(&[]);
            divided.push(stage.mint.as_ref().map(|it| (it.units(), it.is_settled)));
        }
        // Into nothing, which both have to say they go by, and for as long as clocks may be apart.
        assert!(divided.contains(&Some((0, false))) && divided.contains(&Some((0, true))), "{divided:?}");
        assert!(divided.len() > WINDOWS_APART_MAX as usize, "{divided:?}");
        assert_eq!(stage.office.answer(9, 0).gone, [LIMIT]);
        assert!(!stage.office.has_mints());
        // Under its number another begins above it.
        stage.pass(&[definition(9, 7)]);
        assert_eq!((stage.units(), stage.mint.as_ref().map(|it| it.epoch)), (Some(7), Some(stage.epoch_dropped + 1)));
        assert_eq!(stage.office.answer(9, 0).gone, []);
    }

    #[test]
    fn a_limit_goes_when_nobody_uses_it_and_another_may_begin_under_its_number() {
        goes_when_nobody_uses_it();
    }

    fn an_older_edit_is_not_gone_back_to() {
        let mut stage = Stage::new();
        for _ in 0..3 {
            stage.pass(&[definition(5, 20)]);
        }
        stage.pass(&[definition(4, 90)]);
        assert_eq!(stage.units(), Some(20));
        stage.pass(&[definition(6, 30)]);
        assert_eq!(stage.units(), Some(30));
    }

    #[test]
    fn a_leader_that_has_not_heard_of_an_edit_does_not_take_it_back() {
        an_older_edit_is_not_gone_back_to();
    }

    #[test]
    fn a_definition_that_cannot_be_minted_is_counted_and_harms_no_other() {
        let mut stage = Stage::new();
        let large = Definition { limit: LimitId(2), units: u64::MAX, ..definition(1, 1) };
        let wanted = (0..3).map(|_| stage.pass(&[definition(1, 20), large])).last().unwrap();
        assert_eq!((wanted.unusable, stage.units()), (Some(1), Some(20)));
        let other = Definition { window_ms: 60_000, ..definition(2, 20) };
        assert_eq!(stage.pass(&[other]).unusable, Some(1), "another window needs another number");
        assert_eq!(stage.units(), Some(20));
    }

    #[test]
    fn many_limits_are_divided_by_and_by_and_told_in_parts() {
        let mut stage = Stage::new();
        let limits: Vec<Definition> =
            (0..300).map(|it| Definition { limit: LimitId(it), ..definition(1, 20) }).collect();
        let (mut asked, mut looks) = (0, 0);
        while asked < limits.len() && looks < 30 {
            stage.now += SECOND;
            stage.renew();
            let wanted = stage.office.look(stage.now, &limits);
            assert!(wanted.proposals.len() <= PROPOSALS_LEN_MAX);
            for proposal in wanted.proposals {
                let Proposal::Mint { seen: 0, mint } = proposal else { panic!("{proposal:?}") };
                asked += 1;
                let changes = vec![(asked as u64, Change::Minted(mint))];
                stage.office.learn(Changes { changes, epoch_dropped: 0 });
            }
            looks += 1;
        }
        assert_eq!(asked, 300);
        let first = stage.office.answer(1, 0);
        assert_eq!((first.mints.len(), first.seen), (MINTS_LEN_MAX, MINTS_LEN_MAX as u64));
        let last = stage.office.answer(2, 290);
        assert_eq!((last.mints.len(), last.seen, stage.office.answer(3, 300).seen), (10, 300, 300));
    }

    #[test]
    fn planted_bugs_of_the_office_are_seen() {
        let tests: [(Fault, fn()); 2] =
            [(Fault::DroppedInUse, goes_when_nobody_uses_it), (Fault::EditsGoBack, an_older_edit_is_not_gone_back_to)];
        for (fault, test) in tests {
            plant(Some(fault));
            let passed = std::panic::catch_unwind(test).is_ok();
            plant(None);
            assert!(!passed, "{fault:?} was not seen");
        }
    }
}
