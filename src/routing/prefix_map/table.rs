//! A fixed number of buckets of four entries, one cache line each: `hash -> the last few workers that got it`.
//!
//! Bounded by construction: a full bucket replaces its oldest entry, so there is no eviction pass, no growth and no
//! rehash. The price: of a table that is half full, one entry in thirty was lost to a full bucket already. Segments are allocated when first written to, so an idle node pays nothing. Every word is an atomic and there
//! is no lock: two threads that write the same entry may lose one hint, which costs at most one cache miss. An entry is
//! found by the upper 48 bits of its hash, because other nodes tell no more of it: a false hit is expected once in some
//! 10^6 lookups of a long prompt.
//!
//! Entry: word 0 = tag (32) | slot (16) | stamp (16); word 1 = slot | stamp | slot | stamp; newest holder first.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;

use smallvec::SmallVec;

/// Entries in a bucket: as many as fit a cache line.
const WAYS: usize = 4;
/// Buckets allocated at a time: 64 KiB. Smaller costs more pointers, larger wakes up more memory for few prompts.
const SEGMENT_BUCKETS: usize = 1024;
/// Workers remembered per entry. A beginning that more workers share is spread by load anyway.
pub const ENTRY_HOLDERS_MAX: usize = 3;

type Segment = OnceLock<Box<[Bucket]>>;

/// See the file's header.
#[derive(Debug)]
pub struct Table {
    segments: Box<[Segment]>,
    allocated: AtomicU64,
    entries: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([[AtomicU64; 2]; WAYS]);

impl Bucket {
    /// An empty place, or the one that was not used for longest.
    fn victim(&self, tick: u16) -> &[AtomicU64; 2] {
        let age = |words: &&[AtomicU64; 2]| match words[0].load(Relaxed) {
            0 => u32::MAX,
            first => u32::from(tick.wrapping_sub(first as u16)),
        };
        self.0.iter().max_by_key(age).expect("a bucket has ways")
    }
}

/// A copy of one entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pairs: [u32; ENTRY_HOLDERS_MAX],
}

impl Entry {
    /// `(slot, stamp)`, newest first.
    pub fn holders(self) -> impl Iterator<Item = (u16, u16)> {
        self.pairs.into_iter().filter(|pair| *pair != 0).map(|pair| ((pair >> 16) as u16, pair as u16))
    }

    fn read(words: &[AtomicU64; 2], tag: u32) -> Option<Self> {
        let first = words[0].load(Acquire);
        if (first >> 32) as u32 != tag {
            return None;
        }
        let second = words[1].load(Acquire);
        // A writer in between may have made this another prompt's entry.
        let is_whole = words[0].load(Acquire) == first;
        is_whole.then_some(Self { pairs: [first as u32, (second >> 32) as u32, second as u32] })
    }

    fn write(self, words: &[AtomicU64; 2], tag: u32) {
        // ORDER: the second word first, so that a reader who sees the new tag never sees the old entry's holders.
        words[1].store(u64::from(self.pairs[1]) << 32 | u64::from(self.pairs[2]), Release);
        words[0].store(u64::from(tag) << 32 | u64::from(self.pairs[0]), Release);
    }
}

