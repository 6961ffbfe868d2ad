//! What nodes say to each other about limits, and to the group's leader. A frame is `transport::wire`'s version byte, then one [`Message`], [`Renewal`] or [`Renewed`].
//!
//! Numbers only: which limit, which window, how many units. Variants and fields are only added at the end; anything else takes another version byte.

use serde::Deserialize;
use serde::Serialize;

use super::LimitId;
use super::mint::Mint;
use super::mint::SHARES_LEN_MAX;
use crate::transport::wire;
use crate::transport::wire::WireError;

/// Largest frame between nodes that is read.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// Limits in one frame of what a node says of itself. Of more, those that changed most are said; the others are believed to have what was minted.
pub const TOLD_LEN_MAX: usize = 1024;
/// Mints that a node says it has adopted, in one renewal. More wait until these are settled.
pub const ADOPTED_LEN_MAX: usize = 4096;
/// Mints in one answer. A node that lacks more gets them with its next renewals.
pub const MINTS_LEN_MAX: usize = 128;
/// Largest frame of a renewal and its answer: so many mints over 512 nodes, half of them on their way out.
pub const RENEWAL_BYTES_MAX: usize = 4 << 20;
/// Limits without windows of which one renewal says how much is in use. Of more, the next renewals say the rest, in turn.
pub const USES_LEN_MAX: usize = 1024;
/// Limits that are gone, in one answer.
pub const GONE_LEN_MAX: usize = 4096;

/// Between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// I am short. Answered by [`Message::Given`].
    Pull(Pull),
    /// You have got so many from me.
    Given(Given),
    /// This is what I have left, and how much I am asked for.
    Told(Vec<Told>),
    /// The group has decided something about limits, up to this entry of its log: who has not seen that renews now.
    News(u64),
}

/// See [`Message::Pull`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Of which limit.
    pub limit: LimitId,
    /// For which window.
    pub window: u64,
    /// The life of the donor that is meant.
    pub boot: u64,
    /// What I have got from you in all for that window. If you have given more, it is under way, and you do not give again.
    pub have: u64,
    /// For requests that wait.
    pub need: u64,
    /// Beyond that, for requests that are expected in the rest of the window.
    pub want: u64,
}

/// See [`Message::Given`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Of which limit.
    pub limit: LimitId,
    /// For which window.
    pub window: u64,
    /// The life of the receiver that is meant.
    pub boot: u64,
    /// In all for that window, by this life of the donor for that life of the receiver. It only grows, so it counts once however often it comes.
    pub total: u64,
    /// What the donor has left.
    pub left: u64,
}

/// See [`Message::Told`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Of which limit.
    pub limit: LimitId,
    /// In which window.
    pub window: u64,
    /// Units left in it.
    pub left: u64,
    /// Units that are asked for in a window, about.
    pub demand: u64,
}

/// A node to the group's leader: I am here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Grows with each of one life.
    pub number: u64,
    /// The newest entry of the group's log whose mints this node has seen.
    pub seen: u64,
    /// Pending mints that this node goes by, and from which window on.
    pub adopted: Vec<Adopted>,
    /// This node leaves: it begins no window after the one that follows this moment, in milliseconds since the Unix epoch as it counts them.
    pub leaves_ms: Option<u64>,
    /// How much of limits without windows is in use here, or wanted.
    pub uses: Vec<Use>,
    /// Whether anything of any of these is in use.
    pub is_busy: bool,
}

/// See [`Renewal::uses`]. The leader divides by it; nothing that must be exact rests on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Of which limit.
    pub limit: LimitId,
    /// Units in use.
    pub in_use: u64,
    /// Units beyond these that were wanted in the last seconds, about.
    pub wanted: u64,
}

/// See [`Renewal::adopted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Of which limit.
    pub limit: LimitId,
    /// Which mint.
    pub epoch: u64,
    /// First window in which this life uses no more than it allows.
    pub from: u64,
}

/// The leader's answer. It answers only after a majority has confirmed, since the renewal came, that it leads: its mints are the newest, and no other leader counts from before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The renewal's.
    pub number: u64,
    /// Newest entry of the log whose mints are in here.
    pub seen: u64,
    /// What was minted since what the node has seen, oldest first.
    pub mints: Vec<Mint>,
    /// Limits that were removed meanwhile.
    pub gone: Vec<LimitId>,
}

