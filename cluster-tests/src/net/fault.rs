//! What is done to frames on their way from one machine to another, and the count of what was done.

use std::time::Duration;

/// One direction between two machines. The default does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fault {
    /// Nothing arrives.
    pub is_cut: bool,
    /// Share of frames that are lost, from 0 to 1.
    pub loss: f64,
    /// How long each frame is under way.
    pub delay: Duration,
    /// And up to this much longer, each frame by itself: those that are close overtake each other.
    pub jitter: Duration,
    /// Share of frames that arrive twice.
    pub duplication: f64,
    /// Share of frames that are held back until several later ones have passed.
    pub reordering: f64,
    /// Bytes that pass in a second; what would wait longer than a fifth of one is dropped. `None`: as many as come.
    pub bytes_per_second: Option<u32>,
}

impl Fault {
    /// Loses a share of frames.
    #[must_use]
    pub fn losing(loss: f64) -> Self {
        Self { loss, ..Self::default() }
    }

    /// Lets nothing through.
    #[must_use]
    pub fn cutting() -> Self {
        Self { is_cut: true, ..Self::default() }
    }
}

/// What happened to frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Sent by the machine.
    pub frames: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Stopped by a cut.
    pub cut: u64,
    /// Lost.
    pub lost: u64,
    /// Under way for longer than none at all.
    pub delayed: u64,
    /// Arrived twice.
    pub doubled: u64,
    /// Held back.
    pub reordered: u64,
    /// Dropped: the rate was exceeded, or the switch held too much.
    pub overrun: u64,
}

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            bytes: self.bytes + other.bytes,
            cut: self.cut + other.cut,
            lost: self.lost + other.lost,
            delayed: self.delayed + other.delayed,
            doubled: self.doubled + other.doubled,
            reordered: self.reordered + other.reordered,
            overrun: self.overrun + other.overrun,
        }
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), std::ops::Add::add)
    }
}
