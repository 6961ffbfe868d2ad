//! Two transports on loopback: a caller, and an owner whose worker plays scripts.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::sync::watch;

use super::*;
use crate::base::clock::Clock;
use crate::base::limits::FORWARDED_BYTES_MAX;
use crate::base::limits::FORWARDED_FROM_NODES_MAX;
use crate::base::secret::Secret;
use crate::base::tasks::Stage;
use crate::base::tasks::Tasks;
use crate::observability::metrics::Registry as MetricsRegistry;
use crate::transport::tests::Node;
use crate::transport::tests::eventually;
use crate::transport::trust::MeshSecret;
use crate::workers::address::Origin;
use crate::workers::conformance;
use crate::workers::conformance::arrived;
use crate::workers::conformance::call;
use crate::workers::conformance::cancelled;
use crate::workers::conformance::good;
use crate::workers::fake::Fake;
use crate::workers::fake::Seen;
use crate::workers::fake::Step;
use crate::workers::registry::Entry;
use crate::workers::registry::Registry;
use crate::workers::registry::Wanted;
use crate::workers::spec::Source;
use crate::workers::spec::Spec;

const CALLER: StorageId = StorageId(1);
const OWNER: StorageId = StorageId(2);
const URL: &str = "http://127.0.0.1:8000";

/// Puts a worker in force, and says how it is reached then.
fn put(registry: &Registry, id: WorkerId, spec: Spec) -> Arc<Entry> {
    registry.reconcile(vec![Wanted { id, spec, source: Source::Config }]);
    registry.get(id).expect("in force")
}

fn registry(metrics: &Metrics, tasks: &Tasks) -> Registry {
    Registry::for_tests(Duration::from_secs(1), metrics, tasks)
}

/// A node that others reach workers through.
struct Owner {
    peer: Arc<Peer>,
    registry: Arc<Registry>,
    scrape: MetricsRegistry,
    metrics: Metrics,
    tasks: Tasks,
}

impl Owner {
    fn new(secret: &MeshSecret) -> Self {
        Self::bounded(secret, FORWARDED_FROM_NODES_MAX, FORWARDED_BYTES_MAX)
    }

    fn bounded(secret: &MeshSecret, streams_max: usize, bytes_max: usize) -> Self {
        let Node { handle, inboxes, tasks, .. } = Node::new(2, secret);
        let mut scrape = MetricsRegistry::default();
        let metrics = Metrics::register(&mut scrape);
        let ways = Ways { me: OWNER, transport: handle.clone(), find: Arc::new(|_| None) };
        let registry = Arc::new(registry(&metrics, &tasks).with_forwarder(Forwarder::new(ways)));
        owner::start_bounded(inboxes.forward, Arc::clone(&registry), metrics.clone(), &tasks, streams_max, bytes_max);
        Self { peer: handle.me(), registry, scrape, metrics, tasks }
    }

    fn plays(&self, scripts: Vec<Vec<Step>>) -> (WorkerId, watch::Receiver<Seen>) {
        let fake = Fake::new(scripts);
        let seen = fake.seen();
        let name = self.registry.fleet().all.len().to_string();
        (self.registry.play(&name, &["m"], Arc::new(fake)), seen)
    }
}

/// A node that does not reach them.
struct Caller {
    node: Node,
    forwarder: Forwarder,
}

impl Caller {
    fn new(secret: &MeshSecret, owner: &Owner) -> Self {
        let node = Node::new(1, secret);
        let found = Arc::clone(&owner.peer);
        let find: FindPeer = Arc::new(move |storage| (storage == found.storage).then(|| Arc::clone(&found)));
        let ways = Ways { me: CALLER, transport: node.handle.clone(), find };
        Self { node, forwarder: Forwarder::new(ways) }
    }

    fn worker(&self, id: WorkerId, owner: StorageId) -> ForwardWorker {
        ForwardWorker::new(id, owner, self.forwarder.clone(), Duration::from_secs(5), Metrics::default())
    }
}

/// Caller, owner, and a worker of the owner that plays scripts.
fn pair(scripts: Vec<Vec<Step>>) -> (Caller, Owner, WorkerId, watch::Receiver<Seen>) {
    let secret = MeshSecret::generate();
    let owner = Owner::new(&secret);
    let caller = Caller::new(&secret, &owner);
    let (id, seen) = owner.plays(scripts);
    (caller, owner, id, seen)
}

