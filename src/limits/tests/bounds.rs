//! P8: limits, requests and members without end.

use std::collections::BTreeSet;
use std::time::Duration;

use super::laws::renew;
use super::world::limit;
use super::world::storage;
use crate::base::clock::Clock;
use crate::base::ids::StorageId;
use crate::limits::Kind;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::Settings;
use crate::limits::core::Answer;
use crate::limits::core::Core;
use crate::limits::core::Effect;
use crate::limits::core::Event;
use crate::limits::core::HOLDERS_LEN_MAX;
use crate::limits::core::Holders;
use crate::limits::core::Ignored;
use crate::limits::core::LIMITS_LEN_MAX;
use crate::limits::core::Refused;
use crate::limits::core::TICKETS_LEN_MAX;
use crate::limits::messages::Given;
use crate::limits::messages::Message;
use crate::limits::messages::Renewal;
use crate::limits::messages::Renewed;

const WALL: Duration = Duration::from_secs(600_000);

fn mint(limit: LimitId, over: usize) -> Mint {
    let over: BTreeSet<StorageId> = (0..over).map(storage).collect();
    Mint::first(limit, 1, 1, (Kind::Requests, 60_000), 8, &over).expect("sound")
}

#[test]
fn of_a_hundred_thousand_limits_those_beyond_the_bound_are_counted_and_served_as_if_alone() {
    let now = Clock.now();
    let mut core = Core::new(now, WALL, (storage(0), 1), Settings::default());
    let mints = (0..100_000).map(|it| mint(LimitId(it), 1)).collect();
    let effects = renew(&mut core, now, mints);
    let ignored = effects.iter().filter(|it| matches!(it, Effect::Ignored(Ignored::TooMany))).count();
    assert_eq!((core.limits_len(), ignored), (LIMITS_LEN_MAX, 100_000 - LIMITS_LEN_MAX));
    let mut answers = Vec::new();
    core.step(now, Event::Ask(1, LimitId(3), 1), &mut answers);
    core.step(now, Event::Ask(2, LimitId(99_999), 1), &mut answers);
    assert!(matches!(answers[0], Effect::Answer(1, Answer::Admitted(_))));
    assert!(matches!(answers[1], Effect::Answer(2, Answer::Refused(Refused::NoShare(_)))));
    // One that is removed makes room.
    let later = now + Duration::from_secs(1);
    core.step(later, Event::Wake, &mut Vec::new());
    let renewed = Renewed { number: 2, seen: 2, mints: vec![mint(LimitId(99_999), 1)], gone: vec![LimitId(3)] };
    core.step(later, Event::Renewed(renewed.clone()), &mut Vec::new());
    assert!(core.standing(later, LimitId(3)).is_none(), "{}", core.limits_len());
}

#[test]
fn so_many_requests_wait_and_no_more() {
    let now = Clock.now();
    let mut core = Core::new(now, WALL, (storage(0), 1), Settings::default());
    core.step(now, Event::Members(vec![(storage(1), 1)]), &mut Vec::new());
    renew(&mut core, now, (0..20).map(|it| mint(limit(it), 2)).collect());
    let mut effects = Vec::new();
    for ticket in 0..20_000 {
        core.step(now, Event::Ask(ticket, limit(ticket as usize % 20), 1), &mut effects);
    }
    let busy = |it: &&Effect| matches!(it, Effect::Answer(_, Answer::Refused(Refused::Busy(_))));
    let admitted = |it: &&Effect| matches!(it, Effect::Answer(_, Answer::Admitted(_)));
    assert_eq!(effects.iter().filter(admitted).count(), 20 * 4);
    assert_eq!(effects.iter().filter(busy).count(), 20_000 - 20 * 4 - TICKETS_LEN_MAX);
    effects.clear();
    core.step(now + Duration::from_millis(20), Event::Wake, &mut effects);
    let refused = effects.iter().filter(|it| matches!(it, Effect::Answer(_, Answer::Refused(_)))).count();
    assert_eq!(refused, TICKETS_LEN_MAX, "nobody waits longer than 20 ms");
}

#[test]
fn strangers_and_absurd_numbers_change_nothing() {
    let now = Clock.now();
    let mut core = Core::new(now, WALL, (storage(0), 1), Settings::default());
    core.step(now, Event::Members(vec![(storage(1), 1)]), &mut Vec::new());
    renew(&mut core, now, vec![mint(limit(0), 2)]);
    let given = |boot, total| Given { limit: limit(0), window: 10_000, boot, total, left: 0 };
    let cases = [
        (2, given(1, 1), Ignored::Stranger),
        (1, given(9, 1), Ignored::Stranger),
        (1, given(1, u64::MAX), Ignored::Absurd),
        (1, given(1, 0), Ignored::Late),
        (1, Given { window: u64::MAX, ..given(1, 1) }, Ignored::Late),
        (1, Given { window: 9_999, ..given(1, 1) }, Ignored::Late),
    ];
    for (from, given, why) in cases {
        let mut effects = Vec::new();
        core.step(now, Event::Received((storage(from), 1), Message::Given(given)), &mut effects);
        assert!(matches!(effects[..], [Effect::Ignored(it)] if it == why), "{given:?} {effects:?}");
    }
    let mut effects = Vec::new();
    (0..8).for_each(|it| core.step(now, Event::Ask(it, limit(0), 1), &mut effects));
    let admitted = effects.iter().filter(|it| matches!(it, Effect::Answer(_, Answer::Admitted(_)))).count();
    assert_eq!(admitted, 4, "its share, and nothing else");
}

#[test]
fn the_leader_remembers_so_many_nodes() {
    let now = Clock.now();
    let mut holders = Holders::new(now, Settings::default());
    let renewal = Renewal { number: 1, ..Renewal::default() };
    let renewed: Vec<_> =
        (0..=HOLDERS_LEN_MAX).map(|n| holders.renewed(now, (storage(n), 1), renewal.clone())).collect();
    assert!(renewed[..HOLDERS_LEN_MAX].iter().all(Result::is_ok));
    assert_eq!(renewed[HOLDERS_LEN_MAX], Err(Ignored::TooMany));
}
