//! What is claimed of history on PostgreSQL and on Redis.

use std::sync::Arc;
use std::time::Duration;

use cluster_tests::eventually;
use cluster_tests::servers::Server;
use futures_util::future::join_all;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;
use smg::base::secret::Secret;
use smg::base::setting::Setting as _;
use smg::base::tasks::Tasks;
use smg::history::Backend;
use smg::history::External;
use smg::history::Owner;
use smg::history::Unavailable;
use smg::history::config::Kind;
use smg::history::machine::Act;
use smg::history::machine::Command;
use smg::history::machine::CommandId;
use smg::history::machine::Entry;
use smg::history::machine::Outcome;
use smg::history::machine::Room;
use smg::history::machine::read;
use smg::observability::metrics::Registry;
use smg::raft::Coded as _;

use crate::conformance;
use crate::conformance::Gateway;
use crate::conformance::first;
use crate::conformance::id;

/// For whoever waits for a server that may be away.
const LIMIT: Duration = Duration::from_secs(20);
/// For whoever waits for one that is.
const SHORT: Duration = Duration::from_secs(1);
const WRITERS: usize = 8;
const KILLS: usize = 3;

/// Runs those that have one of these words in their name; all, if there are none.
pub(crate) async fn hold(words: &[String]) {
    let mut held = 0;
    for kind in [Kind::Postgres, Kind::Redis] {
        let mut server = Server::start(kind).await;
        for claim in CLAIMS {
            let name = format!("{}: {}", kind.render(), claim.0);
            if !words.is_empty() && !words.iter().any(|it| name.contains(it.as_str())) {
                continue;
            }
            let start = Clock.now();
            run(claim.1, &mut server).await;
            println!("ok  {name} ({:.1?})", Clock.now() - start);
            held += 1;
        }
    }
    assert!(held > 0, "no claim has one of these words: {words:?}");
    println!("{held} claims hold");
}

/// No password, and no content of anybody, as text or as the numbers of its bytes, whatever a driver logs.
pub(crate) fn nothing_is_told(log: &[String]) {
    let numbers: Vec<String> = b"content of".iter().map(ToString::to_string).collect();
    let bytes = numbers.join(", ");
    for line in log {
        let is_told = ["canary", "content of", &bytes].iter().any(|it| line.contains(it));
        assert!(!is_told, "{line}");
    }
    println!("ok  the log has no password and no content ({} lines, down to `trace`)", log.len());
}

#[derive(Clone, Copy)]
enum Claim {
    Suite,
    Tls,
    Strangers,
    Kills,
    Stalls,
    Absent,
    Newer,
    Full,
    Away,
}

const CLAIMS: &[(&str, Claim)] = &[
    ("it is a backend as every other", Claim::Suite),
    ("it is one over TLS", Claim::Tls),
    ("a server that cannot be trusted is told nothing", Claim::Strangers),
    ("kill -9 of the server loses nothing that was answered", Claim::Kills),
    ("a server that stands still holds nobody up for longer than he said", Claim::Stalls),
    ("a gateway starts without its server, and uses it once it is there", Claim::Absent),
    ("what a newer release made is left alone", Claim::Newer),
    ("a gateway that is gone holds nobody up", Claim::Away),
    ("a server without room says so, and goes on once it has some", Claim::Full),
];

async fn run(claim: Claim, server: &mut Server) {
    match claim {
        Claim::Suite => conformance::suite(|| over(server, &server.url())).await,
        Claim::Tls => over_tls(server).await,
        Claim::Strangers => strangers(server).await,
        Claim::Kills => kills(server).await,
        Claim::Stalls => stalls(server).await,
        Claim::Absent => absent(server).await,
        Claim::Newer => newer(server).await,
        Claim::Full => full(server).await,
        Claim::Away => away(server).await,
    }
}

fn over(server: &Server, url: &Secret) -> Arc<dyn Backend> {
    // Never dropped: tasks end with their owner.
    let tasks: &'static Tasks = Box::leak(Box::new(Tasks::new()));
    Arc::new(External::start(server.kind(), url, &Entropy::from_os(), &mut Registry::default(), tasks).unwrap())
}

