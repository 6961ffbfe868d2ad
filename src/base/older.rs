//! Bytes as an older release wrote them, in files beside the tests that read them: on each line a name and hexadecimal digits.
//!
//! A file was written by the revision that its first line names, by the test that reads it now (`OLDER=write`, with the tests of today in a tree of that revision). It never changes: what else a newer release
//! writes has a file of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What one file has.
pub(crate) struct Older(BTreeMap<String, Vec<u8>>);

impl Older {
    /// `file`: from the package on. `now`: what this release writes of the same values, under the same names. As long as a cluster may have nodes of both, these are the same bytes, or the older ones would not
    /// read what newer ones write.
    pub(crate) fn of(file: &str, now: &[(&str, Vec<u8>)]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var("OLDER").is_ok_and(|it| it == "write") {
            let mut text = format!("# {}\n", std::env::var("REVISION").expect("whose bytes these are"));
            for (name, bytes) in now {
                text += &format!("{name} {}\n", hex(bytes));
            }
            fs::write(&path, text).expect("the file can be written");
        }
        let text = fs::read_to_string(&path).expect("there is such a file");
        let mut all = BTreeMap::new();
        for line in text.lines().filter(|it| !it.starts_with('#')) {
            let (name, digits) = line.split_once(' ').expect("a name and digits");
            let bytes = digits.as_bytes().chunks(2).map(|it| std::str::from_utf8(it).expect("digits"));
            let bytes = bytes.map(|it| u8::from_str_radix(it, 16).expect("digits")).collect();
            assert!(all.insert(name.to_owned(), bytes).is_none(), "{name} is there twice");
        }
        assert_eq!(all.len(), now.len(), "{file} has other names than the test");
        for (name, bytes) in now {
            let older: &Vec<u8> = all.get(*name).unwrap_or_else(|| panic!("{file} has no {name}"));
            assert_eq!(hex(bytes), hex(older), "an older release does not read `{name}` as this one writes it");
        }
        Self(all)
    }

    /// One of them.
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.0[name]
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, it| {
        let _ = write!(text, "{it:02x}"); // a String takes everything
        text
    })
}
