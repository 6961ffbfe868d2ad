//! Ethernet frames with UDP in them: enough to see who speaks to whom, and to forge what somebody on the wire could send.

use std::net::Ipv4Addr;
use std::net::SocketAddrV4;

/// Hardware addresses and the type of what follows.
const ETHERNET: usize = 14;
/// An IPv4 header without options; the kernel sends no others here.
const IP: usize = 20;
/// A UDP header.
const UDP: usize = 8;
const PROTOCOL_UDP: u8 = 17;

/// Whether it is IPv4; nothing else passes the switch.
#[must_use]
pub fn is_ipv4(frame: &[u8]) -> bool {
    frame.len() > ETHERNET && frame[12..14] == [0x08, 0x00]
}

/// Sender, receiver and payload of a UDP packet.
#[must_use]
pub fn udp(frame: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, &[u8])> {
    let packet = frame.get(ETHERNET..).filter(|it| is_ipv4(frame) && it.len() >= IP + UDP)?;
    if packet[0] != 0x45 || packet[9] != PROTOCOL_UDP {
        return None;
    }
    let address = |at: usize, port: usize| {
        let ip = Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        SocketAddrV4::new(ip, u16::from_be_bytes([packet[port], packet[port + 1]]))
    };
    let len = usize::from(u16::from_be_bytes([packet[IP + 4], packet[IP + 5]]));
    let payload = packet.get(IP + UDP..IP + len)?;
    Some((address(12, IP), address(16, IP + 2), payload))
}

/// The same packet with another payload; everything else, its sender too, stays.
#[must_use]
pub fn with_payload(frame: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut forged = frame[..ETHERNET + IP + UDP].to_vec();
    forged.extend_from_slice(payload);
    let udp_len = u16::try_from(UDP + payload.len()).expect("shorter than a frame");
    let ip_len = u16::try_from(IP).expect("20") + udp_len;
    let ip = &mut forged[ETHERNET..];
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[10..12].fill(0);
    let sum = checksum(&ip[..IP]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip[IP + 4..IP + 6].copy_from_slice(&udp_len.to_be_bytes());
    ip[IP + 6..IP + 8].fill(0); // UDP over IPv4 may go without a checksum
    forged
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_packet_says_the_same_of_itself_and_carries_another_payload() {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 33, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 66, 0, 1, 10, 66, 0, 2]);
        frame.extend_from_slice(&[0x75, 0x31, 0x75, 0x32, 0, 13, 9, 9]);
        frame.extend_from_slice(b"hello");
        let (from, to, payload) = udp(&frame).expect("it is UDP");
        assert_eq!((from.to_string(), to.to_string()), ("10.66.0.1:30001".into(), "10.66.0.2:30002".into()));
        assert_eq!(payload, b"hello");
        let forged = with_payload(&frame, b"hi");
        assert_eq!(udp(&forged), Some((from, to, b"hi".as_slice())));
        assert_eq!(checksum(&forged[14..34]), 0, "a header sums up to nothing with its own checksum");
        assert_eq!(udp(&frame[..30]), None);
    }
}