fn begin(owner: &Owner, response: &str, n: u128) -> Entry {
    let act = Box::new(Act::Begin(Box::new(first(response, Vec::new()))));
    Entry {
        id: CommandId(n),
        seen: 0,
        command: Command::Of { owner: owner.clone(), room: Room { bytes_max: 1 << 30 }, act },
    }
}

async fn propose(backend: &dyn Backend, entry: &Entry, limit: Duration) -> Result<Outcome, Unavailable> {
    backend.propose(entry.encode().unwrap(), limit).await
}

fn draw() -> u128 {
    Entropy::from_os().next_u128()
}

async fn over_tls(server: &Server) {
    let root = server.root_path().display().to_string();
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = server.tls_url(&format!("sslmode={mode}&sslrootcert={root}"));
        let owner = Gateway::new(over(server, &url), 1).owner();
        assert_eq!(
            propose(&*over(server, &url), &begin(&owner, "r1", draw()), LIMIT).await,
            Ok(Outcome::Done),
            "{mode}"
        );
    }
    let url = server.tls_url(&format!("sslmode=verify-full&sslrootcert={root}"));
    conformance::suite(|| over(server, &url)).await;
}

async fn strangers(server: &Server) {
    let other = cluster_tests::tls::Authority::new();
    let strange = format!("sslmode=verify-full&sslrootcert={}", other.root_path().display());
    for options in [strange.as_str(), "sslmode=verify-full", "sslmode=verify-ca"] {
        let backend = over(server, &server.tls_url(options));
        let owner = Gateway::new(Arc::clone(&backend), 1).owner();
        let done = propose(&*backend, &begin(&owner, "r1", draw()), SHORT).await;
        assert_eq!(done, Err(Unavailable::Unreached), "{options}");
        assert_eq!(backend.read(Box::new(|_| {}), SHORT).await, Err(Unavailable::Unreached), "{options}");
    }
    // Whoever only wants it encrypted gets that.
    let backend = over(server, &server.tls_url("sslmode=require"));
    let owner = Gateway::new(Arc::clone(&backend), 1).owner();
    assert_eq!(propose(&*backend, &begin(&owner, "r1", draw()), LIMIT).await, Ok(Outcome::Done));
}

async fn kills(server: &mut Server) {
    let backends = [over(server, &server.url()), over(server, &server.url())];
    let owner = Gateway::new(Arc::clone(&backends[0]), 1).owner();
    let answered = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let write = |writer: usize| {
        let (backend, owner, answered, is_over) = (&backends[writer % 2], &owner, &answered, &is_over);
        async move {
            let mut n = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                let name = format!("r{writer}_{n}");
                let done = propose(&**backend, &begin(owner, &name, draw()), LIMIT).await;
                assert_eq!(done, Ok(Outcome::Done), "{name}: what was retried counts once");
                answered.lock().push(name);
            }
        }
    };
    let kill = async {
        for _ in 0..KILLS {
            let before = answered.lock().len();
            eventually("writes are answered", async || answered.lock().len() > before + 100).await;
            server.kill();
            server.start_again().await;
        }
        let before = answered.lock().len();
        eventually("writes go on", async || answered.lock().len() > before + 100).await;
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(kill, join_all((0..WRITERS).map(write)));
    let (names, reader) = (answered.lock().clone(), Gateway::new(over(server, &server.url()), 2));
    let len = names.len() as u64;
    let of = owner.clone();
    let missing = reader
        .read(move |rows| {
            names.iter().filter(|it| read::response(rows, &of, &id(it)).is_err()).cloned().collect::<Vec<_>>()
        })
        .await;
    assert_eq!(missing, [""; 0], "answered, and lost");
    assert_eq!(reader.read(move |rows| read::usage(rows, &owner).unwrap().responses).await, len, "each once");
}

