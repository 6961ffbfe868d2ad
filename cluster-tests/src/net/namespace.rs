//! A network namespace without a name, and the thread that keeps it.
//!
//! A namespace lives as long as a thread or a process is in it. The keeper does what must be done inside: it opens sockets, which then
//! belong to that network whoever uses them, and starts processes, which die when it ends.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::thread::UnshareFlags;

type Job = Box<dyn FnOnce() + Send>;

/// A network of its own with nothing in it. Ends when it is dropped, with every process started in it.
#[derive(Debug)]
pub(super) struct Namespace {
    /// `None` only while it is dropped.
    jobs: Option<mpsc::SyncSender<Job>>,
    keeper: Option<JoinHandle<()>>,
}

impl Namespace {
    pub(super) fn new() -> io::Result<Self> {
        let (jobs, asked) = mpsc::sync_channel::<Job>(1);
        let (made, is_made) = mpsc::sync_channel(1);
        let keeper = std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
            let moved = move_here();
            let is_in = moved.is_ok();
            if made.send(moved).is_ok() && is_in {
                asked.into_iter().for_each(|job| job());
            }
        })?;
        is_made.recv().map_err(|_ended| io::Error::other("the keeper of a namespace died"))??;
        Ok(Self { jobs: Some(jobs), keeper: Some(keeper) })
    }

    /// Does something inside and waits for it.
    ///
    /// # Panics
    /// When `work` panics.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::sync_channel(1);
        let job = Box::new(move || {
            let _ = done.send(work()); // the one who asked waits below
        });
        self.jobs.as_ref().expect("not dropped yet").send(job).expect("the keeper lives as long as this");
        result.recv().expect("what was asked for did not panic")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join(); // its panic was the one of what it was asked to do, and is told there
        }
    }
}

/// Moves the calling thread, and those it starts from now on, into a new network.
#[expect(unsafe_code, reason = "the call has a form that shares memory badly; this is not it")]
pub(super) fn move_here() -> io::Result<()> {
    // SAFETY: only `UnshareFlags::FILES` can make a descriptor unusable in another thread; a new network leaves descriptors and memory as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}
