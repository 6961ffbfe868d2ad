//! What each checker must see, planted in histories that are otherwise right.

use serde_json::Value;
use serde_json::json;

use super::Draft;
use super::MS;
use super::SEEDS;
use super::TAG;
use super::Verdict;
use super::judged;
use super::told;
use super::worlds;
use crate::history::Kind;

/// Changes a history; whether there was a place for it.
type Plant = fn(&mut Vec<Draft>) -> bool;
type World = fn(u64) -> Vec<Draft>;
/// Changes what one read was told.
type Twist = fn(&mut Vec<Value>);
/// The same, of one item.
type Spoil = fn(&mut Vec<Value>, &Value);

const WORLDS: [(&str, World); 6] = [
    ("lists", worlds::lists),
    ("responses", worlds::responses),
    ("background", worlds::background),
    ("idempotency", worlds::idempotency),
    ("workers", worlds::workers),
    ("limits", worlds::limits),
];

#[test]
fn what_a_right_store_tells_is_green() {
    for (workload, world) in WORLDS {
        let mut seen = [0; 3];
        for seed in 0..SEEDS {
            let verdicts = judged(workload, &world(seed));
            assert!(told(&verdicts).is_empty(), "{workload}, seed {seed}: {:#?}", told(&verdicts));
            assert!(verdicts.iter().all(|it| it.unknown.is_none()), "{workload}, seed {seed}: {verdicts:#?}");
            let Verdict { ok, fail, info, .. } = verdicts[0];
            seen = [seen[0] + ok, seen[1] + fail, seen[2] + info];
        }
        assert!(seen[0] > 30 * SEEDS && seen[1] > SEEDS && seen[2] > SEEDS, "{workload}: {seen:?}");
    }
}

/// In most seeds there is a place for it, and wherever there is, each of these checkers sees it, and says what it is.
fn seen(workload: &str, plant: Plant, checkers: &[(&str, &str)]) {
    let world = WORLDS.iter().find(|it| it.0 == workload).expect("it is one").1;
    let mut planted = 0;
    for seed in 0..SEEDS {
        let mut drafts = world(seed);
        if !plant(&mut drafts) {
            continue;
        }
        planted += 1;
        let said = told(&judged(workload, &drafts));
        for (checker, kind) in checkers {
            let begins = format!("{checker}: {kind}");
            assert!(said.iter().any(|it| it.starts_with(&begins)), "seed {seed}: no `{begins}` in {said:#?}");
        }
    }
    assert!(planted >= 50, "planted in {planted} of {SEEDS}");
}

fn reads(drafts: &mut [Draft]) -> impl Iterator<Item = &mut Draft> {
    drafts.iter_mut().filter(|it| it.kind == Kind::Ok && (it.f == "read" || it.f == "final"))
}

fn items(told: &mut Value) -> &mut Vec<Value> {
    told.as_array_mut().expect("a list")
}

/// One that was acknowledged early enough to be in many reads.
fn acknowledged(drafts: &[Draft]) -> Option<Draft> {
    drafts.iter().filter(|it| it.f == "append" && it.kind == Kind::Ok).nth(5).cloned()
}

#[test]
fn an_acknowledged_item_that_is_lost_is_seen() {
    let plant: Plant = |drafts| {
        let Some(lost) = acknowledged(drafts) else { return false };
        reads(drafts).for_each(|it| items(&mut it.told).retain(|item| *item != lost.asked));
        true
    };
    seen("lists", plant, &[("direct", "lost"), ("linearizable", "no order"), ("adya", "")]);
}

#[test]
fn an_item_that_is_lost_in_the_end_is_seen() {
    let plant: Plant = |drafts| {
        let Some(lost) = acknowledged(drafts) else { return false };
        let finals = drafts.iter_mut().filter(|it| it.f == "final");
        finals.for_each(|it| items(&mut it.told).retain(|item| *item != lost.asked));
        true
    };
    seen("lists", plant, &[("direct", "lost"), ("linearizable", "no order"), ("adya", "")]);
}

#[test]
fn an_item_that_is_there_twice_is_seen() {
    let plant: Plant = |drafts| {
        let Some(last) = drafts.iter_mut().rfind(|it| it.f == "final") else { return false };
        let first = items(&mut last.told)[0].clone();
        items(&mut last.told).push(first);
        true
    };
    seen("lists", plant, &[("direct", "twice"), ("linearizable", "no order"), ("adya", "")]);
}

