//! A node that is cut off from the others says so: 503 and when to come back, within a bounded time, and never that something is not there.

use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::Fault;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use tokio::task::LocalSet;

use super::Call;
use super::Clients;
use super::Fleet;
use super::STARTING;
use super::call;
use crate::case::Case;
use crate::case::spread;
use crate::fleet::Start;

/// What a request may take to be told: twice the loss of a leader, and a debug build beside others.
const TOLD_MAX: Duration = Duration::from_secs(12);
const ROUNDS: usize = 2;
/// A leader that is cut off may lead for so long.
const FAILOVER: Duration = Duration::from_secs(12);
const WRITERS: usize = 4;

/// Asks a node that is cut off for everything there is to ask for; how long each took to be told.
async fn refused(fleet: &Fleet<'_>, at: usize, conversation: &str, response: &str) -> Vec<Duration> {
    let (record, items) =
        (format!("/v1/conversations/{conversation}"), format!("/v1/conversations/{conversation}/items"));
    let (made, ended) = (format!("/v1/responses/{response}"), format!("/v1/responses/{response}/cancel"));
    let (item, question) =
        (json!({"items": [{"role": "user", "content": "lost"}]}), json!({"model": "m", "input": "hi"}));
    let (item, question) = (item.to_string(), question.to_string());
    let background = question.replace('}', r#","background":true}"#);
    let requests = [
        Call::get(&record),
        Call::get(&items),
        Call::get(&made),
        Call::post(&items, &item),
        Call::post("/v1/conversations", "{}"),
        Call::post("/v1/responses", &question),
        Call::post("/v1/responses", &background),
        Call::post(&ended, ""),
        Call::delete(&made),
        Call::delete(&record),
    ];
    let node = fleet.nodes[at].http;
    let asked = futures_util::future::join_all(requests.iter().map(async |request| {
        let begun = Clock.now();
        (request, call(node, request).await, Clock.now() - begun)
    }));
    let asked = asked.await;
    let table = asked.iter().map(|(request, answer, took)| {
        let told = answer.as_ref().map(|it| (it.0, it.1.clone(), String::from_utf8_lossy(&it.2).into_owned()));
        format!("{} {} after {took:.1?}: {told:?}", request.method, request.path)
    });
    let table = table.collect::<Vec<_>>().join("\n");
    for (_, answer, took) in &asked {
        let is_told = answer.as_ref().is_ok_and(|(status, after, _)| {
            *status == 503 && after.as_ref().is_some_and(|it| it.parse::<u32>().is_ok_and(|it| it > 0))
        });
        assert!(is_told && *took < TOLD_MAX, "not told in time that it is not now:\n{table}");
    }
    asked.into_iter().map(|it| it.2).collect()
}

/// The node that leads is cut off, then one that follows.
pub(crate) async fn says_503(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let worker = fleet.worker("m").await;
    let conversation = fleet.keeping(&Start::flags(&["--worker-urls", &worker.url()])).await;
    let (status, made) = fleet.told(0, Call::post("/v1/responses", r#"{"model":"m","input":"hi"}"#)).await;
    assert_eq!(status, 200, "{made}");
    let response = made["id"].as_str().expect("an id").to_owned();
    let mut times = Vec::new();
    LocalSet::new()
        .run_until(async {
            let mut clients = Clients::new(&fleet, &conversation);
            clients.begin(WRITERS, true);
            for round in 0..ROUNDS {
                let leader = fleet.history_leader().await;
                let alone = if round == 0 { leader } else { (leader + 1) % 3 };
                let others: Vec<usize> = (0..3).filter(|it| *it != alone).collect();
                fleet.lab.switch.between(&[alone], &others, Fault::cutting());
                let role = if round == 0 { "leads" } else { "follows" };
                case.did(format_args!("node {alone}, which {role}, was cut off"));
                // What others were told since, it cannot know.
                let before = clients.acknowledged();
                within("the others go on", FAILOVER, async || clients.acknowledged() > before + 5 * WRITERS).await;
                times.extend(refused(&fleet, alone, &conversation, &response).await);
                within("the others go on still", FAILOVER, async || clients.acknowledged() > before + 9 * WRITERS)
                    .await;
                case.bites("the cut stopped packets", fleet.lab.switch.total().cut > 0);
                fleet.lab.switch.heal();
                case.did("healed");
                fleet.whole(STARTING).await;
                fleet.one_history(3).await;
            }
            lasting(Duration::from_millis(500)).await;
            let seen = clients.end().await;
            let last = fleet.items_everywhere(&conversation).await;
            case.did("what was seen is checked");
            seen.check(&last);
            for at in 0..3 {
                let (status, found) = fleet.told(at, Call::get(&format!("/v1/responses/{response}"))).await;
                assert_eq!((status, &found), (200, &made), "node {at}");
                let report = fleet.ask(at, "GET", "/cluster/history/verify", &Value::Null).await.expect("it answers").1;
                assert_eq!(report["sound"], true, "{report}");
            }
            case.figure(format_args!(
                "{} requests to who was cut off: 503 each, after {}",
                times.len(),
                spread(&times)
            ));
            case.figure(format_args!("{} items, {} reads: one order", seen.added.len(), seen.reads.len()));
        })
        .await;
    fleet.check_alive();
}
