//! Edits against a journal in memory that outlives the registry, as a disk outlives a process.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::*;
use crate::base::ids::ModelId;
use crate::base::journal::Keeping;
use crate::base::journal::Sealing;
use crate::workers::config::Config;
use crate::workers::health::Rules;
use crate::workers::http::Dialer;
use crate::workers::metrics::Metrics;

/// Rows in memory. Sealing turns the text round, which is enough to see that it was done.
#[derive(Default)]
struct Memory {
    rows: Mutex<BTreeMap<Row, Vec<u8>>>,
    fails: AtomicBool,
}

impl Journal for Memory {
    fn put(&self, row: Row, value: Vec<u8>) -> Keeping<'_> {
        Box::pin(async move {
            if self.fails.load(Ordering::Relaxed) {
                return Err(NotKept::Failed);
            }
            self.rows.lock().insert(row, value);
            Ok(Kept::Durably)
        })
    }

    fn remove(&self, row: Row) -> Keeping<'_> {
        Box::pin(async move {
            if self.fails.load(Ordering::Relaxed) {
                return Err(NotKept::Failed);
            }
            self.rows.lock().remove(&row);
            Ok(Kept::Durably)
        })
    }

    fn rows(&self) -> Vec<(Row, Vec<u8>)> {
        self.rows.lock().clone().into_iter().collect()
    }

    fn seal<'a>(&'a self, secret: &'a Secret, bound_to: &'a str) -> Sealing<'a> {
        let sealed = format!("{bound_to}|{}", secret.expose()).bytes().rev().collect();
        Box::pin(async move { Some(sealed) })
    }

    fn unseal(&self, sealed: &[u8], bound_to: &str) -> Option<Secret> {
        let text = String::from_utf8(sealed.iter().rev().copied().collect()).ok()?;
        text.strip_prefix(&format!("{bound_to}|")).map(Secret::new)
    }
}

