//! Whether there is an order: each operation takes effect at one moment between its beginning and its end, and all answers fit. Wing and Gong's search, with Lowe's memory of what was tried.
//!
//! Operations of which nobody knows have no end: they may take effect at any moment after they began, or never. What was tried is kept as it is, the set and the state, and compared exactly: a hash alone
//! would now and then take one for another.

use std::collections::HashSet;
use std::hash::Hash;

/// What is thought to be there, and what operations do to it.
pub(super) trait Model {
    type Op;
    type State: Clone + Eq + Hash;
    fn initial(&self) -> Self::State;
    /// The state after it; `None`: it cannot have been answered so in this state.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;
}

/// An operation and when it was.
#[derive(Clone, Debug)]
pub(super) struct Call<O> {
    pub(super) began: u64,
    /// `None`: nobody knows whether it took effect.
    pub(super) ended: Option<u64>,
    pub(super) op: O,
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is an order.
    Order,
    /// There is none; this operation could not be fitted in where the search came furthest.
    None(usize),
    /// It was not found within the budget.
    TooMuch,
}

/// Beginnings and ends in a list from which they are taken out, and put back where they were.
struct List {
    /// Operation, and whether it is its beginning.
    entries: Vec<(usize, bool)>,
    next: Vec<usize>,
    prev: Vec<usize>,
    /// Where the end of an operation is.
    end_of: Vec<Option<usize>>,
}

impl List {
    /// Place 0 is before the first, and the place after the last one ends it.
    fn new<O>(calls: &[Call<O>]) -> Self {
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            times.push((call.began, false, at));
            times.extend(call.ended.map(|it| (it, true, at)));
        }
        times.sort_unstable(); // of one moment beginnings come first: those overlap
        let entries: Vec<_> = times.into_iter().map(|(_, is_end, at)| (at, !is_end)).collect();
        let mut end_of = vec![None; calls.len()];
        for (place, (at, is_begin)) in (1..).zip(&entries) {
            if !is_begin {
                end_of[*at] = Some(place);
            }
        }
        let places = entries.len() + 2;
        Self {
            entries,
            next: (1..=places).collect(),
            prev: (0..places).map(|it: usize| it.saturating_sub(1)).collect(),
            end_of,
        }
    }

    fn entry(&self, place: usize) -> Option<(usize, bool)> {
        self.entries.get(place - 1).copied()
    }

    fn take(&mut self, place: usize) {
        let (before, after) = (self.prev[place], self.next[place]);
        self.next[before] = after;
        self.prev[after] = before;
    }

    fn put_back(&mut self, place: usize) {
        let (before, after) = (self.prev[place], self.next[place]);
        self.next[before] = place;
        self.prev[after] = place;
    }
}

/// Looks for an order, for at most so many steps.
pub(super) fn search<M: Model>(model: &M, calls: &[Call<M::Op>], budget: u64) -> Found {
    let mut list = List::new(calls);
    let mut done = vec![0_u64; calls.len() / 64 + 1];
    let mut left = calls.iter().filter(|it| it.ended.is_some()).count();
    let mut tried: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut taken: Vec<(usize, M::State)> = Vec::new();
    let (mut state, mut place) = (model.initial(), list.next[0]);
    let (mut fewest, mut blocked) = (usize::MAX, 0);
    for _ in 0..budget {
        if left == 0 {
            return Found::Order;
        }
        let entry = list.entry(place);
        if let Some((at, true)) = entry {
            let after = model.step(&state, &calls[at].op);
            done[at / 64] ^= 1 << (at % 64);
            if let Some(after) = after.filter(|it| tried.insert((done.clone(), it.clone()))) {
                taken.push((place, std::mem::replace(&mut state, after)));
                list.take(place);
                if let Some(end) = list.end_of[at] {
                    list.take(end);
                    left -= 1;
                }
                place = list.next[0];
            } else {
                done[at / 64] ^= 1 << (at % 64);
                place = list.next[place];
            }
            continue;
        }
        // An end that must be before all that are left, or nothing is left to try.
        if let Some((at, _)) = entry.filter(|_| left < fewest) {
            (fewest, blocked) = (left, at);
        }
        let Some((back, before)) = taken.pop() else { return Found::None(blocked) };
        let Some((at, _)) = list.entry(back) else { return Found::None(blocked) };
        state = before;
        done[at / 64] ^= 1 << (at % 64);
        if let Some(end) = list.end_of[at] {
            list.put_back(end);
            left += 1;
        }
        list.put_back(back);
        place = list.next[back];
    }
    if left == 0 { Found::Order } else { Found::TooMuch }
}
