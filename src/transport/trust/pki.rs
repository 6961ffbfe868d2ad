//! Reading PKI files.

use std::path::Path;

use ring::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::TrustAnchor;
use rustls::pki_types::pem::PemObject as _;

use super::PkiFiles;
use super::TrustError;
use crate::base::ids::ClusterName;

type Read = (Vec<TrustAnchor<'static>>, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Anchors, this node's chain (never empty) and its key.
pub(super) fn read(files: &PkiFiles) -> Result<Read, TrustError> {
    let authorities = certificates(&files.authority)?;
    let anchors = authorities.iter().map(|it| webpki::anchor_from_trusted_cert(it).map(|it| it.to_owned()));
    let anchors = anchors.collect::<Result<_, _>>().map_err(|_unread| unusable(&files.authority, "authority"))?;
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|_unread| unusable(&files.key, "private key"))?;
    Ok((anchors, chain, key))
}

/// A key that every node makes of the same files, in whatever order the authorities stand in them.
pub(super) fn prefix_key(anchors: &[TrustAnchor<'_>], cluster: &ClusterName) -> [u8; 32] {
    let mut keys: Vec<&[u8]> = anchors.iter().map(|it| it.subject_public_key_info.as_ref()).collect();
    keys.sort_unstable();
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"smg prefix key/");
    context.update(cluster.as_str().as_bytes());
    for key in keys {
        context.update(&(key.len() as u64).to_be_bytes());
        context.update(key);
    }
    let sum = context.finish();
    std::array::from_fn(|i| sum.as_ref()[i])
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(unusable(path, "certificate")),
    }
}

fn unusable(path: &Path, what: &'static str) -> TrustError {
    TrustError::File { path: path.to_path_buf(), what }
}
