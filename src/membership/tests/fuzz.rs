//! Packets of members, damaged: taken, ignored or counted, and nobody is seen who never was.

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;

use super::peer;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::fuzz;
use crate::membership::Config;
use crate::membership::core::Core;
use crate::membership::core::Effect;
use crate::membership::core::Event;
use crate::transport::Peer;
use crate::transport::lanes::Lane;
use crate::transport::wire;

/// What two nodes said to each other within some seconds.
static SAID: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let begun = Clock.now();
    let mut nodes = [0, 1].map(|n| Core::new(begun, peer(n, 1), Config::default(), Entropy::seeded(n as u64)));
    let (mut said, mut now) = (Vec::new(), begun);
    let other = Box::new(peer(1, 1));
    let mut inbox = vec![(0, Event::Met(other.addr, other))];
    for _ in 0..60 {
        inbox.extend([(0, Event::Wake), (1, Event::Wake)]);
        while let Some((to, event)) = inbox.pop() {
            let mut effects = Vec::new();
            nodes[to].step(now, event, &mut effects);
            for effect in effects {
                if let Effect::Send(_, packet) = effect {
                    said.push(packet.clone());
                    inbox.push((1 - to, Event::Received(Arc::new(peer(to, 1)), packet)));
                }
            }
        }
        now += Duration::from_millis(100);
    }
    assert!(said.len() > 20 && nodes.iter().all(|it| it.view().members.len() == 2), "they have found each other");
    said
});

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_damaged_packets_are_taken_or_ignored(packets in prop::collection::vec(fuzz::damaged(SAID.clone()), 1..12)) {
        let begun = Clock.now();
        let mut core = Core::new(begun, peer(0, 1), Config::default(), Entropy::seeded(1));
        for (at, packet) in (0..).zip(packets) {
            let (now, mut effects) = (begun + Duration::from_millis(200 * at), Vec::new());
            // What is said in another's name, or in nobody's, is as if it had not been.
            let sender = packet.strip_prefix(&[wire::VERSION, 0]).and_then(|it| wire::take::<foca::Header<Peer>>(it).ok());
            let is_own = sender.is_some_and(|it| it.0.src.node == peer(1, 1).node) || packet == [wire::VERSION, 1];
            let before = core.view();
            fuzz::within(Lane::Swim.bytes_max(), || core.step(now, Event::Received(Arc::new(peer(1, 1)), packet), &mut effects));
            if !is_own {
                let members = |it: &crate::membership::view::View| format!("{:?}", it.members);
                prop_assert!(matches!(effects[..], [Effect::Ignored]), "{effects:?}");
                prop_assert_eq!(members(&before), members(&core.view()));
            }
            core.step(now, Event::Wake, &mut effects);
        }
        prop_assert_eq!(core.me().storage, peer(0, 1).storage);
    }
}
