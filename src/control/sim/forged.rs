//! What a node is told that must not be heard: by strangers, by members that are not what they say, and on a lane that is not for it.

use super::world::World;
use crate::base::ids::StorageId;
use crate::raft;
use crate::raft::frame;
use crate::raft::frame::Frame;
use crate::storage::GroupId;
use crate::transport::lanes::Lane;

/// A refusal that came, and the one that must.
pub(crate) type Refused = (Option<frame::Refusal>, frame::Refusal);

impl World {
    /// Says in a high term to lead, or to want to, as strangers and as members that are not what they say.
    pub(crate) async fn forge(&self, at: u16, forgotten: StorageId) -> Vec<Refused> {
        let target = &self.places[&at];
        let cluster = target.running.as_ref().and_then(|it| it.handle.status().cluster).expect("a cluster").0;
        let mut running = self.places.values().filter(|it| it.running.is_some());
        let member = running.find(|it| it.storage != target.storage).expect("another");
        let stranger = StorageId(u128::MAX);
        let good = frame::Badge { cluster, boot: member.boot, nonce: 0, since: 0 };
        let cases = [
            (stranger, target.storage, frame::Badge { boot: 1, ..good }, frame::Refusal::Outsider),
            (forgotten, target.storage, frame::Badge { boot: 1, ..good }, frame::Refusal::Forgotten),
            (member.storage, target.storage, frame::Badge { cluster: 1, ..good }, frame::Refusal::OtherCluster),
            (member.storage, target.storage, good, frame::Refusal::Copy),
            (member.storage, target.storage, frame::Badge { boot: 0, ..good }, frame::Refusal::Over),
            (member.storage, stranger, good, frame::Refusal::OtherStorage),
        ];
        let wrong = (member.storage, target.storage, good, frame::Refusal::WrongLane);
        let cases = cases.into_iter().chain([wrong]);
        let mut refused = Vec::new();
        for (from, to, badge, expected) in cases {
            for message in raft::sim::usurp(1_000, from) {
                // Pieces of snapshots have a lane of their own, and may come on the other, too.
                let is_piece = matches!(message, frame::Message::Snapshot(_));
                if is_piece && expected == frame::Refusal::WrongLane {
                    continue;
                }
                let is_bulk = is_piece || expected == frame::Refusal::WrongLane;
                let lane = if is_bulk { Lane::Bulk } else { Lane::Raft };
                let frame = Frame { group: GroupId::CONTROL, to, to_life: None, badge, message };
                let answer = self.tell(at, from, lane, frame.encode().expect("it has an encoding")).await;
                let answer = answer.and_then(|it| frame::Answer::decode(&it).ok());
                let why = if let Some(frame::Answer::Refused(why)) = answer { why.refusal() } else { None };
                refused.push((why, expected));
            }
        }
        refused
    }
}
