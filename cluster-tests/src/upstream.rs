//! A worker that does exactly what it is told, byte by byte.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// What to do with the next model request.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send these bytes so many times.
    Flood(Vec<u8>, usize),
    /// Say nothing until the test adds a permit.
    Await(Arc<Semaphore>),
    /// Say nothing until the other side closes; then it is counted as an abort.
    WaitForClose,
    /// Close the connection.
    Close,
}

impl Step {
    /// A whole answer with a body.
    #[must_use]
    pub fn answer(status: &str, headers: &str, body: &str) -> Vec<Self> {
        let len = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n{headers}\r\n{body}"
        );
        vec![Self::Send(text.into_bytes())]
    }

    /// A chat completion.
    #[must_use]
    pub fn completion(text: &str) -> Vec<Self> {
        let body = serde_json::json!({"id": "c", "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 1}});
        Self::answer("200 OK", "", &body.to_string())
    }

    /// The head of a stream.
    #[must_use]
    pub fn stream_head() -> Self {
        Self::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())
    }

    /// Raw stream bytes as one HTTP chunk.
    #[must_use]
    pub fn chunk(bytes: &[u8]) -> Self {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        Self::Send(framed)
    }

    /// Whole events as one HTTP chunk, from the data of each.
    #[must_use]
    pub fn events(data: &[&str]) -> Self {
        Self::chunk(data.iter().map(|it| format!("data: {it}\n\n")).collect::<String>().as_bytes())
    }

    /// One event with a piece of content.
    #[must_use]
    pub fn content(text: &str) -> Self {
        let data = serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]});
        Self::chunk(format!("data: {data}\n\n").as_bytes())
    }

    /// The event that opens a stream with a role and no content.
    #[must_use]
    pub fn preamble() -> Self {
        Self::chunk(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n")
    }

    /// The usage event, the end marker and the last HTTP chunk.
    #[must_use]
    pub fn end() -> Self {
        let mut bytes = Vec::new();
        for event in
            ["data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n", "data: [DONE]\n\n"]
        {
            if let Self::Send(chunk) = Self::chunk(event.as_bytes()) {
                bytes.extend_from_slice(&chunk);
            }
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        Self::Send(bytes)
    }
}

/// The worker.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: tokio::task::JoinHandle<()>,
}

struct Shared {
    name: &'static str,
    model: &'static str,
    scripts: Mutex<VecDeque<Vec<Step>>>,
    usual: Mutex<Vec<Step>>,
    metrics: Mutex<String>,
    requests: Mutex<Vec<String>>,
    aborts: AtomicUsize,
    written: AtomicUsize,
    connections: AtomicUsize,
}

impl Upstream {
    /// Serves the model `m`; answers every request with `name` until told otherwise.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(name: &'static str) -> Self {
        Self::serving(name, "m", SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// The same for another model, at an address that may have been another's.
    ///
    /// # Panics
    /// When the port is taken.
    #[expect(clippy::disallowed_methods, reason = "the test's own runtime owns it")]
    pub async fn serving(name: &'static str, model: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let shared = Arc::new(Shared {
            name,
            model,
            scripts: Mutex::default(),
            usual: Mutex::new(Step::completion(name)),
            metrics: Mutex::default(),
            requests: Mutex::default(),
            aborts: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let address = listener.local_addr().expect("bound");
        let serving = Arc::clone(&shared);
        let listening = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { address, shared, listening }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What to do with the next model request that has no script yet.
    pub fn script(&self, steps: Vec<Step>) {
        self.shared.scripts.lock().push_back(steps);
    }

    /// What to do with every request without a script.
    pub fn always(&self, steps: Vec<Step>) {
        *self.shared.usual.lock() = steps;
    }

    /// What `/metrics` says from now on.
    pub fn metrics(&self, text: &str) {
        text.clone_into(&mut self.shared.metrics.lock());
    }

    /// The model requests seen, head and body.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().clone()
    }

    /// Requests whose connection was closed by the gateway while they were being answered.
    #[must_use]
    pub fn aborts(&self) -> usize {
        self.shared.aborts.load(Ordering::SeqCst)
    }

    /// Bytes that the gateway took of model answers.
    #[must_use]
    pub fn written(&self) -> usize {
        self.shared.written.load(Ordering::SeqCst)
    }

    /// Connections that carried a model request.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The body of a model request, as it came.
    ///
    /// # Panics
    /// When there was no such request.
    #[must_use]
    pub fn body(&self, index: usize) -> String {
        self.requests()[index].split_once("\r\n\r\n").expect("a head").1.to_owned()
    }

    /// Stops: connections are refused from now on, and open ones are dropped.
    pub async fn kill(self) {
        self.listening.abort();
        let _ = self.listening.await;
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut is_used = false;
    while let Some(request) = read_request(&mut stream).await {
        let is_model_request = request.starts_with("POST");
        if is_model_request && !std::mem::replace(&mut is_used, true) {
            shared.connections.fetch_add(1, Ordering::SeqCst);
        }
        let steps = if is_model_request {
            shared.requests.lock().push(request);
            let script = shared.scripts.lock().pop_front();
            script.unwrap_or_else(|| shared.usual.lock().clone())
        } else if request.starts_with("GET /v1/models") {
            let model = serde_json::json!({"id": shared.model, "owned_by": "vllm", "max_model_len": 8192});
            Step::answer("200 OK", "", &serde_json::json!({"data": [model]}).to_string())
        } else if request.starts_with("GET /metrics") {
            Step::answer("200 OK", "", &shared.metrics.lock())
        } else {
            Step::answer("200 OK", "", &format!("{{\"name\":\"{}\"}}", shared.name))
        };
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if !write(&mut stream, &bytes, &shared).await {
                        return;
                    }
                }
                Step::Flood(bytes, times) => {
                    for _ in 0..times {
                        if !write(&mut stream, &bytes, &shared).await {
                            return;
                        }
                    }
                }
                Step::Await(gate) => gate.acquire().await.expect("never closed").forget(),
                Step::WaitForClose => {
                    let mut rest = [0; 1024];
                    while stream.read(&mut rest).await.is_ok_and(|it| it > 0) {}
                    shared.aborts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Step::Close => return,
            }
        }
    }
}

/// Writes all and counts it as it is taken; `false`, and an abort, when the other side is gone.
async fn write(stream: &mut TcpStream, mut bytes: &[u8], shared: &Shared) -> bool {
    while !bytes.is_empty() {
        match stream.write(bytes).await {
            Ok(len) => {
                shared.written.fetch_add(len, Ordering::SeqCst);
                bytes = &bytes[len..];
            }
            Err(_) => {
                shared.aborts.fetch_add(1, Ordering::SeqCst);
                return false;
            }
        }
    }
    true
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    let mut end = None;
    loop {
        if end.is_none()
            && let Some(head) = bytes.windows(4).position(|it| it == b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let len =
                text.lines().find_map(|it| it.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0usize);
            end = Some(head + 4 + len);
        }
        if end.is_some_and(|it| bytes.len() >= it) {
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}
