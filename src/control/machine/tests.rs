//! Any commands in any order: rows restore the state, nothing outgrows its bound, and what was promised of each command holds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Command;
use super::MINT_SHARES_MAX;
use super::MintChange;
use super::NAME_BYTES_MAX;
use super::Outcome;
use super::Refusal;
use super::Register;
use super::State;
use crate::base::fuzz;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::limits::DROPPED_MAX;
use crate::base::limits::FORGOTTEN_MAX;
use crate::base::limits::STORAGES_MAX;
use crate::control::faults::Fault;
use crate::control::faults::plant;
use crate::limits::Kind;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::mint::Share;
use crate::raft::Coded as _;
use crate::raft::Machine as _;
use crate::raft::Unreadable;

fn register(storage: u128, boot: u64, nonce: u64) -> Command {
    registered(storage, boot, nonce, 1)
}

fn registered(storage: u128, boot: u64, nonce: u64, level_max: u32) -> Command {
    let (node, zone) = (format!("n-{storage}"), String::new());
    Command::Register(Register { storage: StorageId(storage), boot, nonce, node, zone, level_max })
}

/// A mint of a limit's life: a first one, a pending one that follows it, and the same in force.
#[derive(Clone, Copy, Debug)]
enum Of {
    First,
    Pending,
    Settled,
}

fn minted(limit: u64, epoch: u64, of: Of) -> Mint {
    let first = Mint::first(LimitId(limit), 1, epoch, (Kind::Requests, 1000), 8, &[StorageId(1)].into()).unwrap();
    match of {
        Of::First => first,
        Of::Pending => Mint { revision: 2, is_settled: false, ..first },
        Of::Settled => Mint { revision: 2, ..first },
    }
}

fn mint(limit: u64, seen: u64, epoch: u64, of: Of) -> Command {
    Command::PutMint { seen, mint: minted(limit, epoch, of) }
}

fn dropped(limit: u64, seen: u64) -> Command {
    Command::DropMint { limit: LimitId(limit), seen }
}

/// It reads none.
const NONE: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();

const FOUND: Command = Command::Found { cluster: ClusterId(7), level: 1 };

fn founded() -> State {
    let mut state = State::default();
    assert_eq!(state.decide(1, FOUND, &mut Vec::new()), Outcome::Changed);
    state
}

fn check(commands: &[(Command, Outcome)]) -> State {
    let mut state = founded();
    for (index, (command, expect)) in (2..).zip(commands) {
        assert_eq!(state.decide(index, command.clone(), &mut Vec::new()), *expect, "{command:?}");
    }
    state
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        (0..2_u128, 1..3_u32).prop_map(|(id, level)| Command::Found { cluster: ClusterId(id), level }),
        (0..5_u128, 0..4_u64, 0..2_u64, 0..4_u32)
            .prop_map(|(it, boot, nonce, level)| registered(it, boot, nonce, level)),
        (0..5_u128).prop_map(|it| Command::Forget { storage: StorageId(it) }),
        (0..3_u64, 0..4_u64, 0..5_u64, prop_oneof![Just(Of::First), Just(Of::Pending), Just(Of::Settled)])
            .prop_map(|(it, seen, epoch, of)| mint(it, seen, epoch, of)),
        (0..3_u64, 0..4_u64).prop_map(|(it, seen)| dropped(it, seen)),
        (0..4_u32).prop_map(|to| Command::RaiseLevel { to }),
    ]
}

