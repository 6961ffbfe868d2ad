//! Keys and prompts are found nowhere: not on disk, in logs, in metrics, in what the API shows, or on the wire between nodes.

use std::path::Path;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;

use super::ask::ADMIN_KEY;
use super::ask::Link;
use super::ask::open;
use super::case::Case;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;

const WORKER_KEY: &str = "sk-canary-worker-77aa";
const PROMPT: &str = "canary-prompt-31f0";
/// A tenant's own, given by the operator.
const USER_KEY: &str = "sk-canary-user-key-09d4";
/// What seals the content of history, as it stands in its file.
const HISTORY_KEY: &str = "c0ffee5eedc0ffee5eedc0ffee5eedc0ffee5eedc0ffee5eedc0ffee5eedc0ff";

fn finds(text: &[u8], needles: &[&str]) -> Vec<String> {
    let holds = |it: &&&str| text.windows(it.len()).any(|window| window == it.as_bytes());
    needles.iter().filter(holds).map(ToString::to_string).collect()
}

/// Every file below a directory: how many, and those in which something was found.
fn search(directory: &Path, needles: &[&str], found: &mut Vec<String>) -> usize {
    let entries = std::fs::read_dir(directory).expect("is read").map(|it| it.expect("an entry").path());
    let mut files = 0;
    for path in entries {
        if path.is_dir() {
            files += search(&path, needles, found);
            continue;
        }
        files += 1;
        let bytes = std::fs::read(&path).unwrap_or_default(); // gone meanwhile: a node compacts
        found.extend(finds(&bytes, needles).into_iter().map(|it| format!("{it} in {}", path.display())));
    }
    files
}

/// A tenant with a key, whose prompts are kept, sealed.
async fn tenants(fleet: &Fleet<'_>) {
    for (path, body) in
        [("/tenants", json!({"name": "team"})), ("/keys", json!({"name": "app", "tenant": "team", "key": USER_KEY}))]
    {
        let (status, told) = fleet.ask(0, "POST", path, &body).await.expect("it answers");
        assert!(status == 201 && !told.to_string().contains(USER_KEY), "{status}: {told}");
    }
    for at in 0..3 {
        within("its responses are kept", STARTING, async || {
            let mut link = Link::open(fleet.nodes[at].http, USER_KEY).await.expect("it listens");
            let body = json!({"model": "m", "input": PROMPT, "instructions": PROMPT}).to_string();
            link.call("POST", "/v1/responses", &body).await.is_ok_and(|it| it.0 == 200)
        })
        .await;
    }
}

pub(crate) async fn nowhere(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    fleet.lab.switch.record();
    let worker = fleet.worker("m").await;
    // Not where is searched.
    let folder = tempfile::tempdir().expect("a directory");
    let keys = folder.path().join("keys").display().to_string();
    std::fs::write(&keys, HISTORY_KEY).expect("is written");
    for at in 0..3 {
        fleet.start(at, &Start::flags(&["--log-level", "debug", "--history-key-file", &keys]));
    }
    fleet.whole(STARTING).await;
    let id = fleet.add(0, &json!({"url": worker.url(), "api_key": WORKER_KEY})).await;
    fleet.all_serve("m", Duration::from_secs(5)).await;
    let authorised = format!("Bearer {WORKER_KEY}");
    let carried = worker.requests().iter().filter(|it| it.contains(&authorised)).count();
    case.bites("the key reached the worker from every node", carried >= 3);
    let changed = json!({"api_key": format!("{WORKER_KEY}-2")});
    fleet.ask(1, "PATCH", &format!("/workers/{id}"), &changed).await.expect("it answers");
    for at in 0..3 {
        let mut link = open(fleet.nodes[at].http).await.expect("it listens");
        for number in 0..20 {
            let body = cluster_tests::chat(&format!("{PROMPT} {number} {}", "long ".repeat(500)), number % 2 == 0);
            assert_eq!(link.call("POST", "/v1/chat/completions", &body).await.expect("it answers").0, 200);
        }
    }
    tenants(&fleet).await;
    lasting(Duration::from_secs(2)).await;
    let secret = fleet.secret.clone();
    let needles = [ADMIN_KEY, USER_KEY, WORKER_KEY, HISTORY_KEY, PROMPT, secret.as_str()];
    let mut found = Vec::new();
    for at in 0..3 {
        for path in ["/workers", "/cluster/members", "/cluster/health", "/cluster/tables", "/policies"] {
            let shown = fleet.ask(at, "GET", path, &Value::Null).await.map(|it| it.1.to_string()).unwrap_or_default();
            found.extend(finds(shown.as_bytes(), &needles).into_iter().map(|it| format!("{it} in {path}")));
        }
        let metrics = cluster_tests::Client::connect((fleet.nodes[at].mesh.ip(), 29_000).into()).await;
        let metrics = metrics.get("/metrics").await.text();
        found.extend(finds(metrics.as_bytes(), &needles).into_iter().map(|it| format!("{it} in /metrics")));
    }
    let wire = fleet.lab.switch.recorded();
    for (_, frame) in &wire {
        found.extend(finds(frame, &needles).into_iter().map(|it| format!("{it} on the wire")));
    }
    case.bites("nodes spoke", wire.len() > 100);
    fleet.kill(0);
    let files = search(fleet.directory.path(), &needles, &mut found);
    let log = std::fs::read(&fleet.nodes[1].log).expect("a log");
    case.bites("logs and tables were there to be searched", files > 10 && log.len() > 1000);
    case.did("workers' keys, a tenant's and the operator's, the mesh secret, history's key and prompts, kept and not, at log level debug; node 0 killed");
    assert!(found.is_empty(), "{found:?}");
    case.figure(format_args!(
        "{} canaries in {files} files, {} frames, metrics and answers: found nowhere",
        needles.len(),
        wire.len()
    ));
}
