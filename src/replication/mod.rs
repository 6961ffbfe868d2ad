//! What everyone roughly knows: tables that every node has, that any node may edit, and that come together by themselves.
//!
//! Two kinds (`tables.rs` lists all). An *admin* table holds what people set: instances that merge field by field and whose
//! DELETE is final (`admin.rs`). An *owned* table holds what each node says of itself or saw: one writer a row (`owned.rs`). The
//! core tells nobody when to come or go: it is given the members, the time and what arrived, and says what to send and write. [`Handle`] is
//! what other areas hold.
//!
//! ```text
//! edit ──▶ local table ──push──▶ every member not down ──ack──▶ answered (own disk and one other)
//!                │ each second, one member at random
//!                └──digest──▶ differs? ◀──pull── ──slice, slice, …──▶
//! ```
//!
//! *Invariants.* 1. What was answered is on this disk, and on another member's if there is one. 2. A deleted instance never comes
//! back, whatever is delayed, repeated, restarted or wrongly timed. 3. Members that exchange become equal, whoever was away how
//! long. 4. A table's trouble is its own: bounds, budget, pulls and colour are kept table by table. 5. What a node does not
//! understand it keeps and passes on. *Absent on purpose:* agreement; who is a member; what the values mean; tombstones.

use std::time::Duration;

pub mod admin;
pub mod core;
pub mod dots;
mod driver;
mod entry;
pub(crate) mod faults;
mod handle;
pub mod hlc;
pub mod messages;
pub mod metrics;
pub mod owned;
pub mod sources;
pub mod store;
pub mod tables;
mod writer;

/// How values of rows are written by areas that have no form of their own: the codec of frames.
pub use crate::transport::wire;
pub use driver::Peers;
pub use driver::start;
pub use handle::Handle;
pub use handle::NewRow;

#[cfg(test)]
mod older;
#[cfg(test)]
pub(crate) mod sim;

/// The tables of a node that is alone, for tests of other areas.
#[cfg(test)]
pub(crate) fn alone(disk: &store::memory::Disk, tasks: &crate::base::tasks::Tasks) -> Handle {
    use crate::base::ids::NodeId;
    use crate::base::ids::StorageId;
    let boot = crate::base::entropy::Entropy::from_os().next_u64() >> 1;
    let me = core::Member {
        node: NodeId::parse("n-1").expect("a name"),
        actor: dots::Actor { storage: StorageId(1), boot },
    };
    start(me, Box::new(disk.clone()), None, metrics::Metrics::default(), tasks)
        .expect("an empty disk, or what was written there")
}

/// The time as a core is told it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Since the node started; never steps.
    pub mono: Duration,
    /// Since 1970, as this node's wall clock has it; may step.
    pub wall: Duration,
}
