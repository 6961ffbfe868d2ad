//! The schema: every row of history is one [`Key`]. An owner's rows lie together, and nothing of another owner between them.
//!
//! *Invariant:* a kind's number is never given to another kind.

use crate::base::ids::StorageId;
use crate::base::ids::TenantId;
use crate::history::Id;
use crate::history::Lease;
use crate::history::Owner;
use crate::history::faults::Fault;
use crate::history::faults::planted;

/// First byte of what belongs to an owner.
const OWNED: u8 = 1;
/// First byte of what belongs to nobody.
const SYSTEM: u8 = 2;

/// Which items of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::history) enum Side {
    Input,
    Output,
}

/// Everything that is kept.
pub(in crate::history) enum Key<'a> {
    /// A response without its body and its items.
    Response(&'a Owner, &'a Id),
    /// Its body: JSON without status, input and output.
    Body(&'a Owner, &'a Id),
    /// One of its items.
    Item(&'a Owner, &'a Id, Side, u32),
    /// One of its events.
    Event(&'a Owner, &'a Id, u64),
    /// A conversation without its items.
    Conversation(&'a Owner, &'a Id),
    /// One of its items, by place.
    Entry(&'a Owner, &'a Id, u64),
    /// The place of one of its items.
    Place(&'a Owner, &'a Id, &'a Id),
    /// What an idempotent request made.
    Idempotent(&'a Owner, &'a str),
    /// What the owner keeps in all.
    Usage(&'a Owner),
    /// The response that an item belongs to.
    ItemOf(&'a Owner, &'a Id),

    /// What there is one of.
    Head,
    /// The outcome of a command.
    Done(u128),
    /// Which command was the so-manyth.
    DoneAt(u64),
    /// What goes at a time; then, what.
    Expiry(u64, &'a [u8]),
    /// Content that was handed in: how much.
    Upload(u128),
    /// A part of it.
    Part(u128, u32),
    /// The last lease of a data directory.
    Lease(StorageId),
    /// A response that is made under a lease.
    JobOf(Lease, &'a Owner, &'a Id),
}

impl Key<'_> {
    pub(in crate::history) fn encode(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(96);
        match self {
            Self::Response(owner, id) => of(&mut key, owner, 1, id),
            Self::Body(owner, id) => of(&mut key, owner, 2, id),
            Self::Item(owner, id, side, at) => {
                of(&mut key, owner, 3, id);
                key.push(u8::from(*side == Side::Output));
                key.extend(at.to_be_bytes());
            }
            Self::Event(owner, id, at) => {
                of(&mut key, owner, 4, id);
                key.extend(at.to_be_bytes());
            }
            Self::Conversation(owner, id) => of(&mut key, owner, 5, id),
            Self::Entry(owner, id, at) => {
                of(&mut key, owner, 6, id);
                key.extend(at.to_be_bytes());
            }
            Self::Place(owner, id, item) => {
                of(&mut key, owner, 7, id);
                key.extend(item.as_str().as_bytes());
            }
            Self::Idempotent(owner, name) => {
                owned(&mut key, owner, 8);
                key.extend(name.as_bytes());
            }
            Self::Usage(owner) => owned(&mut key, owner, 9),
            Self::ItemOf(owner, id) => of(&mut key, owner, 10, id),
            Self::Head => key.extend([SYSTEM, 1]),
            Self::Done(id) => system(&mut key, 2, &id.to_be_bytes()),
            Self::DoneAt(number) => system(&mut key, 3, &number.to_be_bytes()),
            Self::Expiry(ms, what) => {
                system(&mut key, 4, &ms.to_be_bytes());
                key.extend(*what);
            }
            Self::Upload(id) => system(&mut key, 5, &id.to_be_bytes()),
            Self::Part(id, at) => {
                system(&mut key, 6, &id.to_be_bytes());
                key.extend(at.to_be_bytes());
            }
            Self::Lease(storage) => system(&mut key, 7, &storage.0.to_be_bytes()),
            Self::JobOf(lease, owner, id) => {
                leased(&mut key, *lease);
                owner.write(&mut key);
                key.extend(id.as_str().as_bytes());
            }
        }
        key
    }
}

fn owned(key: &mut Vec<u8>, owner: &Owner, kind: u8) {
    key.push(OWNED);
    if !planted(Fault::OwnersAreOne) {
        owner.write(key);
    }
    key.push(kind);
}

fn of(key: &mut Vec<u8>, owner: &Owner, kind: u8, id: &Id) {
    owned(key, owner, kind);
    // An id's length fits: `Id::LEN_MAX`, and `step` refuses others.
    key.push(u8::try_from(id.as_str().len()).unwrap_or(u8::MAX));
    key.extend(id.as_str().as_bytes());
}

fn system(key: &mut Vec<u8>, kind: u8, rest: &[u8]) {
    key.extend([SYSTEM, kind]);
    key.extend(rest);
}

fn leased(key: &mut Vec<u8>, lease: Lease) {
    system(key, 8, &lease.storage.0.to_be_bytes());
    key.extend(lease.boot.to_be_bytes());
    key.extend(lease.number.to_be_bytes());
}

/// Bounds of all keys that begin as this one does, less so many bytes of its end. The upper one is excluded.
pub(super) fn span(first: &Key<'_>, less: usize) -> (Vec<u8>, Vec<u8>) {
    let mut from = first.encode();
    from.truncate(from.len().saturating_sub(less));
    let to = after(from.clone());
    (from, to)
}

/// Bounds of the keys of everything that belongs to an owner.
pub(super) fn owned_rows() -> (Vec<u8>, Vec<u8>) {
    (vec![OWNED], vec![OWNED + 1])
}

/// Bounds of all keys.
pub(super) fn all() -> (Vec<u8>, Vec<u8>) {
    (vec![OWNED], vec![SYSTEM + 1])
}

/// Whether a row means something elsewhere. What was handed in for a command that was not made yet does not.
pub(super) fn is_exported(key: &[u8]) -> bool {
    matches!(key, [OWNED, ..] | [SYSTEM, 1..=4 | 7 | 8, ..])
}

/// Whether a record of a client's goes with this row: nothing but a deletion, or that it expires, removes one of these.
pub(super) fn is_record(key: &[u8]) -> bool {
    matches!(parse(key), Some(Parsed::Response(..) | Parsed::Conversation(..) | Parsed::Entry(..)))
}

/// Bounds of the keys of all leases.
pub(super) fn leases() -> (Vec<u8>, Vec<u8>) {
    (vec![SYSTEM, 7], vec![SYSTEM, 8])
}

/// Bounds of the keys of what expires; the time follows the lower one.
pub(super) fn expiries() -> (Vec<u8>, Vec<u8>) {
    (vec![SYSTEM, 4], vec![SYSTEM, 5])
}

/// Bounds of the keys of what is made for a data directory: all of it, or under leases before this one.
pub(super) fn jobs(of: StorageId, before: Option<Lease>) -> (Vec<u8>, Vec<u8>) {
    let mut from = Vec::new();
    system(&mut from, 8, &of.0.to_be_bytes());
    let to = match before {
        Some(lease) => {
            let mut to = Vec::new();
            leased(&mut to, lease);
            to
        }
        None => after(from.clone()),
    };
    (from, to)
}

/// The first key after all that begin so.
fn after(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            break;
        }
    }
    prefix
}

