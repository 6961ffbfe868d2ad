//! A client's byte stream, as the HTTP library uses it: the connection's [`Watch`] is told what it does.
//!
//! A head that the library cannot read is answered by it with a status and no word. Such an answer is held back here,
//! and the status noted: the connection then says it in our schema.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Buf as _;
use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use super::watch::Watch;

/// The stream.
pub(super) struct Stream<T> {
    io: T,
    /// Read already, to learn the protocol.
    start: Bytes,
    watch: Arc<Watch>,
}

impl<T> Stream<T> {
    pub(super) fn new(io: T, start: Bytes, watch: Arc<Watch>) -> Self {
        Self { io, start, watch }
    }

    fn note<R>(&self, written: &Poll<R>) {
        self.watch.wrote(written.is_pending());
    }

    /// Whether this write is the library's own bare refusal; it is noted and not sent.
    fn holds_back(&self, bytes: &[u8]) -> bool {
        let status = if self.watch.is_h2() || !self.watch.is_quiet() { None } else { bare_refusal(bytes) };
        status.inspect(|it| self.watch.refuse(*it)).is_some()
    }
}

/// The status of an answer that says nothing else: no body, no header but those every answer has.
fn bare_refusal(bytes: &[u8]) -> Option<u16> {
    let head = std::str::from_utf8(bytes.strip_prefix(b"HTTP/1.1 ")?.strip_suffix(b"\r\n\r\n")?).ok()?;
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.get(..3)?.parse().ok()?;
    let is_bare = |line: &str| line == "content-length: 0" || line == "connection: close" || line.starts_with("date: ");
    ((400..500).contains(&status) && lines.all(is_bare)).then_some(status)
}

impl<T: AsyncRead + Unpin> AsyncRead for Stream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.start.is_empty() {
            let len = self.start.len().min(into.remaining());
            into.put_slice(&self.start[..len]);
            self.start.advance(len);
            self.watch.heard();
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, into);
        match &read {
            Poll::Ready(Ok(())) if into.filled().len() > before => self.watch.heard(),
            Poll::Ready(_) => self.watch.client_ended(),
            Poll::Pending => {}
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.holds_back(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices
            && self.holds_back(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if flushed.is_pending() {
            self.note(&flushed); // TLS keeps what the socket did not take
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_without_a_word_is_held_back() {
        let bare =
            "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\ndate: x\r\n\r\n";
        assert_eq!(bare_refusal(bare.as_bytes()), Some(431));
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\nx-smg-worker: w-1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n{}",
            "HTTP/1.1 4",
            "data: HTTP/1.1 400\r\n\r\n",
        ] {
            assert_eq!(bare_refusal(other.as_bytes()), None, "{other}");
        }
    }
}
