//! Disks lose their power: one node's, then all at once. What was acknowledged is there.

use std::time::Duration;

use cluster_tests::disk::Disk;
use cluster_tests::lasting;
use tokio::task::LocalSet;

use super::Clients;
use super::Fleet;
use super::STARTING;
use crate::case::Case;
use crate::fleet::Start;

/// Room for the write buffers, the logs and the files of three groups, and for what must stay free.
const DISK_BYTES: u64 = 192 << 20;
const WRITERS: usize = 6;
/// Cuts of one node, and then of all at once.
const CUTS: [usize; 2] = [2, 2];
/// Writes between two cuts.
const BETWEEN: Duration = Duration::from_millis(1500);

impl Fleet<'_> {
    /// A fleet whose nodes have disks of their own, running.
    pub(crate) async fn on_disks(&mut self, start: &Start) {
        for at in 0..self.nodes.len() {
            let seed = self.case.entropy.next_u64();
            self.nodes[at].disk = Some(Disk::new(DISK_BYTES, seed).expect("a disk can be made"));
            self.start(at, start);
        }
        self.whole(STARTING).await;
    }

    pub(crate) fn disk(&mut self, at: usize) -> &mut Disk {
        self.nodes[at].disk.as_mut().expect("it has one")
    }

    /// The power of these fails: their disks first, so that nothing that a process does on its way out is kept.
    pub(crate) fn power_fails(&mut self, these: &[usize]) {
        let cuts: Vec<_> = these.iter().map(|at| self.disk(*at).cut()).collect();
        for (at, cut) in these.iter().zip(cuts) {
            self.case
                .did(format_args!("power cut of node {at}: of its cache {} sectors kept, {} lost", cut.kept, cut.lost));
            self.kill(*at);
        }
    }

    pub(crate) fn power_returns(&mut self, these: &[usize], start: &Start) {
        for at in these {
            self.disk(*at).restore().expect("the disk is there again");
            self.start(*at, start);
        }
    }
}

/// See the file's header.
pub(crate) async fn power_cuts(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let worker = fleet.worker("m").await;
    let start = Start::flags(&["--worker-urls", &worker.url()]);
    fleet.on_disks(&start).await;
    fleet.all_serve("m", STARTING).await;
    let conversation = fleet.conversation().await;
    fleet.one_history(3).await;
    LocalSet::new()
        .run_until(async {
            let mut clients = Clients::new(&fleet, &conversation);
            clients.begin(WRITERS, true);
            let [single, all] = CUTS;
            for cut in 0..single + all {
                let before = clients.acknowledged();
                lasting(BETWEEN + Duration::from_millis(case.entropy.below(200) as u64)).await;
                case.bites("something was acknowledged before the cut", clients.acknowledged() > before);
                let one = [case.entropy.below(3)];
                let these: &[usize] = if cut < single { &one } else { &[0, 1, 2] };
                fleet.power_fails(these);
                fleet.power_returns(these, &start);
                fleet.whole(STARTING).await;
                fleet.one_history(3).await;
            }
            lasting(BETWEEN).await;
            let seen = clients.end().await;
            let last = fleet.items_everywhere(&conversation).await;
            case.did("what was seen is checked");
            seen.check(&last);
            for (id, response) in &seen.made {
                for at in 0..3 {
                    let (status, found) = fleet.told(at, super::Call::get(&format!("/v1/responses/{id}"))).await;
                    assert_eq!((status, &found), (200, response), "node {at}");
                }
            }
            case.bites("responses were made", !seen.made.is_empty());
            case.figure(format_args!(
                "0 of {} items and 0 of {} responses lost over {single} cuts of one and {all} of all; {} reads fit, {} requests were sent again",
                seen.added.len(), seen.made.len(), seen.reads.len(), seen.unavailable
            ));
        })
        .await;
    fleet.check_alive();
}

/// The negative control: disks that answer a flush and do not do it. If nothing is lost here, what is not lost elsewhere proves nothing.
pub(crate) async fn disks_that_lie(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    fleet.on_disks(&Start::default()).await;
    let conversation = fleet.conversation().await;
    fleet.one_history(3).await;
    LocalSet::new()
        .run_until(async {
            let mut clients = Clients::new(&fleet, &conversation);
            clients.begin(WRITERS, false);
            lasting(BETWEEN).await;
            for at in 0..3 {
                fleet.disk(at).lie();
            }
            case.did("all disks lie from now on");
            let before = clients.acknowledged();
            lasting(BETWEEN).await;
            case.bites("something was acknowledged on disks that lie", clients.acknowledged() > before);
            let flushes = fleet.disk(0).flushes();
            case.bites("the nodes ask for flushes", flushes > 0);
            let seen = clients.end().await;
            fleet.power_fails(&[0, 1, 2]);
            fleet.power_returns(&[0, 1, 2], &Start::default());
            fleet.whole(STARTING).await;
            fleet.one_history(3).await;
            let last = fleet.items_everywhere(&conversation).await;
            let lost = seen.lost(&last).len();
            case.bites("disks that lie lose what was acknowledged", lost > 0);
            case.figure(format_args!("{lost} of {} items lost, as it must be", seen.added.len()));
        })
        .await;
}
