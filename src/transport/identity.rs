//! Who this node is on disk: its node id, the id of its data directory, and how often it has started.
//!
//! What a node says in the mesh is signed with (storage id, boot): an actor that ever spoke twice under the same pair could
//! take back what it said. So the boot counter is fsynced before the first packet leaves. The file is written in place, in
//! two slots by turns: a power cut can tear only the slot whose boot was not used yet. In place, because then the file keeps its inode for life, and
//! a copy of the directory, which would be a second node under the same name, is told by its other inode.
//!
//! *Invariants:* 1. a boot is never handed out twice from one file; 2. a file that is cut, damaged or copied is an error that says what to do,
//! never a fresh identity; 3. two processes never hold the same file.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64;

use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::transport::faults::Fault;
use crate::transport::faults::planted;

/// The file, inside the data directory.
pub const FILE: &str = "node.id";
/// First byte of each slot.
const VERSION: u8 = 1;
/// A slot lies in a sector of its own, so that writing one cannot tear the other.
const SLOT_BYTES: u64 = 4096;
const RECORD_BYTES: usize = 1 + 8 + 16 + 8 + 8 + 8 + 8;

/// Why a data directory does not say who the node is. The operator's to mend; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written: rights, a full or read-only disk.
    #[error("`{}` cannot be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process runs on this data directory.
    #[error("`{}` is in use by another process: every node needs a data directory of its own", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It was cut, overwritten, or written by a newer release.
    #[error("`{}` is damaged or of a newer release: restore it is not safe; move the data directory away to join as a new node", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It is not the file that was written: the directory was copied, or restored from a backup.
    #[error("`{}` is a copy or an old backup: remove the file to join as a new node, or use the original directory", path.display())]
    Copied {
        /// The file.
        path: PathBuf,
    },
}

/// Who this node is for as long as the process lives. Holds the file, so that no other process can be it.
#[derive(Debug)]
pub struct Identity {
    /// Made with the data directory; a certificate from PKI files names another one.
    pub node: NodeId,
    /// The data directory.
    pub storage: StorageId,
    /// How often it has started, from 1.
    pub boot: u64,
    /// Orders the lives of one node: larger than in any life before, whatever the clock says.
    pub generation: u64,
    _held: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    node: u64,
    storage: u128,
    boot: u64,
    generation: u64,
    inode: u64,
}

impl Identity {
    /// Opens or makes the file in `directory` and counts this start, on disk before it returns. `wall_ms` is the time by the clock on the wall: only a
    /// start that finds no file depends on it.
    pub fn open(directory: &Path, wall_ms: u64, entropy: &Entropy) -> Result<Self, IdentityError> {
        let storage = match planted(Fault::PathsAreIdentities) {
            true => xxh3_64(directory.as_os_str().as_encoded_bytes()).into(),
            false => entropy.next_u128(),
        };
        Self::open_as(directory, wall_ms, entropy, StorageId(storage))
    }

    /// The same; where there is no file, the directory becomes that one.
    pub fn open_as(
        directory: &Path,
        wall_ms: u64,
        entropy: &Entropy,
        storage: StorageId,
    ) -> Result<Self, IdentityError> {
        let path = directory.join(FILE);
        let fail = |source| IdentityError::Io { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(fail)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(IdentityError::InUse { path }),
            Err(std::fs::TryLockError::Error(source)) => return Err(fail(source)),
        }
        let inode = file.metadata().map_err(fail)?.ino();
        let (last, slot) = match read(&file).map_err(fail)? {
            Found::Nothing => (create(&file, inode, entropy, storage).map_err(fail)?, 0),
            Found::Damage => return Err(IdentityError::Damaged { path }),
            Found::Last(last, _) if last.inode != inode && !planted(Fault::CopiesStart) => {
                return Err(IdentityError::Copied { path });
            }
            Found::Last(last, other_slot) => (last, other_slot),
        };
        let record = Record { boot: last.boot + 1, generation: wall_ms.max(last.generation + 1), ..last };
        file.write_all_at(&render(&record), slot * SLOT_BYTES).and_then(|()| file.sync_all()).map_err(fail)?;
        File::open(directory).and_then(|it| it.sync_all()).map_err(fail)?; // the file's name, when it is new
        let node =
            NodeId::parse(&format!("n-{:016x}", record.node)).map_err(|_short| IdentityError::Damaged { path })?;
        Ok(Self {
            node,
            storage: StorageId(record.storage),
            boot: record.boot,
            generation: record.generation,
            _held: file,
        })
    }
}

