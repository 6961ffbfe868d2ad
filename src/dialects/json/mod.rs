//! JSON as bytes: one strict pass that finds the fields we own and proves the rest well formed, without copying.
//!
//! Exists beside serde_json because the data plane splices bodies: it must know *where* a value stands, must not lose
//! what it does not know, and must cost little on a 32 KB prompt. serde_json is the oracle of its property tests.
//! *Invariants:* [`parse`] accepts what RFC 8259 accepts, up to [`JSON_DEPTH_MAX`] levels and objects at the top;
//! readers of a parsed [`Value`] never fail. Lone surrogates are passed on, as the grammar allows them.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;
use memchr::memchr2;
use smallvec::SmallVec;

use crate::base::limits::JSON_DEPTH_MAX;

/// Why a body is not JSON that we take. The client's fault (or, in a stream, the worker's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not UTF-8.
    #[error("the body is not valid UTF-8 at byte: {0}")]
    Utf8(usize),
    /// Not JSON.
    #[error("the body is not valid JSON at byte: {0}")]
    Syntax(usize),
    /// Nested deeper than [`JSON_DEPTH_MAX`].
    #[error("the body is nested deeper than {JSON_DEPTH_MAX} levels at byte: {0}")]
    TooDeep(usize),
    /// Valid JSON, but not an object.
    #[error("the body must be a JSON object")]
    NotAnObject,
}

/// A value of a parsed body: its exact bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a [u8]);

/// One member of an object.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The key's bytes between its quotes, escapes not undone.
    pub key: &'a [u8],
    /// The value.
    pub value: Value<'a>,
    /// Where the value starts in the body that was parsed.
    pub at: usize,
}

impl Member<'_> {
    /// Where the value stands in the body.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.at..self.at + self.value.0.len()
    }

    /// Whether this is its name, escapes undone.
    #[must_use]
    pub fn is(&self, key: &str) -> bool {
        self.key == key.as_bytes() || (memchr(b'\\', self.key).is_some() && *decode(self.key) == *key.as_bytes())
    }
}

/// A parsed top-level object.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    members: SmallVec<[Member<'a>; 24]>,
    /// Just behind the opening brace: where a member can be spliced in front of the others.
    pub open: usize,
}

impl<'a> Object<'a> {
    /// The last member of that name (as most parsers read duplicates). Keys with escapes are compared decoded.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Member<'a>> {
        self.members.iter().rev().find(|it| it.is(key))
    }

    /// Whether `key` occurs twice: two readers could disagree on which one counts.
    #[must_use]
    pub fn repeats(&self, key: &str) -> bool {
        self.members.iter().filter(|it| it.is(key)).nth(1).is_some()
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All members in order.
    #[must_use]
    pub fn members(&self) -> &[Member<'a>] {
        &self.members
    }
}

/// Parses one JSON object; proves the whole text well formed.
pub fn parse(body: &[u8]) -> Result<Object<'_>, Invalid> {
    std::str::from_utf8(body).map_err(|error| Invalid::Utf8(error.valid_up_to()))?;
    let mut scan = Scan { body, at: 0 };
    scan.space();
    if scan.peek() != Some(b'{') {
        scan.value(0)?;
        scan.end()?;
        return Err(Invalid::NotAnObject);
    }
    scan.at += 1;
    let open = scan.at;
    let mut members = SmallVec::new();
    scan.members(0, |member| members.push(member))?;
    scan.end()?;
    Ok(Object { members, open })
}

impl<'a> Value<'a> {
    /// The exact bytes.
    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == b"null"
    }

    /// `true` or `false`.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.0 {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// A whole number that fits.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        std::str::from_utf8(self.0).ok()?.parse().ok()
    }

    /// The inside of a string, escapes not undone.
    #[must_use]
    pub fn string_raw(self) -> Option<&'a [u8]> {
        self.0.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""))
    }

    /// A string, decoded; a lone surrogate becomes U+FFFD.
    #[must_use]
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        Some(match decode(self.string_raw()?) {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(self) -> bool {
        self.0.first() == Some(&b'[')
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(self) -> bool {
        self.0.first() == Some(&b'{')
    }

    /// The elements of an array; none of anything else.
    pub fn items(self) -> impl Iterator<Item = Value<'a>> {
        let body = if self.is_array() { self.0 } else { &[] };
        let mut scan = Scan { body, at: 1 };
        std::iter::from_fn(move || scan.next_item())
    }

    /// The members of an object; none of anything else. `at` counts from the start of this value.
    pub fn entries(self) -> impl Iterator<Item = Member<'a>> {
        let body = if self.is_object() { self.0 } else { &[] };
        let mut scan = Scan { body, at: 1 };
        std::iter::from_fn(move || scan.next_member())
    }

    /// A member of an object by name.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.entries().find(|it| it.is(key)).map(|it| it.value)
    }
}

/// The bytes of a JSON string's inside with its escapes undone. Lone surrogates become U+FFFD.
#[must_use]
pub fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    decode_into(raw, &mut out);
    Cow::Owned(out)
}

/// Appends the inside of a JSON string with its escapes undone.
pub fn decode_into(mut raw: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr(b'\\', raw) {
        out.extend_from_slice(&raw[..at]);
        let (byte, mut used) = match raw.get(at + 1) {
            Some(b'n') => (b'\n', 2),
            Some(b't') => (b'\t', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'b') => (8, 2),
            Some(b'f') => (12, 2),
            Some(b'u') => (0, 0),
            Some(other) => (*other, 2),
            None => (b'\\', 1),
        };
        if used == 0 {
            used = decode_unicode(&raw[at..], out);
        } else {
            out.push(byte);
        }
        raw = &raw[at + used..];
    }
    out.extend_from_slice(raw);
}

