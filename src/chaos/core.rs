//! The faults in force: which there are, until when, and what each question comes to. It is told the time and draws from what it is given.

use std::time::Duration;

use super::fault::ALL;
use super::fault::Direction;
use super::fault::Fault;
use super::fault::Groups;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;

/// Longest that a fault lasts: one that was forgotten ends while its lab is still watched.
pub const LASTS_MAX: Duration = Duration::from_secs(600);
/// Faults at a time. Beyond it a new one is refused: each message looks at all of them.
pub const ACTIVE_MAX: usize = 64;
/// What is sent again is lost again at most so often: a stream whose messages are all lost is late by this many repeats, not for ever.
const REPEATS_MAX: u32 = 8;

/// One fault in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    /// Its number at this node.
    pub id: u64,
    /// What is wrong.
    pub fault: Fault,
    /// Since when.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
}

/// Why one was not begun. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has no end, or one too far.
    #[error("a fault lasts from 1 ms to {} s", LASTS_MAX.as_secs())]
    Lasts,
    /// There are enough.
    #[error("{ACTIVE_MAX} faults are in force: lift one, or wait")]
    TooMany,
    /// It makes no sense.
    #[error(transparent)]
    Unfit(#[from] super::fault::Unfit),
}

/// Whether a message comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heading {
    /// From the other node.
    In,
    /// To the other node.
    Out,
}

/// What carries a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A packet of its own: lost is lost.
    Datagram,
    /// A stream: what is lost is sent again after this long.
    Stream(Duration),
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It does not, and nobody is told.
    Cut,
    /// It passes after this long.
    Late(Duration),
}

/// What becomes of a request to a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// It waits for so long first.
    pub delay: Option<Duration>,
    /// The connection is refused.
    pub is_refused: bool,
    /// It is answered so, without the worker.
    pub status: Option<u16>,
    /// The answer's body breaks off after so many bytes.
    pub reset_after: Option<u64>,
}

/// How the disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Writes and fsyncs fail.
    pub fails: bool,
    /// There is no room.
    pub is_full: bool,
    /// Fsyncs take so much longer.
    pub delay: Duration,
}

/// A raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// See [`Groups::Control`].
    Control,
    /// See [`Groups::History`].
    History,
}

/// See the file's header.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    last: u64,
    /// In the order in which they began. BOUND: [`ACTIVE_MAX`].
    active: Vec<Active>,
}

impl Faults {
    /// Begins one; its number.
    pub fn begin(&mut self, now: Instant, fault: Fault, lasts: Duration) -> Result<Active, Refusal> {
        fault.check()?;
        if lasts < Duration::from_millis(1) || lasts > LASTS_MAX {
            return Err(Refusal::Lasts);
        }
        if self.active.len() >= ACTIVE_MAX {
            return Err(Refusal::TooMany);
        }
        self.last += 1;
        let active = Active { id: self.last, fault, from: now, until: now + lasts };
        self.active.push(active.clone());
        Ok(active)
    }

    /// Takes those out that are to end; returns them.
    pub fn lift(&mut self, is_over: impl Fn(&Active) -> bool) -> Vec<Active> {
        self.active.extract_if(.., |it| is_over(it)).collect()
    }

    /// When the next one ends by itself.
    #[must_use]
    pub fn next_end(&self) -> Option<Instant> {
        self.active.iter().map(|it| it.until).min()
    }

    /// All that have not been taken out.
    #[must_use]
    pub fn all(&self) -> &[Active] {
        &self.active
    }

    /// Those in force now: one that is over counts no more, whether it was taken out yet or not.
    pub fn active(&self, now: Instant) -> impl Iterator<Item = &Fault> {
        self.active.iter().filter(move |it| now < it.until).map(|it| &it.fault)
    }

