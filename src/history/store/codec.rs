//! How values lie on disk: one version byte, then bincode. The only place that names bincode.
//!
//! bincode does not describe itself, so the version is what tells a newer node's value from garbage. *Invariants:* a value
//! is read whole or refused; no length in it can make a reader allocate more than [`BYTES_MAX`].

use serde::Serialize;
use serde::de::DeserializeOwned;

/// First byte of every value.
const VERSION: u8 = 1;

/// Largest value. A snapshot of the most workers with the longest descriptions must fit; a larger bound would only
/// let a damaged length allocate more.
pub const BYTES_MAX: usize = 256 << 20;

const _: () = assert!(crate::base::limits::WORKERS_MAX * (super::super::machine::SPEC_BYTES_MAX + 16) < BYTES_MAX);

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
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
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

    use super::super::super::machine::Command;
    use super::*;

    proptest! {
        #[test]
        fn a_command_is_read_back_as_what_was_written(id in any::<u64>(), spec in any::<Vec<u8>>()) {
            let command = Command::PutWorker { id, spec };
            prop_assert_eq!(decode::<Command>(&encode(&command).unwrap()).unwrap(), command);
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode::<Command>(&bytes); // any answer will do, as long as there is one
        }
    }

    #[test]
    fn what_is_newer_cut_or_too_long_is_refused() {
        let bytes = encode(&Command::RemoveWorker { id: 7 }).unwrap();
        assert!(matches!(decode::<Command>(&[&[9], &bytes[1..]].concat()), Err(CodecError::Version(Some(9)))));
        assert!(matches!(decode::<Command>(&[]), Err(CodecError::Version(None))));
        assert!(matches!(decode::<Command>(&bytes[..2]), Err(CodecError::Damaged(_))));
        assert!(matches!(decode::<Command>(&[&bytes[..], &[0]].concat()), Err(CodecError::TrailingBytes(1))));
        let huge = [&[VERSION, 0, 1, 253], &u64::MAX.to_le_bytes()[..]].concat();
        assert!(matches!(decode::<Command>(&huge), Err(CodecError::Damaged(_))), "a length must not be believed");
    }

    #[test]
    fn the_bytes_of_version_one_do_not_change() {
        let put = Command::PutWorker { id: 5, spec: b"ab".to_vec() };
        assert_eq!(encode(&put).unwrap(), [1, 0, 5, 2, b'a', b'b']);
        assert_eq!(encode(&Command::RemoveWorker { id: 5 }).unwrap(), [1, 1, 5]);
        assert_eq!(encode(&Command::PutPolicies { spec: b"ab".to_vec() }).unwrap(), [1, 2, 2, b'a', b'b']);
        assert_eq!(encode(&Command::RemovePolicies).unwrap(), [1, 3]);
    }
}
