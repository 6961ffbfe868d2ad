//! Claims about the choice in two steps: what is asked for, and that the answers decide.

use std::collections::HashSet;

use super::Shortlist;
use crate::base::ids::WorkerId;
use crate::routing::Feedback;
use crate::routing::Metrics;
use crate::routing::Reason;
use crate::routing::candidate::LoadSource;
use crate::routing::candidate::Told;
use crate::routing::fixture::Bench;
use crate::routing::fixture::Fleet;
use crate::routing::fixture::Want;
use crate::routing::fixture::prose;
use crate::routing::policies::POLICIES;

/// What other nodes say of the candidates, on top of what is known here.
fn with_others(fleet: &Fleet, tell: impl Fn(u64) -> u32) -> Fleet {
    let mut told = fleet.clone();
    told.workers.iter_mut().for_each(|it| it.inflight += tell(it.worker.0));
    told
}

fn shortlist(bench: &Bench, want: &Want<'_>, fleet: &Fleet) -> Option<Shortlist> {
    bench.with_request(want, |request| bench.router.shortlist(bench.now, request, fleet))
}

#[test]
fn a_shortlist_has_the_cheapest_by_what_is_known_the_best_holders_and_some_drawn() {
    for (workers, most) in [(3, 3), (9, 4), (16, 4), (64, 8), (1_000, 8)] {
        let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(workers));
        let prompt = prose(1, 8_000);
        let home = bench.send(&Want::text(&prompt), &fleet);
        fleet.workers.iter_mut().for_each(|it| it.inflight = 9);
        fleet.worker(home).inflight = 5_000;
        let mut met = HashSet::new();
        for n in 0..200 {
            let list = shortlist(&bench, &Want::text(&prompt), &fleet).expect("a choice of several").workers;
            let distinct: HashSet<_> = list.iter().copied().collect();
            assert_eq!((list.len(), distinct.len()), (most, most), "of {workers}");
            assert!(list.contains(&WorkerId(home)), "the holder is asked however busy it seems, time {n}");
            met.extend(distinct);
        }
        assert!(met.len() as u64 >= workers.min(200), "the rest is drawn: {} of {workers}", met.len());
    }
    let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(12));
    fleet.workers.iter_mut().for_each(|it| it.inflight = 9);
    fleet.worker(5).inflight = 0;
    let cheapest = |n| shortlist(&bench, &Want::text(&prose(n, 900)), &fleet).expect("a choice").workers[0].0;
    assert!((0..50).all(|n| cheapest(n) == 5));
}

#[test]
fn what_is_said_when_asked_decides_and_what_was_known_before_does_not() {
    let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(4));
    fleet.workers.iter_mut().for_each(|it| it.inflight = 3);
    fleet.worker(2).inflight = 0;
    for n in 0..20 {
        let text = prose(n, 900);
        let want = Want::text(&text);
        let list = shortlist(&bench, &want, &fleet).expect("a choice");
        assert_eq!(list.workers[0], WorkerId(2), "it seems idle");
        let told = with_others(&fleet, |id| if id == 2 { 40 } else { u32::from(id == 4) });
        let route = bench.with_request(&Want { messages: Vec::new(), ..want }, |request| {
            bench.router.settle(bench.now, request, list, &told).expect("a worker")
        });
        assert!([1, 3].contains(&route.worker.0), "everybody else thought so, too: {route:?}");
    }
}

#[test]
fn a_choice_in_two_steps_remembers_the_prompt_and_counts_as_one_decision() {
    let mut registry = crate::observability::metrics::Registry::default();
    let (mut bench, fleet) = (Bench::new("cache_aware"), Fleet::new(6));
    bench.router = bench.router.with_metrics(Metrics::register(&mut registry));
    let prompt = prose(1, 8_000);
    let want = Want::text(&prompt);
    let settle = |list| {
        bench.with_request(&Want { messages: Vec::new(), ..want.clone() }, |request| {
            bench.router.settle(bench.now, request, list, &fleet).expect("a worker")
        })
    };
    let first = settle(shortlist(&bench, &want, &fleet).expect("a choice"));
    assert_eq!(first.reason, Reason::Load);
    let second = settle(shortlist(&bench, &want, &fleet).expect("a choice"));
    assert_eq!((second.worker, second.reason), (first.worker, Reason::Prefix));
    assert!(second.expected_cached_tokens > 1_900 && second.new_tokens < 100, "{second:?}");
    bench.router.observe(bench.now, Feedback::NotServed { placed: &second.placed });
    let text = registry.render();
    assert!(text.contains("smg_routing_decision_seconds_count 2"), "{text}");
}

#[test]
fn what_changed_while_others_were_asked_is_respected() {
    let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(12));
    for n in 0..50 {
        let text = prose(n, 900);
        let want = Want::text(&text);
        let list = shortlist(&bench, &want, &fleet).expect("a choice");
        let asked = list.workers.clone();
        fleet.workers.iter_mut().for_each(|it| it.available = !asked.contains(&it.worker));
        let settled = bench.with_request(&want, |request| bench.router.settle(bench.now, request, list, &fleet));
        assert!(!asked.contains(&settled.expect("another worker").worker), "all that were asked went away");
        fleet.workers.iter_mut().for_each(|it| it.available = true);
    }
}

#[test]
fn only_policies_that_go_by_the_clusters_load_ask_for_it() {
    let fleet = Fleet::new(6);
    for policy in POLICIES {
        let bench = Bench::new(policy.name);
        let list = shortlist(&bench, &Want::text("hello"), &fleet);
        assert_eq!(list.is_some(), policy.name == "cache_aware", "{}", policy.name);
    }
    let bench = Bench::new("cache_aware");
    assert!(shortlist(&bench, &Want { target: Some(3), ..Want::text("x") }, &fleet).is_none(), "the caller has chosen");
    assert!(shortlist(&bench, &Want::text("x"), &Fleet::new(1)).is_none(), "there is nothing to choose");
}

#[test]
fn explaining_in_two_steps_says_whose_load_was_used_and_changes_nothing() {
    let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(9));
    fleet.worker(3).inflight = 0;
    let told = Told { by: LoadSource::Probed, age_ms: 120 };
    let story = bench.with_request(&Want::text("hello"), |request| {
        let list = bench.router.rehearse_shortlist(bench.now, request, &fleet).expect("a choice");
        let asked = list.workers.clone();
        let mut fresh = fleet.clone();
        fresh.workers.iter_mut().filter(|it| asked.contains(&it.worker)).for_each(|it| it.told = told);
        bench.router.explain_settled(bench.now, request, list, &fresh).expect("a worker")
    });
    assert_eq!(story.considered.len(), 9, "those that were asked, then the rest");
    let sources: Vec<_> = story.considered.iter().map(|it| (it.load_source, it.load_age_ms)).collect();
    assert_eq!((sources[0], sources[8]), (("probed", 120), ("own", 0)));
    assert!(story.considered[..4].iter().any(|it| it.worker == story.worker));
    assert_eq!(bench.router.prefix_map_size().0, 0);
}
