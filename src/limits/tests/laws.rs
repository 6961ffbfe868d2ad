//! Two nodes and whatever the network does to what they say: no unit is spent twice, and none is lost unless the message that gave it
//! away was.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::world::limit;
use super::world::storage;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::limits::Kind;
use crate::limits::Mint;
use crate::limits::OnIsolation;
use crate::limits::Settings;
use crate::limits::core::Answer;
use crate::limits::core::Core;
use crate::limits::core::Effect;
use crate::limits::core::Event;
use crate::limits::core::Life;
use crate::limits::core::Refused;
use crate::limits::messages::Message;
use crate::limits::messages::Renewed;

const LIMIT: u64 = 20;

/// At the beginning of a minute.
const WALL: Duration = Duration::from_secs(600_000);

fn mint(over: usize) -> Mint {
    let over: BTreeSet<StorageId> = (0..over).map(storage).collect();
    Mint::first(limit(0), 1, 1, (Kind::Requests, 60_000), LIMIT, &over).expect("sound")
}

fn life(n: usize) -> Life {
    (storage(n), 1)
}

/// Asks for a renewal, and answers it with these mints.
pub(super) fn renew(core: &mut Core, now: Instant, mints: Vec<Mint>) -> Vec<Effect> {
    let mut effects = Vec::new();
    core.step(now, Event::Wake, &mut effects);
    let number = effects.iter().find_map(|it| if let Effect::Renew(it) = it { Some(it.number) } else { None });
    let renewed = Renewed { number: number.expect("a renewal is due"), seen: 1, mints, gone: Vec::new() };
    effects.clear();
    core.step(now, Event::Renewed(renewed), &mut effects);
    effects
}

struct Pair {
    now: Instant,
    cores: Vec<Core>,
    said: Vec<(usize, Message)>,
    admitted: u64,
    tickets: u64,
}

impl Pair {
    fn new() -> Self {
        let now = Clock.now();
        let mut cores: Vec<Core> = (0..2).map(|n| Core::new(now, WALL, life(n), Settings::default())).collect();
        for core in &mut cores {
            core.step(now, Event::Members(vec![life(0), life(1)]), &mut Vec::new());
            renew(core, now, vec![mint(2)]);
        }
        Self { now, cores, said: Vec::new(), admitted: 0, tickets: 0 }
    }

    fn step(&mut self, n: usize, event: Event) {
        let mut effects = Vec::new();
        self.cores[n].step(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send(_, message) => self.said.push((1 - n, message)),
                Effect::Answer(_, Answer::Admitted(taken)) => self.admitted += taken.units(),
                Effect::Tell(told) => self.said.push((1 - n, Message::Told(told))),
                Effect::Answer(..) | Effect::Permit(..) | Effect::Renew(_) | Effect::Ignored(_) => {}
            }
        }
    }

    fn ask(&mut self, n: usize) {
        self.tickets += 1;
        self.step(n, Event::Ask(self.tickets, limit(0), 1));
    }

    fn deliver(&mut self, at: usize) {
        let Some((to, message)) = self.said.get(at).cloned() else { return };
        self.step(to, Event::Received(life(1 - to), message));
    }

    /// All from there on, and what is said to that.
    fn deliver_from(&mut self, first: usize) {
        let mut at = first;
        while at < self.said.len() {
            self.deliver(at);
            at += 1;
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        (0..2).for_each(|n| self.step(n, Event::Wake));
    }
}

proptest! {
    #[test]
    fn whatever_is_doubled_and_late_no_unit_is_spent_twice_and_none_is_lost_that_arrives_in_the_end(
        acts in proptest::collection::vec((0usize..5, any::<usize>()), 1..120),
    ) {
        let mut pair = Pair::new();
        for (act, draw) in acts {
            match act {
                0 | 1 => pair.ask(act),
                2 | 3 if !pair.said.is_empty() => pair.deliver(draw % pair.said.len()),
                _ => pair.pass(Duration::from_millis((draw % 30) as u64)),
            }
            prop_assert!(pair.admitted <= LIMIT);
        }
        // Once everything that was said arrives, all that is left can be spent at either node.
        pair.deliver_from(0);
        for _ in 0..2 * LIMIT {
            let before = pair.said.len();
            pair.pass(Duration::from_millis(1_100));
            (0..2).for_each(|n| pair.ask(n));
            pair.deliver_from(before);
        }
        prop_assert_eq!(pair.admitted, LIMIT);
    }
}

