//! The other members of a group of one: there are none.

use std::time::Duration;

use super::frame;
use super::frame::Badge;
use super::network::Asking;
use super::network::Mesh;
use super::network::Papers;
use crate::base::ids::StorageId;
use crate::transport::RequestError;
use crate::transport::lanes::Lane;

/// See the file's header. What it has is shown to nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody(pub Badge);

impl Mesh for Nobody {
    fn ask(&self, _to: StorageId, _lane: Lane, _bytes: Vec<u8>, _limit: Duration) -> Asking<'_> {
        Box::pin(std::future::ready(Err(RequestError::NoLink)))
    }
}

impl Papers for Nobody {
    fn badge(&self) -> Badge {
        self.0
    }

    fn life_of(&self, _storage: StorageId) -> Option<(u64, u64)> {
        None
    }

    fn refused(&self, _by: StorageId, _why: frame::Refusal) {}
}
