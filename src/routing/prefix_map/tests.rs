//! Claims about the prefix map's parts.

use proptest::prelude::*;

use super::boundaries;
use super::chain::BLOCK_BYTES;
use super::chain::Boundary;
use super::chain::Key;
use super::slots::LEARNED_MAX;
use super::slots::Lesson;
use super::slots::Slots;
use super::slots::TTL_TICKS;
use super::table::Table;
use super::told;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::base::ids::WorkerId;
use crate::routing::draw::Draw;

fn holders(table: &Table, hash: u64) -> Vec<(u16, u16)> {
    table.find(hash).map(|it| it.holders().collect()).unwrap_or_default()
}

#[test]
fn an_entry_keeps_its_last_three_holders_newest_first() {
    let table = Table::new(1 << 20);
    for slot in 1..=5 {
        table.put(77, slot, slot);
    }
    assert_eq!(holders(&table, 77), [(5, 5), (4, 4), (3, 3)]);
    table.put(77, 3, 9);
    assert_eq!(holders(&table, 77), [(3, 9), (5, 5), (4, 4)]);
    table.remove(77, 5);
    assert_eq!(holders(&table, 77), [(3, 9), (4, 4)]);
    table.remove(77, 3);
    table.remove(77, 4);
    assert_eq!((holders(&table, 77).len(), table.len()), (0, 0));
}

#[test]
fn a_full_bucket_replaces_its_oldest_entry() {
    let table = Table::new(0);
    // Equal upper halves: one bucket.
    let evicted: Vec<bool> = (1..=6).map(|n| table.put(n << 16, 1, n as u16)).collect();
    assert_eq!(evicted, [false, false, false, false, true, true]);
    let alive: Vec<u64> = (1..=6).filter(|n| table.find(n << 16).is_some()).collect();
    assert_eq!((alive, table.len()), (vec![3, 4, 5, 6], 4));
}

#[test]
fn field_07_a_million_entries_fit_tens_of_megabytes_and_nothing_exceeds_the_cap() {
    let table = Table::new(32 << 20);
    let mut draw = Draw::new(1);
    let hashes: Vec<u64> = (0..1_000_000).map(|_| draw.next_u64()).collect();
    let evicted = hashes.iter().filter(|hash| table.put(**hash, 1, 1)).count() as u64;
    assert_eq!(table.len() + evicted, 1_000_000);
    assert!(table.bytes() <= 32 << 20, "{}", table.bytes());
    let found = hashes.iter().filter(|hash| table.find(**hash).is_some()).count();
    assert!(found > 960_000, "half full, one in thirty is lost to a full bucket: {found}");
    for _ in 0..3_000_000 {
        table.put(draw.next_u64(), 2, 2);
    }
    assert!(table.bytes() <= 32 << 20);
    assert!((2_000_000..=2_097_152).contains(&table.len()), "{}", table.len());
}

#[test]
fn an_idle_table_takes_no_memory() {
    assert!(Table::new(32 << 20).bytes() < 16 << 10);
}

#[test]
fn threads_that_write_at_once_keep_within_the_cap_and_find_what_they_wrote() {
    let table = Table::new(8 << 20);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let table = &table;
            scope.spawn(move || {
                let mut draw = Draw::new(thread % 2); // pairs of threads write the same entries
                for _ in 0..50_000 {
                    let hash = draw.next_u64();
                    table.put(hash, thread as u16 + 1, 3);
                }
            });
        }
    });
    let mut draw = Draw::new(0);
    let found = (0..50_000).filter(|_| !holders(&table, draw.next_u64()).is_empty()).count();
    assert!(found > 49_000, "{found}");
    assert!(table.bytes() <= 8 << 20);
}

