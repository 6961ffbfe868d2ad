//! What nodes say to each other about the control group beside its raft: on the same lane, a first byte of its own, then `transport::wire`'s version byte and one
//! of these. Variants and fields are only added at the end; anything else takes another version byte.

use serde::Deserialize;
use serde::Serialize;

use super::core::bootstrap::Said;
use super::core::lives::Life;
use super::machine::Outcome;
use super::machine::Refusal;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::raft::frame;
use crate::transport::lanes::Lane;
use crate::transport::wire;
use crate::transport::wire::WireError;

/// Longest message.
const BYTES_MAX: usize = Lane::Raft.bytes_max();

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The asker says how it stands, and wants to know the same.
    Hello(Said),
    /// The asker wants to found the group with this many grants.
    Grant {
        /// See there.
        expect: u32,
    },
    /// The asker's data directory has been started.
    Life {
        /// Its cluster.
        cluster: ClusterId,
        /// Which start.
        life: Life,
    },
    /// A command for whoever leads.
    Propose {
        /// The asker's cluster.
        cluster: ClusterId,
        /// As the log has it.
        command: Vec<u8>,
    },
    /// The asker leads, and stops: whoever is asked is to stand for election now.
    Stand {
        /// The asker's cluster.
        cluster: ClusterId,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Message::Hello`].
    Said(Said),
    /// To [`Message::Grant`]: whether it is the asker's.
    Granted(bool),
    /// To [`Message::Life`]: it is on disk, or why not.
    Life(Result<(), Refusal>),
    /// To [`Message::Propose`]: what became of it.
    Proposed(Outcome),
    /// To the same: another one leads, or nobody is known to.
    NotLeader(Option<StorageId>),
    /// The asker is of another cluster, or this node of none.
    OtherCluster,
    /// To [`Message::Propose`]: this node leads, and its disk is full.
    NoRoom,
    /// To [`Message::Stand`]: whether it does.
    Stands(bool),
}

impl Message {
    /// As it travels.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        Ok([&[frame::CONTROL], &wire::encode(self)?[..]].concat())
    }

    /// Reads one. None: it is something else, or cannot be read.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.strip_prefix(&[frame::CONTROL]).and_then(|it| wire::decode::<Self, BYTES_MAX>(it).ok())
    }
}

impl Answer {
    /// As it travels.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode::<Self, BYTES_MAX>(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::core::bootstrap::Stage;
    use super::*;
    use crate::base::fuzz;

    #[test]
    fn a_message_is_read_back_as_it_was_written_and_no_frame_is_one() {
        let sees = [StorageId(1), StorageId(u128::MAX)].into();
        let said = Said { stage: Stage::Granted { to: StorageId(3) }, expect: 3, sees };
        let message = Message::Hello(said.clone());
        let bytes = message.encode().unwrap();
        assert_eq!(Message::decode(&bytes), Some(message));
        assert!(frame::Frame::decode(&bytes).is_none());
        let answer = Answer::Life(Err(Refusal::Copy { known: 2, boot: 1 }));
        assert_eq!(Answer::decode(&answer.encode().unwrap()).unwrap(), answer);
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = (Message::decode(&bytes), Answer::decode(&bytes)); // any answer will do, as long as there is one
        }
    }

    /// One of each.
    fn valid() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let said =
            Said { stage: Stage::Granted { to: StorageId(3) }, expect: 3, sees: [StorageId(1), StorageId(9)].into() };
        let cluster = ClusterId(7);
        let messages = [
            Message::Hello(said.clone()),
            Message::Grant { expect: 3 },
            Message::Life { cluster, life: Life { boot: 3, nonce: 9 } },
            Message::Propose { cluster, command: vec![1, 2, 3] },
            Message::Stand { cluster },
        ];
        let answers = [
            Answer::Said(said),
            Answer::Life(Err(Refusal::Copy { known: 2, boot: 1 })),
            Answer::Proposed(Outcome::Changed),
            Answer::NotLeader(Some(StorageId(4))),
        ];
        (messages.map(|it| it.encode().unwrap()).into(), answers.map(|it| it.encode().unwrap()).into())
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_message_is_read_or_refused(message in fuzz::damaged(valid().0), answer in fuzz::damaged(valid().1)) {
            fuzz::whole(BYTES_MAX, 2, &message, Message::decode, |it| it.encode().unwrap());
            fuzz::whole(BYTES_MAX, 1, &answer, |it| Answer::decode(it).ok(), |it| it.encode().unwrap());
        }
    }
}
