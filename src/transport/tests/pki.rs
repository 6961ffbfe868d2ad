//! An operator's own authority, made for a test.

use std::path::Path;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SanType;
use rcgen::date_time_ymd;

use crate::transport::trust::PkiFiles;

/// An authority and a certificate for one SPIFFE id, valid from the first to the second year.
pub(crate) fn write_pki(folder: &Path, uri: &str, years: (i32, i32)) -> PkiFiles {
    issue(&authority(), folder, uri, years)
}

/// Certificates of one authority, each in a folder of its own, valid from 2020 until a year.
pub(crate) fn write_pkis(nodes: &[(&Path, &str, i32)]) -> Vec<PkiFiles> {
    let authority = authority();
    nodes.iter().map(|(folder, uri, until)| issue(&authority, folder, uri, (2020, *until))).collect()
}

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
}

fn issue(authority: &(String, Issuer<'static, KeyPair>), folder: &Path, uri: &str, years: (i32, i32)) -> PkiFiles {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let certificate = params.signed_by(&key, &authority.1).unwrap();
    let files = PkiFiles {
        authority: folder.join("ca.pem"),
        certificate: folder.join("node.pem"),
        key: folder.join("node.key"),
    };
    std::fs::write(&files.authority, &authority.0).unwrap();
    std::fs::write(&files.certificate, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}
