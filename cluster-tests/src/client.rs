//! A socket with just enough HTTP to send anything and to read an answer.

use std::net::SocketAddr;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

use crate::DEADLINE;

/// A byte stream, encrypted or not.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection.
pub struct Client {
    stream: Box<dyn Io>,
    rest: Vec<u8>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body, chunking undone.
    pub body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub is_complete: bool,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a TCP socket");
        Self::over(stream)
    }

    /// A client on a connection that is there.
    #[must_use]
    pub fn over(stream: impl Io + 'static) -> Self {
        Self { stream: Box::new(stream), rest: Vec::new() }
    }

    /// Connects with little room for what it does not read.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 << 10).expect("a TCP socket");
        Self::over(socket.connect(address).await.expect("connects"))
    }

    /// Whether the other side ends the connection, after whatever it still sends.
    pub async fn is_closed(&mut self) -> bool {
        while self.fill().await {}
        true
    }

    /// What came and was not read as an answer.
    #[must_use]
    pub fn unread(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }

    /// Sends raw bytes; a closed connection is no error here, the answer tells.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// GET.
    pub async fn get(mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").as_bytes()).await;
        self.answer().await
    }

    /// Sends a POST without waiting for its answer.
    pub async fn start_post(&mut self, path: &str, headers: &str, body: &str) {
        let len = body.len();
        self.send(
            format!("POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {len}\r\n{headers}\r\n{body}").as_bytes(),
        )
        .await;
    }

    /// Reads one more piece of what comes; `false` at the end.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn read_some(&mut self) -> bool {
        self.rest.clear();
        self.fill().await
    }

    /// POST.
    pub async fn post(&mut self, path: &str, body: &str) -> Answer {
        self.start_post(path, "", body).await;
        self.answer().await
    }

    /// Any method.
    pub async fn call(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let len = body.len();
        self.send(format!("{method} {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {len}\r\n\r\n{body}").as_bytes())
            .await;
        self.answer().await
    }

    /// Reads until `needle` was seen in what came, head included; `false` when the connection ended before.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn read_until(&mut self, needle: &str) -> bool {
        loop {
            if self.rest.windows(needle.len()).any(|it| it == needle.as_bytes()) {
                return true;
            }
            if !self.fill().await {
                return false;
            }
        }
    }

    /// Reads one answer.
    ///
    /// # Panics
    /// After [`DEADLINE`], or when the connection ends before a head.
    pub async fn answer(&mut self) -> Answer {
        assert!(self.read_until("\r\n\r\n").await, "closed before a head: {:?}", String::from_utf8_lossy(&self.rest));
        let end = self.rest.windows(4).position(|it| it == b"\r\n\r\n").expect("just seen") + 4;
        let head = String::from_utf8_lossy(&self.rest[..end]).to_ascii_lowercase();
        self.rest.drain(..end);
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        let len = head.lines().find_map(|it| it.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        let (body, is_complete) = if head.contains("transfer-encoding: chunked") {
            self.chunked().await
        } else {
            let len = len.unwrap_or(0);
            while self.rest.len() < len && self.fill().await {}
            let complete = self.rest.len() >= len;
            (self.rest.drain(..len.min(self.rest.len())).collect(), complete)
        };
        Answer { status, head, body, is_complete }
    }

    async fn chunked(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            while !self.rest.windows(2).any(|it| it == b"\r\n") {
                if !self.fill().await {
                    return (body, false);
                }
            }
            let line = self.rest.windows(2).position(|it| it == b"\r\n").expect("just seen");
            let size = usize::from_str_radix(&String::from_utf8_lossy(&self.rest[..line]), 16).expect("a chunk size");
            while self.rest.len() < line + 2 + size + 2 {
                if !self.fill().await {
                    return (body, false);
                }
            }
            body.extend_from_slice(&self.rest[line + 2..line + 2 + size]);
            self.rest.drain(..line + 2 + size + 2);
            if size == 0 {
                return (body, true);
            }
        }
    }

    async fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let read = tokio::time::timeout(DEADLINE, self.stream.read(&mut buffer)).await.expect("an answer in time");
        match read {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.rest.extend_from_slice(&buffer[..read]);
                true
            }
        }
    }
}
