//! Somebody on the same network, who can send anything and replay what was said.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::net::frame;

use super::case::Case;
use super::fleet::Fleet;

const NOISE: usize = 20_000;

pub(crate) async fn noise_and_replays(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    // From the first packet on, so that whole handshakes are in it.
    fleet.lab.switch.record();
    for at in 0..3 {
        fleet.start(at, &super::fleet::Start::default());
    }
    fleet.whole(super::fleet::STARTING).await;
    lasting(Duration::from_secs(1)).await;
    let recorded = fleet.lab.switch.recorded();
    let before = fleet.members(0).await;
    let noise_before = fleet.lab.switch.count(3, 0).frames;
    make_noise(case, &fleet);
    let noise = fleet.lab.switch.count(3, 0).frames - noise_before;
    case.bites("noise reached a node", noise > 1000);
    let mut replayed = 0;
    for (to, packet) in &recorded {
        let Some((_, _, payload)) = frame::udp(packet) else { continue };
        fleet.lab.switch.inject(*to, packet.clone());
        for len in [payload.len() / 2, 21, 1] {
            fleet.lab.switch.inject(*to, frame::with_payload(packet, &payload[..len.min(payload.len())]));
        }
        // One flipped bit, anywhere.
        let mut broken = payload.to_vec();
        let at = case.entropy.below(broken.len());
        broken[at] ^= 1 << case.entropy.below(8);
        fleet.lab.switch.inject(*to, frame::with_payload(packet, &broken));
        replayed += 1;
        if replayed % 50 == 0 {
            lasting(Duration::from_millis(5)).await;
        }
    }
    case.did(format_args!(
        "{replayed} recorded packets, handshakes among them: again, cut three ways, and with a bit flipped"
    ));
    case.bites("there was something to replay", replayed > 50);
    lasting(Duration::from_secs(3)).await;
    for at in 0..3 {
        let members = fleet.members(at).await;
        assert_eq!(members, before, "node {at}");
    }
    assert_eq!(fleet.sum(r#"smg_membership_changes_total{status="down"}"#).await, 0.0);
    let ignored = fleet.sum("smg_membership_ignored_total").await;
    assert_eq!(ignored, 0.0, "none of it got as far as membership");
    fleet.check_alive();
    case.figure(format_args!("{NOISE} packets of noise, {} forged: members unchanged, no panic", replayed * 5));
}

/// Random bytes, some dressed as first packets of a connection, from the observer to every node.
fn make_noise(case: &Case, fleet: &Fleet<'_>) {
    let socket = std::net::UdpSocket::bind((fleet.lab.observer(), 0)).expect("a free port");
    for round in 0..NOISE {
        let mut packet = vec![0; 1 + case.entropy.below(1400)];
        packet.iter_mut().for_each(|byte| *byte = case.entropy.next_u64().to_le_bytes()[0]);
        if round % 3 == 0 {
            packet.resize(1200, 0);
            packet[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        let to: SocketAddr = fleet.nodes[round % 3].mesh;
        let _ = socket.send_to(&packet, to); // a full queue drops: there is more
    }
    case.did(format_args!("{NOISE} packets of random bytes"));
}
