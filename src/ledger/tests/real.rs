//! The driver over real sockets, with membership and transport below: what one node begins, the others are told when they ask.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::ids::WorkerId;
use crate::base::tasks::Stage;
use crate::base::tasks::Tasks;
use crate::ledger;
use crate::ledger::Config;
use crate::ledger::Handle;
use crate::ledger::InFlight;
use crate::ledger::Peers;
use crate::ledger::Readings;
use crate::ledger::Source;
use crate::ledger::core::Core;
use crate::ledger::core::Event;
use crate::ledger::metrics::Metrics;
use crate::membership;
use crate::membership::Status;
use crate::transport;
use crate::transport::tests::eventually;
use crate::transport::tests::peer;
use crate::transport::trust::MeshSecret;
use crate::workers::fake::Fake;
use crate::workers::health::Rules;
use crate::workers::http::Dialer;
use crate::workers::load::FirstToken;
use crate::workers::load::LoadGuard;
use crate::workers::registry::Registry;

const WORKERS: u64 = 6;
/// Many times what an answer takes on a busy machine.
const TIMEOUT: Duration = Duration::from_millis(500);

struct Node {
    ledger: Handle,
    members: membership::Handle,
    registry: Arc<Registry>,
    addr: std::net::SocketAddr,
    tasks: Tasks,
}

fn registry(tasks: &Tasks) -> Arc<Registry> {
    let config = crate::workers::config::Config::default();
    let dialer = Dialer::new(&config, tasks.clone(), crate::workers::metrics::Metrics::default()).unwrap();
    let rules = Rules {
        failure_threshold: 3,
        success_threshold: 1,
        breaker_failures: 10,
        breaker_window: Duration::from_secs(60),
        breaker_open: Duration::from_secs(10),
        pause_max: Duration::from_secs(60),
        memory: Duration::from_secs(60),
    };
    let registry = Registry::new(rules, dialer);
    for n in 0..WORKERS {
        registry.play(&format!("http://worker-{n}"), &["m"], Arc::new(Fake::new([])));
    }
    Arc::new(registry)
}

fn node(n: u16, secret: &MeshSecret, seeds: &[String]) -> Node {
    let transport::tests::Node { handle, inboxes, tasks, .. } = transport::tests::Node::new(n, secret);
    let addr = handle.local_addr();
    let (seen, told) = (membership::metrics::Metrics::default(), Metrics::default());
    let timing = membership::Config::default();
    let members = membership::start(seeds.to_vec(), timing, handle.clone(), inboxes.swim, seen, &tasks);
    let registry = registry(&tasks);
    let config = Config { timeout: TIMEOUT };
    let own = Arc::clone(&registry);
    let peers = Peers { membership: members.clone(), transport: handle, questions: inboxes.ledger };
    let ledger = ledger::start(&config, peers, own, told, &tasks);
    Node { ledger, members, registry, addr, tasks }
}

impl Node {
    /// A request that this node sends to a worker.
    fn begin(&self, worker: u64, tokens: u64) -> LoadGuard {
        let entry = self.registry.get(WorkerId(worker)).unwrap();
        let count = || entry.load.acquire(Clock.now(), tokens, FirstToken::Seen);
        self.ledger.started(WorkerId(worker), tokens, count)
    }

    async fn probe(&self) -> Readings {
        let workers: Vec<_> = (1..=WORKERS).map(WorkerId).collect();
        self.ledger.probe(&workers).await
    }

    /// Asks until all is known and one worker has this much of others, the rest nothing.
    async fn hears(&self, worker: u64, others: InFlight) {
        let deadline = Clock.now() + Duration::from_secs(20);
        loop {
            let told = self.probe().await;
            let is_known = told.iter().all(|it| matches!(it.source, Source::Local | Source::Remote));
            let must = |at: usize| if at as u64 + 1 == worker { others } else { InFlight::default() };
            if is_known && told.iter().enumerate().all(|(at, it)| it.others == must(at)) {
                return;
            }
            assert!(Clock.now() < deadline, "not in time: {told:?}");
            tokio::task::yield_now().await;
        }
    }

    async fn sees(&self, status: Status, count: usize) {
        let mut changes = self.members.changes();
        let seen = async {
            while self.members.view().count(status) != count {
                changes.changed().await.unwrap()
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("in time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_know_what_the_others_have_in_flight_and_a_crash_takes_its_own_with_it() {
    let secret = MeshSecret::generate();
    let first = node(1, &secret, &["localhost:1".to_owned()]);
    assert!(first.ledger.is_alone(), "it asks nobody");
    let seeds = [first.addr.to_string()];
    let nodes = [first, node(2, &secret, &seeds), node(3, &secret, &seeds)];
    for node in &nodes {
        node.sees(Status::Alive, 3).await;
        node.hears(0, InFlight::default()).await;
        assert!(!node.ledger.is_alone());
    }
    let [a, b, c] = nodes;
    let guard = a.begin(3, 700);
    b.hears(3, InFlight::one(700)).await;
    c.hears(3, InFlight::one(700)).await;
    a.hears(0, InFlight::default()).await;
    let second = b.begin(3, 50);
    c.hears(3, InFlight { requests: 2, queued_tokens: 750 }).await;
    a.hears(3, InFlight::one(50)).await;
    drop((guard, second));
    c.hears(0, InFlight::default()).await;
    a.hears(0, InFlight::default()).await;

    let _lost = b.begin(5, 400);
    c.hears(5, InFlight::one(400)).await;
    for stage in Stage::ALL.into_iter().rev() {
        b.tasks.stop_stage(stage, Duration::ZERO).await; // the transport first: nothing is said
    }
    a.sees(Status::Alive, 2).await;
    c.sees(Status::Alive, 2).await;
    a.hears(0, InFlight::default()).await;
    c.hears(0, InFlight::default()).await;
}

/// A node that keeps all ledgers when it is one of two with this one.
fn owner_before(n: u16) -> u16 {
    let is_first = |it: &u16| {
        let mut core = Core::new(Clock.now(), (peer(n).storage, 1));
        let both = [n, *it].map(|it| Arc::new(peer(it))).to_vec();
        core.step(Clock.now(), Event::Members(both), &mut Vec::new());
        core.owners(WorkerId(1)).first == Some(peer(*it).storage)
    };
    (n + 1..).find(is_first).expect("one of many")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_that_do_not_answer_cost_one_deadline_and_then_nothing() {
    let secret = MeshSecret::generate();
    let first = node(1, &secret, &["localhost:1".to_owned()]);
    let mute = transport::tests::Node::new(owner_before(1), &secret);
    // A member by SWIM that has nobody on the ledger's lane.
    let _silent = membership::start(
        vec![first.addr.to_string()],
        membership::Config::default(),
        mute.handle,
        mute.inboxes.swim,
        membership::metrics::Metrics::default(),
        &mute.tasks,
    );
    first.sees(Status::Alive, 2).await;
    eventually("it knows that it is not alone", || !first.ledger.is_alone()).await;
    let mut missed = 0;
    for _ in 0..20 {
        let begun = Clock.now();
        let told = first.probe().await;
        assert!(Clock.now() - begun < 2 * TIMEOUT, "one deadline, whoever does not answer");
        missed += told.iter().filter(|it| it.source == Source::Missed).count();
    }
    assert!(
        (1..=2 * WORKERS as usize).contains(&missed),
        "after two misses the second owner is this node itself: {missed}"
    );
}