impl Message {
    /// As a frame.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    /// From a frame; none: it cannot be read or is longer than anybody means it to be.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message = wire::decode::<Self, FRAME_BYTES_MAX>(bytes).ok()?;
        let fits = match &message {
            Self::Pull(_) | Self::Given(_) | Self::News(_) => true,
            Self::Told(told) => told.len() <= TOLD_LEN_MAX,
        };
        fits.then_some(message)
    }
}

impl Renewal {
    /// As a frame.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    /// From a frame; none: it cannot be read or is longer than anybody means it to be.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let renewal = wire::decode::<Self, RENEWAL_BYTES_MAX>(bytes).ok()?;
        Some(renewal).filter(|it| it.adopted.len() <= ADOPTED_LEN_MAX && it.uses.len() <= USES_LEN_MAX)
    }
}

impl Renewed {
    /// As a frame.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    /// From a frame; none: it cannot be read or is longer than anybody means it to be.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let renewed = wire::decode::<Self, RENEWAL_BYTES_MAX>(bytes).ok()?;
        let fits = |it: &Mint| it.shares.len() <= 2 * SHARES_LEN_MAX;
        Some(renewed)
            .filter(|it| it.mints.len() <= MINTS_LEN_MAX && it.mints.iter().all(fits) && it.gone.len() <= GONE_LEN_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::base::fuzz;
    use crate::base::ids::StorageId;
    use crate::limits::Kind;
    use crate::limits::mint::Share;

    fn mint(shares: usize) -> Mint {
        let share = Share { units: 1 << 31, floor: 1 << 31, ceiling: 1 << 31, is_in: true };
        let shares: BTreeMap<StorageId, Share> =
            (0..shares as u128).map(|it| (StorageId(u128::MAX - it), share)).collect();
        let (limit, revision, epoch, from) = (LimitId(u64::MAX), u64::MAX, u64::MAX, u64::MAX);
        Mint { limit, revision, epoch, kind: Kind::Tokens, window_ms: u32::MAX, is_settled: true, from, shares }
    }

    #[test]
    fn the_bytes_of_version_one_do_not_change() {
        let pull = Pull { limit: LimitId(7), window: 300, boot: 2, have: 3, need: 4, want: 5 };
        assert_eq!(Message::Pull(pull).encode().unwrap(), [1, 0, 7, 251, 44, 1, 2, 3, 4, 5]);
        let given = Given { limit: LimitId(7), window: 300, boot: 2, total: 8, left: 9 };
        assert_eq!(Message::Given(given).encode().unwrap(), [1, 1, 7, 251, 44, 1, 2, 8, 9]);
        let told = Told { limit: LimitId(7), window: 6, left: 5, demand: 4 };
        assert_eq!(Message::Told(vec![told]).encode().unwrap(), [1, 2, 1, 7, 6, 5, 4]);
        let adopted = vec![Adopted { limit: LimitId(7), epoch: 2, from: 6 }];
        let uses = vec![Use { limit: LimitId(3), in_use: 4, wanted: 5 }];
        let renewal = Renewal { number: 1, seen: 9, adopted, leaves_ms: Some(5), uses, is_busy: true };
        assert_eq!(renewal.encode().unwrap(), [1, 1, 9, 1, 7, 2, 6, 1, 5, 1, 3, 4, 5, 1]);
        assert_eq!(Message::News(6).encode().unwrap(), [1, 3, 6]);
        // A reader that does not know a kind refuses what is of it.
        assert_eq!(
            [Kind::Requests, Kind::Tokens, Kind::Streams].map(|it| wire::encode(&it).unwrap()),
            [[1, 0], [1, 1], [1, 2]]
        );
        let share = Share { units: 3, floor: 2, ceiling: 1, is_in: true };
        let shares = [(StorageId(4), share)].into();
        let mint = Mint {
            epoch: 2,
            revision: 3,
            limit: LimitId(7),
            window_ms: 60,
            is_settled: false,
            from: 8,
            shares,
            ..mint(0)
        };
        let renewed = Renewed { number: 1, seen: 9, mints: vec![mint], gone: vec![LimitId(5)] };
        assert_eq!(renewed.encode().unwrap(), [1, 1, 9, 1, 7, 3, 2, 1, 60, 0, 8, 1, 4, 3, 2, 1, 1, 1, 5]);
    }

    #[test]
    fn the_largest_messages_fit_and_larger_ones_are_refused() {
        let told = |len| {
            Message::Told(vec![
                Told { limit: LimitId(u64::MAX), window: u64::MAX, left: u64::MAX, demand: u64::MAX };
                len
            ])
        };
        let bytes = told(TOLD_LEN_MAX).encode().unwrap();
        assert!(bytes.len() <= FRAME_BYTES_MAX && Message::decode(&bytes).is_some(), "{}", bytes.len());
        assert_eq!(Message::decode(&told(TOLD_LEN_MAX + 1).encode().unwrap()), None);
        let adopted = |len| Renewal {
            adopted: vec![Adopted { limit: LimitId(u64::MAX), epoch: u64::MAX, from: u64::MAX }; len],
            ..Renewal::default()
        };
        assert!(Renewal::decode(&adopted(ADOPTED_LEN_MAX).encode().unwrap()).is_some());
        assert!(Renewal::decode(&adopted(ADOPTED_LEN_MAX + 1).encode().unwrap()).is_none());
        let uses = |len| Renewal {
            uses: vec![Use { limit: LimitId(u64::MAX), in_use: u64::MAX, wanted: u64::MAX }; len],
            ..adopted(ADOPTED_LEN_MAX)
        };
        assert!(Renewal::decode(&uses(USES_LEN_MAX).encode().unwrap()).is_some());
        assert!(Renewal::decode(&uses(USES_LEN_MAX + 1).encode().unwrap()).is_none());
        let renewed = |len| Renewed {
            mints: vec![mint(2 * SHARES_LEN_MAX); len],
            gone: vec![LimitId(u64::MAX); GONE_LEN_MAX],
            ..Renewed::default()
        };
        let bytes = renewed(MINTS_LEN_MAX).encode().unwrap();
        assert!(bytes.len() <= RENEWAL_BYTES_MAX && Renewed::decode(&bytes).is_some(), "{}", bytes.len());
        assert!(Renewed::decode(&renewed(MINTS_LEN_MAX + 1).encode().unwrap()).is_none());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in any::<Vec<u8>>()) {
            let framed = [&[wire::VERSION], &bytes[..]].concat();
            for bytes in [&bytes, &framed] {
                // Any answer will do, as long as there is one.
                let _ = (Message::decode(bytes), Renewal::decode(bytes), Renewed::decode(bytes));
            }
        }
    }

