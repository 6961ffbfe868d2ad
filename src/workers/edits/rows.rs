//! Workers as rows of replicated tables: what an operator said of one, where DELETE keeps one away, what a source asserts.
//!
//! A field is JSON with a version of its own, because fields merge one by one and a later release may add some: what cannot be read
//! is left as it is and counts as not said. *Invariant:* a key is in here sealed, or not at all.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::spec::Change;
use super::super::spec::Spec;
use crate::base::ids::ModelId;
use crate::base::ids::StorageId;
use crate::replication::admin::Entry;
use crate::replication::admin::Key;
use crate::replication::hlc::Stamp;
use crate::replication::sources::Assertion;
use crate::replication::sources::Instance;
use crate::replication::sources::Place;
use crate::replication::sources::Source;

/// An entry of the table of workers: added by a person, in force until it is removed.
pub(super) const ADDED: u16 = 1;
/// Another one: what a person changed of a worker that sources name, in force while one does.
pub(super) const CHANGED: u16 = 2;
/// The only entry of the table of suppressions.
pub(super) const SUPPRESSION: u16 = 1;

/// The version of every field written here.
const VERSION: u8 = 1;

/// Fields by number. Never given again.
mod field {
    pub(super) const URL: u16 = 1;
    pub(super) const VIA: u16 = 2;
    pub(super) const KEY: u16 = 3;
    pub(super) const MODELS: u16 = 4;
    pub(super) const PRIORITY: u16 = 5;
    pub(super) const COST: u16 = 6;
    pub(super) const LABELS: u16 = 7;
    pub(super) const DRAINING: u16 = 8;
}

/// Fields of an edit, as tables take them.
pub(super) type Fields = Vec<(u16, u8, Vec<u8>)>;
/// A sealed key; `None`: it has none.
pub(super) type SealedKey = Option<Vec<u8>>;

/// A worker's entry, read.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) born: Stamp,
    pub(super) kind: u16,
    pub(super) place: Place,
    /// `None`: nothing was said of the key.
    pub(super) api_key: Option<SealedKey>,
    models: Option<Vec<ModelId>>,
    priority: Option<u32>,
    cost: Option<f32>,
    labels: Option<BTreeMap<String, String>>,
    draining: Option<bool>,
}

impl Row {
    /// Reads an entry. `None`: it says of no place, or not in a way that this release understands.
    pub(super) fn read(key: &Key, entry: &Entry) -> Option<Self> {
        let models: Option<Vec<String>> = value(entry, field::MODELS);
        let parse = |them: Vec<String>| them.iter().map(|it| ModelId::parse(it).ok()).collect::<Option<Vec<_>>>();
        let api_key: Option<Option<String>> = value(entry, field::KEY);
        Some(Self {
            key: *key,
            born: entry.born,
            kind: entry.kind,
            place: place(entry)?,
            // A key that cannot be read is none: nothing is sent in its place.
            api_key: api_key.map(|it| it.and_then(|text| BASE64_STANDARD.decode(text).ok())),
            models: models.and_then(parse),
            priority: value(entry, field::PRIORITY),
            cost: value(entry, field::COST),
            labels: value(entry, field::LABELS),
            draining: value(entry, field::DRAINING),
        })
    }

    /// What it says of the worker, besides its key.
    pub(super) fn change(&self) -> Change {
        Change {
            api_key: None,
            models: self.models.clone(),
            priority: self.priority,
            cost: self.cost,
            labels: self.labels.clone(),
            draining: self.draining,
        }
    }

    pub(super) fn instance(&self) -> Instance {
        Instance { key: self.key, born: self.born, place: self.place.clone() }
    }
}

/// An entry that suppresses.
pub(super) fn suppression(key: &Key, entry: &Entry) -> Option<Instance> {
    (entry.kind == SUPPRESSION).then(|| place(entry))?.map(|place| Instance { key: *key, born: entry.born, place })
}

/// The fields that say where a worker is.
pub(super) fn fields_of_place(place: &Place) -> Fields {
    let mut fields = vec![written(field::URL, &place.url)];
    fields.extend(place.via.map(|it| written(field::VIA, &format!("{:032x}", it.0))));
    fields
}

/// Everything an operator can say of a worker.
pub(super) fn fields_of_spec(spec: &Spec, api_key: &SealedKey) -> Fields {
    let change = Change {
        api_key: None,
        models: Some(spec.models.clone()),
        priority: Some(spec.priority),
        cost: Some(spec.cost),
        labels: Some(spec.labels.clone()),
        draining: Some(spec.is_draining),
    };
    fields_of_change(&change, Some(api_key))
}

/// What is to be changed.
pub(super) fn fields_of_change(change: &Change, api_key: Option<&SealedKey>) -> Fields {
    let names = |them: &Vec<ModelId>| them.iter().map(|it| it.as_str().to_owned()).collect::<Vec<_>>();
    let mut fields = Fields::new();
    fields.extend(api_key.map(|it| written(field::KEY, &it.as_ref().map(|sealed| BASE64_STANDARD.encode(sealed)))));
    fields.extend(change.models.as_ref().map(|it| written(field::MODELS, &names(it))));
    fields.extend(change.priority.map(|it| written(field::PRIORITY, &it)));
    fields.extend(change.cost.map(|it| written(field::COST, &it)));
    fields.extend(change.labels.as_ref().map(|it| written(field::LABELS, it)));
    fields.extend(change.draining.map(|it| written(field::DRAINING, &it)));
    fields
}

