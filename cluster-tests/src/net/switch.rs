//! The switch: one thread through which every frame passes, is hurt as asked, and is counted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;
use tokio::time::Instant;

use super::fault::Count;
use super::fault::Fault;
use super::frame;

/// Frames under way. BOUND: at 1500 bytes 100 MB; what comes beyond is dropped and counted, as a real switch does.
const UNDER_WAY_MAX: usize = 65_536;
/// The longest that a frame waits for its turn under a rate. Longer would be a buffer that no network has.
const BACKLOG_MAX: Duration = Duration::from_millis(200);
/// How long a held-back frame waits: several frames of a probe or a handshake pass in that time.
const HELD_BACK: Duration = Duration::from_millis(20);
/// How soon a stop and an injected frame are seen when nothing else moves.
const PATIENCE: Duration = Duration::from_millis(20);
/// The network does not wait for its nodes: a switch that did would delay all of them at once. Nodes stay like those who ask them: put before them,
/// they starved the clients on a busy computer.
const SWITCH_FIRST: i32 = -10;
/// Frames taken from one machine before the others get their turn.
const TURN: usize = 64;
const FRAME_BYTES_MAX: usize = 2048;
/// Frames that a recording keeps. BOUND: later ones pass unrecorded.
const RECORDED_MAX: usize = 4096;

/// A machine and a frame for it.
pub type Sent = (usize, Vec<u8>);

/// Hurts what passes, at run time, each direction of each pair by itself. Machines are numbered; the observer comes last.
#[derive(Debug)]
pub struct Switch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    size: usize,
    links: Mutex<Vec<Link>>,
    recorded: Mutex<Option<Vec<Sent>>>,
    injected: Mutex<Vec<Sent>>,
    is_stopped: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    fault: Fault,
    count: Count,
    /// When what was sent under a rate is through.
    free_at: Option<Instant>,
}

impl Switch {
    pub(super) fn start(taps: Vec<File>, seed: u64) -> std::io::Result<Self> {
        let size = taps.len();
        let shared = Arc::new(Shared {
            size,
            links: Mutex::new(vec![Link::default(); size * size]),
            recorded: Mutex::default(),
            injected: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        });
        let traffic = Traffic {
            taps,
            shared: Arc::clone(&shared),
            entropy: Entropy::seeded(seed),
            under_way: BinaryHeap::new(),
            frames: 0,
        };
        let thread = std::thread::Builder::new().name("switch".to_owned()).spawn(|| {
            let _ = rustix::process::setpriority_process(None, SWITCH_FIRST); // without the right to, it waits like everybody
            traffic.run();
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on this happens to what `from` sends to `to`.
    pub fn set(&self, from: usize, to: usize, fault: Fault) {
        self.shared.links.lock()[from * self.shared.size + to].fault = fault;
    }

    /// The same in both directions between each of `these` and each of `those`; a pair of the same machine is none.
    pub fn between(&self, these: &[usize], those: &[usize], fault: Fault) {
        for (a, b) in these.iter().flat_map(|a| those.iter().map(move |b| (*a, *b))) {
            self.set(a, b, fault);
            self.set(b, a, fault);
        }
    }

    /// Everything is well again.
    pub fn heal(&self) {
        self.shared.links.lock().iter_mut().for_each(|it| it.fault = Fault::default());
    }

    /// What happened to what `from` sent to `to`.
    #[must_use]
    pub fn count(&self, from: usize, to: usize) -> Count {
        self.shared.links.lock()[from * self.shared.size + to].count
    }

    /// What happened between machines; what concerns the observer is left out.
    #[must_use]
    pub fn total(&self) -> Count {
        let machines = self.shared.size - 1;
        (0..machines).flat_map(|a| (0..machines).map(move |b| (a, b))).map(|(a, b)| self.count(a, b)).sum()
    }

    /// Keeps copies of what passes between machines from now on.
    pub fn record(&self) {
        *self.shared.recorded.lock() = Some(Vec::new());
    }

    /// Ends the recording: frames in the order in which they were sent, each with the machine it was sent to.
    #[must_use]
    pub fn recorded(&self) -> Vec<Sent> {
        self.shared.recorded.lock().take().unwrap_or_default()
    }

    /// Puts a frame on the wire of one machine, as somebody on the same network could.
    pub fn inject(&self, to: usize, frame: Vec<u8>) {
        self.shared.injected.lock().push((to, frame));
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it panics only where a TAP device broke, and then the run has failed already
        }
    }
}

/// A frame that arrives later. Ordered by when, then as sent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due: Instant,
    number: u64,
    to: usize,
    frame: Vec<u8>,
}

struct Traffic {
    taps: Vec<File>,
    shared: Arc<Shared>,
    entropy: Entropy,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    frames: u64,
}

impl Traffic {
    fn run(mut self) {
        while !self.shared.is_stopped.load(Relaxed) {
            self.deliver_due();
            let readable = self.wait();
            for from in readable {
                for _ in 0..TURN {
                    let mut buffer = [0; FRAME_BYTES_MAX];
                    let Ok(len) = (&self.taps[from]).read(&mut buffer) else { break };
                    self.take(from, &buffer[..len]);
                }
            }
        }
    }

