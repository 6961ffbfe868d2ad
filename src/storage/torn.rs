//! The one kind of damaged log that RocksDB cannot be given.
//!
//! RocksDB reads its write-ahead logs when it is opened, and ends at what is damaged: what was confirmed is before it. But a record whose type says that the log is a recycled one, in a log that began as one
//! that is not, is read again and again: opening never ends (log_reader.cc of 11.8, `first_record_read_ && !recycled_`). A write that was torn leaves such a byte in one of forty cases, and
//! a single bit that flips makes one of every whole record. Logs are not recycled here, so a log that would bring RocksDB there ends before its first damage.
//!
//! ```text
//!  block of 32 KiB:  crc 4 · length 2 · type 1 · payload │ … │ fewer than 7 bytes: padding
//! ```

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;

/// Ends each log of this directory before what RocksDB could not leave again. To be called before it is opened; a log that another process writes just now has nothing of the kind, and stays.
pub(super) fn end_logs(directory: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|it| it != "log") {
            continue;
        }
        if let Some(end) = unreadable_from(File::open(&path)?)? {
            let file = File::options().write(true).open(&path)?;
            let len = file.metadata()?.len();
            tracing::warn!(log = %path.display(), at = end, bytes = len - end, "a log of the store is damaged, as by a write that was torn; it ends before the damage now");
            file.set_len(end)?;
            file.sync_all()?;
        }
    }
    Ok(())
}

/// Where the first damage begins of a log that RocksDB would not come to the end of.
fn unreadable_from(mut log: impl Read) -> io::Result<Option<u64>> {
    let (mut block, mut begin, mut damage, mut has_record) = (Vec::with_capacity(BLOCK), 0, None, false);
    loop {
        block.clear();
        if log.by_ref().take(BLOCK as u64).read_to_end(&mut block)? == 0 {
            return Ok(None);
        }
        let mut rest = &block[..];
        // A damaged record takes the rest of its block with it.
        while let Some((header, payload)) = rest.split_at_checked(HEADER) {
            let at = begin + (block.len() - rest.len()) as u64;
            let [c0, c1, c2, c3, l0, l1, kind] = *header else { break };
            if is_of_recycled(kind) {
                // A log that begins like this is one, and is read well.
                return Ok(has_record.then(|| damage.unwrap_or(at)));
            }
            let len = usize::from(u16::from_le_bytes([l0, l1]));
            let whole = payload.get(..len).filter(|payload| {
                kind != 0
                    && unmasked(u32::from_le_bytes([c0, c1, c2, c3]))
                        == crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
            });
            if whole.is_none() {
                damage = damage.or(Some(at));
                break;
            }
            has_record = true;
            rest = &payload[len..];
        }
        begin += block.len() as u64;
    }
}

/// Types that only recycled logs have.
fn is_of_recycled(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

/// RocksDB writes checksums turned and moved, so that one of bytes with checksums in them is not weak.
fn unmasked(crc: u32) -> u32 {
    crc.wrapping_sub(0xa282_ead8).rotate_left(15)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::raft::Opaque;
    use crate::storage::Batch;
    use crate::storage::GroupId;
    use crate::storage::Store;
    use crate::storage::keys::Key;

    const ROWS: u64 = 40;

    fn key(row: u64) -> Key {
        Key::Entry(GroupId::CONTROL, row)
    }

    /// The directory of a store whose process was killed: nothing was closed, so that all is in its log. And the log.
    fn killed() -> (tempfile::TempDir, PathBuf) {
        let (lives, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(lives.path()).unwrap();
        for row in 0..ROWS {
            let mut batch = Batch::default();
            batch.put(key(row), &Opaque(vec![7; 3000])).unwrap();
            store.write(batch).unwrap();
        }
        store.flush().unwrap();
        for entry in std::fs::read_dir(lives.path()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, left.path().join(path.file_name().unwrap())).unwrap();
        }
        let logs = std::fs::read_dir(left.path()).unwrap().map(|it| it.unwrap().path());
        let log = logs.filter(|it| it.extension().is_some_and(|it| it == "log")).max().unwrap();
        (left, log)
    }

    /// How many rows of the beginning are there.
    fn rows(directory: &Path) -> u64 {
        let store = Store::open(directory).unwrap();
        let rows = (0..ROWS).take_while(|it| store.read::<Opaque>(key(*it)).unwrap().is_some()).count() as u64;
        assert!((rows..ROWS).all(|it| store.read::<Opaque>(key(it)).unwrap().is_none()), "rows after a gap");
        rows
    }

    #[test]
    fn a_log_that_is_well_stays_as_it_is() {
        let (directory, log) = killed();
        assert_eq!(unreadable_from(File::open(log).unwrap()).unwrap(), None);
        assert_eq!(rows(directory.path()), ROWS);
    }

    #[test]
    fn a_store_opens_whatever_a_torn_write_left_behind_what_was_confirmed() {
        for kind in 0..=255 {
            let (directory, log) = killed();
            let mut bytes = std::fs::read(&log).unwrap();
            bytes.extend([1, 2, 3, 4, 40, 0, kind]);
            bytes.extend([kind; 300]);
            // The next block begins with it, too.
            bytes.resize(bytes.len().next_multiple_of(BLOCK), kind);
            bytes.extend([kind; 100]);
            std::fs::write(&log, bytes).unwrap();
            assert_eq!(rows(directory.path()), ROWS, "{kind}");
        }
    }

    #[test]
    fn a_bit_that_flips_in_a_log_takes_nothing_that_is_before_it() {
        let (directory, log) = killed();
        let mut bytes = std::fs::read(&log).unwrap();
        // The second record's type: the first one has the length that its header tells.
        let second = HEADER + usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
        assert_eq!(bytes[second + 6], 1, "a whole record");
        bytes[second + 6] ^= 4;
        std::fs::write(&log, bytes).unwrap();
        assert_eq!(unreadable_from(File::open(&log).unwrap()).unwrap(), Some(second as u64));
        assert_eq!(rows(directory.path()), 1);
    }
}
