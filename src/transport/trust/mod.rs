//! Who may speak in the mesh: the certificate that this node shows, and how those of others are judged.
//!
//! With a mesh secret every node derives the same authority (HKDF, Ed25519) and issues itself a certificate for its node id; several
//! secrets may be given while one replaces another: the first issues, all verify. Or an operator's own authority issues: PKI files. In both, a
//! node's name is a SPIFFE id in the certificate: `spiffe://<domain>/smg/<cluster>/<node id>`; host names mean nothing.
//!
//! *Invariants:* 1. no byte of a peer reaches the areas above before its chain, its cluster and its node id were checked, in both
//! directions; 2. certificates issued from a secret do not expire: whoever has the secret can issue another, so a date would only make
//! trust depend on clocks. Those from PKI files do. *Absent:* revocation. Members trust each other; expelling one needs another secret or authority.

mod authority;
mod pki;
mod secret;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;

use ring::digest::SHA256;
use ring::digest::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::TrustAnchor;
use webpki::EndEntityCert;

pub use secret::InvalidSecret;
pub use secret::MeshSecret;
pub use secret::Purpose;
pub use verifier::Verdict;

use super::metrics::Metrics;
use crate::base::ids::ClusterName;
use crate::base::ids::NodeId;
use verifier::Verifier;

/// Both ends must offer it. The digit changes when frames do.
const ALPN: &[u8] = b"smg-mesh/1";

/// PKI files that an operator's own authority issued, all PEM.
#[derive(Clone, Debug)]
pub struct PkiFiles {
    /// Certificates of the authorities that are trusted.
    pub authority: PathBuf,
    /// This node's certificate, then the intermediates.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
}

/// Why this node has nothing to show or to check others with. The operator's to mend; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Neither a secret was given nor files.
    #[error("no mesh secret was given")]
    NoSecret,
    /// A file cannot be read or has nothing of the kind in it.
    #[error("`{}` has no usable {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was looked for in it.
        what: &'static str,
    },
    /// The certificate is good, but for no node of this cluster.
    #[error("`{}` names no node of cluster `{cluster}`: it needs the SAN `spiffe://<domain>/smg/{cluster}/<node id>`", path.display())]
    Unnamed {
        /// The file.
        path: PathBuf,
        /// The cluster that was asked for.
        cluster: ClusterName,
    },
    /// Other nodes would refuse the certificate: not issued by the authority beside it, or expired.
    #[error("other nodes would refuse `{}`: {verdict}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What they would say.
        verdict: Verdict,
    },
    /// A bug, or a key of a kind that cannot sign.
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// A bug: the certificate could not be made.
    #[error("the certificate cannot be made: {0}")]
    Unmade(#[from] rcgen::Error),
}

/// What this node shows, and whom it believes. Cheap to clone.
#[derive(Clone)]
pub struct Trust(Arc<Inner>);

struct Inner {
    cluster: ClusterName,
    node: NodeId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    anchors: Vec<TrustAnchor<'static>>,
    reset_key: [u8; 32],
    prefix_key: [u8; 32],
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { cluster, node, .. } = &*self.0;
        f.debug_struct("Trust").field("cluster", cluster).field("node", node).finish_non_exhaustive()
    }
}

impl Trust {
    /// From mesh secrets: the first issues, all verify.
    pub fn from_secrets(cluster: ClusterName, node: NodeId, secrets: &[MeshSecret]) -> Result<Self, TrustError> {
        let first = secrets.first().ok_or(TrustError::NoSecret)?;
        let (chain, key) = authority::issue(first, &cluster, &node)?;
        let anchors = secrets.iter().map(|it| authority::anchor(it, &cluster)).collect::<Result<_, _>>()?;
        let reset_key = first.derive(Purpose::Reset, &cluster);
        let prefix_key = first.derive(Purpose::Prefixes, &cluster);
        Ok(Self(Arc::new(Inner { cluster, node, chain: vec![chain], key, anchors, reset_key, prefix_key })))
    }

    /// From PKI files; the certificate says which node this is.
    pub fn from_files(cluster: ClusterName, files: &PkiFiles) -> Result<Self, TrustError> {
        let (anchors, chain, key) = pki::read(files)?;
        let unnamed = || TrustError::Unnamed { path: files.certificate.clone(), cluster: cluster.clone() };
        let node = EndEntityCert::try_from(&chain[0]).ok().and_then(|it| verifier::name(&it, &cluster));
        let node = node.ok_or_else(unnamed)?;
        let reset_key = std::array::from_fn(|i| digest(&SHA256, key.secret_der()).as_ref()[i]);
        let prefix_key = pki::prefix_key(&anchors, &cluster);
        let trust = Self(Arc::new(Inner { cluster, node, chain, key, anchors, reset_key, prefix_key }));
        match trust.0.judge_own() {
            Ok(_) => Ok(trust),
            Err(verdict) => Err(TrustError::Refused { path: files.certificate.clone(), verdict }),
        }
    }

    /// The node that the certificate names.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.0.node
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.0.cluster
    }

    /// TLS of both sides: each shows its certificate and checks the other's. TLS 1.3 only, no resumption: every connection proves itself anew.
    pub(super) fn tls(&self, metrics: &Metrics) -> Result<(rustls::ServerConfig, rustls::ClientConfig), TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Verifier::new(Arc::clone(&self.0), &provider, metrics.clone()));
        let versions = &[&rustls::version::TLS13];
        let (chain, key) = (&self.0.chain, &self.0.key);
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        Ok((server, client))
    }

    /// What hashes of prompt prefixes are keyed with: the same on every node. With PKI files it is made of the authorities' public keys
    /// and the cluster's name: whoever knows those could make prompts that collide, at the price of a cache miss.
    #[must_use]
    pub fn prefix_key(&self) -> [u8; 32] {
        self.0.prefix_key
    }

    /// Signs stateless resets; the same after a restart.
    pub(super) fn reset_key(&self) -> [u8; 32] {
        self.0.reset_key
    }

    /// The node that a chain names, which the handshake has already judged.
    pub(super) fn name(&self, chain: &[CertificateDer<'_>]) -> Option<NodeId> {
        let leaf = EndEntityCert::try_from(chain.first()?).ok()?;
        verifier::name(&leaf, &self.0.cluster)
    }
}

#[cfg(test)]
pub(in crate::transport) mod tests;
