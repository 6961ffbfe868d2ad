//! What members say of units, damaged or absurd: taken or ignored, and no sum runs over.

use std::time::Duration;

use proptest::prelude::*;

use super::laws::renew;
use super::world::limit;
use super::world::storage;
use crate::base::clock::Clock;
use crate::base::fuzz;
use crate::limits::Kind;
use crate::limits::Mint;
use crate::limits::Settings;
use crate::limits::core::Core;
use crate::limits::core::Event;
use crate::limits::messages::FRAME_BYTES_MAX;
use crate::limits::messages::Given;
use crate::limits::messages::Message;
use crate::limits::messages::Pull;
use crate::limits::messages::Told;

const LIMIT: u64 = 20;
/// At the beginning of a minute: its number is the window's.
const MINUTE: u64 = 10_000;

fn valid() -> Vec<Vec<u8>> {
    let told = |left, demand| Message::Told(vec![Told { limit: limit(0), window: MINUTE, left, demand }]);
    let given = |window, total| Message::Given(Given { limit: limit(0), window, boot: 1, total, left: 3 });
    let messages = [
        told(5, 9),
        told(u64::MAX, u64::MAX),
        given(MINUTE, 2),
        given(MINUTE, 1),
        given(MINUTE, 0),
        given(MINUTE + 1, 9),
        given(MINUTE, u64::MAX),
        Message::Pull(Pull { limit: limit(0), window: MINUTE, boot: 1, have: 0, need: 2, want: 1 }),
        Message::Pull(Pull { limit: limit(0), window: MINUTE + 1, boot: 1, have: 0, need: u64::MAX, want: u64::MAX }),
        Message::News(9),
    ];
    messages.map(|it| it.encode().expect("it has an encoding")).into()
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_damaged_messages_are_taken_or_ignored(
        said in prop::collection::vec((1..4_usize, fuzz::damaged(valid()), 0..9_000_u64, 0..4_u64), 1..30),
    ) {
        let begun = Clock.now();
        let mut core = Core::new(begun, Duration::from_secs(60 * MINUTE), (storage(0), 1), Settings::default());
        core.step(begun, Event::Members((0..4).map(|it| (storage(it), 1)).collect()), &mut Vec::new());
        let over = (0..4).map(storage).collect();
        let mint = Mint::first(limit(0), 1, 1, (Kind::Requests, 60_000), LIMIT, &over).expect("sound");
        renew(&mut core, begun, vec![mint]);
        let mut now = begun;
        for (ticket, (from, bytes, pause, units)) in (0..).zip(said) {
            now += Duration::from_millis(pause);
            let mut effects = Vec::new();
            if let Some(message) = fuzz::within(FRAME_BYTES_MAX, || Message::decode(&bytes)) {
                core.step(now, Event::Received((storage(from), 1), message), &mut effects);
            }
            core.step(now, Event::Wake, &mut effects);
            core.step(now, Event::Ask(ticket, limit(0), units), &mut effects);
            let standing = core.standing(now, limit(0)).expect("it is known");
            prop_assert!(standing.units == LIMIT && standing.share <= LIMIT, "{standing:?}");
            // One message gives no more than all of the limit.
            prop_assert!(standing.left <= LIMIT * (ticket + 2), "{standing:?}");
        }
    }
}
