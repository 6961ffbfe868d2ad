//! Edits of what everybody has: racing, on both sides of a split, durable.

use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Fault;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;

use super::case::Case;
use super::fleet::Fleet;
use super::fleet::Start;

const RACES: usize = 40;
/// Healing takes up to three seconds of membership, and a round or two of anti-entropy for each table.
const MERGED_MAX: Duration = Duration::from_secs(8);

/// FIELD.md bug 12: an edit and a DELETE of one worker at the same time, at different nodes. The worker is gone, whatever came first, and stays gone.
pub(crate) async fn field_12_races(case: &Case) {
    let mut fleet = Fleet::started(case, 3, &[]).await;
    let mut edited = 0;
    for race in 0..RACES {
        let (a, b, c) = (race % 3, (race + 1) % 3, (race + 2) % 3);
        // Nobody is there: it is not about whether the worker answers.
        let id = fleet.add(a, &json!({"url": format!("http://10.66.0.{}:9", 100 + race), "models": ["m"]})).await;
        let path = format!("/workers/{id}");
        let known = async || fleet.ask(b, "GET", &path, &Value::Null).await.is_ok_and(|it| it.0 == 200);
        within("another node knows it", Duration::from_secs(3), known).await;
        within("and the third", Duration::from_secs(3), async || {
            fleet.ask(c, "GET", &path, &Value::Null).await.is_ok_and(|it| it.0 == 200)
        })
        .await;
        let (change, none) = (json!({"priority": race}), Value::Null);
        let (patched, removed) =
            tokio::join!(fleet.ask(b, "PATCH", &path, &change), fleet.ask(c, "DELETE", &path, &none));
        assert_eq!(removed.expect("it answers").0, 200);
        edited += usize::from(patched.expect("it answers").0 == 200);
    }
    case.did(format_args!("{RACES} times: PATCH at one node, DELETE at another, at the same time"));
    case.bites("some edits came before the DELETE", edited > 0);
    fleet.all_know(&[], MERGED_MAX).await;
    fleet.kill(1);
    fleet.start(1, &Start::default());
    fleet.whole(super::fleet::STARTING).await;
    lasting(Duration::from_secs(3)).await;
    fleet.all_know(&[], Duration::from_secs(1)).await;
    case.figure(format_args!("{RACES} races, {edited} edits won theirs: all gone everywhere, after a restart too"));
}

/// FIELD.md bug 15: a long split, edits on both sides, then one truth; nothing revived, nothing lost.
pub(crate) async fn field_15_split(case: &Case) {
    let mut fleet = Fleet::started(case, 5, &[]).await;
    let url = |number: usize| format!("http://10.66.0.{number}:9");
    let worker = |number: usize| json!({"url": url(number), "models": ["m"]});
    let (kept, deleted) = (fleet.add(0, &worker(101)).await, fleet.add(4, &worker(102)).await);
    fleet.all_know(&[url(101), url(102)], Duration::from_secs(3)).await;
    fleet.lab.switch.between(&[0, 1, 2], &[3, 4], Fault::cutting());
    case.did("cut [0, 1, 2] | [3, 4] for 25 s");
    within("each side sees itself only", Duration::from_secs(10), async || {
        fleet.sees(0, &[0, 1, 2]).await && fleet.sees(3, &[3, 4]).await
    })
    .await;
    let call = async |at: usize, method: &str, path: String, body: Value| {
        let (status, answer) = fleet.ask(at, method, &path, &body).await.expect("it answers");
        assert!(status < 300, "{method} {path} at node {at}: {status} {answer}");
    };
    call(0, "DELETE", format!("/workers/{deleted}"), Value::Null).await;
    call(4, "PATCH", format!("/workers/{deleted}"), json!({"priority": 9})).await;
    call(1, "PATCH", format!("/workers/{kept}"), json!({"priority": 5})).await;
    call(3, "PATCH", format!("/workers/{kept}"), json!({"cost": 2.0})).await;
    fleet.add(2, &worker(103)).await;
    fleet.add(3, &worker(104)).await;
    call(0, "PUT", "/policies".to_owned(), json!({"default": "round_robin"})).await;
    call(4, "PUT", "/policies".to_owned(), json!({"default": "random"})).await;
    case.did("on both sides: DELETE against PATCH, two fields of one worker, a new worker each, the default policy");
    lasting(Duration::from_secs(15)).await;
    case.bites("the cut stopped packets", fleet.lab.switch.total().cut > 0);
    fleet.lab.switch.heal();
    case.did("healed");
    let took = fleet.all_know(&[url(101), url(103), url(104)], MERGED_MAX).await;
    let path = format!("/workers/{kept}");
    within("both fields of the worker are everywhere", MERGED_MAX, async || {
        for at in 0..5 {
            let (_, it) = fleet.ask(at, "GET", &path, &Value::Null).await.unwrap_or_default();
            if (&it["priority"], &it["cost"]) != (&json!(5), &json!(2.0)) {
                return false;
            }
        }
        true
    })
    .await;
    within("one policy", MERGED_MAX, async || {
        let mut defaults = std::collections::BTreeSet::new();
        for at in 0..5 {
            let (_, it) = fleet.ask(at, "GET", "/policies", &Value::Null).await.unwrap_or_default();
            defaults.insert(it["default"].to_string());
        }
        defaults.len() == 1
    })
    .await;
    case.figure(format_args!("one truth {:.2} s after the heal", took.as_secs_f64()));
    lasting(Duration::from_secs(3)).await;
    fleet.all_know(&[url(101), url(103), url(104)], Duration::from_secs(1)).await;
    fleet.check_alive();
}

/// What was answered is there after every node was killed at once.
pub(crate) async fn durable(case: &Case) {
    let mut fleet = Fleet::started(case, 3, &[]).await;
    let url = |number: usize| format!("http://10.66.0.{number}:9");
    let mut urls = Vec::new();
    for number in 100..110 {
        fleet.add(number % 3, &json!({"url": url(number), "models": ["m"]})).await;
        urls.push(url(number));
    }
    for at in 0..3 {
        fleet.kill(at);
    }
    for at in 0..3 {
        fleet.start(at, &Start::default());
    }
    fleet.whole(super::fleet::STARTING).await;
    let took = fleet.all_know(&urls, Duration::from_secs(3)).await;
    case.figure(format_args!(
        "10 of 10 workers there {:.2} s after all three nodes were whole again",
        took.as_secs_f64()
    ));
}
