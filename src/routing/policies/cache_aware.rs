//! `cache_aware`: the cheapest of a few candidates (DESIGN 8).
//!
//! Small fleets are looked at whole. In larger ones the best holders of the prompt's prefix compete with workers drawn at
//! random: enough to find a lightly loaded one, and the cost of a decision does not grow with the fleet. The load test is
//! per request, on the worker that is wanted: one hot worker never turns affinity off for the others.
//!
//! Where several nodes send to the workers, the choice has two steps: a shortlist by what is known here, which may be old, then the cheapest of it by what
//! the ledgers say now. What is old picks candidates and never the winner: a node that believed it would send to the worker that was idle
//! when it heard of it, and so would all others.

use smallvec::SmallVec;

use super::Ask;
use super::Choice;
use super::Policy;
use super::SHORTLIST_MAX;
use super::Shortlisted;
use super::TwoSteps;
use crate::base::ids::WorkerId;
use crate::routing::candidate::Candidate;
use crate::routing::draw::Draw;
use crate::routing::route::Reason;

/// Fleets up to this size are looked at whole.
const WHOLE_FLEET_MAX: usize = 16;
/// Candidates in larger fleets, and how many of them may be holders. Without random ones, all nodes would agree on the
/// same few workers; 8 instead of 4 is worth a fifth of the mean time to first token at 64 workers (ROUTING.md 4.1).
const CANDIDATES: usize = 8;
/// See [`CANDIDATES`].
const HOLDERS: usize = 4;
/// The shortlist of a small fleet; that of a larger one has [`SHORTLIST_MAX`]. With 3, the mean time to first token is a tenth longer (ROUTING.md 4.2).
const SHORTLIST_SMALL: usize = 4;
/// Workers that a shortlist is made from: a small fleet, or holders and a sample of a large one.
const POOL_MAX: usize = 24;

pub(super) struct CacheAware;

/// See the file's header.
pub(super) const TWO_STEPS: TwoSteps = TwoSteps { shortlist, settle };

impl Policy for CacheAware {
    fn choose(&self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        let len = ask.candidates.len();
        let (index, candidate) = if len <= WHOLE_FLEET_MAX {
            let usable = (0..len).filter_map(|index| Some((index, ask.usable(index)?)));
            usable.min_by(|a, b| ask.by_cost(&a.1, &b.1))?
        } else {
            few(ask, draw).into_iter().min_by(|a, b| ask.by_cost(&a.1, &b.1))?
        };
        Some(chosen(ask, index, &candidate))
    }
}

fn chosen(ask: &Ask<'_, '_>, index: usize, candidate: &Candidate) -> Choice {
    let reason = if ask.held_by(candidate.worker) == 0 { Reason::Load } else { Reason::Prefix };
    Choice { index, reason }
}

/// The cheapest of a shortlist, as its candidates are now.
fn settle(ask: &Ask<'_, '_>, shortlist: &[WorkerId]) -> Option<Choice> {
    let places = shortlist.iter().filter_map(|it| ask.candidates.position(*it));
    let usable = places.filter_map(|index| Some((index, ask.usable(index)?)));
    let (index, candidate) = usable.min_by(|a, b| ask.by_cost(&a.1, &b.1))?;
    Some(chosen(ask, index, &candidate))
}

/// Whose load is worth asking for: the cheapest by what is known, the best holders of the prefix, and some drawn at random, in this order.
fn shortlist(ask: &Ask<'_, '_>, draw: &mut Draw) -> Shortlisted {
    let len = ask.candidates.len();
    let (is_small, mut pool) = (len <= WHOLE_FLEET_MAX, SmallVec::<[(usize, Candidate); POOL_MAX]>::new());
    if is_small {
        pool.extend((0..len).filter_map(|index| Some((index, ask.usable(index)?))));
    } else {
        pool.extend(few(ask, draw));
        for _ in 0..POOL_MAX {
            let index = draw.below(len);
            if pool.len() < POOL_MAX && pool.iter().all(|it| it.0 != index) {
                pool.extend(ask.usable(index).map(|it| (index, it)));
            }
        }
    }
    let (most, holders_most) = if is_small { (SHORTLIST_SMALL, 1) } else { (SHORTLIST_MAX, HOLDERS - 1) };
    let mut found = Shortlisted::new();
    found.extend(pool.iter().min_by(|a, b| ask.by_cost(&a.1, &b.1)).map(|it| it.0));
    let held = |it: &(usize, Candidate)| ask.held_by(it.1.worker);
    let mut holders: Shortlisted = (0..pool.len()).filter(|at| held(&pool[*at]) > 0).collect();
    holders.sort_by(|a, b| {
        let (a, b) = (&pool[*a], &pool[*b]);
        held(b).cmp(&held(a)).then_with(|| ask.by_cost(&a.1, &b.1))
    });
    for at in holders.into_iter().take(holders_most) {
        if !found.contains(&pool[at].0) {
            found.push(pool[at].0);
        }
    }
    pool.retain(|it| !found.contains(&it.0));
    while found.len() < most && !pool.is_empty() {
        found.push(pool.swap_remove(draw.below(pool.len())).0);
    }
    found
}

/// Holders first, then random ones, without duplicates.
fn few(ask: &Ask<'_, '_>, draw: &mut Draw) -> SmallVec<[(usize, Candidate); CANDIDATES]> {
    let mut found: SmallVec<[(usize, Candidate); CANDIDATES]> = SmallVec::new();
    for holding in ask.holdings {
        let usable = ask.candidates.position(holding.worker).and_then(|index| Some((index, ask.usable(index)?)));
        found.extend(usable);
        if found.len() == HOLDERS {
            break;
        }
    }
    // A fleet of more than 16 has 8 different usable workers nearly always; where not, fewer are compared.
    for _ in 0..CANDIDATES * 2 {
        if found.len() == CANDIDATES {
            break;
        }
        let index = draw.below(ask.candidates.len());
        if found.iter().all(|it| it.0 != index) {
            found.extend(ask.usable(index).map(|it| (index, it)));
        }
    }
    if found.is_empty() {
        found.extend(ask.draw_usable(draw));
    }
    found
}