proptest! {
    #[test]
    fn rows_restore_the_state_and_no_history_takes_back_what_it_promised(all in proptest::collection::vec(commands(), 0..60)) {
        let (mut state, mut rows) = (State::default(), BTreeMap::new());
        let (mut boots, mut epochs) = (BTreeMap::new(), BTreeMap::new());
        for (index, command) in (1..).zip(all) {
            let (before, mut changes) = (state.clone(), Vec::new());
            let bytes = state.step(&NONE, index, &command.encode().unwrap(), &mut changes).unwrap();
            let outcome = Outcome::decode(&bytes).unwrap();
            for (key, value) in changes {
                match value {
                    Some(value) => drop(rows.insert(key, value)),
                    None => drop(rows.remove(&key)),
                }
            }
            let mut restored = State::default();
            rows.iter().for_each(|(key, value)| restored.restore(key, value).unwrap());
            prop_assert_eq!(&restored, &state);
            prop_assert_eq!(outcome == Outcome::Changed, before != state, "{:?}", &command);
            if outcome == Outcome::Changed {
                // Proposed again, as after a leader was lost: nothing more happens.
                let mut again = state.clone();
                again.decide(index + 1, command.clone(), &mut Vec::new());
                prop_assert_eq!(&again, &state);
                match command {
                    Command::Register(it) => {
                        let now = (it.boot, it.nonce);
                        let was: (u64, u64) = boots.insert(it.storage, now).unwrap_or_default();
                        prop_assert!(was.0 < now.0 || was == now || was == (0, 0));
                        prop_assert!(!before.is_forgotten(it.storage));
                    }
                    Command::PutMint { mint, .. } => {
                        let (limit, epoch) = (mint.limit, mint.epoch);
                        prop_assert!(epochs.insert(limit, epoch).is_none_or(|was| was < epoch), "an epoch came twice");
                        let last = state.mints_after(index - 1).collect::<Vec<_>>();
                        prop_assert_eq!(last, [(index, MintChange::Put(mint))]);
                    }
                    _ => {}
                }
            }
            prop_assert!(state.level() >= before.level());
        }
    }

    #[test]
    fn garbage_is_neither_a_command_nor_a_row(bytes in any::<Vec<u8>>()) {
        let _ = State::default().step(&NONE, 1, &bytes, &mut Vec::new()); // any answer will do, as long as there is one
        let _ = State::default().restore(&bytes, &bytes); // likewise
    }
}

#[test]
fn nothing_happens_before_the_cluster_was_founded_and_it_is_founded_once() {
    let mut state = State::default();
    let refused = state.decide(1, register(1, 1, 1), &mut Vec::new());
    assert_eq!(refused, Outcome::Refused(Refusal::NotFounded));
    let other = Command::Found { cluster: ClusterId(8), level: 1 };
    let state = check(&[(FOUND, Outcome::Unchanged), (other, Outcome::Refused(Refusal::OtherCluster(ClusterId(7))))]);
    assert_eq!(state.cluster(), Some(ClusterId(7)));
}

#[test]
fn a_start_is_registered_once_and_copies_are_told_what_they_are() {
    let copy = |known, boot| Outcome::Refused(Refusal::Copy { known, boot });
    let acts = [
        (register(1, 5, 1), Outcome::Changed),
        (register(1, 5, 1), Outcome::Unchanged),
        (register(1, 5, 2), copy(5, 5)),
        (register(1, 6, 2), Outcome::Changed),
        (register(1, 5, 1), copy(6, 5)),
    ];
    let state = check(&acts);
    assert_eq!(state.storages()[&StorageId(1)].since, 2, "it stays where it was first registered");
    let text = Refusal::Copy { known: 6, boot: 5 }.to_string();
    assert!(text.contains("copy or an old backup") && text.contains("--new-storage"), "{text}");
}

#[test]
fn the_forgotten_do_not_come_back() {
    let forget = Command::Forget { storage: StorageId(1) };
    check(&[
        (forget.clone(), Outcome::Refused(Refusal::Unknown)),
        (register(1, 1, 1), Outcome::Changed),
        (forget.clone(), Outcome::Changed),
        (forget, Outcome::Unchanged),
        (register(1, 2, 2), Outcome::Refused(Refusal::Forgotten)),
    ]);
}

#[test]
fn shares_are_given_out_by_whoever_knew_the_last_ones_and_no_epoch_comes_twice() {
    let state = check(&[
        (mint(1, 0, 1, Of::First), Outcome::Changed),
        (mint(1, 0, 1, Of::Pending), Outcome::Refused(Refusal::Stale(1))),
        (mint(1, 1, 1, Of::Pending), Outcome::Refused(Refusal::Stale(1))),
        (mint(1, 1, 2, Of::Pending), Outcome::Changed),
        (dropped(1, 1), Outcome::Refused(Refusal::Stale(2))),
        (dropped(1, 2), Outcome::Changed),
        (dropped(1, 2), Outcome::Unchanged),
        (mint(1, 0, 2, Of::First), Outcome::Refused(Refusal::Stale(2))),
        (mint(1, 0, 3, Of::First), Outcome::Changed),
    ]);
    assert_eq!(state.mint(LimitId(1)), Some(&minted(1, 3, Of::First)));
}

