//! What is in a datagram: the lane's byte, with a bit for a question or an answer, then its number, then the message.
//!
//! A stream for each question costs both ends its opening, its end and an acknowledgement of each. Where the answer is worthless after a few milliseconds, nothing of
//! that is needed: what is lost is not repeated, and the deadline is the only end.

use bytes::Buf as _;
use bytes::BufMut as _;
use bytes::Bytes;
use bytes::BytesMut;

use super::lanes::Lane;

/// Most that stands before the message.
pub(super) const HEAD_BYTES: usize = 5;
const QUESTION: u8 = 0x40;
const ANSWER: u8 = 0x80;

/// One datagram of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Datagram {
    /// Nobody waits for anything.
    Message(Bytes),
    /// The asker's number of it, for the answer.
    Question(u32, Bytes),
    /// To the question of that number.
    Answer(u32, Bytes),
}

pub(super) fn write(datagram: &Datagram, lane: Lane) -> Bytes {
    let (bit, id, message) = match datagram {
        Datagram::Message(bytes) => (0, None, bytes),
        Datagram::Question(id, bytes) => (QUESTION, Some(*id), bytes),
        Datagram::Answer(id, bytes) => (ANSWER, Some(*id), bytes),
    };
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + message.len());
    bytes.put_u8(lane.byte() | bit);
    id.into_iter().for_each(|it| bytes.put_u32(it));
    bytes.put_slice(message);
    bytes.freeze()
}

/// None: it is no datagram of ours, or of a lane that has none.
pub(super) fn read(mut bytes: Bytes) -> Option<(Lane, Datagram)> {
    let byte = bytes.try_get_u8().ok()?;
    let lane = Lane::from_byte(byte & !(QUESTION | ANSWER)).filter(|it| it.is_brief())?;
    let datagram = match byte & (QUESTION | ANSWER) {
        0 => Datagram::Message(bytes),
        QUESTION => Datagram::Question(bytes.try_get_u32().ok()?, bytes),
        ANSWER => Datagram::Answer(bytes.try_get_u32().ok()?, bytes),
        _ => return None,
    };
    Some((lane, datagram))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_do_not_change_and_are_read_back() {
        let it = Bytes::from_static(b"it");
        let all = [
            (Lane::Swim, Datagram::Message(it.clone()), &b"\x01it"[..]),
            (Lane::Ledger, Datagram::Message(it.clone()), b"\x04it"),
            (Lane::Ledger, Datagram::Question(7, it.clone()), b"\x44\0\0\0\x07it"),
            (Lane::Ledger, Datagram::Answer(7, it), b"\x84\0\0\0\x07it"),
        ];
        for (lane, datagram, bytes) in all {
            assert_eq!(write(&datagram, lane), bytes);
            assert_eq!(read(Bytes::from_static(bytes)), Some((lane, datagram)));
        }
    }

    #[test]
    fn what_no_node_sends_is_refused() {
        for bytes in [&b""[..], b"\0it", b"\x02it", b"\x43\0\0\0\x07it", b"\xc4\0\0\0\x07it", b"\x44\0\0\0", b"\x84"] {
            assert_eq!(read(Bytes::copy_from_slice(bytes)), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in any::<Vec<u8>>()) {
            if let Some((lane, datagram)) = read(Bytes::from(bytes.clone())) {
                prop_assert_eq!(write(&datagram, lane), bytes);
            }
        }
    }
}