/// A node's start over what was kept.
fn start(journal: &Arc<Memory>, named: &[&str]) -> (Edits, Arc<Registry>) {
    let rules = Rules {
        failure_threshold: 3,
        success_threshold: 1,
        breaker_failures: 10,
        breaker_window: std::time::Duration::from_secs(60),
        breaker_open: std::time::Duration::from_secs(10),
        pause_max: std::time::Duration::from_secs(60),
        memory: std::time::Duration::from_secs(15),
    };
    let dialer = Dialer::new(&Config::default(), Tasks::new(), Metrics::default()).unwrap();
    let registry = Arc::new(Registry::new(rules, dialer));
    let journal: Arc<dyn Journal> = Arc::<Memory>::clone(journal);
    let named = named_by_flags(named, "sk-source");
    let edits = Edits::restore(Arc::clone(&registry), journal, named, Entropy::from_os(), Tasks::new()).unwrap();
    (edits, registry)
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

#[tokio::test]
async fn what_was_added_and_changed_is_there_after_a_restart_and_what_was_removed_is_not() {
    let journal = Arc::new(Memory::default());
    let (edits, _registry) = start(&journal, &[]);
    let (kept, _) = edits.add(spec("http://a:1")).await.unwrap();
    let (gone, _) = edits.add(spec("http://b:1")).await.unwrap();
    let change = Change {
        draining: Some(true),
        models: Some(vec![ModelId::parse("m").unwrap()]),
        cost: Some(2.0),
        ..Change::default()
    };
    edits.change(kept.id, change).await.unwrap();
    edits.remove(gone.id).await.unwrap();
    let rows = journal.rows();
    assert!(rows.iter().all(|(_, it)| !String::from_utf8_lossy(it).contains("sk-canary")), "keys are kept sealed");

    let (_edits, registry) = start(&journal, &[]);
    assert_eq!(urls(&registry), ["http://a:1"]);
    let entry = registry.get(kept.id).expect("under its id");
    assert_eq!((key(&entry), entry.spec.is_draining, entry.spec.cost), (Some("sk-canary"), true, 2.0));
    assert_eq!((entry.source, entry.spec.models[0].as_str()), (Source::Api, "m"));
}

#[tokio::test]
async fn a_removed_worker_that_a_flag_names_stays_out_until_it_is_added_again() {
    let journal = Arc::new(Memory::default());
    let (edits, registry) = start(&journal, &["http://a:1", "http://b:1"]);
    let entry = registry.fleet().all.iter().find(|it| it.spec.url == "http://a:1").cloned().unwrap();
    edits.remove(entry.id).await.unwrap();
    assert_eq!(urls(&registry), ["http://b:1"]);

    let (edits, registry) = start(&journal, &["http://a:1", "http://b:1"]);
    assert_eq!(urls(&registry), ["http://b:1"], "a restart lifts nothing");
    assert_eq!(edits.suppressed().into_iter().collect::<Vec<_>>(), ["http://a:1"]);
    let (again, _) = edits.add(spec("http://a:1")).await.unwrap();
    assert_eq!((again.id, edits.suppressed().len()), (entry.id, 0), "under the id it had");

    let (_edits, registry) = start(&journal, &["http://a:1", "http://b:1"]);
    assert_eq!(urls(&registry), ["http://a:1", "http://b:1"]);
}

/// Rows may be older than the one spelling of a URL; a key opens at the place it was sealed for, as it was spelled then.
#[tokio::test]
async fn what_was_decided_under_another_spelling_counts_for_the_same_worker() {
    let journal = Arc::new(Memory::default());
    let spelled = |id: u64, kind, url: &str, key| {
        let spec = Spec { url: url.to_owned(), ..spec("http://x") };
        (Row::Worker(WorkerId(id)), Record::new(kind, &spec, key).encode())
    };
    let sealed = journal.seal(&Secret::new("sk-canary"), &bound_to(WorkerId(2), "http://b:80")).await.unwrap();
    for (row, value) in [
        spelled(1, Kind::Suppressed, "http://A:80", Key::FromSource),
        spelled(2, Kind::Added, "http://b:80", Key::sealed(&sealed)),
        spelled(3, Kind::Added, "http://c:80000", Key::None),
    ] {
        journal.put(row, value).await.unwrap();
    }
    let (edits, registry) = start(&journal, &["http://a", "http://b"]);
    assert_eq!(urls(&registry), ["http://b"]);
    assert_eq!(key(&registry.get(WorkerId(2)).expect("under its id")), Some("sk-canary"));
    assert_eq!(edits.suppressed().into_iter().collect::<Vec<_>>(), ["http://a"]);
}

#[tokio::test]
async fn a_flag_s_worker_keeps_its_changes_and_its_source_s_key_and_goes_with_the_flag() {
    let journal = Arc::new(Memory::default());
    let (edits, registry) = start(&journal, &["http://a:1"]);
    let id = registry.fleet().all[0].id;
    edits.change(id, Change { draining: Some(true), ..Change::default() }).await.unwrap();

    let (edits, registry) = start(&journal, &["http://a:1"]);
    let entry = registry.get(id).expect("under its id");
    assert_eq!((entry.spec.is_draining, key(&entry), entry.source), (true, Some("sk-source"), Source::Config));
    edits.change(id, Change { api_key: Some(None), ..Change::default() }).await.unwrap();

    let (_edits, registry) = start(&journal, &["http://a:1"]);
    assert_eq!(key(&registry.get(id).expect("there")), None, "a key taken away stays away");
    assert_eq!(urls(&start(&journal, &[]).1), Vec::<String>::new());
}

#[tokio::test]
async fn a_changed_configuration_adds_and_takes_away_what_only_it_names() {
    let journal = Arc::new(Memory::default());
    let (edits, registry) = start(&journal, &["http://a:1", "http://b:1", "http://c:1"]);
    let id = |url| registry.fleet().all.iter().find(|it| it.spec.url == url).map(|it| it.id).unwrap();
    let (changed, removed) = (id("http://b:1"), id("http://c:1"));
    edits.change(changed, Change { cost: Some(2.0), ..Change::default() }).await.unwrap();
    edits.remove(removed).await.unwrap();
    edits.add(spec("http://added:1")).await.unwrap();

    let configure = async |urls: &[&str]| {
        edits.configure(named_by_flags(urls, "sk-rotated"));
        edits.0.turns.run(async {}).await.expect("its turn comes");
        self::urls(&registry)
    };
    assert_eq!(configure(&["http://c:1", "http://d:1"]).await, ["http://added:1", "http://d:1"]);
    assert_eq!(configure(&["http://b:1", "http://added:1"]).await, ["http://added:1", "http://b:1"]);
    let entry = registry.get(changed).expect("under the id it had");
    assert_eq!((entry.spec.cost, key(&entry)), (2.0, Some("sk-rotated")), "what was changed counts again");
    assert_eq!(configure(&[]).await, ["http://added:1"]);
}

#[tokio::test]
async fn an_edit_that_cannot_be_kept_is_not_put_in_force() {
    let journal = Arc::new(Memory::default());
    let (edits, registry) = start(&journal, &[]);
    let (entry, _) = edits.add(spec("http://a:1")).await.unwrap();
    journal.fails.store(true, Ordering::Relaxed);
    let failed = Some(EditError::NotKept(NotKept::Failed));
    assert_eq!(edits.add(spec("http://b:1")).await.err(), failed);
    assert_eq!(edits.remove(entry.id).await.err(), failed);
    let change = Change { draining: Some(true), ..Change::default() };
    assert_eq!(edits.change(entry.id, change).await.err(), failed);
    assert_eq!(urls(&registry), ["http://a:1"]);
    assert!(!registry.get(entry.id).expect("there").spec.is_draining);
    let mut long = spec("http://c:1");
    long.labels.insert("x".to_owned(), "y".repeat(VALUE_BYTES_MAX));
    assert_eq!(edits.add(long).await.err(), Some(EditError::NotKept(NotKept::TooLong)));
}

#[tokio::test]
async fn a_row_that_cannot_be_used_is_left_alone_and_takes_no_other_with_it() {
    let journal = Arc::new(Memory::default());
    let (edits, _registry) = start(&journal, &[]);
    let (moved, _) = edits.add(spec("http://a:1")).await.unwrap();
    let newer = br#"{"version":9}"#.to_vec();
    journal.rows.lock().insert(Row::Worker(WorkerId(1)), newer.clone());
    // Somebody points the row elsewhere: its key does not go along.
    let text = String::from_utf8(journal.rows.lock()[&Row::Worker(moved.id)].clone()).unwrap();
    journal.rows.lock().insert(Row::Worker(moved.id), text.replace("http://a:1", "http://evil:1").into_bytes());
    let (_edits, registry) = start(&journal, &[]);
    assert_eq!((urls(&registry), key(&registry.fleet().all[0])), (vec!["http://evil:1".to_owned()], None));
    assert_eq!(journal.rows.lock()[&Row::Worker(WorkerId(1))], newer);
}