#[test]
fn shares_that_do_not_follow_the_ones_before_are_refused_whoever_proposes_them() {
    let unsound = Outcome::Refused(Refusal::Unsound(LimitId(1)));
    let more = |mut mint: Mint, units| {
        mint.shares.values_mut().for_each(|it| it.floor = units);
        Command::PutMint { seen: mint.epoch - 1, mint }
    };
    check(&[
        (mint(1, 0, 1, Of::Pending), unsound.clone()),
        (mint(1, 0, 1, Of::First), Outcome::Changed),
        (mint(1, 1, 2, Of::First), unsound.clone()),
        (more(minted(1, 2, Of::Pending), 9), unsound.clone()),
        (mint(1, 1, 3, Of::Pending), unsound.clone()),
        (mint(1, 1, 2, Of::Pending), Outcome::Changed),
        (mint(1, 2, 3, Of::First), unsound),
        (mint(1, 2, 3, Of::Settled), Outcome::Changed),
    ]);
}

#[test]
fn whoever_has_seen_the_log_up_to_an_entry_learns_what_came_after_it() {
    let state = check(&[
        (mint(1, 0, 1, Of::First), Outcome::Changed),
        (mint(2, 0, 1, Of::First), Outcome::Changed),
        (mint(1, 1, 2, Of::Pending), Outcome::Changed),
        (dropped(2, 1), Outcome::Changed),
        (mint(3, 0, 2, Of::First), Outcome::Changed),
    ]);
    let all = [
        (4, MintChange::Put(minted(1, 2, Of::Pending))),
        (5, MintChange::Dropped(LimitId(2))),
        (6, MintChange::Put(minted(3, 2, Of::First))),
    ];
    assert_eq!(state.mints_after(0).collect::<Vec<_>>(), all);
    assert_eq!(state.mints_after(5).collect::<Vec<_>>(), all[2..]);
    assert_eq!((state.mints_after(6).count(), state.mints_after(u64::MAX).count()), (0, 0));
    assert_eq!(state.epoch_dropped(), 1);
}

#[test]
fn the_level_rises_when_everybody_can_and_never_falls() {
    let raise = |to| Command::RaiseLevel { to };
    check(&[
        (registered(1, 1, 1, 2), Outcome::Changed),
        (registered(2, 1, 1, 1), Outcome::Changed),
        (raise(2), Outcome::Refused(Refusal::HeldBack(StorageId(2)))),
        (registered(2, 2, 2, 2), Outcome::Changed),
        (raise(2), Outcome::Changed),
        (raise(1), Outcome::Unchanged),
        (registered(3, 1, 1, 1), Outcome::Refused(Refusal::TooOld(2))),
    ]);
}

#[test]
fn what_is_too_many_or_too_long_is_refused_and_the_forgotten_make_room() {
    let mut state = founded();
    let mut index = 1;
    let mut act = |state: &mut State, command| {
        index += 1;
        state.decide(index, command, &mut Vec::new())
    };
    for storage in 0..STORAGES_MAX as u128 {
        assert_eq!(act(&mut state, register(storage, 1, 1)), Outcome::Changed);
    }
    let refused = Outcome::Refused(Refusal::TooMany(STORAGES_MAX as u64));
    assert_eq!(act(&mut state, register(u128::MAX, 1, 1)), refused);
    for storage in 0..=FORGOTTEN_MAX as u128 {
        act(&mut state, register(1 << 64 | storage, 1, 1));
        act(&mut state, Command::Forget { storage: StorageId(if storage == 0 { 0 } else { 1 << 64 | storage }) });
    }
    assert_eq!(
        (1..=FORGOTTEN_MAX as u128).filter(|it| state.is_forgotten(StorageId(1 << 64 | it))).count(),
        FORGOTTEN_MAX
    );
    assert!(!state.is_forgotten(StorageId(0)), "the oldest made room");
    let mut long = minted(1, 1, Of::First);
    let share = Share { is_in: true, ..Share::default() };
    long.shares = (0..=MINT_SHARES_MAX as u128).map(|it| (StorageId(it), share)).collect();
    let refused = act(&mut state, Command::PutMint { seen: 0, mint: long });
    assert_eq!(refused, Outcome::Refused(Refusal::Unsound(LimitId(1))));
    for limit in 0..=DROPPED_MAX as u64 {
        act(&mut state, mint(limit, 0, limit + 1, Of::First));
        assert_eq!(act(&mut state, dropped(limit, limit + 1)), Outcome::Changed);
    }
    let all: Vec<_> = state.mints_after(0).map(|it| it.1).collect();
    assert_eq!(all.len(), DROPPED_MAX);
    assert_eq!(all[0], MintChange::Dropped(LimitId(1)), "the one that went first made room");
}

