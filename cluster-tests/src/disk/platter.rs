//! What a disk with a write cache holds: what is durable, and what was written since.
//!
//! *Invariants:* 1. what was written before a flush that was answered is there after any cut; 2. of what was written since, a draw decides sector by sector, older writes of one sector
//! before newer ones: so a page, a journal block or a table of a file can be torn, and any of several writes of one sector can be the one that is left.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use smg::base::entropy::Entropy;

/// What a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
const BLOCK: usize = 4096;
/// BOUND: sectors in the cache: 64 MB. A disk whose cache is full writes the oldest out; fewer would make flushes of itself that nobody asked for.
const UNFLUSHED_MAX: usize = (64 << 20) / SECTOR;

type Sector = [u8; SECTOR];

/// What a cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Writes of sectors that were in the cache and are durable all the same.
    pub kept: usize,
    /// Those that are gone.
    pub lost: usize,
}

/// Blocks that were ever written; all others are zeros. BOUND: the size of the disk.
#[derive(Clone, Default)]
struct Blocks(BTreeMap<u64, Box<[u8; BLOCK]>>);

/// The memory of a disk.
pub(super) struct Platter {
    durable: Blocks,
    seen: Blocks,
    /// In the order in which they were written.
    unflushed: VecDeque<(u64, Sector)>,
    is_lying: bool,
    flushes: u64,
    entropy: Entropy,
}

impl Blocks {
    fn read(&self, offset: u64, out: &mut [u8]) {
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let within = (at % BLOCK as u64) as usize;
            let (piece, after) = rest.split_at_mut(rest.len().min(BLOCK - within));
            match self.0.get(&(at / BLOCK as u64)) {
                Some(block) => piece.copy_from_slice(&block[within..within + piece.len()]),
                None => piece.fill(0),
            }
            at += piece.len() as u64;
            rest = after;
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = (at % BLOCK as u64) as usize;
            let (piece, after) = rest.split_at(rest.len().min(BLOCK - within));
            let block = self.0.entry(at / BLOCK as u64).or_insert_with(|| Box::new([0; BLOCK]));
            block[within..within + piece.len()].copy_from_slice(piece);
            at += piece.len() as u64;
            rest = after;
        }
    }
}

impl Platter {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            durable: Blocks::default(),
            seen: Blocks::default(),
            unflushed: VecDeque::new(),
            is_lying: false,
            flushes: 0,
            entropy: Entropy::seeded(seed),
        }
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        self.seen.read(offset, out);
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.seen.write(offset, bytes);
        let sectors = offset / SECTOR as u64..(offset + bytes.len() as u64).div_ceil(SECTOR as u64);
        for number in sectors {
            let mut sector = [0; SECTOR];
            self.seen.read(number * SECTOR as u64, &mut sector);
            self.unflushed.push_back((number, sector));
        }
        while self.unflushed.len() > UNFLUSHED_MAX {
            self.write_out_oldest();
        }
    }

    fn write_out_oldest(&mut self) {
        if let Some((number, sector)) = self.unflushed.pop_front() {
            self.durable.write(number * SECTOR as u64, &sector);
        }
    }

    pub(super) fn flush(&mut self) {
        self.flushes += 1;
        while !self.is_lying && !self.unflushed.is_empty() {
            self.write_out_oldest();
        }
    }

    /// From now on a flush is answered and not done.
    pub(super) fn lie(&mut self) {
        self.flush();
        self.is_lying = true;
    }

    pub(super) const fn flushes(&self) -> u64 {
        self.flushes
    }

    /// The power fails: what is durable is all there is. How much of the cache stays is drawn for each cut, from nothing to three quarters; nothing on a disk that lied, so that
    /// what is on it is a state that it once had, and what a node loses there it loses by the lie alone.
    pub(super) fn cut(&mut self) -> Cut {
        let mut cut = Cut::default();
        let quarters = if self.is_lying { 0 } else { self.entropy.below(4) };
        while !self.unflushed.is_empty() {
            if self.entropy.below(4) < quarters {
                cut.kept += 1;
                self.write_out_oldest();
            } else {
                cut.lost += 1;
                self.unflushed.pop_front();
            }
        }
        self.seen = self.durable.clone();
        self.is_lying = false;
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(platter: &Platter, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        platter.read(offset, &mut out);
        out
    }

    #[test]
    fn what_was_flushed_is_there_after_any_cut() {
        for seed in 0..50 {
            let mut platter = Platter::new(seed);
            platter.write(4000, &[7; 5000]);
            platter.flush();
            platter.write(0, &[9; 512]);
            platter.cut();
            assert_eq!(text(&platter, 4000, 5000), [7; 5000]);
        }
    }

    #[test]
    fn what_was_not_flushed_is_torn_at_sectors_and_nowhere_else() {
        let (mut torn, mut none) = (0, 0);
        for seed in 0..50 {
            let mut platter = Platter::new(seed);
            platter.write(0, &[1; 8192]);
            platter.flush();
            platter.write(0, &[2; 8192]);
            platter.write(0, &[3; 4096]);
            let Cut { kept, lost } = platter.cut();
            assert_eq!(kept + lost, 24);
            let seen = text(&platter, 0, 8192);
            for sector in seen.chunks(SECTOR) {
                assert!(sector.iter().all(|it| *it == sector[0]), "half a sector");
            }
            let values: std::collections::BTreeSet<u8> = seen.into_iter().collect();
            torn += usize::from(values.len() == 3);
            none += usize::from(kept == 0);
        }
        assert!(torn > 10, "{torn} of 50 are torn into three versions");
        assert!(none > 5, "{none} of 50 lose all");
    }

    #[test]
    fn a_disk_that_lies_is_as_it_was_when_it_began_to() {
        let mut platter = Platter::new(1);
        platter.write(512, &[1; 512]);
        platter.lie();
        platter.write(512, &[2; 512]);
        platter.flush();
        assert_eq!(text(&platter, 512, 512), [2; 512]);
        assert_eq!(platter.cut(), Cut { kept: 0, lost: 1 });
        assert_eq!(text(&platter, 512, 512), [1; 512]);
        platter.write(512, &[3; 512]);
        platter.flush();
        platter.cut();
        assert_eq!(text(&platter, 512, 512), [3; 512], "it lies no more");
    }
}
