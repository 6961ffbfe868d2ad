//! One node's permits: who waits is first, nobody waits for long, and what is said to the leader is so.

use std::collections::BTreeSet;
use std::time::Duration;

use super::laws::renew;
use super::world::limit;
use super::world::storage;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::limits::Kind;
use crate::limits::Mint;
use crate::limits::OnIsolation;
use crate::limits::Permit;
use crate::limits::Settings;
use crate::limits::core::Answer;
use crate::limits::core::Core;
use crate::limits::core::Effect;
use crate::limits::core::Event;
use crate::limits::core::Refused;
use crate::limits::core::STREAM_TICKETS_LEN_MAX;
use crate::limits::core::STREAM_WAIT_MAX;
use crate::limits::core::STREAM_WAITERS_LEN_MAX;
use crate::limits::core::Ticket;
use crate::limits::messages::Renewal;

const WALL: Duration = Duration::from_secs(600_000);

fn mint(n: usize, units: u64, nodes: usize) -> Mint {
    let over: BTreeSet<StorageId> = (0..nodes).map(storage).collect();
    Mint::first(limit(n), 1, 1, (Kind::Streams, 0), units, &over).expect("sound")
}

fn core(now: Instant, mints: Vec<Mint>) -> Core {
    let mut core = Core::new(now, WALL, (storage(0), 1), Settings::default());
    renew(&mut core, now, mints);
    core
}

/// What was answered.
fn step(core: &mut Core, now: Instant, event: Event) -> Vec<(Ticket, Result<Permit, Refused>)> {
    let mut effects = Vec::new();
    core.step(now, event, &mut effects);
    let answer = |it| match it {
        Effect::Permit(ticket, Answer::Admitted(permit)) => Some((ticket, Ok(permit))),
        Effect::Permit(ticket, Answer::Refused(why)) => Some((ticket, Err(why))),
        _other => None,
    };
    effects.into_iter().filter_map(answer).collect()
}

fn renewal(core: &mut Core, now: Instant) -> Option<Renewal> {
    let mut effects = Vec::new();
    core.step(now, Event::Wake, &mut effects);
    effects.into_iter().find_map(|it| if let Effect::Renew(it) = it { Some(it) } else { None })
}

#[test]
fn first_come_first_served_and_refused_after_two_seconds() {
    let now = Clock.now();
    let mut core = core(now, vec![mint(0, 2, 1)]);
    let mut held: Vec<Permit> =
        (1..=2).flat_map(|it| step(&mut core, now, Event::Open(it, limit(0)))).map(|it| it.1.unwrap()).collect();
    let later = now + Duration::from_secs(1);
    assert!(step(&mut core, now, Event::Open(3, limit(0))).is_empty());
    assert!(step(&mut core, later, Event::Open(4, limit(0))).is_empty());
    held.pop();
    let served = step(&mut core, later, Event::Freed);
    assert!(matches!(served[..], [(3, Ok(_))]), "{served:?}");
    assert_eq!(core.standing(later, limit(0)).map(|it| (it.share, it.in_use, it.left, it.waiting)), Some((2, 2, 0, 1)));
    assert!(step(&mut core, later + STREAM_WAIT_MAX / 2, Event::Wake).is_empty());
    let refused = step(&mut core, later + STREAM_WAIT_MAX, Event::Wake);
    assert!(matches!(refused[..], [(4, Err(Refused::Exhausted { .. }))]), "{refused:?}");
    drop((served, held));
    assert_eq!(core.standing(later, limit(0)).map(|it| (it.in_use, it.left, it.waiting)), Some((0, 2, 0)));
}

#[test]
fn a_client_that_leaves_while_it_waits_takes_nothing_and_keeps_nobody_waiting() {
    let now = Clock.now();
    let mut core = core(now, vec![mint(0, 1, 1)]);
    let held = step(&mut core, now, Event::Open(1, limit(0)));
    assert!(step(&mut core, now, Event::Open(2, limit(0))).is_empty());
    assert!(step(&mut core, now, Event::Open(3, limit(0))).is_empty());
    step(&mut core, now, Event::GaveUp(2));
    drop(held);
    assert!(matches!(step(&mut core, now, Event::Freed)[..], [(3, Ok(_))]));
    assert!(core.permits().all(|it| it.1.take(now).is_some()), "nobody waits any more");
}

