//! The forwarding lane: bytes in both directions, to one peer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use super::lanes::Lane;
use super::link::UNANSWERED;
use super::metrics::Metrics;
use super::peer::Peer;
use crate::chaos;
use crate::chaos::core::Heading;

/// Bytes in both directions, on the forwarding lane. Dropped before it was shut down, the end that opened it resets it: nothing that still waits is
/// sent. The other end stops reading, and what it wrote still arrives, so what is written must tell by itself whether it is whole.
#[derive(Debug)]
pub struct Stream {
    /// Whom it leads to; the node id is certified.
    pub peer: Arc<Peer>,
    both: tokio::io::Join<quinn::RecvStream, quinn::SendStream>,
    /// Whether it is reset when dropped.
    pub(super) resets: bool,
    chaos: chaos::Handle,
    metrics: Metrics,
}

impl Stream {
    pub(super) fn new(
        peer: Arc<Peer>,
        (recv, send): (quinn::RecvStream, quinn::SendStream),
        resets: bool,
        chaos: chaos::Handle,
        metrics: Metrics,
    ) -> Self {
        Self { peer, both: tokio::io::join(recv, send), resets, chaos, metrics }
    }

    /// A stream that a partition on purpose cuts breaks at once: over a cut wire it would stand still until the connection is given up.
    fn check(&self, heading: Heading) -> io::Result<()> {
        if self.chaos.is_cut(self.peer.node.as_str(), heading) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.resets {
            let _ = self.both.writer_mut().reset(UNANSWERED); // fails only when the peer has gone
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(Heading::In)?;
        let before = into.filled().len();
        let polled = Pin::new(&mut self.both).poll_read(cx, into);
        self.metrics.received(Lane::Forward, into.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(Heading::Out)?;
        let polled = Pin::new(&mut self.both).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.metrics.sent(Lane::Forward, written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.both).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.both).poll_shutdown(cx);
        self.resets &= polled.is_pending();
        polled
    }
}
