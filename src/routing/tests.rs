//! Claims about the router as a whole, mostly under `cache_aware`.

use std::collections::HashMap;
use std::collections::HashSet;

use proptest::prelude::*;

use super::fixture::Bench;
use super::fixture::Fleet;
use super::fixture::Want;
use super::fixture::prose;
use crate::base::ids::WorkerId;
use crate::base::setting::ByteSize;
use crate::base::setting::Setting as _;
use crate::routing::Config;
use crate::routing::Feedback;
use crate::routing::Metrics;
use crate::routing::Policies;
use crate::routing::Reason;
use crate::routing::RouteError;
use crate::routing::policies::POLICIES;
use crate::routing::policies::PolicyName;
use crate::routing::retry::Failure;
use crate::routing::retry::GiveUp;
use crate::routing::retry::Outcome;
use crate::routing::retry::Verdict;
use crate::routing::rules::Rule;

#[test]
fn a_growing_conversation_stays_with_its_worker_and_only_the_new_part_counts() {
    let (bench, fleet) = (Bench::new("cache_aware"), Fleet::new(8));
    let turns: Vec<String> = (0..12).map(|turn| prose(turn, 1_700)).collect();
    let first = bench.choose(&Want::messages(&[&turns[0]]), &fleet).expect("a worker");
    assert_eq!((first.reason, first.expected_cached_tokens), (Reason::Load, 0));
    for until in 2..turns.len() {
        let so_far: Vec<&str> = turns[..until].iter().map(String::as_str).collect();
        let route = bench.choose(&Want::messages(&so_far), &fleet).expect("a worker");
        assert_eq!((route.worker, route.reason), (first.worker, Reason::Prefix), "turn {until}");
        assert!(route.new_tokens < 700, "turn {until}: {} tokens are new", route.new_tokens);
    }
}

#[test]
fn a_short_shared_system_prompt_is_found_behind_different_questions() {
    let (bench, fleet) = (Bench::new("cache_aware"), Fleet::new(8));
    let system = prose(1, 1_100);
    let ask = |n: u64| bench.choose(&Want::messages(&[&system, &prose(100 + n, 900)]), &fleet).expect("a worker");
    let first = ask(0);
    for n in 1..20 {
        let route = ask(n);
        assert_eq!(route.worker, first.worker);
        assert!(route.expected_cached_tokens * 4 >= 1_024, "{}", route.expected_cached_tokens);
    }
}

#[test]
fn shared_tools_are_found_to_the_block_however_long_they_are() {
    let (bench, fleet) = (Bench::new("cache_aware"), Fleet::new(4));
    for (seed, len) in [(1, 5_900), (2, 23_000), (3, 90_500), (4, 300_000)] {
        let tools = prose(seed, len);
        bench.send(&Want::messages(&[&tools, &prose(seed + 50, 3_000)]), &fleet);
        let second = bench.choose(&Want::messages(&[&tools, &prose(seed + 90, 3_000)]), &fleet).expect("a worker");
        let missed = len as u64 - second.expected_cached_tokens * 4;
        assert!(missed <= 260, "{missed} of {len} shared bytes were not found");
    }
}

#[test]
fn one_hot_worker_does_not_end_affinity_for_the_others() {
    let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(4));
    let prompts: Vec<String> = (0..40).map(|n| prose(n, 8_000)).collect();
    let homes: Vec<u64> = prompts.iter().map(|it| bench.send(&Want::text(it), &fleet)).collect();
    let hot = fleet.worker(homes[0]);
    (hot.inflight, hot.queued_prefill_tokens) = (500, 1_000_000);
    for (prompt, home) in prompts.iter().zip(&homes) {
        let route = bench.choose(&Want::text(prompt), &fleet).expect("a worker");
        if *home == homes[0] {
            assert_ne!(route.worker.0, homes[0], "the hot worker's own prompts move away");
        } else {
            assert_eq!((route.worker.0, route.reason), (*home, Reason::Prefix), "all others stay");
        }
    }
}

#[test]
fn misses_are_spread_over_an_idle_fleet() {
    let (bench, fleet) = (Bench::new("cache_aware"), Fleet::new(8));
    let mut counts: HashMap<u64, u32> = HashMap::new();
    for n in 0..800 {
        *counts.entry(bench.send(&Want::text(&prose(n, 600)), &fleet)).or_default() += 1;
    }
    assert_eq!(counts.len(), 8, "{counts:?}");
    assert!(counts.values().all(|count| (50..200).contains(count)), "{counts:?}");
}

