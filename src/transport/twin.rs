//! The network between simulated nodes: what [`Handle`](super::Handle) and QUIC do, on virtual time, from one seed.
//!
//! Cores are stepped by a test; what they want sent goes in here with the time, and comes out in the order in which a network
//! with that weather would deliver it. A datagram may be lost, doubled, delayed and overtaken. A message on a stream
//! of its own arrives once, later when the weather is bad, or never when the way is cut; it, too, may be overtaken, as with QUIC. *Invariant:* the same seed and the same calls give the same deliveries.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::base::entropy::Entropy;

/// What the network is like.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that come twice.
    pub duplicates: f64,
    /// Shortest way.
    pub delay_min: Duration,
    /// Longest way. Datagrams overtake each other within the difference.
    pub delay_max: Duration,
}

impl Default for Weather {
    /// A rack: nothing lost, 0.2 to 2 ms.
    fn default() -> Self {
        let (delay_min, delay_max) = (Duration::from_micros(200), Duration::from_millis(2));
        Self { loss: 0.0, duplicates: 0.0, delay_min, delay_max }
    }
}

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Once, twice or never, in any order.
    Datagram,
    /// Once or never, in any order.
    Stream,
}

/// What arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<M> {
    /// When.
    pub at: Instant,
    /// From where.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub message: M,
}

/// The network.
#[derive(Debug)]
pub struct Twin<M> {
    entropy: Entropy,
    weather: Weather,
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    under_way: BTreeMap<(Instant, u64), Delivery<M>>,
    sent: u64,
    lost: u64,
}

impl<M: Clone> Twin<M> {
    /// A network without nodes: addresses are whatever is sent to.
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self {
            entropy: Entropy::seeded(seed),
            weather,
            cut: BTreeSet::new(),
            under_way: BTreeMap::new(),
            sent: 0,
            lost: 0,
        }
    }

    /// Changes the weather for what is sent from now on.
    pub fn weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Cuts the way from one address to another; the way back stays as it is.
    pub fn cut(&mut self, from: SocketAddr, to: SocketAddr) {
        self.cut.insert((from, to));
    }

    /// Opens every way.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// How many messages were sent, and how many of them were lost. A test of a fault asks, so that a fault that never bit is noticed.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.sent, self.lost)
    }

    /// Puts a message on its way.
    pub fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, carrier: Carrier, message: M) {
        self.sent += 1;
        if self.cut.contains(&(from, to)) {
            self.lost += 1;
            return;
        }
        match carrier {
            Carrier::Datagram => {
                let copies = 1 + usize::from(self.entropy.unit() < self.weather.duplicates);
                for _ in 0..copies {
                    if self.entropy.unit() < self.weather.loss {
                        self.lost += 1;
                    } else {
                        let at = now + self.delay();
                        self.put(Delivery { at, from, to, message: message.clone() });
                    }
                }
            }
            Carrier::Stream => {
                let mut at = now + self.delay();
                // BOUND: a loss of 1 would repeat for ever; QUIC gives up, too.
                for _ in 0..8 {
                    if self.entropy.unit() >= self.weather.loss {
                        break;
                    }
                    at += Duration::from_millis(25) + self.weather.delay_max * 3; // the sender notices and repeats it
                }
                self.put(Delivery { at, from, to, message });
            }
        }
    }

    /// When the next message arrives.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|(key, _)| key.0)
    }

    /// The next message that has arrived by `now`. One that a cut caught under way is lost.
    pub fn deliver(&mut self, now: Instant) -> Option<Delivery<M>> {
        loop {
            let first = self.under_way.first_entry().filter(|it| it.key().0 <= now)?;
            let delivery = first.remove();
            if !self.cut.contains(&(delivery.from, delivery.to)) {
                return Some(delivery);
            }
            self.lost += 1;
        }
    }

    fn delay(&self) -> Duration {
        let Weather { delay_min, delay_max, .. } = self.weather;
        delay_min + delay_max.saturating_sub(delay_min).mul_f64(self.entropy.unit())
    }

    fn put(&mut self, delivery: Delivery<M>) {
        let order = self.entropy.next_u64(); // two that arrive together: neither is always first
        self.under_way.insert((delivery.at, order), delivery);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn drain(twin: &mut Twin<u32>, until: Instant) -> Vec<u32> {
        std::iter::from_fn(|| twin.deliver(until)).map(|it| it.message).collect()
    }

    fn sent(seed: u64, weather: Weather, carrier: Carrier) -> (Vec<u32>, (u64, u64)) {
        let (now, mut twin) = (Clock.now(), Twin::new(seed, weather));
        for n in 0..1000 {
            twin.send(now + Duration::from_micros(u64::from(n) * 10), addr(1), addr(2), carrier, n);
        }
        (drain(&mut twin, now + Duration::from_secs(60)), twin.counts())
    }

    #[test]
    fn datagrams_are_lost_doubled_and_reordered_as_told_and_the_same_each_time() {
        let weather = Weather { loss: 0.1, duplicates: 0.05, ..Weather::default() };
        let (got, (_, lost)) = sent(1, weather, Carrier::Datagram);
        assert!((60..150).contains(&lost) && (900..1000).contains(&got.len()), "{lost} lost, {} came", got.len());
        assert!(!got.is_sorted(), "some overtook others");
        assert_eq!(got, sent(1, weather, Carrier::Datagram).0);
        assert_ne!(got, sent(2, weather, Carrier::Datagram).0);
    }

    #[test]
    fn streams_bring_everything_once() {
        let weather = Weather { loss: 0.2, ..Weather::default() };
        let (mut got, _) = sent(1, weather, Carrier::Stream);
        got.sort_unstable();
        assert_eq!(got, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_is_one_way_and_catches_what_is_under_way() {
        let (now, mut twin) = (Clock.now(), Twin::new(1, Weather::default()));
        let later = now + Duration::from_secs(1);
        twin.send(now, addr(1), addr(2), Carrier::Stream, 1);
        twin.cut(addr(1), addr(2));
        twin.send(now, addr(1), addr(2), Carrier::Datagram, 2);
        twin.send(now, addr(2), addr(1), Carrier::Datagram, 3);
        assert_eq!(drain(&mut twin, later), [3]);
        twin.heal();
        twin.send(later, addr(1), addr(2), Carrier::Datagram, 4);
        assert_eq!((drain(&mut twin, later + Duration::from_secs(1)), twin.counts().1), (vec![4], 2));
    }
}
