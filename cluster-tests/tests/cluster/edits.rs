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
/// How long it is tried until an edit comes before its DELETE: on a busy machine few do.
const RACES_MAX: usize = 10 * RACES;
/// Healing takes up to three seconds of membership, and a round or two of anti-entropy for each table.
const MERGED_MAX: Duration = Duration::from_secs(8);

/// FIELD.md bug 12: an edit and a DELETE of one worker at the same time, at different nodes. The worker is gone, whatever came first, and stays gone.
pub(crate) async fn field_12_races(case: &Case) {
    let mut fleet = Fleet::started(case, 3, &[]).await;
    let worker = fleet.worker("m").await;
    let (mut edited, mut race) = (0, 0);
    while race < RACES || (edited == 0 && race < RACES_MAX) {
        let (a, b, c) = (race % 3, (race + 1) % 3, (race + 2) % 3);
        // The same address each time: each time another instance, and nothing of the one before may reach it.
        let path = format!("/workers/{}", fleet.add(a, &json!({"url": worker.url()})).await);
        fleet.all_know(&[worker.url()], MERGED_MAX).await;
        let (change, none) = (json!({"priority": race + 1}), Value::Null);
        let (patched, removed) =
            tokio::join!(fleet.ask(b, "PATCH", &path, &change), fleet.ask(c, "DELETE", &path, &none));
        assert_eq!(removed.expect("it answers").0, 200);
        edited += usize::from(patched.expect("it answers").0 == 200);
        fleet.all_know(&[], MERGED_MAX).await;
        race += 1;
    }
    case.did(format_args!("{race} times: PATCH at one node, DELETE at another, at the same time"));
    case.bites("some edits came before the DELETE", edited > 0);
    fleet.all_know(&[], MERGED_MAX).await;
    fleet.kill(1);
    fleet.start(1, &Start::default());
    fleet.whole(super::fleet::STARTING).await;
    lasting(Duration::from_secs(3)).await;
    fleet.all_know(&[], Duration::from_secs(1)).await;
    case.figure(format_args!("{race} races, {edited} edits won theirs: all gone everywhere, after a restart too"));
}

/// FIELD.md bug 15: a long split, edits on both sides, then one truth; nothing revived, nothing lost.
pub(crate) async fn field_15_split(case: &Case) {
    let mut fleet = Fleet::started(case, 5, &[]).await;
    let mut workers = Vec::new();
    for name in ["kept", "deleted", "third", "fourth"] {
        workers.push(fleet.worker(name).await);
    }
    let url = |number: usize| workers[number].url();
    let worker = |number: usize| json!({"url": url(number)});
    let (kept, deleted) = (fleet.add(0, &worker(0)).await, fleet.add(4, &worker(1)).await);
    fleet.all_know(&[url(0), url(1)], Duration::from_secs(3)).await;
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
    fleet.add(2, &worker(2)).await;
    fleet.add(3, &worker(3)).await;
    call(0, "PUT", "/policies".to_owned(), json!({"default": "round_robin"})).await;
    call(4, "PUT", "/policies".to_owned(), json!({"default": "random"})).await;
    case.did("on both sides: DELETE against PATCH, two fields of one worker, a new worker each, the default policy");
    lasting(Duration::from_secs(15)).await;
    case.bites("the cut stopped packets", fleet.lab.switch.total().cut > 0);
    fleet.lab.switch.heal();
    case.did("healed");
    let took = fleet.all_know(&[url(0), url(2), url(3)], MERGED_MAX).await;
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
    fleet.all_know(&[url(0), url(2), url(3)], Duration::from_secs(1)).await;
    fleet.check_alive();
}

