//! The harness itself: frames between real sockets are hurt as asked. A fault that cannot be seen here voids every other run.

use std::net::UdpSocket;
use std::time::Duration;

use cluster_tests::net::Fault;
use cluster_tests::net::Lab;
use smg::base::clock::Clock;

use super::case::Case;

const SENT: usize = 2000;

/// Sends numbered packets from machine 0 to machine 1; what arrived, in order, and how long the first was under way.
fn send(lab: &Lab, sockets: &[UdpSocket; 2], fault: Fault) -> (Vec<u32>, Duration) {
    lab.switch.set(0, 1, fault);
    let (start, to) = (Clock.now(), sockets[1].local_addr().expect("is bound"));
    let before = lab.switch.count(0, 1).frames;
    let mut first = None;
    let mut arrived = Vec::new();
    let mut read = |wait: Duration| {
        sockets[1].set_read_timeout(Some(wait)).expect("longer than nothing");
        let mut packet = [0; 4];
        let is_read = sockets[1].recv(&mut packet).is_ok();
        if is_read {
            first.get_or_insert_with(|| Clock.now() - start);
            arrived.push(u32::from_be_bytes(packet));
        }
        is_read
    };
    for number in 0..SENT {
        sockets[0].send_to(&u32::try_from(number).expect("small").to_be_bytes(), to).expect("is sent");
        // In step, so that neither the card's queue nor the socket's is what loses: all of it has passed the switch, then all of it is read.
        if number % 32 == 0 {
            while lab.switch.count(0, 1).frames < before + number as u64 {
                read(Duration::from_millis(1));
            }
            while read(Duration::from_millis(2)) {}
        }
    }
    while read(Duration::from_millis(200)) {}
    lab.switch.heal();
    (arrived, first.unwrap_or_default())
}

pub(crate) async fn does_what_it_says(case: &Case) {
    let lab = Lab::new(2, case.seed).expect("the machines can be made");
    let sockets = [0, 1].map(|at| lab.machine(at).bind(9000).expect("a free port"));
    let (arrived, first) = send(&lab, &sockets, Fault::default());
    assert!(arrived.len() == SENT && arrived.is_sorted(), "without a fault: {} arrived", arrived.len());
    case.figure(format_args!("{} us one way", first.as_micros()));
    let (arrived, _) = send(&lab, &sockets, Fault::losing(0.2));
    assert!((SENT * 75 / 100..SENT * 85 / 100).contains(&arrived.len()), "20 % loss: {} arrived", arrived.len());
    case.figure(format_args!("20 % loss lost {:.1} %", 100.0 - arrived.len() as f64 * 100.0 / SENT as f64));
    let (arrived, _) = send(&lab, &sockets, Fault { duplication: 0.3, ..Fault::default() });
    assert!((SENT * 125 / 100..SENT * 135 / 100).contains(&arrived.len()), "30 % twice: {} arrived", arrived.len());
    let delay = Duration::from_millis(50);
    let (arrived, first) = send(&lab, &sockets, Fault { delay, jitter: delay, ..Fault::default() });
    assert!(arrived.len() == SENT && first >= delay && !arrived.is_sorted(), "50 ms and more: {first:?}");
    let (arrived, _) = send(&lab, &sockets, Fault { reordering: 0.1, ..Fault::default() });
    assert!(arrived.len() == SENT && !arrived.is_sorted(), "held back: {} arrived", arrived.len());
    let (arrived, _) = send(&lab, &sockets, Fault::cutting());
    assert!(arrived.is_empty(), "cut: {} arrived", arrived.len());
    let back = lab.machine(0).ip;
    sockets[1].send_to(b"back", (back, 9000)).expect("is sent");
    sockets[0].set_read_timeout(Some(Duration::from_secs(1))).expect("longer than nothing");
    lab.switch.set(0, 1, Fault::cutting());
    assert_eq!(sockets[0].recv(&mut [0; 8]).ok(), Some(4), "the other way is open");
    case.bites("the switch counted what it did", lab.switch.count(0, 1).lost > 0 && lab.switch.count(0, 1).cut > 0);
}