    /// What becomes of a message between this node and another. `is_gossip`: it is of membership or tables.
    #[must_use]
    pub fn message(
        &self,
        now: Instant,
        other: &str,
        heading: Heading,
        is_gossip: bool,
        carrier: Carrier,
        entropy: &Entropy,
    ) -> Verdict {
        let mut late = Duration::ZERO;
        for fault in self.active(now) {
            if !fault.is_between(other, heading) {
                continue;
            }
            match (fault, carrier) {
                (Fault::Partition { .. }, _) => return Verdict::Cut,
                (Fault::Gossip {}, _) if is_gossip => return Verdict::Cut,
                (Fault::Loss { ratio, .. }, Carrier::Datagram) if entropy.unit() < *ratio => return Verdict::Cut,
                (Fault::Loss { ratio, .. }, Carrier::Stream(repeat_after)) => {
                    let lost = (0..REPEATS_MAX).take_while(|_| entropy.unit() < *ratio).count();
                    late += repeat_after * u32::try_from(lost).unwrap_or(REPEATS_MAX);
                }
                (Fault::Delay { ms, jitter_ms, .. }, _) => {
                    late += Duration::from_millis(*ms) + Duration::from_millis(*jitter_ms).mul_f64(entropy.unit());
                }
                _ => {}
            }
        }
        if late.is_zero() { Verdict::Pass } else { Verdict::Late(late) }
    }

    /// What becomes of a request to the worker with this URL.
    #[must_use]
    pub fn call(&self, now: Instant, url: &str) -> Call {
        let mut call = Call::default();
        let is_it = |worker: &str| worker == ALL || worker == url;
        for fault in self.active(now) {
            match fault {
                Fault::WorkerRefuse { worker } if is_it(worker) => call.is_refused = true,
                Fault::WorkerStatus { worker, status } if is_it(worker) => call.status = Some(*status),
                Fault::WorkerReset { worker, after_bytes } if is_it(worker) => {
                    let before = call.reset_after.unwrap_or(u64::MAX);
                    call.reset_after = Some(before.min(*after_bytes));
                }
                Fault::WorkerDelay { worker, ms } if is_it(worker) => {
                    call.delay = Some(call.delay.unwrap_or_default() + Duration::from_millis(*ms));
                }
                _ => {}
            }
        }
        call
    }

    /// Whether a raft group neither speaks nor listens.
    #[must_use]
    pub fn is_raft_paused(&self, now: Instant, group: Group) -> bool {
        let hits = |groups: Groups| match groups {
            Groups::Both => true,
            Groups::Control => group == Group::Control,
            Groups::History => group == Group::History,
        };
        self.active(now).any(|it| matches!(it, Fault::Raft { group } if hits(*group)))
    }

    /// Seconds that the wall clock is off by.
    #[must_use]
    pub fn wall_offset(&self, now: Instant) -> i64 {
        self.active(now).fold(0, |sum, it| match it {
            Fault::Clock { offset_seconds } => sum + offset_seconds,
            _ => sum,
        })
    }

    /// How the disk is.
    #[must_use]
    pub fn disk(&self, now: Instant) -> Disk {
        let mut disk = Disk::default();
        for fault in self.active(now) {
            match fault {
                Fault::DiskFail {} => disk.fails = true,
                Fault::DiskFull {} => disk.is_full = true,
                Fault::DiskSlow { ms } => disk.delay += Duration::from_millis(*ms),
                _ => {}
            }
        }
        disk
    }
}

