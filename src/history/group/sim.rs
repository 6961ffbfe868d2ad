//! History on whole clusters, on virtual time: real drivers, real openraft, disks whose power can be cut. Clients add items to one conversation at any node and read it at any other.
//!
//! What is seen must fit one order: everything that was acknowledged is there, once; every read is a beginning of what there is at the end; and one that began after another read or write had ended
//! is no shorter. For a list that only grows this is all of linearizability.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::driver;
use super::driver::Ground;
use super::metrics::Metrics;
use super::shared::Replicated;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::ids::TenantId;
use crate::base::tasks::Stop;
use crate::control::machine::LEVEL;
use crate::control::sim::seeds;
use crate::control::sim::world::World;
use crate::control::sim::world::run;
use crate::history::Handle;
use crate::history::HistoryError;
use crate::history::Id;
use crate::history::Item;
use crate::history::Owner;
use crate::history::Unavailable;
use crate::history::config::Config;
use crate::history::faults;
use crate::history::faults::Fault;
use crate::history::machine::Act;
use crate::history::machine::read;
use crate::history::machine::read::Page;
use crate::raft;
use crate::storage::GroupId;
use crate::storage::Store;
use crate::storage::memory::Disk;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

struct Own(Disk);

impl Ground for Own {
    fn found(&self) -> Option<Store> {
        Some(Store::in_memory(self.0.clone()))
    }

    fn open(&self) -> Option<Store> {
        self.found()
    }
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    /// Items whose adding was acknowledged, and when.
    added: BTreeMap<Id, Instant>,
    /// When each read began and ended, and what it read.
    reads: Vec<(Instant, Instant, Vec<Id>)>,
    refused: Vec<String>,
    unavailable: usize,
    deleted: usize,
}

struct Nodes {
    world: World,
    nodes: BTreeMap<u16, (Replicated, Handle)>,
    seen: Arc<Mutex<Seen>>,
    clients: raft::sim::Life,
    asked: u64,
    /// How soon what was deleted goes off the disks; clients then delete, too.
    purge_within: Duration,
}

fn owner() -> Owner {
    Owner::new(&TenantId::parse("t").expect("a name"), None).expect("an owner")
}

fn conversation() -> Id {
    Id::parse("conv_1").expect("an id")
}

impl Nodes {
    fn new(world: World) -> Self {
        let (nodes, seen, clients) = Default::default();
        Self { world, nodes, seen, clients, asked: 0, purge_within: Duration::ZERO }
    }

    fn start(&mut self, at: u16) {
        self.world.at(at).level_max = LEVEL;
        self.world.start(at);
        self.attach(at);
    }

    /// Starts history in the process at a place.
    fn attach(&mut self, at: u16) {
        let (disk, storage, boot) = {
            let place = self.world.at(at);
            (place.disk.clone(), place.storage, place.boot)
        };
        let running = self.world.places[&at].running.as_ref().expect("it runs");
        let (control, ground, within) = (running.handle.clone(), Arc::new(Own(disk)), self.purge_within);
        let (backend, driver) = running.life.within(|| driver::start(control, ground, within, Metrics::default()));
        let entropy = self.world.entropy.clone();
        let handle = Handle::new(Arc::new(backend.clone()), &Config::default(), None, (storage, boot), entropy);
        running.life.spawn(driver.run(Stop::new()));
        let tended = handle.clone();
        running.life.spawn(crate::history::run(tended, Stop::new()));
        self.nodes.insert(at, (backend, handle));
    }

    fn kill(&mut self, at: u16, with_power: bool) {
        self.world.kill(at, with_power);
        self.nodes.remove(&at);
    }

    async fn cluster(&mut self, nodes: u16) -> Result<(), String> {
        (1..=nodes).for_each(|at| self.world.place(at, usize::from(nodes)));
        (1..=nodes).for_each(|at| self.start(at));
        self.world.until_whole(secs(60), usize::from(nodes)).await?;
        self.begin().await?;
        self.until_whole(usize::from(nodes)).await
    }

    /// The conversation is made, and so history begins.
    async fn begin(&mut self) -> Result<(), String> {
        let act = Act::CreateConversation {
            conversation: conversation(),
            created_ms: 1,
            metadata: b"{}".to_vec(),
            items: Vec::new(),
            key: None,
            expires_ms: None,
        };
        let handle = self.nodes.values().next_back().expect("a node").1.clone();
        handle.act_within(&owner(), act, secs(30)).await.map(drop).map_err(|error| format!("the first write: {error}"))
    }

