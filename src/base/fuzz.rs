//! Bytes that nobody meant: what was valid, damaged, for the tests of whatever reads bytes off a wire, a disk or a person. Tests alone.
//!
//! Such tests lie beside what they try and are called `fuzz_*`. `make test` gives each some hundred cases, `SMG_FUZZ_CASES` as many as one likes, `make fuzz` as
//! many as its minutes allow. [`within`] also holds a reader to its bound: memory is counted for the thread that reads, so a length of four gigabytes in a frame of
//! twenty bytes is found even where the system would have given them.

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::Index;

/// What a reader may hold beside its bound: room that serde makes at once for lists whose length was announced, a megabyte for each of some lists in one another.
const AHEAD_BYTES_MAX: usize = 4 << 20;

/// What reads otherwise in the middle of something else: marks of JSON, TOML, events and HTTP, and bytes that are no text.
const MARKS: &[&[u8]] = &[
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"-1",
    b"1e999",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\r",
    b"\n\n",
    b"\r\n\r\n",
    b"data: ",
    b"event: ",
    b"[DONE]",
    b"[[",
    b"= ",
    b"#",
    b"'",
    b" ",
    b"%2e%2e",
    b"${X}",
    b"99999999999999999999",
];

/// How many cases.
pub(crate) fn config() -> ProptestConfig {
    let cases = std::env::var("SMG_FUZZ_CASES").ok().and_then(|it| it.parse().ok());
    ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(cases.unwrap_or(200)) }
}

/// Something that happens to bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Put(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
    Repeat(Index, usize, usize),
    /// A number of the wire's, far larger than what follows.
    Length(Index, u8, u64),
    Mark(Index, usize),
    /// One in another, so many times, of lists or of objects.
    Nest(Index, bool, usize),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let at = any::<Index>;
        prop_oneof![
            4 => (at(), 0..8_u8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            2 => (at(), any::<u8>()).prop_map(|(at, byte)| Self::Put(at, byte)),
            2 => (at(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            2 => (at(), 1..9_usize).prop_map(|(at, len)| Self::Remove(at, len)),
            1 => at().prop_map(Self::Cut),
            1 => (at(), 1..17_usize, 2..40_usize).prop_map(|(at, len, times)| Self::Repeat(at, len, times)),
            4 => (at(), 251..=253_u8, prop_oneof![Just(u64::MAX), Just(1 << 32), Just(1 << 30), Just(1 << 16), any::<u64>()])
                .prop_map(|(at, kind, len)| Self::Length(at, kind, len)),
            3 => (at(), 0..MARKS.len()).prop_map(|(at, mark)| Self::Mark(at, mark)),
            1 => (at(), any::<bool>(), 100..1000_usize).prop_map(|(at, is_list, depth)| Self::Nest(at, is_list, depth)),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match self {
            Self::Flip(at, bit) => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|it| *it ^= 1 << bit);
            }
            Self::Put(at, byte) => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|it| *it = *byte);
            }
            Self::Insert(at, what) => drop(bytes.splice(place(at)..place(at), what.iter().copied())),
            Self::Remove(at, len) => drop(bytes.drain(place(at)..bytes.len().min(place(at) + len))),
            Self::Cut(at) => bytes.truncate(place(at)),
            Self::Repeat(at, len, times) => {
                let (from, to) = (place(at), bytes.len().min(place(at) + len));
                let more = bytes[from..to].repeat(*times);
                drop(bytes.splice(from..from, more));
            }
            Self::Length(at, kind, len) => {
                let width = [2, 4, 8][usize::from(kind - 251)];
                let number = [&[*kind], &len.to_le_bytes()[..width]].concat();
                let (from, to) = (place(at), bytes.len().min(place(at) + 1));
                drop(bytes.splice(from..to, number));
            }
            Self::Mark(at, mark) => drop(bytes.splice(place(at)..place(at), MARKS[*mark].iter().copied())),
            Self::Nest(at, is_list, depth) => {
                let (open, close) = if *is_list { ("[", "]") } else { ("{\"a\":", "}") };
                let nested = [open.repeat(*depth), "1".to_owned(), close.repeat(*depth)].concat();
                drop(bytes.splice(place(at)..place(at), nested.into_bytes()));
            }
        }
    }
}

