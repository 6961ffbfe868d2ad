//! Responses in the background whose node is killed: one that a worker was asked for is failed with what was kept, one that was not begun is made by another node, each within ten seconds and each once.

use std::time::Duration;

use cluster_tests::Step;
use cluster_tests::within;
use serde_json::Value;
use smg::base::clock::Clock;

use super::Call;
use super::Fleet;
use super::STARTING;
use super::call;
use crate::case::Case;
use crate::fleet::Start;

/// What is promised.
const ENDED_MAX: Duration = Duration::from_secs(10);

/// Starts one in the background; its path.
async fn begun(fleet: &Fleet<'_>, at: usize, input: &str) -> String {
    let body = serde_json::json!({"model": "m", "input": input, "background": true}).to_string();
    let (status, made) = fleet.told(at, Call::post("/v1/responses", &body)).await;
    assert_eq!((status, &made["status"]), (200, &"queued".into()), "{made}");
    format!("/v1/responses/{}", made["id"].as_str().expect("an id"))
}

async fn status(fleet: &Fleet<'_>, at: usize, path: &str) -> String {
    let found = call(fleet.nodes[at].http, &Call::get(path)).await;
    let body = found.ok().filter(|it| it.0 == 200).map(|it| it.2).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    body["status"].as_str().unwrap_or("none").to_owned()
}

/// The events of one, as a node tells them from the beginning or after some event.
async fn events(fleet: &Fleet<'_>, at: usize, path: &str, after: Option<usize>) -> Vec<Value> {
    let after = after.map(|it| format!("&starting_after={it}")).unwrap_or_default();
    let (status, _, body) =
        call(fleet.nodes[at].http, &Call::get(&format!("{path}?stream=true{after}"))).await.expect("it answers");
    assert_eq!(status, 200);
    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
    text.lines().filter_map(|it| serde_json::from_str(it.strip_prefix("data: ")?).ok()).collect()
}

/// See the file's header.
pub(crate) async fn outlives(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let worker = fleet.worker("m").await;
    let start = Start::flags(&[
        "--worker-urls",
        &worker.url(),
        "--max-concurrent-requests",
        "1",
        "--queue-size",
        "10",
        "--queue-timeout",
        "300s",
    ]);
    fleet.keeping(&start).await;
    let mut times = Vec::new();
    for round in 0..2 {
        let victim = if round == 0 { (fleet.history_leader().await + 1) % 3 } else { fleet.history_leader().await };
        let others: Vec<usize> = (0..3).filter(|it| *it != victim).collect();
        let (first, second) = (format!("the first of round {round}"), format!("the second of round {round}"));
        worker.script(vec![Step::stream_head(), Step::preamble(), Step::content("hel"), Step::WaitForClose]);
        let busy = begun(&fleet, victim, &first).await;
        within("a piece is kept", STARTING, async || {
            let seen = call(fleet.nodes[others[0]].http, &Call::get(&busy)).await;
            worker.requests().iter().any(|it| it.contains(&first))
                && seen.is_ok_and(|it| String::from_utf8_lossy(&it.2).contains("in_progress"))
        })
        .await;
        cluster_tests::lasting(Duration::from_millis(500)).await; // its batch is written
        let waiting = begun(&fleet, victim, &second).await;
        assert_eq!(status(&fleet, others[0], &waiting).await, "queued");
        let killed = Clock.now();
        fleet.kill(victim);
        for (path, expected) in [(&busy, "failed"), (&waiting, "completed")] {
            let mut took = Duration::ZERO;
            for at in &others {
                within(&format!("{path} is {expected} at node {at}"), 2 * ENDED_MAX, async || {
                    status(&fleet, *at, path).await == expected
                })
                .await;
                took = Clock.now() - killed;
            }
            case.did(format_args!("{expected} after {:.2} s", took.as_secs_f64()));
            times.push(took);
        }
        check(&fleet, &others, &busy, &waiting).await;
        for input in [&first, &second] {
            let asked = worker.requests().iter().filter(|it| it.contains(input.as_str())).count();
            assert_eq!(asked, 1, "a worker was asked {asked} times for {input}");
        }
        fleet.start(victim, &start);
        fleet.whole(STARTING).await;
        fleet.all_serve("m", STARTING).await;
        fleet.one_history(3).await;
        check(&fleet, &[victim], &busy, &waiting).await;
    }
    case.figure(format_args!("failed or made by another, alike at all: {}", crate::case::spread(&times)));
    assert!(times.iter().all(|it| *it < ENDED_MAX), "later than promised: {times:?}");
    fleet.check_alive();
}

/// Both are the same at each node, whoever is asked, and their events are whole from wherever one begins.
async fn check(fleet: &Fleet<'_>, nodes: &[usize], busy: &str, waiting: &str) {
    let first = fleet.running()[0];
    for (path, last) in [(busy, "response.failed"), (waiting, "response.completed")] {
        let all = events(fleet, first, path, None).await;
        let numbers: Vec<_> = all.iter().map(|it| it["sequence_number"].as_u64().expect("a number")).collect();
        assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>(), "{path}: a gap");
        assert_eq!(all.last().map(|it| it["type"].clone()), Some(last.into()), "{path}");
        let found = fleet.told(first, Call::get(path)).await;
        for at in nodes {
            assert_eq!(fleet.told(*at, Call::get(path)).await, found, "node {at}");
            assert_eq!(events(fleet, *at, path, None).await, all, "node {at}");
            assert_eq!(events(fleet, *at, path, Some(1)).await, all[2..], "node {at}");
        }
        if path == busy {
            assert!(all.iter().any(|it| it["delta"] == "hel"), "what was kept is there: {all:?}");
        }
    }
}