impl Fault {
    /// Whether it is about what passes between this node and that one, that way.
    fn is_between(&self, other: &str, heading: Heading) -> bool {
        match self {
            Self::Partition { nodes, direction }
            | Self::Loss { nodes, direction, .. }
            | Self::Delay { nodes, direction, .. } => {
                let is_way = match direction {
                    Direction::Both => true,
                    Direction::In => heading == Heading::In,
                    Direction::Out => heading == Heading::Out,
                };
                is_way && nodes.iter().any(|it| it == ALL || it == other)
            }
            Self::Gossip {} => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn to(nodes: &[&str]) -> Vec<String> {
        nodes.iter().map(|it| (*it).to_owned()).collect()
    }

    fn partition(nodes: &[&str], direction: Direction) -> Fault {
        Fault::Partition { nodes: to(nodes), direction }
    }

    fn with(faults: impl IntoIterator<Item = Fault>) -> (Faults, Instant) {
        let (mut all, now) = (Faults::default(), Clock.now());
        faults.into_iter().for_each(|it| drop(all.begin(now, it, SECOND).unwrap()));
        (all, now)
    }

    #[test]
    fn a_fault_counts_until_its_end_and_not_a_moment_longer() {
        let (mut faults, now) = with([partition(&["n-1"], Direction::Both)]);
        let passes = |faults: &Faults, at| {
            faults.message(at, "n-1", Heading::In, false, Carrier::Datagram, &Entropy::seeded(1)) == Verdict::Pass
        };
        let last = now + SECOND - Duration::from_nanos(1);
        assert_eq!([now, last, now + SECOND].map(|at| passes(&faults, at)), [false, false, true]);
        assert_eq!(faults.next_end(), Some(now + SECOND));
        assert_eq!(faults.lift(|it| it.until <= last), []);
        assert_eq!(faults.lift(|it| it.until <= now + SECOND).len(), 1);
        assert_eq!((faults.all(), faults.next_end()), (&[][..], None));
    }

    #[test]
    fn there_are_so_many_at_most_each_has_an_end_and_no_number_comes_twice() {
        let (mut faults, now) = with([]);
        for lasts in [Duration::ZERO, LASTS_MAX + Duration::from_millis(1)] {
            assert_eq!(faults.begin(now, Fault::Gossip {}, lasts), Err(Refusal::Lasts));
        }
        for id in 1..=ACTIVE_MAX as u64 {
            assert_eq!(faults.begin(now, Fault::Gossip {}, LASTS_MAX).map(|it| it.id), Ok(id));
        }
        assert_eq!(faults.begin(now, Fault::Gossip {}, SECOND), Err(Refusal::TooMany));
        assert_eq!(faults.lift(|it| it.id == 7).len(), 1);
        assert_eq!(faults.begin(now, Fault::Gossip {}, SECOND).map(|it| it.id), Ok(ACTIVE_MAX as u64 + 1));
        let unfit = Fault::Loss { nodes: to(&["*"]), direction: Direction::Both, ratio: 2.0 };
        assert!(matches!(faults.begin(now, unfit, SECOND), Err(Refusal::Unfit(_))));
    }

    #[test]
    fn a_partition_hits_the_nodes_it_names_in_its_direction() {
        let ways = |direction, other: &str| {
            let (faults, now) = with([partition(&["n-1", "n-2"], direction)]);
            [Heading::In, Heading::Out].map(|heading| {
                let verdict = faults.message(now, other, heading, false, Carrier::Stream(SECOND), &Entropy::seeded(1));
                verdict == Verdict::Cut
            })
        };
        assert_eq!(ways(Direction::Both, "n-2"), [true, true]);
        assert_eq!(ways(Direction::In, "n-1"), [true, false]);
        assert_eq!(ways(Direction::Out, "n-1"), [false, true]);
        assert_eq!(ways(Direction::Both, "n-3"), [false, false]);
        let (faults, now) = with([partition(&[ALL], Direction::Out)]);
        let verdict = faults.message(now, "n-9", Heading::Out, true, Carrier::Datagram, &Entropy::seeded(1));
        assert_eq!(verdict, Verdict::Cut);
    }

    #[test]
    fn loss_takes_its_share_of_datagrams_and_makes_streams_late_instead() {
        let (faults, now) = with([Fault::Loss { nodes: to(&[ALL]), direction: Direction::Both, ratio: 0.25 }]);
        let entropy = Entropy::seeded(7);
        let all = |carrier| -> Vec<Verdict> {
            (0..4000).map(|_| faults.message(now, "n-1", Heading::In, false, carrier, &entropy)).collect()
        };
        let datagrams = all(Carrier::Datagram);
        let lost = datagrams.iter().filter(|it| **it == Verdict::Cut).count();
        assert!((900..1100).contains(&lost), "{lost} of 4000");
        assert!(datagrams.iter().all(|it| !matches!(it, Verdict::Late(_))));
        let streams = all(Carrier::Stream(SECOND));
        let late = streams.iter().filter(|it| matches!(it, Verdict::Late(_))).count();
        assert!((900..1100).contains(&late) && !streams.contains(&Verdict::Cut), "{late} of 4000");
        let (faults, now) = with([Fault::Loss { nodes: to(&[ALL]), direction: Direction::Both, ratio: 1.0 }]);
        let verdict = faults.message(now, "n-1", Heading::In, false, Carrier::Stream(SECOND), &entropy);
        assert_eq!(verdict, Verdict::Late(SECOND * REPEATS_MAX));
    }

    #[test]
    fn delays_add_up_and_stay_within_their_jitter() {
        let delay = |ms, jitter_ms| Fault::Delay { nodes: to(&["n-1"]), direction: Direction::Out, ms, jitter_ms };
        let (faults, now) = with([delay(100, 20), delay(50, 0)]);
        let entropy = Entropy::seeded(3);
        for _ in 0..100 {
            match faults.message(now, "n-1", Heading::Out, false, Carrier::Datagram, &entropy) {
                Verdict::Late(it) => assert!((150..=170).contains(&it.as_millis()), "{it:?}"),
                other => panic!("{other:?}"),
            }
        }
        let back = faults.message(now, "n-1", Heading::In, false, Carrier::Datagram, &entropy);
        assert_eq!(back, Verdict::Pass);
    }

    #[test]
    fn gossip_stops_and_everything_else_goes_on() {
        let (faults, now) = with([Fault::Gossip {}]);
        for (is_gossip, expected) in [(true, Verdict::Cut), (false, Verdict::Pass)] {
            let verdict = faults.message(now, "n-1", Heading::In, is_gossip, Carrier::Datagram, &Entropy::seeded(1));
            assert_eq!(verdict, expected);
        }
    }

    #[test]
    fn requests_groups_clock_and_disk_have_what_is_in_force_of_theirs() {
        let worker = || "http://w:1".to_owned();
        let (faults, now) = with([
            Fault::WorkerRefuse { worker: worker() },
            Fault::WorkerDelay { worker: ALL.to_owned(), ms: 5 },
            Fault::WorkerDelay { worker: worker(), ms: 5 },
            Fault::WorkerStatus { worker: worker(), status: 503 },
            Fault::WorkerReset { worker: worker(), after_bytes: 9 },
            Fault::WorkerReset { worker: worker(), after_bytes: 3 },
            Fault::Raft { group: Groups::History },
            Fault::Clock { offset_seconds: 90 },
            Fault::Clock { offset_seconds: -30 },
            Fault::DiskSlow { ms: 40 },
            Fault::DiskFull {},
        ]);
        let delay = |ms| Some(Duration::from_millis(ms));
        let expected = Call { delay: delay(10), is_refused: true, status: Some(503), reset_after: Some(3) };
        assert_eq!(faults.call(now, "http://w:1"), expected);
        assert_eq!(faults.call(now, "http://w:2"), Call { delay: delay(5), ..Call::default() });
        assert_eq!([Group::Control, Group::History].map(|it| faults.is_raft_paused(now, it)), [false, true]);
        assert_eq!(faults.wall_offset(now), 60);
        assert_eq!(faults.disk(now), Disk { fails: false, is_full: true, delay: Duration::from_millis(40) });
        let later = now + SECOND;
        assert_eq!((faults.call(later, "http://w:1"), faults.disk(later)), Default::default());
        assert_eq!((faults.is_raft_paused(later, Group::History), faults.wall_offset(later)), (false, 0));
    }
}