/// Decodes `\uXXXX` or a surrogate pair at the start of `raw`; returns the bytes used.
fn decode_unicode(raw: &[u8], out: &mut Vec<u8>) -> usize {
    let unit = |at: usize| {
        let hex = raw.get(at..at + 6).filter(|it| it.starts_with(b"\\u"))?;
        u32::from_str_radix(std::str::from_utf8(&hex[2..]).ok()?, 16).ok()
    };
    let Some(first) = unit(0) else {
        out.extend_from_slice(&raw[..2.min(raw.len())]);
        return 2.min(raw.len());
    };
    let pair = (0xD800..0xDC00).contains(&first).then(|| unit(6)).flatten().filter(|it| (0xDC00..0xE000).contains(it));
    let (code, used) = match pair {
        Some(second) => (0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00), 12),
        None => (first, 6),
    };
    let mut buffer = [0; 4];
    out.extend_from_slice(char::from_u32(code).unwrap_or('\u{FFFD}').encode_utf8(&mut buffer).as_bytes());
    used
}

/// Appends a JSON value without whitespace outside of strings.
pub fn compact_into(raw: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < raw.len() {
        match raw[at] {
            b'"' => {
                let end = string_end(raw, at + 1).unwrap_or(raw.len());
                out.extend_from_slice(&raw[at..end]);
                at = end;
            }
            b' ' | b'\n' | b'\r' | b'\t' => at += 1,
            byte => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

/// Appends `text` as a JSON string, quotes included.
pub fn encode_into(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing to memory");
}

/// Where the string whose inside starts at `at` ends (behind its quote). For text already known to be well formed.
fn string_end(raw: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', raw.get(at..)?)?;
        if raw[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

struct Scan<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), Invalid> {
        self.space();
        if self.at == self.body.len() { Ok(()) } else { Err(Invalid::Syntax(self.at)) }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        self.space();
        if self.peek() != Some(byte) {
            return Err(Invalid::Syntax(self.at));
        }
        self.at += 1;
        Ok(())
    }

    /// Skips one value, proving it well formed.
    fn value(&mut self, depth: usize) -> Result<(), Invalid> {
        self.space();
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') if depth >= JSON_DEPTH_MAX => Err(Invalid::TooDeep(self.at)),
            Some(b'{') => {
                self.at += 1;
                self.members(depth, |_| {})
            }
            Some(b'[') => self.array(depth),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(Invalid::Syntax(self.at)),
        }
    }

    /// Members of an object whose brace was read, up to and with the closing one.
    fn members(&mut self, depth: usize, mut found: impl FnMut(Member<'a>)) -> Result<(), Invalid> {
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            let start = self.at;
            self.string()?;
            let key = &self.body[start + 1..self.at - 1];
            self.expect(b':')?;
            self.space();
            let at = self.at;
            self.value(depth + 1)?;
            found(Member { key, value: Value(&self.body[at..self.at]), at });
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Invalid::Syntax(self.at)),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Invalid> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Invalid::Syntax(self.at)),
            }
        }
    }

    fn string(&mut self) -> Result<(), Invalid> {
        if self.peek() != Some(b'"') {
            return Err(Invalid::Syntax(self.at));
        }
        self.at += 1;
        loop {
            let rest = &self.body[self.at..];
            let run = memchr2(b'"', b'\\', rest).ok_or(Invalid::Syntax(self.body.len()))?;
            if rest[..run].iter().fold(false, |bad, byte| bad | (*byte < 0x20)) {
                return Err(Invalid::Syntax(self.at));
            }
            self.at += run + 1;
            if rest[run] == b'"' {
                return Ok(());
            }
            match self.peek() {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                Some(b'u') if self.hex4() => self.at += 5,
                _ => return Err(Invalid::Syntax(self.at)),
            }
        }
    }

    fn hex4(&self) -> bool {
        self.body.get(self.at + 1..self.at + 5).is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Invalid> {
        if !self.body[self.at..].starts_with(word) {
            return Err(Invalid::Syntax(self.at));
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(Invalid::Syntax(self.at)) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), Invalid> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    // The readers below run on text already proved well formed; on anything else they end early.

    fn next_item(&mut self) -> Option<Value<'a>> {
        self.space();
        if self.peek()? == b',' {
            self.at += 1;
            self.space();
        }
        self.skip()
    }

    fn next_member(&mut self) -> Option<Member<'a>> {
        self.space();
        if self.peek()? == b',' {
            self.at += 1;
            self.space();
        }
        let key = self.skip()?.string_raw()?;
        self.space();
        self.at += 1; // the colon
        self.space();
        let at = self.at;
        Some(Member { key, value: self.skip()?, at })
    }

    fn skip(&mut self) -> Option<Value<'a>> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => self.at = string_end(self.body, self.at + 1)?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth == 0 => return None,
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                _ => self.scalar(),
            }
            if depth == 0 {
                return Some(Value(&self.body[start..self.at]));
            }
        }
    }

    fn scalar(&mut self) {
        while !matches!(self.peek(), None | Some(b',' | b'}' | b']' | b':' | b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests;
