//! Workers that only one node reaches, on its loopback: others reach them through it.

use std::process::Command;
use std::time::Duration;

use cluster_tests::within;
use serde_json::Value;
use serde_json::json;

use super::case::Case;
use super::fleet::Fleet;

pub(crate) async fn loopback(case: &Case) {
    let fleet = Fleet::started(case, 3, &[]).await;
    let binary = std::env::var("SMG_BIN").expect("SMG_BIN names the binary");
    let mut workers = Vec::new();
    for at in 0..2 {
        let mut command = Command::new(&binary);
        command.args(["sim-worker", "--port", "8000", "--models", &format!("local-{at}")]);
        let log = fleet.directory.path().join(format!("worker-{at}.log"));
        workers.push(fleet.lab.machine(at).start(command, &log).expect("it starts"));
    }
    case.did("a worker on 127.0.0.1:8000 of nodes 0 and 1, each told to its node only");
    for at in 0..2 {
        fleet.add(at, &json!({"url": "http://127.0.0.1:8000"})).await;
    }
    for model in ["local-0", "local-1"] {
        fleet.all_serve(model, Duration::from_secs(10)).await;
    }
    let (_, listed) = fleet.ask(2, "GET", "/workers", &Value::Null).await.expect("it answers");
    let count = listed["workers"].as_array().map_or(0, Vec::len);
    assert_eq!(count, 2, "two workers of one address, each its node's: {listed}");
    let via = listed["workers"].as_array().into_iter().flatten().filter(|it| it["via"].is_string()).count();
    assert_eq!(via, 2, "each is shown with the node it is reached through: {listed}");
    case.figure("both served by all three nodes");
    fleet.lab.switch.between(&[0], &[1, 2], cluster_tests::net::Fault::cutting());
    case.did("node 0 cut off");
    within("its worker is its own only", Duration::from_secs(15), async || {
        !fleet.serves(2, "local-0").await && fleet.serves(2, "local-1").await && fleet.serves(0, "local-0").await
    })
    .await;
    fleet.lab.switch.heal();
    case.did("healed");
    let took = fleet.all_serve("local-0", Duration::from_secs(15)).await;
    case.figure(format_args!("served by all {:.2} s after the heal", took.as_secs_f64()));
}