    async fn until_whole(&mut self, voters: usize) -> Result<(), String> {
        let until = Clock.now() + secs(60);
        loop {
            let statuses: Vec<_> = self.nodes.values().map(|it| it.0.status().group).collect();
            let leaders: BTreeSet<Option<StorageId>> = statuses.iter().map(|it| it.leader).collect();
            let is_whole = |it: &raft::Status| it.voters.len() == voters && !it.is_joint;
            if leaders.len() == 1 && !leaders.contains(&None) && statuses.iter().all(is_whole) {
                return Ok(());
            }
            if Clock.now() > until {
                return Err(format!("history is not whole: {statuses:?}"));
            }
            self.world.run(millis(50)).await?;
        }
    }

    /// A client adds an item, or reads, at some node.
    fn ask(&mut self) {
        let draw = self.world.entropy.next_u64();
        let Some((_, (_, handle))) = self.nodes.iter().nth(draw as usize % self.nodes.len().max(1)) else { return };
        self.asked += 1;
        let (handle, seen, number) = (handle.clone(), Arc::clone(&self.seen), self.asked);
        let is_deleting = !self.purge_within.is_zero();
        // Not a task of the node: a client that asked it may hear nothing, but is not killed with it.
        self.clients.spawn(async move {
            if number % 3 == 0 {
                let begun = Clock.now();
                match items(&handle).await {
                    Ok(items) => seen.lock().reads.push((begun, Clock.now(), items)),
                    Err(_) => seen.lock().unavailable += 1,
                }
                return;
            }
            let id = Id::parse(&format!("msg_{number}")).expect("an id");
            if is_deleting && number % 3 == 1 {
                return delete(&handle, number, &seen).await;
            }
            // Now and then one that goes in parts.
            let json = vec![b'x'; if number % 20 == 1 { 400_000 } else { 100 }];
            let act =
                Act::AddItems { conversation: conversation(), items: vec![Item { id: id.clone(), json }], key: None };
            match handle.act_within(&owner(), act, secs(6)).await {
                Ok(_) => drop(seen.lock().added.insert(id, Clock.now())),
                Err(HistoryError::Unavailable(_)) => seen.lock().unavailable += 1,
                Err(error) => seen.lock().refused.push(format!("{id}: {error}")),
            }
        });
    }

    async fn busy(&mut self, lasts: Duration) -> Result<(), String> {
        for _ in 0..lasts.as_millis() / 100 {
            self.ask();
            self.world.run(millis(100)).await?;
        }
        Ok(())
    }

    async fn trouble(&mut self, nodes: u16) -> Result<(), String> {
        let draw = self.world.entropy.next_u64();
        let at = 1 + (draw >> 8) as u16 % nodes;
        match draw % 5 {
            0 => {
                self.kill(at, draw & (1 << 40) != 0);
                self.busy(millis(200 + (draw >> 16) % 6_000)).await?;
                self.start(at);
            }
            1 => {
                self.world.split(&[at]);
                self.busy(millis(500 + (draw >> 16) % 8_000)).await?;
                self.world.heal();
            }
            2 => {
                let life = self.world.at(at).running.as_ref().map(|it| it.life.clone());
                life.iter().for_each(raft::sim::Life::pause);
                self.busy(millis(500 + (draw >> 16) % 9_500)).await?;
                life.iter().for_each(raft::sim::Life::resume);
            }
            3 => {
                (1..=nodes).for_each(|it| self.kill(it, true));
                self.world.run(millis(500)).await?;
                (1..=nodes).for_each(|it| self.start(it));
            }
            _ => {
                self.world.lose(0.1);
                self.busy(secs(3)).await?;
                self.world.lose(0.0);
            }
        }
        self.busy(millis((draw >> 24) % 3_000)).await
    }

    /// What was deleted is in no node's log, nor told to be on its disk. Answers how many were deleted.
    async fn are_purged(&mut self) -> Result<usize, String> {
        self.world.run(2 * self.purge_within).await?;
        for (at, (backend, _)) in &self.nodes {
            let has_it = raft::sim::log_has(&self.world.places[at].disk, GroupId::HISTORY, b"msg_beside");
            if backend.status().is_to_be_purged || has_it {
                return Err(format!("node {at} has what was deleted on its disk"));
            }
        }
        Ok(self.seen.lock().deleted)
    }

