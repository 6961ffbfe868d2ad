//! Turns a second on a real server.

use std::sync::Arc;
use std::time::Duration;

use cluster_tests::servers::Server;
use cluster_tests::turns;
use smg::base::entropy::Entropy;
use smg::base::ids::StorageId;
use smg::base::setting::Setting as _;
use smg::base::tasks::Tasks;
use smg::history::External;
use smg::history::Handle;
use smg::history::config::Config;
use smg::history::config::Kind;
use smg::observability::metrics::Registry;

/// How long each number of writers writes.
const LASTS: Duration = Duration::from_secs(10);

pub(crate) async fn take(kind: Kind) {
    let server = Server::start(kind).await;
    let (entropy, tasks) = (Entropy::from_os(), Tasks::new());
    let backend = External::start(kind, &server.url(), &entropy, &mut Registry::default(), &tasks).expect("a URL");
    let handle = Handle::new(Arc::new(backend), &Config::default(), (StorageId(1), 1), entropy);
    turns::turns(&handle, 4, Duration::from_secs(1)).await;
    println!("| {} | writers | turns/s | commit p50 | commit p99 |", kind.render());
    println!("|---|---|---|---|---|");
    for writers in [1, 16, 256] {
        let it = turns::turns(&handle, writers, LASTS).await;
        println!("| {} | {} | {:.0} | {:.1?} | {:.1?} |", kind.render(), it.writers, it.rate, it.p50, it.p99);
    }
}
