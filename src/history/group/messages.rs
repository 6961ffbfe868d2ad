//! What nodes say to each other about history beside its raft: on the same lane, a first byte of its own, then `transport::wire`'s version byte and one of these. Variants and fields are only added at
//! the end; anything else takes another version byte.

use serde::Deserialize;
use serde::Serialize;

use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::history::machine::Outcome;
use crate::raft::frame;
use crate::transport::lanes::Lane;
use crate::transport::wire;
use crate::transport::wire::WireError;

/// Longest message.
const BYTES_MAX: usize = Lane::Raft.bytes_max();

/// What is asked, by a node of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) cluster: ClusterId,
    pub(super) question: Question,
}

/// See [`Message`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Commands for whoever leads, each as the log has it.
    Propose(#[serde(with = "crate::base::byte_lists")] Vec<Vec<u8>>),
    /// How far has the leader come, which a majority confirms to lead?
    Index,
    /// The asker leads, and stops: whoever is asked is to stand for election now.
    Stand,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// What each command did.
    Done(Vec<Outcome>),
    /// The entry up to which a read must have come.
    Index(u64),
    /// Another one leads, or nobody is known to.
    NotLeader(Option<StorageId>),
    /// The asked one leads, and its disk is full.
    NoRoom,
    /// The asker is of another cluster, or the asked one of none.
    OtherCluster,
    /// Whether it stands.
    Stands(bool),
}

impl Message {
    pub(super) fn encode(&self) -> Result<Vec<u8>, WireError> {
        Ok([&[frame::HISTORY], &wire::encode(self)?[..]].concat())
    }

    /// None: it is something else, or cannot be read.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.strip_prefix(&[frame::HISTORY]).and_then(|it| wire::decode::<Self, BYTES_MAX>(it).ok())
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode::<Self, BYTES_MAX>(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::fuzz;

    #[test]
    fn a_message_is_read_back_as_it_was_written_and_is_no_other_areas() {
        let message = Message { cluster: ClusterId(7), question: Question::Propose(vec![vec![1, 2], Vec::new()]) };
        let bytes = message.encode().unwrap();
        assert_eq!(Message::decode(&bytes), Some(message));
        assert!(frame::Frame::decode(&bytes).is_none() && crate::control::messages::Message::decode(&bytes).is_none());
        let answer = Answer::Done(vec![Outcome::Done, Outcome::Unchanged]);
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
        let questions =
            [Question::Propose(vec![vec![1, 2], Vec::new(), vec![3; 30]]), Question::Index, Question::Stand];
        let answers = [
            Answer::Done(vec![Outcome::Done, Outcome::Unchanged]),
            Answer::Index(9),
            Answer::NotLeader(Some(StorageId(3))),
            Answer::Stands(true),
        ];
        let cluster = ClusterId(7);
        (
            questions.map(|question| Message { cluster, question }.encode().unwrap()).into(),
            answers.map(|it| it.encode().unwrap()).into(),
        )
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
