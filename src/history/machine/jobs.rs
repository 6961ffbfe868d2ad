//! Who makes which response, and what becomes of those whose maker is gone.
//!
//! A node writes for its responses under a lease: one of each data directory counts, the last one. No clock decides here. A node renews its lease in the log; the leader, by its own clock, says
//! from which beat on it has heard nothing, and that counts only if no beat came since. A lease that lapsed or was followed by another one never comes back: what it had is anybody's to claim.

use serde::Deserialize;
use serde::Serialize;
use serde_bytes::Bytes;

use super::EVENTS_MAX;
use super::command::Outcome;
use super::command::Refusal;
use super::draft::Draft;
use super::keys::Key;
use crate::history::Id;
use crate::history::Job;
use crate::history::Lease;
use crate::history::Owner;
use crate::history::Response;
use crate::history::Status;
use crate::history::faults::Fault;
use crate::history::faults::planted;

/// The last lease of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) lease: Lease,
    /// Its last renewal.
    pub(super) beat: u64,
    pub(super) has_lapsed: bool,
}

impl Draft<'_> {
    pub(super) fn renew(&mut self, lease: Lease, beat: u64) -> Result<Outcome, Refusal> {
        if let Some(held) = self.get::<Held>(&Key::Lease(lease.storage)) {
            let is_over = lease < held.lease || lease == held.lease && held.has_lapsed;
            if is_over && !planted(Fault::LeasesComeBack) {
                return Err(Refusal::Stale);
            }
            if lease == held.lease && beat <= held.beat {
                return Ok(Outcome::Unchanged);
            }
        }
        self.put(&Key::Lease(lease.storage), &Held { lease, beat, has_lapsed: false });
        Ok(Outcome::Done)
    }

    pub(super) fn lapse(&mut self, lease: Lease, beat: u64) -> Outcome {
        let Some(held) = self.get::<Held>(&Key::Lease(lease.storage)) else { return Outcome::Unchanged };
        let was_renewed = held.beat > beat && !planted(Fault::RenewalsAreMissed);
        if held.lease != lease || held.has_lapsed || was_renewed {
            return Outcome::Unchanged;
        }
        self.put(&Key::Lease(lease.storage), &Held { has_lapsed: true, ..held });
        Outcome::Done
    }

    fn is_held(&mut self, lease: Lease) -> bool {
        self.get::<Held>(&Key::Lease(lease.storage)).is_some_and(|it| it.lease == lease && !it.has_lapsed)
    }

    pub(super) fn take_job(&mut self, owner: &Owner, id: &Id, lease: Lease) -> Result<(), Refusal> {
        if !self.is_held(lease) {
            return Err(Refusal::NoLease);
        }
        self.put(&Key::JobOf(lease, owner, id), &(owner.clone(), id.clone()));
        Ok(())
    }

    /// It is nobody's work any more.
    pub(super) fn release_job(&mut self, owner: &Owner, id: &Id, job: Option<Job>) {
        if let Some(Job { lease, .. }) = job {
            self.delete(&Key::JobOf(lease, owner, id));
        }
    }

    pub(super) fn claim(&mut self, owner: &Owner, id: &Id, lease: Lease) -> Result<Outcome, Refusal> {
        let mut row = self.response(owner, id)?;
        goes_on(&row)?;
        let job = row.job.ok_or(Refusal::Unsound)?;
        if job.lease == lease {
            return Ok(Outcome::Unchanged);
        }
        if self.is_held(job.lease) && !planted(Fault::JobsAreStolen) {
            return Err(Refusal::Owned);
        }
        self.release_job(owner, id, row.job);
        self.take_job(owner, id, lease)?;
        row.job = Some(Job { attempt: job.attempt + 1, lease });
        self.put(&Key::Response(owner, id), &row);
        Ok(Outcome::Done)
    }

    /// Whether a write comes from who makes the response. One that nobody makes under a lease takes writes without an attempt.
    pub(super) fn is_makers(&mut self, row: &Response, attempt: Option<u32>) -> Result<(), Refusal> {
        let is_makers = match row.job {
            None => attempt.is_none(),
            Some(job) => {
                attempt == Some(job.attempt) && self.is_held(job.lease)
                    || attempt.is_some() && planted(Fault::OldAttemptsWrite)
            }
        };
        if is_makers { Ok(()) } else { Err(Refusal::Stale) }
    }

    pub(super) fn events(
        &mut self,
        owner: &Owner,
        id: &Id,
        attempt: u32,
        first: u64,
        events: &[Vec<u8>],
    ) -> Result<Outcome, Refusal> {
        let mut row = self.response(owner, id)?;
        goes_on(&row)?;
        self.is_makers(&row, Some(attempt))?;
        let is_old = row.job.is_some_and(|it| it.attempt != attempt);
        if first != row.events && !(is_old && planted(Fault::OldAttemptsWrite)) {
            return Err(Refusal::Gap(row.events));
        }
        if row.events + events.len() as u64 > EVENTS_MAX {
            return Err(Refusal::TooMany(EVENTS_MAX));
        }
        let mut bytes = 0;
        for event in events {
            bytes += self.put(&Key::Event(owner, id, row.events), Bytes::new(event));
            row.events += 1;
        }
        row.bytes += bytes;
        row.status = Status::InProgress;
        self.change_usage(owner, |usage| usage.bytes += bytes);
        self.put(&Key::Response(owner, id), &row);
        Ok(Outcome::Done)
    }
}

/// What has ended stays as it is, whoever writes.
pub(super) fn goes_on(row: &Response) -> Result<(), Refusal> {
    if row.status.is_end() && !planted(Fault::EndsChange) { Err(Refusal::Ended(row.status)) } else { Ok(()) }
}
