//! What clients of a simulated cluster propose.

use crate::base::ids::StorageId;
use crate::control::machine::Command;
use crate::control::machine::Register;
use crate::limits::Kind;
use crate::limits::LimitId;
use crate::limits::Mint;

/// A large command has a name this long.
const LARGE: usize = 64 << 10;

/// Gives out the shares of a limit, first.
pub(super) fn mint(limit: LimitId, nodes: u64) -> Command {
    // Ids are drawn, so all their bytes count.
    let shares = (1..=nodes).map(|it| StorageId(u128::MAX - u128::from(it))).collect();
    Command::PutMint { seen: 0, mint: Mint::first(limit, 1, 1, (Kind::Requests, 1000), nodes, &shares).expect("sound") }
}

/// A start of a data directory with a name that is too long: it is refused, but the log has it all the same.
pub(super) fn large() -> Command {
    let node = "n".repeat(LARGE);
    Command::Register(Register { storage: StorageId(1), boot: 1, nonce: 1, node, zone: String::new(), level_max: 1 })
}
