//! A hash ring with bounded load, shared by `consistent_hashing` and `prefix_hash`.
//!
//! Points depend on worker ids only, so every node has the same ring, and a worker that comes or goes moves only its own
//! share of the keys. The ring is made again when the set of workers changes, never per request. It names workers by id,
//! not by place: a ring of another set (two threads around a change, models that share a state) costs a spill, no more.

use smallvec::SmallVec;

use super::Ask;
use super::Choice;
use crate::base::ids::WorkerId;
use crate::routing::draw::Draw;
use crate::routing::draw::mix;
use crate::routing::route::Reason;

/// Points per worker in small fleets: shares differ by about a tenth.
const POINTS_PER_WORKER: usize = 150;
/// Points in all; beyond it workers get fewer each, so that a ring of 10^4 workers is made in milliseconds.
const POINTS_MAX: usize = 1 << 16;
/// Fewest points per worker, where [`POINTS_MAX`] would leave less.
const POINTS_PER_WORKER_MIN: usize = 4;
/// Workers whose load is read for the mean; a sample of larger fleets is near enough for a factor of 1.25.
const MEAN_SAMPLE: usize = 32;
/// Different workers met on a walk before the least loaded of them is taken.
const WALK_MAX: usize = 16;

#[derive(Clone)]
pub(super) struct Ring {
    load_factor: f64,
    /// Generation and size of the set it was made of.
    made_of: Option<(u64, usize)>,
    points: Vec<(u64, WorkerId)>,
}

impl Ring {
    pub(super) fn new(load_factor: f64) -> Self {
        Self { load_factor: load_factor.max(1.0), made_of: None, points: Vec::new() }
    }

    /// The first usable worker at or after `key` whose requests in flight stay within the factor of the mean.
    pub(super) fn choose(&mut self, key: u64, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        self.refresh(ask);
        let bound = self.bound(ask, draw);
        let mut met: SmallVec<[WorkerId; WALK_MAX]> = SmallVec::new();
        let mut least: Option<(u32, usize)> = None;
        let start = self.points.partition_point(|(point, _)| *point < key);
        for (_, worker) in self.points[start..].iter().chain(&self.points[..start]) {
            if met.contains(worker) {
                continue;
            }
            met.push(*worker);
            let place = ask.candidates.position(*worker);
            if let Some((index, candidate)) = place.and_then(|index| Some((index, ask.usable(index)?))) {
                if f64::from(candidate.inflight) < bound {
                    let reason = if met.len() == 1 { Reason::Ring } else { Reason::RingSpill };
                    return Some(Choice { index, reason });
                }
                if least.is_none_or(|(inflight, _)| candidate.inflight < inflight) {
                    least = Some((candidate.inflight, index));
                }
            }
            if met.len() == WALK_MAX {
                break;
            }
        }
        let index = least.map(|it| it.1).or_else(|| ask.draw_usable(draw).map(|it| it.0))?;
        Some(Choice { index, reason: Reason::RingSpill })
    }

    /// Requests in flight that a worker must stay below to get one more.
    fn bound(&self, ask: &Ask<'_, '_>, draw: &mut Draw) -> f64 {
        let len = ask.candidates.len();
        let sample = len.min(MEAN_SAMPLE);
        let start = if len > MEAN_SAMPLE { draw.below(len) } else { 0 };
        let stride = len.div_ceil(sample.max(1));
        let mut usable = 0.0_f64;
        let mut inflight = 0.0;
        for step in 0..sample {
            if let Some(candidate) = ask.usable((start + step * stride) % len) {
                usable += 1.0;
                inflight += f64::from(candidate.inflight);
            }
        }
        (self.load_factor * (inflight + 1.0) / usable.max(1.0)).ceil().max(1.0)
    }

    fn refresh(&mut self, ask: &Ask<'_, '_>) {
        let len = ask.candidates.len();
        let made_of = Some((ask.candidates.generation(), len));
        if self.made_of == made_of {
            return;
        }
        self.made_of = made_of;
        let each = (POINTS_MAX / len.max(1)).clamp(POINTS_PER_WORKER_MIN, POINTS_PER_WORKER);
        self.points.clear();
        for index in 0..len {
            let worker = ask.candidates.id(index);
            let points = (0..each as u64).map(|n| (mix(mix(worker.0).wrapping_add(n)), worker));
            self.points.extend(points);
        }
        self.points.sort_unstable();
    }
}