    fn deliver_due(&mut self) {
        let injected = std::mem::take(&mut *self.shared.injected.lock());
        for (to, frame) in injected {
            self.deliver(to, &frame);
        }
        let now = Clock.now();
        while self.under_way.peek().is_some_and(|it| it.0.due <= now) {
            if let Some(Reverse(UnderWay { to, frame, .. })) = self.under_way.pop() {
                self.deliver(to, &frame);
            }
        }
    }

    /// Machines with something to say, once there is one or something is due.
    fn wait(&self) -> Vec<usize> {
        let due = self.under_way.peek().map(|it| it.0.due.saturating_duration_since(Clock.now()));
        let patience = due.unwrap_or(PATIENCE).min(PATIENCE);
        let timeout = Timespec::try_from(patience).expect("a few milliseconds");
        let mut polled: Vec<_> = self.taps.iter().map(|it| PollFd::new(it, PollFlags::IN)).collect();
        if rustix::event::poll(&mut polled, Some(&timeout)).is_err() {
            return Vec::new(); // interrupted: the next turn asks again
        }
        let readable = polled.iter().enumerate().filter(|it| it.1.revents().contains(PollFlags::IN));
        readable.map(|it| it.0).collect()
    }

    fn take(&mut self, from: usize, frame: &[u8]) {
        let Some(to) = self.receiver(from, frame) else { return };
        let size = self.shared.size;
        if from != size - 1
            && to != size - 1
            && let Some(recorded) = &mut *self.shared.recorded.lock()
            && recorded.len() < RECORDED_MAX
        {
            recorded.push((to, frame.to_vec()));
        }
        let now = Clock.now();
        let dues = {
            let mut links = self.shared.links.lock();
            let link = &mut links[from * size + to];
            let is_full = self.under_way.len() >= UNDER_WAY_MAX;
            link.pass(now, frame.len(), is_full, &self.entropy)
        };
        for due in dues.into_iter().flatten() {
            if due <= now {
                self.deliver(to, frame);
            } else {
                self.frames += 1;
                self.under_way.push(Reverse(UnderWay { due, number: self.frames, to, frame: frame.to_vec() }));
            }
        }
    }

    /// For whom it is. Broadcasts, and what is not IPv4, are for nobody.
    fn receiver(&self, from: usize, frame: &[u8]) -> Option<usize> {
        let to = usize::from(*frame.get(5)?);
        let is_ours = frame::is_ipv4(frame) && frame[..5] == super::lab::HARDWARE[..5];
        (is_ours && to < self.shared.size && to != from).then_some(to)
    }

