//! Who is no member: another secret, a certificate of its own making, another's name, a copied data directory.

use std::net::UdpSocket;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::lasting;
use cluster_tests::within;
use rcgen::CertificateParams;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SanType;
use smg::base::ids::ClusterName;
use smg::base::ids::NodeId;
use smg::base::ids::StorageId;
use smg::base::tasks::Tasks;
use smg::transport;
use smg::transport::Peer;
use smg::transport::trust::MeshSecret;
use smg::transport::trust::Trust;

use super::case::Case;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;

/// How long strangers try. A greeting that would succeed does so in some milliseconds.
const TRYING: Duration = Duration::from_secs(4);

/// A certificate that names a node, issued by an authority that was made for it: nobody else trusts it.
fn self_made(folder: &Path, node: &str) -> [PathBuf; 3] {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::default();
    let name = format!("spiffe://smg.internal/smg/smg/{node}");
    params.subject_alt_names = vec![SanType::URI(name.try_into().expect("ASCII"))];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let files = ["ca.pem", "cert.pem", "key.pem"].map(|it| folder.join(it));
    for (path, text) in files.iter().zip([authority.pem(), certificate.pem(), key.serialize_pem()]) {
        std::fs::write(path, text).expect("is written");
    }
    files
}

/// A process of the mesh that says to be `claimed`, with a certificate for `certified` of the cluster's own authority.
async fn spoof(secret: &str, certified: &str, claimed: &str, ip: std::net::Ipv4Addr, to: std::net::SocketAddr) -> bool {
    let node = |name: &str| NodeId::parse(name).expect("a name");
    let (cluster, secret) = (ClusterName::parse("smg").expect("a name"), MeshSecret::parse(secret).expect("a secret"));
    let trust = Trust::from_secrets(cluster, node(certified), &[secret]).expect("a certificate");
    let socket = UdpSocket::bind((ip, 0)).expect("a free port");
    let addr = socket.local_addr().expect("is bound");
    let me = Peer { node: node(claimed), storage: StorageId(7), boot: 1, generation: 1, renewals: 0, addr, zone: None };
    let tasks = Tasks::new();
    let (handle, _inboxes) =
        transport::start(socket, me, trust, Default::default(), Default::default(), &tasks).expect("it starts");
    handle.greet(to).await.is_ok()
}

pub(crate) async fn stay_out(case: &Case) {
    let mut fleet = Fleet::new(case, 4);
    let stranger = 3;
    for at in 0..stranger {
        fleet.start(at, &Start::default());
    }
    fleet.whole(STARTING).await;
    let pki = tempfile::tempdir().expect("a directory");
    let files = self_made(pki.path(), "n-stranger").map(|it| it.display().to_string());
    let [ca, certificate, key] = &files;
    let seal = pki.path().join("seal.key").display().to_string();
    std::fs::write(&seal, "7".repeat(64)).expect("is written");
    let own = ["--mesh-ca-file", ca, "--mesh-cert-file", certificate, "--mesh-key-file", key, "--seal-key-file", &seal];
    let other = Start { secret: Some(MeshSecret::generate().expose()), ..Start::default() };
    for (what, start) in [
        ("a node with another secret", other),
        ("a node with a self-made certificate", Start { secret: Some(String::new()), ..Start::flags(&own) }),
    ] {
        let before = fleet.sum("smg_mesh_refused_total{reason=\"untrusted\"}").await;
        case.did(format_args!("start of {what}"));
        fleet.start(stranger, &start);
        within("the stranger runs", STARTING, async || !fleet.members(stranger).await.is_empty()).await;
        lasting(TRYING).await;
        assert!(fleet.sees(stranger, &[stranger]).await, "{what} sees members");
        fleet.kill(stranger);
        let refused = fleet.sum("smg_mesh_refused_total{reason=\"untrusted\"}").await - before;
        case.bites("the stranger was refused, and counted", refused >= 1.0);
        case.figure(format_args!("{what}: refused {refused} times"));
    }
    let node = fleet.ask(0, "GET", "/cluster/members", &serde_json::Value::Null).await.expect("it answers").1;
    let victim = node["members"][1]["node_id"].as_str().expect("a name").to_owned();
    let observer = fleet.lab.observer();
    case.did(format_args!("a member's certificate, said to be {victim}'s"));
    let entered = spoof(&fleet.secret, "n-spoofer", &victim, observer, fleet.nodes[0].mesh).await;
    assert!(!entered, "it may not speak for another");
    let spoofed = fleet.sum("smg_mesh_refused_total{reason=\"spoofed\"}").await;
    assert!(spoofed >= 1.0, "it is counted");
    case.figure(format_args!("a spoofed name: refused {spoofed} times"));
    for at in 0..stranger {
        let members = fleet.members(at).await;
        assert!(members.len() == 3 && members.values().all(|it| it == "alive"), "node {at}: {members:?}");
    }
    fleet.check_alive();
}

pub(crate) async fn copied_directory(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    for at in 0..2 {
        fleet.start(at, &Start::default());
    }
    fleet.whole(STARTING).await;
    std::fs::create_dir_all(&fleet.nodes[2].data).expect("is made");
    let files = std::fs::read_dir(&fleet.nodes[1].data).expect("is read").map(|it| it.expect("an entry").path());
    for file in files.filter(|it| it.is_file()) {
        let name = file.file_name().expect("a file");
        std::fs::copy(&file, fleet.nodes[2].data.join(name)).expect("is copied");
    }
    case.did("start of node 2 on a copy of node 1's directory");
    fleet.start(2, &Start::default());
    let status = fleet.process(2).end(STARTING).await;
    let log = fleet.process(2).log();
    fleet.nodes[2].process = None;
    assert!(!status.success() && log.contains("is a copy or an old backup"), "{status}: {log}");
    assert!(fleet.sees(0, &[0, 1]).await && fleet.sees(1, &[0, 1]).await, "nobody noticed");
    case.figure("it ends and says that it is a copy");
    fleet.check_alive();
}