#[test]
fn field_07_a_forgotten_worker_takes_its_entries_along_and_its_slot_rests_until_they_expired() {
    let mut slots = Slots::default();
    let slot = slots.assign(WorkerId(1), 0).expect("room");
    assert_eq!(slots.assign(WorkerId(1), 5), Some(slot));
    slots.forget(WorkerId(1), 10);
    assert_eq!(slots.worker(slot, 0), None);
    assert_ne!(slots.assign(WorkerId(2), 11), Some(slot), "entries that name it may still be alive");
    assert_ne!(slots.assign(WorkerId(3), 10 + TTL_TICKS * LEARNED_MAX), Some(slot), "likewise");
    assert_eq!(slots.assign(WorkerId(4), 10 + TTL_TICKS * LEARNED_MAX + 1), Some(slot));
    assert_eq!(slots.worker(slot, 0), Some(WorkerId(4)));
}

#[test]
fn slots_run_out_without_harm() {
    let mut slots = Slots::default();
    let given = (1..=70_000).filter_map(|id| slots.assign(WorkerId(id), 0)).count();
    assert_eq!(given, 65_535);
}

#[test]
fn a_cache_that_remembers_again_is_trusted_again() {
    let mut slots = Slots::default();
    let slot = slots.assign(WorkerId(1), 0).expect("room");
    assert!((0..20).all(|_| slots.learn(slot, 40, 8_000, 0) == Some(Lesson::Forgets)));
    assert!(slots.worker(slot, 41).is_none() && slots.worker(slot, 10).is_some());
    while slots.worker(slot, TTL_TICKS).is_none() {
        assert_eq!(slots.learn(slot, 38, 8_000, 8_000), Some(Lesson::Remembers), "each adds at least one");
    }
    assert!((0..100).all(|_| slots.learn(slot, 1, 8_000, 0).is_none()));
    assert!(slots.worker(slot, 40).is_some(), "a prompt that is still being read is no evidence");
}

/// Nothing says beforehand for how long a worker remembers: a horizon that could only shrink sent sessions that pause to caches that never had them.
#[test]
fn a_cache_that_remembers_for_longer_is_trusted_for_longer_up_to_ten_times_the_time_to_live() {
    let mut slots = Slots::default();
    let slot = slots.assign(WorkerId(1), 0).expect("room");
    assert!(slots.worker(slot, TTL_TICKS + 1).is_none(), "nobody has shown it");
    for age in [40, 60, 90, 130, 190, 280, 400, 600] {
        assert!((0..5).all(|_| slots.learn(slot, age, 8_000, 8_000) != Some(Lesson::Forgets)));
    }
    let most = TTL_TICKS * LEARNED_MAX;
    assert!(slots.worker(slot, most).is_some() && slots.worker(slot, most + 1).is_none());
    assert!((0..5).all(|_| slots.learn(slot, 100, 8_000, 0) == Some(Lesson::Forgets)));
    assert!(slots.worker(slot, 130).is_none(), "it was found out soon");
}

#[test]
fn what_is_noted_late_takes_its_place_by_age_whatever_the_order() {
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let table = Table::new(1 << 20);
        let hints = [(1, 10), (2, 30), (3, 20), (4, 25)];
        for at in order {
            table.note(77, hints[at].0, hints[at].1, 40);
        }
        assert_eq!(holders(&table, 77), [(2, 30), (4, 25), (3, 20)]);
        assert_eq!(table.note(77, 4, 24, 40), None, "older than what is known");
        table.withdraw(77, 2, 29, 40);
        assert_eq!(holders(&table, 77).len(), 3, "it got it again since");
        table.withdraw(77, 2, 30, 40);
        assert_eq!(holders(&table, 77), [(4, 25), (3, 20)]);
    }
}

#[test]
fn an_old_hint_replaces_nothing_newer_in_a_full_bucket() {
    let table = Table::new(0);
    assert!((1..=4).all(|n| !table.put(n << 16, 1, 10 + n as u16)));
    assert_eq!(table.note(9 << 16, 1, 8, 20), None);
    assert_eq!(table.note(9 << 16, 1, 12, 20), Some(true));
    assert!(table.find(1 << 16).is_none() && table.find(9 << 16).is_some());
}

