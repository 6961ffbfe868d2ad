//! Answers that break HTTP or SSE on purpose, written to the bare socket.
//!
//! The real answer is made first; this only decides what of it is written, what is put between, and how the connection
//! ends. It always ends: what follows such an answer cannot be trusted. While it writes or waits, a client that leaves
//! is noticed at once, so that stalls are aborts like any other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::tcp::OwnedWriteHalf;

use super::body::SimBody;
use super::faults::Kind;
use super::faults::Rule;
use super::handle::Outgoing;
use super::shared::Shared;
use super::shared::Ticket;

/// A second answer nobody asked for.
const UNASKED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nUNASKED";

/// How a played answer ends.
#[derive(PartialEq, Eq)]
enum End {
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Open until the client leaves.
    Linger,
}

/// Writes `outgoing` as `fault` says, then ends the connection.
pub(super) async fn play(shared: &Arc<Shared>, stream: TcpStream, outgoing: Outgoing, fault: &Rule) {
    let (mut read, write) = stream.into_split();
    let mut wire = Wire { shared: Arc::clone(shared), write, fault: fault.clone(), written: 0 };
    let end = tokio::select! {
        end = wire.play(outgoing) => end.unwrap_or(End::Close), // the client is gone: nothing more to break
        () = left(&mut read) => End::Close,
    };
    if end == End::Linger {
        left(&mut read).await;
    }
    let Ok(stream) = wire.write.reunite(read) else { return };
    if end == End::Reset {
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)); // a dead socket needs no RST
    }
}

/// Waits until the client closes; what it still sends is read and forgotten.
async fn left(read: &mut OwnedReadHalf) {
    let mut ignored = [0; 4096];
    while read.read(&mut ignored).await.is_ok_and(|it| it > 0) {}
}

struct Wire {
    shared: Arc<Shared>,
    write: OwnedWriteHalf,
    fault: Rule,
    written: usize,
}

impl Wire {
    async fn play(&mut self, outgoing: Outgoing) -> io::Result<End> {
        match self.fault.kind {
            Kind::ResetBeforeHead | Kind::Refuse => return Ok(End::Reset),
            Kind::Garbage => {
                let garbage = self.shared.faults.garbage(self.fault.bytes.max(16));
                self.send(&garbage).await?;
                return Ok(End::Close);
            }
            Kind::Continue => {
                let is_hints = self.fault.how.as_deref() == Some("hints");
                let head = if is_hints {
                    "HTTP/1.1 103 Early Hints\r\nlink: </>\r\n\r\n"
                } else {
                    "HTTP/1.1 100 Continue\r\n\r\n"
                };
                for _ in 0..self.fault.after.max(1) {
                    self.send(head.as_bytes()).await?;
                }
            }
            _ => {}
        }
        let (head, body) = outgoing.into_parts();
        let length = body.size_hint().exact();
        let mut text = format!("HTTP/1.1 {}\r\n", head.status);
        for (name, value) in &head.headers {
            text.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
        }
        match length.map(|it| self.claimed(it)) {
            Some(length) => text.push_str(&format!("content-length: {length}\r\n\r\n")),
            None => text.push_str("transfer-encoding: chunked\r\n\r\n"),
        }
        self.send(text.as_bytes()).await?;
        let end = self.body(body, length.is_none()).await?;
        if self.fault.kind == Kind::TrailingGarbage {
            let garbage = self.fault.text.clone().unwrap_or_else(|| UNASKED.to_owned());
            self.send(garbage.as_bytes()).await?;
            return Ok(End::Linger);
        }
        Ok(end)
    }

    /// The length the head claims.
    fn claimed(&self, length: u64) -> u64 {
        let off = self.fault.bytes.max(1) as u64;
        match (self.fault.kind, self.fault.how.as_deref()) {
            (Kind::WrongLength, Some("short")) => length.saturating_sub(off),
            (Kind::WrongLength, _) => length + off,
            _ => length,
        }
    }

    async fn body(&mut self, mut body: SimBody, is_chunked: bool) -> io::Result<End> {
        let mut told = 0;
        let mut before = Bytes::new();
        loop {
            if told == self.fault.after
                && let Some(end) = self.strike(is_chunked, &before).await?
            {
                return Ok(end);
            }
            let Some(Ok(frame)) = Pin::new(&mut body).frame().await else { break };
            let Ok(data) = frame.into_data() else { continue };
            if data.is_empty() {
                continue;
            }
            self.piece(&data, is_chunked).await?;
            before = data;
            told += 1;
        }
        if told < self.fault.after
            && let Some(end) = self.strike(is_chunked, &before).await?
        {
            return Ok(end); // a shorter answer than the rule expected: at its end, then
        }
        if is_chunked {
            self.send(b"0\r\n\r\n").await?;
        }
        Ok(End::Close)
    }