fn place(entry: &Entry) -> Option<Place> {
    let via: Option<String> = value(entry, field::VIA);
    let via = match via {
        Some(text) => Some(StorageId(u128::from_str_radix(&text, 16).ok()?)),
        None => None,
    };
    Some(Place { url: value(entry, field::URL)?, via })
}

fn value<T: DeserializeOwned>(entry: &Entry, number: u16) -> Option<T> {
    let field = entry.fields.get(&number).filter(|it| it.version == VERSION)?;
    serde_json::from_slice(&field.bytes).ok()
}

fn written<T: Serialize>(number: u16, value: &T) -> (u16, u8, Vec<u8>) {
    (number, VERSION, serde_json::to_vec(value).expect("text, numbers and maps with text keys are JSON"))
}

/// What a node's flags and file say of one worker, as it travels.
#[derive(Debug, Serialize, Deserialize)]
struct Asserted {
    version: u8,
    url: String,
    local: bool,
    /// Base64 of the sealed key.
    key: Option<String>,
}

/// A row of the table of sources.
pub(super) fn write_assertion(place: &Place, api_key: &SealedKey) -> Vec<u8> {
    let key = api_key.as_ref().map(|it| BASE64_STANDARD.encode(it));
    let asserted = Asserted { version: VERSION, url: place.url.clone(), local: place.via.is_some(), key };
    serde_json::to_vec(&asserted).expect("text is JSON")
}

/// Reads one. `None`: another release wrote it.
pub(super) fn read_assertion(owner: StorageId, bytes: &[u8]) -> Option<(Assertion, SealedKey)> {
    let it: Asserted = serde_json::from_slice(bytes).ok().filter(|it: &Asserted| it.version == VERSION)?;
    let key = it.key.and_then(|text| BASE64_STANDARD.decode(text).ok());
    Some((Assertion { url: it.url, owner, source: Source::Flag, is_local: it.local }, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::admin::Field;
    use crate::replication::admin::InstanceId;
    use crate::replication::dots::Actor;
    use crate::replication::dots::Dot;
    use crate::workers::address::Origin;

    fn key() -> Key {
        Key { id: InstanceId(1), birth: Dot { actor: Actor { storage: StorageId(1), boot: 1 }, count: 1 } }
    }

    fn entry(fields: Fields) -> Entry {
        let field =
            |(number, version, bytes)| (number, Field { stamp: Stamp::default(), dot: key().birth, version, bytes });
        Entry { kind: ADDED, born: Stamp::default(), fields: fields.into_iter().map(field).collect() }
    }

    #[test]
    fn what_was_said_is_read_back_and_its_bytes_do_not_change() {
        let mut spec = Spec::named(&Origin::parse("http://gpu1:8000").unwrap(), None);
        spec.models = vec![ModelId::parse("m").unwrap()];
        spec.labels.insert("zone".to_owned(), "a".to_owned());
        let place = Place { url: spec.url.clone(), via: Some(StorageId(0xAB)) };
        let fields = [fields_of_place(&place), fields_of_spec(&spec, &Some(b"xyz".to_vec()))].concat();
        let texts: Vec<_> =
            fields.iter().map(|(n, v, bytes)| format!("{n}.{v} {}", String::from_utf8_lossy(bytes))).collect();
        let expected = [
            r#"1.1 "http://gpu1:8000""#,
            r#"2.1 "000000000000000000000000000000ab""#,
            r#"3.1 "eHl6""#,
            r#"4.1 ["m"]"#,
            "5.1 50",
            "6.1 1.0",
            r#"7.1 {"zone":"a"}"#,
            "8.1 false",
        ];
        assert_eq!(texts, expected);
        let row = Row::read(&key(), &entry(fields)).unwrap();
        let mut read = Spec { labels: BTreeMap::new(), ..Spec::named(&Origin::parse(&row.place.url).unwrap(), None) };
        row.change().apply(&mut read);
        assert_eq!(
            (row.place, row.api_key, read.models, read.labels),
            (place, Some(Some(b"xyz".to_vec())), spec.models, spec.labels)
        );
    }

    #[test]
    fn what_is_newer_or_damaged_counts_as_not_said() {
        let mut fields = fields_of_place(&Place { url: "http://a".to_owned(), via: None });
        fields.extend([
            (field::COST, VERSION + 1, b"{}".to_vec()),
            (field::PRIORITY, VERSION, b"\x00".to_vec()),
            (99, 1, vec![1]),
        ]);
        let row = Row::read(&key(), &entry(fields)).unwrap();
        assert_eq!((row.cost, row.priority, row.api_key), (None, None, None));
        assert!(Row::read(&key(), &entry(vec![(field::URL, VERSION + 1, Vec::new())])).is_none());
        let newer = br#"{"version":2,"url":"http://a","local":false,"key":null}"#;
        assert!(read_assertion(StorageId(1), newer).is_none() && read_assertion(StorageId(1), b"").is_none());
    }

    #[test]
    fn an_assertion_is_read_back() {
        let place = Place { url: "http://127.0.0.1:8000".to_owned(), via: Some(StorageId(7)) };
        let (read, key) = read_assertion(StorageId(7), &write_assertion(&place, &Some(vec![1, 2]))).unwrap();
        assert_eq!((read.place(), key), (place, Some(vec![1, 2])));
    }
}