#[test]
fn the_last_16_bits_of_a_hash_do_not_count_because_others_are_not_told_them() {
    let (table, hash) = (Table::new(32 << 20), 0x1234_5678_9abc_def0);
    table.note(Boundary::of(hash).hash(), 1, 1, 1);
    assert_eq!(holders(&table, hash), [(1, 1)]);
    assert_eq!(holders(&table, hash ^ 1 << 16), []);
}

#[test]
fn hashes_of_one_seed_are_the_same_on_every_node_and_in_every_release() {
    let [key, same] = [Key::shared(&[7; 32]), Key::shared(&[7; 32])];
    let (tenant, model) = (TenantId::parse("team").expect("valid"), ModelId::parse("llama").expect("valid"));
    let chain = |key: &Key| {
        let mut hashes = Vec::new();
        key.chain(key.root(&tenant, &model), &[b'x'; 600], &mut hashes);
        hashes
    };
    assert_eq!(chain(&key), chain(&same));
    assert_eq!(chain(&key), [16_730_879_973_394_941_294, 13_180_436_125_466_789_682]);
    assert_eq!(
        (key.fingerprint(), key.routing_key(&tenant, &model, "session")),
        (865_368_449, 412_914_489_985_830_887)
    );
    assert_ne!(chain(&key), chain(&Key::shared(&[8; 32])));
    assert_ne!(key.fingerprint(), Key::shared(&[8; 32]).fingerprint());
    let other = ModelId::parse("qwen").expect("valid");
    assert_ne!(key.routing_key(&tenant, &model, "session"), key.routing_key(&tenant, &other, "session"));
}

#[test]
fn others_are_told_multiples_of_8_kib_the_last_message_and_the_end() {
    let at = |blocks, marked| told(blocks, marked).collect::<Vec<_>>();
    assert_eq!(at(0, 0), Vec::<usize>::new());
    assert_eq!(at(5, 3), [5, 3]);
    assert_eq!(at(100, 70), [32, 64, 96, 100, 70]);
    assert_eq!(at(64, 32), [32, 64], "nothing twice");
}

#[test]
fn few_boundaries_are_stored() {
    let count = |blocks| boundaries(blocks, 0).count();
    assert_eq!([0, 1, 4, 32, 128, 4096].map(count), [0, 1, 4, 16, 24, 148]);
}

proptest! {
    #[test]
    fn chains_agree_exactly_as_far_as_the_texts_do(
        shared in 0_usize..5_000, a in 0_usize..2_000, b in 0_usize..2_000, seed in any::<u64>(),
    ) {
        let key = Key::new(&mut Draw::new(1));
        let (tenant, model) = (TenantId::parse("t").expect("valid"), ModelId::parse("m").expect("valid"));
        let root = key.root(&tenant, &model);
        let mut draw = Draw::new(seed);
        let mut text = |len: usize| (0..len).map(|_| draw.next_u64() as u8).collect::<Vec<u8>>();
        let head = text(shared);
        let chain = |tail: Vec<u8>| {
            let mut hashes = Vec::new();
            key.chain(root, &[head.clone(), tail].concat(), &mut hashes);
            hashes
        };
        let (one, other) = (chain(text(a)), chain(text(b)));
        let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        // Random tails differ in their first block.
        prop_assert_eq!(same, (shared / BLOCK_BYTES).min(one.len()).min(other.len()));
        prop_assert!(one[same..].iter().all(|hash| !other.contains(hash)));
    }

    #[test]
    fn boundaries_include_the_end_and_leave_gaps_of_at_most_a_quarter(blocks in 1_usize..5_000, marked in 0_usize..5_000) {
        let mut at: Vec<usize> = boundaries(blocks, marked).collect();
        prop_assert!(at.iter().all(|it| (1..=blocks).contains(it)));
        prop_assert!(told(blocks, marked).all(|it| at.contains(&it)), "what is told is stored here too");
        prop_assert!(at.contains(&blocks) && (marked == 0 || marked >= blocks || at.contains(&marked)));
        at.sort_unstable();
        for pair in at.windows(2) {
            prop_assert!(pair[1] - pair[0] <= (pair[0] / 4).clamp(1, 32), "{:?}", pair);
        }
    }
}
