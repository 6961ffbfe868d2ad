//! The log of this process, for tests that read it. Everything is logged, down to `trace`.

use std::io::Write;
use std::sync::Arc;
use std::sync::OnceLock;

use parking_lot::Condvar;
use parking_lot::Mutex;
use smg::observability::logs::LogHandle;
use smg::observability::logs::start_to;

/// What was logged. Clones are the same log.
#[derive(Clone, Default)]
pub struct Capture(Arc<Shared>);

#[derive(Default)]
struct Shared {
    text: Mutex<String>,
    is_held: Mutex<bool>,
    released: Condvar,
}

static CAPTURE: OnceLock<(Capture, Option<LogHandle>)> = OnceLock::new();

impl Capture {
    /// Starts logging into memory, once for this process.
    ///
    /// # Panics
    /// When somebody else started logging.
    pub fn start() -> Self {
        let started = CAPTURE.get_or_init(|| {
            let capture = Self::default();
            let handle = start_to(capture.clone(), "trace", true, false).expect("a level");
            assert!(handle.is_some(), "nobody else logs");
            (capture, handle)
        });
        started.0.clone()
    }

    /// The lines that came so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.text.lock().lines().map(ToOwned::to_owned).collect()
    }

    /// Reads nothing while the guard lives, as a terminal that was stopped.
    #[must_use]
    pub fn hold(&self) -> Held {
        *self.0.is_held.lock() = true;
        Held(self.clone())
    }
}

/// See [`Capture::hold`].
pub struct Held(Capture);

impl Drop for Held {
    fn drop(&mut self) {
        let shared = &self.0.0;
        *shared.is_held.lock() = false;
        shared.released.notify_all();
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.released.wait_while(&mut self.0.is_held.lock(), |it| *it);
        self.0.text.lock().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
