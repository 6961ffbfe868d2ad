//! How frames between nodes are written: one version byte, then bincode. The only place of the mesh that names bincode.
//!
//! The store has a codec of its own: what lies on disk and what is on the wire change for different reasons, and
//! `bincode` is fenced into both. *Invariants:* a frame is read whole or refused; a length in it never makes a reader
//! allocate more than the limit that the reader named; nothing panics on garbage.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// First byte of every frame. Another one is refused: the sender runs a release that this one cannot talk to.
pub const VERSION: u8 = 1;

/// Most that [`put`] and [`take`] read or write for one item inside a frame, in bytes.
const ITEM_BYTES_MAX: usize = 4 << 10;

/// Why a frame was refused. The sender's fault, or damage on the way; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Written by a release we cannot read, or not by us.
    #[error("frame of unknown version: {0:?}")]
    Version(Option<u8>),
    /// Cut, damaged, or a length beyond the limit.
    #[error("frame cannot be read: {0}")]
    Damaged(#[from] bincode::error::DecodeError),
    /// More bytes than the frame has.
    #[error("frame is followed by bytes that do not belong to it: {0}")]
    TrailingBytes(usize),
    /// A bug: something was written that has no encoding or is beyond its limit.
    #[error("frame cannot be written: {0}")]
    Unwritable(#[from] bincode::error::EncodeError),
}

fn config<const LIMIT: usize>() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<LIMIT>()
}

/// The value as a frame of its own.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())?;
    Ok(bytes)
}

/// The frame as a value; at most `LIMIT` bytes are allocated for it.
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let (value, read) = bincode::serde::decode_from_slice(rest, config::<LIMIT>())?;
            if read == rest.len() { Ok(value) } else { Err(WireError::TrailingBytes(rest.len() - read)) }
        }
        other => Err(WireError::Version(other.map(|(version, _)| *version))),
    }
}

/// One item of a frame that others have the version of.
pub fn put<T: Serialize>(item: &T) -> Result<Vec<u8>, WireError> {
    Ok(bincode::serde::encode_to_vec(item, config::<ITEM_BYTES_MAX>())?)
}

/// Reads one such item, and how many bytes it had.
pub fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), WireError> {
    Ok(bincode::serde::decode_from_slice(bytes, config::<ITEM_BYTES_MAX>())?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::fuzz;

    type Frame = (u64, Option<String>, Vec<Vec<u8>>);

    proptest! {
        #[test]
        fn a_frame_is_read_back_as_it_was_written(frame in any::<Frame>()) {
            prop_assert_eq!(decode::<Frame, { 1 << 20 }>(&encode(&frame).unwrap()).unwrap(), frame.clone());
            let bytes = put(&frame.0).unwrap();
            prop_assert_eq!(take::<u64>(&bytes).unwrap(), (frame.0, bytes.len()));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in any::<Vec<u8>>(), at in any::<usize>()) {
            let _ = decode::<Frame, 4096>(&bytes); // any answer will do, as long as there is one
            let mut frame = encode(&(7u64, Some("seven".to_owned()), vec![bytes])).unwrap();
            let at = at % frame.len();
            frame[at] ^= 0x5a;
            let _ = decode::<Frame, 4096>(&frame); // likewise
        }
    }

    #[test]
    fn a_frame_that_is_newer_cut_or_longer_than_it_says_is_refused() {
        let frame: Frame = (300, Some("a".to_owned()), Vec::new());
        let bytes = encode(&frame).unwrap();
        assert_eq!(bytes, [1, 251, 44, 1, 1, 1, b'a', 0], "the bytes of version one do not change");
        assert!(matches!(decode::<Frame, 64>(&[&[2], &bytes[1..]].concat()), Err(WireError::Version(Some(2)))));
        assert!(matches!(decode::<Frame, 64>(&[]), Err(WireError::Version(None))));
        assert!(matches!(decode::<Frame, 64>(&bytes[..5]), Err(WireError::Damaged(_))));
        assert!(matches!(decode::<Frame, 64>(&[&bytes[..], &[0]].concat()), Err(WireError::TrailingBytes(1))));
    }

    #[test]
    fn a_length_of_a_gigabyte_is_not_believed() {
        let text = [&[VERSION, 252], &(1u32 << 30).to_le_bytes()[..]].concat();
        assert!(matches!(decode::<String, 65536>(&text), Err(WireError::Damaged(_))));
        assert!(matches!(decode::<Vec<u64>, 65536>(&text), Err(WireError::Damaged(_))));
        assert!(take::<Vec<u8>>(&text[1..]).is_err());
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_frame_takes_no_more_than_its_reader_allows(bytes in fuzz::damaged(vec![encode(&(7u64, Some("seven".to_owned()), vec![vec![1u8; 9]; 9])).unwrap(), encode(&(7u64, Some("s".to_owned()), Vec::<Vec<u8>>::new())).unwrap()])) {
            fuzz::whole(4096, 1, &bytes, |it| decode::<Frame, 4096>(it).ok(), |it| encode(it).unwrap());
            let item = if bytes.is_empty() { &bytes[..] } else { &bytes[1..] };
            let _ = fuzz::within(ITEM_BYTES_MAX, || (take::<Frame>(item), take::<String>(item))); // any answer will do
            let _ = fuzz::within(ITEM_BYTES_MAX, || (take::<Frame>(&bytes), take::<String>(&bytes), take::<Vec<u64>>(&bytes))); // any answer will do
        }
    }
}
