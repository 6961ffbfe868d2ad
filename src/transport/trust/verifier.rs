//! Judging the certificate of the other side, the same way for both sides.
//!
//! rustls' own verifiers want a host name; a node has none. So the chain is checked with webpki, which they use too, and the
//! name is the SPIFFE id. Signatures of the handshake are checked by rustls.

use std::sync::Arc;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use webpki::EndEntityCert;
use webpki::KeyUsage;

use super::Inner;
use crate::base::clock::Clock;
use crate::base::ids::ClusterName;
use crate::base::ids::NodeId;
use crate::transport::metrics::Metrics;
use crate::transport::metrics::Refusal;

/// Why a certificate was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Verdict {
    /// No authority of ours vouches for it: another secret, another authority, or self-made.
    #[error("no authority of this cluster vouches for the certificate")]
    Untrusted,
    /// It was good, or will be.
    #[error("the certificate is not valid at this time")]
    Expired,
    /// It names no node of this cluster.
    #[error("the certificate names no node of this cluster")]
    Unnamed,
}

impl Verdict {
    fn refusal(self) -> Refusal {
        match self {
            Self::Untrusted => Refusal::Untrusted,
            Self::Expired => Refusal::Expired,
            Self::Unnamed => Refusal::Unnamed,
        }
    }
}

impl From<Verdict> for rustls::Error {
    fn from(verdict: Verdict) -> Self {
        Self::InvalidCertificate(match verdict {
            Verdict::Untrusted => CertificateError::UnknownIssuer,
            Verdict::Expired => CertificateError::Expired,
            Verdict::Unnamed => CertificateError::NotValidForName,
        })
    }
}

/// The name of a node in a certificate.
pub(super) fn spiffe(domain: &str, cluster: &ClusterName, node: &NodeId) -> String {
    format!("spiffe://{domain}/smg/{cluster}/{node}")
}

/// The node that a certificate names in `cluster`. A certificate with two such names is refused: it would be two nodes.
pub(super) fn name(leaf: &EndEntityCert<'_>, cluster: &ClusterName) -> Option<NodeId> {
    let mut names = leaf.valid_uri_names().filter_map(|uri| {
        let (_domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let (named, node) = path.strip_prefix("smg/")?.split_once('/')?;
        (named == cluster.as_str()).then(|| NodeId::parse(node).ok())?
    });
    names.next().filter(|_| names.next().is_none())
}

impl Inner {
    /// The node that a chain names, once all of it was checked.
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<NodeId, Verdict> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let leaf = EndEntityCert::try_from(leaf).map_err(|_unread| Verdict::Untrusted)?;
        leaf.verify_for_usage(algorithms.all, &self.anchors, intermediates, now, usage, None, None).map_err(
            |error| match error {
                webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => Verdict::Expired,
                _ => Verdict::Untrusted,
            },
        )?;
        name(&leaf, &self.cluster).ok_or(Verdict::Unnamed)
    }

    /// What others would say of this node's certificate, as a server and as a client.
    pub(super) fn judge_own(&self) -> Result<NodeId, Verdict> {
        let now = UnixTime::since_unix_epoch(Clock.wall());
        let (leaf, rest) = self.chain.split_first().ok_or(Verdict::Untrusted)?;
        self.judge(leaf, rest, now, KeyUsage::server_auth())?;
        self.judge(leaf, rest, now, KeyUsage::client_auth())
    }
}

/// Judges in the handshake, and counts what it refuses.
#[derive(Debug)]
pub(super) struct Verifier {
    inner: Arc<Inner>,
    algorithms: WebPkiSupportedAlgorithms,
    metrics: Metrics,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust")
    }
}

impl Verifier {
    pub(super) fn new(inner: Arc<Inner>, provider: &CryptoProvider, metrics: Metrics) -> Self {
        Self { inner, algorithms: provider.signature_verification_algorithms, metrics }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        self.inner.judge(leaf, intermediates, now, usage).map(drop).map_err(|verdict| {
            self.metrics.refused(verdict.refusal());
            verdict.into()
        })
    }

    /// TLS 1.2 is never spoken: quinn offers 1.3 only.
    fn refuse_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(leaf, intermediates, now, KeyUsage::server_auth()).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // a node has one certificate, so there is nothing to hint at
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(leaf, intermediates, now, KeyUsage::client_auth()).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
