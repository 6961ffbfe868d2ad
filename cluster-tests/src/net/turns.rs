//! How long this machine lets a thread wait for its turn: nodes that do not run are held for dead, and rightly.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use smg::base::clock::Clock;

/// Fine enough to see what matters, a tenth of a second and more, and coarse enough to cost nothing.
const STEP: Duration = Duration::from_millis(5);

/// A thread that only looks at the clock. It ends when this is dropped.
#[derive(Debug)]
pub struct Turns(Arc<AtomicU64>);

impl Turns {
    /// Begins to watch.
    ///
    /// # Panics
    /// When no thread can be started.
    #[must_use]
    pub fn watch() -> Self {
        let longest = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&longest);
        let watch = move || {
            while let Some(longest) = seen.upgrade() {
                let before = Clock.now();
                std::thread::sleep(STEP);
                let wait = (Clock.now() - before).saturating_sub(STEP);
                longest.fetch_max(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), Relaxed);
            }
        };
        std::thread::Builder::new().name("turns".to_owned()).spawn(watch).expect("a thread");
        Self(longest)
    }

    /// The longest wait so far.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        Duration::from_millis(self.0.load(Relaxed))
    }
}
