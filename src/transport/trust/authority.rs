//! The authority that a mesh secret stands for, and the certificate that a node issues itself with it.
//!
//! Every node derives the same authority, so nothing of it is stored or sent. Ed25519, because its keys are any 32 bytes and its signatures
//! need no randomness: the same secret gives the same bytes in every release, which a golden test pins.

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::PKCS_ED25519;
use rcgen::SanType;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::TrustAnchor;

use super::secret::MeshSecret;
use super::secret::Purpose;
use super::verifier::spiffe;
use crate::base::ids::ClusterName;
use crate::base::ids::NodeId;

/// Trust domain of certificates issued from a secret. Any domain is accepted in a certificate that an anchor vouches for.
const DOMAIN: &str = "smg.internal";
/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410, 7).
const ED25519_PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

fn key(secret: &MeshSecret, cluster: &ClusterName) -> Result<KeyPair, rcgen::Error> {
    let der = [&ED25519_PKCS8[..], &secret.derive(Purpose::Authority, cluster)].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
}

/// The same for every node: dates are rcgen's constants (1975 to 4096), the serial number comes from the key.
fn params(cluster: &ClusterName) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("smg mesh {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// The authority's certificate.
pub(super) fn certificate(secret: &MeshSecret, cluster: &ClusterName) -> Result<CertificateDer<'static>, rcgen::Error> {
    Ok(params(cluster).self_signed(&key(secret, cluster)?)?.der().clone())
}

/// What a chain must lead to.
pub(super) fn anchor(secret: &MeshSecret, cluster: &ClusterName) -> Result<TrustAnchor<'static>, rcgen::Error> {
    let certificate = certificate(secret, cluster)?;
    let anchor =
        webpki::anchor_from_trusted_cert(&certificate).map_err(|_bug| rcgen::Error::CouldNotParseCertificate)?;
    Ok(anchor.to_owned())
}

/// A certificate for `node` with a fresh key.
pub(super) fn issue(
    secret: &MeshSecret,
    cluster: &ClusterName,
    node: &NodeId,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let issuer = Issuer::new(params(cluster), key(secret, cluster)?);
    let own = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(spiffe(DOMAIN, cluster, node).try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&own, &issuer)?;
    Ok((certificate.der().clone(), own.into()))
}
