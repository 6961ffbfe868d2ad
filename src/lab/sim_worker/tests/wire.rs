//! A client that shows the bytes as they come: no library smooths a fault over.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::lab::sim_worker::SimWorker;

/// Longer than any test waits when all is well.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Client(TcpStream);

#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    /// The JSON events of a stream.
    pub(super) fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|it| it.strip_prefix("data: "));
        data.filter_map(|it| serde_json::from_str(it).ok()).collect()
    }
}

impl Client {
    pub(super) async fn connect(worker: &SimWorker) -> Self {
        Self(TcpStream::connect(worker.address()).await.expect("connects"))
    }

    pub(super) async fn send(&mut self, path: &str, body: &str, headers: &str) {
        let length = body.len();
        let text = format!("POST {path} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\n\r\n{body}");
        self.0.write_all(text.as_bytes()).await.expect("writes");
    }

    pub(super) async fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(path, body, "").await;
        self.answer().await
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        let text = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        self.0.write_all(text.as_bytes()).await.expect("writes");
        self.answer().await
    }

    /// Everything until the connection ends, and how it ended.
    pub(super) async fn drain(&mut self) -> (Vec<u8>, std::io::Result<()>) {
        let mut bytes = Vec::new();
        let end = tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await.expect("the connection ends");
        (bytes, end.map(drop))
    }

    /// Reads until `needle` was seen.
    pub(super) async fn until(&mut self, needle: &str) -> String {
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(needle) {
            self.read_some(&mut bytes).await;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn read_some(&mut self, bytes: &mut Vec<u8>) {
        let read = tokio::time::timeout(DEADLINE, self.0.read_buf(bytes)).await.expect("in time").expect("reads");
        assert!(read > 0, "the connection ended early: {}", String::from_utf8_lossy(bytes));
    }

    async fn answer(&mut self) -> Answer {
        let mut bytes = Vec::new();
        let head_len = loop {
            if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
                break at + 4;
            }
            self.read_some(&mut bytes).await;
        };
        let head = String::from_utf8(bytes[..head_len].to_vec()).expect("ascii");
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        let length = head.lines().find_map(|it| it.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let body = match length {
            Some(length) => {
                while bytes.len() < head_len + length {
                    self.read_some(&mut bytes).await;
                }
                bytes[head_len..].to_vec()
            }
            None => {
                while !bytes.ends_with(b"\r\n0\r\n\r\n") {
                    self.read_some(&mut bytes).await;
                }
                unchunk(&bytes[head_len..])
            }
        };
        Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() }
    }
}

/// The content of well-formed chunks; what is not ends it.
pub(super) fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(at) = memchr::memmem::find(bytes, b"\r\n") {
        let size = std::str::from_utf8(&bytes[..at]).ok().and_then(|it| usize::from_str_radix(it, 16).ok());
        let Some(size) = size.filter(|it| *it > 0 && at + 2 + it <= bytes.len()) else { break };
        whole.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = bytes.get(at + 4 + size..).unwrap_or_default();
    }
    whole
}

/// Waits for a condition.
pub(super) async fn eventually(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("it came true in time");
}

/// Waits until nobody listens.
pub(super) async fn eventually_refused(address: SocketAddr) {
    let wait = async { while TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, wait).await.expect("refused in time");
}
