//! How long it takes to be admitted: at once where a node has units, through the way in that the API has, and by asking other nodes where it has not.
//!
//! Each call is timed by itself, reading the clock included. Limits of a minute are so large that no node ever asks; those of a second are wanted at one node after
//! the other, so that what was given ahead is at the wrong one.

use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use smg::base::ids::ModelId;
use smg::base::ids::TenantId;
use smg::limits::Definition;
use smg::limits::Kind;
use smg::limits::LimitId;
use smg::limits::Taken;
use smg::limits::core::Answer;
use smg::tenancy::budget::Expected;
use smg::tenancy::keys::Principal;
use smg::tenancy::keys::Role;
use tokio::time::interval;

use crate::asked;
use crate::nodes;
use crate::nodes::Running;
use crate::rows::NODES;

const DIVIDED: Duration = Duration::from_secs(180);
/// Never reached.
const LARGE: u64 = 1 << 31;
/// Requests a second.
const SMALL: u64 = 200;
/// What is wanted of them.
const TIMES: f64 = 1.5;

pub(crate) async fn run() {
    let nodes = nodes::start::<NODES>().await;
    println!("| admission | limits | N | p50 | p99 | p99.9 | max |");
    println!("|---|---|---|---|---|---|---|");
    at_hand(&nodes).await;
    for (name, count) in [("one", 1), ("two", 2), ("four", 4)] {
        let who = tenant(&nodes, name, count).await;
        budgets_at_hand(&nodes, &who, count).await;
    }
    for count in [1, 2] {
        short(&nodes, count).await;
    }
}

fn definition(limit: LimitId, window_ms: u32, units: u64) -> Definition {
    Definition { limit, revision: 1, kind: Kind::Requests, window_ms, units }
}

fn define(nodes: &[Running], definitions: &[Definition]) {
    nodes.iter().for_each(|it| drop(it.node.definitions.send_replace(definitions.into())));
}

/// The handle alone.
async fn at_hand(nodes: &[Running]) {
    let limit = LimitId(7);
    define(nodes, &[definition(limit, 60_000, LARGE)]);
    let handle = nodes[0].node.limits.clone();
    within("it has a share", DIVIDED, async || handle.standing(limit).is_some_and(|it| it.left > 1 << 27)).await;
    for threads in [1, 2] {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..threads {
            let handle = handle.clone();
            tasks.spawn(async move {
                let mut times = Vec::new();
                for _ in 0..asked("SAMPLES", 200_000) {
                    let before = Clock.now();
                    let answer = handle.take(limit, 1).await;
                    times.push(Clock.now() - before);
                    assert!(matches!(answer, Answer::Admitted(_)), "there are units");
                }
                times
            });
        }
        let mut times = Vec::new();
        while let Some(some) = tasks.join_next().await {
            times.extend(some.expect("no panic"));
        }
        row(&format!("`Handle::take`, units at hand, {threads} threads"), 1, times);
    }
}

/// A tenant with some of the four limits there are, at the first node's API; in force at all.
async fn tenant(nodes: &[Running], name: &str, count: usize) -> Principal {
    let all = [("requests", "minute"), ("tokens", "minute"), ("requests", "second"), ("tokens", "second")];
    let limits: Vec<Value> =
        all[..count].iter().map(|(what, per)| json!({"what": what, "per": per, "limit": LARGE})).collect();
    let first = nodes[0].node.address;
    let call = async |method: &str, path: &str, body: Value| {
        let answer = Client::connect(first).await.call(method, path, &body.to_string()).await;
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
    };
    call("POST", "/tenants", json!({"name": name})).await;
    call("PATCH", &format!("/tenants/{name}"), json!({"limits": limits})).await;
    for it in nodes {
        within("it holds a share of each", DIVIDED, async || {
            let shown = Client::connect(it.node.address).await.get(&format!("/tenants/{name}")).await;
            let limits = serde_json::from_slice::<Value>(&shown.body).unwrap_or_default()["limits"].clone();
            let limits = limits.as_array().cloned().unwrap_or_default();
            limits.len() == count && limits.iter().all(|it| it["here"]["share"].as_u64().is_some_and(|it| it > 0))
        })
        .await;
    }
    Principal { name: name.into(), tenant: TenantId::parse(name).expect("valid"), role: Role::User, id: None }
}

fn model() -> ModelId {
    ModelId::parse("sim-model").expect("valid")
}

async fn budgets_at_hand(nodes: &[Running], who: &Principal, count: usize) {
    let (budgets, model, expected) = (nodes[0].node.budgets(), model(), Expected { prompt: 100, has_answer: true });
    let (mut times, mut settled) = (Vec::new(), Vec::new());
    for _ in 0..asked("SAMPLES", 200_000) {
        let before = Clock.now();
        let mut budget = budgets.take(who, &model, expected).await.expect("there are units");
        let between = Clock.now();
        budget.sent();
        budget.settle(between, Some(90), Some(20));
        drop(budget);
        times.push(between - before);
        settled.push(Clock.now() - between);
    }
    row("`Budgets::take`, units at hand", count, times);
    row("and settled at its end", count, settled);
}

/// Wants half as much again as there is, at another node each second, from all of some limits or from none.
async fn short(nodes: &[Running], count: u64) {
    let limits: Vec<LimitId> = (0..count).map(|it| LimitId(10 * count + it)).collect();
    define(nodes, &limits.iter().map(|it| definition(*it, 1_000, SMALL)).collect::<Vec<_>>());
    for it in nodes {
        let has_shares = |limit: &LimitId| it.node.limits.standing(*limit).is_some_and(|it| it.share > 0);
        within("it holds a share of each", DIVIDED, async || limits.iter().all(has_shares)).await;
    }
    let (mut at_once, mut asked_for, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..asked("TURNS", 120) as usize {
        let handle = &nodes[turn * 3 % NODES].node.limits;
        let mut ticks = interval(Duration::from_secs_f64(1.0 / TIMES / SMALL as f64));
        for _ in 0..(SMALL as f64 * TIMES) as u64 {
            ticks.tick().await;
            let is_at_hand = limits.iter().all(|it| handle.standing(*it).is_some_and(|it| it.left > 0));
            let (before, mut held) = (Clock.now(), Vec::new());
            for limit in &limits {
                match handle.take(*limit, 1).await {
                    Answer::Admitted(taken) => held.push(taken),
                    Answer::Open | Answer::Refused(_) => break,
                }
            }
            let took = Clock.now() - before;
            match (held.len() == limits.len(), is_at_hand) {
                (true, true) => at_once.push(took),
                (true, false) => asked_for.push(took),
                (false, _) => {
                    refused.push(took);
                    held.into_iter().for_each(Taken::give_back);
                }
            }
        }
    }
    let count = limits.len();
    row("`Handle::take` of 200 a second, wanted at one node after the other: units at hand", count, at_once);
    row("the same, other nodes were asked, and gave", count, asked_for);
    row("the same, refused", count, refused);
}

fn row(name: &str, limits: usize, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at =
        |part: f64| times.get(((times.len() as f64 - 1.0) * part) as usize).map_or(f64::NAN, |it| it.as_secs_f64());
    let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|it| at(it) * 1e6);
    println!("| {name} | {limits} | {} | {p50:.2} us | {p99:.2} us | {p999:.1} us | {max:.0} us |", times.len());
}