#[test]
fn a_stale_read_is_seen() {
    let plant: Plant = |drafts| {
        let late = drafts.iter_mut().filter(|it| it.f == "read" && it.kind == Kind::Ok);
        let Some(late) = late.filter(|it| it.told.as_array().is_some_and(|it| it.len() > 15)).last() else {
            return false;
        };
        items(&mut late.told).truncate(3);
        true
    };
    seen("lists", plant, &[("direct", "stale read"), ("linearizable", "no order"), ("adya", "")]);
}

#[test]
fn an_item_from_nowhere_is_seen() {
    let plant: Plant = |drafts| {
        drafts
            .iter_mut()
            .filter(|it| it.f == "final" && it.key == "a")
            .for_each(|it| items(&mut it.told).push(json!(7777)));
        true
    };
    seen("lists", plant, &[("direct", "from nowhere")]);
}

#[test]
fn an_item_whose_client_was_told_that_it_failed_is_seen() {
    let plant: Plant = |drafts| {
        let failed = drafts.iter_mut().find(|it| it.f == "append" && it.kind == Kind::Info && it.effect.is_some());
        let Some(failed) = failed else { return false };
        failed.kind = Kind::Fail;
        true
    };
    seen("lists", plant, &[("direct", "from nowhere"), ("linearizable", "no order"), ("adya", "G1a")]);
}

#[test]
fn items_that_change_places_are_seen() {
    let plant: Plant = |drafts| {
        let Some(last) = drafts.iter_mut().rfind(|it| it.f == "final") else { return false };
        items(&mut last.told).swap(4, 5);
        true
    };
    seen("lists", plant, &[("direct", "order changed"), ("linearizable", "no order"), ("adya", "incompatible-order")]);
}

#[test]
fn a_hole_is_seen_though_nothing_in_it_was_acknowledged() {
    let plant: Plant = |drafts| {
        let ghost = drafts.iter().find(|it| it.f == "append" && it.kind == Kind::Info && it.effect.is_some()).cloned();
        let Some(ghost) = ghost else { return false };
        let last = drafts.iter_mut().rfind(|it| it.f == "final" && it.key == ghost.key).expect("there is one");
        let Some(at) = items(&mut last.told).iter().position(|it| *it == ghost.asked) else { return false };
        let is_inside = at + 1 < items(&mut last.told).len();
        items(&mut last.told).remove(at);
        is_inside
    };
    seen("lists", plant, &[("direct", "hole"), ("linearizable", "no order")]);
}

#[test]
fn an_order_against_time_is_seen() {
    let plant: Plant = |drafts| {
        let oks: Vec<_> =
            drafts.iter().filter(|it| it.f == "append" && it.kind == Kind::Ok && it.key == "a").cloned().collect();
        let (Some(first), Some(last)) = (oks.first(), oks.last()) else { return false };
        // All reads agree, and all are wrong.
        for it in reads(drafts).filter(|it| it.key == "a") {
            for item in items(&mut it.told) {
                if *item == first.asked {
                    *item = last.asked.clone();
                } else if *item == last.asked {
                    *item = first.asked.clone();
                }
            }
        }
        first.ended < last.began
    };
    seen("lists", plant, &[("direct", "order"), ("linearizable", "no order")]);
}

#[test]
fn a_list_that_is_not_found_and_an_item_that_was_there_before_are_seen() {
    let lost: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().find(|it| it.f == "append" && it.kind == Kind::Fail) else { return false };
        it.error = "404 not_found".to_owned();
        true
    };
    seen("lists", lost, &[("direct", "lost")]);
    let twice: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().find(|it| it.f == "append" && it.kind == Kind::Info) else { return false };
        it.error = "409 already_exists".to_owned();
        true
    };
    seen("lists", twice, &[("direct", "twice")]);
}

/// A response that was acknowledged and that nobody asked to delete.
fn undeleted(drafts: &[Draft]) -> Option<String> {
    let is_deleted = |key: &str| drafts.iter().any(|it| it.f == "delete" && it.key == key);
    drafts.iter().find(|it| it.f == "create" && it.kind == Kind::Ok && !is_deleted(&it.key)).map(|it| it.key.clone())
}

