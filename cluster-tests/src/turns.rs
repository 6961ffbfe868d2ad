//! Turns of conversations as load on any history: how many a second are kept, and how long each of their two commits takes.

use std::time::Duration;

use smg::base::clock::Clock;
use smg::base::ids::TenantId;
use smg::history::Handle;
use smg::history::Item;
use smg::history::Status;
use smg::history::machine::Act;
use smg::history::machine::Begin;
use smg::history::machine::Finish;
use tokio::task::JoinSet;

/// Bytes of an item.
const ITEM_BYTES: usize = 4096;
/// Who writes: as many tenants at most.
const TENANTS: usize = 16;

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// Writers, each with one turn at a time.
    pub writers: usize,
    /// Turns a second.
    pub rate: f64,
    /// Of the commits.
    pub p50: Duration,
    /// Of the commits.
    pub p99: Duration,
}

/// Writes for so long: each turn begins with an item and ends with one.
///
/// # Panics
/// When an act is not done.
pub async fn turns(history: &Handle, writers: usize, lasts: Duration) -> Turns {
    let start = Clock.now();
    let mut working = JoinSet::new();
    for writer in 0..writers {
        let history = history.clone();
        working.spawn(async move {
            let tenant = TenantId::parse(&format!("turns-{}", writer % TENANTS)).expect("a name");
            let owner = history.owner(&tenant, "key").expect("a name");
            let mut commits = Vec::new();
            while Clock.now() < start + lasts {
                for act in turn(&history) {
                    let asked = Clock.now();
                    history.act(&owner, act).await.expect("it is kept");
                    commits.push(Clock.now() - asked);
                }
            }
            commits
        });
    }
    let mut commits: Vec<Duration> = working.join_all().await.into_iter().flatten().collect();
    let took = Clock.now() - start;
    commits.sort_unstable();
    let at = |part: usize| commits.get(commits.len() * part / 100).copied().unwrap_or_default();
    let rate = commits.len() as f64 / 2.0 / took.as_secs_f64();
    Turns { writers, rate, p50: at(50), p99: at(99) }
}

fn turn(history: &Handle) -> [Act; 2] {
    let response = history.draw("resp");
    let begin = Begin {
        response: response.clone(),
        created_ms: smg::history::now_ms(),
        previous: None,
        conversation: None,
        input: vec![item(history)],
        body: b"{\"model\":\"m\"}".to_vec(),
        lease: None,
        is_background: false,
        key: None,
        expires_ms: history.expires_ms(),
    };
    let (status, body) = (Status::Completed, b"{\"model\":\"m\",\"usage\":{}}".to_vec());
    let finish = Finish { response, attempt: None, status, body, output: vec![item(history)] };
    [Act::Begin(Box::new(begin)), Act::Finish(finish)]
}

/// JSON that looks like text, and is not the same twice.
fn item(history: &Handle) -> Item {
    let id = history.draw("msg");
    let mut json = format!("{{\"id\":\"{id}\",\"type\":\"message\",\"text\":\"");
    while json.len() < ITEM_BYTES - 60 {
        json += &history.draw("word").as_str()[..21];
        json += " is what was said, ";
    }
    json += "\"}";
    Item { id, json: json.into_bytes() }
}
