//! The one task that owns the core: packets, greetings, look-ups and the clock become events, effects become packets and a published view.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Config;
use super::core::Change;
use super::core::Core;
use super::core::Effect;
use super::core::Event;
use super::metrics::Metrics;
use super::view::Status;
use super::view::View;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::transport;
use crate::transport::GreetError;
use crate::transport::Received;
use crate::transport::lanes::Lane;

const TASK: Task = Task { name: "membership", stage: Stage::Belong, on_end: OnEnd::StopNode };
/// A name server that does not answer must not keep the seeds from being looked up again.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const COMMANDS_MAX: usize = 16;
/// At 20 % loss one in 125 goodbyes is missed, and that node finds out by probing.
const FAREWELLS: u32 = 3;
const FAREWELL_PAUSE: Duration = Duration::from_millis(20);

/// Reads and asks membership. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    view: Arc<ArcSwap<View>>,
    changes: watch::Receiver<u64>,
    commands: mpsc::Sender<NodeId>,
    transport: transport::Handle,
}

impl Handle {
    /// This node's connections to members, for people.
    #[must_use]
    pub fn links(&self) -> Vec<transport::LinkView> {
        self.transport.links()
    }

    /// Everybody at this moment.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Wakes whenever the view is another.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Forgets a member that left or is down. False: too much is being asked; ask again.
    #[must_use]
    pub fn forget(&self, node: NodeId) -> bool {
        self.commands.try_send(node).is_ok()
    }
}

/// Starts it over a transport. `seeds` are `host:port`, names or addresses.
pub fn start(
    seeds: Vec<String>,
    config: Config,
    transport: transport::Handle,
    packets: mpsc::Receiver<Received>,
    metrics: Metrics,
    tasks: &Tasks,
) -> Handle {
    let core = Core::new(Clock.now(), transport.me().as_ref().clone(), config, Entropy::from_os());
    let view = Arc::new(ArcSwap::from_pointee(core.view()));
    let (commands, asked) = mpsc::channel(COMMANDS_MAX);
    let (changed, changes) = watch::channel(0);
    let handle = Handle { view: Arc::clone(&view), changes, commands, transport: transport.clone() };
    metrics.members(&view.load());
    let work = JoinSet::new();
    let driver = Driver { core, seeds: seeds.into(), transport, packets, asked, view, changed, metrics, work };
    tasks.spawn(TASK, |stop| driver.run(stop));
    handle
}

struct Driver {
    core: Core,
    seeds: Arc<[String]>,
    transport: transport::Handle,
    packets: mpsc::Receiver<Received>,
    asked: mpsc::Receiver<NodeId>,
    view: Arc<ArcSwap<View>>,
    changed: watch::Sender<u64>,
    metrics: Metrics,
    /// Greetings and look-ups. BOUND: the core asks for three in a round, and none twice.
    work: JoinSet<Event>,
}

impl Driver {
    async fn run(mut self, stop: Stop) {
        loop {
            let wake = self.core.next_wake();
            // ORDER: what came is heard before time is: after a sleep, refutations wait in the queue.
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                packet = self.packets.recv() => match packet {
                    Some(Received { from, bytes }) => Event::Received(from, bytes.into()),
                    None => break,
                },
                Some(Ok(event)) = self.work.join_next(), if !self.work.is_empty() => event,
                Some(node) = self.asked.recv() => Event::Forget(node),
                () = tokio::time::sleep_until(wake) => Event::Wake,
            };
            self.step(event);
            // BOUND: however much comes, time is not forgotten for longer than a step.
            if Clock.now() >= wake {
                self.step(Event::Wake);
            }
        }
        self.leave().await;
    }

    /// Says goodbye, more than once: nobody answers it, and the transport stops next and takes with it what it has not sent.
    async fn leave(&mut self) {
        let mut effects = Vec::new();
        self.core.step(Clock.now(), Event::Leave, &mut effects);
        for _ in 0..FAREWELLS {
            effects.iter().for_each(|effect| self.perform(effect.clone()));
            Clock.sleep(FAREWELL_PAUSE).await;
        }
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.core.step(Clock.now(), event, &mut effects);
        let mut is_other = false;
        for effect in effects {
            self.metrics.observe(&effect);
            is_other |= matches!(effect, Effect::Changed(_) | Effect::Forgotten | Effect::Renewed(_));
            self.perform(effect);
        }
        if is_other {
            let view = self.core.view();
            self.metrics.members(&view);
            self.view.store(Arc::new(view));
            self.changed.send_modify(|n| *n += 1);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Greet(addr) => {
                let transport = self.transport.clone();
                self.work.spawn(async move {
                    match transport.greet(addr).await {
                        Ok(peer) => Event::Met(addr, Box::new(peer)),
                        Err(GreetError::Itself) => Event::Met(addr, Box::new(transport.me().as_ref().clone())),
                        Err(GreetError::Unreachable | GreetError::Refused) => Event::Missed(addr),
                    }
                });
            }
            Effect::LookUp => {
                let seeds = Arc::clone(&self.seeds);
                self.work.spawn(async move { Event::LookedUp(look_up(&seeds).await) });
            }
            Effect::Send(to, packet) => {
                let _ = self.transport.send(&to, Lane::Swim, packet.into()); // counted there; SWIM repeats what matters
            }
            Effect::Evict(peer) => self.transport.evict(&peer),
            Effect::Renewed(me) => {
                tracing::warn!(node = %me.node, generation = me.generation, "other nodes held this one for dead; it came back");
                self.transport.renew(*me);
            }
            Effect::Changed(change) => log(&change),
            Effect::Slept(gap) => tracing::warn!(seconds = gap.as_secs_f64(), "this node did not run for a while"),
            Effect::Forgotten | Effect::Ignored => {}
        }
    }
}

fn log(change: &Change) {
    let Change { peer, from, to } = change;
    let (node, addr) = (&peer.node, peer.addr);
    match (from, to) {
        (Some(Status::Suspect), Status::Alive) | (_, Status::Suspect) => {
            tracing::debug!(%node, %addr, status = to.as_str(), "member")
        }
        (_, Status::Down) => tracing::warn!(%node, %addr, status = to.as_str(), "member"),
        (_, Status::Alive | Status::Left) => tracing::info!(%node, %addr, status = to.as_str(), "member"),
    }
}

/// Every address of every name. A name that fails is left out; it is looked up again.
async fn look_up(seeds: &[String]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for seed in seeds {
        match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(seed.as_str())).await {
            Ok(Ok(addresses)) => found.extend(addresses),
            Ok(Err(_)) | Err(_) => tracing::debug!(%seed, "the seed's name stands for no address now"),
        }
    }
    found
}
