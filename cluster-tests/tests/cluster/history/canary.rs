//! `store: false`: of what was asked and answered, no byte is on any disk or in any log. The same words are found when they are stored, so that the search is known to work, and not when they are sealed.

use std::path::Path;
use std::time::Duration;

use cluster_tests::Step;
use cluster_tests::found;
use cluster_tests::lasting;
use serde_json::json;

use super::Call;
use super::Fleet;
use super::STARTING;
use super::call;
use crate::case::Case;
use crate::fleet::Start;

/// They share nothing that a compression could put one for the other.
const WORDS: [&str; 3] = ["qzvkwjxhgpbtnmrd", "ylfcsuoaeiwvqkzj", "hxgbpmtdnrkcwyfs"];
const SEALED: [&str; 3] = ["nbvcxzlkjhgfdsap", "oiuytrewqmznxbcv", "lakskdjfhgqpwoei"];
const STORED: [&str; 3] = ["plmoknijbuhvygct", "wsxedcrfvtgbyhnu", "azqswdefrgthyjuk"];

/// Asked of one node after the other, streamed and not, alone and in a chain. Where the last whole one is.
async fn ask(fleet: &Fleet<'_>, worker: &cluster_tests::Upstream, words: [&str; 3], is_stored: bool) -> String {
    let [input, instructions, output] = words;
    let mut last = String::new();
    for at in 0..3 {
        for is_stream in [false, true] {
            worker.script(match is_stream {
                false => Step::completion(output),
                true => vec![Step::stream_head(), Step::preamble(), Step::content(output), Step::end()],
            });
            let body = json!({"model": "m", "input": input, "instructions": instructions, "store": is_stored, "stream": is_stream,
                "metadata": {"is": "canary"}});
            let (status, _, answer) =
                call(fleet.nodes[at].http, &Call::post("/v1/responses", &body.to_string())).await.expect("it answers");
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(status == 200 && text.contains(output), "{status}: {text}");
            if !is_stream {
                let id = serde_json::from_slice::<serde_json::Value>(&answer).expect("JSON")["id"].clone();
                last = format!("/v1/responses/{}", id.as_str().expect("an id"));
                let (status, kept) = fleet.told((at + 1) % 3, Call::get(&last)).await;
                assert_eq!(status, if is_stored { 200 } else { 404 }, "{kept}");
                assert_eq!(kept.to_string().contains(output), is_stored, "{kept}");
            }
        }
    }
    last
}

pub(crate) async fn no_byte(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let worker = fleet.worker("m").await;
    let mut start = Start::flags(&["--worker-urls", &worker.url(), "--log-level", "debug"]);
    fleet.keeping(&start).await;
    ask(&fleet, &worker, WORDS, false).await;
    ask(&fleet, &worker, STORED, true).await;
    write_all(&fleet, "export").await;
    case.did("all answered; a snapshot and an export taken");
    let folder = fleet.directory.path().to_owned();
    search(case, &folder);
    // A start writes what was in the log of RocksDB into its files. From this one on what is stored is sealed.
    let keys = folder.join("keys");
    std::fs::write(&keys, "5e".repeat(32)).expect("is written");
    start.flags.extend(["--history-key-file".to_owned(), keys.display().to_string()]);
    restarted(&mut fleet, &start).await;
    search(case, &folder);
    let sealed = ask(&fleet, &worker, SEALED, true).await;
    write_all(&fleet, "sealed export").await;
    restarted(&mut fleet, &start).await;
    search(case, &folder);
    // One without the keys says so, and has them again.
    let mut without = start.clone();
    without.flags.truncate(without.flags.len() - 2);
    fleet.kill(0);
    fleet.start(0, &without);
    cluster_tests::within("it is not told without its key", STARTING, async || {
        let found = call(fleet.nodes[0].http, &Call::get(&sealed)).await;
        found.is_ok_and(|it| it.0 == 503 && String::from_utf8_lossy(&it.2).contains("sealed with a key"))
    })
    .await;
    let log = std::fs::read_to_string(&fleet.nodes[0].log).expect("it has a log");
    assert!(log.contains("is the file of --history-key-file"), "the log says why");
    restarted(&mut fleet, &start).await;
    let (status, told) = fleet.told(0, Call::get(&sealed)).await;
    assert!(status == 200 && told.to_string().contains(SEALED[2]), "{status}: {told}");
    let (_, files) = found(&folder, WORDS[0]);
    case.figure(format_args!("no word in any of {files} files, logs and exports included, before and after restarts, and no sealed one; the stored ones are found"));
    fleet.check_alive();
}

async fn restarted(fleet: &mut Fleet<'_>, start: &Start) {
    for at in 0..3 {
        fleet.kill(at);
        fleet.start(at, start);
    }
    fleet.whole(STARTING).await;
    fleet.all_serve("m", STARTING).await;
    fleet.one_history(3).await;
}

/// Everything that may be written by somebody is.
async fn write_all(fleet: &Fleet<'_>, export: &str) {
    let (status, _, bytes) =
        call(fleet.nodes[1].http, &Call::get("/cluster/history/export")).await.expect("it answers");
    assert_eq!(status, 200);
    std::fs::write(fleet.directory.path().join(export), &bytes).expect("is written");
    for at in 0..3 {
        let (status, answer) = fleet.told(at, Call::post("/cluster/history/snapshot", "")).await;
        assert_eq!(status, 200, "{answer}");
    }
    lasting(Duration::from_secs(1)).await; // what is written in the background
}

fn search(case: &Case, folder: &Path) {
    for word in WORDS.into_iter().chain(SEALED) {
        assert_eq!(found(folder, word).0, 0, "{word} is on disk");
    }
    for word in STORED {
        case.bites("the search finds what is stored, at all three nodes and in the export", found(folder, word).0 >= 4);
    }
}
