//! One reporter and one owner: whatever the network does to reports and commits, the ledger is what the messages that came say, and the
//! next report makes it true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::ledger::InFlight;
use crate::ledger::core::Core;
use crate::ledger::core::Event;
use crate::ledger::core::Plan;
use crate::ledger::messages::Commit;
use crate::ledger::messages::Report;
use crate::transport::tests::peer;

const WORKERS: u64 = 3;
const OWNER: StorageId = StorageId(1);
const REPORTER: (StorageId, u64) = (StorageId(2), 1);
const STRANGER: StorageId = StorageId(9);

/// What a reporter does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Begin { worker: u64, tokens: u64 },
    End { worker: u64 },
    Report,
}

#[derive(Clone, Debug)]
enum Said {
    Report(Report),
    Commit(Commit),
}

/// What the acts make it say, and how it is in the end.
fn speak(view: u64, acts: &[Act]) -> (Vec<Said>, BTreeMap<u64, InFlight>) {
    let (mut said, mut number) = (Vec::new(), 0);
    let mut now: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let sum = |queue: &Vec<u64>| InFlight { requests: queue.len() as u32, queued_tokens: queue.iter().sum() };
    let sums = |now: &BTreeMap<u64, Vec<u64>>| -> BTreeMap<u64, InFlight> {
        now.iter().map(|it| (*it.0, sum(it.1))).filter(|it| !it.1.is_none()).collect()
    };
    for act in acts {
        number += 1;
        match *act {
            Act::Begin { worker, tokens } => {
                now.entry(worker).or_default().push(tokens);
                said.push(Said::Commit(Commit { number, worker, tokens }));
            }
            Act::End { worker } => drop(now.entry(worker).or_default().pop()),
            Act::Report => said.push(Said::Report(Report {
                number,
                view,
                is_complete: true,
                loads: sums(&now).into_iter().collect(),
            })),
        }
    }
    (said, sums(&now))
}

/// What an owner must believe after these messages, whatever their order: the last report, and the commits after it, each once.
fn believed(came: &[Said], worker: u64) -> InFlight {
    let reports = came.iter().filter_map(|it| if let Said::Report(report) = it { Some(report) } else { None });
    let last = reports.max_by_key(|it| it.number);
    let listed = last.and_then(|it| it.loads.iter().find(|it| it.0 == worker)).map(|it| it.1);
    let mut load = listed.unwrap_or_default();
    let after = last.map_or(0, |it| it.number);
    let commits = came.iter().filter_map(|it| if let Said::Commit(commit) = it { Some(*commit) } else { None });
    let each: BTreeMap<u64, Commit> =
        commits.filter(|it| it.number > after && it.worker == worker).map(|it| (it.number, it)).collect();
    each.values().for_each(|it| load.add(InFlight::one(it.tokens)));
    load
}

struct Owner {
    core: Core,
    now: Instant,
    looks: u64,
}

impl Owner {
    fn new() -> Self {
        let now = Clock.now();
        let mut core = Core::new(now, (OWNER, 1));
        core.step(now, Event::Members(vec![Arc::new(peer(1)), Arc::new(peer(2))]), &mut Vec::new());
        core.step(now, Event::Looked { number: 1, loads: Vec::new() }, &mut Vec::new());
        Self { core, now, looks: 1 }
    }

    /// The hash of the two members, as the owner's own report has it.
    fn view() -> u64 {
        crate::ledger::tests::sim::view_hash(&[1, 2])
    }

    fn hear(&mut self, said: &Said) {
        let event = match said {
            Said::Report(report) => Event::Reported(REPORTER, report.clone()),
            Said::Commit(commit) => Event::Committed(REPORTER, vec![*commit]),
        };
        self.core.step(self.now, event, &mut Vec::new());
    }

    /// Time passes, then it looks at itself.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.looks += 1;
        self.core.step(self.now, Event::Looked { number: self.looks, loads: Vec::new() }, &mut Vec::new());
    }

    fn says(&self, worker: u64) -> crate::ledger::messages::Said {
        self.core.said(self.now, STRANGER, WorkerId(worker))
    }
}

/// Delivers messages in this order (a number may be there twice, or not at all), then a last report.
fn check(acts: &[Act], order: &[usize]) -> Result<(), String> {
    let (said, _) = speak(Owner::view(), acts);
    let (mut owner, mut came) = (Owner::new(), Vec::new());
    for at in order.iter().filter(|_| !said.is_empty()) {
        let message = &said[at % said.len()];
        owner.hear(message);
        came.push(message.clone());
        for worker in 0..WORKERS {
            let (is, must) = (owner.says(worker), believed(&came, worker));
            if is.others != must {
                return Err(format!("worker {worker} after {came:?}: {is:?}, expected {must:?}"));
            }
            let has_report = came.iter().any(|it| matches!(it, Said::Report(_)));
            if is.is_known && !has_report {
                return Err(format!("a ledger is known before anybody has reported: {is:?}"));
            }
        }
    }
    let (said, truth) = speak(Owner::view(), &[acts, &[Act::Report]].concat());
    owner.hear(said.last().expect("the report"));
    for worker in 0..WORKERS {
        let (is, must) = (owner.says(worker), truth.get(&worker).copied().unwrap_or_default());
        if !is.is_known || is.others != must {
            return Err(format!("worker {worker} after the last report: {is:?}, expected {must:?}"));
        }
    }
    owner.now += Duration::from_millis(1001);
    if owner.says(0).is_known || !owner.says(0).others.is_none() {
        return Err("an old report counts".to_owned());
    }
    Ok(())
}

