//! Content is sealed before it is proposed and opened after it was read, so that no log, row, snapshot, export or server has it in clear.
//!
//! Sealed are the JSON of items, what a response is shown as, its events and metadata. In clear stay what the machine goes by: ids, names of tenants and keys, times, sizes, states,
//! idempotency keys and the fingerprints of their requests. What is sealed opens only for the same owner and the same name, so that a row that was put in another's place is not read.
//!
//! *Invariant:* the machine never sees a key; every node that reads has all keys, and content that was kept before there was one is read as it is.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::Conversation;
use super::Id;
use super::Item;
use super::Owner;
use super::machine::Act;
use super::machine::keys;
use super::machine::keys::Parsed;
use crate::base::seal::SEALED;
use crate::base::seal::Sealer;
use crate::base::seal::parse_key;
use crate::raft::Rows;
use crate::storage::codec;

/// What content is of.
#[derive(Clone, Copy)]
enum Of {
    Item = 1,
    Body = 2,
    Event = 3,
    Metadata = 4,
}

/// The keys: the first seals, all open. Clones are the same ones.
#[derive(Clone)]
pub struct Keys(Arc<Sealer>);

/// Why there are no keys. The operator's doing.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeys {
    /// The file cannot be read.
    #[error("--history-key-file {path}: {source}")]
    Unread {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is none.
    #[error(
        "--history-key-file {path}: line {line} is no key: expected 64 hex digits, as `openssl rand -hex 32` prints them"
    )]
    Line {
        /// Of which file.
        path: PathBuf,
        /// Which, from 1 on.
        line: usize,
    },
    /// There is no line.
    #[error(
        "--history-key-file {path}: it has no key: expected 64 hex digits a line, as `openssl rand -hex 32` prints them"
    )]
    Empty {
        /// Which.
        path: PathBuf,
    },
}

impl Keys {
    /// Reads them: one a line. Blocks on the disk.
    pub fn read(path: &Path) -> Result<Self, InvalidKeys> {
        let text = fs::read_to_string(path).map_err(|source| InvalidKeys::Unread { path: path.into(), source })?;
        let lines = text.lines().map(str::trim).enumerate().filter(|it| !it.1.is_empty());
        let key = |(at, line)| parse_key(line).ok_or(InvalidKeys::Line { path: path.into(), line: at + 1 });
        let keys = lines.map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(InvalidKeys::Empty { path: path.into() });
        }
        Ok(Self(Arc::new(Sealer::new(&keys))))
    }

    /// Seals what an act brings.
    pub(super) fn seal(&self, owner: &Owner, act: &mut Act) {
        let content =
            |of: Of, id: &Id, content: &mut Vec<u8>| *content = self.0.seal_bytes(content, &bound(owner, of, id));
        let all = |items: &mut Vec<Item>| items.iter_mut().for_each(|it| content(Of::Item, &it.id, &mut it.json));
        match act {
            Act::Begin(it) => {
                all(&mut it.input);
                content(Of::Body, &it.response, &mut it.body);
            }
            Act::Finish(it) => {
                all(&mut it.output);
                content(Of::Body, &it.response, &mut it.body);
            }
            Act::Events { response, events, .. } => {
                events.iter_mut().for_each(|it| content(Of::Event, response, it));
            }
            Act::CreateConversation { conversation, metadata, items, .. } => {
                all(items);
                content(Of::Metadata, conversation, metadata);
            }
            Act::UpdateConversation { conversation, metadata } => content(Of::Metadata, conversation, metadata),
            Act::AddItems { items, .. } => all(items),
            Act::Cancel { .. }
            | Act::DeleteResponse { .. }
            | Act::Claim { .. }
            | Act::DeleteConversation { .. }
            | Act::DeleteItem { .. } => {}
        }
    }

    /// The same rows with their content opened.
    pub(super) fn open<'a>(&'a self, rows: &'a dyn Rows) -> Opened<'a> {
        Opened { rows, keys: self }
    }

    /// Content that cannot be opened is none, which no reader takes for content.
    fn opened(&self, key: &[u8], value: Vec<u8>) -> Vec<u8> {
        let made = match keys::parse(key) {
            Some(Parsed::Item(owner, ..) | Parsed::Entry(owner, ..)) => {
                remade(&value, |it: &mut Item| self.clear(bound(&owner, Of::Item, &it.id), &mut it.json))
            }
            Some(Parsed::Body(owner, id)) => {
                remade(&value, |it: &mut ByteBuf| self.clear(bound(&owner, Of::Body, &id), it))
            }
            Some(Parsed::Event(owner, id)) => {
                remade(&value, |it: &mut ByteBuf| self.clear(bound(&owner, Of::Event, &id), it))
            }
            Some(Parsed::Conversation(owner, id)) => {
                remade(&value, |it: &mut Conversation| self.clear(bound(&owner, Of::Metadata, &id), &mut it.metadata))
            }
            Some(
                Parsed::Response(..)
                | Parsed::Place(..)
                | Parsed::Idempotent
                | Parsed::Usage(_)
                | Parsed::ItemOf(..)
                | Parsed::Head
                | Parsed::Done
                | Parsed::DoneAt
                | Parsed::Expiry
                | Parsed::Upload
                | Parsed::Part
                | Parsed::Lease
                | Parsed::JobOf,
            )
            | None => return value,
        };
        made.unwrap_or_default()
    }

    fn clear(&self, bound_to: Vec<u8>, content: &mut Vec<u8>) -> Option<()> {
        if content.first() == Some(&SEALED) {
            *content = self.0.open_bytes(content, &bound_to)?.0;
        }
        Some(())
    }
}