#[test]
fn misses_go_to_the_least_loaded_worker() {
    let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(8));
    fleet.workers.iter_mut().for_each(|it| it.inflight = 3);
    fleet.worker(5).inflight = 1;
    assert!((0..50).all(|n| bench.send(&Want::text(&prose(n, 600)), &fleet) == 5));
}

#[test]
fn prefixes_of_a_dead_worker_are_learned_again_on_another_and_do_not_pile_up() {
    let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(6));
    let prompts: Vec<String> = (0..200).map(|n| prose(n, 2_000)).collect();
    let homes: Vec<u64> = prompts.iter().map(|it| bench.send(&Want::text(it), &fleet)).collect();
    let dead = homes[0];
    fleet.remove(dead);
    bench.router.observe(bench.now, Feedback::Forgotten(WorkerId(dead)));
    let mut heirs = HashSet::new();
    for (prompt, home) in prompts.iter().zip(&homes) {
        let again = bench.choose(&Want::text(prompt), &fleet).expect("a worker");
        assert_eq!(again.reason == Reason::Prefix, *home != dead, "only the dead worker's prompts are new");
        let third = bench.choose(&Want::text(prompt), &fleet).expect("a worker");
        assert_eq!((third.worker, third.reason), (again.worker, Reason::Prefix), "learned again at once");
        if *home == dead {
            heirs.insert(again.worker);
        }
    }
    assert!(heirs.len() >= 4, "{heirs:?}");
}

#[test]
fn a_worker_that_is_out_for_a_while_is_passed_over_and_found_again() {
    let (bench, mut fleet) = (Bench::new("cache_aware"), Fleet::new(4));
    let prompt = prose(1, 4_000);
    let home = bench.send(&Want::text(&prompt), &fleet);
    fleet.worker(home).available = false;
    assert_ne!(bench.send(&Want::text(&prompt), &fleet), home);
    fleet.worker(home).available = true;
    let back = bench.choose(&Want::text(&prompt), &fleet).expect("a worker");
    assert_eq!(back.reason, Reason::Prefix);
}

#[test]
fn tenants_and_models_never_share_an_entry() {
    let (mut bench, fleet) = (Bench::new("cache_aware"), Fleet::new(1));
    let prompt = prose(1, 20_000);
    bench.send(&Want::text(&prompt), &fleet);
    assert!(bench.choose(&Want::text(&prompt), &fleet).expect("a worker").expected_cached_tokens > 4_000);
    bench.tenant("rival");
    assert_eq!(bench.choose(&Want::text(&prompt), &fleet).expect("a worker").expected_cached_tokens, 0);
    bench.model = crate::base::ids::ModelId::parse("other").expect("valid");
    assert_eq!(bench.choose(&Want::text(&prompt), &fleet).expect("a worker").expected_cached_tokens, 0);
}

#[test]
fn prefixes_expire_when_nobody_asks_for_them() {
    let (mut bench, fleet) = (Bench::new("cache_aware"), Fleet::new(4));
    let prompt = prose(1, 4_000);
    bench.send(&Want::text(&prompt), &fleet);
    bench.pass(170);
    assert_eq!(bench.choose(&Want::text(&prompt), &fleet).expect("a worker").reason, Reason::Prefix);
    bench.pass(170);
    assert_eq!(bench.choose(&Want::text(&prompt), &fleet).expect("a worker").reason, Reason::Prefix, "use renews");
    bench.pass(190);
    assert_eq!(bench.choose(&Want::text(&prompt), &fleet).expect("a worker").reason, Reason::Load);
}

#[test]
fn an_attempt_that_was_never_served_leaves_no_hint() {
    let (bench, fleet) = (Bench::new("cache_aware"), Fleet::new(4));
    let prompt = prose(1, 4_000);
    let failed = bench.choose(&Want::text(&prompt), &fleet).expect("a worker");
    bench.router.observe(bench.now, Feedback::NotServed { placed: &failed.placed });
    assert_eq!(bench.choose(&Want::text(&prompt), &fleet).expect("a worker").reason, Reason::Load);
    assert_eq!(bench.router.prefix_map_size().0, 12, "the second placement's own entries, and no others");
}

#[test]
fn a_worker_that_forgets_sooner_is_found_out_but_silence_teaches_nothing() {
    let forgets = |cached: Option<u64>| {
        let (mut bench, fleet) = (Bench::new("cache_aware"), Fleet::new(1));
        for n in 0..12 {
            let prompt = prose(n, 8_000);
            bench.send(&Want::text(&prompt), &fleet);
            bench.pass(100);
            let again = bench.choose(&Want::text(&prompt), &fleet).expect("a worker");
            bench.served(&again, 2_000, cached);
        }
        let prompt = prose(99, 8_000);
        bench.send(&Want::text(&prompt), &fleet);
        bench.pass(100);
        bench.choose(&Want::text(&prompt), &fleet).expect("a worker").expected_cached_tokens == 0
    };
    assert!(forgets(Some(0)), "zero is an answer");
    assert!(!forgets(None), "absent is not zero");
    assert!(!forgets(Some(1_990)));
}