/// An owner that did not run for three seconds, and what waited in its socket meanwhile.
pub(super) fn stopped_observer() -> Result<(), String> {
    let report = |number, loads| Said::Report(Report { number, view: Owner::view(), is_complete: true, loads });
    let mut owner = Owner::new();
    owner.hear(&report(1, Vec::new()));
    owner.pass(Duration::from_secs(3));
    let before = owner.says(0);
    owner.hear(&report(2, Vec::new()));
    let drowsy = owner.says(0);
    owner.pass(Duration::from_millis(250));
    owner.hear(&report(3, vec![(0, InFlight::one(9))]));
    let awake = owner.says(0);
    if before.is_known || drowsy.is_known || !awake.is_known || awake.others != InFlight::one(9) {
        return Err(format!("{before:?} after the stop, {drowsy:?} by what had waited, {awake:?} by news"));
    }
    Ok(())
}

#[test]
fn an_observer_that_was_stopped_takes_nothing_for_idle_that_it_heard_before_or_meanwhile() {
    assert_eq!(stopped_observer(), Ok(()));
}

/// [`check`], drawn from a seed.
pub(super) fn drawn(seed: u64) -> Result<(), String> {
    let entropy = Entropy::seeded(seed);
    let act = |_| match entropy.below(5) {
        0 | 1 => Act::Begin { worker: entropy.next_u64() % WORKERS, tokens: entropy.next_u64() % 9_000 },
        2 | 3 => Act::End { worker: entropy.next_u64() % WORKERS },
        _ => Act::Report,
    };
    let acts: Vec<Act> = (0..20).map(act).collect();
    let order: Vec<usize> = (0..40).map(|_| entropy.below(1000)).collect();
    check(&acts, &order)
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (0..WORKERS, 0_u64..9_000).prop_map(|(worker, tokens)| Act::Begin { worker, tokens }),
        2 => (0..WORKERS).prop_map(|worker| Act::End { worker }),
        1 => Just(Act::Report),
    ]
}

proptest! {
    #[test]
    fn whatever_is_lost_doubled_or_overtaken_nothing_counts_twice_and_the_next_report_is_the_truth(
        acts in proptest::collection::vec(act(), 0..40),
        order in proptest::collection::vec(any::<usize>(), 0..80),
    ) {
        prop_assert_eq!(check(&acts, &order), Ok(()));
    }

    #[test]
    fn nonsense_of_a_member_neither_wraps_around_nor_ends_the_node(
        numbers in proptest::collection::vec(any::<u64>(), 1..20), requests in any::<u32>(), tokens in any::<u64>(),
    ) {
        let mut owner = Owner::new();
        for number in numbers {
            let loads = vec![(0, InFlight { requests, queued_tokens: tokens }); 3];
            owner.hear(&Said::Report(Report { number, view: number, is_complete: true, loads }));
            owner.hear(&Said::Commit(Commit { number: number.wrapping_add(1), worker: 0, tokens: u64::MAX }));
        }
        prop_assert!(owner.says(0).others.requests >= requests);
    }
}

#[test]
fn what_an_earlier_life_or_a_stranger_says_changes_nothing() {
    let mut owner = Owner::new();
    let report = Report { number: 5, view: Owner::view(), is_complete: true, loads: vec![(0, InFlight::one(10))] };
    for life in [(REPORTER.0, 0), (REPORTER.0, 2), (STRANGER, 1)] {
        let mut effects = Vec::new();
        owner.core.step(owner.now, Event::Reported(life, report.clone()), &mut effects);
        assert_eq!(effects.len(), 1, "it is counted");
        assert_eq!((owner.says(0).is_known, owner.says(0).others), (false, InFlight::default()));
    }
    owner.hear(&Said::Report(report));
    assert_eq!(owner.says(0).others, InFlight::one(10));
    let again = crate::transport::Peer { boot: 2, ..peer(2) };
    owner.core.step(owner.now, Event::Members(vec![Arc::new(peer(1)), Arc::new(again)]), &mut Vec::new());
    assert_eq!((owner.says(0).is_known, owner.says(0).others), (false, InFlight::default()), "it was started anew");
    owner.core.step(owner.now, Event::Members(vec![Arc::new(peer(1))]), &mut Vec::new());
    assert!(owner.says(0).is_known && owner.says(0).others.is_none(), "it is down");
}

