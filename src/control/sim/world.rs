//! A cluster of real drivers, real openraft and disks whose power can be cut, on virtual time and a network in memory. One seed makes one run.
//!
//! A *place* is an address with a disk in it; a process at a place is one life of it. The network loses, delays and cuts; membership is perfect but for what a
//! test hides. Watched all the time: no data directory takes a vote back, and no two clusters are believed in. At the end: everything that was acknowledged is there.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::alone::Own;
use super::commands;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::base::tasks::Stop;
use crate::control;
use crate::control::Config;
use crate::control::Handle;
use crate::control::Peers;
use crate::control::Standing;
use crate::control::core::lives::Life;
use crate::control::core::voters::Patience;
use crate::control::machine::Outcome;
use crate::control::metrics::Metrics;
use crate::limits::LimitId;
use crate::limits::mint::SHARES_LEN_MAX;
use crate::raft;
use crate::raft::Asking;
use crate::raft::sim::Traffic;
use crate::raft::sim::Vote;
use crate::storage::GroupId;
use crate::storage::Store;
use crate::storage::keys::Key;
use crate::storage::memory::Disk;
use crate::transport::Peer;
use crate::transport::Reply;
use crate::transport::Request;
use crate::transport::RequestError;
use crate::transport::lanes::Lane;

/// Longest fsync.
const FSYNC_MAX: Duration = Duration::from_millis(12);
const INBOX_MAX: usize = 1024;

/// What the network does.
pub(crate) struct Net {
    entropy: Entropy,
    processes: BTreeMap<u64, Process>,
    /// Ways that are cut, both directions.
    cut: BTreeSet<(u16, u16)>,
    /// Places that said goodbye.
    left: BTreeSet<u16>,
    loss: f64,
    /// The last vote that each data directory granted in each group, and by which process: a copy of it runs on another disk.
    votes: BTreeMap<(GroupId, StorageId), (u16, Vote)>,
    broken: Option<String>,
    traffic: Traffic,
}

struct Process {
    place: u16,
    peer: Arc<Peer>,
    inbox: mpsc::Sender<Request>,
    bulk: mpsc::Sender<Request>,
    /// Its release knows no use for the bulk lane.
    is_old: bool,
    is_dead: bool,
}

type Shared = Arc<Mutex<Net>>;

/// One process's view of the others.
struct Way {
    net: Shared,
    id: u64,
    place: u16,
    me: Arc<Peer>,
}

impl Net {
    fn is_open(&self, a: u16, b: u16) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// The processes that this one may speak to.
    fn others(&self, id: u64, place: u16) -> impl Iterator<Item = (&u64, &Process)> {
        self.processes.iter().filter(move |it| *it.0 != id && !it.1.is_dead && self.is_open(place, it.1.place))
    }

    /// Looks at a vote that was granted.
    fn watch(&mut self, voter: StorageId, place: u16, asked: &[u8], answered: &[u8]) {
        let Some((group, vote)) = raft::sim::granted(asked, answered) else { return };
        let before = self.votes.insert((group, voter), (place, vote)).map(|it| it.1);
        if before.is_some_and(|before| raft::sim::is_taken_back(&before, &vote)) {
            self.broken.get_or_insert(format!("{voter} voted for {vote} after {}", before.unwrap_or_default()));
        }
    }
}

impl raft::Mesh for Way {
    fn ask(&self, to: StorageId, lane: Lane, bytes: Vec<u8>, limit: Duration) -> Asking<'_> {
        Box::pin(async move {
            let ask = async {
                let (delay, is_lost) = self.weather();
                Clock.sleep(delay).await;
                if is_lost {
                    return std::future::pending().await;
                }
                let (inbox, target) = self.find(to, lane).ok_or(RequestError::NoLink)?;
                let inbox = inbox.ok_or(RequestError::Unanswered)?;
                self.net.lock().traffic.count(lane, &bytes);
                let (answer, answered) = oneshot::channel();
                let request =
                    Request { from: Arc::clone(&self.me), bytes: bytes.clone().into(), answer: Reply::to(answer) };
                inbox.try_send(request).map_err(|_full| RequestError::Lost)?;
                // Whoever ends without an answer is a connection that breaks.
                let answer = answered.await.map_err(|_dropped| RequestError::Lost)?;
                self.net.lock().watch(to, target, &bytes, &answer);
                let (delay, is_lost) = self.weather();
                Clock.sleep(delay).await;
                let is_open = self.net.lock().is_open(self.place, target);
                if is_lost || !is_open {
                    return std::future::pending().await;
                }
                Ok(answer.to_vec())
            };
            timeout(limit, ask).await.unwrap_or(Err(RequestError::Timeout))
        })
    }
}

