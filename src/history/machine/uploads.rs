//! Content that is too long for an entry of the log: handed in in parts, then carried out by one command.

use serde::Deserialize;
use serde::Serialize;
use serde_bytes::ByteBuf;
use serde_bytes::Bytes;

use super::CONTENT_BYTES_MAX;
use super::STAGED_BYTES_MAX;
use super::STAGED_MS;
use super::command::Outcome;
use super::command::Refusal;
use super::draft::Draft;
use super::expiry::What;
use super::keys::Key;
use super::step::Head;

/// How much was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    parts: u32,
    bytes: u64,
    /// When it is looked at whether it waits for too long.
    expires_ms: u64,
    /// Whether that has been: time may have stood still before it began.
    is_late: bool,
}

impl Draft<'_> {
    pub(super) fn part(&mut self, id: u128, at: u32, bytes: Vec<u8>) -> Result<Outcome, Refusal> {
        let head = self.head();
        let mut upload = match self.get::<Upload>(&Key::Upload(id)) {
            Some(upload) => upload,
            None => Upload { parts: 0, bytes: 0, expires_ms: head.clock_ms.saturating_add(STAGED_MS), is_late: false },
        };
        if at < upload.parts {
            return Ok(Outcome::Unchanged);
        }
        if at > upload.parts {
            return Err(Refusal::Gap(upload.parts.into()));
        }
        let len = bytes.len() as u64;
        if upload.bytes + len > CONTENT_BYTES_MAX || len == 0 {
            return Err(Refusal::TooMany(CONTENT_BYTES_MAX));
        }
        if head.staged + len > STAGED_BYTES_MAX {
            return Err(Refusal::Full(STAGED_BYTES_MAX));
        }
        if upload.parts == 0 {
            self.expires_unowned(What::Upload(id), upload.expires_ms);
        }
        self.put(&Key::Part(id, at), Bytes::new(&bytes));
        upload.parts += 1;
        upload.bytes += len;
        self.put(&Key::Upload(id), &upload);
        self.put(&Key::Head, &Head { staged: head.staged + len, ..head });
        Ok(Outcome::Done)
    }

    /// The parts, one after the other.
    pub(super) fn assembled(&mut self, id: u128, parts: u32) -> Result<Vec<u8>, Refusal> {
        let have = self.get::<Upload>(&Key::Upload(id)).map_or(0, |it| it.parts);
        if have != parts {
            return Err(Refusal::Gap(have.into()));
        }
        // All are asked for before the first is looked at: rows that lie at a server come in one go.
        let found: Vec<Option<ByteBuf>> = (0..parts).map(|at| self.get(&Key::Part(id, at))).collect();
        let mut whole = Vec::new();
        for (at, part) in (0_u32..).zip(found) {
            whole.extend_from_slice(&part.ok_or(Refusal::Gap(at.into()))?);
        }
        Ok(whole)
    }

    /// It has waited for long by a clock that may have stood still before it began: it goes only if it still waits for as long after that.
    pub(super) fn is_overdue(&mut self, id: u128, clock_ms: u64) {
        let Some(upload) = self.get::<Upload>(&Key::Upload(id)) else { return };
        if upload.is_late {
            return self.drop_upload(id);
        }
        let expires_ms = clock_ms.saturating_add(STAGED_MS);
        self.put(&Key::Upload(id), &Upload { expires_ms, is_late: true, ..upload });
        self.expires_unowned(What::Upload(id), expires_ms);
    }

    pub(super) fn drop_upload(&mut self, id: u128) {
        let Some(upload) = self.get::<Upload>(&Key::Upload(id)) else { return };
        (0..upload.parts).for_each(|at| self.delete(&Key::Part(id, at)));
        self.delete(&Key::Upload(id));
        self.never_expires_unowned(What::Upload(id), upload.expires_ms);
        let head = self.head();
        self.put(&Key::Head, &Head { staged: head.staged.saturating_sub(upload.bytes), ..head });
    }
}
