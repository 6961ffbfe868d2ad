//! Who a node says it is: what it puts into its greeting, and what membership passes on about it.

use std::net::SocketAddr;

use serde::Deserialize;
use serde::Serialize;

use crate::base::ids::InvalidId;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::base::ids::Zone;

/// One life of one node. The node id is certified by the connection that it came over; the rest is its own word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Peer {
    /// Which node.
    pub node: NodeId,
    /// Its data directory.
    pub storage: StorageId,
    /// How often it has started from that directory.
    pub boot: u64,
    /// Orders its lives: the larger one is the later one.
    pub generation: u64,
    /// How often this life had to begin anew because others held it for dead.
    pub renewals: u8,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// Where it stands, if it says.
    pub zone: Option<Zone>,
}

impl Peer {
    /// Whether both are the same process.
    #[must_use]
    pub fn is_same_life(&self, other: &Self) -> bool {
        (&self.node, self.storage, self.boot) == (&other.node, other.storage, other.boot)
    }
}

/// As written. Names are text here, because what comes from a wire is parsed before it is believed.
#[derive(Serialize, Deserialize)]
struct Wire {
    node: String,
    storage: u128,
    boot: u64,
    generation: u64,
    renewals: u8,
    addr: SocketAddr,
    zone: String,
}

impl From<Peer> for Wire {
    fn from(peer: Peer) -> Self {
        let Peer { node, storage, boot, generation, renewals, addr, zone } = peer;
        let zone = zone.map(|it| it.as_str().to_owned()).unwrap_or_default();
        Self { node: node.as_str().to_owned(), storage: storage.0, boot, generation, renewals, addr, zone }
    }
}

impl TryFrom<Wire> for Peer {
    type Error = InvalidId;

    fn try_from(wire: Wire) -> Result<Self, InvalidId> {
        let Wire { node, storage, boot, generation, renewals, addr, zone } = wire;
        let zone = if zone.is_empty() { None } else { Some(Zone::parse(&zone)?) };
        let node = NodeId::parse(&node)?;
        Ok(Self { node, storage: StorageId(storage), boot, generation, renewals, addr, zone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use crate::transport::tests::peer;
    use crate::transport::wire;
    use proptest::prelude::*;

    #[test]
    fn a_peer_survives_the_wire_and_its_names_are_checked_on_the_way_in() {
        let mut it = peer(7);
        it.zone = Some(Zone::parse("rack-2").unwrap());
        let bytes = wire::encode(&it).unwrap();
        assert_eq!(wire::decode::<Peer, 1024>(&bytes).unwrap(), it);
        let evil = Wire { node: "a/b".to_owned(), ..it.into() };
        assert!(wire::decode::<Peer, 1024>(&wire::encode(&evil).unwrap()).is_err());
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_greeting_is_a_peer_or_refused(bytes in fuzz::damaged({
            let wire = || Wire::from(Peer { zone: Zone::parse("rack-2").ok(), ..peer(7) });
            let odd = [Wire { zone: "a b".to_owned(), ..wire() }, Wire { node: "a/b".to_owned(), ..wire() }, Wire { node: String::new(), ..wire() }];
            odd.iter().chain(&[wire()]).map(|it| wire::encode(it).unwrap()).collect()
        })) {
            let read = fuzz::whole(1024, 1, &bytes, |it| wire::decode::<Peer, 1024>(it).ok(), |it| wire::encode(it).unwrap());
            if let Some(read) = read {
                // Its names are those that were sent, or nothing is taken.
                let sent = wire::decode::<Wire, 1024>(&bytes).unwrap();
                prop_assert_eq!((read.node.as_str(), read.zone.as_ref().map_or("", Zone::as_str)), (sent.node.as_str(), sent.zone.as_str()));
            }
        }
    }
}
