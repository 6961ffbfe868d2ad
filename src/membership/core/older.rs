//! What members of an older release say about members is read: the head of a packet and what follows it.

use foca::Codec as _;
use foca::Header;
use foca::Member;
use foca::Message;
use foca::State;

use super::FAREWELL;
use super::SWIM;
use super::swim::Wire;
use super::swim::sender;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::base::ids::Zone;
use crate::base::older::Older;
use crate::transport::Peer;
use crate::transport::wire;

fn peer(number: u8, zone: Option<&str>) -> Peer {
    Peer {
        node: NodeId::parse(&format!("node-{number}")).unwrap(),
        storage: StorageId(u128::MAX - u128::from(number)),
        boot: 300,
        generation: 1_790_000_000_000,
        renewals: 2,
        addr: ([10, 0, 0, number], 30_001).into(),
        zone: zone.map(|it| Zone::parse(it).unwrap()),
    }
}

fn headers() -> Vec<(&'static str, Header<Peer>)> {
    let (a, b, c) = (peer(1, Some("rack-1")), peer(2, None), peer(3, None));
    let messages = [
        ("ping", Message::Ping(7)),
        ("ack", Message::Ack(7)),
        ("ping_req", Message::PingReq { target: c.clone(), probe_number: 8 }),
        ("indirect_ping", Message::IndirectPing { origin: c.clone(), probe_number: 8 }),
        ("indirect_ack", Message::IndirectAck { target: c.clone(), probe_number: 8 }),
        ("forwarded_ack", Message::ForwardedAck { origin: c, probe_number: 8 }),
        ("announce", Message::Announce),
        ("feed", Message::Feed),
        ("gossip", Message::Gossip),
        ("turn_undead", Message::TurnUndead),
    ];
    let header = |message| Header { src: a.clone(), src_incarnation: 260, dst: b.clone(), message };
    messages.into_iter().map(|(name, message)| (name, header(message))).collect()
}

fn members() -> Vec<(&'static str, Member<Peer>)> {
    let states = [("alive", State::Alive), ("suspect", State::Suspect), ("down", State::Down)];
    states.into_iter().map(|(name, state)| (name, Member::new(peer(4, Some("rack-2")), 261, state))).collect()
}

#[test]
fn what_an_older_release_said_of_members_is_read() {
    let mut now = Vec::new();
    for (name, header) in headers() {
        let mut bytes = Vec::new();
        Wire.encode_header(&header, &mut bytes).unwrap();
        now.push((name, bytes));
    }
    for (name, member) in members() {
        let mut bytes = Vec::new();
        Wire.encode_member(&member, &mut bytes).unwrap();
        now.push((name, bytes));
    }
    now.push(("before_a_packet", vec![wire::VERSION, SWIM]));
    now.push(("farewell", vec![wire::VERSION, FAREWELL]));
    let older = Older::of("src/membership/core/older.hex", &now);
    for (name, header) in headers() {
        assert_eq!(Wire.decode_header(older.bytes(name)).unwrap(), header, "{name}");
        assert_eq!(sender(older.bytes(name)), Some((header.src, header.src_incarnation)));
    }
    for (name, member) in members() {
        assert_eq!(Wire.decode_member(older.bytes(name)).unwrap(), member, "{name}");
    }
}
