//! A disk whose power can be cut.
//!
//! ```text
//!  node ── write, fsync ──▶ ext4 ──▶ loop device ──▶ one file in a FUSE folder ──▶ this process: what is durable | what was written since
//! ```
//! A folder alone could forget what was not fsynced, but it would be a model of a file system, and as good as our idea of one. Here the file system is real, journal and all, and what is modelled is what
//! disks promise: a flush that was answered is kept; all else is kept or lost sector by sector.
//!
//! *Invariants:* 1. a [`Disk::cut`] is at one moment for all that the disk does; what is asked afterwards fails; 2. what comes back after [`Disk::restore`] is read from the disk and from no cache: it is another file
//! for another loop device; 3. nothing is left behind: the file system is mounted where only its node sees it ([`Disk::mounting`]), and goes with the node as its loop device does; the folder is in a namespace of this process
//! ([`own_mounts`]), and when this process dies, its answers are errors. *Absent:* a mount of the file system in this process. A process that ends unmounts before it closes, so it would wait for its own answers, for ever.

mod drive;
mod platter;

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use fuser::BackgroundSession;
use parking_lot::Mutex;
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

use drive::Drive;
use drive::Hurt;
use drive::Powered;
use platter::Platter;

pub use platter::Cut;

/// The disk.
pub struct Disk {
    disk: Arc<Mutex<Powered>>,
    folder: TempDir,
    /// Serves the file; `None` while the power is off.
    session: Option<BackgroundSession>,
}

/// Gives the calling process mounts of its own, so that nobody else sees those made from now on and they end with it. Must be called before there is another thread.
#[expect(unsafe_code, reason = "the call has a form that shares memory badly; this is not it")]
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: only `UnshareFlags::FILES` can make a descriptor unusable in another thread; new mounts leave descriptors and memory as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(Into::into)
}

/// Whether this machine lets us: FUSE, loop devices, ext4.
pub fn is_possible() -> Result<(), String> {
    let tried = Disk::new(8 << 20, 0).and_then(|mut disk| {
        disk.cut();
        disk.restore()?;
        let top = disk.folder.path().join("top");
        std::fs::create_dir(&top)?;
        order(Command::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", &disk.mounting(&top)]))
    });
    tried.map_err(|error| format!("it needs root, /dev/fuse, loop devices and ext4: {error}"))
}

impl Disk {
    /// An empty one with a file system. The seed decides what a cut tears.
    pub fn new(bytes: u64, seed: u64) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("drive"))?;
        let disk = Arc::new(Mutex::new(Powered { platter: Platter::new(seed), cuts: 0, bytes, hurt: Hurt::default() }));
        let mut made = Self { disk, folder, session: None };
        made.serve()?;
        // All tables now: what is done later in the background would be torn, too, and says nothing about nodes.
        let options = ["-q", "-F", "-N", "2048", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"];
        order(Command::new("mkfs.ext4").args(options).arg(made.file()))?;
        made.disk.lock().platter.flush();
        Ok(made)
    }

    /// The shell command that mounts its file system, as a machine that boots would: one that cannot be mounted, as after flushes that failed, is repaired first. For a shell with mounts of its own: the file system goes with whoever runs there, and so does the loop device.
    #[must_use]
    pub fn mounting(&self, at: &Path) -> String {
        let (file, at) = (self.file().display().to_string(), at.display());
        let mount = format!("mount -t ext4 -o loop,noatime {file} {at}");
        format!("{{ {mount} 2>/dev/null || {{ fsck.ext4 -fy {file} >/dev/null 2>&1; {mount}; }}; }}")
    }

    /// How many flushes were asked for.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.disk.lock().platter.flushes()
    }

    /// From now until a cut, flushes are answered and not done.
    pub fn lie(&self) {
        self.disk.lock().platter.lie();
    }

    /// From now until a cut, flushes are errors and do nothing.
    pub fn fail(&self) {
        self.disk.lock().hurt.fails = true;
    }

    /// From now on each flush takes so long.
    pub fn slow_down(&self, takes: Duration) {
        self.disk.lock().hurt.takes = takes;
    }

    /// How many flushes failed or were slow.
    #[must_use]
    pub fn hurt(&self) -> u64 {
        self.disk.lock().hurt.flushes
    }

    /// The power fails now: whatever is asked of the disk from here on is an error.
    pub fn cut(&self) -> Cut {
        let mut disk = self.disk.lock();
        disk.cuts += 1;
        disk.hurt.fails = false;
        disk.platter.cut()
    }

    /// The power is back. Whoever had mounted it before must be dead by now.
    pub fn restore(&mut self) -> io::Result<()> {
        self.unplug();
        self.serve()
    }

    fn file(&self) -> PathBuf {
        self.drive().join(drive::FILE)
    }

    fn drive(&self) -> PathBuf {
        self.folder.path().join("drive")
    }

    fn serve(&mut self) -> io::Result<()> {
        let drive = Drive::new(Arc::clone(&self.disk));
        self.session = Some(fuser::spawn_mount(drive, self.drive(), &fuser::Config::default())?);
        Ok(())
    }

    fn unplug(&mut self) {
        let _ = order(Command::new("umount").arg("--lazy").arg(self.drive())); // if it stays, it ends with this process
        drop(self.session.take());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.cut();
        self.unplug();
    }
}

fn order(command: &mut Command) -> io::Result<()> {
    let ended =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?.wait_with_output()?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&ended.stderr).trim()))),
    }
}
