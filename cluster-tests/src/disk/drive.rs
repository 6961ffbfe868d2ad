//! A folder with one file in it, which is the disk: what the kernel asks for is answered from its memory.
//!
//! A drive is for one time that the power is on. What is asked of it later, by a file system that does not know yet that it is gone, is an error and changes nothing.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use fuser::Errno;
use fuser::FileAttr;
use fuser::FileHandle;
use fuser::FileType;
use fuser::Filesystem;
use fuser::Generation;
use fuser::INodeNo;
use fuser::LockOwner;
use fuser::OpenFlags;
use fuser::ReplyAttr;
use fuser::ReplyData;
use fuser::ReplyEmpty;
use fuser::ReplyEntry;
use fuser::ReplyWrite;
use fuser::Request;
use fuser::WriteFlags;
use parking_lot::Mutex;

use super::platter::Platter;

/// The name of the file.
pub(super) const FILE: &str = "disk";
const FILE_NUMBER: INodeNo = INodeNo(2);
/// Nothing about it changes while it is there.
const TTL: Duration = Duration::from_secs(3600);

/// The disk, and how often its power has failed.
pub(super) struct Powered {
    pub(super) platter: Platter,
    pub(super) cuts: u64,
    pub(super) bytes: u64,
    pub(super) hurt: Hurt,
}

/// What is wrong with it while it has power.
#[derive(Clone, Copy, Default)]
pub(super) struct Hurt {
    /// Flushes do nothing and say so.
    pub(super) fails: bool,
    /// Each flush takes so long, and everybody waits for it.
    pub(super) takes: Duration,
    /// Flushes that were hurt, all in all.
    pub(super) flushes: u64,
}

/// The disk between two cuts.
pub(super) struct Drive {
    disk: Arc<Mutex<Powered>>,
    cuts: u64,
}

impl Drive {
    pub(super) fn new(disk: Arc<Mutex<Powered>>) -> Self {
        let cuts = disk.lock().cuts;
        Self { disk, cuts }
    }

    /// Does something with the disk, if its power is still on.
    fn on<T>(&self, work: impl FnOnce(&mut Powered) -> T) -> Result<T, Errno> {
        let mut disk = self.disk.lock();
        if disk.cuts == self.cuts { Ok(work(&mut disk)) } else { Err(Errno::EIO) }
    }

    fn attributes(&self, number: INodeNo) -> FileAttr {
        let (kind, size) = match number {
            FILE_NUMBER => (FileType::RegularFile, self.disk.lock().bytes),
            INodeNo(_) => (FileType::Directory, 0),
        };
        FileAttr {
            ino: number,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Drive {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == FILE {
            true => reply.entry(&TTL, &self.attributes(FILE_NUMBER), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(number));
    }

    /// Times and the like.
    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<fuser::TimeOrNow>,
        _mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&TTL, &self.attributes(number));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.on(|it| {
            let len = u64::from(size).min(it.bytes.saturating_sub(offset));
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            it.platter.read(offset, &mut bytes);
            bytes
        });
        match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.on(|it| {
            let is_inside = offset.saturating_add(bytes.len() as u64) <= it.bytes;
            if is_inside {
                it.platter.write(offset, bytes);
            }
            is_inside
        });
        match written {
            Ok(true) => reply.written(u32::try_from(bytes.len()).unwrap_or(0)),
            Ok(false) => reply.error(Errno::ENOSPC),
            Err(error) => reply.error(error),
        }
    }

    /// Closing says nothing about durability.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let hurt = self.on(|it| {
            it.hurt.flushes += u64::from(it.hurt.fails || !it.hurt.takes.is_zero());
            it.hurt
        });
        // Nobody else is served meanwhile: there is one thread for a disk, as a disk that hangs does one thing.
        hurt.as_ref().iter().for_each(|it| std::thread::sleep(it.takes));
        match hurt.and_then(|hurt| if hurt.fails { Err(Errno::EIO) } else { self.on(|it| it.platter.flush()) }) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}
