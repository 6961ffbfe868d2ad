//! TLS to a server that keeps history: how far it is trusted, as the option `sslmode` of PostgreSQL's own clients says it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use rustls::DigitallySignedStruct;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio_postgres::tls::ChannelBinding;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::tls::TlsConnect;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::url::InvalidUrl;
use super::url::NoRoots;
use super::url::Url;

/// How far a server is trusted. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// No TLS.
    Off,
    /// TLS if the server has it, whoever it is.
    Prefer,
    /// TLS, whoever it is.
    Encrypt,
    /// TLS, and somebody who is trusted signed its certificate.
    Chain,
    /// TLS, and the certificate is this host's.
    Full,
}

/// See the file's header.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) trust: Trust,
    connector: TlsConnector,
}

/// What a URL says about it: taken out before a driver sees the rest.
pub(super) const OPTIONS: &[&str] = &["sslmode", "sslrootcert"];

impl Tls {
    /// `unsaid`: if the URL does not say how far.
    pub(super) fn of(url: &Url, unsaid: Trust) -> Result<Self, InvalidUrl> {
        let roots = url.option("sslrootcert");
        let trust = match url.option("sslmode") {
            None => unsaid,
            Some("disable") => Trust::Off,
            Some("prefer") => Trust::Prefer,
            // As PostgreSQL's own clients have it: whoever names authorities wants them asked.
            Some("require") if roots.is_some() => Trust::Chain,
            Some("require") => Trust::Encrypt,
            Some("verify-ca") => Trust::Chain,
            Some("verify-full") => Trust::Full,
            Some(value) => {
                let expected = "`disable`, `prefer`, `require`, `verify-ca` or `verify-full`";
                return Err(InvalidUrl::Option { name: "sslmode", value: value.to_owned(), expected });
            }
        };
        let config = config(trust, roots)
            .map_err(|why| InvalidUrl::Roots { path: roots.unwrap_or_default().to_owned(), why })?;
        Ok(Self { trust, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Says so where somebody on the way could read along, or be the server.
    pub(super) fn warn_of(&self, name: &str, is_near: bool) {
        if self.trust < Trust::Chain && !is_near {
            tracing::warn!(
                server = name,
                "history's server is on the network, and nothing proves that it is it: `sslmode=verify-full` in `--history-url` does"
            );
        }
    }

    /// Over a connection to this host.
    pub(super) async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.connector.connect(name, stream).await
    }
}

fn config(trust: Trust, roots: Option<&str>) -> Result<rustls::ClientConfig, NoRoots> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut trusted = RootCertStore::empty();
    match roots {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path)? {
                trusted.add(certificate?)?;
            }
        }
        None => trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let inner = match trust {
        Trust::Off | Trust::Prefer | Trust::Encrypt => None,
        Trust::Chain | Trust::Full => {
            Some(WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider)).build()?)
        }
    };
    let verifier = Verifier { inner, is_name_checked: trust == Trust::Full, provider: Arc::clone(&provider) };
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Checks as much as it is told to.
#[derive(Debug)]
struct Verifier {
    /// None: any certificate will do.
    inner: Option<Arc<WebPkiServerVerifier>>,
    is_name_checked: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError as Why;
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end, between, name, ocsp, now) {
            // Names are looked at last: all else was in order.
            Err(rustls::Error::InvalidCertificate(Why::NotValidForName | Why::NotValidForNameContext { .. }))
                if !self.is_name_checked =>
            {
                Ok(ServerCertVerified::assertion())
            }
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        end: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, end, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        end: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, end, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

// === as PostgreSQL's driver wants it ===

/// A host to shake hands with.
pub(super) struct Handshake {
    tls: Tls,
    host: String,
}

/// What came of it.
pub(super) struct Encrypted<S>(TlsStream<S>);

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        Ok(Handshake { tls: self.clone(), host: host.to_owned() })
    }
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.tls.connect(&self.host, stream).await.map(Encrypted) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
