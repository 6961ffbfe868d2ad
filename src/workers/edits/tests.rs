//! Edits over tables that outlive the registry, as a disk outlives a process.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::*;
use crate::base::clock::Clock;
use crate::base::ids::ModelId;
use crate::base::seal::Sealer;
use crate::replication::admin::Refusal;
use crate::replication::store::memory::Disk;
use crate::workers::config::Config;
use crate::workers::health::Rules;
use crate::workers::http::Dialer;
use crate::workers::metrics::Metrics;
use crate::workers::spec::Source;

struct Node {
    edits: Edits,
    registry: Arc<Registry>,
    tables: replication::Handle,
    gone: Arc<AtomicU64>,
}

/// A node's start over what was kept.
fn start(disk: &Disk, named: &[&str]) -> Node {
    start_with(disk, named, Sealer::new(&[[7; 32]]), false)
}

fn start_with(disk: &Disk, named: &[&str], seals: Sealer, owns_loopback: bool) -> Node {
    let rules = Rules {
        failure_threshold: 3,
        success_threshold: 1,
        breaker_failures: 10,
        breaker_window: std::time::Duration::from_secs(60),
        breaker_open: std::time::Duration::from_secs(10),
        pause_max: std::time::Duration::from_secs(60),
        memory: std::time::Duration::from_secs(15),
    };
    let tasks = Tasks::new();
    let dialer = Dialer::new(&Config::default(), tasks.clone(), Metrics::default()).unwrap();
    let registry = Arc::new(Registry::new(rules, dialer));
    let (tables, gone) = (replication::alone(disk, &tasks), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&gone);
    let grounds = Grounds {
        registry: Arc::clone(&registry),
        tables: tables.clone(),
        seals: Arc::new(seals),
        entropy: Entropy::from_os(),
        tasks,
        owns_loopback,
        is_dead: Arc::new(|_| false),
        on_gone: Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        }),
    };
    Node { edits: Edits::start(grounds, named_by_flags(named, "sk-source")), registry, tables, gone }
}

fn named_by_flags(urls: &[&str], key: &str) -> Vec<(Origin, Option<Secret>)> {
    urls.iter().map(|it| (Origin::parse(it).unwrap(), Some(Secret::new(key)))).collect()
}

fn spec(url: &str) -> Spec {
    Spec::named(&Origin::parse(url).unwrap(), Some(Secret::new("sk-canary")))
}

fn urls(registry: &Registry) -> Vec<String> {
    let mut urls: Vec<_> = registry.fleet().all.iter().map(|it| it.spec.url.clone()).collect();
    urls.sort_unstable();
    urls
}

fn key(entry: &Entry) -> Option<&str> {
    entry.spec.api_key.as_ref().map(Secret::expose)
}

fn id(url: &str) -> WorkerId {
    WorkerId::of(url, None)
}

impl Node {
    /// Everything that was asked of it before is done.
    async fn settled(&self) {
        self.edits.0.turns.run(async {}).await.expect("its turn comes");
    }
}

#[tokio::test]
async fn what_was_added_and_changed_is_there_after_a_restart_and_what_was_removed_is_not() {
    let disk = Disk::default();
    let node = start(&disk, &[]);
    let (kept, settled) = node.edits.add(spec("http://a:1")).await.unwrap();
    assert!(settled.is_safe && settled.pending.is_empty());
    let (gone, _) = node.edits.add(spec("http://b:1")).await.unwrap();
    let change = Change {
        draining: Some(true),
        models: Some(vec![ModelId::parse("m").unwrap()]),
        cost: Some(2.0),
        ..Change::default()
    };
    node.edits.change(kept.id, change).await.unwrap();
    node.edits.remove(gone.id).await.unwrap();
    assert_eq!(node.gone.load(Ordering::Relaxed), 1);
    assert!(disk.has(b"http://a:1") && !disk.has(b"sk-canary"), "keys are kept sealed");

    let node = start(&disk, &[]);
    assert_eq!(urls(&node.registry), ["http://a:1"]);
    let entry = node.registry.get(kept.id).expect("under its id");
    assert_eq!((key(&entry), entry.spec.is_draining, entry.spec.cost), (Some("sk-canary"), true, 2.0));
    assert_eq!((entry.source, entry.spec.models[0].as_str()), (Source::Api, "m"));
}

