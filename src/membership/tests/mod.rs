//! Membership in simulation, on virtual time over the transport's twin; and once over real sockets.

mod faults;
mod forming;
mod fuzz;
mod planted;
mod real;
mod sim;

use std::net::SocketAddr;

use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::transport::Peer;

/// Node `n` in its `boot`th life, with a generation as a real start gives it.
fn peer(n: usize, boot: u64) -> Peer {
    Peer {
        node: NodeId::parse(&format!("n-{n:03}")).unwrap(),
        storage: StorageId(n as u128),
        boot,
        generation: 1_700_000_000_000 + boot,
        renewals: 0,
        addr: addr(n),
        zone: None,
    }
}

fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (n / 250) as u8, (n % 250) as u8 + 1], 30001))
}
