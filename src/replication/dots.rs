//! Who did what: dots name events, sets of dots are causal contexts.
//!
//! An actor is one life of one data directory, so no event is ever named twice: not by a restart, not by an old backup that
//! is started again. A set keeps runs of consecutive counts, so a context that has no gaps costs a few bytes for each life that
//! ever edited, however many edits there were: that is its compaction, and it needs no agreement.
//! *Invariant:* runs are sorted, disjoint and not adjacent, also when read from the wire, so equal sets have equal bytes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::base::ids::StorageId;

/// One life of one data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The directory.
    pub storage: StorageId,
    /// How often it was started.
    pub boot: u64,
}

/// One event of one actor. Counts begin at 1, and none that comes from a wire or a disk is above [`COUNT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "WireDot")]
pub struct Dot {
    /// Whose.
    pub actor: Actor,
    /// Its number.
    pub count: u64,
}

/// First and last count of a run, both in it.
type Run = (u64, u64);

/// A set of dots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Dots(BTreeMap<Actor, Vec<Run>>);

impl Dots {
    /// Whether the dot is in it.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.0.get(&dot.actor).is_some_and(|runs| has(runs, (dot.count, dot.count)))
    }

    /// Adds one.
    pub fn insert(&mut self, dot: Dot) {
        add(self.0.entry(dot.actor).or_default(), (dot.count, dot.count));
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        for (actor, theirs) in &other.0 {
            let runs = self.0.entry(*actor).or_default();
            theirs.iter().for_each(|run| add(runs, *run));
        }
    }

    /// Takes all of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        for (actor, theirs) in &other.0 {
            let Some(runs) = self.0.get_mut(actor) else { continue };
            for gone in theirs {
                *runs = runs.iter().flat_map(|run| without(*run, *gone)).flatten().collect();
            }
            if runs.is_empty() {
                self.0.remove(actor);
            }
        }
    }

    /// Whether every dot of `other` is in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(actor, theirs)| {
            let runs = self.0.get(actor).map_or(&[][..], Vec::as_slice);
            theirs.iter().all(|run| has(runs, *run))
        })
    }

    /// The actor's next dot.
    #[must_use]
    pub fn next(&self, actor: Actor) -> Dot {
        let last = self.0.get(&actor).and_then(|runs| runs.last()).map_or(0, |run| run.1);
        Dot { actor, count: last + 1 }
    }

    /// How many actors have a dot in it.
    #[must_use]
    pub fn actors(&self) -> usize {
        self.0.len()
    }

    /// How many runs it has: what it costs.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Dot> for Dots {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut set = Self::default();
        dots.into_iter().for_each(|dot| set.insert(dot));
        set
    }
}

fn has(runs: &[Run], run: Run) -> bool {
    let at = runs.partition_point(|it| it.1 < run.0);
    runs.get(at).is_some_and(|it| it.0 <= run.0 && run.1 <= it.1)
}

fn add(runs: &mut Vec<Run>, run: Run) {
    let from = runs.partition_point(|it| it.1 + 1 < run.0);
    let touching = runs[from..].iter().take_while(|it| it.0 <= run.1 + 1);
    let (to, joined) = touching.fold((from, run), |(to, all), it| (to + 1, (all.0.min(it.0), all.1.max(it.1))));
    runs.splice(from..to, [joined]);
}

fn without(run: Run, gone: Run) -> [Option<Run>; 2] {
    if gone.1 < run.0 || run.1 < gone.0 {
        return [Some(run), None];
    }
    let before = (run.0 < gone.0).then(|| (run.0, gone.0 - 1));
    let after = (gone.1 < run.1).then(|| (gone.1 + 1, run.1));
    [before, after]
}

/// As it travels: lives grouped by directory, runs as (gap before it, length less one).
#[derive(Clone, Serialize, Deserialize)]
struct Wire(Vec<(StorageId, Lives)>);

/// Boots of one storage, each with its runs.
type Lives = Vec<(u64, Vec<(u64, u64)>)>;

/// A dot as it travels: a context with a count that cannot be one would be read back by nobody, not by who keeps it either.
#[derive(Deserialize)]
struct WireDot {
    actor: Actor,
    count: u64,
}

impl TryFrom<WireDot> for Dot {
    type Error = OutOfRange;

    fn try_from(WireDot { actor, count }: WireDot) -> Result<Self, OutOfRange> {
        if (1..=COUNT_MAX).contains(&count) { Ok(Self { actor, count }) } else { Err(OutOfRange) }
    }
}

/// A count that cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("a count is out of range")]
struct OutOfRange;

/// Counts are far below this, so that `+ 1` never overflows.
const COUNT_MAX: u64 = 1 << 62;

