//! Disks that lost the end of a file, changed a bit, hold what nobody wrote, belong to another process, or are full. Nothing else than what was written is ever read, and nobody pretends.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use smg::storage::Batch;
use smg::storage::GroupId;
use smg::storage::Store;
use smg::storage::keys::Key;

use super::Call;
use super::Fleet;
use super::STARTING;
use super::call;
use crate::case::Case;
use crate::control::fill;
use crate::fleet::Start;

const TORN: usize = 2;
/// Room for the write buffers and files of three groups, and for what must stay free.
const SMALL_BYTES: u64 = 96 << 20;
/// Another leads by then, whoever does not answer.
const ADDED_MAX: Duration = Duration::from_secs(20);
/// How long a damaged node may take to read what is damaged.
const LOOKED_AT: Duration = Duration::from_secs(8);

/// Adds items of two kilobytes through the nodes that run, one after the other; how many there are then.
async fn more(fleet: &Fleet<'_>, conversation: &str, count: usize) {
    let path = format!("/v1/conversations/{conversation}/items");
    let running = fleet.running();
    for turn in 0..count {
        let items: Vec<Value> =
            (0..20).map(|it| json!({"role": "user", "content": format!("{it} ").repeat(1000)})).collect();
        let body = json!({"items": items}).to_string();
        let node = fleet.nodes[running[turn % running.len()]].http;
        let begun = Clock.now();
        loop {
            let answer = call(node, &Call::post(&path, &body)).await;
            let told = answer.map(|it| (it.0, String::from_utf8_lossy(&it.2).into_owned()));
            match told {
                Ok((200, _)) => break,
                Ok((status, body)) => {
                    assert_eq!(status, 503, "{body}");
                    assert!(
                        Clock.now() - begun < ADDED_MAX,
                        "not added through {node} for {ADDED_MAX:?}: {status} {body}"
                    );
                }
                Err(error) => assert!(Clock.now() - begun < ADDED_MAX, "{node} for {ADDED_MAX:?}: {error}"),
            }
            lasting(Duration::from_millis(50)).await;
        }
    }
}

/// The files of one kind of RocksDB in a data directory, the largest last.
pub(crate) fn database(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|it| it == extension) => found.push(path),
                false => {}
            }
        }
    }
    found.sort_by_key(|it| std::fs::metadata(it).map(|it| it.len()).unwrap_or_default());
    found
}

/// Cuts off the end of the newest log of the database.
fn tear(case: &Case, at: usize, data: &Path) -> usize {
    let logs = database(data, "log");
    let newest = logs.iter().max().expect("a log");
    let len = std::fs::metadata(newest).expect("is there").len();
    let torn = 1 + case.entropy.below(usize::try_from(len / 2).expect("it is small"));
    let file = std::fs::File::options().write(true).open(newest).expect("is opened");
    file.set_len(len - torn as u64).expect("is cut");
    case.did(format_args!("node {at} stopped, the last {torn} of {len} bytes of its log torn off"));
    torn
}

/// Changes a bit in the first half of each table, where the rows are.
fn flip(case: &Case, at: usize, data: &Path) -> usize {
    let tables = database(data, "sst");
    for path in &tables {
        let mut bytes = std::fs::read(path).expect("is read");
        let place = case.entropy.below(bytes.len() / 2);
        bytes[place] ^= 1 << case.entropy.below(8);
        std::fs::write(path, bytes).expect("is written");
    }
    case.did(format_args!("node {at} stopped, a bit changed in each of its {} tables", tables.len()));
    tables.len()
}

/// Three nodes with something in history, and room for a fourth process.
async fn filled<'a>(case: &'a Case) -> (Fleet<'a>, String, Start) {
    let mut fleet = Fleet::new(case, 4);
    let seeds: Vec<_> = fleet.nodes[..3].iter().map(|it| it.mesh.to_string()).collect();
    let start = Start { seeds: Some(seeds), ..Start::default() };
    for at in 0..3 {
        fleet.start(at, &start);
    }
    fleet.whole(STARTING).await;
    let conversation = fleet.conversation().await;
    fleet.one_history(3).await;
    more(&fleet, &conversation, 10).await;
    (fleet, conversation, start)
}