#[tokio::test]
async fn a_forwarded_worker_conforms() {
    let secret = MeshSecret::generate();
    let owner = Owner::new(&secret);
    let caller = Caller::new(&secret, &owner);
    conformance::suite(|scripts| {
        let (id, seen) = owner.plays(scripts);
        std::future::ready((Arc::new(caller.worker(id, OWNER)) as Arc<dyn Worker>, seen))
    })
    .await;
}

#[tokio::test]
async fn credentials_stay_where_they_are_and_a_verdict_cannot_be_forged() {
    let mut said = HeaderMap::new();
    said.insert(VERDICT, HeaderValue::from_static("refused"));
    let (caller, _owner, id, seen) = pair(vec![vec![Step::Head(StatusCode::OK, said), Step::text("good")]]);
    let mut call = call();
    for name in ["authorization", "x-api-key", "cookie"] {
        call.headers.insert(name, HeaderValue::from_static("canary"));
    }
    let answer = caller.worker(id, OWNER).call(call).await.expect("answered");
    assert_eq!((answer.status, answer.headers.get(VERDICT)), (StatusCode::OK, None));
    assert!(!format!("{:?}", seen.borrow().calls[0].headers).contains("canary"));
}

#[tokio::test]
async fn the_owner_adds_its_workers_key_and_takes_no_load_guard() {
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    let (caller, owner, ..) = pair(vec![good()]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let origin = Origin::parse(&listener.local_addr().expect("bound").to_string()).expect("a URL");
    let spec = Spec { via: Some(OWNER), ..Spec::named(&origin, None) };
    let with_key = Spec { api_key: Some(Secret::new("sk-worker")), ..spec.clone() };
    let at_owner = put(&owner.registry, WorkerId(9), with_key);
    let at_caller = registry(&owner.metrics, &owner.tasks).with_forwarder(caller.forwarder.clone());
    let at_caller = put(&at_caller, WorkerId(9), spec);
    assert_eq!((at_owner.through, at_caller.through), (None, Some(OWNER)));

    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut head = Vec::new();
        while !head.ends_with(b"\"m\"}") {
            head.push(stream.read_u8().await.expect("a request"));
        }
        assert_eq!(at_owner.load.requests(), 0, "the caller's guard is the one");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("written");
        (String::from_utf8(head).expect("text"), stream)
    };
    let (answer, (head, _stream)) = tokio::join!(at_caller.worker.call(call()), serve);
    assert_eq!(answer.expect("answered").body.collect().await.expect("whole").to_bytes(), "ok");
    assert!(head.contains("authorization: Bearer sk-worker"), "{head}");
}

