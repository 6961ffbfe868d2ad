//! Planted bugs: a proof that never fails proves nothing, so an area breaks its own rules where they are kept, and its tests must notice.
//!
//! An area lists its bugs as an enum `Fault` and asks `planted(Fault::X)` at the place. In shipped code every question is answered `false` at compile time; in
//! tests a bug is planted for the thread that asks.

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

        /// Never.
        #[cfg(not(test))]
        #[inline(always)]
        pub(crate) const fn planted(_fault: Fault) -> bool {
            false
        }
    };
}
pub(crate) use planted;
