//! Four real nodes on loopback, each with its prober, and a worker that three of them watch.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;
use http::StatusCode;
use http_body_util::BodyExt as _;

use super::*;
use crate::base::clock::Instant;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::membership;
use crate::replication;
use crate::replication::core::Member;
use crate::replication::dots::Actor;
use crate::replication::store::memory::Memory;
use crate::transport;
use crate::transport::tests::eventually;
use crate::transport::trust::MeshSecret;
use crate::workers::address::Origin;
use crate::workers::config::Config;
use crate::workers::health::State;
use crate::workers::metrics::Metrics;
use crate::workers::prober::Prober;
use crate::workers::registry::Registry;
use crate::workers::spec::Spec;
use crate::workers::worker::Answer;
use crate::workers::worker::BoxFuture;
use crate::workers::worker::Call;
use crate::workers::worker::CallError;
use crate::workers::worker::ConnectFailure;
use crate::workers::worker::Segments;
use crate::workers::worker::Worker;

const URL: &str = "http://gpu1:8000";
const INTERVAL: Duration = Duration::from_millis(200);
const PROBER: Task = Task { name: "prober", stage: Stage::Decide, on_end: OnEnd::StopNode };

/// A worker as one node reaches it.
#[derive(Default)]
struct Line {
    is_cut: AtomicBool,
    asked: AtomicUsize,
}

impl Worker for Line {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if self.is_cut.load(Ordering::Relaxed) {
                return Err(CallError::Connect(ConnectFailure::Refused));
            }
            let said = if call.path == "/v1/models" { r#"{"data":[{"id":"tiny","owned_by":"vllm"}]}"# } else { "" };
            let body = Segments::from(bytes::Bytes::from_static(said.as_bytes())).map_err(|never| match never {});
            Ok(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Box::pin(body) })
        })
    }

    fn close_idle(&self, _: Instant) -> usize {
        0
    }
}

struct Node {
    observers: Observers,
    registry: Arc<Registry>,
    line: Arc<Line>,
    addr: std::net::SocketAddr,
    tasks: Tasks,
    worker: WorkerId,
}

impl Node {
    fn new(n: u16, secret: &MeshSecret, seeds: &[String]) -> Self {
        let transport = transport::tests::Node::new(n, secret);
        let (addr, tasks, me, inboxes) = (transport.addr(), transport.tasks.clone(), transport.me(), transport.inboxes);
        let (seen, timing) = (membership::metrics::Metrics::default(), membership::Config::default());
        let (transport, seeds) = (transport.handle, seeds.to_vec());
        let membership = membership::start(seeds, timing, transport.clone(), inboxes.swim, seen, &tasks);
        let members = Some(membership.clone());
        let peers = replication::Peers { membership, transport, deltas: inboxes.deltas, sync: inboxes.sync };
        let member = Member { node: me.node, actor: Actor { storage: me.storage, boot: me.boot } };
        let counts = replication::metrics::Metrics::default();
        let tables = replication::start(member, Box::new(Memory::default()), Some(peers), counts, &tasks).unwrap();
        let config = Config { probe_interval: INTERVAL, probe_timeout: INTERVAL, ..Config::default() };
        let registry = Arc::new(Registry::for_tests(INTERVAL, &Metrics::default(), &tasks));
        let observers = Observers::alone(me.storage, config.away_max);
        let prober = Prober::new(
            Arc::clone(&registry),
            &config,
            Metrics::default(),
            tasks.clone(),
            Arc::new(|_, _| ()),
            observers.clone(),
        );
        let setup = Setup {
            observers: observers.clone(),
            registry: Arc::clone(&registry),
            tables,
            members,
            interval: INTERVAL,
            on_restart: Arc::new(|_, _| ()),
            metrics: Metrics::default(),
        };
        start(setup, &tasks);
        tasks.spawn(PROBER, |stop| prober.run(stop));
        let (line, worker) = (Arc::<Line>::default(), WorkerId::of(URL, None));
        let spec = Spec::named(&Origin::parse(URL).unwrap(), None);
        registry.play_as(worker, spec, Arc::clone(&line) as Arc<dyn Worker>);
        Self { observers, registry, line, addr, tasks, worker }
    }

    fn entry(&self) -> Arc<Entry> {
        self.registry.get(self.worker).unwrap()
    }

    fn state(&self) -> State {
        self.entry().state(Clock.now())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_watch_a_worker_and_the_fourth_takes_their_word_for_it() {
    let secret = MeshSecret::generate();
    let first = Node::new(1, &secret, &[]);
    let seeds = [first.addr.to_string()];
    let mut nodes = vec![first];
    nodes.extend((2..=4).map(|n| Node::new(n, &secret, &seeds)));
    let sights = |node: &Node| node.observers.seen(node.worker);
    eventually("three nodes watch it, and all hear of it", || {
        nodes.iter().all(|it| sights(it).len() == 3 && it.state() == State::Ready)
    })
    .await;
    let (watching, others): (Vec<&Node>, Vec<&Node>) = nodes.iter().partition(|it| it.observers.is_mine(&it.entry()));
    let [other] = others[..] else { panic!("three of four watch") };
    assert!(nodes.iter().all(|it| it.entry().facts.models.len() == 1), "everybody knows what it serves");

    // One of them loses it: that is its own trouble.
    let asked = other.line.asked.load(Ordering::Relaxed);
    watching[0].line.is_cut.store(true, Ordering::Relaxed);
    eventually("it is away for that one", || watching[0].state() == State::NotReady).await;
    eventually("the others hear so", || sights(other).iter().filter(|it| it.sight.is_down).count() == 1).await;
    assert_eq!((watching[1].state(), other.state()), (State::Ready, State::Ready));

    // Two of them do: it is out where nobody reached it, and last where somebody did.
    watching[1].line.is_cut.store(true, Ordering::Relaxed);
    eventually("it is out at the node that does not look", || other.state() == State::NotReady).await;
    let stands = || (watching[2].entry().standing(Clock.now()), watching[2].state());
    eventually("it is last where it answers", || stands() == ((true, true), State::Ready)).await;
    assert_eq!(other.line.asked.load(Ordering::Relaxed), asked, "it took their word");

    for it in &watching {
        it.line.is_cut.store(false, Ordering::Relaxed);
    }
    let is_well = |it: &Node| it.entry().standing(Clock.now()) == (true, false);
    eventually("it is back everywhere", || nodes.iter().all(is_well)).await;

    // One of those who watch it leaves, and the fourth takes over.
    let gone = watching[2].observers.clone();
    watching[2].tasks.stop_stage(Stage::Decide, Duration::from_secs(1)).await;
    watching[2].tasks.stop_stage(Stage::Belong, Duration::from_secs(1)).await;
    drop(gone);
    eventually("the fourth watches it now", || other.line.asked.load(Ordering::Relaxed) > asked).await;
}
