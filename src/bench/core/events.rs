//! What an SSE stream says, counted at memory speed: content events, the end, an error in the middle.
//!
//! The `data:` lines are looked at, not parsed: a generator that parsed each chunk would measure itself.

use memchr::memchr;
use memchr::memmem;

/// What happened in a piece of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `data:` lines, the closing `[DONE]` not counted.
    pub events: u64,
    /// Those that carry text for the reader.
    pub contents: u64,
}

/// Follows one stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// The start of a line that has not ended.
    line: Vec<u8>,
    is_done: bool,
    has_failed: bool,
}

/// As much of a line that spans two reads as is looked at.
const LINE_BYTES_MAX: usize = 64 << 10;

impl Stream {
    /// Forgets what was seen, for the next answer.
    pub fn reset(&mut self) {
        self.line.clear();
        (self.is_done, self.has_failed) = (false, false);
    }

    /// Whether `[DONE]` came.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether an error event came.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, mut piece: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while let Some(end) = memchr(b'\n', piece) {
            if self.line.is_empty() {
                self.line(&piece[..end], &mut seen);
            } else {
                self.keep(&piece[..end]);
                let line = std::mem::take(&mut self.line);
                self.line(&line, &mut seen);
                self.line = line;
                self.line.clear();
            }
            piece = &piece[end + 1..];
        }
        self.keep(piece);
        seen
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn line(&mut self, line: &[u8], seen: &mut Seen) {
        if line.starts_with(b"event: error") || line.starts_with(b"event:error") {
            self.has_failed = true;
        }
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { return };
        if data == b"[DONE]" {
            self.is_done = true;
            return;
        }
        if data.starts_with(br#"{"error""#) {
            self.has_failed = true;
        }
        seen.events += 1;
        seen.contents += u64::from(has_text(data));
    }
}

/// Whether one of the fields that carry text to the reader is a string that is not empty.
fn has_text(data: &[u8]) -> bool {
    ["\"content\":", "\"text\":", "\"reasoning_content\":", "\"arguments\":"].iter().any(|field| {
        let Some(at) = memmem::find(data, field.as_bytes()) else { return false };
        let value = data[at + field.len()..].trim_ascii_start();
        value.first() == Some(&b'"') && value.get(1).is_some_and(|it| *it != b'"')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
                          data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n: keep-alive\n\n\
                          data: {\"choices\":[{\"delta\":{\"content\": \"you\"}}]}\r\n\r\n\
                          data: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n";

    #[test]
    fn events_are_counted_however_reads_fall() {
        let mut stream = Stream::default();
        for step in 1..STREAM.len() {
            stream.reset();
            let mut total = Seen::default();
            for piece in STREAM.as_bytes().chunks(step) {
                let seen = stream.push(piece);
                total = Seen { events: total.events + seen.events, contents: total.contents + seen.contents };
            }
            assert_eq!(total, Seen { events: 4, contents: 2 });
            assert!(stream.is_done() && !stream.has_failed());
        }
    }

    #[test]
    fn an_error_event_is_seen() {
        for text in ["data: {\"error\":{\"message\":\"x\"}}\n\n", "event: error\ndata: {}\n\n"] {
            let mut stream = Stream::default();
            stream.push(text.as_bytes());
            assert!(stream.has_failed() && !stream.is_done(), "{text}");
        }
    }
}