#[tokio::test]
async fn field_12_a_removed_worker_that_a_flag_names_stays_out_until_it_is_added_again() {
    let disk = Disk::default();
    let node = start(&disk, &["http://a:1", "http://b:1"]);
    node.edits.remove(id("http://a:1")).await.unwrap();
    assert_eq!(urls(&node.registry), ["http://b:1"]);

    let node = start(&disk, &["http://a:1", "http://b:1"]);
    assert_eq!(urls(&node.registry), ["http://b:1"], "a restart lifts nothing");
    assert_eq!(node.edits.suppressed().into_iter().collect::<Vec<_>>(), ["http://a:1"]);
    node.edits.add(spec("http://a:1")).await.unwrap();
    assert_eq!(node.edits.suppressed().len(), 0);

    let node = start(&disk, &["http://a:1", "http://b:1"]);
    assert_eq!(urls(&node.registry), ["http://a:1", "http://b:1"]);
    assert_eq!(node.registry.get(id("http://a:1")).expect("there").source, Source::Api);
}

#[tokio::test]
async fn a_flag_s_worker_keeps_its_changes_and_its_source_s_key_and_goes_with_the_flag() {
    let disk = Disk::default();
    let node = start(&disk, &["http://a:1"]);
    let worker = id("http://a:1");
    node.edits.change(worker, Change { draining: Some(true), ..Change::default() }).await.unwrap();

    let node = start(&disk, &["http://a:1"]);
    let entry = node.registry.get(worker).expect("under its id");
    assert_eq!((entry.spec.is_draining, key(&entry), entry.source), (true, Some("sk-source"), Source::Config));
    node.edits.change(worker, Change { api_key: Some(None), ..Change::default() }).await.unwrap();

    let node = start(&disk, &["http://a:1"]);
    assert_eq!(key(&node.registry.get(worker).expect("there")), None, "a key taken away stays away");
    assert_eq!(urls(&start(&disk, &[]).registry), Vec::<String>::new());
}

#[tokio::test]
async fn a_changed_configuration_adds_and_takes_away_what_only_it_names() {
    let disk = Disk::default();
    let node = start(&disk, &["http://a:1", "http://b:1", "http://c:1"]);
    let (changed, removed) = (id("http://b:1"), id("http://c:1"));
    node.edits.change(changed, Change { cost: Some(2.0), ..Change::default() }).await.unwrap();
    node.edits.remove(removed).await.unwrap();
    node.edits.add(spec("http://added:1")).await.unwrap();

    let configure = async |urls: &[&str]| {
        node.edits.configure(named_by_flags(urls, "sk-rotated"));
        node.settled().await;
        self::urls(&node.registry)
    };
    assert_eq!(configure(&["http://c:1", "http://d:1"]).await, ["http://added:1", "http://d:1"]);
    assert_eq!(configure(&["http://b:1", "http://added:1"]).await, ["http://added:1", "http://b:1"]);
    let entry = node.registry.get(changed).expect("under the id it had");
    assert_eq!((entry.spec.cost, key(&entry)), (2.0, Some("sk-rotated")), "what was changed counts again");
    assert_eq!(configure(&[]).await, ["http://added:1"]);
}