/// What happens to bytes that are not known yet.
#[derive(Clone, Debug)]
pub(crate) struct Damages(Vec<Damage>);

impl Damages {
    /// One as often as several: more of them say less about each.
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        prop_oneof![prop::collection::vec(Damage::any(), 1), prop::collection::vec(Damage::any(), 0..6)].prop_map(Self)
    }

    /// The bytes afterwards.
    pub(crate) fn of(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        self.0.iter().for_each(|it| it.apply(&mut bytes));
        bytes
    }
}

/// One of these, damaged in a few places; now and then not at all, or bytes that have nothing to do with them.
pub(crate) fn damaged(valid: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let hurt = (prop::sample::select(valid), Damages::any()).prop_map(|(bytes, damages)| damages.of(bytes));
    prop_oneof![9 => hurt, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

/// What a reader of whole messages makes of bytes, held to what each such reader promises: no more memory than `limit`; what it takes is read back as the same once it
/// is written, begins with the same `head` bytes (tag and version), and is nothing with a byte less or more.
///
/// # Panics
/// When it does otherwise.
pub(crate) fn whole<T: std::fmt::Debug>(
    limit: usize,
    head: usize,
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
    write: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let taken = within(limit, || read(bytes))?;
    let written = write(&taken);
    assert_eq!(written[..head], bytes[..head], "it does not begin as it is written");
    assert_eq!(read(&written).map(|it| format!("{it:?}")), Some(format!("{taken:?}")), "it is not read back");
    for at in 0..head {
        let mut other = bytes.to_vec();
        other[at] ^= 0x40;
        assert!(read(&other).is_none(), "it was taken with another tag or version");
    }
    // A length beyond the bound, wherever there may be one.
    let length = [&[253], &((limit + 2 * AHEAD_BYTES_MAX) as u64).to_le_bytes()[..]].concat();
    for at in head..bytes.len().min(300) {
        drop(within(limit, || read(&[&bytes[..at], &length, &bytes[at + 1..]].concat())));
    }
    let shortest = if bytes.len() <= 300 { 0 } else { bytes.len() - 1 };
    (shortest..bytes.len()).for_each(|len| assert!(read(&bytes[..len]).is_none(), "its first {len} bytes were taken"));
    assert!(read(&[bytes, b"\0"].concat()).is_none(), "it was taken with a byte behind it");
    Some(taken)
}

/// What stands in JSON where something else is meant.
const ODD: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "18446744073709551615",
    "1.5",
    "\"\"",
    "\"x\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "[null]",
    "{\"a\":null}",
];

/// One of these, in which some values are others or gone.
pub(crate) fn odd_json(valid: Vec<serde_json::Value>) -> impl Strategy<Value = Vec<u8>> {
    let what = (any::<Index>(), 0..=ODD.len());
    (prop::sample::select(valid), prop::collection::vec(what, 1..4)).prop_map(|(mut value, all)| {
        for (at, what) in all {
            let mut places = Vec::new();
            walk(&value, String::new(), &mut places);
            let place = at.get(&places);
            match ODD.get(what) {
                Some(odd) => {
                    *value.pointer_mut(place).expect("it was just seen") = serde_json::from_str(odd).expect("JSON")
                }
                None => remove(&mut value, place),
            }
        }
        value.to_string().into_bytes()
    })
}

/// It with each of those in each place, one at a time, and without each.
pub(crate) fn each_odd_json(valid: &serde_json::Value) -> Vec<serde_json::Value> {
    let mut places = Vec::new();
    walk(valid, String::new(), &mut places);
    let mut all = Vec::new();
    for place in &places {
        for odd in ODD {
            let mut value = valid.clone();
            *value.pointer_mut(place).expect("it was just seen") = serde_json::from_str(odd).expect("JSON");
            all.push(value);
        }
        let mut value = valid.clone();
        remove(&mut value, place);
        all.push(value);
    }
    all
}

/// Where there are values, as JSON pointers.
fn walk(value: &serde_json::Value, at: String, all: &mut Vec<String>) {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        serde_json::Value::Object(members) => {
            members.iter().for_each(|(name, it)| walk(it, format!("{at}/{}", escaped(name)), all))
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, it)| walk(it, format!("{at}/{n}"), all))
        }
        _ => {}
    }
    all.push(at);
}