#[test]
fn the_size_of_a_token_is_learned_within_bounds() {
    let (bench, fleet) = (Bench::new("cache_aware"), Fleet::new(1));
    let tokens = |n| bench.choose(&Want::text(&prose(n, 8_000)), &fleet).expect("a worker");
    assert_eq!(tokens(0).new_tokens, 2_000);
    for n in 1..100 {
        bench.served(&tokens(n), 4_000, None);
    }
    assert!((3_800..=4_000).contains(&tokens(200).new_tokens), "two bytes a token by now");
    for n in 300..400 {
        bench.served(&tokens(n), u64::MAX, None);
        bench.served(&tokens(n), 0, None);
    }
    assert!((3_800..=4_000).contains(&tokens(500).new_tokens), "nonsense is not believed");
}

#[test]
fn unique_prompts_for_ever_stay_below_the_cap() {
    let bench = Bench::with(Config { cache_map_bytes: ByteSize(4 << 20), ..Config::default() });
    let fleet = Fleet::new(8);
    for n in 0..40_000 {
        bench.send(&Want::text(&prose(n, 8_000)[..2_000]), &fleet);
    }
    let (entries, bytes) = bench.router.prefix_map_size();
    assert!(bytes <= 4 << 20, "{bytes}");
    assert!(entries > 200_000, "the memory is used: {entries}");
}

#[test]
fn a_target_is_honoured_or_refused_but_never_replaced() {
    for policy in POLICIES {
        let (bench, mut fleet) = (Bench::new(policy.name), Fleet::new(4));
        let target = |id| Want { target: Some(id), ..Want::text("hello") };
        assert_eq!(bench.choose(&target(3), &fleet).expect("a worker").reason, Reason::Target);
        assert_eq!(bench.choose(&target(9), &fleet).err(), Some(RouteError::TargetUnknown(WorkerId(9))));
        assert_eq!(bench.choose(&target(3).tried(&[3]), &fleet).err(), Some(RouteError::AllTried));
        fleet.worker(3).available = false;
        assert_eq!(bench.choose(&target(3), &fleet).err(), Some(RouteError::TargetUnavailable(WorkerId(3))));
    }
}

#[test]
fn policies_are_kept_per_model() {
    let (mut bench, fleet) = (Bench::new("round_robin"), Fleet::new(3));
    let own = bench.model.clone();
    let models = vec![Rule::parse(&format!("{own}*:manual")).expect("a rule")];
    let policies = |default| Policies { default: PolicyName::parse(default).expect("known"), models: models.clone() };
    bench.router.set_policies(policies("round_robin"));
    assert_eq!(bench.choose(&Want::text("a"), &fleet).expect("a worker").policy, "manual");
    bench.model = crate::base::ids::ModelId::parse("mistral").expect("valid");
    assert_eq!((bench.send(&Want::text("a"), &fleet), bench.send(&Want::text("a"), &fleet)), (1, 2));
    bench.model = crate::base::ids::ModelId::parse("qwen").expect("valid");
    assert_eq!(bench.send(&Want::text("a"), &fleet), 1, "each model has its own turn");
    bench.router.set_policies(policies("random"));
    assert_eq!(bench.choose(&Want::text("a"), &fleet).expect("a worker").policy, "random");
    assert_eq!(bench.router.policies().of(&own).as_str(), "manual");
    bench.router.set_policies(Policies { models: Vec::new(), ..policies("random") });
    assert_eq!(bench.router.policies().of(&own).as_str(), "random");
}

#[test]
fn explaining_changes_nothing_and_shows_what_was_compared() {
    for policy in POLICIES {
        let (told, silent) = (Bench::new(policy.name), Bench::new(policy.name));
        let mut fleet = Fleet::new(5);
        fleet.worker(2).queued_prefill_tokens = 9_000;
        for n in 0..20 {
            let text = prose(n % 3, 2_000);
            let want = Want { key: Some("session"), ..Want::text(&text) };
            let story = told.with_request(&want, |request| told.router.explain(told.now, request, &fleet));
            let story = story.expect("a worker");
            let (a, b) = (told.choose(&want, &fleet).expect("a worker"), silent.choose(&want, &fleet).expect("one"));
            assert_eq!((a.worker, a.reason), (b.worker, b.reason), "{}", policy.name);
            assert!(story.considered.iter().any(|it| it.worker == story.worker), "{story:?}");
            if matches!(policy.name, "cache_aware" | "round_robin" | "consistent_hashing" | "prefix_hash") {
                assert_eq!((story.worker, story.reason), (a.worker.to_string(), a.reason.as_str()), "{}", policy.name);
            }
        }
    }
}