pub(crate) async fn torn_logs(case: &Case) {
    let (mut fleet, conversation, start) = filled(case).await;
    torn(case, &mut fleet, &conversation, &start).await;
    fleet.check_alive();
}

pub(crate) async fn bad_disks(case: &Case) {
    let (mut fleet, conversation, start) = filled(case).await;
    in_use(case, &mut fleet, &start).await;
    flipped(case, &mut fleet, &conversation, &start).await;
    garbage(case, &mut fleet, &start).await;
}

/// A node that lost the end of its log starts, and has from the others what it lost.
async fn torn(case: &Case, fleet: &mut Fleet<'_>, conversation: &str, start: &Start) {
    for _ in 0..TORN {
        let at = case.entropy.below(3);
        fleet.kill(at);
        let torn = tear(case, at, &fleet.nodes[at].data);
        case.bites("something was torn off", torn > 0);
        more(fleet, conversation, 2).await;
        fleet.start(at, start);
        fleet.whole(STARTING).await;
        fleet.one_history(3).await;
        fleet.items_everywhere(conversation).await;
        let report = fleet.ask(at, "GET", "/cluster/history/verify", &Value::Null).await.expect("it answers").1;
        assert_eq!(report["sound"], true, "node {at}: {report}");
    }
    case.figure(format_args!("{TORN} torn logs: caught up from the others"));
}

/// Two processes, one data directory: the second one is refused, the first one goes on.
async fn in_use(case: &Case, fleet: &mut Fleet<'_>, start: &Start) {
    fleet.nodes[3].data = fleet.nodes[0].data.clone();
    fleet.start(3, start);
    let status = fleet.process(3).end(STARTING).await;
    let log = fleet.process(3).log();
    fleet.nodes[3].process = None;
    assert!(!status.success() && log.contains("in use by another process"), "{status}: {log}");
    assert!(fleet.process(0).ended().is_none(), "the first one goes on");
    case.figure(format_args!("a second process on one directory: {status}"));
}

/// A node with changed bits never tells anything else than the truth: it ends, or says that it cannot read.
async fn flipped(case: &Case, fleet: &mut Fleet<'_>, conversation: &str, start: &Start) {
    let truth = fleet.items(0, conversation).await.expect("it is read");
    let path = format!("/v1/conversations/{conversation}/items?order=asc&limit=100");
    let page = fleet.told(0, Call::get(&path)).await.1;
    // What is in the log when it starts is in tables afterwards.
    fleet.kill(2);
    fleet.start(2, start);
    fleet.whole(STARTING).await;
    fleet.kill(2);
    let tables = flip(case, 2, &fleet.nodes[2].data);
    case.bites("there are tables", tables > 0);
    fleet.start(2, start);
    let (mut served, mut refused) = (0, 0);
    let begun = Clock.now();
    while Clock.now() - begun < LOOKED_AT && fleet.process(2).ended().is_none() {
        match call(fleet.nodes[2].http, &Call::get(&path)).await {
            Ok((200, _, body)) => {
                served += 1;
                assert_eq!(serde_json::from_slice::<Value>(&body).ok(), Some(page.clone()), "other bytes were served");
                assert_eq!(fleet.items(2, conversation).await.unwrap_or_else(|_| truth.clone()), truth);
            }
            Ok((status, _, body)) => {
                refused += 1;
                assert_eq!(status, 503, "{}", String::from_utf8_lossy(&body));
            }
            Err(_) => {}
        }
        let verified = call(fleet.nodes[2].http, &Call::get("/cluster/history/verify")).await;
        if let Ok((200, _, body)) = verified {
            let report: Value = serde_json::from_slice(&body).unwrap_or_default();
            served += usize::from(report["sound"] == true);
        }
        lasting(Duration::from_millis(200)).await;
    }
    let ended = fleet.process(2).ended();
    let log = fleet.process(2).log().to_lowercase();
    let is_told = ["corrupt", "checksum", "damaged"].iter().any(|it| log.contains(it));
    let how = ended.map_or_else(|| "it runs on".to_owned(), |it| it.to_string());
    case.figure(format_args!(
        "a bit changed in {tables} tables: {how}, damage told: {is_told}, {served} true answers, {refused} refusals"
    ));
    assert!(is_told, "a changed bit was not noticed: {how}");
    assert!(ended.is_none_or(|it| !it.success()), "it ended as if all were well");
    fleet.kill(2);
    assert_eq!(fleet.items(1, conversation).await.as_ref(), Ok(&truth), "the others go on");
}