/// An answer of the leader that comes again, when a later one has brought less, changes nothing.
pub(super) fn late_answer() -> Result<(), String> {
    let now = Clock.now();
    let mut core = Core::new(now, WALL, life(0), Settings::default());
    let (first, later) = (mint(1), now + Duration::from_secs(1));
    let lower = first.next(2, 5, &[storage(0)].into(), 0).expect("sound").expect("another");
    renew(&mut core, now, vec![first.clone()]);
    renew(&mut core, later, vec![lower]);
    for number in [1, 2] {
        let renewed = Renewed { number, seen: 1, mints: vec![first.clone()], gone: Vec::new() };
        core.step(later, Event::Renewed(renewed), &mut Vec::new());
    }
    let share = core.standing(later, limit(0)).map(|it| it.share);
    if share == Some(5) { Ok(()) } else { Err(format!("its share is {share:?}, not 5")) }
}

#[test]
fn an_answer_that_comes_again_changes_nothing() {
    late_answer().unwrap();
}

fn answer(core: &mut Core, now: Instant, units: u64) -> Answer {
    let mut effects = Vec::new();
    core.step(now, Event::Ask(1, limit(0), units), &mut effects);
    effects.into_iter().find_map(|it| if let Effect::Answer(1, it) = it { Some(it) } else { None }).expect("an answer")
}

#[test]
fn without_a_share_a_node_denies_unless_it_is_told_to_be_open() {
    let (now, hold) = (Clock.now(), Settings::default().hold);
    for on_isolation in [OnIsolation::Deny, OnIsolation::Open] {
        let mut core = Core::new(now, WALL, life(0), Settings { on_isolation, ..Settings::default() });
        let is_as_told = |answer: &Answer| match on_isolation {
            OnIsolation::Deny => matches!(answer, Answer::Refused(Refused::NoShare(_))),
            OnIsolation::Open => matches!(answer, Answer::Open),
        };
        assert!(is_as_told(&answer(&mut core, now, 1)), "nothing was minted");
        renew(&mut core, now, vec![mint(1)]);
        assert!(matches!(answer(&mut core, now + hold / 2, 1), Answer::Admitted(_)));
        assert!(is_as_told(&answer(&mut core, now + hold * 2, 1)), "its hold has ended");
        renew(&mut core, now + hold * 2, Vec::new());
        assert!(matches!(answer(&mut core, now + hold * 2, 1), Answer::Admitted(_)), "it is held again");
    }
}

#[test]
fn a_refusal_says_when_to_come_again_or_that_it_is_no_use() {
    let now = Clock.now();
    let mut core = Core::new(now, WALL + Duration::from_secs(10), life(0), Settings::default());
    renew(&mut core, now, vec![mint(1)]);
    assert!(matches!(answer(&mut core, now, 21), Answer::Refused(Refused::TooLarge(_))));
    drop(answer(&mut core, now, 20));
    let Answer::Refused(Refused::Exhausted { retry_after, .. }) = answer(&mut core, now, 1) else {
        panic!("all is used")
    };
    assert_eq!(retry_after, Duration::from_secs(50));
    let later = now + retry_after;
    assert!(matches!(answer(&mut core, later, 20), Answer::Admitted(_)));
}

#[test]
fn a_lower_limit_takes_force_with_the_next_window() {
    let now = Clock.now();
    let mut core = Core::new(now, WALL, life(0), Settings::default());
    let first = mint(1);
    renew(&mut core, now, vec![first.clone()]);
    drop(answer(&mut core, now, 4));
    let lower = first.next(2, 5, &[storage(0)].into(), 10_000).expect("sound").expect("another");
    renew(&mut core, now + Duration::from_secs(1), vec![lower]);
    assert!(
        matches!(answer(&mut core, now + Duration::from_secs(2), 4), Answer::Admitted(_)),
        "eight of this window's twenty"
    );
    let next = now + Duration::from_secs(60);
    assert!(matches!(answer(&mut core, next, 5), Answer::Admitted(_)));
    assert!(matches!(answer(&mut core, next, 1), Answer::Refused(Refused::Exhausted { .. })));
}

#[test]
fn a_client_that_leaves_while_it_waits_takes_nothing() {
    let mut pair = Pair::new();
    (0..10).for_each(|_| pair.ask(0));
    assert_eq!(pair.admitted, 10);
    pair.ask(0);
    pair.step(0, Event::GaveUp(11));
    (0..pair.said.len() + 1).for_each(|it| pair.deliver(it));
    assert_eq!(pair.admitted, 10);
    pair.ask(0);
    assert_eq!(pair.admitted, 11, "what was asked for it serves the next");
}

#[test]
fn a_node_that_leaves_begins_no_window_and_still_gives() {
    let mut pair = Pair::new();
    pair.ask(1);
    pair.step(1, Event::Leave);
    for _ in 0..10 {
        pair.ask(0);
    }
    pair.ask(0);
    (0..4).for_each(|it| pair.deliver(it));
    assert_eq!(pair.admitted, 12, "it had nine left, and gave");
    pair.pass(Duration::from_secs(60));
    pair.said.clear();
    pair.ask(1);
    assert_eq!(pair.admitted, 12, "it has no share of this window");
}
