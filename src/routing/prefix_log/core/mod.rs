//! The decisions of the prefix log: what this node tells of its placements, and what others' rows change here.
//!
//! `writer.rs` makes rows, `reader.rs` reads them, `recent.rs` keeps both from repeating themselves; `feed.rs` is the seam for what engines say themselves. Ground state is the replicated
//! table; everything here may be lost, and is learned again from it or told again. Rows in any order, repeated, or read
//! again from the beginning end in the same map. *Absent on purpose:* the map itself, which the driver writes to.

mod event;
pub mod feed;
mod reader;
mod recent;
mod writer;

use std::time::Duration;

pub use self::event::AtMs;
pub use self::event::Counts;
pub use self::event::Effect;
pub use self::event::Event;
pub use self::event::Heard;
pub use self::event::Said;
use self::reader::Reader;
use self::writer::Writer;
use crate::base::ids::StorageId;

/// What a core is told once.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Under which name this node's rows come back.
    pub me: StorageId,
    /// Of the hash key.
    pub key: u32,
    /// How long a prefix counts until answers teach otherwise.
    pub ttl: Duration,
    /// To what the map tells ages.
    pub tick: Duration,
}

/// See the file's header.
#[derive(Debug)]
pub struct Core {
    writer: Writer,
    reader: Reader,
    counts: Counts,
}

impl Core {
    /// Nothing was said or heard.
    #[must_use]
    pub fn new(setting: Setting) -> Self {
        let Setting { me, key, ttl, tick } = setting;
        Self { writer: Writer::new(key, ttl), reader: Reader::new(me, key, ttl, tick), counts: Counts::default() }
    }

    /// Takes one event.
    pub fn step(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Said(said) => self.say(now, said, effects),
            Event::Heard { rows, is_again } => self.hear(now, &rows, is_again, effects),
            Event::Workers(workers) => self.reader.know(workers, effects),
            Event::Tick => {
                self.reader.turn(now);
                publish(self.writer.expired(now), effects);
            }
        }
    }

    /// What was told, heard and given up.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn say(&mut self, now: Duration, mut said: Vec<Said>, effects: &mut Vec<Effect>) {
        said.retain(|it| match it {
            Said::NewLife(worker) => self.reader.saw_new_life(now, *worker, effects),
            Said::Doubted(worker) => {
                self.reader.doubted(now, *worker, effects);
                false
            }
            Said::Placed(..) | Said::Withdrawn(..) | Said::Taught(..) => true,
        });
        publish(self.writer.write(now, &said, &mut self.counts), effects);
    }

    fn hear(&mut self, now: Duration, rows: &[Heard], is_again: bool, effects: &mut Vec<Effect>) {
        let first = effects.len();
        rows.iter().for_each(|row| self.reader.take(now, row, is_again, effects, &mut self.counts));
        self.reader.turn(now);
        for effect in &effects[first..] {
            match effect {
                Effect::Forget(worker) => self.writer.began_anew(*worker),
                Effect::Put(worker, boundary, at) => self.writer.was_told(now, *worker, *boundary, *at),
                Effect::Withdraw(worker, boundary, _) => self.writer.was_withdrawn(*worker, *boundary),
                Effect::Publish(_) | Effect::Learn(..) | Effect::ReadAgain => {}
            }
        }
    }
}

fn publish(rows: Vec<(Vec<u8>, Option<Vec<u8>>)>, effects: &mut Vec<Effect>) {
    if !rows.is_empty() {
        effects.push(Effect::Publish(rows));
    }
}

#[cfg(test)]
mod tests;
