//! All of history as a file: for a backup, and for the way from one backend to another.
//!
//! `SMGH`, a version byte, then [`frames`], each a value of [`codec`]: a [`Head`], then rows in the order of their keys, about a megabyte in each; an empty one is the last. The rows are those of one moment.

use std::io;
use std::io::Read;
use std::io::Write;

use serde::Deserialize;
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::machine::read;
use super::machine::verify;
use crate::raft::Rows;
use crate::storage::codec;
use crate::storage::codec::CodecError;
use crate::storage::frames;
use crate::storage::frames::Torn;

const BEGINNING: [u8; 5] = *b"SMGH\x01";
/// About how many bytes of rows a frame has, unless a single one is larger.
const FRAME_BYTES: usize = 1 << 20;

/// Key and value.
pub type Row = (ByteBuf, ByteBuf);

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// How many commands had been carried out.
    pub commands: u64,
    /// Where it was kept.
    pub backend: String,
}

/// Why a file was not written or read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is none, of another release, or damaged.
    #[error("it is no export of history that this release can read, or it is damaged: {0}")]
    Damaged(String),
}

impl From<Torn> for ExportError {
    fn from(torn: Torn) -> Self {
        Self::Damaged(torn.to_string())
    }
}

impl From<CodecError> for ExportError {
    fn from(error: CodecError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Writes all rows.
pub fn write(rows: &dyn Rows, backend: &str, made_ms: u64, out: &mut dyn Write) -> Result<(), ExportError> {
    let commands = read::commands(rows).map_err(|error| ExportError::Damaged(error.to_string()))?;
    out.write_all(&BEGINNING)?;
    frames::write(out, &codec::encode(&Head { made_ms, commands, backend: backend.to_owned() })?)?;
    let (mut frame, mut bytes, mut failed) = (Vec::new(), 0, None);
    verify::each(rows, |key, value| {
        bytes += key.len() + value.len();
        frame.push((ByteBuf::from(key), ByteBuf::from(value)));
        if bytes >= FRAME_BYTES {
            let written = write_rows(out, &std::mem::take(&mut frame));
            failed = failed.take().or(written.err());
            bytes = 0;
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    if !frame.is_empty() {
        write_rows(out, &frame)?;
    }
    frames::write(out, &[])?;
    Ok(out.flush()?)
}

fn write_rows(out: &mut dyn Write, rows: &[Row]) -> Result<(), ExportError> {
    Ok(frames::write(out, &codec::encode(rows)?)?)
}

/// Reads the beginning of a file.
pub fn read_head(from: &mut impl Read) -> Result<Head, ExportError> {
    let mut beginning = [0; BEGINNING.len()];
    from.read_exact(&mut beginning)?;
    if beginning != BEGINNING {
        return Err(ExportError::Damaged("it does not begin as one".to_owned()));
    }
    let head = frames::read(from)?.ok_or_else(|| ExportError::Damaged("it is empty".to_owned()))?;
    Ok(codec::decode(&head)?)
}

/// Reads what follows it, frame by frame. None: that was all.
pub fn read_rows(from: &mut impl Read) -> Result<Option<Vec<Row>>, ExportError> {
    Ok(frames::read(from)?.map(|it| codec::decode(&it)).transpose()?)
}

/// Rows of a frame as they travel to a node.
pub fn encode_rows(rows: &[Row]) -> Result<Vec<u8>, ExportError> {
    Ok(codec::encode(rows)?)
}

/// Reads them.
pub fn decode_rows(bytes: &[u8]) -> Result<Vec<Row>, ExportError> {
    Ok(codec::decode(bytes)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::fuzz;
    use proptest::prelude::*;

    #[test]
    fn a_file_has_all_rows_and_damage_is_found_wherever_it_is() {
        let rows: BTreeMap<Vec<u8>, Vec<u8>> = (0..60_u8).map(|n| (vec![1, n], vec![n; 50_000])).collect();
        let mut file = Vec::new();
        write(&rows, "memory", 7, &mut file).unwrap();
        let whole = |file: &[u8]| -> Result<Vec<Row>, ExportError> {
            let (mut from, mut all) = (file, Vec::new());
            let head = read_head(&mut from)?;
            assert_eq!((head.made_ms, head.backend.as_str()), (7, "memory"));
            while let Some(rows) = read_rows(&mut from)? {
                all.extend(rows);
            }
            Ok(all)
        };
        let read: BTreeMap<_, _> =
            whole(&file).unwrap().into_iter().map(|it| (it.0.into_vec(), it.1.into_vec())).collect();
        assert_eq!(read, rows);
        for at in [0, 4, 20, 1000, 1_500_000, file.len() - 1] {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(whole(&damaged).is_err(), "byte {at}");
            assert!(whole(&file[..at]).is_err(), "cut at {at}");
        }
    }

    /// A small file.
    fn small() -> Vec<u8> {
        let rows: BTreeMap<Vec<u8>, Vec<u8>> = (0..5_u8).map(|n| (vec![1, n], vec![n; 9])).collect();
        let mut file = Vec::new();
        write(&rows, "memory", 7, &mut file).unwrap();
        file
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_export_is_whole_or_refused(bytes in fuzz::damaged(vec![small()]), rows in fuzz::damaged(vec![encode_rows(&[(ByteBuf::from(b"k"), ByteBuf::from(b"v"))]).unwrap(), encode_rows(&[]).unwrap()])) {
            let read = || {
                let from = &mut &bytes[..];
                let head = read_head(from)?;
                let mut all = Vec::new();
                while let Some(rows) = read_rows(from)? {
                    all.extend(rows);
                }
                Ok::<_, ExportError>((head.made_ms, all.len()))
            };
            // Frames carry a hash, so what is taken is what was written.
            if let Ok(read) = fuzz::within(1 << 20, read) {
                prop_assert!(read == (7, 5) && bytes.starts_with(&small()), "something else was taken: {read:?}");
            }
            fuzz::whole(codec::BYTES_MAX, 1, &rows, |it| decode_rows(it).ok(), |it| encode_rows(it).unwrap());
        }
    }
}