impl Way {
    fn weather(&self) -> (Duration, bool) {
        let net = self.net.lock();
        let delay = Duration::from_micros(200 + net.entropy.next_u64() % 5_000);
        (delay, net.entropy.unit() < net.loss)
    }

    /// A process with that data directory, and its inbox, if it has one for the lane. Copies are found by turns.
    fn find(&self, to: StorageId, lane: Lane) -> Option<(Option<mpsc::Sender<Request>>, u16)> {
        let net = self.net.lock();
        net.processes.get(&self.id).filter(|it| !it.is_dead)?;
        let found: Vec<&Process> =
            net.others(self.id, self.place).map(|it| it.1).filter(|it| it.peer.storage == to).collect();
        let chosen = found.get(net.entropy.below(found.len()))?;
        let inbox = match lane {
            Lane::Bulk => Some(&chosen.bulk).filter(|_| !chosen.is_old),
            _ => Some(&chosen.inbox),
        };
        Some((inbox.cloned(), chosen.place))
    }
}

impl Peers for Way {
    fn active(&self) -> BTreeSet<StorageId> {
        self.net
            .lock()
            .others(self.id, self.place)
            .map(|it| it.1.peer.storage)
            .filter(|it| *it != self.me.storage)
            .collect()
    }

    fn left(&self) -> BTreeSet<StorageId> {
        let net = self.net.lock();
        net.processes.values().filter(|it| net.left.contains(&it.place)).map(|it| it.peer.storage).collect()
    }
}

/// What is at a place.
pub(crate) struct Place {
    pub(crate) storage: StorageId,
    pub(crate) boot: u64,
    pub(crate) expect: usize,
    pub(crate) level_max: u32,
    /// Whether the processes here are of a release that gets snapshots with everything else.
    pub(crate) is_old: bool,
    pub(crate) zone: &'static str,
    pub(crate) disk: Disk,
    /// The process, while there is one.
    pub(crate) running: Option<Running>,
}

pub(crate) struct Running {
    id: u64,
    pub(crate) life: raft::sim::Life,
    pub(crate) handle: Handle,
    pub(crate) metrics: Metrics,
    stop: Stop,
    /// Whether it has stopped.
    has_stopped: Arc<AtomicBool>,
}

impl Running {
    fn begin<F: Future<Output = ()> + Send + 'static>(
        id: u64,
        handle: Handle,
        metrics: Metrics,
        run: impl FnOnce(Stop) -> F,
    ) -> Self {
        let (life, has_stopped, stop) = (raft::sim::Life::default(), Arc::new(AtomicBool::new(false)), Stop::new());
        let (ended, driver) = (Arc::clone(&has_stopped), run(stop.clone()));
        life.spawn(async move {
            driver.await;
            ended.store(true, Ordering::SeqCst);
        });
        Self { id, life, handle, metrics, stop, has_stopped }
    }
}