    /// What the fault does at its place in the body; `Some` ends the answer.
    async fn strike(&mut self, is_chunked: bool, before: &Bytes) -> io::Result<Option<End>> {
        let ms = Duration::from_millis(self.fault.ms);
        match self.fault.kind {
            Kind::Cut if self.fault.how.as_deref() == Some("reset") => return Ok(Some(End::Reset)),
            Kind::Cut => return Ok(Some(End::Close)),
            Kind::Stall if self.fault.ms == 0 => return Ok(Some(self.stall_for_ever().await)),
            Kind::Stall => self.shared.clock.sleep(ms).await,
            Kind::MalformedEvent => self.piece(b"data: {\"id\": \"broken\", \"choices\": [{\n\n", is_chunked).await?,
            Kind::BadChunk => {
                self.send(b"zz\r\nnot a chunk\r\n").await?;
                return Ok(Some(End::Close));
            }
            Kind::HugeLine => {
                let mut line = b"data: ".to_vec();
                line.resize(line.len() + self.fault.bytes.max(1 << 20), b'x');
                line.extend_from_slice(b"\n\n");
                self.piece(&line, is_chunked).await?;
            }
            Kind::Inject => {
                for piece in injected(&self.fault) {
                    self.piece(&piece, is_chunked).await?;
                }
            }
            Kind::ErrorEvent => {
                let event =
                    b"data: {\"error\":{\"message\":\"simulated engine failure\",\"type\":\"InternalServerError\",\
                    \"param\":null,\"code\":500}}\n\n";
                self.piece(event, is_chunked).await?;
                self.piece(b"data: [DONE]\n\n", is_chunked).await?;
                self.send(if is_chunked { b"0\r\n\r\n" } else { b"" }).await?;
                return Ok(Some(End::Close));
            }
            Kind::NeverEnding => loop {
                let event: &[u8] = if before.is_empty() { b": still here\n\n" } else { before };
                self.piece(event, is_chunked).await?;
                self.shared.clock.sleep(ms.max(Duration::from_millis(1))).await;
            },
            _ => {}
        }
        Ok(None)
    }

    /// Waits with a ticket of its own: the answer may already be complete as far as the engine knows, and the client
    /// that leaves now gives it up all the same.
    async fn stall_for_ever(&self) -> End {
        let _ticket = Ticket::new(&self.shared);
        std::future::pending().await
    }

    async fn piece(&mut self, data: &[u8], is_chunked: bool) -> io::Result<()> {
        if !is_chunked {
            return self.send(data).await;
        }
        let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
        chunk.extend_from_slice(data);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk).await
    }

    /// Writes, as far and as fast as the fault lets.
    async fn send(&mut self, data: &[u8]) -> io::Result<()> {
        match self.fault.kind {
            Kind::Drip => {
                for byte in data {
                    self.write.write_all(std::slice::from_ref(byte)).await?;
                    match self.fault.ms {
                        0 => tokio::task::yield_now().await, // a sleep of nothing would still be a millisecond
                        ms => self.shared.clock.sleep(Duration::from_millis(ms)).await,
                    }
                }
            }
            Kind::ResetAfterBytes => {
                let room = self.fault.bytes.saturating_sub(self.written);
                let written = data.len().min(room);
                self.write.write_all(&data[..written]).await?;
                self.written += written;
                if written < data.len() {
                    socket2::SockRef::from(self.write.as_ref()).set_linger(Some(Duration::ZERO))?;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
            _ => self.write.write_all(data).await?,
        }
        Ok(())
    }
}

/// What an injection writes, a write each.
fn injected(fault: &Rule) -> Vec<Vec<u8>> {
    if let Some(text) = &fault.text {
        return vec![text.clone().into_bytes()];
    }
    let pieces: &[&[u8]] = match fault.how.as_deref() {
        Some("done") => &[b"data: [DONE]\n\n"],
        Some("cr") => &[b"data: {\"choices\":[]}\r\rdata: {\"choices\":[]}\r\r"],
        Some("split-utf8") => &[
            b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xF0\x9F",
            b"\x98\x80\"},\"logprobs\":null,\"finish_reason\":null}]}\n",
            b"\n",
        ],
        Some("invalid-utf8") => &[b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xFF\xC3", b"\x28\"}}]}\n\n"],
        Some("forged-usage") => {
            &[b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":999999999,\"completion_tokens\":-5,\"total_tokens\":1e300}}\n\n"]
        }
        _ => &[b"event: error\ndata: {\"error\":{\"message\":\"injected\"}}\nid: 1\nretry: 1\n\n"],
    };
    pieces.iter().map(|it| it.to_vec()).collect()
}
