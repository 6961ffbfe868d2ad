//! What is kept of a worker over a restart, as one row of the journal.
//!
//! JSON with a version, because it describes itself: a field that is added later is absent in older rows, and a person can
//! read what a damaged store still holds. *Invariant:* a key is in here sealed, or not at all.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::Serialize;

use super::super::spec::Source;
use super::super::spec::Spec;
use crate::base::ids::ModelId;

/// The version written. A row of another one is left alone and said to be unreadable.
const VERSION: u32 = 1;

/// What was decided about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// It was added through the API: in force until it is removed there.
    Added,
    /// It is named by a source and was changed through the API: in force while a source names it.
    Changed,
    /// It is named by a source and was removed through the API: out until it is added there, whatever a source says.
    Suppressed,
}

impl Kind {
    /// Who says that the worker is there.
    pub(super) fn source(self) -> Source {
        match self {
            Self::Added => Source::Api,
            Self::Changed | Self::Suppressed => Source::Config,
        }
    }
}

/// Where its key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Key {
    /// From the source that names the worker.
    FromSource,
    /// It has none.
    None,
    /// It was given through the API; base64 of what the journal sealed.
    Sealed(String),
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub kind: Kind,
    pub url: String,
    pub key: Key,
    models: Vec<String>,
    priority: u32,
    cost: f32,
    labels: BTreeMap<String, String>,
    draining: bool,
}

/// Why a row cannot be used. The row is left as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// Written by a newer gateway: use that one.
    #[error("it has version {0}, which this gateway does not know")]
    Version(u32),
    /// Damaged.
    #[error(transparent)]
    Damaged(#[from] serde_json::Error),
    /// Damaged: a name that was checked before it was written.
    #[error(transparent)]
    Name(#[from] crate::base::ids::InvalidId),
}

impl Key {
    pub(super) fn sealed(bytes: &[u8]) -> Self {
        Self::Sealed(BASE64_STANDARD.encode(bytes))
    }

    /// What the journal sealed.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Sealed(text) => BASE64_STANDARD.decode(text).ok(),
            Self::FromSource | Self::None => None,
        }
    }
}

impl Record {
    pub(super) fn new(kind: Kind, spec: &Spec, key: Key) -> Self {
        Self {
            version: VERSION,
            kind,
            url: spec.url.clone(),
            key,
            models: spec.models.iter().map(|it| it.as_str().to_owned()).collect(),
            priority: spec.priority,
            cost: spec.cost,
            labels: spec.labels.clone(),
            draining: spec.is_draining,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text, numbers and maps with text keys are JSON")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The spec, without its key.
    pub(super) fn spec(&self) -> Result<Spec, Unreadable> {
        Ok(Spec {
            url: self.url.clone(),
            api_key: None,
            models: self.models.iter().map(|it| ModelId::parse(it)).collect::<Result<_, _>>()?,
            priority: self.priority,
            cost: self.cost,
            labels: self.labels.clone(),
            is_draining: self.draining,
            via: None, // who reaches it is found out anew at each start
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::address::Origin;

    #[test]
    fn a_row_is_read_back_as_what_was_written_and_its_bytes_do_not_change() {
        let mut spec = Spec::named(&Origin::parse("http://gpu1:8000").unwrap(), None);
        spec.models = vec![ModelId::parse("m").unwrap()];
        spec.labels.insert("zone".to_owned(), "a".to_owned());
        let record = Record::new(Kind::Added, &spec, Key::sealed(b"xyz"));
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        assert_eq!(record.key.bytes().as_deref(), Some(b"xyz".as_slice()));
        let written = r#"{"version":1,"kind":"added","url":"http://gpu1:8000","key":{"sealed":"eHl6"},"models":["m"],"priority":50,"cost":1.0,"labels":{"zone":"a"},"draining":false}"#;
        assert_eq!(String::from_utf8(record.encode()).unwrap(), written);
    }

    #[test]
    fn what_is_newer_or_damaged_is_refused() {
        assert!(matches!(Record::decode(br#"{"version":2,"later":true}"#), Err(Unreadable::Version(2))));
        assert!(matches!(Record::decode(b"\x00"), Err(Unreadable::Damaged(_))));
    }
}