    /// One of each message, a renewal, and what it is answered.
    fn valid() -> [Vec<Vec<u8>>; 3] {
        let pull = Pull { limit: LimitId(7), window: 300, boot: 2, have: 3, need: 4, want: 5 };
        let given = Given { limit: LimitId(7), window: 300, boot: 2, total: 8, left: 9 };
        let told = vec![Told { limit: LimitId(7), window: 6, left: 5, demand: 4 }; 3];
        let most = Told { limit: LimitId(u64::MAX), window: u64::MAX, left: u64::MAX, demand: u64::MAX };
        let messages = [Message::Pull(pull), Message::Given(given), Message::Told(told), Message::News(6)];
        let adopted = vec![Adopted { limit: LimitId(7), epoch: 2, from: 6 }];
        let uses = vec![Use { limit: LimitId(3), in_use: 4, wanted: 5 }];
        let renewal = Renewal { number: 1, seen: 9, adopted, leaves_ms: Some(5), uses, is_busy: true };
        let renewed = Renewed { number: 1, seen: 9, mints: vec![mint(2)], gone: vec![LimitId(5)] };
        [
            messages
                .iter()
                .chain(&[Message::Told(Vec::new()), Message::Told(vec![most; 3])])
                .map(|it| it.encode().unwrap())
                .collect(),
            vec![renewal.encode().unwrap(), Renewal::default().encode().unwrap()],
            vec![renewed.encode().unwrap(), Renewed::default().encode().unwrap()],
        ]
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_message_is_read_or_refused(bytes in fuzz::damaged(valid().concat())) {
            fuzz::whole(FRAME_BYTES_MAX, 1, &bytes, Message::decode, |it| it.encode().unwrap());
            fuzz::whole(RENEWAL_BYTES_MAX, 1, &bytes, Renewal::decode, |it| it.encode().unwrap());
            fuzz::whole(RENEWAL_BYTES_MAX, 1, &bytes, Renewed::decode, |it| it.encode().unwrap());
        }
    }
}