#[test]
fn every_metric_moves_with_what_it_counts() {
    let mut registry = crate::observability::metrics::Registry::default();
    let (mut bench, fleet) = (Bench::new("cache_aware"), Fleet::new(2));
    bench.router = bench.router.with_metrics(Metrics::register(&mut registry));
    let prompt = prose(1, 4_000);
    bench.send(&Want::text(&prompt), &fleet);
    let second = bench.choose(&Want::text(&prompt), &fleet).expect("a worker");
    bench.served(&second, 1_000, Some(900));
    assert_eq!(bench.choose(&Want::text("x").tried(&[1, 2]), &fleet).err(), Some(RouteError::AllTried));
    let failure = Failure { outcome: Outcome::NotConnected, attempts: 1, untried: 1, is_content_sent: false };
    assert!(matches!(bench.router.after_failure(bench.now, failure), Verdict::Retry { .. }));
    let hopeless = bench.router.after_failure(bench.now, Failure { untried: 0, ..failure });
    assert_eq!(hopeless, Verdict::GiveUp(GiveUp::NoWorkerLeft));
    let manual = Policies { default: PolicyName::parse("manual").expect("known"), models: Vec::new() };
    bench.router.set_policies(manual);
    bench.send(&Want::key("a"), &fleet);
    let text = registry.render();
    for line in [
        r#"smg_worker_selection_total{policy="cache_aware",reason="prefix"} 1"#,
        r#"smg_worker_selection_total{policy="manual",reason="assigned"} 1"#,
        r#"smg_routing_refusals_total{reason="all_tried"} 1"#,
        "smg_routing_decision_seconds_count 4",
        "smg_routing_reported_cached_tokens_total 900",
        "smg_routing_prefix_map_entries 12",
        "smg_manual_policy_cache_entries 1",
        r#"smg_worker_retries_total{reason="unreachable"} 1"#,
        r#"smg_routing_retries_withheld_total{reason="no_worker_left"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

proptest! {
    #[test]
    fn never_a_tried_worker_and_always_an_available_one_where_there_is_any(
        policy in 0..POLICIES.len(),
        states in proptest::collection::vec((any::<bool>(), any::<bool>(), 0_u32..40, any::<bool>()), 1..40),
        text in "[a-z ]{0,700}",
        key in proptest::option::of("[a-z]{1,8}"),
    ) {
        let (bench, mut fleet) = (Bench::new(POLICIES[policy].name), Fleet::new(states.len() as u64));
        let mut want = Want { key: key.as_deref(), ..Want::text(&text) };
        for (id, (available, tried, inflight, suspect)) in (1..).zip(&states) {
            (fleet.worker(id).available, fleet.worker(id).inflight) = (*available, *inflight);
            fleet.worker(id).suspect = *suspect;
            if *tried {
                want.tried.push(WorkerId(id));
            }
        }
        for _ in 0..3 {
            match bench.choose(&want, &fleet) {
                Err(error) => {
                    prop_assert_eq!(error, RouteError::AllTried);
                    prop_assert!(states.iter().all(|it| it.1));
                }
                Ok(route) => {
                    let chosen = states[route.worker.0 as usize - 1];
                    prop_assert!(!chosen.1, "tried");
                    prop_assert!(chosen.0 || states.iter().all(|it| !it.0 || it.1), "an available one was left");
                    let unsuspected = |it: &(bool, bool, u32, bool)| it.0 && !it.1 && !it.3;
                    let is_hasty = chosen.0 && chosen.3 && states.iter().any(unsuspected);
                    prop_assert!(!is_hasty, "a suspect before another");
                    prop_assert_eq!(route.reason == Reason::LastResort, !chosen.0);
                }
            }
        }
    }

    #[test]
    fn the_same_seed_and_requests_give_the_same_choices(
        policy in 0..POLICIES.len(), workers in 1_u64..60, texts in proptest::collection::vec("[a-z]{1,900}", 1..12),
    ) {
        let run = || {
            let (bench, fleet) = (Bench::new(POLICIES[policy].name), Fleet::new(workers));
            texts.iter().map(|it| bench.send(&Want::text(it), &fleet)).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }
}