/// The whole.
pub(crate) struct World {
    pub(crate) entropy: Entropy,
    pub(crate) net: Shared,
    pub(crate) places: BTreeMap<u16, Place>,
    pub(crate) patience: Patience,
    /// Limits whose shares were acknowledged.
    acked: Arc<Mutex<BTreeSet<LimitId>>>,
    clients: raft::sim::Life,
    proposed: u32,
    ids: u64,
    /// Clusters that anybody ever belonged to.
    pub(crate) clusters: BTreeSet<ClusterId>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let entropy = Entropy::seeded(seed);
        raft::sim::seed(entropy.clone());
        let (cut, left, votes, processes) = Default::default();
        let net = Net {
            entropy: entropy.clone(),
            processes,
            cut,
            left,
            loss: 0.0,
            votes,
            broken: None,
            traffic: Traffic::default(),
        };
        let net = Arc::new(Mutex::new(net));
        let (patience, acked, clients) = Default::default();
        Self {
            entropy,
            net,
            places: BTreeMap::new(),
            patience,
            acked,
            clients,
            proposed: 0,
            ids: 0,
            clusters: BTreeSet::new(),
        }
    }

    /// Puts an empty disk at a place.
    pub(crate) fn place(&mut self, at: u16, expect: usize) {
        let storage = StorageId(u128::from(self.entropy.next_u64()) << 16 | u128::from(at));
        let disk = Disk::new(self.entropy.clone(), FSYNC_MAX);
        let place = Place { storage, boot: 0, expect, level_max: 1, is_old: false, zone: "", disk, running: None };
        self.places.insert(at, place);
    }

    pub(crate) fn at(&mut self, place: u16) -> &mut Place {
        self.places.get_mut(&place).expect("a place")
    }

    /// Starts a process on what is at a place.
    pub(crate) fn start(&mut self, at: u16) {
        let config = self.config(at);
        self.ids += 1;
        let (id, net) = (self.ids, Arc::clone(&self.net));
        let place = self.at(at);
        let mut peer = crate::transport::tests::peer(at);
        (peer.storage, peer.boot) = (place.storage, place.boot);
        let peer = Arc::new(peer);
        let (inbox, from_net) = mpsc::channel(INBOX_MAX);
        let (bulk, pieces) = mpsc::channel(INBOX_MAX);
        let peers = Arc::new(Way { net: Arc::clone(&net), id, place: at, me: Arc::clone(&peer) });
        let metrics = Metrics::default();
        let store = Store::in_memory(place.disk.clone());
        let parts = control::Parts { config, store, peers, inbox: from_net, bulk: pieces, metrics: metrics.clone() };
        let (handle, driver) = control::start(parts).expect("the disk can be read");
        place.running = Some(Running::begin(id, handle, metrics, |stop| driver.run(stop)));
        let process = Process { place: at, peer, inbox, bulk, is_old: place.is_old, is_dead: false };
        net.lock().processes.insert(id, process);
        net.lock().left.remove(&at);
    }

    /// What the next process at a place is told.
    pub(crate) fn config(&mut self, at: u16) -> Config {
        let draw = ClusterId(u128::from(self.entropy.next_u64()));
        let nonce = self.entropy.next_u64();
        let patience = self.patience;
        let place = self.at(at);
        place.boot += 1;
        Config {
            me: place.storage,
            life: Life { boot: place.boot, nonce },
            node: format!("n-{at}"),
            zone: place.zone.to_owned(),
            level_max: place.level_max,
            expect: place.expect,
            draw,
            timing: raft::Timing::default(),
            patience,
        }
    }

    /// Starts a process without a mesh on what is at a place.
    pub(crate) fn start_alone(&mut self, at: u16) {
        let config = self.config(at);
        self.ids += 1;
        let (id, place) = (self.ids, self.at(at));
        let (handle, driver) = control::alone(Arc::new(Own(config, place.disk.clone())));
        place.running = Some(Running::begin(id, handle, Metrics::default(), |stop| driver.run(stop)));
    }

    /// The process at a place is told to end in good order.
    pub(crate) fn stop(&self, at: u16) {
        self.places[&at].running.iter().for_each(|it| it.stop.cancel());
    }

    /// Whether the process at a place has stopped, by itself or as it was told.
    pub(crate) fn has_stopped(&self, at: u16) -> bool {
        self.places[&at].running.as_ref().is_some_and(|it| it.has_stopped.load(Ordering::SeqCst))
    }

    /// What followers were sent so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.net.lock().traffic
    }

    /// The process ends at once. With the power, what was not fsynced may be lost.
    pub(crate) fn kill(&mut self, at: u16, with_power: bool) {
        let place = self.at(at);
        let Some(running) = place.running.take() else { return };
        place.disk = if with_power { place.disk.cut() } else { place.disk.kill() };
        running.life.kill();
        let (storage, store) = (place.storage, Store::in_memory(place.disk.clone()));
        for group in [GroupId::CONTROL, GroupId::HISTORY] {
            let kept: Option<Vote> = store.read(Key::Vote(group)).expect("it can be read");
            let told = self.net.lock().votes.get(&(group, storage)).filter(|it| it.0 == at).map(|it| it.1);
            if told.is_some_and(|told| kept.is_none_or(|kept| raft::sim::is_taken_back(&told, &kept))) {
                let what = format!("{storage} told a vote that its disk does not have: {told:?}, {kept:?}");
                self.net.lock().broken.get_or_insert(what);
            }
        }
        if let Some(process) = self.net.lock().processes.get_mut(&running.id) {
            process.is_dead = true;
        }
    }

    /// A new data directory takes the old one's place.
    pub(crate) fn wipe(&mut self, at: u16) {
        self.kill(at, true);
        let (expect, zone) = (self.at(at).expect, self.at(at).zone);
        self.place(at, expect);
        self.at(at).zone = zone;
    }

    /// A byte for byte copy of what is at one place now, at another.
    pub(crate) fn copy(&mut self, from: u16, to: u16) {
        let Place { storage, boot, expect, level_max, is_old, zone, disk, .. } = self.at(from);
        let copied = Place {
            storage: *storage,
            boot: *boot,
            expect: *expect,
            level_max: *level_max,
            is_old: *is_old,
            zone,
            disk: disk.copy(),
            running: None,
        };
        self.places.insert(to, copied);
    }

    /// Cuts every way between these and all others.
    pub(crate) fn split(&mut self, side: &[u16]) {
        let places: Vec<u16> = self.places.keys().copied().collect();
        let mut net = self.net.lock();
        for a in side {
            for b in places.iter().filter(|it| !side.contains(it)) {
                net.cut.insert((*a.min(b), *a.max(b)));
            }
        }
    }

    pub(crate) fn cut(&mut self, a: u16, b: u16) {
        self.net.lock().cut.insert((a.min(b), a.max(b)));
    }

    pub(crate) fn heal(&mut self) {
        self.net.lock().cut.clear();
    }

    pub(crate) fn lose(&mut self, share: f64) {
        self.net.lock().loss = share;
    }

    pub(crate) fn handle(&self, at: u16) -> Option<Handle> {
        self.places[&at].running.as_ref().map(|it| it.handle.clone())
    }

    pub(crate) fn standing(&self, at: u16) -> Standing {
        self.handle(at).expect("it runs").status().standing
    }

    /// Who leads, as most believe who run.
    pub(crate) fn leader(&self) -> Option<u16> {
        let mut believed: BTreeMap<StorageId, usize> = BTreeMap::new();
        for status in self.statuses().values() {
            status.group.leader.into_iter().for_each(|it| *believed.entry(it).or_default() += 1);
        }
        let leader = believed.into_iter().max_by_key(|it| it.1)?.0;
        self.places.iter().find(|it| it.1.storage == leader && it.1.running.is_some()).map(|it| *it.0)
    }

    pub(crate) fn statuses(&self) -> BTreeMap<u16, control::Status> {
        let running = self.places.iter().filter_map(|it| Some((*it.0, it.1.running.as_ref()?)));
        running.map(|(at, it)| (at, it.handle.status())).collect()
    }

    /// The voters, as the leader has them: where they run, or where they are known to lie.
    pub(crate) fn voters(&self) -> BTreeSet<u16> {
        let Some(leader) = self.leader() else { return BTreeSet::new() };
        let voters = self.statuses()[&leader].group.voters.clone();
        let place = |storage: &StorageId| {
            let has_it = || self.places.iter().filter(|it| it.1.storage == *storage);
            has_it().find(|it| it.1.running.is_some()).or(has_it().next()).map(|it| *it.0)
        };
        voters.iter().filter_map(place).collect()
    }

    /// A client gives out the shares of a limit of its own, at this node.
    pub(crate) fn write(&mut self, at: u16) {
        self.write_over(at, 1);
    }

    /// The same over as many nodes as may be.
    pub(crate) fn write_wide(&mut self, at: u16) {
        self.write_over(at, SHARES_LEN_MAX as u64);
    }

    fn write_over(&mut self, at: u16, nodes: u64) {
        let Some(handle) = self.handle(at) else { return };
        self.proposed += 1;
        let (limit, acked) = (LimitId(self.proposed.into()), Arc::clone(&self.acked));
        // Not a task of the node: a client that asked it may hear nothing, but is not killed with it.
        self.clients.spawn(async move {
            if let Ok(Outcome::Changed) = handle.propose(&commands::mint(limit, nodes), Duration::from_secs(5)).await {
                acked.lock().insert(limit);
            }
        });
    }

    /// A client asks this node for what is large, and refused.
    pub(crate) fn write_large(&self, at: u16) {
        let Some(handle) = self.handle(at) else { return };
        self.clients.spawn(async move {
            let _ = handle.propose(&commands::large(), Duration::from_secs(5)).await; // is refused, or is not heard
        });
    }

    /// The last vote that each place told.
    pub(crate) fn votes(&self) -> BTreeMap<u16, Vote> {
        let net = self.net.lock();
        let running = self.places.iter().filter(|it| it.1.running.is_some());
        running.filter_map(|it| Some((*it.0, net.votes.get(&(GroupId::CONTROL, it.1.storage))?.1))).collect()
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, lasts: Duration) {
        Clock.sleep(lasts).await;
    }

    /// Lets time pass, and looks.
    pub(crate) async fn run(&mut self, lasts: Duration) -> Result<(), String> {
        let until = Clock.now() + lasts;
        while Clock.now() < until {
            Clock.sleep(Duration::from_millis(50)).await;
            self.check()?;
        }
        Ok(())
    }

    /// Lets time pass until something is so.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<Duration, String> {
        let (begun, until) = (Clock.now(), Clock.now() + limit);
        while !is_so(self) {
            if Clock.now() > until {
                let standings: Vec<String> = self.statuses().iter().map(|it| format!("{}: {:?}", it.0, it.1)).collect();
                return Err(format!("not within {limit:?}: {what}\n{}", standings.join("\n")));
            }
            self.run(Duration::from_millis(50)).await?;
        }
        Ok(Clock.now() - begun)
    }

    /// All who run are in one group with that many voters.
    pub(crate) async fn until_whole(&mut self, limit: Duration, voters: usize) -> Result<Duration, String> {
        let is_so = |it: &Self| {
            let statuses = it.statuses();
            let leaders: BTreeSet<_> = statuses.values().map(|it| it.group.leader).collect();
            let is_known =
                |status: &control::Status| matches!(status.standing, Standing::Member(_)) && status.cluster.is_some();
            leaders.len() == 1
                && !leaders.contains(&None)
                && statuses.values().all(is_known)
                // Half made, a change of voters may need one that is cut off next.
                && statuses.values().all(|it| !it.group.is_joint)
                && it.voters().len() == voters
        };
        self.until(limit, &format!("all in one group of {voters} voters"), is_so).await
    }

    fn check(&mut self) -> Result<(), String> {
        for status in self.statuses().values() {
            self.clusters.extend(status.cluster);
        }
        if self.clusters.len() > 1 {
            return Err(format!("more than one cluster: {:?}", self.clusters));
        }
        self.net.lock().broken.take().map_or(Ok(()), Err)
    }

    /// Everything that was acknowledged is at every member.
    pub(crate) async fn nothing_is_lost(&mut self) -> Result<usize, String> {
        let acked = self.acked.lock().clone();
        let has_all = |it: &Self| {
            let missing =
                |handle: Handle| handle.read(|state| acked.iter().filter(|it| state.mint(**it).is_none()).count());
            it.places.keys().filter_map(|at| it.handle(*at)).all(|it| missing(it) == Some(0))
        };
        self.until(
            Duration::from_secs(30),
            &format!("all {} acknowledged commands at every member", acked.len()),
            has_all,
        )
        .await?;
        Ok(acked.len())
    }
}

/// Runs a scenario on virtual time.
pub(crate) fn run<F: Future<Output = Result<T, String>>, T>(
    seed: u64,
    scenario: impl FnOnce(World) -> F,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|error| error.to_string())?.block_on(async { scenario(World::new(seed)).await })
}

impl World {
    /// Says something to the process at a place, as if it came from a data directory.
    pub(crate) async fn tell(&self, at: u16, from: StorageId, lane: Lane, bytes: Vec<u8>) -> Option<bytes::Bytes> {
        let id = self.places[&at].running.as_ref().expect("it runs").id;
        let inbox = match (lane, &self.net.lock().processes[&id]) {
            (Lane::Bulk, process) => process.bulk.clone(),
            (_, process) => process.inbox.clone(),
        };
        let mut peer = crate::transport::tests::peer(77);
        peer.storage = from;
        let (answer, answered) = oneshot::channel();
        let request = Request { from: Arc::new(peer), bytes: bytes.into(), answer: Reply::to(answer) };
        inbox.try_send(request).expect("there is room");
        answered.await.ok()
    }
}