/// A row's key, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::history) enum Parsed {
    Response(Owner, Id),
    Body(Owner, Id),
    Item(Owner, Id, Side),
    Event(Owner, Id),
    Conversation(Owner, Id),
    Entry(Owner, Id, u64),
    Place(Owner, Id, Id),
    Idempotent,
    Usage(Owner),
    ItemOf(Owner, Id),
    Head,
    Done,
    DoneAt,
    Expiry,
    Upload,
    Part,
    Lease,
    JobOf,
}

/// Reads a key. None: it is none of this schema.
pub(in crate::history) fn parse(key: &[u8]) -> Option<Parsed> {
    let (first, mut rest) = key.split_first()?;
    if *first == SYSTEM {
        return Some(match rest.first()? {
            1 => Parsed::Head,
            2 => Parsed::Done,
            3 => Parsed::DoneAt,
            4 => Parsed::Expiry,
            5 => Parsed::Upload,
            6 => Parsed::Part,
            7 => Parsed::Lease,
            8 => Parsed::JobOf,
            _ => return None,
        });
    }
    let text = |rest: &mut &[u8]| {
        let (len, after) = rest.split_first()?;
        let (text, after) = after.split_at_checked(usize::from(*len))?;
        *rest = after;
        String::from_utf8(text.to_vec()).ok()
    };
    let (tenant, principal) = (text(&mut rest)?, text(&mut rest)?);
    let tenant = TenantId::parse(&tenant).ok()?;
    let owner = Owner::new(&tenant, Some(&principal)).ok()?;
    let (kind, after) = rest.split_first()?;
    rest = after;
    match kind {
        8 => return Some(Parsed::Idempotent),
        9 => return Some(Parsed::Usage(owner)),
        _ => {}
    }
    let id = Id::parse(&text(&mut rest)?).ok()?;
    Some(match kind {
        1 => Parsed::Response(owner, id),
        2 => Parsed::Body(owner, id),
        3 => Parsed::Item(owner, id, if rest.first()? == &1 { Side::Output } else { Side::Input }),
        4 => Parsed::Event(owner, id),
        5 => Parsed::Conversation(owner, id),
        6 => Parsed::Entry(owner, id, u64::from_be_bytes(rest.try_into().ok()?)),
        7 => Parsed::Place(owner, id, Id::parse(std::str::from_utf8(rest).ok()?).ok()?),
        10 => Parsed::ItemOf(owner, id),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_keys_of_its_own_and_a_span_holds_what_begins_alike() {
        let owner = Owner::new(&TenantId::parse("t").unwrap(), Some("p")).unwrap();
        let (id, item) = (Id::parse("resp_1").unwrap(), Id::parse("msg_1").unwrap());
        let lease = Lease { storage: StorageId(7), boot: 1, number: 1 };
        let keys = [
            Key::Response(&owner, &id),
            Key::Body(&owner, &id),
            Key::Item(&owner, &id, Side::Input, 0),
            Key::Item(&owner, &id, Side::Output, 0),
            Key::Event(&owner, &id, 0),
            Key::Conversation(&owner, &id),
            Key::Entry(&owner, &id, 0),
            Key::Place(&owner, &id, &item),
            Key::Idempotent(&owner, "key"),
            Key::Usage(&owner),
            Key::ItemOf(&owner, &item),
            Key::Head,
            Key::Done(1),
            Key::DoneAt(1),
            Key::Expiry(1, b"x"),
            Key::Upload(1),
            Key::Part(1, 1),
            Key::Lease(lease.storage),
            Key::JobOf(lease, &owner, &id),
        ];
        let all: std::collections::BTreeSet<_> = keys.iter().map(Key::encode).collect();
        assert_eq!(all.len(), keys.len());
        let records: Vec<_> = (0..).zip(&keys).filter(|it| is_record(&it.1.encode())).map(|it| it.0).collect();
        assert_eq!(records, [0, 5, 6], "responses, conversations, items of conversations");
        let (from, to) = span(&Key::Item(&owner, &id, Side::Input, 0), 5);
        assert_eq!(all.range(from..to).count(), 2);
        let (from, to) = span(&Key::Event(&owner, &id, u64::MAX), 0);
        let last = Key::Event(&owner, &id, u64::MAX).encode();
        assert!(from <= last && last < to);
        assert_eq!(Key::Response(&owner, &id).encode(), [&[1, 1, b't', 1, b'p', 1, 6][..], b"resp_1"].concat());
    }
}