#[test]
fn who_asks_is_not_told_of_its_own_requests() {
    let mut owner = Owner::new();
    let loads = vec![(0, InFlight::one(10))];
    owner.hear(&Said::Report(Report { number: 5, view: Owner::view(), is_complete: true, loads }));
    owner.core.step(owner.now, Event::Started(Commit { number: 2, worker: 0, tokens: 7 }), &mut Vec::new());
    let says = |asker| owner.core.said(owner.now, asker, WorkerId(0)).others;
    assert_eq!((says(REPORTER.0), says(OWNER)), (InFlight::one(7), InFlight::one(10)));
    assert_eq!(says(STRANGER), InFlight { requests: 2, queued_tokens: 17 });
}

#[test]
fn a_flood_of_commits_is_bounded() {
    let (mut owner, mut effects) = (Owner::new(), Vec::new());
    for from in 0..10 {
        let commits = (0..1000).map(|n| Commit { number: from * 1000 + n, worker: 0, tokens: 1 }).collect();
        owner.core.step(owner.now, Event::Committed(REPORTER, commits), &mut effects);
    }
    assert_eq!(owner.says(0).others.requests, 4096);
    assert_eq!(effects.len(), 10_000 - 4096);
}

/// A node that joins and finds that it keeps the ledger of a worker that others have loaded for long.
#[test]
fn a_new_owner_of_a_loaded_worker_never_says_that_it_is_idle() {
    let now = Clock.now();
    // Four members of which this node keeps all ledgers.
    let worker = WorkerId(5);
    let core_of = |others: [u16; 3]| {
        let mut core = Core::new(now, (OWNER, 1));
        let all = std::iter::once(1).chain(others).map(|n| Arc::new(peer(n))).collect();
        core.step(now, Event::Members(all), &mut Vec::new());
        (others, core)
    };
    let found = (2..).map(|n| core_of([n, n + 1, n + 2])).find(|it| it.1.owners(worker).first == Some(OWNER));
    let ([b, c, d], mut core) = found.expect("one of many");
    core.step(now, Event::Looked { number: 1, loads: Vec::new() }, &mut Vec::new());
    let hear = |core: &mut Core, at: Instant, n: u16, view: u64, loads: Vec<(u64, InFlight)>| {
        let report = Report { number: 1, view, is_complete: true, loads };
        core.step(at, Event::Reported((StorageId(u128::from(n)), 1), report), &mut Vec::new());
    };
    let says = |core: &Core, at| core.said(at, OWNER, worker);
    let view = crate::ledger::tests::sim::view_hash(&[1, b, c, d]);
    assert!(!says(&core, now).is_known);
    hear(&mut core, now, b, view, vec![(worker.0, InFlight::one(500))]);
    assert_eq!((says(&core, now).is_known, says(&core, now).others), (false, InFlight::one(500)), "at least that");
    // One has not heard of the new owner: what it lists for it is not all that it has.
    hear(&mut core, now, c, crate::ledger::tests::sim::view_hash(&[b, c, d]), Vec::new());
    hear(&mut core, now, d, view, Vec::new());
    assert!(!says(&core, now).is_known);
    let report = Report { number: 2, view, is_complete: true, loads: vec![(worker.0, InFlight::one(70))] };
    core.step(now, Event::Reported((peer(c).storage, 1), report), &mut Vec::new());
    let told = says(&core, now);
    assert!(told.is_known);
    assert_eq!(told.others, InFlight { requests: 2, queued_tokens: 570 });
}

#[test]
fn a_member_that_never_speaks_is_waited_for_half_a_second_and_one_that_fell_silent_until_it_is_down() {
    let mut owner = Owner::new();
    assert!(!owner.says(0).is_known);
    owner.pass(Duration::from_millis(499));
    assert!(!owner.says(0).is_known);
    owner.pass(Duration::from_millis(1));
    assert!(owner.says(0).is_known, "it may be one that cannot");
    owner.hear(&Said::Report(Report { number: 1, view: Owner::view(), is_complete: true, loads: Vec::new() }));
    (0..9).for_each(|_| owner.pass(Duration::from_millis(200)));
    assert!(!owner.says(0).is_known, "it can, and may have begun something since");
    owner.core.step(owner.now, Event::Members(vec![Arc::new(peer(1))]), &mut Vec::new());
    assert!(owner.says(0).is_known);
}

#[test]
fn when_the_first_owner_is_down_the_second_is_asked_at_once() {
    let now = Clock.now();
    let mut core = Core::new(now, (StorageId(5), 1));
    let members = |without: Option<StorageId>| {
        Event::Members((1..=8).map(|n| Arc::new(peer(n))).filter(|it| Some(it.storage) != without).collect())
    };
    for worker in (0..50).map(WorkerId) {
        core.step(now, members(None), &mut Vec::new());
        let owners = core.owners(worker);
        core.step(now, members(owners.first), &mut Vec::new());
        let asked = match core.plan(now, worker) {
            Plan::Ask(owner) => Some(owner.storage),
            Plan::Here(_) => Some(StorageId(5)),
            Plan::Nobody => None,
        };
        // This node cannot be down for itself.
        assert!(asked == owners.second || owners.first == Some(StorageId(5)), "{owners:?}, asked: {asked:?}");
    }
}