enum Found {
    Nothing,
    /// The newest record, and the slot that may be written.
    Last(Record, u64),
    Damage,
}

fn read(file: &File) -> io::Result<Found> {
    let len = file.metadata()?.len();
    if len != 0 && len != 2 * SLOT_BYTES {
        return Ok(Found::Damage);
    }
    let mut slots = [[0; RECORD_BYTES]; 2];
    if len != 0 {
        file.read_exact_at(&mut slots[0], 0)?;
        file.read_exact_at(&mut slots[1], SLOT_BYTES)?;
    }
    // Zeros throughout: the power went before anything was written, so nothing was said under this identity.
    let is_new = slots.iter().flatten().all(|byte| *byte == 0);
    // A torn slot's boot was never used; a rotten one's may have been the last. Counting one on covers both.
    let beside_damage = |it: Record| Record { boot: it.boot + 1, generation: it.generation + 1, ..it };
    Ok(match slots.each_ref().map(parse) {
        [None, None] if is_new => Found::Nothing,
        [None, None] => Found::Damage,
        [Some(a), Some(b)] if a.boot > b.boot => Found::Last(a, 1),
        [Some(_), Some(b)] => Found::Last(b, 0),
        [Some(a), None] => Found::Last(beside_damage(a), 1),
        [None, Some(b)] => Found::Last(beside_damage(b), 0),
    })
}

/// Writes a record of boot 0, which is never used, into both slots.
fn create(file: &File, inode: u64, entropy: &Entropy, storage: StorageId) -> io::Result<Record> {
    let record = Record { node: entropy.next_u64(), storage: storage.0, boot: 0, generation: 0, inode };
    file.set_len(2 * SLOT_BYTES)?;
    file.write_all_at(&render(&record), 0)?;
    file.write_all_at(&render(&record), SLOT_BYTES)?;
    file.sync_all()?;
    Ok(record)
}

