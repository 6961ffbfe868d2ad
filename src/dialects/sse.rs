//! Server-sent events as bytes (WHATWG HTML §9.2): cut a byte stream into events, read an event's fields.
//!
//! Whole events are slices of what came in; only an event that spans two reads is copied. A carriage return that is not
//! followed by a line feed ends the stream as malformed: parsers disagree on it, so it could smuggle an event past us.

use bytes::Bytes;
use bytes::BytesMut;
use memchr::memchr;
use memchr::memchr_iter;

use crate::base::limits::SSE_EVENT_BYTES_MAX;

/// The stream broke the event grammar. The worker's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// One event is longer than [`SSE_EVENT_BYTES_MAX`].
    #[error("an event is longer than {SSE_EVENT_BYTES_MAX} bytes")]
    TooLong,
    /// A carriage return without a line feed.
    #[error("a carriage return without a line feed")]
    BareCarriageReturn,
}

/// Cuts a byte stream into events, each with its closing blank line.
#[derive(Debug, Default)]
pub struct Splitter {
    rest: BytesMut,
    ready: Bytes,
}

impl Splitter {
    /// Takes the next piece of the stream. Call [`Splitter::next`] until `None` before the next push.
    pub fn push(&mut self, piece: Bytes) -> Result<(), Broken> {
        let split_pair = self.rest.last() == Some(&b'\r') && piece.first().is_some_and(|it| *it != b'\n');
        if split_pair || has_bare_carriage_return(&piece) {
            return Err(Broken::BareCarriageReturn);
        }
        if self.rest.is_empty() {
            self.ready = piece;
            return Ok(());
        }
        self.rest.extend_from_slice(&piece);
        self.ready = self.rest.split().freeze();
        // BOUND: it is the event that is bounded, not what one read brings: many short ones may come at once.
        let is_long = self.ready.len() > SSE_EVENT_BYTES_MAX;
        if is_long && event_end(&self.ready).is_none_or(|end| end > SSE_EVENT_BYTES_MAX) {
            return Err(Broken::TooLong);
        }
        Ok(())
    }

    /// All that can be cut into events now: [`Splitter::next`] gives consecutive pieces of exactly this.
    #[must_use]
    pub fn ready(&self) -> Bytes {
        self.ready.clone()
    }

    /// The next whole event, closing blank line included.
    #[expect(clippy::should_implement_trait, reason = "an iterator would promise that `None` is the end")]
    pub fn next(&mut self) -> Option<Bytes> {
        match event_end(&self.ready) {
            Some(end) => Some(self.ready.split_to(end)),
            None => {
                if !self.ready.is_empty() {
                    self.rest.extend_from_slice(&std::mem::take(&mut self.ready));
                }
                None
            }
        }
    }

    /// Bytes of an event that has not ended.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.rest.len() + self.ready.len()
    }
}

/// A CR followed by anything but LF. One at the very end may yet get its LF: the next piece decides.
fn has_bare_carriage_return(piece: &[u8]) -> bool {
    memchr_iter(b'\r', piece).any(|at| piece.get(at + 1).is_some_and(|next| *next != b'\n'))
}

/// Where the first event ends: behind the first empty line.
fn event_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr(b'\n', bytes.get(at..)?)? + 1;
        match bytes.get(at)? {
            b'\n' => return Some(at + 1),
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => return Some(at + 2),
            _ => {}
        }
    }
}

/// The value of an event's first field of that name, without the one optional leading space.
#[must_use]
pub fn field<'a>(event: &'a [u8], name: &str) -> Option<&'a [u8]> {
    lines(event).find_map(|line| value_of(line, name))
}

/// The event's data: its only `data` line, or all of them joined by line feeds.
#[must_use]
pub fn data(event: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    let mut found = lines(event).filter_map(|line| value_of(line, "data"));
    let first = found.next()?;
    let Some(second) = found.next() else { return Some(first.into()) };
    let mut joined = first.to_vec();
    for line in std::iter::once(second).chain(found) {
        joined.push(b'\n');
        joined.extend_from_slice(line);
    }
    Some(joined.into())
}

