//! What nodes wrote about each other, read from their logs as it comes: exact to the microsecond, without asking anybody.

use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::time::Duration;

use smg::base::clock::Clock;

use super::fleet::Fleet;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// One node saw another's status change.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) by: usize,
    pub(crate) whom: usize,
    pub(crate) status: String,
    /// Time of day.
    pub(crate) at: Duration,
}

/// How far each log was read.
pub(crate) struct Trail(Vec<u64>);

/// The time of day by the same clock as the nodes'.
pub(crate) fn time_of_day() -> Duration {
    Duration::from_secs_f64(Clock.wall().as_secs_f64() % DAY.as_secs_f64())
}

/// How long after `from` something was, over midnight too.
pub(crate) fn since(from: Duration, at: Duration) -> Duration {
    if at >= from { at - from } else { at + DAY - from }
}

impl Trail {
    /// Begins after what was written already.
    pub(crate) fn from_now(fleet: &Fleet<'_>) -> Self {
        Self(fleet.nodes.iter().map(|it| std::fs::metadata(&it.log).map_or(0, |it| it.len())).collect())
    }

    /// What was written since the last time.
    pub(crate) fn read(&mut self, fleet: &Fleet<'_>) -> Vec<Sighting> {
        let mut seen = Vec::new();
        for (by, offset) in self.0.iter_mut().enumerate() {
            let Ok(mut file) = std::fs::File::open(&fleet.nodes[by].log) else { continue };
            let mut text = String::new();
            if file.seek(SeekFrom::Start(*offset)).and_then(|_| file.read_to_string(&mut text)).is_err() {
                continue;
            }
            let whole = text.rfind('\n').map_or(0, |it| it + 1);
            *offset += whole as u64;
            seen.extend(text[..whole].lines().filter_map(|line| sighting(by, line, fleet)));
        }
        seen
    }
}

fn sighting(by: usize, line: &str, fleet: &Fleet<'_>) -> Option<Sighting> {
    let status = line.split("status=\"").nth(1)?.split('"').next()?.to_owned();
    let addr = line.split("addr=").nth(1)?.split(' ').next()?;
    let whom = fleet.nodes.iter().position(|it| it.mesh.to_string() == addr)?;
    let clock = line.split('T').nth(1)?.split('Z').next()?;
    let mut parts = clock.split(':').map(|it| it.parse::<f64>().ok());
    let seconds = parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??;
    Some(Sighting { by, whom, status, at: Duration::from_secs_f64(seconds) })
}
