//! How values lie on disk: one version byte, then bincode. The only place that names bincode.
//!
//! bincode does not describe itself, so the version is what tells a newer node's value from garbage. *Invariants:* a value
//! is read whole or refused; no length in it can make a reader allocate more than [`BYTES_MAX`].

use serde::Serialize;
use serde::de::DeserializeOwned;

/// First byte of every value.
const VERSION: u8 = 1;

/// Largest value. A snapshot of a group must fit; a larger bound would only let a damaged length allocate more.
pub const BYTES_MAX: usize = 256 << 20;

/// Why a value was refused.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer version, or not by us. Use the version that wrote it.
    #[error("value of unknown version: {0:?}")]
    Version(Option<u8>),
    /// Damaged: restore the store from another member or a backup.
    #[error("value cannot be read: {0}")]
    Damaged(#[from] bincode::error::DecodeError),
    /// Damaged: there is more than one value.
    #[error("value is followed by bytes that do not belong to it: {0}")]
    TrailingBytes(usize),
    /// A bug: something was written that has no encoding.
    #[error("value cannot be written: {0}")]
    Unwritable(#[from] bincode::error::EncodeError),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<BYTES_MAX>()
}

/// The value as bytes.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, config())?;
    Ok(bytes)
}

/// The bytes as a value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let (value, read) = bincode::serde::decode_from_slice(rest, config())?;
            if read == rest.len() { Ok(value) } else { Err(CodecError::TrailingBytes(rest.len() - read)) }
        }
        other => Err(CodecError::Version(other.map(|(version, _)| *version))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::fuzz;

    type Value = (u64, Option<String>, Vec<Vec<u8>>);

    proptest! {
        #[test]
        fn a_value_is_read_back_as_what_was_written(value in any::<Value>()) {
            prop_assert_eq!(decode::<Value>(&encode(&value).unwrap()).unwrap(), value);
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode::<Value>(&bytes); // any answer will do, as long as there is one
        }
    }

    #[test]
    fn what_is_newer_cut_or_too_long_is_refused() {
        let value: Value = (7, Some("a".to_owned()), Vec::new());
        let bytes = encode(&value).unwrap();
        assert_eq!(bytes, [1, 7, 1, 1, b'a', 0], "the bytes of version one do not change");
        assert!(matches!(decode::<Value>(&[&[9], &bytes[1..]].concat()), Err(CodecError::Version(Some(9)))));
        assert!(matches!(decode::<Value>(&[]), Err(CodecError::Version(None))));
        assert!(matches!(decode::<Value>(&bytes[..3]), Err(CodecError::Damaged(_))));
        assert!(matches!(decode::<Value>(&[&bytes[..], &[0]].concat()), Err(CodecError::TrailingBytes(1))));
        let huge = [&[VERSION, 253], &u64::MAX.to_le_bytes()[..]].concat();
        assert!(matches!(decode::<Vec<u8>>(&huge), Err(CodecError::Damaged(_))), "a length must not be believed");
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_value_is_read_whole_or_refused(bytes in fuzz::damaged(vec![encode(&(7u64, Some("seven".to_owned()), vec![vec![1u8; 9]; 9])).unwrap(), encode(&(7u64, Some("s".to_owned()), Vec::<Vec<u8>>::new())).unwrap()])) {
            fuzz::whole(BYTES_MAX, 1, &bytes, |it| decode::<Value>(it).ok(), |it| encode(it).unwrap());
        }
    }
}
