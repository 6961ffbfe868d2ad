//! The writing half: what this node did becomes batches, and batches become rows that it keeps for as long as they may be of use.
//!
//! Rows stand in a ring: a new one takes the name of the oldest, so nothing has to be removed while there is traffic (a removal is a
//! row too, and after some hundred of them everyone would take all rows anew). What was told lately, by whomever, is not told again
//! before half of its life is over; then it is, because a prefix that is used stays in its worker's cache.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;

use super::AtMs;
use super::Counts;
use super::Said;
use super::recent::Recent;
use crate::base::ids::WorkerId;
use crate::base::limits::WORKERS_MAX;
use crate::routing::draw::mix;
use crate::routing::prefix_log::batch::BATCH_BYTES_MAX;
use crate::routing::prefix_log::batch::Batch;
use crate::routing::prefix_log::batch::Section;
use crate::routing::prefix_map::chain::Boundary;
use crate::routing::prefix_map::slots::LEARNED_MAX;

/// Rows at a time. At two a second they last four minutes. With fewer a node that joins learns less; more cost everyone memory.
const ROWS_MAX: usize = 512;
/// Bytes of all rows, on every node. A node with 125 requests a second has about 600 KB within three minutes.
const SHARE_BYTES: usize = 1 << 20;
/// Most that a section's head takes in a batch: worker, three options, two lengths.
const HEAD_BYTES: usize = 40;
const BOUNDARY_BYTES: usize = size_of::<Boundary>();

type Rows = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Debug)]
struct Row {
    place: u16,
    written: Duration,
    bytes: usize,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Writer {
    key: u32,
    ttl: Duration,
    told: Recent,
    /// How often each worker began anew, so that what was told of an earlier life can be told again.
    lives: HashMap<WorkerId, u64>,
    /// Oldest first.
    rows: VecDeque<Row>,
    bytes: usize,
    next: u16,
}

/// A batch that is being made.
struct Draft {
    batch: Batch,
    places: HashMap<WorkerId, usize>,
    bytes: usize,
}

impl Writer {
    pub(super) fn new(key: u32, ttl: Duration) -> Self {
        let told = Recent::new(ttl / 4); // in two generations: at half of its life
        Self { key, ttl, told, lives: HashMap::new(), rows: VecDeque::new(), bytes: 0, next: 0 }
    }

    /// Somebody told this then: it need not be told again soon.
    pub(super) fn was_told(&mut self, now: Duration, worker: WorkerId, boundary: Boundary, at: AtMs) {
        if now.as_millis() as AtMs - at < (self.ttl / 4).as_millis() as AtMs {
            let it = self.name(worker, boundary);
            self.told.insert(now, it);
        }
    }

    /// Somebody took this back: it is to be told when it is true again.
    pub(super) fn was_withdrawn(&mut self, worker: WorkerId, boundary: Boundary) {
        let it = self.name(worker, boundary);
        self.told.remove(it);
    }

    /// The worker began anew: all that was told of it may be told again.
    pub(super) fn began_anew(&mut self, worker: WorkerId) {
        if self.lives.len() >= WORKERS_MAX {
            // BOUND: as many as there may be workers. Some things are told twice then.
            self.lives.clear();
        }
        *self.lives.entry(worker).or_default() += 1;
    }

    /// What is to be told of these, as rows; with them go the rows that are past their time.
    pub(super) fn write(&mut self, now: Duration, said: &[Said], counts: &mut Counts) -> Rows {
        let mut draft =
            Draft { batch: Batch { key: self.key, sections: Vec::new() }, places: HashMap::new(), bytes: 16 };
        self.told.turn(now);
        said.iter().for_each(|it| self.take(now, *it, &mut draft, counts));
        let mut rows = self.expired(now);
        draft.batch.sections.retain(|it| *it != Section::new(it.worker()));
        if draft.batch.sections.is_empty() {
            return rows;
        }
        // Numbers always have an encoding; where one had none nothing is told.
        let Ok(value) = draft.batch.encode() else { return rows };
        for section in &draft.batch.sections {
            counts.sent += section.placed.len() as u64;
            counts.retractions_sent +=
                (section.withdrawn.len() + section.lessons().count() + usize::from(section.is_new_life)) as u64;
        }
        counts.batch_bytes += value.len() as u64;
        self.push(now, value, &mut rows, counts);
        rows
    }