#[test]
fn a_response_that_is_not_found_is_seen() {
    let plant: Plant = |drafts| {
        let Some(key) = undeleted(drafts) else { return false };
        drafts.iter_mut().rfind(|it| it.f == "final" && it.key == key).expect("there is one").told = Value::Null;
        true
    };
    seen("responses", plant, &[("direct", "lost"), ("linearizable", "no order")]);
}

#[test]
fn a_response_that_was_deleted_and_is_back_is_seen() {
    let plant: Plant = |drafts| {
        let gone = drafts
            .iter()
            .find(|it| it.f == "delete" && it.kind == Kind::Ok && it.told == true)
            .map(|it| it.key.clone());
        let Some(key) = gone else { return false };
        let made =
            drafts.iter().find(|it| it.f == "create" && it.key == key && it.kind == Kind::Ok).map(|it| it.told.clone());
        let Some(mut made) = made else { return false };
        made.as_object_mut().expect("an object").remove("events");
        drafts.iter_mut().rfind(|it| it.f == "final" && it.key == key).expect("there is one").told = made;
        true
    };
    seen("responses", plant, &[("direct", "deleted back"), ("linearizable", "no order")]);
}

#[test]
fn a_response_that_changes_is_seen() {
    for (field, value, kind) in [
        ("digest", json!("another"), "content changed"),
        ("previous", json!("resp_x"), "content changed"),
        ("status", json!("failed"), "content changed"),
        ("status", json!("in_progress"), "went back"),
    ] {
        for seed in 0..SEEDS {
            let mut drafts = worlds::responses(seed);
            let key = undeleted(&drafts).expect("there is one");
            drafts.iter_mut().rfind(|it| it.f == "final" && it.key == key).expect("there is one").told[field] =
                value.clone();
            let said = told(&judged("responses", &drafts));
            assert!(said.iter().any(|it| it.starts_with(&format!("direct: {kind}"))), "seed {seed}, {field}: {said:?}");
        }
    }
}

#[test]
fn a_chain_that_is_refused_or_goes_elsewhere_is_seen() {
    let refused: Plant = |drafts| {
        let Some(key) = undeleted(drafts) else { return false };
        let ended = drafts.iter().find(|it| it.f == "create" && it.key == key).map(|it| it.ended);
        // One that continues nothing, so that nobody before it can be deleted.
        let is_first = drafts.iter().any(|it| it.f == "create" && it.key == key && it.asked["previous"].is_null());
        let next = drafts.iter_mut().rfind(|it| it.f == "create" && Some(it.began) > ended).expect("there is one");
        next.asked = json!({"previous": key, "previous_id": format!("resp_{key}")});
        (next.kind, next.error, next.told) = (Kind::Fail, "400 previous_response_not_found".to_owned(), Value::Null);
        is_first
    };
    seen("responses", refused, &[("direct", "chain")]);
    let elsewhere: Plant = |drafts| {
        let next =
            drafts.iter_mut().find(|it| it.f == "create" && it.kind == Kind::Ok && !it.asked["previous_id"].is_null());
        let Some(next) = next else { return false };
        next.told["previous"] = Value::Null;
        true
    };
    seen("responses", elsewhere, &[("direct", "chain")]);
}

/// Events of one operation that has at least five.
fn stream<'a>(drafts: &'a mut [Draft], f: &str) -> Option<&'a mut Vec<Value>> {
    let it = drafts.iter_mut().filter(|it| it.f == f && it.kind == Kind::Ok);
    it.filter_map(|it| it.told.get_mut("events")?.as_array_mut()).find(|it| it.len() >= 5)
}

#[test]
fn a_gap_a_doubled_event_and_two_ends_are_seen() {
    for (workload, f) in [("responses", "create"), ("background", "follow"), ("background", "final_events")] {
        let world = WORLDS.iter().find(|it| it.0 == workload).expect("it is one").1;
        for seed in 0..SEEDS {
            let checks: [(&str, Twist); 4] = [
                ("gap", |it| drop(it.remove(2))),
                ("doubled event", |it| it.insert(2, it[2].clone())),
                ("doubled event", |it| it.swap(1, 2)),
                ("doubled end", |it| it[3] = json!([it[3][0], "response.failed", ""])),
            ];
            for (kind, plant) in checks {
                let mut drafts = world(seed);
                let Some(events) = stream(&mut drafts, f) else { continue };
                plant(events);
                let said = told(&judged(workload, &drafts));
                // Two that change places are a gap first.
                let is_seen = |kind: &str| said.iter().any(|it| it.starts_with(&format!("direct: {kind}")));
                assert!(
                    is_seen(kind) || (kind == "doubled event" && is_seen("gap")),
                    "{f}, seed {seed}, {kind}: {said:?}"
                );
            }
        }
    }
}

