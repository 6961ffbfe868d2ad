//! h2 from the client's side: as a library speaks it, and frame by frame for what no library would send.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::DEADLINE;
use crate::client::Io;

/// A connection of a well-behaved client.
pub struct H2 {
    sender: http2::SendRequest<Full<Bytes>>,
    running: tokio::task::JoinHandle<bool>,
}

/// An answer that is being received.
pub struct Stream {
    /// HTTP status.
    pub status: u16,
    /// Response headers.
    pub headers: http::HeaderMap,
    body: Incoming,
}

impl H2 {
    /// With prior knowledge, in the clear.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a TCP socket");
        Self::over(stream).await
    }

    /// On a connection that is there.
    ///
    /// # Panics
    /// When the other side does not speak h2.
    #[expect(clippy::disallowed_methods, reason = "the test's own runtime owns it")]
    pub async fn over(stream: impl Io + 'static) -> Self {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // A small window: what is not read is soon not sent either.
        builder.initial_stream_window_size(64 << 10).initial_connection_window_size(1 << 20);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.expect("h2");
        Self { sender, running: tokio::spawn(async move { connection.await.is_ok() }) }
    }

    /// Sends a POST; resolves at the response's head.
    ///
    /// # Errors
    /// When the stream or the connection is reset.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn post(&mut self, path: &str, body: &str) -> hyper::Result<Stream> {
        let request = http::Request::post(format!("http://t{path}"))
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .expect("a request");
        let sent = tokio::time::timeout(DEADLINE, self.sender.send_request(request)).await.expect("in time")?;
        let (head, body) = sent.into_parts();
        Ok(Stream { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Waits for the connection's end; whether it was a good one.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn ended(self) -> bool {
        drop(self.sender);
        tokio::time::timeout(DEADLINE, self.running).await.expect("in time").expect("no panic")
    }
}

impl Stream {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the stream is reset.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn next(&mut self) -> Option<hyper::Result<Bytes>> {
        let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("in time")?;
        Some(frame.map(|it| it.into_data().unwrap_or_default()))
    }

    /// The rest of the body as text.
    ///
    /// # Errors
    /// When the stream is reset.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn text(self) -> hyper::Result<String> {
        let whole = tokio::time::timeout(DEADLINE, self.body.collect()).await.expect("in time")?;
        Ok(String::from_utf8_lossy(&whole.to_bytes()).into_owned())
    }
}

/// Frame types (RFC 9113 6).
pub mod kind {
    /// Part of a body.
    pub const DATA: u8 = 0;
    /// A request's or response's fields.
    pub const HEADERS: u8 = 1;
    /// A stream is given up.
    pub const RST_STREAM: u8 = 3;
    /// Asks for a sign of life.
    pub const PING: u8 = 6;
    /// Parameters.
    pub const SETTINGS: u8 = 4;
    /// The connection ends.
    pub const GOAWAY: u8 = 7;
    /// More fields.
    pub const CONTINUATION: u8 = 9;
}

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// Bits that depend on the kind.
    pub flags: u8,
    /// Which stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The end of a stream's body.
pub const END_STREAM: u8 = 1;
/// The end of a block of fields.
pub const END_HEADERS: u8 = 4;

/// A connection that says what it is told to, frame by frame.
pub struct Frames {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Frames {
    /// Connects and says hello.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("taken");
        let mut frames = Self { stream, rest: Vec::new() };
        frames.send(kind::SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Sends a frame; `false` when the connection is closed.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await.is_ok()
    }

    /// The next frame; `None` when the connection is closed.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, s0, s1, s2, s3, ..] = self.rest[..] {
                let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
                if self.rest.len() >= end {
                    let payload = self.rest[9..end].to_vec();
                    self.rest.drain(..end);
                    if kind == self::kind::PING && flags == 0 {
                        self.send(kind, 1, 0, &payload).await;
                    }
                    return Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload });
                }
            }
            let mut buffer = [0; 16 << 10];
            match tokio::time::timeout(DEADLINE, self.stream.read(&mut buffer)).await.expect("in time") {
                Ok(0) | Err(_) => return None,
                Ok(len) => self.rest.extend_from_slice(&buffer[..len]),
            }
        }
    }

    /// Reads until a frame of this kind comes; `None` when the connection is closed before.
    pub async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}

/// Fields as a block, each spelled out (RFC 7541 6.2.2), whatever its bytes.
#[must_use]
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_len(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A length with a 7 bit prefix (RFC 7541 5.1), no Huffman code.
fn push_len(block: &mut Vec<u8>, len: usize) {
    if len < 127 {
        block.push(u8::try_from(len).expect("short"));
        return;
    }
    block.push(127);
    let mut left = len - 127;
    while left >= 128 {
        block.push(u8::try_from(left % 128).expect("short") | 128);
        left /= 128;
    }
    block.push(u8::try_from(left).expect("short"));
}
