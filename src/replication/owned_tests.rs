//! What an owned table does with copies, parts, ages and impostors.

use super::*;

const SHARE: Share = Share { rows_max: 300, bytes_max: 64 << 10 };
const ME: StorageId = StorageId(1);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn row(name: u8, value: Option<u8>) -> (Vec<u8>, Option<Vec<u8>>) {
    (vec![name], value.map(|it| vec![it; 100]))
}

fn values(table: &Owned, now: Duration) -> Vec<(u8, u8)> {
    table.rows(now).map(|(_, name, bytes)| (name[0], bytes[0])).collect()
}

/// Asks until there is nothing more.
fn pull(to: &mut Owned, from: &Owned, now: Duration, bytes: usize) -> usize {
    for asked in 1.. {
        let (deltas, is_all) = from.deltas(now, &to.heads_asked(), bytes);
        let taken: Vec<_> = deltas.into_iter().map(|it| to.apply(now, it)).collect();
        assert!(taken.len() <= 1, "there is one owner");
        if is_all {
            return asked;
        }
    }
    0
}

#[test]
fn a_copy_is_what_the_owner_wrote_and_removals_are_told() {
    let (mut own, mut copy) = (Owned::new(Rule::Drop, SHARE), Owned::new(Rule::Drop, SHARE));
    own.publish(at(1), ME, 1, vec![row(1, Some(1)), row(2, Some(1))]).unwrap();
    pull(&mut copy, &own, at(1), usize::MAX);
    own.publish(at(2), ME, 1, vec![row(1, None), row(2, Some(2)), row(3, Some(3))]).unwrap();
    pull(&mut copy, &own, at(2), usize::MAX);
    assert_eq!(values(&copy, at(2)), [(2, 2), (3, 3)]);
    assert_eq!(copy.digest(), own.digest());
}

#[test]
fn a_part_counts_once_it_is_whole_however_small_the_pieces_are() {
    let (mut own, mut copy) = (Owned::new(Rule::Drop, SHARE), Owned::new(Rule::Drop, SHARE));
    own.publish(at(1), ME, 1, (0..20).map(|it| row(it, Some(1))).collect()).unwrap();
    let (deltas, is_all) = own.deltas(at(1), &[], 300);
    assert!(!is_all);
    assert_eq!(copy.apply(at(1), deltas[0].clone()), Ok(false));
    assert_eq!(values(&copy, at(1)), []);
    assert!(pull(&mut copy, &own, at(1), 300) > 5);
    assert_eq!(values(&copy, at(1)), values(&own, at(1)));
}

#[test]
fn who_began_at_a_later_version_does_not_end_at_an_earlier_one() {
    let mut own = Owned::new(Rule::Drop, SHARE);
    let (mut behind, mut copy) = (own.clone(), own.clone());
    own.publish(at(1), ME, 1, vec![row(1, Some(1)), row(2, Some(1)), row(3, Some(1))]).unwrap();
    pull(&mut behind, &own, at(1), usize::MAX);
    own.publish(at(2), ME, 1, vec![row(1, Some(2)), row(4, Some(2))]).unwrap();
    // The first piece is of the later state, so row 1 is not in it.
    let first = own.delta(at(2), ME, 1, 0, 130).unwrap();
    assert_eq!((first.to, copy.apply(at(2), first)), (2, Ok(false)));
    pull(&mut copy, &behind, at(2), usize::MAX);
    assert_eq!(values(&copy, at(2)), [], "row 1 would be missing");
    pull(&mut copy, &behind, at(2), usize::MAX);
    assert_eq!(values(&copy, at(2)), values(&behind, at(2)), "but nobody waits for ever");
    pull(&mut copy, &own, at(2), usize::MAX);
    assert_eq!(copy.digest(), own.digest());
}

#[test]
fn a_restarted_owner_replaces_its_old_life_though_it_counts_from_one_again() {
    let (mut own, mut copy) = (Owned::new(Rule::Keep, SHARE), Owned::new(Rule::Keep, SHARE));
    own.publish(at(1), ME, 1, (0..9).map(|it| row(it, Some(1))).collect()).unwrap();
    pull(&mut copy, &own, at(1), usize::MAX);
    own.publish(at(2), ME, 2, Vec::new()).unwrap();
    pull(&mut copy, &own, at(2), usize::MAX);
    assert_eq!((values(&copy, at(2)), copy.heads()), (vec![], vec![(ME, 2, 1)]));
    let old = PartDelta { owner: ME, boot: 1, from: 0, to: 99, head: 99, floor: 0, rows: Vec::new() };
    assert_eq!(copy.apply(at(2), old), Err(Refusal::NotNext));
}

