//! The driver over real sockets: edits and rows from one node to another, and what a failed disk means.

use std::time::Duration;

use super::*;
use crate::replication::admin::InstanceId;
use crate::replication::core::Edit;
use crate::replication::dots::Actor;
use crate::replication::store::memory::Disk;
use crate::replication::tables::NODES;
use crate::replication::tables::WORKERS;
use crate::transport::tests::eventually;
use crate::transport::trust::MeshSecret;

struct Node {
    tables: Handle,
    addr: std::net::SocketAddr,
    disk: Disk,
    tasks: Tasks,
}

fn node(n: u16, secret: &MeshSecret, seeds: &[String]) -> Node {
    let transport = transport::tests::Node::new(n, secret);
    let (addr, tasks, me) = (transport.addr(), transport.tasks.clone(), transport.me());
    let (seen, inboxes) = (membership::metrics::Metrics::default(), transport.inboxes);
    let membership = membership::start(
        seeds.to_vec(),
        membership::Config::default(),
        transport.handle.clone(),
        inboxes.swim,
        seen,
        &tasks,
    );
    let peers = Peers { membership, transport: transport.handle, deltas: inboxes.deltas, sync: inboxes.sync };
    let disk = Disk::default();
    let me = Member { node: me.node, actor: Actor { storage: me.storage, boot: me.boot } };
    let tables = start(me, Box::new(disk.clone()), Some(peers), Metrics::default(), &tasks).unwrap();
    Node { tables, addr, disk, tasks }
}

fn added(id: u128) -> Vec<Edit> {
    vec![Edit::Add(WORKERS, InstanceId(id), 1, vec![(1, 1, b"http://gpu1:8000".to_vec())])]
}

fn has(node: &Node, id: u128) -> bool {
    node.tables.admin(WORKERS, |table| table.find(InstanceId(id)).is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_and_rows_of_one_node_are_at_all_others_and_a_late_one_catches_up() {
    let secret = MeshSecret::generate();
    let a = node(1, &secret, &["localhost:1".to_owned()]);
    assert!(!a.tables.is_in_force(Duration::from_secs(60)), "it waits for its seeds");
    let seeds = [a.addr.to_string()];
    let b = node(2, &secret, &seeds);
    eventually("their tables are compared", || {
        a.tables.is_in_force(Duration::MAX) && b.tables.is_in_force(Duration::MAX)
    })
    .await;

    let settled = a.tables.edit(added(7)).await.unwrap();
    assert!(settled.is_safe && settled.pending.is_empty() && has(&b, 7), "{settled:?}");
    assert!(b.tables.publish(NODES, vec![(b"name".to_vec(), Some(b"gw-b".to_vec()))]));
    let named = |node: &Node| node.tables.owned(NODES, |now, it| it.rows(now).any(|(_, _, value)| value == b"gw-b"));
    eventually("its row is everywhere", || named(&a) && named(&b)).await;

    let c = node(3, &secret, &seeds);
    eventually("the joiner has both", || has(&c, 7) && named(&c) && c.tables.is_in_force(Duration::MAX)).await;
    let gone = c.tables.edit(vec![Edit::Delete(WORKERS, InstanceId(7))]).await.unwrap();
    assert!(gone.is_safe, "{gone:?}");
    eventually("it is gone everywhere", || ![&a, &b, &c].into_iter().any(|it| has(it, 7))).await;
    // What one node forgets, all forget: its rows are gone everywhere.
    let storage = b.tables.storage();
    assert!(a.tables.forget(storage).await.unwrap().is_safe && a.tables.forget(storage).await.unwrap().is_safe);
    eventually("it is forgotten", || c.tables.is_forgotten(storage) && !named(&a) && !named(&c)).await;
    b.tasks.stop_stage(Stage::Share, Duration::from_secs(2)).await;
    assert_eq!(b.tables.edit(added(8)).await, Err(EditError::Closing));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn field_15_after_the_disk_failed_nothing_is_acknowledged_and_who_waits_is_told() {
    let alone = node(1, &MeshSecret::generate(), &[]);
    assert!(alone.tables.is_in_force(Duration::ZERO), "it does not wait for ever");
    let settled = alone.tables.edit(added(1)).await.unwrap();
    assert!(settled.is_safe, "there is no other disk: {settled:?}");
    alone.disk.fail();
    for id in [2, 3] {
        assert_eq!(alone.tables.edit(added(id)).await, Err(EditError::DiskFailed));
    }
}

#[tokio::test]
async fn without_a_mesh_tables_are_this_node_s_alone_and_readers_follow_them() {
    let tasks = Tasks::new();
    let tables = super::super::alone(&Disk::default(), &tasks);
    assert!(tables.is_in_force(Duration::MAX));
    let mut changes = tables.changes(WORKERS);
    assert!(tables.edit(added(1)).await.unwrap().is_safe);
    changes.changed().await.unwrap();
    assert_eq!(tables.admin(WORKERS, |it| it.entries().count()), 1);
    assert!(tables.publish(NODES, vec![(b"x".to_vec(), Some(b"y".to_vec()))]));
    tables.changes(NODES).changed().await.unwrap();
    let mut seen = BTreeMap::new();
    let news = |seen: &mut BTreeMap<_, _>| tables.owned(NODES, |now, it| it.news(now, seen).len());
    assert_eq!((news(&mut seen), news(&mut seen)), (1, 0));
}
