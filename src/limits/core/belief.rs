//! What this node believes that others have left: of one peer, to choose whom to ask, and of all together, for people and their clients. Nothing is decided by the latter.

use super::Around;
use super::account::Account;
use crate::base::ids::StorageId;
use crate::limits::calendar::Place;

impl Account {
    /// Units that a peer has left in the window at hand, as far as is known. One that was not heard in it is believed to have its share still, less what it was asked for before.
    pub(super) fn believed(&self, peer: StorageId, place: Place) -> u64 {
        let units = self.mint.share(peer, place.window);
        match self.heard.get(&peer) {
            Some(heard) if heard.window == place.window => heard.left,
            Some(heard) => units.saturating_sub((heard.demand as f64 * place.passed) as u64),
            None => units,
        }
    }

    /// Lets the purse say what peers that are here have left, without a lock.
    pub(super) fn publish(&self, around: &Around<'_>, place: Place) {
        let peers = around.members.keys().filter(|it| **it != around.me.0);
        self.purse.believe(place.window, peers.map(|it| self.believed(*it, place)).sum());
    }
}