#[test]
fn very_many_removals_are_told_by_taking_all_rows_anew() {
    let (mut own, mut copy) = (Owned::new(Rule::Drop, SHARE), Owned::new(Rule::Drop, SHARE));
    own.publish(at(1), ME, 1, vec![row(1, Some(1)), row(2, Some(1))]).unwrap();
    pull(&mut copy, &own, at(1), usize::MAX);
    for n in 0..=REMOVED_MAX {
        let name = n.to_be_bytes().to_vec();
        own.publish(at(2), ME, 1, vec![(name.clone(), Some(vec![9])), (name, None), row(1, None)]).unwrap();
    }
    assert!(own.parts[&ME].rows.len() <= REMOVED_MAX + 1);
    pull(&mut copy, &own, at(2), usize::MAX);
    assert_eq!(values(&copy, at(2)), [(2, 1)]);
}

#[test]
fn rows_expire_by_their_age_wherever_they_were_in_between() {
    let rule = Rule::Expire(at(10));
    let (mut own, mut relay, mut copy) = (Owned::new(rule, SHARE), Owned::new(rule, SHARE), Owned::new(rule, SHARE));
    own.publish(at(100), ME, 1, vec![row(1, Some(1))]).unwrap();
    pull(&mut relay, &own, at(100), usize::MAX);
    // The copy's clock is another one; 6 s have passed.
    let (deltas, _) = relay.deltas(at(106), &[], usize::MAX);
    copy.apply(at(3), deltas[0].clone()).unwrap();
    assert_eq!((values(&copy, at(6)).len(), values(&copy, at(8)).len()), (1, 0));
}

#[test]
fn rows_of_who_is_not_here_go_and_do_not_come_back() {
    let mut own = Owned::new(Rule::Drop, SHARE);
    own.publish(at(1), ME, 3, vec![row(1, Some(1))]).unwrap();
    assert!(own.retain(|_| Some(3)).is_empty());
    assert_eq!(own.retain(|_| None), [ME]);
    assert!(!own.takes(3, None) && !own.takes(2, Some(3)) && !own.takes(4, Some(3)) && own.takes(3, Some(3)));
    let kept = Owned::new(Rule::Keep, SHARE);
    assert!(kept.takes(3, None) && kept.takes(2, Some(3)) && !kept.takes(4, Some(3)));
}

#[test]
fn an_old_life_on_its_way_does_not_take_the_new_one_with_it() {
    let mut table = Owned::new(Rule::Drop, SHARE);
    let row = RowDelta { name: vec![1], version: 1, age_ms: 0, bytes: Some(vec![1]) };
    table
        .apply(at(1), PartDelta { owner: ME, boot: 2, from: 0, to: 1, head: 1, floor: 0, rows: vec![row.clone()] })
        .unwrap();
    let mut later = table.clone();
    later.apply(at(1), PartDelta { owner: ME, boot: 3, from: 0, to: 1, head: 5, floor: 0, rows: vec![row] }).unwrap();
    assert!(later.retain(|_| Some(2)).is_empty());
    assert_eq!((values(&later, at(1)).len(), later.heads_asked()), (1, vec![(ME, 2, 1)]));
}

#[test]
fn an_owner_goes_past_what_others_claim_it_wrote() {
    let (mut own, mut copy) = (Owned::new(Rule::Drop, SHARE), Owned::new(Rule::Drop, SHARE));
    own.publish(at(1), ME, 1, vec![row(1, Some(1))]).unwrap();
    let forged = RowDelta { name: vec![1], version: 70, age_ms: 0, bytes: Some(vec![66]) };
    copy.apply(at(1), PartDelta { owner: ME, boot: 1, from: 0, to: 70, head: 70, floor: 0, rows: vec![forged] })
        .unwrap();
    assert!(own.refute(ME, 1, 70) && !own.refute(ME, 1, 70));
    pull(&mut copy, &own, at(1), usize::MAX);
    assert_eq!(values(&copy, at(1)), [(1, 1)]);
}

#[test]
fn one_owner_may_not_have_more_than_its_share() {
    let mut own = Owned::new(Rule::Drop, Share { rows_max: 2, bytes_max: 1000 });
    assert!(own.publish(at(1), ME, 1, (0..3).map(|it| row(it, Some(1))).collect()).is_err());
    assert!(own.publish(at(1), ME, 1, vec![(vec![0; NAME_BYTES_MAX + 1], Some(vec![]))]).is_err());
    assert!(own.heads().is_empty(), "nothing was changed");
}
