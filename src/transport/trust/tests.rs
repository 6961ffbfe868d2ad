//! What of trust can be told without a socket; handshakes are in `transport/tests`.

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SanType;
use rcgen::date_time_ymd;
use ring::digest;

use super::*;
use crate::transport::tests::pki::write_pki;

/// What a node goes on with whose certificate was good when it started.
pub(in crate::transport) fn unjudged(cluster: ClusterName, node: NodeId, files: &PkiFiles) -> Trust {
    let (anchors, chain, key) = pki::read(files).unwrap();
    Trust(Arc::new(Inner { cluster, node, chain, key, anchors, reset_key: [0; 32], prefix_key: [0; 32] }))
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

fn node() -> NodeId {
    NodeId::parse("n-1").unwrap()
}

fn known() -> MeshSecret {
    MeshSecret::parse("smg1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh88Hm48").unwrap()
}

#[test]
fn the_authority_of_a_secret_does_not_change_between_releases() {
    let certificate = authority::certificate(&known(), &cluster("prod")).unwrap();
    let sum = digest::digest(&digest::SHA256, &certificate);
    let hex: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "2e1b59dce394c29b0fa577916ca9d58a4c90a13c49cd87ca95d2db2eadfa4309");
}

#[test]
fn every_node_of_a_cluster_derives_the_same_authority_and_no_other_does() {
    let of = |secret: &MeshSecret, name| authority::certificate(secret, &cluster(name)).unwrap();
    assert_eq!(of(&known(), "prod"), of(&known(), "prod"));
    assert_ne!(of(&known(), "prod"), of(&known(), "test"));
    assert_ne!(of(&known(), "prod"), of(&MeshSecret::generate(), "prod"));
}

/// What `judge` says of `shown` at a node that trusts `believed`.
fn judged(shown: &[MeshSecret], believed: &[MeshSecret], clusters: [&str; 2]) -> Result<NodeId, Verdict> {
    let shown = Trust::from_secrets(cluster(clusters[0]), node(), shown).unwrap();
    let believer = Trust::from_secrets(cluster(clusters[1]), node(), believed).unwrap();
    let mixed = Inner {
        cluster: believer.0.cluster.clone(),
        node: node(),
        chain: shown.0.chain.clone(),
        key: shown.0.key.clone_key(),
        anchors: believer.0.anchors.clone(),
        reset_key: [0; 32],
        prefix_key: [0; 32],
    };
    mixed.judge_own()
}

#[test]
fn the_key_of_prefixes_is_the_clusters_and_does_not_change_between_releases() {
    let of = |secret: &MeshSecret, name| {
        let secrets = std::slice::from_ref(secret);
        Trust::from_secrets(cluster(name), node(), secrets).unwrap().prefix_key()
    };
    assert_ne!(of(&known(), "prod"), of(&known(), "test"));
    let hex: String = of(&known(), "prod").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "7b916e736ce1fe45e98d970e33074d73b69c78336d41a3186583d8cc1a963e0d");
}

#[test]
fn a_secret_can_be_replaced_while_nodes_run() {
    let (old, new) = (MeshSecret::generate(), MeshSecret::generate());
    let both = [new.clone(), old.clone()];
    assert_eq!(judged(&both, &[old.clone(), new.clone()], ["a", "a"]), Ok(node()), "the new one issues, both verify");
    assert_eq!(judged(std::slice::from_ref(&old), &both, ["a", "a"]), Ok(node()));
    assert_eq!(judged(&[old], std::slice::from_ref(&new), ["a", "a"]), Err(Verdict::Untrusted), "the old one is out");
    assert_eq!(judged(std::slice::from_ref(&new), std::slice::from_ref(&new), ["a", "b"]), Err(Verdict::Untrusted));
    assert!(matches!(Trust::from_secrets(cluster("a"), node(), &[]), Err(TrustError::NoSecret)));
}

#[test]
fn pki_files_name_the_node_and_are_checked_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let files = write_pki(folder.path(), "spiffe://corp.example/smg/prod/gw-1", (2020, 2999));
    let trust = Trust::from_files(cluster("prod"), &files).unwrap();
    assert_eq!(trust.node().as_str(), "gw-1");
    let other = Trust::from_files(cluster("prod"), &files).unwrap();
    assert_eq!(trust.prefix_key(), other.prefix_key(), "the same on every node that has the authority");
    let error = Trust::from_files(cluster("test"), &files).unwrap_err();
    assert!(error.to_string().contains("spiffe://<domain>/smg/test/<node id>"), "{error}");

    for odd in
        ["spiffe://corp.example/smg/prod/", "spiffe://corp.example/smg/prod/a/b", "https://corp.example/smg/prod/a"]
    {
        let files = write_pki(folder.path(), odd, (2020, 2999));
        assert!(matches!(Trust::from_files(cluster("prod"), &files), Err(TrustError::Unnamed { .. })), "{odd}");
    }
    let files = write_pki(folder.path(), "spiffe://corp.example/smg/prod/gw-1", (2020, 2021));
    let error = Trust::from_files(cluster("prod"), &files).unwrap_err();
    assert!(matches!(error, TrustError::Refused { verdict: Verdict::Expired, .. }), "{error}");
    std::fs::write(&files.key, "nothing").unwrap();
    assert!(matches!(Trust::from_files(cluster("prod"), &files), Err(TrustError::File { what: "private key", .. })));
}

#[test]
fn a_certificate_that_is_no_node_cannot_be_used_as_one() {
    // An authority of ours would have to issue it; its holder could otherwise be several nodes, or issue for others.
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap().der().clone();
    let issuer = Issuer::new(params, authority);
    let issue = |uris: &[&str], usages: Vec<ExtendedKeyUsagePurpose>| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|it| SanType::URI((*it).try_into().unwrap())).collect();
        params.extended_key_usages = usages;
        params.not_before = date_time_ymd(2020, 1, 1);
        let chain = vec![params.signed_by(&key, &issuer).unwrap().der().clone()];
        let anchors = vec![webpki::anchor_from_trusted_cert(&root).unwrap().to_owned()];
        let (cluster, reset_key, prefix_key) = (cluster("a"), [0; 32], [0; 32]);
        Inner { cluster, node: node(), chain, key: key.into(), anchors, reset_key, prefix_key }.judge_own()
    };
    let both = || vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    assert_eq!(issue(&["spiffe://x/smg/a/n-1"], both()), Ok(node()));
    assert_eq!(issue(&["spiffe://x/smg/a/n-1", "spiffe://x/smg/a/n-2"], both()), Err(Verdict::Unnamed));
    assert_eq!(issue(&[], both()), Err(Verdict::Unnamed));
    let server_only = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(issue(&["spiffe://x/smg/a/n-1"], server_only), Err(Verdict::Untrusted));
}
