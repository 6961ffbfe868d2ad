//! Rows of an export, put in where there are none.

use serde_bytes::ByteBuf;

use super::command::Outcome;
use super::command::Refusal;
use super::draft::Draft;
use super::keys;
use super::keys::Key;
use super::step::Head;
use crate::storage::codec;

impl Draft<'_> {
    pub(super) fn restore(&mut self, at: u64, rows: &[(ByteBuf, ByteBuf)], is_last: bool) -> Result<Outcome, Refusal> {
        let head = self.head();
        let (from, to) = keys::owned_rows();
        let done = match head.restored {
            Some(done) => done,
            None if self.scan_raw(&from, &to, 1).is_empty() => 0,
            None => return Err(Refusal::NotEmpty),
        };
        if at < done {
            return Ok(Outcome::Unchanged);
        }
        if at > done {
            return Err(Refusal::Gap(done));
        }
        let mut commands = head.commands;
        for (key, value) in rows {
            if **key == Key::Head.encode()[..] {
                // Its clock and its count, not what was on its way there.
                let theirs: Head = codec::decode(value).map_err(|_damage| Refusal::Unsound)?;
                commands = commands.max(theirs.commands);
            } else if keys::is_exported(key) {
                self.put_raw(key.to_vec(), value.to_vec());
            }
        }
        let restored = (!is_last).then_some(done + rows.len() as u64);
        self.put(&Key::Head, &Head { commands, restored, ..head });
        Ok(Outcome::Done)
    }
}