fn render(record: &Record) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[0] = VERSION;
    bytes[1..9].copy_from_slice(&record.node.to_le_bytes());
    bytes[9..25].copy_from_slice(&record.storage.to_le_bytes());
    bytes[25..33].copy_from_slice(&record.boot.to_le_bytes());
    bytes[33..41].copy_from_slice(&record.generation.to_le_bytes());
    bytes[41..49].copy_from_slice(&record.inode.to_le_bytes());
    let sum = xxh3_64(&bytes[..49]);
    bytes[49..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8; RECORD_BYTES]) -> Option<Record> {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let is_whole = bytes[0] == VERSION && word(49) == xxh3_64(&bytes[..49]);
    is_whole.then(|| Record {
        node: word(1),
        storage: u128::from_le_bytes(std::array::from_fn(|i| bytes[9 + i])),
        boot: word(25),
        generation: word(33),
        inode: word(41),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::faults::plant;

    fn open(directory: &Path, wall_ms: u64) -> Result<Identity, IdentityError> {
        Identity::open(directory, wall_ms, &Entropy::from_os())
    }

    #[test]
    fn a_restart_keeps_the_ids_counts_one_on_and_never_goes_back_with_the_clock() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("made/on/demand");
        let first = open(&data, 1_000).unwrap();
        let (node, storage) = (first.node.clone(), first.storage);
        assert_eq!((first.boot, first.generation), (1, 1_000));
        drop(first);
        for (boot, generation) in (2..20).zip(1_001..) {
            let next = open(&data, 7).unwrap();
            assert_eq!((&next.node, next.storage, next.boot, next.generation), (&node, storage, boot, generation));
        }
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(other.path(), 1).unwrap().storage, storage);
        std::fs::remove_dir_all(&data).unwrap();
        assert_ne!(open(&data, 1).unwrap().storage, storage, "what was emptied is another");
        plant(Some(Fault::PathsAreIdentities));
        let twice = [0, 1].map(|_| {
            std::fs::remove_dir_all(&data).unwrap();
            open(&data, 1).unwrap().storage
        });
        plant(None);
        assert_eq!(twice[0], twice[1], "a planted bug: it is the same, and has forgotten what it said");
    }

    #[test]
    fn a_directory_serves_one_process() {
        let data = tempfile::tempdir().unwrap();
        let _held = open(data.path(), 1).unwrap();
        assert!(matches!(open(data.path(), 1), Err(IdentityError::InUse { .. })));
    }

    #[test]
    fn a_copy_is_told_from_the_original() {
        let (data, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(open(data.path(), 1).unwrap());
        std::fs::copy(data.path().join(FILE), copy.path().join(FILE)).unwrap();
        let error = open(copy.path(), 1).unwrap_err();
        assert!(matches!(error, IdentityError::Copied { .. }), "{error}");
        plant(Some(Fault::CopiesStart));
        let (it, same) = (open(data.path(), 1).unwrap(), open(copy.path(), 1).unwrap());
        plant(None);
        assert_eq!((it.storage, it.boot), (same.storage, same.boot), "a planted bug: two are one");
        drop(it);
        assert_eq!(open(data.path(), 1).unwrap().boot, 3, "the original goes on");
    }

    #[test]
    fn a_file_that_was_cut_or_overwritten_is_never_a_fresh_identity() {
        for damage in [vec![], vec![0; 8191], vec![0xff; 8192], b"node".to_vec(), vec![1; 20_000]] {
            let data = tempfile::tempdir().unwrap();
            drop(open(data.path(), 1).unwrap());
            let file = OpenOptions::new().write(true).open(data.path().join(FILE)).unwrap();
            file.set_len(damage.len() as u64).unwrap();
            file.write_all_at(&damage, 0).unwrap();
            let outcome = open(data.path(), 1);
            if damage.is_empty() {
                continue; // indistinguishable from a file that was never written
            }
            assert!(matches!(outcome, Err(IdentityError::Damaged { .. })), "{outcome:?}");
        }
    }

    #[test]
    fn a_power_cut_in_any_write_never_brings_a_boot_back() {
        let data = tempfile::tempdir().unwrap();
        let mut used = 0;
        for round in 0..12 {
            let boot = open(data.path(), 1).unwrap().boot;
            assert!(boot > used, "boot {boot} after {used}");
            used = boot;
            // The slot that the next start would have written is torn.
            let file = OpenOptions::new().read(true).write(true).open(data.path().join(FILE)).unwrap();
            if let Found::Last(_, slot) = read(&file).unwrap() {
                file.write_all_at(&[0x5a; 30], slot * SLOT_BYTES + round % 40).unwrap();
            }
        }
    }

    #[test]
    fn the_bytes_of_version_one_do_not_change() {
        let record = Record { node: 1, storage: 2, boot: 3, generation: 4, inode: 5 };
        let bytes = render(&record);
        assert_eq!((bytes[0], bytes[1], bytes[9], bytes[25], bytes[33], bytes[41]), (1, 1, 2, 3, 4, 5));
        assert_eq!(bytes[49..], 0xc042_96ac_372d_51ccu64.to_le_bytes());
        assert_eq!(parse(&bytes), Some(record));
    }
}