impl From<Dots> for Wire {
    fn from(dots: Dots) -> Self {
        let mut storages: Vec<(StorageId, Lives)> = Vec::new();
        for (actor, runs) in dots.0 {
            let mut end = 0;
            let gaps = runs.iter().map(|(from, to)| (from - std::mem::replace(&mut end, *to), to - from)).collect();
            match storages.last_mut().filter(|(storage, _)| *storage == actor.storage) {
                Some((_, boots)) => boots.push((actor.boot, gaps)),
                None => storages.push((actor.storage, vec![(actor.boot, gaps)])),
            }
        }
        Self(storages)
    }
}

impl TryFrom<Wire> for Dots {
    type Error = OutOfRange;

    fn try_from(wire: Wire) -> Result<Self, OutOfRange> {
        let mut dots = Self::default();
        for (storage, boots) in wire.0 {
            for (boot, gaps) in boots {
                let (mut end, mut runs) = (0u64, Vec::new());
                for (gap, more) in gaps {
                    let from = end.checked_add(gap).filter(|from| gap > 0 && *from <= COUNT_MAX).ok_or(OutOfRange)?;
                    end = from.checked_add(more).filter(|to| *to <= COUNT_MAX).ok_or(OutOfRange)?;
                    add(&mut runs, (from, end));
                }
                if !runs.is_empty() {
                    let known = dots.0.entry(Actor { storage, boot }).or_default();
                    runs.into_iter().for_each(|run| add(known, run));
                }
            }
        }
        Ok(dots)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::transport::wire;

    fn dots() -> impl Strategy<Value = BTreeSet<(u8, u8, u8)>> {
        proptest::collection::btree_set((0..2u8, 0..2u8, 1..12u8), 0..24)
    }

    fn dot((storage, boot, count): (u8, u8, u8)) -> Dot {
        let actor = Actor { storage: StorageId(storage.into()), boot: boot.into() };
        Dot { actor, count: count.into() }
    }

    fn set(of: &BTreeSet<(u8, u8, u8)>) -> Dots {
        of.iter().copied().map(dot).collect()
    }

    proptest! {
        #[test]
        fn it_does_what_a_set_does(a in dots(), b in dots()) {
            let (mut sum, mut rest) = (set(&a), set(&a));
            sum.union(&set(&b));
            rest.subtract(&set(&b));
            prop_assert_eq!(&sum, &set(&a.union(&b).copied().collect()));
            prop_assert_eq!(&rest, &set(&a.difference(&b).copied().collect()));
            prop_assert_eq!(set(&a).covers(&set(&b)), a.is_superset(&b));
            prop_assert!(sum.covers(&set(&b)) && b.iter().all(|it| sum.contains(dot(*it))));
        }

        #[test]
        fn union_is_the_oracles_where_there_are_no_gaps(a in 0..20u64, b in 0..20u64, c in 0..20u64) {
            use crdts::CvRDT as _;
            let clock = |x: u64, y: u64| {
                let mut clock = crdts::VClock::<u8>::new();
                clock.dots.extend([(0, x), (1, y)].into_iter().filter(|it| it.1 > 0));
                clock
            };
            let ours = |x: u64, y: u64| -> Dots {
                let actor = |boot| Actor { storage: StorageId(0), boot };
                let of = |boot, n| (1..=n).map(move |count| Dot { actor: actor(boot), count });
                of(0, x).chain(of(1, y)).collect()
            };
            let (mut theirs, mut mine) = (clock(a, b), ours(a, b));
            theirs.merge(clock(b, c));
            mine.union(&ours(b, c));
            prop_assert_eq!(mine, ours(theirs.get(&0), theirs.get(&1)));
        }

        #[test]
        fn it_is_read_back_as_written_and_garbage_makes_no_broken_set(a in dots(), garbage in any::<Vec<u8>>()) {
            let bytes = wire::encode(&set(&a)).unwrap();
            prop_assert_eq!(wire::decode::<Dots, 65536>(&bytes).unwrap(), set(&a));
            let garbage = [&[wire::VERSION], &garbage[..]].concat();
            if let Ok(read) = wire::decode::<Dots, 65536>(&garbage) {
                let again = wire::encode(&read).unwrap();
                prop_assert_eq!(wire::decode::<Dots, 65536>(&again).unwrap(), read);
            }
        }
    }

    #[test]
    fn a_dot_whose_count_cannot_be_one_is_refused() {
        let of = |count| Dot { actor: Actor { storage: StorageId(1), boot: 1 }, count };
        let read = |count| wire::decode::<Dot, 64>(&wire::encode(&of(count)).unwrap()).ok();
        assert_eq!([1, COUNT_MAX].map(read), [1, COUNT_MAX].map(|it| Some(of(it))));
        assert_eq!([0, COUNT_MAX + 1, u64::MAX].map(read), [None; 3]);
    }

    #[test]
    fn a_million_edits_of_one_life_cost_a_few_bytes() {
        let mut dots = Dots::default();
        (1..=1_000_000).for_each(|count| dots.insert(Dot { actor: Actor { storage: StorageId(7), boot: 1 }, count }));
        assert_eq!((dots.runs(), wire::encode(&dots).unwrap().len()), (1, 12));
    }
}
