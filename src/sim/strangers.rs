//! P9: whoever is no member changes nothing, whatever it says.
//!
//! The same seed is run twice, once with a stranger that listens to everything and says it again, late, cut, with bits turned over, to everybody, under
//! its own name and under those of members over its own connection. The transport has let it in, which it would not (`transport/tests/strangers.rs`): the
//! cores must hold on their own. What members send must be the same in both runs, byte for byte and to the nanosecond.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::Cluster;
use super::cluster::Packet;
use super::node::addr;
use super::node::name;
use super::seeds;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::membership;
use crate::replication;
use crate::transport::Peer;
use crate::transport::twin::Weather;

const SEEDS: u64 = 8;
const STRANGER: usize = 77;

fn stranger() -> Peer {
    Peer {
        node: name(STRANGER),
        storage: StorageId(77),
        boot: 9,
        generation: u64::MAX / 2,
        renewals: 0,
        addr: addr(STRANGER),
        zone: None,
    }
}

/// Half a minute of work at four nodes. What was sent, and how many packets the members were given by the stranger.
fn run(seed: u64, has_stranger: bool) -> (u128, u64, Vec<String>) {
    let mut cluster = Cluster::new(seed, 4, Weather { loss: 0.02, ..Weather::default() });
    cluster.tap = Some(Vec::new());
    let (lies, mut heard, mut told) = (Entropy::seeded(seed ^ 0xBAD), Vec::new(), 0);
    for round in 0..300_u64 {
        cluster.run(Duration::from_millis(100));
        if round % 10 == 0 {
            let node = cluster.below(4);
            cluster.post(node, &format!("http://gpu{round}:1"));
            cluster.flag(node, &[&format!("http://flag{round}:1")]);
        }
        heard.extend(cluster.tap.as_mut().into_iter().flat_map(std::mem::take));
        for _ in 0..10 {
            let to = lies.below(4);
            let packet = heard.get(lies.below(heard.len())).map(|it| &it.1);
            if let Some(packet) = packet.filter(|_| has_stranger && cluster.nodes[to].is_up()) {
                told += 1;
                lie(&mut cluster, to, packet, &lies);
            }
        }
    }
    let workers = cluster.workers(0);
    (cluster.trace(), told, workers)
}

/// Says something that was heard, more or less.
fn lie(cluster: &mut Cluster, to: usize, packet: &Packet, lies: &Entropy) {
    let garble = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        match lies.below(4) {
            0 => {}
            1 => bytes.truncate(lies.below(bytes.len() + 1)),
            2 => bytes.extend((0..lies.below(64)).map(|_| lies.next_u64() as u8)),
            _ => {
                for _ in 0..=lies.below(4) {
                    let at = lies.below(bytes.len());
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << lies.below(8);
                    }
                }
            }
        }
        bytes
    };
    match packet {
        Packet::Greet | Packet::Greeting(_) => {
            // It answers greetings that nobody sent.
            if !cluster.nodes[to].greeting.contains(&addr(STRANGER)) {
                cluster.arrive(to, addr(STRANGER), Packet::Greeting(Box::new(stranger())));
            }
        }
        // Its connection is certified for its own name, whoever the packet says it is from.
        Packet::Swim(_, bytes) => {
            cluster.swim(to, membership::core::Event::Received(Arc::new(stranger()), garble(bytes)));
        }
        Packet::Table(_, frame) => {
            cluster.tables(to, replication::core::Event::Received(name(STRANGER), garble(frame)));
        }
    }
}

#[test]
fn p9_a_stranger_that_says_anything_to_anybody_changes_no_byte_of_what_members_do() {
    let mut told = 0;
    for seed in seeds(SEEDS) {
        let (alone, with) = (run(seed, false), run(seed, true));
        assert_eq!(alone.0, with.0, "SEED={seed}: members did something else");
        assert_eq!(alone.2, with.2, "SEED={seed}");
        told += with.1;
    }
    println!("{told} packets of a stranger changed nothing");
    assert!(told > 1000);
}

#[test]
fn p9_a_member_that_writes_rows_of_another_is_not_believed() {
    use crate::replication::messages::Message;
    use crate::replication::owned::PartDelta;
    use crate::replication::owned::RowDelta;
    use crate::replication::tables::SOURCES;
    for seed in seeds(SEEDS) {
        let mut cluster = Cluster::new(seed, 3, Weather::default());
        cluster.run(Duration::from_secs(3));
        cluster.flag(0, &["http://mine:1"]);
        cluster.until(Duration::from_secs(3), |it| it.is_at_all("http://mine:1")).expect("heard everywhere");
        let bytes = Some(b"http://evil:1".to_vec());
        // In the name of the first node: to itself, to the third in a life that it never had, and to the third in this life.
        let owner = cluster.nodes[0].storage();
        for (to, boot) in [(0, 1), (2, 7), (2, 1)] {
            let rows = vec![RowDelta { name: b"x".to_vec(), version: 50, age_ms: 0, bytes: bytes.clone() }];
            let part = PartDelta { owner, boot, from: 0, to: 50, head: 50, floor: 0, rows };
            let frame = Message::Parts { table: SOURCES, parts: vec![part], is_all: true }.encode().expect("encodes");
            cluster.tables(to, replication::core::Event::Received(name(1), frame));
        }
        cluster.run(Duration::from_secs(20));
        assert!(cluster.is_at_none("http://evil:1") && cluster.is_at_all("http://mine:1"), "SEED={seed}");
        let counts: Vec<_> = (0..3).map(|n| cluster.nodes[n].core().counts()).collect();
        let (refused, refuted): (u64, u64) =
            counts.iter().map(|it| (it.not_owner, it.refuted)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        assert!(refused >= 2 && refuted >= 1, "SEED={seed}: {refused} refused, {refuted} refuted");
    }
}