/// What cannot be read is not taken for something else: the node does not start, and says what to do.
async fn garbage(case: &Case, fleet: &mut Fleet<'_>, start: &Start) {
    fleet.kill(1);
    let data = fleet.nodes[1].data.clone();
    let log = database(&data, "log").pop().expect("the database has a log");
    let folder = log.parent().expect("it is in a folder").to_owned();
    for key in [Key::Vote(GroupId::HISTORY), Key::Applied(GroupId::HISTORY)] {
        let store = Store::open(&folder).expect("it is ours now");
        let mut batch = Batch::default();
        batch.put(key, &"what nobody wrote").expect("is encoded");
        store.write_durably(batch).expect("is written");
        drop(store);
        case.did(format_args!("node 1 stopped, a value of another kind written as its {key:?}"));
        fleet.start(1, start);
        let status = fleet.process(1).end(STARTING).await;
        let log = fleet.process(1).log();
        fleet.nodes[1].process = None;
        assert_eq!(status.code(), Some(2), "{key:?}: {status}: {log}");
        assert!(log.contains("use the release that wrote it, or look at docs/operating/backup.md"), "{log}");
    }
    case.figure("what cannot be read: exit 2 and what to do");
}

/// Every node has a small disk of its own. One is filled, then all are: what cannot be kept is refused, and with room the same processes go on.
pub(crate) async fn full_disks(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let small = Start { disk_bytes: Some(SMALL_BYTES), ..Start::default() };
    for at in 0..3 {
        fleet.start(at, &small);
    }
    fleet.whole(STARTING).await;
    let conversation = fleet.conversation().await;
    fleet.one_history(3).await;
    more(&fleet, &conversation, 2).await;
    let full = fleet.history_leader().await;
    let mut filled = vec![fill(&mut fleet, full)];
    more(&fleet, &conversation, 3).await;
    case.figure("one full disk of three: items are added through all");
    // A node without room is behind: it says so, and never that there is less.
    let with_room = (full + 1) % 3;
    within("a node with room can be read", STARTING, async || fleet.items(with_room, &conversation).await.is_ok())
        .await;
    let before = fleet.items(with_room, &conversation).await.expect("it was read just now");
    let path = format!("/v1/conversations/{conversation}");
    let (status, after, answer) = call(fleet.nodes[full].http, &Call::get(&path)).await.expect("in time");
    assert!(status == 200 || status == 503 && after.is_some(), "{status} {}", String::from_utf8_lossy(&answer));
    for at in (0..3).filter(|it| *it != full) {
        filled.push(fill(&mut fleet, at));
    }
    let path = format!("/v1/conversations/{conversation}/items");
    let body = json!({"items": [{"role": "user", "content": "x".repeat(2000)}]}).to_string();
    let (mut refused, mut added) = (Vec::new(), 0);
    for turn in 0..3 {
        let (status, after, answer) =
            call(fleet.nodes[turn % 3].http, &Call::post(&path, &body)).await.expect("in time");
        let text = String::from_utf8_lossy(&answer);
        assert!([200, 503, 507].contains(&status), "{status} {text}");
        assert!(status != 503 || after.is_some(), "503 without `Retry-After`: {text}");
        if status == 200 { added += 1 } else { refused.push(status) }
    }
    case.bites("full disks refuse", !refused.is_empty());
    for path in filled {
        std::fs::remove_file(path).expect("is removed");
    }
    case.did("room was made at all");
    fleet.one_history(3).await;
    more(&fleet, &conversation, 3).await;
    let after = fleet.items_everywhere(&conversation).await;
    assert!(after.starts_with(&before), "what was there is there");
    assert!(after.len() >= before.len() + 60 + added, "what was acknowledged is there");
    case.figure(format_args!("all full: {added} added, refused {refused:?}; with room all go on"));
    fleet.check_alive();
}