fn remove(value: &mut serde_json::Value, place: &str) {
    let Some((parent, name)) = place.rsplit_once('/') else { return };
    match value.pointer_mut(parent) {
        Some(serde_json::Value::Object(members)) => drop(members.remove(&name.replace("~1", "/").replace("~0", "~"))),
        Some(serde_json::Value::Array(items)) => drop(items.remove(name.parse().expect("a place"))),
        _ => {}
    }
}

/// What a reader that believes lengths up to `limit` bytes makes of some, which are few themselves.
///
/// # Panics
/// When it held more memory meanwhile than it may.
pub(crate) fn within<T>(limit: usize, read: impl FnOnce() -> T) -> T {
    let before = LIVE.get();
    MOST.set(before);
    let read = read();
    let most = MOST.get().wrapping_sub(before);
    assert!(most <= limit + AHEAD_BYTES_MAX, "{most} bytes were held for a frame whose reader may take {limit}");
    read
}

thread_local! {
    /// Bytes that this thread took less those that it gave back.
    static LIVE: Cell<usize> = const { Cell::new(0) };
    /// The most that was.
    static MOST: Cell<usize> = const { Cell::new(0) };
}

/// The system's memory, counted.
struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

fn took(bytes: usize) {
    // What one thread took another may give back, so it wraps around rather than end the test.
    let live = LIVE.get().wrapping_add(bytes);
    LIVE.set(live);
    if live.wrapping_sub(MOST.get()) < usize::MAX / 2 {
        MOST.set(live);
    }
}

fn gave(bytes: usize) {
    LIVE.set(LIVE.get().wrapping_sub(bytes));
}

#[expect(
    unsafe_code,
    reason = "memory can be counted in no other way; each call goes on to the system's allocator as it came"
)]
// SAFETY: pointers and layouts are passed on unchanged. The counters are cells of the thread without a destructor, so counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: likewise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        gave(layout.size());
        // SAFETY: likewise.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: likewise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[test]
fn a_reader_that_takes_what_it_is_told_is_found() {
    let told = |len: usize| within(1 << 10, || std::hint::black_box(Vec::<u8>::with_capacity(len)).capacity());
    assert_eq!(told(1000), 1000);
    assert!(std::panic::catch_unwind(|| told(1 << 30)).is_err(), "a gigabyte for nothing");
    assert_eq!(told(1 << 20), 1 << 20, "and it is not counted for the next one");
}

#[test]
fn a_reader_that_is_not_of_whole_messages_is_found() {
    let is_caught = |bytes: &[u8], read: fn(&[u8]) -> Option<u8>| {
        std::panic::catch_unwind(|| whole(1 << 10, 1, bytes, read, |it| vec![1, *it])).is_err()
    };
    assert!(!is_caught(b"\x01a", |it| if let [1, it] = it { Some(*it) } else { None }));
    assert!(is_caught(b"\x01ab", |it| if let [1, it, ..] = it { Some(*it) } else { None }), "bytes behind it");
    assert!(
        is_caught(b"\x01", |it| if let [1, rest @ ..] = it { Some(*rest.first().unwrap_or(&0)) } else { None }),
        "half of it"
    );
    assert!(is_caught(b"\x02a", |it| if let [_, it] = it { Some(*it) } else { None }), "another version");
    assert!(is_caught(b"\x01a", |it| if let [1, it] = it { Some(it.wrapping_add(1)) } else { None }), "something else");
}