    /// Removes rows that are past their time.
    pub(super) fn expired(&mut self, now: Duration) -> Rows {
        self.told.turn(now);
        let mut rows = Rows::new();
        while let Some(row) = self.rows.pop_front_if(|it| it.written + self.ttl * u32::from(LEARNED_MAX) <= now) {
            self.bytes -= row.bytes;
            rows.push((name(row.place), None));
        }
        rows
    }

    fn take(&mut self, now: Duration, said: Said, draft: &mut Draft, counts: &mut Counts) {
        match said {
            Said::Placed(worker, boundary) => {
                let it = self.name(worker, boundary);
                if self.told.contains(it) {
                    return;
                }
                if !draft.has_room(worker) {
                    counts.over_batch += 1;
                    return;
                }
                self.told.insert(now, it);
                let section = draft.section(worker);
                section.withdrawn.retain(|it| *it != boundary);
                section.placed.push(boundary);
                draft.bytes += BOUNDARY_BYTES;
            }
            Said::Withdrawn(worker, boundary) => {
                // What nobody was told needs no taking back.
                let it = self.name(worker, boundary);
                if !self.told.contains(it) {
                    return;
                }
                if !draft.has_room(worker) {
                    counts.over_batch += 1;
                    return;
                }
                self.told.remove(it);
                let section = draft.section(worker);
                if let Some(at) = section.placed.iter().position(|it| *it == boundary) {
                    section.placed.swap_remove(at);
                } else {
                    section.withdrawn.push(boundary);
                    draft.bytes += BOUNDARY_BYTES;
                }
            }
            Said::Taught(worker, lesson, age) if draft.has_room(worker) => {
                draft.section(worker).teach(lesson, u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            }
            Said::NewLife(worker) if draft.has_room(worker) => {
                self.began_anew(worker);
                let section = draft.section(worker);
                *section = Section::new(worker);
                section.is_new_life = true;
            }
            Said::Taught(..) | Said::NewLife(_) => counts.over_batch += 1,
            Said::Doubted(_) => {} // not told
        }
    }

    /// The row in the place of the oldest, once the ring has gone round.
    fn push(&mut self, now: Duration, value: Vec<u8>, rows: &mut Rows, counts: &mut Counts) {
        let place = self.next;
        self.next = (place + 1) % ROWS_MAX as u16;
        self.bytes += value.len();
        while let Some(row) = self.rows.pop_front_if(|it| it.place == place || self.bytes > SHARE_BYTES) {
            self.bytes -= row.bytes;
            counts.over_share += 1;
            if row.place != place {
                rows.push((name(row.place), None));
            }
        }
        self.rows.push_back(Row { place, written: now, bytes: value.len() });
        // A removal in the same write comes before.
        rows.retain(|it| it.0 != name(place));
        rows.push((name(place), Some(value)));
    }

    /// One number for a worker's life and a prefix.
    fn name(&self, worker: WorkerId, boundary: Boundary) -> u64 {
        let life = self.lives.get(&worker).copied().unwrap_or(0);
        boundary.hash() ^ mix(worker.0.wrapping_add(mix(life)))
    }
}

impl Draft {
    fn has_room(&self, worker: WorkerId) -> bool {
        let head = if self.places.contains_key(&worker) { 0 } else { HEAD_BYTES };
        self.bytes + head + BOUNDARY_BYTES <= BATCH_BYTES_MAX
    }

    fn section(&mut self, worker: WorkerId) -> &mut Section {
        let sections = &mut self.batch.sections;
        let at = *self.places.entry(worker).or_insert_with(|| {
            sections.push(Section::new(worker));
            self.bytes += HEAD_BYTES;
            sections.len() - 1
        });
        &mut self.batch.sections[at]
    }
}

fn name(place: u16) -> Vec<u8> {
    place.to_be_bytes().to_vec()
}
