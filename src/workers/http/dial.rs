//! How a connection to a worker is made: resolve, judge the address, connect, TLS, handshake.
//!
//! Every connection that leaves this node towards a worker is made here, so that the address rules cannot be passed by
//! (FIELD f5): names are resolved once per connection and only what was judged is dialled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::InvalidDnsNameError;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::super::address::AddressRules;
use super::super::address::Origin;
use super::super::config::Config;
use super::super::metrics::Metrics;
use super::super::worker::CallError;
use super::super::worker::ConnectFailure;
use super::pool::Line;
use super::pool::Trunk;
use crate::base::clock::Clock;
use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::limits::HEADERS_MAX;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const CONNECTION: Task = Task { name: "worker-connection", stage: Stage::Carry, on_end: OnEnd::Fine };

/// How often an h2 connection in use is asked whether it lives, and how long for an answer: it carries many streams.
const H2_PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Why TLS towards workers cannot be set up. The operator's to mend; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file cannot be read.
    #[error("cannot read the TLS file: {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The files do not make a valid configuration.
    #[error("cannot use the TLS files for workers: {0}")]
    Invalid(#[from] rustls::Error),
}

/// What all HTTP workers of a node share.
#[derive(Clone)]
pub struct Dialer {
    /// Owns connection tasks.
    pub tasks: Tasks,
    /// TLS towards workers.
    pub tls: TlsConnector,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Idle connections older than this are not used again.
    pub idle_timeout: Duration,
    /// Which addresses may be dialled.
    pub rules: AddressRules,
    /// Counts.
    pub metrics: Metrics,
    /// Time.
    pub clock: Clock,
}

/// A connection just made.
pub(super) enum Fresh {
    H1(Line),
    H2(Trunk),
}

impl Dialer {
    /// From the area's options; reads the certificate files.
    pub fn new(config: &Config, tasks: Tasks, metrics: Metrics) -> Result<Self, TlsError> {
        Ok(Self {
            tasks,
            tls: connector(config)?,
            connect_timeout: config.connect_timeout,
            idle_timeout: config.pool_idle_timeout,
            rules: AddressRules::new(&config.allow_cidrs),
            metrics,
            clock: Clock,
        })
    }

    /// Makes a connection, in time or not at all.
    pub(super) async fn connect(&self, origin: &Origin) -> Result<Fresh, CallError> {
        let late = Err(CallError::ConnectTimeout(self.connect_timeout));
        let started = self.clock.now();
        let result = tokio::time::timeout(self.connect_timeout, self.dial(origin)).await.unwrap_or(late);
        match &result {
            Ok(_) => self.metrics.connected(self.clock.now() - started),
            Err(error) => self.metrics.connect_failed(error),
        }
        result
    }

    async fn dial(&self, origin: &Origin) -> Result<Fresh, CallError> {
        let failed = |why: ConnectFailure, error: &(dyn std::error::Error + 'static)| {
            tracing::debug!(worker = %origin.host, port = origin.port, error, "cannot connect");
            CallError::Connect(why)
        };
        let found = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|error| failed(ConnectFailure::NoAddress, &error))?.collect();
        let allowed = judged(found, &self.rules).map_err(CallError::Connect)?;
        let stream = TcpStream::connect(&allowed[..]).await.map_err(|error| failed(ConnectFailure::Refused, &error))?;
        let _ = stream.set_nodelay(true); // a socket without it is slower, not wrong
        if !origin.is_tls {
            return self.h1(stream).await;
        }
        let name =
            origin.host.clone().try_into().map_err(|error: InvalidDnsNameError| failed(ConnectFailure::Tls, &error))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed(ConnectFailure::Tls, &error))?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.h2(stream).await,
            _ => self.h1(stream).await,
        }
    }

    async fn h1<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, io: T) -> Result<Fresh, CallError> {
        let mut builder = http1::Builder::new();
        builder.max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|_closed| CallError::Lost)?;
        let open = self.metrics.open_connection();
        Ok(Fresh::H1(Line::new(sender, async move {
            let _ = connection.await; // whoever uses it sees the error
            drop(open);
        })))
    }

    async fn h2<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, io: T) -> Result<Fresh, CallError> {
        let mut builder = http2::Builder::new(Spawner(self.tasks.clone()));
        builder.timer(TokioTimer::new()).keep_alive_interval(H2_PING.0).keep_alive_timeout(H2_PING.1);
        builder.max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|_closed| CallError::Lost)?;
        Ok(Fresh::H2(Trunk { sender, streams: AtomicUsize::new(0), _close: self.keep(connection) }))
    }

    /// Runs a connection until it ends or what is returned is dropped.
    fn keep(&self, connection: impl Future + Send + 'static) -> oneshot::Sender<()> {
        let (close, closed) = oneshot::channel();
        let open = self.metrics.open_connection();
        self.tasks.spawn(CONNECTION, |_| async move {
            tokio::select! {
                biased;
                _ = connection => {} // whoever uses it sees the error
                _ = closed => {}
            }
            drop(open);
        });
        close
    }
}

/// Of what a name stands for at this moment, the addresses that may be dialled. They are dialled as they were judged: the name is not looked up again.
fn judged(found: Vec<SocketAddr>, rules: &AddressRules) -> Result<Vec<SocketAddr>, ConnectFailure> {
    let nothing = if found.is_empty() { ConnectFailure::NoAddress } else { ConnectFailure::Forbidden };
    let allowed: Vec<SocketAddr> = found.into_iter().filter(|it| rules.allow(it.ip())).collect();
    if allowed.is_empty() { Err(nothing) } else { Ok(allowed) }
}

/// Lets the h2 stack start its tasks through our door.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, work: F) {
        self.0.spawn(CONNECTION, |_| async move { drop(work.await) });
    }
}

fn connector(config: &Config) -> Result<TlsConnector, TlsError> {
    let at = |path: &String| {
        let path = path.clone();
        move |source| TlsError::File { path, source }
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = &config.ca_path {
        for certificate in CertificateDer::pem_file_iter(path).map_err(at(path))? {
            roots.add(certificate.map_err(at(path))?)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut tls = match (&config.client_cert_path, &config.client_key_path) {
        (Some(cert), Some(key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
            let private = PrivateKeyDer::from_pem_file(key).map_err(at(key))?;
            builder.with_client_auth_cert(chain.map_err(at(cert))?, private)?
        }
        _ => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_f5_a_name_is_what_it_stands_for_and_each_address_is_judged() {
        let at = |all: &[&str]| all.iter().map(|it| it.parse().expect("an address")).collect::<Vec<SocketAddr>>();
        let (forbidden, none) = (Err(ConnectFailure::Forbidden), Err(ConnectFailure::NoAddress));
        for (name, found, expected) in [
            ("metadata.google.internal", at(&["169.254.169.254:80", "[fd20:ce::254]:80"]), forbidden.clone()),
            ("instance-data.ec2.internal", at(&["169.254.169.254:80"]), forbidden.clone()),
            ("rebound", at(&["[::ffff:169.254.169.254]:80"]), forbidden.clone()),
            ("hidden behind a good one", at(&["10.0.0.7:80", "169.254.169.254:80"]), Ok(at(&["10.0.0.7:80"]))),
            ("and before it", at(&["[fd00:ec2::254]:80", "10.0.0.7:80"]), Ok(at(&["10.0.0.7:80"]))),
            ("alibaba", at(&["100.100.100.200:80"]), forbidden),
            ("nobody", at(&[]), none),
        ] {
            assert_eq!(judged(found, &AddressRules::default()), expected, "{name}");
        }
    }
}
