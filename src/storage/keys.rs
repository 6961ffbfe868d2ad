//! The schema: every key of the database is one [`Key`] or, apart from it, a row of `rows.rs`, and nothing else is ever written.
//!
//! A key is `SCHEMA, group (2 bytes), kind (1 byte), number (8 bytes, where there is one)`, all big-endian, so that keys of one
//! kind of one group lie together in numeric order and one scan reads them. *Invariant:* a kind's number is never
//! given to another kind; a change of what a key means takes a new `SCHEMA` and a migration.

use super::GroupId;

/// First byte of every key: the version of this file.
pub const SCHEMA: u8 = 1;

/// Everything that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The last vote. Fsynced before it is answered, or a node votes twice in one term.
    Vote(GroupId),
    /// How far the log was known to be committed. A hint: losing it costs a replay.
    Committed(GroupId),
    /// The last entry that was purged: the log begins after it.
    Purged(GroupId),
    /// One entry of the log, by index.
    Entry(GroupId, u64),
    /// The last entry that the group's rows contain. Written with them, in one batch.
    Applied(GroupId),
    /// The membership as of [`Key::Applied`].
    Membership(GroupId),
    /// The newest snapshot.
    Snapshot(GroupId),
    /// What this node alone knows of the group: how it came to it, whom it has heard of. Not replicated.
    Own(GroupId),
    /// A snapshot that is being put in the place of the group's rows: they are not whole until this is gone.
    Installing(GroupId),
    /// The last entry that removed what may still lie in this node's files. Gone when they were written anew after it.
    Removed(GroupId),
}

impl Key {
    /// As it lies on disk.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let (group, kind, number) = match self {
            Self::Vote(group) => (group, 1, None),
            Self::Committed(group) => (group, 2, None),
            Self::Purged(group) => (group, 3, None),
            Self::Entry(group, index) => (group, 4, Some(index)),
            Self::Applied(group) => (group, 5, None),
            Self::Membership(group) => (group, 6, None),
            Self::Snapshot(group) => (group, 7, None),
            // 8 and 9 were rows of an earlier machine.
            Self::Own(group) => (group, 10, None),
            Self::Installing(group) => (group, 11, None),
            Self::Removed(group) => (group, 12, None),
        };
        let mut bytes = Vec::with_capacity(12);
        bytes.push(SCHEMA);
        bytes.extend(group.0.to_be_bytes());
        bytes.push(kind);
        bytes.extend(number.map(u64::to_be_bytes).iter().flatten());
        bytes
    }

    /// What lies on disk. None: not a key of this schema.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[SCHEMA, high, low, kind], number) = bytes.split_first_chunk::<4>()? else { return None };
        let group = GroupId(u16::from_be_bytes([high, low]));
        let number: Option<u64> = match number {
            [] => None,
            number => Some(u64::from_be_bytes(number.try_into().ok()?)),
        };
        match (kind, number) {
            (1, None) => Some(Self::Vote(group)),
            (2, None) => Some(Self::Committed(group)),
            (3, None) => Some(Self::Purged(group)),
            (4, Some(index)) => Some(Self::Entry(group, index)),
            (5, None) => Some(Self::Applied(group)),
            (6, None) => Some(Self::Membership(group)),
            (7, None) => Some(Self::Snapshot(group)),
            (10, None) => Some(Self::Own(group)),
            (11, None) => Some(Self::Installing(group)),
            (12, None) => Some(Self::Removed(group)),
            _ => None,
        }
    }
}

/// Bounds, both to be read as keys, of all keys of the kind and group of `first`, from it on. The upper one is excluded.
#[must_use]
pub fn span(first: Key) -> (Vec<u8>, Vec<u8>) {
    let from = first.encode();
    let mut to = from[..4].to_vec();
    // The kind is the last byte of the prefix and small, so its successor ends the span without a carry.
    to[3] += 1;
    (from, to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Key> {
        (any::<u16>(), any::<u64>(), 0..10_usize).prop_map(|(group, number, kind)| {
            let group = GroupId(group);
            [
                Key::Vote(group),
                Key::Committed(group),
                Key::Purged(group),
                Key::Entry(group, number),
                Key::Applied(group),
                Key::Membership(group),
                Key::Snapshot(group),
                Key::Own(group),
                Key::Installing(group),
                Key::Removed(group),
            ][kind]
        })
    }

    proptest! {
        #[test]
        fn a_key_is_read_back_as_what_was_written(key in keys()) {
            prop_assert_eq!(Key::decode(&key.encode()), Some(key));
        }

        #[test]
        fn bytes_that_are_no_key_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            if let Some(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }

        #[test]
        fn a_span_holds_its_kind_and_group_and_nothing_else(group in any::<u16>(), number in any::<u64>(), other in keys()) {
            let (from, to) = span(Key::Entry(GroupId(group), 0));
            let inside = |key: Key| { let key = key.encode(); from <= key && key < to };
            prop_assert!(inside(Key::Entry(GroupId(group), number)));
            prop_assert_eq!(inside(other), matches!(other, Key::Entry(it, _) if it == GroupId(group)));
        }
    }

    #[test]
    fn the_bytes_on_disk_do_not_change() {
        assert_eq!(Key::Entry(GroupId(0x0102), 3).encode(), [1, 1, 2, 4, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(Key::Vote(GroupId::CONTROL).encode(), [1, 0, 0, 1]);
    }
}