#[test]
fn what_a_newer_release_wrote_is_not_skipped() {
    let newer = [1, 200, 1];
    assert_eq!(founded().step(&NONE, 2, &newer, &mut Vec::new()), Err(Unreadable));
    assert_eq!(State::default().restore(&[9], &[1]), Err(Unreadable));
}

#[test]
fn the_bytes_of_version_one_do_not_change() {
    assert_eq!(FOUND.encode().unwrap(), [1, 0, 7, 1]);
    assert_eq!(register(1, 2, 3).encode().unwrap(), [1, 1, 1, 2, 3, 3, b'n', b'-', b'1', 0, 1]);
    let share = [1, 1, 8, 8, 8, 1];
    let mint = [&[1, 3, 2, 1, 1, 3, 0, 251, 232, 3, 1, 0][..], &share].concat();
    assert_eq!(super::tests::mint(1, 2, 3, Of::First).encode().unwrap(), mint);
    assert_eq!(Command::RaiseLevel { to: 2 }.encode().unwrap(), [1, 5, 2]);
    assert_eq!(Outcome::Refused(Refusal::Forgotten).encode().unwrap(), [1, 2, 3]);
}

#[test]
fn planted_bugs_of_the_machine_are_seen() {
    let tests: [(Fault, fn()); 4] = [
        (Fault::CopiesRegister, a_start_is_registered_once_and_copies_are_told_what_they_are),
        (Fault::MintsOverwrite, shares_are_given_out_by_whoever_knew_the_last_ones_and_no_epoch_comes_twice),
        (Fault::MintsAreNotChecked, shares_that_do_not_follow_the_ones_before_are_refused_whoever_proposes_them),
        (Fault::LevelsRiseAlone, the_level_rises_when_everybody_can_and_never_falls),
    ];
    for (fault, test) in tests {
        plant(Some(fault));
        let passed = std::panic::catch_unwind(test).is_ok();
        plant(None);
        assert!(!passed, "{fault:?} was not seen");
    }
}

/// A start of a node whose name is about as long as one may be.
fn long_name(len: usize) -> Command {
    let Command::Register(register) = registered(1, 2, 3, 4) else { unreachable!("it is one") };
    Command::Register(Register { node: "n".repeat(len), ..register })
}

proptest! {
    #![proptest_config(fuzz::config())]

    /// What a member proposes, and what lies on disk, in any state: an outcome or a refusal, and rows that restore the same state.
    #[test]
    fn fuzz_damaged_commands_and_rows_are_carried_out_or_refused(
        before in proptest::collection::vec(commands(), 0..12),
        damaged in prop_oneof![commands(), (0..2 * NAME_BYTES_MAX).prop_map(long_name)].prop_flat_map(|it| fuzz::damaged(vec![it.encode().unwrap()])),
        hurt in fuzz::Damages::any(),
        value in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (mut state, mut rows, mut changes) = (State::default(), BTreeMap::new(), Vec::new());
        state.decide(1, FOUND, &mut changes);
        rows.extend(changes.into_iter().filter_map(|(key, value)| Some((key, value?))));
        for (index, command) in (2..).zip(before) {
            let mut changes = Vec::new();
            state.decide(index, command, &mut changes);
            for (key, value) in changes {
                match value {
                    Some(value) => drop(rows.insert(key, value)),
                    None => drop(rows.remove(&key)),
                }
            }
        }
        let mut changes = Vec::new();
        if let Ok(outcome) = fuzz::within(crate::storage::codec::BYTES_MAX, || state.step(&NONE, 99, &damaged, &mut changes)) {
            Outcome::decode(&outcome).unwrap();
        }
        for (key, value) in changes {
            match value {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
        let mut restored = State::default();
        for (key, row) in &rows {
            restored.restore(key, row).unwrap();
            // Any answer will do.
            let _ = fuzz::within(crate::storage::codec::BYTES_MAX, || State::default().restore(key, &hurt.of(row.clone())));
            let _ = fuzz::within(crate::storage::codec::BYTES_MAX, || State::default().restore(&hurt.of(key.clone()), row));
            prop_assert!(row.len() < 1 << 20, "{} bytes in one row", row.len());
        }
        prop_assert_eq!(&restored, &state);
        prop_assert!(state.storages().values().all(|it| it.node.len().max(it.zone.len()) <= NAME_BYTES_MAX));
        let _ = State::default().restore(&value, &damaged); // likewise
    }
}