#[tokio::test]
async fn nobody_is_reached_through_an_owner_that_is_away_or_does_not_reach_it_itself() {
    let (caller, owner, id, seen) = pair(vec![good()]);
    for worker in [caller.worker(id, StorageId(7)), caller.worker(WorkerId(404), OWNER)] {
        let error = worker.call(call()).await.err().expect("no way");
        assert_eq!((&error, error.may_have_run()), (&NO_WAY, false));
    }
    // Its own registry says that it is somebody else's: what was forwarded is not forwarded again.
    let spec = Spec { via: Some(StorageId(7)), ..Spec::named(&Origin::parse(URL).expect("a URL"), None) };
    put(&owner.registry, WorkerId(8), spec);
    assert_eq!(caller.worker(WorkerId(8), OWNER).call(call()).await.err(), Some(NO_WAY));
    // It drains: told at once to go elsewhere.
    owner.tasks.stop_stage(Stage::Serve, Duration::from_secs(1)).await;
    assert_eq!(caller.worker(id, OWNER).call(call()).await.err(), Some(NO_WAY));
    assert!(seen.borrow().calls.is_empty());
    assert!(owner.scrape.render().contains(r#"smg_worker_forwards_refused_total{reason="no_way"} 3"#));
}

#[tokio::test]
async fn more_than_may_be_forwarded_is_asked_to_pause_and_a_place_comes_back() {
    let (caller, owner, id, mut seen) = pair(vec![vec![Step::Stall]]);
    let worker = caller.worker(id, OWNER);
    let places: Vec<_> = (1..FORWARDED_TO_NODE_MAX).map(|_| caller.forwarder.place(OWNER).expect("a place")).collect();
    let mut last = worker.call(call());
    tokio::select! {
        _ = &mut last => panic!("nothing answers"),
        () = arrived(&mut seen, 1) => {}
    }
    let answer = worker.call(call()).await.expect("words");
    assert_eq!(
        (answer.status, &answer.headers["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &HeaderValue::from_static("1"))
    );
    drop(last);
    cancelled(&mut seen).await;
    assert!(caller.forwarder.place(OWNER).is_some(), "its place is free again");
    drop(places);
    eventually("nothing is under way", || {
        owner.scrape.render().contains(r#"smg_worker_forwards_active{direction="in"} 0"#)
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_is_gone_without_a_word_aborts_the_request_too() {
    let (caller, _owner, id, mut seen) =
        pair(vec![vec![Step::status(StatusCode::OK), Step::text("first"), Step::Stall]]);
    let mut answer = caller.worker(id, OWNER).call(call()).await.expect("answered");
    assert!(answer.body.frame().await.is_some());
    caller.node.tasks.stop_stage(Stage::Carry, Duration::ZERO).await;
    let waited = tokio::time::timeout(Duration::from_secs(20), seen.wait_for(|it| it.cancelled == 1)).await;
    assert!(waited.expect("the worker learns of it").is_ok());
    drop(answer);
}

#[tokio::test]
async fn a_large_request_passes_and_one_that_begins_with_rubbish_does_not() {
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    let (caller, owner, id, seen) = pair(vec![good()]);
    let large = Call { body: Segments::from(Bytes::from(vec![b'x'; 8 << 20])), ..call() };
    let answer = caller.worker(id, OWNER).call(large).await.expect("answered");
    assert_eq!(answer.body.collect().await.expect("whole").to_bytes(), "hello world");
    assert_eq!(seen.borrow().calls[0].body.len(), 8 << 20);

    let mut stream = caller.node.handle.open(&owner.peer, Duration::from_secs(5)).await.expect("open");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    assert!(stream.read_u8().await.is_err(), "reset");
    let counted = || owner.scrape.render().contains(r#"smg_worker_forwards_refused_total{reason="unreadable"} 1"#);
    eventually("it is counted", counted).await;
    assert!(Clock.now().elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn what_an_owner_holds_of_others_is_bounded_in_streams_and_in_bytes() {
    let secret = MeshSecret::generate();
    let owner = Owner::bounded(&secret, 1, 4096);
    let caller = Caller::new(&secret, &owner);
    let (id, mut seen) = owner.plays(vec![vec![Step::Stall], good()]);
    let worker = caller.worker(id, OWNER);
    let mut first = worker.call(call());
    tokio::select! {
        _ = &mut first => panic!("nothing answers"),
        () = arrived(&mut seen, 1) => {}
    }
    let busy = StatusCode::TOO_MANY_REQUESTS;
    assert_eq!(worker.call(call()).await.expect("words").status, busy);
    drop(first);
    cancelled(&mut seen).await;
    let large = Call { body: Segments::from(Bytes::from(vec![b'x'; 3 << 20])), ..call() };
    assert_eq!(
        worker.call(large).await.expect("words, although it is longer than what is under way at once").status,
        busy
    );
    assert_eq!(worker.call(call()).await.expect("answered").status, StatusCode::OK);
    let text = owner.scrape.render();
    for reason in ["too_many", "too_much"] {
        let line = format!(r#"smg_worker_forwards_refused_total{{reason="{reason}"}} 1"#);
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_stream_in_flight_at_an_owner_that_drains_is_finished() {
    let pause = Step::Wait(Duration::from_millis(300));
    let script = vec![Step::status(StatusCode::OK), Step::text("first "), pause, Step::text("last")];
    let (caller, owner, id, _seen) = pair(vec![script]);
    let answer = caller.worker(id, OWNER).call(call()).await.expect("answered");
    let (body, left) =
        tokio::join!(answer.body.collect(), owner.tasks.stop_stage(Stage::Serve, Duration::from_secs(20)));
    assert_eq!((body.expect("whole").to_bytes(), left), (Bytes::from_static(b"first last"), 0));
}