/// Whether the event is comments alone (a keep-alive).
#[must_use]
pub fn is_comment(event: &[u8]) -> bool {
    !event.starts_with(b"data:") && lines(event).all(|line| line.is_empty() || line[0] == b':')
}

fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(event);
    std::iter::from_fn(move || {
        let all = rest?;
        let line = match memchr(b'\n', all) {
            Some(end) => {
                rest = Some(&all[end + 1..]);
                &all[..end]
            }
            None => {
                rest = None;
                all
            }
        };
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    })
}

fn value_of<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name.as_bytes())?;
    // A name alone is a field with an empty value: browsers see it, so we must.
    let Some(value) = rest.strip_prefix(b":") else { return rest.is_empty().then_some(rest) };
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split_all(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, Broken> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        for piece in pieces {
            splitter.push(Bytes::copy_from_slice(piece))?;
            while let Some(event) = splitter.next() {
                events.push(event.to_vec());
            }
        }
        Ok(events)
    }

    const STREAM: &str = "data: {\"a\":\"Gr\u{fc}\u{df}e \u{4e16}\u{754c} \u{1F680}\"}\n\n: ping\n\nevent: x\r\ndata: 1\r\n\r\ndata:\ndata: 2\n\ndata: [DONE]\n\n";

    fn pieces(cuts: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
        let mut at: Vec<usize> = cuts.into_iter().chain([0, STREAM.len()]).collect();
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|it| &STREAM.as_bytes()[it[0]..it[1]]).collect();
        split_all(&pieces).expect("well formed")
    }

    #[test]
    fn field_13_every_pair_of_cuts_gives_the_same_whole_events_in_valid_utf8() {
        let whole = pieces([]);
        assert_eq!((whole.len(), whole.concat()), (5, STREAM.as_bytes().to_vec()));
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let events = pieces([first, second]);
                assert_eq!(events, whole, "cut at {first} and {second}");
                assert!(events.iter().all(|it| std::str::from_utf8(it).is_ok()));
            }
        }
        assert_eq!(pieces(0..STREAM.len()), whole, "byte by byte");
    }

    proptest! {
        #[test]
        fn field_13_any_cuts_of_a_stream_give_the_same_events(cuts in prop::collection::vec(0..STREAM.len(), 0..40)) {
            prop_assert_eq!(pieces(cuts), pieces([]));
        }

        #[test]
        fn field_13_any_bytes_are_split_without_loss_or_panic(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), any::<u8>()], 0..60), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let mut at: Vec<usize> = cuts.iter().map(|it| it.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|it| &bytes[it[0]..it[1]]).collect();
            let (cut, whole) = (split_all(&pieces), split_all(&[&bytes]));
            // A refusal may come one piece later or earlier, never not at all.
            prop_assert_eq!(cut.is_err(), whole.is_err());
            if let (Ok(cut), Ok(whole)) = (cut, whole) {
                prop_assert_eq!(&cut, &whole);
                prop_assert!(bytes.starts_with(&cut.concat()));
            }
        }
    }

    #[test]
    fn fields_are_read_with_and_without_the_space() {
        let event = b"event: message_start\ndata:{\"a\":1}\ndata: 2\n\n";
        assert_eq!(field(event, "event"), Some(&b"message_start"[..]));
        assert_eq!(data(event).expect("data").as_ref(), b"{\"a\":1}\n2");
        assert!(is_comment(b": keep-alive\n\n") && !is_comment(event));
    }

    #[test]
    fn what_parsers_disagree_on_is_refused() {
        assert_eq!(split_all(&[b"data: a\rdata: b\n\n"]), Err(Broken::BareCarriageReturn));
        assert_eq!(split_all(&[b"data: a\r", b"data: b\n\n"]), Err(Broken::BareCarriageReturn));
    }

    #[test]
    fn an_event_without_end_is_bounded() {
        let mut splitter = Splitter::default();
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let failed = (0..8).find_map(|_| {
            let failed = splitter.push(piece.clone()).err();
            while splitter.next().is_some() {}
            failed
        });
        assert_eq!(failed, Some(Broken::TooLong));
    }
}
