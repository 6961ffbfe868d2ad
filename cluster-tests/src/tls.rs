//! A private certificate authority, and a worker and clients that trust it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use rcgen::CertificateParams;
use rcgen::Issuer;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The authority: its files lie in a folder of their own that goes with it.
pub struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one, with a certificate and key for `127.0.0.1` in files.
    ///
    /// # Panics
    /// When there is no room for its files.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("signed");
        std::fs::write(folder.path().join("ca.pem"), root.pem()).expect("written");
        let authority = Self { root: root.der().clone(), issuer: Issuer::new(params, key), folder };
        let (certificate, key) = authority.issue();
        std::fs::write(authority.certificate_path(), certificate.pem()).expect("written");
        std::fs::write(authority.key_path(), key.serialize_pem()).expect("written");
        authority
    }

    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
        (params.signed_by(&key, &self.issuer).expect("signed"), key)
    }

    /// The root as a PEM file.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server's certificate as a PEM file.
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// Its key.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }

    /// Connects as a client that trusts this authority alone.
    ///
    /// # Errors
    /// When the handshake fails.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(&self, address: SocketAddr, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).expect("a certificate");
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a TCP socket");
        let name = address.ip().into();
        TlsConnector::from(Arc::new(config)).connect(rustls::pki_types::ServerName::IpAddress(name), stream).await
    }

    fn acceptor(&self, alpn: &[&str]) -> TlsAcceptor {
        let (certificate, key) = self.issue();
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("a pair");
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A worker behind TLS, over h2 or HTTP/1.1. Streams go on until their client leaves; other answers come at once.
pub struct TlsWorker {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
    listening: tokio::task::JoinHandle<()>,
}

/// What it saw.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    open: AtomicUsize,
}

impl TlsWorker {
    /// Starts it with a certificate of `authority`.
    ///
    /// # Panics
    /// When no port is free.
    #[expect(clippy::disallowed_methods, reason = "the test's own runtime owns it")]
    pub async fn start(authority: &Authority, alpn: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, acceptor) = (listener.local_addr().expect("bound"), authority.acceptor(alpn));
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let listening = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(acceptor.clone(), stream, Arc::clone(&shared)));
            }
        });
        Self { address, seen, listening }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Connections that carried a model request.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Model requests seen.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// Streams that have not been left.
    #[must_use]
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }
}

impl Drop for TlsWorker {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, seen: Arc<Seen>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let service = hyper::service::service_fn(move |request| answer(request, Arc::clone(&seen), Arc::clone(&first)));
    let io = TokioIo::new(stream);
    if is_h2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    request: http::Request<Incoming>,
    seen: Arc<Seen>,
    first: Arc<std::sync::atomic::AtomicBool>,
) -> Result<http::Response<Body>, Infallible> {
    let whole = |text: &str| http_body_util::Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed_unsync();
    if request.method() == http::Method::GET {
        return Ok(http::Response::new(whole(r#"{"data":[{"id":"m","owned_by":"vllm","max_model_len":8192}]}"#)));
    }
    if first.swap(false, Ordering::SeqCst) {
        seen.connections.fetch_add(1, Ordering::SeqCst);
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let version = format!("{:?}", request.version());
    let asked = request.into_body().collect().await.map(|it| it.to_bytes()).unwrap_or_default();
    let asked = String::from_utf8_lossy(&asked).into_owned();
    if !asked.contains("\"stream\":true") {
        let value = serde_json::json!({"choices": [{"message": {"content": version}}]});
        return Ok(http::Response::new(whole(&value.to_string())));
    }
    seen.open.fetch_add(1, Ordering::SeqCst);
    let endless = Endless { sent: false, seen };
    let mut response = http::Response::new(endless.boxed_unsync());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// One content event, then nothing until it is dropped.
struct Endless {
    sent: bool,
    seen: Arc<Seen>,
}

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::replace(&mut self.sent, true) {
            return std::task::Poll::Pending;
        }
        let event = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"seen\"}}]}\n\n");
        std::task::Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.seen.open.fetch_sub(1, Ordering::SeqCst);
    }
}