#[test]
fn a_stream_without_an_end_is_seen() {
    let plant: Plant = |drafts| stream(drafts, "final_events").map(|it| it.pop()).is_some();
    seen("background", plant, &[("direct", "no end")]);
}

#[test]
fn events_that_are_told_differently_are_seen() {
    let plant: Plant = |drafts| stream(drafts, "follow").map(|it| it[2][2] = json!("another")).is_some();
    seen("background", plant, &[("direct", "told differently")]);
    let plant: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().rfind(|it| it.f == "final_events") else { return false };
        it.told = json!({"after": 5, "events": [[6, "delta", "more"]], "whole": false});
        true
    };
    seen("background", plant, &[("direct", "after the end")]);
}

#[test]
fn a_job_that_is_stuck_lost_or_goes_back_is_seen() {
    let stuck: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().rfind(|it| it.f == "final") else { return false };
        it.told["status"] = json!("in_progress");
        true
    };
    seen("background", stuck, &[("direct", "stuck"), ("direct", "went back")]);
    let another: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().rfind(|it| it.f == "final") else { return false };
        it.told["status"] = json!("failed");
        true
    };
    seen("background", another, &[("direct", "went back")]);
    let lost: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().rfind(|it| it.f == "final") else { return false };
        it.told = Value::Null;
        true
    };
    seen("background", lost, &[("direct", "lost")]);
    let not_followed: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().rfind(|it| it.f == "final_events") else { return false };
        (it.kind, it.told, it.error) = (Kind::Fail, Value::Null, "404 not_found".to_owned());
        true
    };
    seen("background", not_followed, &[("direct", "lost")]);
}

#[test]
fn a_job_that_a_limit_holds_back_is_stuck_only_where_nothing_does() {
    for seed in 0..SEEDS {
        for is_free in [false, true] {
            let mut drafts = worlds::background(seed);
            let mut last = drafts.iter().rfind(|it| it.f == "final").cloned().expect("there is one");
            for it in drafts.iter_mut().filter(|it| it.key == last.key) {
                match it.f {
                    "create" => it.asked = json!({"waits": true}),
                    "read" | "final" => it.told["status"] = json!("queued"),
                    _ => it.told["events"] = json!([]),
                }
            }
            if is_free {
                (last.f, last.key, last.process, last.told) = ("free", "t".to_owned(), 9000, Value::Null);
                drafts.push(last);
            }
            let said = told(&judged("background", &drafts));
            assert_eq!(said.iter().any(|it| it.starts_with("direct: stuck")), is_free, "seed {seed}: {said:?}");
        }
    }
}

#[test]
fn a_job_that_goes_on_once_it_is_cancelled_is_seen() {
    let plant: Plant = |drafts| {
        let is_open = |it: &&mut Draft| it.f == "read" && it.told["status"] == "in_progress";
        let Some(it) = drafts.iter_mut().find(is_open) else { return false };
        (it.f, it.told["status"]) = ("cancel", json!("cancelled"));
        true
    };
    seen("background", plant, &[("direct", "went back")]);
    let plant: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().rfind(|it| it.f == "final_events") else { return false };
        it.told["end"] = json!({"status": "incomplete", "digest": format!("{}!", it.key)});
        true
    };
    seen("background", plant, &[("direct", "went back")]);
}

#[test]
fn an_end_that_is_another_than_what_was_followed_is_seen() {
    let plant: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().rfind(|it| it.f == "final_events") else { return false };
        it.told["texts"] = json!(["one", "another"]);
        true
    };
    seen("background", plant, &[("direct", "another text")]);
    let plant: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().rfind(|it| it.f == "final_events") else { return false };
        it.told["end"] = json!({"status": "completed", "digest": "another"});
        true
    };
    seen("background", plant, &[("direct", "content changed")]);
}