impl Table {
    /// Takes at most `bytes_max` bytes, ever; at least one segment.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let segment = SEGMENT_BUCKETS * size_of::<Bucket>() + size_of::<Segment>();
        let count = (bytes_max / segment).max(1);
        let segments = (0..count).map(|_| Segment::new()).collect();
        Self { segments, allocated: AtomicU64::new(0), entries: AtomicU64::new(0) }
    }

    /// Bytes allocated now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let segment = SEGMENT_BUCKETS * size_of::<Bucket>();
        (self.segments.len() * size_of::<Segment>()) as u64 + self.allocated.load(Relaxed) * segment as u64
    }

    /// Entries occupied now, expired ones included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of `hash`.
    #[must_use]
    pub fn find(&self, hash: u64) -> Option<Entry> {
        let (segment, bucket, tag) = self.place(hash);
        let bucket = &segment.get()?[bucket];
        bucket.0.iter().find_map(|words| Entry::read(words, tag))
    }

    /// Notes that `slot` holds `hash` as of `tick`. Says whether another entry had to go for it.
    pub fn put(&self, hash: u64, slot: u16, tick: u16) -> bool {
        let (segment, bucket, tag) = self.place(hash);
        let bucket = &segment.get_or_init(|| {
            self.allocated.fetch_add(1, Relaxed);
            (0..SEGMENT_BUCKETS).map(|_| Bucket::default()).collect()
        })[bucket];
        let pair = u32::from(slot) << 16 | u32::from(tick);
        for words in &bucket.0 {
            let Some(entry) = Entry::read(words, tag) else { continue };
            // An unchanged line stays shared between the cores' caches.
            if entry.pairs[0] != pair {
                entry.with(pair).write(words, tag);
            }
            return false;
        }
        self.replace(bucket, tag, pair, tick)
    }

    /// Notes that `slot` got `hash` at `stamp`, which may be a while ago: nothing newer goes for it. `None`: that was known, or
    /// there is no room for something so old; else whether another entry had to go.
    pub fn note(&self, hash: u64, slot: u16, stamp: u16, tick: u16) -> Option<bool> {
        let age = tick.wrapping_sub(stamp);
        let (segment, bucket, tag) = self.place(hash);
        let Some(bucket) = segment.get().map(|it| &it[bucket]) else { return Some(self.put(hash, slot, stamp)) };
        for words in &bucket.0 {
            let Some(entry) = Entry::read(words, tag) else { continue };
            let noted = entry.noting(slot, stamp, tick)?;
            noted.write(words, tag);
            return Some(false);
        }
        let first = bucket.victim(tick)[0].load(Relaxed);
        let is_older = first != 0 && tick.wrapping_sub(first as u16) < age;
        (!is_older).then(|| self.replace(bucket, tag, u32::from(slot) << 16 | u32::from(stamp), tick))
    }

    /// Notes that `slot` did not hold `hash` at `stamp`: what it got later stays.
    pub fn withdraw(&self, hash: u64, slot: u16, stamp: u16, tick: u16) {
        let age = tick.wrapping_sub(stamp);
        let is_later = |it: (u16, u16)| it.0 == slot && tick.wrapping_sub(it.1) < age;
        if self.find(hash).is_some_and(|entry| !entry.holders().any(is_later)) {
            self.remove(hash, slot);
        }
    }

    /// Notes that `slot` does not hold `hash`.
    pub fn remove(&self, hash: u64, slot: u16) {
        let (segment, bucket, tag) = self.place(hash);
        let Some(bucket) = segment.get().map(|it| &it[bucket]) else { return };
        for words in &bucket.0 {
            let Some(entry) = Entry::read(words, tag) else { continue };
            let left = entry.without(slot);
            if left.pairs[0] != 0 {
                left.write(words, tag);
            } else if words[0].swap(0, Release) != 0 {
                self.entries.fetch_sub(1, Relaxed);
            }
            return;
        }
    }

    /// A new entry in an empty place or that of the oldest. Says whether another had to go.
    fn replace(&self, bucket: &Bucket, tag: u32, pair: u32, tick: u16) -> bool {
        let victim = bucket.victim(tick);
        let is_eviction = victim[0].load(Relaxed) != 0;
        if !is_eviction {
            self.entries.fetch_add(1, Relaxed);
        }
        Entry { pairs: [pair, 0, 0] }.write(victim, tag);
        is_eviction
    }

    /// Segment, bucket inside it, tag. The bucket comes from the upper half of the hash, the tag from the 32 bits before the last
    /// 16, which do not count.
    fn place(&self, hash: u64) -> (&Segment, usize, u32) {
        let buckets = (self.segments.len() * SEGMENT_BUCKETS) as u64;
        let index = (((hash >> 32) * buckets) >> 32) as usize;
        // Tag 0 would read as an empty place.
        let tag = ((hash >> 16) as u32).max(1);
        (&self.segments[index / SEGMENT_BUCKETS], index % SEGMENT_BUCKETS, tag)
    }
}

impl Entry {
    /// With `pair` as the newest holder; the oldest falls off.
    fn with(self, pair: u32) -> Self {
        let [a, b, c] = self.pairs;
        let slot = pair >> 16;
        let pairs = match slot {
            _ if a >> 16 == slot => [pair, b, c],
            _ if b >> 16 == slot => [pair, a, c],
            _ => [pair, a, b],
        };
        Self { pairs }
    }

    /// With one more holder at its place by age; `None` where that changes nothing.
    fn noting(self, slot: u16, stamp: u16, tick: u16) -> Option<Self> {
        let age = |pair: &u32| tick.wrapping_sub(*pair as u16);
        let pair = u32::from(slot) << 16 | u32::from(stamp);
        let has_newer = |it: u32| it >> 16 == u32::from(slot) && age(&it) <= age(&pair);
        if self.pairs.into_iter().any(has_newer) {
            return None;
        }
        let others = self.pairs.into_iter().filter(|it| *it != 0 && it >> 16 != u32::from(slot));
        // Equal ages are ordered by slot, so that the order in which they came does not matter.
        let mut holders: SmallVec<[u32; ENTRY_HOLDERS_MAX + 1]> = others.chain([pair]).collect();
        holders.sort_unstable_by_key(|it| (age(it), it >> 16));
        let noted = Self { pairs: std::array::from_fn(|at| holders.get(at).copied().unwrap_or(0)) };
        (noted.pairs != self.pairs).then_some(noted)
    }

    /// Without the holder in `slot`.
    fn without(self, slot: u16) -> Self {
        let mut kept = self.pairs.into_iter().filter(|pair| *pair != 0 && pair >> 16 != u32::from(slot));
        Self { pairs: std::array::from_fn(|_| kept.next().unwrap_or(0)) }
    }
}
