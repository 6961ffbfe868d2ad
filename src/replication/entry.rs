//! One instance of an admin table: its name, its fields, and how two copies of it merge.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use super::dots::Dot;
use super::dots::Dots;
use super::faults::Fault;
use super::faults::planted;
use super::hlc::Stamp;

/// Largest entry, in bytes as counted by [`Entry::weight`]. A worker with its labels and sealed key has about 1 KB.
pub const ENTRY_BYTES_MAX: usize = 32 << 10;

/// Names an instance: random, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub u128);

/// An instance and the event that made it. The birth alone would do; the id is what an API may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its name.
    pub id: InstanceId,
    /// The event that made it.
    pub birth: Dot,
}

/// The last edit of one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Field {
    /// When.
    pub stamp: Stamp,
    /// Which event.
    pub dot: Dot,
    /// The version of the value's encoding, for those who understand the kind.
    pub version: u8,
    /// The value. Opaque here.
    pub bytes: Vec<u8>,
}

/// What is known of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is, for those who understand it.
    pub kind: u16,
    /// When it was added; the lower (stamp, birth) wins where a view must choose between instances.
    pub born: Stamp,
    /// Its fields by number.
    pub fields: BTreeMap<u16, Field>,
}

impl Entry {
    /// Bytes it is counted as.
    #[must_use]
    pub fn weight(&self) -> usize {
        64 + self.fields.values().map(|field| field.bytes.len() + 64).sum::<usize>()
    }

    /// Its highest stamp.
    #[must_use]
    pub fn latest(&self) -> Stamp {
        self.fields.values().map(|field| field.stamp).fold(self.born, Stamp::max)
    }

    /// Every event whose effect is in it.
    pub(super) fn dots(&self, birth: Dot) -> Dots {
        self.fields.values().map(|field| field.dot).chain([birth]).collect()
    }

    /// Takes over what is later, field by field.
    pub(super) fn merge(&mut self, other: Self) {
        for (number, theirs) in other.fields {
            match self.fields.get_mut(&number) {
                Some(ours) if ours.beats(&theirs) => {}
                Some(ours) => *ours = theirs,
                None => drop(self.fields.insert(number, theirs)),
            }
        }
    }
}

impl Field {
    fn beats(&self, other: &Self) -> bool {
        !planted(Fault::MergeTakesTheLast) && (self.stamp, self.dot) >= (other.stamp, other.dot)
    }
}