/// What was answered is there after every node was killed at once.
pub(crate) async fn durable(case: &Case) {
    let mut fleet = Fleet::started(case, 3, &[]).await;
    let mut workers = Vec::new();
    for number in 0..10 {
        let worker = fleet.worker("m").await;
        fleet.add(number % 3, &json!({"url": worker.url()})).await;
        workers.push(worker);
    }
    let urls: Vec<_> = workers.iter().map(cluster_tests::Upstream::url).collect();
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

/// FIELD.md bug 12: a key that is revoked at one node is refused at all; a node that was cut off meanwhile, and one that was down, refuse it too when they are
/// back, and it stays so.
pub(crate) async fn field_12_revoked(case: &Case) {
    let mut fleet = Fleet::started(case, 4, &[]).await;
    let post = async |path: &str, body: Value| {
        let (status, answer) = fleet.ask(0, "POST", path, &body).await.expect("it answers");
        assert_eq!(status, 201, "{answer}");
        answer
    };
    post("/tenants", json!({"name": "team"})).await;
    let made = post("/keys", json!({"name": "app", "tenant": "team"})).await;
    let (key, id) = (made["key"].as_str().expect("the key").to_owned(), made["id"].as_str().expect("an id").to_owned());
    let gets = async |fleet: &Fleet<'_>, at: usize| {
        let mut link = super::ask::open(fleet.nodes[at].http).await.ok()?;
        link.key.clone_from(&key);
        link.call("GET", "/v1/models", "").await.ok().map(|it| it.0)
    };
    let all_get = async |fleet: &Fleet<'_>, these: &[usize], status: u16| {
        within(&format!("{these:?} answer {status}"), MERGED_MAX, async || {
            for at in these {
                if gets(fleet, *at).await != Some(status) {
                    return false;
                }
            }
            true
        })
        .await
    };
    let made = all_get(&fleet, &[0, 1, 2, 3], 200).await;
    fleet.kill(3);
    fleet.lab.switch.between(&[0, 1], &[2], Fault::cutting());
    case.did("node 3 killed, node 2 cut off, the key revoked at node 1");
    let (status, _) = fleet.ask(1, "DELETE", &format!("/keys/{id}"), &Value::Null).await.expect("it answers");
    assert_eq!(status, 200);
    let gone = all_get(&fleet, &[0, 1], 401).await;
    case.bites("the node that is cut off does not know yet", gets(&fleet, 2).await == Some(200));
    lasting(Duration::from_secs(5)).await;
    fleet.lab.switch.heal();
    fleet.start(3, &Start::default());
    case.did("healed, and node 3 started");
    fleet.whole(super::fleet::STARTING).await;
    let back = all_get(&fleet, &[0, 1, 2, 3], 401).await;
    for _ in 0..20 {
        for at in 0..4 {
            assert_eq!(gets(&fleet, at).await, Some(401), "it came back at node {at}");
        }
        lasting(Duration::from_millis(50)).await;
    }
    let seconds = [made, gone, back].map(|it| format!("{:.2} s", it.as_secs_f64()));
    case.figure(format_args!(
        "made: at all after {}; revoked: refused after {}; by those that come back after {}",
        seconds[0], seconds[1], seconds[2]
    ));
}

/// The disk of one node is full when it is to keep an edit. It says so instead of promising, serves on, and the others are not held up; with room again it is a
/// member like any other.
pub(crate) async fn disk_full(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let (first, second) = (fleet.worker("first").await, fleet.worker("second").await);
    let small = Start { disk_bytes: Some(64 << 20), ..Start::default() };
    fleet.start(0, &Start::default());
    fleet.start(1, &Start::default());
    fleet.start(2, &small);
    fleet.whole(super::fleet::STARTING).await;
    fleet.add(0, &json!({"url": first.url()})).await;
    fleet.all_serve("first", MERGED_MAX).await;
    let inside = format!("/proc/{}/root{}", fleet.process(2).id(), fleet.nodes[2].data.display());
    let fill = std::path::Path::new(&inside).join("fill");
    let mut file = std::fs::File::create(&fill).expect("is made");
    let mut written = 0;
    while std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {
        written += 4096;
    }
    drop(file);
    case.did(format_args!("node 2's disk filled with {written} bytes"));
    case.bites("there was room to be taken", written > 0);
    let mut refused = None;
    for priority in 0..2000 {
        let id = fleet.ask(2, "GET", "/workers", &Value::Null).await.expect("it answers").1["workers"][0]["id"].clone();
        let path = format!("/workers/{}", id.as_str().expect("an id"));
        let answer =
            fleet.ask(2, "PATCH", &path, &json!({"priority": priority, "labels": {"a": "b".repeat(30_000)}})).await;
        let (status, body) = answer.expect("it answers");
        if status != 200 || body["durable"] == false {
            refused = Some((status, body));
            break;
        }
    }
    let (status, body) = refused.expect("an edit that cannot be kept is not answered as kept");
    case.figure(format_args!("answered {status} {}", body["error"]["message"].as_str().unwrap_or("durable: false")));
    assert!(fleet.serves(2, "first").await, "it serves on");
    fleet.add(0, &json!({"url": second.url()})).await;
    for at in 0..2 {
        within("the others are not held up", MERGED_MAX, async || fleet.serves(at, "second").await).await;
    }
    fleet.check_alive();
    fleet.kill(2);
    case.did("start of node 2 with room");
    fleet.start(2, &Start::default());
    fleet.whole(super::fleet::STARTING).await;
    fleet.all_know(&[first.url(), second.url()], MERGED_MAX).await;
    case.figure("whole again with room");
}