#[tokio::test]
async fn an_edit_that_cannot_be_kept_is_refused_and_so_is_every_later_one() {
    let disk = Disk::default();
    let node = start(&disk, &[]);
    let mut long = spec("http://c:1");
    long.labels.insert("x".to_owned(), "y".repeat(64 << 10));
    let too_large = TableError::Refused(Refusal::EntryTooLarge);
    assert_eq!(node.edits.add(long).await.err(), Some(EditError::NotKept(too_large)));
    let (entry, _) = node.edits.add(spec("http://a:1")).await.unwrap();
    disk.fail();
    let failed = Some(EditError::NotKept(TableError::DiskFailed));
    let change = || Change { draining: Some(true), ..Change::default() };
    assert_eq!(node.edits.change(entry.id, change()).await.err(), failed);
    assert_eq!(node.edits.add(spec("http://b:1")).await.err(), failed);
    assert_eq!(node.edits.remove(entry.id).await.err(), failed);
    assert_eq!(urls(&node.registry), ["http://a:1"]);
}

#[tokio::test]
async fn a_row_that_somebody_points_elsewhere_loses_its_key_and_one_that_cannot_be_read_takes_no_other_with_it() {
    let disk = Disk::default();
    let node = start(&disk, &[]);
    node.edits.add(spec("http://a:1")).await.unwrap();
    let (instance, newer) = (node.edits.0.read().rows[0].key.id, InstanceId(1));
    let evil = rows::fields_of_place(&Place { url: "http://evil:1".to_owned(), via: None });
    let edits = vec![Edit::Set(WORKERS, instance, evil), Edit::Add(WORKERS, newer, ADDED, vec![(1, 9, b"?".to_vec())])];
    node.tables.edit(edits).await.unwrap();
    let node = start(&disk, &[]);
    assert_eq!((urls(&node.registry), key(&node.registry.fleet().all[0])), (vec!["http://evil:1".to_owned()], None));
    assert!(node.tables.admin(WORKERS, |it| it.find(newer).is_some()), "it is kept for those who understand it");
}

/// What another node edits arrives in the tables, not through the door.
#[tokio::test]
async fn field_04_what_the_tables_say_is_put_in_force_when_it_arrives() {
    let node = start(&Disk::default(), &[]);
    let place = Place { url: "http://far:1".to_owned(), via: None };
    let edit = Edit::Add(WORKERS, InstanceId(5), ADDED, rows::fields_of_place(&place));
    node.tables.edit(vec![edit]).await.unwrap();
    let deadline = Clock.now() + std::time::Duration::from_secs(10);
    while urls(&node.registry) != ["http://far:1"] {
        assert!(Clock.now() < deadline, "not in time");
        tokio::task::yield_now().await;
    }
    // Two nodes made one each: both go with one DELETE.
    let edit = Edit::Add(WORKERS, InstanceId(6), ADDED, rows::fields_of_place(&place));
    node.tables.edit(vec![edit]).await.unwrap();
    node.edits.remove(id("http://far:1")).await.unwrap();
    assert_eq!((urls(&node.registry).len(), node.tables.admin(WORKERS, |it| it.entries().count())), (0, 0));
}

#[tokio::test]
async fn a_loopback_address_is_the_node_s_own_worker_where_other_machines_are_members() {
    let node = start_with(&Disk::default(), &["http://localhost:1", "http://gpu:1"], Sealer::ephemeral(), true);
    let me = node.tables.storage();
    let vias: Vec<_> = node.registry.fleet().all.iter().map(|it| (it.id, it.spec.via)).collect();
    assert!(vias.contains(&(WorkerId::of("http://localhost:1", Some(me)), Some(me))), "{vias:?}");
    assert!(vias.contains(&(id("http://gpu:1"), None)), "{vias:?}");
}

#[tokio::test]
async fn keys_are_sealed_anew_when_the_key_that_seals_is_another() {
    let disk = Disk::default();
    start(&disk, &[]).edits.add(spec("http://a:1")).await.unwrap();
    let both = start_with(&disk, &[], Sealer::new(&[[8; 32], [7; 32]]), false);
    assert_eq!(key(&both.registry.fleet().all[0]), Some("sk-canary"));
    both.settled().await;
    let new = start_with(&disk, &[], Sealer::new(&[[8; 32]]), false);
    assert_eq!(key(&new.registry.fleet().all[0]), Some("sk-canary"), "the old key is not needed any more");
}