    /// What is read at the end, at each node, fits all that was seen.
    async fn fits(&mut self) -> Result<usize, String> {
        // Those who asked last are answered or give up.
        self.world.run(secs(15)).await?;
        let mut last: Option<Vec<Id>> = None;
        for (at, (_, handle)) in &self.nodes {
            let items = items(handle).await.map_err(|error| format!("node {at} cannot be read: {error}"))?;
            if last.replace(items.clone()).is_some_and(|it| it != items) {
                return Err(format!("node {at} reads something else"));
            }
        }
        let last = last.unwrap_or_default();
        let seen = self.seen.lock();
        if let Some(refused) = seen.refused.first() {
            return Err(format!("refused: {refused}"));
        }
        let once: BTreeSet<&Id> = last.iter().collect();
        if once.len() != last.len() {
            return Err("an item is there twice".to_owned());
        }
        if let Some(lost) = seen.added.keys().find(|it| !once.contains(it)) {
            return Err(format!("{lost} was acknowledged, and is lost"));
        }
        let places: BTreeMap<&Id, usize> = last.iter().zip(0..).collect();
        for (begun, _, items) in &seen.reads {
            if !last.starts_with(items) {
                return Err(format!("a read was no beginning of what there is: {items:?}"));
            }
            let added = seen.added.iter().filter(|it| it.1 < begun).map(|it| places[it.0] + 1);
            let read = seen.reads.iter().filter(|it| it.1 < *begun).map(|it| it.2.len());
            if added.chain(read).max().unwrap_or(0) > items.len() {
                return Err(format!("a read of {} items had not what was told before it", items.len()));
            }
        }
        Ok(seen.added.len())
    }
}

async fn items(handle: &Handle) -> Result<Vec<Id>, Unavailable> {
    let page = Page { after: None, is_back: false, most: 100_000 };
    let reading = move |rows: &dyn raft::Rows| read::conversation_items(rows, &owner(), &conversation(), &page);
    let items = handle.read(reading).await?.map_err(|_missing| Unavailable::Damaged)?;
    Ok(items.into_iter().map(|it| it.id).collect())
}

/// Makes a conversation beside the one that is watched, and deletes it.
async fn delete(handle: &Handle, number: u64, seen: &Mutex<Seen>) {
    let conversation = Id::parse(&format!("conv_beside_{number}")).expect("an id");
    let make = Act::CreateConversation {
        conversation: conversation.clone(),
        created_ms: 1,
        metadata: b"{}".to_vec(),
        items: vec![Item { id: Id::parse("msg_beside").expect("an id"), json: vec![b'y'; 1000] }],
        key: None,
        expires_ms: None,
    };
    for act in [make, Act::DeleteConversation { conversation }] {
        match handle.act_within(&owner(), act, secs(6)).await {
            Ok(_) => {}
            Err(HistoryError::Unavailable(_)) => return seen.lock().unavailable += 1,
            Err(error) => return seen.lock().refused.push(format!("beside, {number}: {error}")),
        }
    }
    seen.lock().deleted += 1;
}

fn trouble(seed: u64) -> Result<usize, String> {
    trouble_with(seed, Duration::ZERO)
}

fn trouble_with(seed: u64, purge_within: Duration) -> Result<usize, String> {
    run(seed, async |world| {
        let mut nodes = Nodes::new(world);
        nodes.purge_within = purge_within;
        let count = [3, 5][(seed % 2) as usize];
        nodes.cluster(count).await?;
        for _ in 0..6 {
            nodes.trouble(count).await?;
        }
        nodes.world.until_whole(secs(60), usize::from(count)).await?;
        nodes.until_whole(usize::from(count)).await?;
        let added = nodes.fits().await?;
        if purge_within > Duration::ZERO {
            return nodes.are_purged().await;
        }
        if added < 50 {
            return Err(format!("only {added} items were acknowledged"));
        }
        Ok(added)
    })
}

