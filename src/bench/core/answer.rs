//! One HTTP/1.1 answer as its bytes arrive: the head, then the body out of its length or its chunks.
//!
//! Own, because a load generator must cost less than what it measures: nothing is allocated or copied for an answer.

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;
/// Longest line that tells the size of a chunk.
const SIZE_LINE_BYTES_MAX: usize = 1 << 10;

/// The server broke HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What is known of an answer once its head was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// Whether the connection can carry another request afterwards.
    pub keeps_alive: bool,
    body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// So many bytes are left.
    Length(u64),
    /// A size line comes next.
    ChunkSize,
    /// So many bytes of the chunk are left.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// Lines behind the last chunk, up to an empty one.
    Trailer,
    /// All there is until the connection closes.
    UntilClose,
    Done,
}

impl Head {
    /// Reads a head. `None`: it is not complete. Otherwise also how many bytes it took.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
            Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
        };
        let status = response.code.ok_or(Malformed)?;
        let mut head = Self { status, keeps_alive: response.version == Some(1), body: Body::UntilClose };
        for header in response.headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") && head.body != Body::ChunkSize {
                let text = std::str::from_utf8(header.value).map_err(|_invalid| Malformed)?;
                head.body = Body::Length(text.trim().parse().map_err(|_invalid| Malformed)?);
            } else if is("transfer-encoding") {
                head.body = Body::ChunkSize;
            } else if is("connection") {
                head.keeps_alive &= !header.value.eq_ignore_ascii_case(b"close");
            }
        }
        if matches!(status, 100..=199 | 204 | 304) || head.body == Body::Length(0) {
            head.body = Body::Done;
        }
        Ok(Some((head, length)))
    }

    /// Takes the bytes of `input` that are the body's and gives what they carry to `sink`. Returns how many were taken;
    /// less than all only when more is needed to go on, or the answer is complete.
    pub fn body(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            match self.body {
                Body::Length(left) | Body::Chunk(left) => {
                    let piece = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if piece == 0 {
                        return Ok(taken);
                    }
                    sink(&rest[..piece]);
                    taken += piece;
                    self.passed(left - piece as u64);
                }
                Body::UntilClose => {
                    sink(rest);
                    return Ok(input.len());
                }
                Body::ChunkSize | Body::ChunkEnd | Body::Trailer => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        return if rest.len() > SIZE_LINE_BYTES_MAX { Err(Malformed) } else { Ok(taken) };
                    };
                    taken += end + 1;
                    self.line(rest[..end].trim_ascii())?;
                }
                Body::Done => return Ok(taken),
            }
        }
    }

    fn passed(&mut self, left: u64) {
        self.body = match self.body {
            Body::Length(_) if left == 0 => Body::Done,
            Body::Length(_) => Body::Length(left),
            _chunk if left == 0 => Body::ChunkEnd,
            _chunk => Body::Chunk(left),
        };
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        self.body = match (self.body, line) {
            (Body::ChunkEnd, b"") => Body::ChunkSize,
            (Body::Trailer, b"") => Body::Done,
            (Body::Trailer, _) => Body::Trailer,
            (Body::ChunkSize, line) => {
                let digits = line.split(|it| *it == b';').next().unwrap_or_default();
                let digits = std::str::from_utf8(digits.trim_ascii()).map_err(|_invalid| Malformed)?;
                match u64::from_str_radix(digits, 16).map_err(|_invalid| Malformed)? {
                    0 => Body::Trailer,
                    size => Body::Chunk(size),
                }
            }
            _ => return Err(Malformed),
        };
        Ok(())
    }

    /// Whether the whole answer was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.body == Body::Done
    }

    /// Whether the answer is whole now that the connection has ended.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.body, Body::UntilClose | Body::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an answer that arrives in pieces of `step` bytes; the rest is what was not its own.
    fn read(bytes: &[u8], step: usize) -> Result<(Head, Vec<u8>, usize), Malformed> {
        let (mut head, mut start) = (None, 0);
        let mut body = Vec::new();
        for end in (0..bytes.len()).step_by(step).skip(1).chain([bytes.len()]) {
            if head.is_none() {
                let Some((it, length)) = Head::read(&bytes[start..end])? else { continue };
                head = Some(it);
                start += length;
            }
            if let Some(head) = &mut head {
                start += head.body(&bytes[start..end], |piece| body.extend_from_slice(piece))?;
            }
        }
        head.map(|head| (head, body, bytes.len() - start)).ok_or(Malformed)
    }

    #[test]
    fn answers_are_read_however_their_bytes_fall() {
        let sized = &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1"[..];
        let chunked = &b"HTTP/1.1 429 No\r\ntransfer-encoding: chunked\r\nConnection: close\r\n\r\n\
                         3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nx: y\r\n\r\nHTTP/1.1"[..];
        for step in 1..sized.len() {
            let (head, body, rest) = read(sized, step).expect("is read");
            assert!(head.is_done() && head.keeps_alive && head.status == 200);
            assert_eq!((body.as_slice(), rest), (&b"hello"[..], 8));
        }
        for step in 1..chunked.len() {
            let (head, body, rest) = read(chunked, step).expect("is read");
            assert!(head.is_done() && !head.keeps_alive && head.status == 429);
            assert_eq!((body.as_slice(), rest), (&b"hello"[..], 8));
        }
    }

    #[test]
    fn an_answer_without_length_ends_with_its_connection() {
        let (head, body, _) = read(b"HTTP/1.0 200 OK\r\n\r\nhello", 100).expect("is read");
        assert!(!head.is_done() && head.ends_with_connection() && !head.keeps_alive);
        assert_eq!(body, b"hello");
        let (cut, ..) = read(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", 100).expect("is read");
        assert!(!cut.ends_with_connection());
        let (empty, ..) = read(b"HTTP/1.1 204 No Content\r\n\r\n", 100).expect("is read");
        assert!(empty.is_done());
    }

    #[test]
    fn what_is_not_http_is_refused() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let long = "1".repeat(2000);
        for bad in
            ["garbage\r\n\r\n", &format!("{head}xyz\r\n"), &format!("{head}1\r\nab\r\n"), &format!("{head}{long}")]
        {
            assert_eq!(read(bad.as_bytes(), 4096).map(|_| ()), Err(Malformed), "{bad}");
        }
    }
}