/// Whose it is, of what, and of which.
fn bound(owner: &Owner, of: Of, id: &Id) -> Vec<u8> {
    let mut bound = Vec::with_capacity(96);
    owner.write(&mut bound);
    bound.push(of as u8);
    bound.extend(id.as_str().as_bytes());
    bound
}

/// A value after something was done to it.
fn remade<T: Serialize + DeserializeOwned>(value: &[u8], work: impl FnOnce(&mut T) -> Option<()>) -> Option<Vec<u8>> {
    let mut value = codec::decode(value).ok()?;
    work(&mut value)?;
    codec::encode(&value).ok()
}

/// See [`Keys::open`].
pub(super) struct Opened<'a> {
    rows: &'a dyn Rows,
    keys: &'a Keys,
}

impl Rows for Opened<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.rows.get(key).map(|it| self.keys.opened(key, it))
    }

    fn scan(&self, from: &[u8], to: &[u8], most: usize, is_back: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.rows.scan(from, to, most, is_back).into_iter();
        let opened = |(key, value): (Vec<u8>, Vec<u8>)| {
            let value = self.keys.opened(&key, value);
            (key, value)
        };
        rows.map(opened).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;

    use super::super::Handle;
    use super::super::Memory;
    use super::super::Status;
    use super::super::config::Config;
    use super::super::machine::Begin;
    use super::super::machine::Finish;
    use super::super::machine::read;
    use super::*;
    use crate::base::entropy::Entropy;
    use crate::base::ids::StorageId;
    use crate::base::ids::TenantId;
    use crate::raft::Unreadable;

    const WORD: &str = "a word that nobody else says";

    fn keys(keys: &[u8]) -> Keys {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        keys.iter().for_each(|it| writeln!(file, "{}\n", format!("{it:02x}").repeat(32)).unwrap());
        Keys::read(file.path()).unwrap()
    }

    fn handle(backend: &Arc<Memory>, keys: Option<Keys>) -> Handle {
        let backend = Arc::clone(backend) as Arc<dyn super::super::Backend>;
        Handle::new(backend, &Config::default(), keys, (StorageId(1), 1), Entropy::seeded(1))
    }

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    fn item(text: &str) -> Item {
        Item { id: id(text), json: said(text) }
    }

    fn said(text: &str) -> Vec<u8> {
        format!("{{\"{text}\":\"{WORD}\"}}").into_bytes()
    }

    fn owner(name: &str) -> Owner {
        Owner::new(&TenantId::parse(name).unwrap(), None).unwrap()
    }

    /// One of everything that has content.
    fn acts() -> Vec<Act> {
        let begin = Begin {
            response: id("resp_1"),
            created_ms: 1,
            previous: None,
            conversation: Some(id("conv_1")),
            input: vec![item("msg_1")],
            body: said("body"),
            lease: None,
            is_background: true,
            key: None,
            expires_ms: None,
        };
        let (response, events) = (id("resp_1"), vec![said("event")]);
        let (body, output) = (said("end"), vec![item("msg_2")]);
        let (conversation, metadata) = (id("conv_1"), said("metadata"));
        let items = vec![item("msg_0")];
        vec![
            Act::CreateConversation { conversation, metadata, items, key: None, created_ms: 1, expires_ms: None },
            Act::UpdateConversation { conversation: id("conv_1"), metadata: said("other metadata") },
            Act::AddItems { conversation: id("conv_1"), items: vec![item("msg_3")], key: None },
            Act::Begin(Box::new(begin)),
            Act::Events { response, attempt: 1, first: 0, events },
            Act::Finish(Finish { response: id("resp_1"), attempt: None, status: Status::Completed, body, output }),
        ]
    }

    async fn raw(handle: &Handle) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let all = |rows: &dyn Rows| rows.scan(&[0], &[255], usize::MAX, false).into_iter().collect();
        handle.read_within(super::super::LIMIT, all).await.unwrap()
    }

    fn says(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> usize {
        rows.values().filter(|it| it.windows(WORD.len()).any(|it| it == WORD.as_bytes())).count()
    }

    async fn body(handle: &Handle) -> Result<Vec<u8>, read::Missing> {
        let read = |rows: &dyn Rows| read::response(rows, &owner("t"), &id("resp_1")).map(|it| it.1);
        handle.read(read).await.unwrap()
    }

    #[tokio::test]
    async fn content_is_sealed_wherever_it_is_kept_and_read_with_its_key_alone() {
        let backend = Arc::new(Memory::default());
        let sealing = handle(&backend, Some(keys(&[1])));
        for act in acts() {
            let done = sealing.act(&owner("t"), act.clone()).await;
            assert!(done.is_ok() || matches!(act, Act::Events { .. }), "{act:?}: {done:?}");
        }
        assert_eq!(says(&raw(&sealing).await), 0);
        let rotated = handle(&backend, Some(keys(&[2, 1])));
        for reader in [&sealing, &rotated] {
            assert_eq!(body(reader).await, Ok(said("end")));
            let all = reader.read(|rows: &dyn Rows| {
                let page = read::Page { most: 9, ..read::Page::default() };
                let items = read::conversation_items(rows, &owner("t"), &id("conv_1"), &page).unwrap();
                let found = read::conversation(rows, &owner("t"), &id("conv_1")).unwrap();
                (items, found.metadata, read::chain(rows, &owner("t"), &id("resp_1"), u64::MAX).unwrap())
            });
            let (items, metadata, chain) = all.await.unwrap();
            assert_eq!(items, ["msg_0", "msg_3", "msg_1", "msg_2"].map(item));
            assert_eq!((metadata, chain), (said("other metadata"), ["msg_1", "msg_2"].map(item).to_vec()));
        }
        let unread = Err(read::Missing::Unreadable(Unreadable));
        assert_eq!(body(&handle(&backend, Some(keys(&[3])))).await, unread);
        assert_eq!(body(&handle(&backend, None)).await.unwrap().first(), Some(&SEALED));
    }

    #[tokio::test]
    async fn what_was_kept_before_there_was_a_key_is_read_as_it_is() {
        let backend = Arc::new(Memory::default());
        let plain = handle(&backend, None);
        for act in acts() {
            let _ = plain.act(&owner("t"), act).await; // events have no lease
        }
        assert!(says(&raw(&plain).await) >= 6, "the search finds what is not sealed");
        assert_eq!(body(&handle(&backend, Some(keys(&[1])))).await, Ok(said("end")));
    }

    #[test]
    fn events_are_sealed_and_content_in_anothers_place_is_not_read() {
        let keys = keys(&[1]);
        let mut act = acts().remove(4);
        keys.seal(&owner("t"), &mut act);
        let Act::Events { events, .. } = act else { panic!("it is another: {act:?}") };
        let value = codec::encode(&ByteBuf::from(events[0].clone())).unwrap();
        let place = |owner: &str, of: &str| keys::Key::Event(&super::tests::owner(owner), &id(of), 0).encode();
        let opened = |key: Vec<u8>| {
            let rows = BTreeMap::from([(key.clone(), value.clone())]);
            let opened = keys.open(&rows).get(&key).unwrap();
            codec::decode::<ByteBuf>(&opened).ok().map(ByteBuf::into_vec)
        };
        assert_eq!(opened(place("t", "resp_1")), Some(said("event")));
        assert_eq!(opened(place("other", "resp_1")), None);
        assert_eq!(opened(place("t", "resp_2")), None);
        assert_eq!(opened(keys::Key::Body(&owner("t"), &id("resp_1")).encode()), None);
    }

    #[test]
    fn a_file_without_keys_says_what_it_should_have() {
        let told = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text).unwrap();
            Keys::read(file.path()).err().map(|it| it.to_string()).unwrap_or_default()
        };
        assert!(
            told("\n").ends_with("it has no key: expected 64 hex digits a line, as `openssl rand -hex 32` prints them")
        );
        assert!(told(&format!("{}\nsecret", "0".repeat(64))).contains("line 2 is no key"));
        assert!(!told("secret").contains("secret"), "a wrong line is not told");
        assert!(matches!(Keys::read(Path::new("/nowhere")), Err(InvalidKeys::Unread { .. })));
    }
}
