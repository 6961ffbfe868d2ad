//! Planted bugs: a proof that never fails proves nothing, so an area breaks its own rules where they are kept, and its tests must notice.
//!
//! An area lists its bugs as an enum `Fault` and asks `planted(Fault::X)` at the place. In shipped code every question is answered `false` at compile time; in
//! tests a bug is planted for the thread that asks. In a build with the feature `planted`, which is for tests of whole processes alone, `PLANTED=area::X` plants it for the process, and the place says so in the
//! log when it is first asked: a bug that was never reached shows nothing of those who did not find it.

/// Makes `plant` and `planted` for the `Fault` of the file it stands in.
macro_rules! planted {
    () => {
        #[cfg(test)]
        thread_local! {
            static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
        }

        /// Plants one for this thread, or none.
        #[cfg(test)]
        pub(crate) fn plant(fault: Option<Fault>) {
            PLANTED.with(|it| it.set(fault));
        }

        /// Whether this bug is planted.
        #[cfg(test)]
        pub(crate) fn planted(fault: Fault) -> bool {
            PLANTED.with(|it| it.get() == Some(fault))
        }

        /// Whether this bug is planted in this process.
        #[cfg(all(not(test), feature = "planted"))]
        pub(crate) fn planted(fault: Fault) -> bool {
            static REACHED: std::sync::Once = std::sync::Once::new();
            let is_planted = $crate::base::planted::is_named(module_path!(), || format!("{fault:?}"));
            if is_planted {
                REACHED.call_once(|| tracing::error!(bug = ?fault, "a planted bug is reached"));
            }
            is_planted
        }

        /// Never.
        #[cfg(not(any(test, feature = "planted")))]
        #[inline(always)]
        pub(crate) const fn planted(_fault: Fault) -> bool {
            false
        }
    };
}
pub(crate) use planted;

/// Whether `PLANTED` names this bug of the area whose `faults` module asks.
#[cfg(all(not(test), feature = "planted"))]
pub(crate) fn is_named(module: &str, bug: impl FnOnce() -> String) -> bool {
    static NAMED: std::sync::OnceLock<Option<(String, String)>> = std::sync::OnceLock::new();
    let named = NAMED.get_or_init(|| {
        let named = std::env::var("PLANTED").ok()?;
        let (area, bug) = named.split_once("::")?;
        Some((area.to_owned(), bug.to_owned()))
    });
    // Hot paths ask: the name is made only where the area fits.
    named.as_ref().is_some_and(|it| module.split("::").nth(1) == Some(it.0.as_str()) && it.1 == bug())
}
