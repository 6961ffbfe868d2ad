//! What a node is told about the cluster it belongs to.

use std::time::Duration;

use crate::base::ids::ClusterName;
use crate::base::ids::InvalidId;
use crate::base::ids::Zone;
use crate::base::setting::Expected;
use crate::base::setting::Setting;
use crate::transport::trust::MeshSecret;

/// Where a mesh listens unless told otherwise.
pub const PORT: u16 = 30_001;
/// The cluster of those who name none.
const CLUSTER: &str = "smg";

crate::config! {
    /// Several nodes that find each other.
    pub struct Config in "mesh" {
        /// This node looks for others and lets itself be found. Needs a data directory: it holds who the node is.
        "ha-mesh" => ha_mesh: bool = false,
        /// Where other nodes are, each `HOST:PORT`; a name stands for all its addresses. Some suffice, this node may be among them, and none
        /// has to run yet.
        "seeds" => seeds: Vec<String> = Vec::new(),
        /// How many nodes without a cluster must see each other before one of them founds it. Default: as many as `--seeds` names, and this one. Must
        /// be more than half of those. Only the first start of a cluster needs it.
        "bootstrap-expect" => bootstrap_expect: Option<usize> = None,
        /// Address that the mesh listens on.
        "mesh-host" => mesh_host: String = "0.0.0.0".to_owned(),
        /// UDP port that the mesh listens on; 0 takes any.
        "mesh-port" => mesh_port: u16 = PORT,
        /// Host under which other nodes reach this one. Default: `--mesh-host`, or when that is every address the one from which the
        /// first seed is reached.
        "mesh-advertise-host" => mesh_advertise_host: Option<String> = None,
        /// What makes a node a member, printed by `smg mesh secret`. Several while one replaces another: the first is shown, all are accepted.
        "mesh-secret" => mesh_secret: Vec<MeshSecret> = Vec::new(),
        /// File with the secrets, one a line. Default: `mesh.secret` in the data directory, if it is there.
        "mesh-secret-file" => mesh_secret_file: Option<String> = None,
        /// Without a secret, use the one that everybody knows, on any address: whoever reaches the port is a member.
        "mesh-insecure" => mesh_insecure: bool = false,
        /// File with the key that seals workers' keys before they travel or are kept, 64 hex digits, the same on every node. Default: derived from
        /// the mesh secret; needed with certificates from files.
        "seal-key-file" => seal_key_file: Option<String> = None,
        /// How long a starting node waits for the cluster's tables before it says to be ready without them.
        "join-timeout" => join_timeout: Duration = Duration::from_secs(5),
        /// How long a voter of the cluster's groups may be away before another node takes its place. One that only restarts should be back by then.
        "voter-replace-after" => voter_replace_after: Duration = Duration::from_secs(300),
        /// Cluster this node belongs to. Nodes of two clusters do not speak, even with one secret.
        "cluster-name" => cluster_name: ClusterName = cluster(),
        /// Where this node stands (a rack, a zone), for people.
        "zone" => zone: Option<Zone> = None,
        /// Instead of a secret: certificates (PEM) of the authority that issues every node's.
        "mesh-ca-file" => mesh_ca_file: Option<String> = None,
        /// This node's certificate (PEM), with the SAN `spiffe://<domain>/smg/<cluster>/<node id>`.
        "mesh-cert-file" => mesh_cert_file: Option<String> = None,
        /// Its key (PEM).
        "mesh-key-file" => mesh_key_file: Option<String> = None,
    }
}

fn cluster() -> ClusterName {
    ClusterName::parse(CLUSTER).expect("a plain word")
}

macro_rules! name_setting {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            const KIND: &'static str = "name";
            fn parse(text: &str) -> Result<Self, Expected> {
                Self::parse(text).map_err(|error: InvalidId| format!("expected a name: {error}").into())
            }
            fn render(&self) -> String {
                self.as_str().to_owned()
            }
        }
    )*};
}
name_setting!(ClusterName, Zone);

impl Setting for MeshSecret {
    const KIND: &'static str = "secret";
    const IS_SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, Expected> {
        Self::parse(text).map_err(|error| format!("expected what `smg mesh secret` prints: {error}").into())
    }
    fn render(&self) -> String {
        "***".to_owned()
    }
}
