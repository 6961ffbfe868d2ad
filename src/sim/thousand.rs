//! A thousand nodes: what membership and replication cost each of them, and how long news take. Minutes of a whole core, so only when asked for
//! (`make sim LONG=thousand`); `make test` runs a small one, so that it does not rot.

use std::time::Duration;

use super::cluster::Cluster;
use super::cluster::Tally;
use super::is_asked_for;
use crate::membership::Status;
use crate::transport::twin::Weather;

/// Nodes in a row of the table.
fn sizes() -> &'static [usize] {
    if is_asked_for("thousand") { &[10, 100, 300, 1000] } else { &[20] }
}

/// A network of several racks that loses one packet in a hundred.
fn weather() -> Weather {
    Weather { loss: 0.01, delay_max: Duration::from_millis(5), ..Weather::default() }
}

fn is_formed(cluster: &Cluster) -> bool {
    let count = cluster.nodes.len();
    cluster.nodes.iter().all(|it| it.swim().view().members.iter().filter(|it| it.status.is_active()).count() == count)
}

/// What a span of time cost a node each second.
fn spent(before: Tally, after: Tally, nodes: usize, time: Duration) -> [f64; 4] {
    let share = |a: u64, b: u64| (b - a) as f64 / nodes as f64 / time.as_secs_f64();
    [
        share(before.swim_packets, after.swim_packets),
        share(before.swim_bytes, after.swim_bytes),
        share(before.table_frames, after.table_frames),
        share(before.table_bytes, after.table_bytes),
    ]
}

#[test]
fn a_cluster_of_any_size_forms_tells_edits_and_notices_a_death() {
    for count in sizes().iter().copied() {
        let mut cluster = Cluster::new(count as u64, count, weather());
        cluster.run(Duration::from_millis(100)); // all are up
        let formed = cluster.until(Duration::from_secs(900), is_formed).expect("it forms");
        cluster.run(Duration::from_secs(5));
        let (idle, second) = (cluster.tally, Duration::from_secs(10));
        cluster.run(second);
        let [packets, swim, frames, tables] = spent(idle, cluster.tally, count, second);
        let begun = cluster.now;
        cluster.post(count / 2, "http://gpu1:8000");
        while !cluster.is_at_all("http://gpu1:8000") {
            cluster.run(Duration::from_millis(5));
            assert!(cluster.now - begun < Duration::from_secs(60), "{count} nodes: an edit does not arrive");
        }
        let edit = cluster.now - begun;
        let downs = cluster.false_downs.len();
        cluster.crash(count - 1);
        let (begun, dead) = (cluster.now, super::node::name(count - 1));
        let knows =
            |it: &Cluster, n: usize| it.nodes[n].swim().view().get(&dead).is_none_or(|it| it.status == Status::Down);
        let first =
            cluster.until(Duration::from_secs(60), |it| it.up().any(|n| knows(it, n))).expect("somebody notices");
        cluster.until(Duration::from_secs(60), |it| it.up().all(|n| knows(it, n))).expect("all do");
        println!(
            "{count} nodes, loss 0.01, seed {count}: formed after {:.1} s; idle, a node: {packets:.0} packets and {swim:.0} B/s of membership, \
             {frames:.1} frames and {tables:.0} B/s of tables; an edit everywhere after {edit:?}; a death known to the first after {first:?}, \
             to all after {:?}; {downs} false downs",
            formed.as_secs_f64(),
            cluster.now - begun,
        );
        assert!(edit < Duration::from_secs(5) && downs == 0);
    }
}