async fn stalls(server: &Server) {
    let backend = over(server, &server.url());
    let owner = Gateway::new(Arc::clone(&backend), 1).owner();
    assert_eq!(propose(&*backend, &begin(&owner, "r0", draw()), LIMIT).await, Ok(Outcome::Done));
    server.pause();
    let start = Clock.now();
    let entry = begin(&owner, "r1", draw());
    let done =
        tokio::join!(propose(&*backend, &entry, SHORT), backend.read(Box::new(|rows| drop(rows.get(b"x"))), SHORT));
    let took = Clock.now() - start;
    server.resume();
    assert_eq!(done, (Err(Unavailable::Unreached), Err(Unavailable::Unreached)));
    assert!(took < 2 * SHORT, "{took:?}");
    // It may have counted; asked again, it has once.
    assert_eq!(propose(&*backend, &entry, LIMIT).await, Ok(Outcome::Done));
}

async fn absent(server: &mut Server) {
    server.kill();
    let backend = over(server, &server.url());
    let owner = Gateway::new(Arc::clone(&backend), 1).owner();
    let entry = begin(&owner, "r1", draw());
    assert_eq!(propose(&*backend, &entry, SHORT).await, Err(Unavailable::Unreached));
    assert_eq!(backend.read(Box::new(|rows| drop(rows.get(b"x"))), SHORT).await, Err(Unavailable::Unreached));
    let (done, ()) = tokio::join!(propose(&*backend, &entry, LIMIT), server.start_again());
    assert_eq!(done, Ok(Outcome::Done));
}

async fn newer(server: &Server) {
    let (newer, back): (&[&str], &[&str]) = match server.kind() {
        Kind::Postgres => {
            (&["UPDATE smg_history_schema SET version = 99"], &["UPDATE smg_history_schema SET version = 1"])
        }
        _ => (&["SET", "smg:{history}:schema", "99"], &["SET", "smg:{history}:schema", "1"]),
    };
    assert_ne!(server.order(newer), "");
    let backend = over(server, &server.url());
    let owner = Gateway::new(Arc::clone(&backend), 1).owner();
    let entry = begin(&owner, "r1", draw());
    assert_eq!(propose(&*backend, &entry, LIMIT).await, Err(Unavailable::Damaged));
    assert_eq!(backend.read(Box::new(|_| {}), LIMIT).await, Err(Unavailable::Damaged));
    assert_ne!(server.order(back), "");
    assert_eq!(propose(&*backend, &entry, LIMIT).await, Ok(Outcome::Done));
}

/// One that holds the lock, and does not answer any more.
async fn away(server: &Server) {
    let backend = over(server, &server.url());
    let owner = Gateway::new(Arc::clone(&backend), 1).owner();
    if server.kind() == Kind::Postgres {
        let held = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '2s'; SELECT pg_advisory_xact_lock(8317417475711529844)";
        let mut holder = server.hold(held);
        eventually("somebody holds the lock", async || {
            server.order(&["SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"]) != "0"
        })
        .await;
        assert_eq!(propose(&*backend, &begin(&owner, "r1", draw()), LIMIT).await, Ok(Outcome::Done));
        let _ = holder.kill(); // it may have ended by itself
        let _ = holder.wait();
    } else {
        // Nothing is locked: who is slow finds that another was first.
        assert_eq!(propose(&*backend, &begin(&owner, "r1", draw()), LIMIT).await, Ok(Outcome::Done));
    }
}

async fn full(server: &Server) {
    if server.kind() == Kind::Postgres {
        // What a full disk answers is the same as what this does, and it can be had without one.
        let raise = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$";
        let on = "CREATE TRIGGER full_disk BEFORE INSERT ON smg_history_rows EXECUTE FUNCTION full_disk()";
        assert_ne!((server.order(&[raise]), server.order(&[on])), (String::new(), String::new()));
    } else {
        assert_eq!(server.order(&["CONFIG", "SET", "maxmemory", "1mb"]), "OK");
    }
    let backend = over(server, &server.url());
    let owner = Gateway::new(Arc::clone(&backend), 1).owner();
    let entry = begin(&owner, "r1", draw());
    assert_eq!(propose(&*backend, &entry, LIMIT).await, Err(Unavailable::NoRoom));
    let room: &[&str] = match server.kind() {
        Kind::Postgres => &["DROP FUNCTION full_disk CASCADE"],
        _ => &["CONFIG", "SET", "maxmemory", "0"],
    };
    assert_ne!(server.order(room), "");
    assert_eq!(propose(&*backend, &entry, LIMIT).await, Ok(Outcome::Done));
}