#[test]
fn so_many_wait_for_one_limit_and_for_all_and_no_more() {
    let now = Clock.now();
    let limits = STREAM_TICKETS_LEN_MAX / STREAM_WAITERS_LEN_MAX + 1;
    let mut core = core(now, (0..limits).map(|it| mint(it, 1, 1)).collect());
    let (mut held, mut busy) = (Vec::new(), 0);
    for ticket in 0..(limits * (STREAM_WAITERS_LEN_MAX + 10)) as u64 {
        for (_, answer) in step(&mut core, now, Event::Open(ticket, limit(ticket as usize % limits))) {
            match answer {
                Ok(permit) => held.push(permit),
                Err(Refused::Busy(_)) => busy += 1,
                Err(why) => panic!("{why}"),
            }
        }
    }
    assert_eq!((held.len(), core.streams_len()), (limits, (limits as u64, STREAM_TICKETS_LEN_MAX)));
    assert_eq!(busy, limits * (STREAM_WAITERS_LEN_MAX + 9) - STREAM_TICKETS_LEN_MAX);
    assert_eq!(step(&mut core, now + STREAM_WAIT_MAX, Event::Wake).len(), STREAM_TICKETS_LEN_MAX);
}

#[test]
fn without_a_share_nothing_begins_unless_it_is_to_be_open_and_half_the_hold_is_for_what_runs() {
    let (now, hold) = (Clock.now(), Settings::default().hold);
    for on_isolation in [OnIsolation::Deny, OnIsolation::Open] {
        let mut core = Core::new(now, WALL, (storage(0), 1), Settings { on_isolation, ..Settings::default() });
        let is_denied = |core: &mut Core, at| {
            let mut effects = Vec::new();
            core.step(at, Event::Open(1, limit(0)), &mut effects);
            assert!(core.permits().all(|it| it.1.take(at).is_none()));
            match effects.pop() {
                Some(Effect::Permit(1, Answer::Refused(Refused::NoShare(_)))) => on_isolation == OnIsolation::Deny,
                Some(Effect::Permit(1, Answer::Open)) => on_isolation == OnIsolation::Open,
                other => panic!("{other:?}"),
            }
        };
        assert!(is_denied(&mut core, now), "nothing was minted");
        renew(&mut core, now, vec![mint(0, 4, 1)]);
        let last = now + hold / 2 - Duration::from_millis(2);
        let held: Vec<Permit> = core.permits().filter_map(|it| it.1.take(last)).collect();
        assert_eq!(held.len(), 1);
        assert!(is_denied(&mut core, now + hold / 2));
        renew(&mut core, now + hold, Vec::new());
        assert_eq!(step(&mut core, now + hold, Event::Open(9, limit(0))).len(), 1, "it is held again");
    }
}

#[test]
fn what_is_short_is_said_at_once_and_a_smaller_share_only_when_no_more_run() {
    let now = Clock.now();
    let first = mint(0, 4, 2);
    let mut core = core(now, vec![first.clone()]);
    let mut held: Vec<Permit> = (0..2).filter_map(|_| core.permits().next().and_then(|it| it.1.take(now))).collect();
    let later = now + Duration::from_millis(100);
    assert!(renewal(&mut core, later).is_none(), "the last was a moment ago");
    assert!(step(&mut core, later, Event::Open(1, limit(0))).is_empty());
    let said = renewal(&mut core, later).expect("at once");
    assert_eq!(said.uses.iter().map(|it| (it.in_use, it.wanted)).collect::<Vec<_>>(), [(2, 1)]);
    assert!(said.is_busy);
    // The other node is to have three of the four.
    let pending = first.redivided(1, [(storage(0), 1), (storage(1), 3)].into()).expect("another");
    pending.check(Some(&first)).unwrap();
    let renewed =
        crate::limits::messages::Renewed { number: said.number, seen: 2, mints: vec![pending], gone: Vec::new() };
    core.step(later, Event::Renewed(renewed), &mut Vec::new());
    let said = renewal(&mut core, later).expect("others wait for it");
    assert_eq!((said.adopted, said.seen), (Vec::new(), 2));
    held.pop();
    assert!(step(&mut core, later, Event::Freed).is_empty(), "two ran, and one may");
    let said = renewal(&mut core, later + Duration::from_millis(30)).expect("at once");
    assert_eq!(said.adopted.iter().map(|it| (it.epoch, it.from)).collect::<Vec<_>>(), [(2, 0)]);
    // Who leaves begins nothing, and says whether anything runs.
    core.step(later, Event::Leave, &mut Vec::new());
    assert!(renewal(&mut core, later).is_some_and(|it| it.is_busy && it.leaves_ms.is_some()));
    held.pop();
    assert!(core.permits().all(|it| it.1.take(later).is_none()));
    assert!(renewal(&mut core, later + Duration::from_secs(1)).is_some_and(|it| !it.is_busy));
}

#[test]
fn news_of_the_group_is_asked_for_once() {
    let now = Clock.now();
    let mut core = core(now, vec![mint(0, 4, 1)]);
    let later = now + Duration::from_millis(50);
    core.step(later, Event::News(1), &mut Vec::new());
    assert!(renewal(&mut core, later).is_none(), "it has seen that");
    core.step(later, Event::News(2), &mut Vec::new());
    assert!(renewal(&mut core, later).is_some());
    core.step(later, Event::News(3), &mut Vec::new());
    assert!(renewal(&mut core, later).is_none(), "not as often as anybody says so");
}
