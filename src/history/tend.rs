//! What history needs while nobody asks: leases renewed, leases of the dead ended, what expires deleted.

use std::time::Duration;

use super::Id;
use super::Owner;
use super::backend::Unavailable;
use super::handle::Handle;
use super::handle::now_ms;
use super::leases::RENEW_EVERY;
use super::leases::Watch;
use super::machine::CLOCK_STEP_MS;
use super::machine::Command;
use super::machine::read;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::tasks::Stop;
use crate::raft::Rows;
use crate::raft::Unreadable;

/// Between two looks at what expires. Once in so long the clock of expiry is moved, too, where anything expires at all: a day that passed while nothing was due is then no surprise.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// How far the clock of expiry may stand back.
const CLOCK_LAG_MS: u64 = 3_600_000;
/// Responses that nobody makes any more, looked at in one go.
const ORPHANS_MAX: usize = 64;

/// How far this node has moved the clock of expiry.
#[derive(Default)]
struct Reach(Option<(u64, Instant)>);

impl Reach {
    /// How far it may be moved now: as long as this node looks after it, and a day. One whose wall clock is years ahead would otherwise delete everything that expires, a day at a time.
    fn of(&mut self, clock_ms: u64, now_ms: u64) -> u64 {
        if clock_ms == 0 {
            return now_ms;
        }
        let (from, since) = *self.0.get_or_insert((clock_ms, Clock.now()));
        let passed = u64::try_from((Clock.now() - since).as_millis()).unwrap_or(u64::MAX);
        now_ms.min(from.saturating_add(CLOCK_STEP_MS).saturating_add(passed))
    }
}

/// Runs until its stage stops.
pub async fn run(history: Handle, stop: Stop) {
    let (mut watch, mut reach, mut expire_at) = (Watch::default(), Reach::default(), Clock.now());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = Clock.sleep(RENEW_EVERY) => {}
        }
        history.renew().await;
        if !history.backend().is_watcher() {
            watch.clear();
            reach = Reach::default();
            continue;
        }
        if let Err(error) = look(&history, &mut watch).await {
            tracing::debug!(%error, "leases were not looked at; they are looked at again");
        }
        if Clock.now() >= expire_at {
            expire_at = Clock.now() + EXPIRE_EVERY;
            if let Err(error) = expire(&history, &mut reach).await {
                tracing::debug!(%error, "what expires was not deleted; it is looked at again");
            }
        }
    }
}

async fn look(history: &Handle, watch: &mut Watch) -> Result<(), Unavailable> {
    let held = history.glance(read::leases).await?.map_err(|_damage| Unavailable::Damaged)?;
    for (lease, beat) in watch.look(Clock.now(), &held) {
        history.command(Command::Lapse { lease, beat }).await?;
    }
    Ok(())
}

async fn expire(history: &Handle, reach: &mut Reach) -> Result<(), Unavailable> {
    loop {
        let (clock, due) = history.glance(read::expiry).await?.map_err(|_damage| Unavailable::Damaged)?;
        let now_ms = reach.of(clock, now_ms());
        let Some(due) =
            due.filter(|it| *it <= clock || clock < now_ms && (*it <= now_ms || clock + CLOCK_LAG_MS < now_ms))
        else {
            return Ok(());
        };
        tracing::debug!(due, clock, now_ms, "something expires, or the clock of expiry is behind");
        history.command(Command::Expire { now_ms }).await?;
    }
}

impl Handle {
    /// Responses that nobody makes any more, where this node is the one that looks after them. Whoever calls claims them.
    pub async fn orphans(&self) -> Result<Vec<(Owner, Id)>, Unavailable> {
        if !self.backend().is_watcher() {
            return Ok(Vec::new());
        }
        let orphans = |rows: &dyn Rows| read::orphans(rows, ORPHANS_MAX);
        self.glance(orphans).await?.map_err(|_damage: Unreadable| Unavailable::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_years_ahead_moves_expiry_by_a_day_and_what_has_passed() {
        let mut reach = Reach::default();
        assert_eq!(reach.of(0, 1_000), 1_000, "it has never been moved");
        assert_eq!(reach.of(1_000, 2_000), 2_000);
        let year = 365 * CLOCK_STEP_MS;
        assert_eq!(reach.of(1_000, year), 1_000 + CLOCK_STEP_MS);
        Clock.sleep(Duration::from_secs(5)).await;
        assert_eq!(reach.of(1_000 + CLOCK_STEP_MS, year), 6_000 + CLOCK_STEP_MS, "however often it is asked");
    }
}
