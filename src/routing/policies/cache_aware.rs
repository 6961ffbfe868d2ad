//! `cache_aware`: the cheapest of a few candidates (DESIGN 8).
//!
//! Small fleets are looked at whole. In larger ones the best holders of the prompt's prefix compete with workers drawn at
//! random: enough to find a lightly loaded one, and the cost of a decision does not grow with the fleet. The load test is
//! per request, on the worker that is wanted: one hot worker never turns affinity off for the others.

use smallvec::SmallVec;

use super::Ask;
use super::Choice;
use super::Policy;
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

pub(super) struct CacheAware;

impl Policy for CacheAware {
    fn choose(&self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        let len = ask.candidates.len();
        let (index, candidate) = if len <= WHOLE_FLEET_MAX {
            let usable = (0..len).filter_map(|index| Some((index, ask.usable(index)?)));
            usable.min_by(|a, b| ask.by_cost(&a.1, &b.1))?
        } else {
            few(ask, draw).into_iter().min_by(|a, b| ask.by_cost(&a.1, &b.1))?
        };
        let reason = if ask.held_by(candidate.worker) == 0 { Reason::Load } else { Reason::Prefix };
        Some(Choice { index, reason })
    }
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
