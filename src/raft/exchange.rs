//! The rows of a group as a stream: how the state of a machine that is its rows gets to another member.
//!
//! `SMGR`, a version byte, then [`frames`], each a value of [`codec`]. The first is a [`Head`], those that follow are rows in the order of
//! their keys; an empty one is the last. *Invariant:* a stream is taken only after all of it was read once and found whole.

use std::io;
use std::io::Read;
use std::io::Write;

use serde::Deserialize;
use serde::Serialize;

use super::LogId;
use super::state_machine::StoredMembership;
use crate::storage::GroupRow;
use crate::storage::GroupView;
use crate::storage::StoreError;
use crate::storage::codec;
use crate::storage::frames;

const BEGINNING: [u8; 5] = *b"SMGR\x01";
/// About how many bytes of rows a frame has, unless a single one is larger.
const FRAME_BYTES: usize = 1 << 20;

/// What the rows stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
}

/// Why a stream was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it was made by another release, or is damaged")]
    Damaged,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<frames::Torn> for ExchangeError {
    fn from(torn: frames::Torn) -> Self {
        match torn {
            frames::Torn::Io(error) => error.into(),
            frames::Torn::Damaged => Self::Damaged,
        }
    }
}

/// Writes all rows of a view.
pub(super) fn export(view: &GroupView<'_>, head: &Head, out: &mut dyn Write) -> Result<(), ExchangeError> {
    out.write_all(&BEGINNING)?;
    frames::write(out, &codec::encode(head).map_err(StoreError::from)?)?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for row in view.all() {
        let row = row?;
        bytes += row.0.len() + row.1.len();
        rows.push(row);
        if bytes >= FRAME_BYTES {
            frames::write(out, &codec::encode(&std::mem::take(&mut rows)).map_err(StoreError::from)?)?;
            bytes = 0;
        }
    }
    if !rows.is_empty() {
        frames::write(out, &codec::encode(&rows).map_err(StoreError::from)?)?;
    }
    frames::write(out, &[])?;
    Ok(out.flush()?)
}

/// Reads a stream, frame by frame.
pub(super) fn import(
    mut from: impl Read,
    mut take: impl FnMut(Vec<GroupRow>) -> Result<(), StoreError>,
) -> Result<Head, ExchangeError> {
    let mut beginning = [0; BEGINNING.len()];
    from.read_exact(&mut beginning)?;
    if beginning != BEGINNING {
        return Err(ExchangeError::Damaged);
    }
    let head = frames::read(&mut from)?.ok_or(ExchangeError::Damaged)?;
    let head = codec::decode(&head).map_err(|_damage| ExchangeError::Damaged)?;
    while let Some(frame) = frames::read(&mut from)? {
        take(codec::decode(&frame).map_err(|_damage| ExchangeError::Damaged)?)?;
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use crate::storage::Batch;
    use crate::storage::GroupId;
    use crate::storage::Store;
    use proptest::prelude::*;

    #[test]
    fn rows_go_over_whole_and_a_damaged_stream_is_found_wherever_the_damage_is() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut batch = Batch::default();
        let rows: Vec<GroupRow> = (0..50_u8).map(|n| (vec![n], vec![n; 50_000])).collect();
        rows.iter().for_each(|it| batch.put_group_row(GroupId(1), &it.0, Some(it.1.clone())));
        batch.put_group_row(GroupId(2), b"another's", Some(Vec::new()));
        store.write(batch).unwrap();
        let head = Head { applied: None, membership: StoredMembership::default() };
        let mut stream = Vec::new();
        export(&store.group_view(GroupId(1)), &head, &mut stream).unwrap();
        let mut taken = Vec::new();
        let read = import(&stream[..], |rows| {
            taken.push(rows);
            Ok(())
        });
        assert_eq!(read.unwrap(), head);
        assert_eq!((taken.len(), taken.concat()), (3, rows), "frames of a megabyte");
        for at in [0, 4, 6, 12, 20, 100, 1_000_000, stream.len() - 1] {
            let mut damaged = stream.clone();
            damaged[at] ^= 1;
            assert!(import(&damaged[..], |_| Ok(())).is_err(), "byte {at}");
            assert!(import(&stream[..at], |_| Ok(())).is_err(), "cut at {at}");
        }
    }

    /// A small stream.
    fn valid() -> Vec<Vec<u8>> {
        let mut stream = BEGINNING.to_vec();
        let head = Head { applied: None, membership: StoredMembership::default() };
        frames::write(&mut stream, &codec::encode(&head).unwrap()).unwrap();
        for n in 0..3_u8 {
            let rows: Vec<GroupRow> = vec![(vec![n], vec![n; 20])];
            frames::write(&mut stream, &codec::encode(&rows).unwrap()).unwrap();
        }
        frames::write(&mut stream, &[]).unwrap();
        vec![stream]
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_stream_of_rows_is_whole_or_refused(bytes in fuzz::damaged(valid())) {
            let read = |bytes: &[u8]| {
                let mut rows = Vec::new();
                import(bytes, |some| { rows.extend(some); Ok(()) }).is_ok().then_some(rows)
            };
            // Frames carry a hash, so what is taken is what was written.
            if let Some(rows) = fuzz::within(1 << 20, || read(&bytes)) {
                let whole = &valid()[0];
                prop_assert!(bytes.starts_with(whole), "something else was taken: {} rows", rows.len());
            }
        }
    }
}