#[test]
fn what_is_given_up_though_no_node_can_be_gone_is_seen() {
    for workload in ["background", "responses"] {
        let plant: Plant = |drafts| {
            let Some(it) = reads(drafts).find(|it| it.told.is_object()) else { return false };
            it.told["code"] = json!("node_lost");
            it.ended < 900 * MS
        };
        seen(workload, plant, &[("direct", "given up")]);
    }
}

#[test]
fn a_key_that_is_answered_with_two_ids_is_seen() {
    let plant: Plant = |drafts| {
        let oks: Vec<_> =
            drafts.iter().filter(|it| it.f == "ask" && it.kind == Kind::Ok).map(|it| it.key.clone()).collect();
        let Some(key) = oks.iter().find(|key| oks.iter().filter(|it| it == key).count() > 1) else { return false };
        let it =
            drafts.iter_mut().rfind(|it| it.f == "ask" && it.kind == Kind::Ok && it.key == *key).expect("just seen");
        it.told["id"] = json!("another");
        true
    };
    seen("idempotency", plant, &[("direct", "two answers")]);
}

#[test]
fn a_request_that_is_done_twice_or_never_or_not_asked_for_is_seen() {
    let last = |drafts: &mut Vec<Draft>| drafts.iter().rposition(|it| it.f == "final").expect("there is one");
    for seed in 0..SEEDS {
        let drafts = worlds::idempotency(seed);
        let done =
            drafts.iter().find(|it| it.f == "ask" && it.kind == Kind::Ok && it.asked["in"] == "i").expect("one is");
        let (key, checks): (_, [(&str, Spoil); 3]) = (
            json!(done.key),
            [
                ("twice", |it, key| it.push(key.clone())),
                ("lost", |it, key| it.retain(|text| text != key)),
                ("from nowhere", |it, _| it.push(json!("stranger"))),
            ],
        );
        for (kind, plant) in checks {
            let mut drafts = drafts.clone();
            let at = last(&mut drafts);
            plant(items(&mut drafts[at].told), &key);
            let said = told(&judged("idempotency", &drafts));
            assert!(said.iter().any(|it| it.starts_with(&format!("direct: {kind}"))), "seed {seed}, {kind}: {said:?}");
        }
    }
    let reused: Plant = |drafts| {
        let Some(it) = drafts.iter_mut().find(|it| it.f == "ask" && it.kind == Kind::Fail) else { return false };
        it.error = "409 idempotency_key_reused".to_owned();
        true
    };
    seen("idempotency", reused, &[("direct", "two requests")]);
}

/// Adds a worker after everything else, then perhaps more; all nodes see it.
fn after_all(drafts: &mut Vec<Draft>, f: &'static str, asked: Value, told: Value) {
    let last = drafts.iter().filter(|it| it.f != "final").map(|it| it.ended.max(it.effect.unwrap_or_default())).max();
    let began = last.unwrap_or_default() + 3000 * MS;
    let (process, error, kind, node) = (9000 + drafts.len() as u32, String::new(), Kind::Ok, 0);
    let key = "http://w3".to_owned();
    drafts.push(Draft {
        process,
        f,
        key,
        node,
        began,
        effect: Some(began + MS),
        ended: began + 2 * MS,
        kind,
        asked,
        told,
        error,
    });
    for it in drafts.iter_mut().filter(|it| it.f == "final") {
        it.began += 3003 * MS;
        it.ended += 3003 * MS;
    }
}

fn added(drafts: &mut Vec<Draft>) {
    let label = format!("{TAG}.x");
    after_all(drafts, "add", json!({"label": label}), json!({"label": label, "durable": true}));
}

/// Its node shows it.
fn looked_at(drafts: &mut Vec<Draft>) {
    after_all(drafts, "read", Value::Null, json!({"http://w3": {"label": "t.x", "priority": 50}}));
    drafts.last_mut().expect("just made").key = "*".to_owned();
}

fn shown(drafts: &mut [Draft], label: &str, priority: u64) {
    for it in drafts.iter_mut().filter(|it| it.f == "final") {
        it.told["http://w3"] = json!({"label": label, "priority": priority});
    }
}

