//! Tells the cluster what people want to know of this node: one row in the table of nodes, written once.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use crate::api::gateway::Gateway;
use crate::base::clock::Clock;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::membership::about;
use crate::membership::about::About;
use crate::replication;
use crate::replication::tables::NODES;

const TASK: Task = Task { name: "about", stage: Stage::Share, on_end: OnEnd::Fine };
/// Until it is tried again, when replication has too much to do.
const AGAIN: Duration = Duration::from_millis(200);

/// Writes it. Clients are served at `address`, over TLS or not; nobody else wants to know where there is no mesh.
pub(super) fn start(gateway: &Gateway, address: SocketAddr, is_tls: bool, tasks: &Tasks) {
    let Some(members) = &gateway.members else { return };
    let me = members.handle.view().get(&members.me).map(|it| it.peer.clone());
    let reached = me.as_ref().map_or(address.ip(), |it| it.addr.ip());
    let about = About {
        name: gateway.node.name.clone(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        zone: me.and_then(|it| it.zone.as_ref().map(|it| it.as_str().to_owned())).unwrap_or_default(),
        started: Clock.wall().as_secs(),
        http: url(address, reached, is_tls),
        features: about::FEATURES.iter().map(|it| (*it).to_owned()).collect(),
    };
    let tables = gateway.tables.clone();
    tasks.spawn(TASK, |stop| async move {
        tokio::select! {
            () = publish(&tables, &about) => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn publish(tables: &replication::Handle, about: &About) {
    while !tables.publish(NODES, vec![(about::ROW.to_vec(), Some(about.encode()))]) {
        Clock.sleep(AGAIN).await;
    }
}

/// Where others reach it: a listener on every address is reached where the mesh is.
fn url(address: SocketAddr, reached: IpAddr, is_tls: bool) -> String {
    let ip = if address.ip().is_unspecified() { reached } else { address.ip() };
    format!("{}://{}", if is_tls { "https" } else { "http" }, SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn clients_are_sent_where_the_node_can_be_reached() {
        let url = |address: &str, reached: &str, is_tls| {
            super::url(address.parse().expect("an address"), reached.parse().expect("one"), is_tls)
        };
        assert_eq!(url("0.0.0.0:30000", "10.0.0.7", false), "http://10.0.0.7:30000");
        assert_eq!(url("[::]:1", "fd00::7", true), "https://[fd00::7]:1");
        assert_eq!(url("127.0.0.1:1", "10.0.0.7", false), "http://127.0.0.1:1");
    }
}