    fn deliver(&self, to: usize, frame: &[u8]) {
        let _ = (&self.taps[to]).write(frame); // a full queue drops, as a card does
    }
}

impl Link {
    /// When one frame arrives: never, once, or twice.
    fn pass(&mut self, now: Instant, len: usize, is_full: bool, entropy: &Entropy) -> [Option<Instant>; 2] {
        let Fault { is_cut, loss, delay, jitter, duplication, reordering, bytes_per_second } = self.fault;
        let count = &mut self.count;
        let happens = |share: f64| share > 0.0 && entropy.unit() < share;
        count.frames += 1;
        count.bytes += len as u64;
        if is_cut {
            count.cut += 1;
            return [None; 2];
        }
        if happens(loss) {
            count.lost += 1;
            return [None; 2];
        }
        let mut due = now;
        if let Some(rate) = bytes_per_second {
            due = self.free_at.map_or(now, |it| it.max(now)) + Duration::from_secs_f64(len as f64 / f64::from(rate));
        }
        if is_full || due > now + BACKLOG_MAX {
            count.overrun += 1;
            return [None; 2];
        }
        self.free_at = bytes_per_second.map(|_| due);
        due += delay + jitter.mul_f64(entropy.unit());
        if happens(reordering) {
            count.reordered += 1;
            due += HELD_BACK;
        }
        count.delayed += u64::from(due > now);
        let again = happens(duplication).then_some(due);
        count.doubled += u64::from(again.is_some());
        [Some(due), again]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(fault: Fault, frames: u64) -> (Count, Vec<Duration>) {
        let (start, entropy) = (Clock.now(), Entropy::seeded(7));
        let mut link = Link { fault, ..Link::default() };
        let each = (0..frames).flat_map(|it| link.pass(start + Duration::from_millis(it), 1000, false, &entropy));
        let arrived = each.flatten().map(|it| it - start).collect();
        (link.count, arrived)
    }

    fn check(fault: Fault, expect: impl Fn(Count, &[Duration]) -> bool) {
        let (count, arrived) = passed(fault, 10_000);
        assert!(count.frames == 10_000 && expect(count, &arrived), "{fault:?}: {count:?}, {} arrived", arrived.len());
    }

    #[test]
    fn every_fault_does_what_it_says_and_is_counted() {
        let is_sorted = |it: &[Duration]| it.is_sorted();
        check(Fault::default(), |it, arrived| arrived.len() == 10_000 && it.delayed == 0 && is_sorted(arrived));
        check(Fault::cutting(), |it, arrived| it.cut == 10_000 && arrived.is_empty());
        check(Fault::losing(0.2), |it, arrived| {
            (1800..2200).contains(&it.lost) && arrived.len() as u64 + it.lost == 10_000
        });
        let late = Duration::from_millis(50);
        check(Fault { delay: late, ..Fault::default() }, |it, arrived| it.delayed == 10_000 && arrived[0] == late);
        check(Fault { jitter: late, ..Fault::default() }, |_, arrived| !is_sorted(arrived));
        let doubled = |it: Count, arrived: &[Duration]| (2700..3300).contains(&it.doubled) && arrived.len() > 12_000;
        check(Fault { duplication: 0.3, ..Fault::default() }, doubled);
        let held = |it: Count, arrived: &[Duration]| (900..1100).contains(&it.reordered) && !is_sorted(arrived);
        check(Fault { reordering: 0.1, ..Fault::default() }, held);
        // A thousand frames of 1000 bytes come in a second, and half of that passes.
        let slow = |it: Count, arrived: &[Duration]| {
            (4700..5300).contains(&it.overrun) && arrived.last().is_some_and(|it| *it <= Duration::from_millis(10_200))
        };
        check(Fault { bytes_per_second: Some(500_000), ..Fault::default() }, slow);
    }

    #[test]
    fn the_same_seed_hurts_the_same_frames() {
        let fault = Fault { loss: 0.1, jitter: Duration::from_millis(9), duplication: 0.1, ..Fault::default() };
        assert_eq!(passed(fault, 1000), passed(fault, 1000));
    }
}