#[test]
fn workers_that_are_not_alike_lost_resurrected_or_unknown_are_seen() {
    let right: Plant = |drafts| {
        added(drafts);
        looked_at(drafts);
        after_all(drafts, "change", json!({"priority": 2000}), json!({"priority": 2000}));
        shown(drafts, "t.x", 2000);
        true
    };
    for seed in 0..SEEDS {
        let mut drafts = worlds::workers(seed);
        right(&mut drafts);
        assert!(told(&judged("workers", &drafts)).is_empty(), "seed {seed}: {:?}", told(&judged("workers", &drafts)));
    }
    let unlike: Plant = |drafts| {
        added(drafts);
        shown(&mut drafts[..], "t.x", 50);
        let Some(it) = drafts.iter_mut().rfind(|it| it.f == "final") else { return false };
        it.told["http://w3"]["priority"] = json!(51);
        true
    };
    seen("workers", unlike, &[("direct", "not alike"), ("direct", "from nowhere")]);
    let lost: Plant = |drafts| {
        added(drafts);
        true
    };
    seen("workers", lost, &[("direct", "lost")]);
    let resurrected: Plant = |drafts| {
        added(drafts);
        after_all(drafts, "remove", Value::Null, Value::Null);
        shown(drafts, "t.x", 50);
        true
    };
    seen("workers", resurrected, &[("direct", "resurrected")]);
    let unchanged: Plant = |drafts| {
        added(drafts);
        looked_at(drafts);
        after_all(drafts, "change", json!({"priority": 2000}), json!({"priority": 2000}));
        shown(drafts, "t.x", 50);
        true
    };
    seen("workers", unchanged, &[("direct", "lost change")]);
    let unknown: Plant = |drafts| {
        added(drafts);
        shown(drafts, "t.nobodys", 50);
        true
    };
    seen("workers", unknown, &[("direct", "from nowhere")]);
}

#[test]
fn a_change_that_its_node_forgot_is_seen_whatever_the_clocks_say() {
    let plant: Plant = |drafts| {
        added(drafts);
        looked_at(drafts);
        after_all(drafts, "change", json!({"priority": 2000}), json!({"priority": 2000}));
        drafts.iter_mut().rev().take(2).for_each(|it| it.process = 9000);
        looked_at(drafts);
        shown(drafts, "t.x", 2000);
        true
    };
    seen("workers", plant, &[("direct", "forgotten")]);
}

#[test]
fn a_worker_that_its_node_shows_after_it_removed_it_is_seen() {
    let plant: Plant = |drafts| {
        added(drafts);
        after_all(drafts, "remove", Value::Null, Value::Null);
        looked_at(drafts);
        true
    };
    seen("workers", plant, &[("direct", "resurrected")]);
}

#[test]
fn a_limit_that_is_passed_is_seen() {
    // Two more in a window that is full: as a node that spends another's share.
    let window: Plant = |drafts| {
        let mut refused = drafts.iter_mut().filter(|it| it.error.starts_with("429"));
        let inside = |it: &&mut Draft| (it.began / MS + 123) % 1000 > 300 && (it.ended / MS + 123) % 1000 < 980;
        let Some(first) = refused.find(inside) else { return false };
        let second = (first.began / MS + 123) / 1000;
        (first.kind, first.error) = (Kind::Ok, String::new());
        let mut more = 0;
        for it in refused.filter(|it| (it.began / MS + 123) / 1000 == second && (it.ended / MS + 133) / 1000 == second)
        {
            (it.kind, it.error) = (Kind::Ok, String::new());
            more += 1;
        }
        more >= 8
    };
    seen("limits", window, &[("direct", "over the limit")]);
    // Nothing is refused: several times the limit, whatever the clocks say.
    let nothing: Plant = |drafts| {
        for it in drafts.iter_mut().filter(|it| it.error.starts_with("429")) {
            (it.kind, it.error) = (Kind::Ok, String::new());
        }
        true
    };
    seen("limits", nothing, &[("direct", "over the limit")]);
}

#[test]
fn what_was_not_read_in_the_end_is_not_called_right() {
    for (workload, world) in WORLDS.into_iter().filter(|it| it.0 != "limits") {
        let mut drafts = world(1);
        drafts.retain(|it| !it.f.starts_with("final") || it.node != 2);
        let verdicts = judged(workload, &drafts);
        assert!(verdicts[0].unknown.as_ref().is_some_and(|it| it.contains("node 2")), "{workload}: {verdicts:?}");
    }
}