#[test]
fn whatever_happens_what_clients_see_fits_one_order() {
    let mut added = 0;
    for seed in seeds(6) {
        added += trouble(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    println!("{added} items were acknowledged");
}

#[test]
fn logs_that_are_let_go_of_for_what_was_deleted_lose_nothing() {
    for seed in seeds(4) {
        let deleted = trouble_with(seed, secs(4)).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        assert!(deleted > 20, "{deleted} were deleted");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(trouble(2), trouble(2));
}

#[test]
fn what_is_left_of_a_lost_majority_goes_on_with_all_that_its_disk_has() {
    for seed in seeds(2) {
        let ran = run(seed, async |world| {
            let mut nodes = Nodes::new(world);
            nodes.cluster(3).await?;
            nodes.busy(secs(5)).await?;
            nodes.world.run(secs(2)).await?;
            (1..=3).for_each(|at| nodes.kill(at, true));
            let store = Store::in_memory(nodes.world.at(2).disk.clone());
            let me = nodes.world.at(2).storage;
            assert!(super::recover(&store, me).map_err(|error| error.to_string())?);
            let draw = crate::base::ids::ClusterId(77);
            crate::control::recover(&store, draw).map_err(|error| error.to_string())?;
            nodes.world.clusters.clear();
            nodes.start(2);
            nodes.world.until_whole(secs(30), 1).await?;
            nodes.until_whole(1).await?;
            nodes.busy(secs(2)).await?;
            // Acknowledged before were all that two of three had; this one had them, too, a moment later.
            nodes.fits().await
        });
        let added = ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        assert!(added > 20, "{added}");
    }
}

#[test]
fn a_node_alone_keeps_history_and_is_the_first_of_a_cluster_later() {
    let ran = run(1, async |world| {
        let mut nodes = Nodes::new(world);
        nodes.world.place(1, 1);
        nodes.world.at(1).level_max = LEVEL;
        nodes.world.start_alone(1);
        nodes.attach(1);
        assert_eq!(
            items(&nodes.nodes[&1].1).await.map_err(|error| error.to_string()).map(|it| it.len()),
            Err(Unavailable::Damaged.to_string()),
            "nothing is there, and reading makes nothing"
        );
        nodes.begin().await?;
        nodes.busy(secs(3)).await?;
        nodes.world.run(secs(1)).await?;
        nodes.kill(1, true);
        nodes.world.start_alone(1);
        nodes.attach(1);
        nodes.busy(secs(2)).await?;
        nodes.world.run(secs(1)).await?;
        nodes.kill(1, true);
        for at in 2..=3 {
            nodes.world.place(at, 3);
        }
        nodes.world.at(1).expect = 3;
        (1..=3).for_each(|at| nodes.start(at));
        nodes.world.until_whole(secs(60), 3).await?;
        nodes.until_whole(3).await?;
        nodes.busy(secs(2)).await?;
        nodes.fits().await
    });
    let added = ran.unwrap_or_else(|what| panic!("{what}"));
    assert!(added > 30, "{added}");
}

/// The power of all goes, and clients read as soon as anybody runs again.
fn power_of_all(seed: u64) -> Result<usize, String> {
    run(seed, async |world| {
        let mut nodes = Nodes::new(world);
        nodes.cluster(3).await?;
        nodes.busy(secs(3)).await?;
        for _ in 0..3 {
            (1..=3).for_each(|at| nodes.kill(at, true));
            nodes.world.run(millis(100)).await?;
            (1..=3).for_each(|at| nodes.start(at));
            // Whoever leads hears that it does before all have what it has.
            nodes.world.lose(0.3);
            for _ in 0..400 {
                nodes.ask();
                nodes.world.run(millis(10)).await?;
            }
            nodes.world.lose(0.0);
            nodes.busy(secs(2)).await?;
            for _ in 0..30 {
                nodes.ask();
                nodes.world.run(millis(5)).await?;
            }
        }
        nodes.until_whole(3).await?;
        nodes.fits().await
    })
}

#[test]
fn reads_after_the_power_of_all_was_cut_have_what_was_told_before() {
    for seed in seeds(3) {
        let added = power_of_all(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        assert!(added > 50, "{added}");
    }
}

// === planted bugs: a simulation that finds none of them proves nothing ===

/// Each is found within this many seeds.
const SEEDS: std::ops::Range<u64> = 0..12;

fn find(what: &str, expected: &str) {
    find_in(trouble, what, expected);
}

fn find_in(scenario: fn(u64) -> Result<usize, String>, what: &str, expected: &str) {
    let found = SEEDS.into_iter().find_map(|seed| scenario(seed).err().map(|error| (seed, error)));
    let (seed, error) = found.unwrap_or_else(|| panic!("{what} was not found in {SEEDS:?}"));
    assert!(error.contains(expected), "{what}, seed {seed}: {error}");
}

#[test]
fn entries_that_are_not_on_disk_are_lost() {
    raft::faults::plant(Some(raft::faults::Fault::EntriesAreNotSynced));
    find("EntriesAreNotSynced", "");
    raft::faults::plant(None);
}

#[test]
fn a_leader_that_confirms_itself_reads_what_is_old() {
    raft::faults::plant(Some(raft::faults::Fault::LeadersConfirmThemselves));
    find("LeadersConfirmThemselves", "a read of");
    raft::faults::plant(None);
}

#[test]
fn a_retry_that_counts_is_seen_by_whoever_made_it() {
    faults::plant(Some(Fault::RetriesCountTwice));
    find("RetriesCountTwice", "refused");
    faults::plant(None);
}

#[test]
fn a_read_that_asks_nobody_has_not_what_was_told() {
    faults::plant(Some(Fault::ReadsAskNobody));
    find("ReadsAskNobody", "a read of");
    faults::plant(None);
}

#[test]
fn a_read_that_goes_without_a_leader_has_not_what_was_told() {
    faults::plant(Some(Fault::UnheardLeadersAreNotNeeded));
    find("UnheardLeadersAreNotNeeded", "a read of");
    faults::plant(None);
}

#[test]
fn whoever_led_before_and_leads_when_it_starts_reads_what_is_old() {
    raft::faults::plant(Some(raft::faults::Fault::OfficesOutliveTheProcess));
    find_in(power_of_all, "OfficesOutliveTheProcess", "a read of");
    raft::faults::plant(None);
}
