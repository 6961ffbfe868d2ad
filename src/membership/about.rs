//! What a node says of itself to people: the row that it publishes in the replicated table of nodes.
//!
//! Beside [`Peer`](crate::transport::Peer), which is what members need to reach each other and travels in every packet. *Invariant:* nothing is decided by it.

use serde::Deserialize;
use serde::Serialize;

use crate::transport::wire;

/// The name of the row: each node has one.
pub const ROW: &[u8] = b"about";
/// What this release can do beyond what every release can, for those who must know before they ask.
pub const FEATURES: &[&str] = &[];

/// Longest text in it, in bytes. Longer ones are cut where they are written.
const TEXT_BYTES_MAX: usize = 256;
/// Longest row read.
const ROW_BYTES_MAX: usize = 4096;

/// What a node says of itself. Fields are only ever added at the end, under another version byte of `wire`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// How people know it.
    pub name: String,
    /// Which release it runs.
    pub release: String,
    /// Where it stands, if it says.
    pub zone: String,
    /// When this life of it began, in seconds since 1970 by its own clock.
    pub started: u64,
    /// Where its clients go, as a URL.
    pub http: String,
    /// What it can do beyond its release's least.
    pub features: Vec<String>,
}

impl About {
    /// As a row's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut cut = self.clone();
        for text in [&mut cut.name, &mut cut.release, &mut cut.zone, &mut cut.http] {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        wire::encode(&cut).unwrap_or_default() // text and numbers always have an encoding
    }

    /// From a row's value; None: a release that this one cannot read, or damage.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        wire::decode::<Self, ROW_BYTES_MAX>(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use proptest::prelude::*;

    #[test]
    fn a_node_is_known_by_what_it_said_and_says_no_more_than_fits() {
        let about = About { name: "gw-1".to_owned(), started: 7, features: vec!["x".to_owned()], ..About::default() };
        assert_eq!(About::decode(&about.encode()), Some(about.clone()));
        let long = About { name: "ü".repeat(200), ..about };
        let read = About::decode(&long.encode()).expect("is read");
        assert_eq!(read.name, "ü".repeat(128));
        assert_eq!((About::decode(b""), About::decode(&[1, 2, 3])), (None, None));
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_row_is_read_or_refused(bytes in fuzz::damaged(vec![About { name: "gw-1".to_owned(), started: 7, features: vec!["x".to_owned(); 3], ..About::default() }.encode(), wire::encode(&About { name: "\u{fc}".repeat(200), ..About::default() }).unwrap()])) {
            // What others wrote may be longer than what is written here, and is cut then.
            let read = |bytes: &[u8]| About::decode(bytes).and_then(|it| About::decode(&it.encode()).map(|_| it));
            let texts = |it: &About| [it.name.clone(), it.release.clone(), it.zone.clone(), it.http.clone()];
            let write = |it: &About| if texts(it).iter().any(|it| it.len() > TEXT_BYTES_MAX) { wire::encode(it).unwrap() } else { it.encode() };
            if let Some(read) = fuzz::whole(ROW_BYTES_MAX, 1, &bytes, read, write) {
                prop_assert!(texts(&About::decode(&read.encode()).unwrap()).iter().all(|it| it.len() <= TEXT_BYTES_MAX));
            }
        }
    }
}
