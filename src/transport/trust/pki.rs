//! Reading PKI files.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::TrustAnchor;
use rustls::pki_types::pem::PemObject as _;

use super::PkiFiles;
use super::TrustError;

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
