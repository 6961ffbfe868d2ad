//! What stands between the cores and the world: the leader's answers wait for a confirmation of their own, and what nobody waits for any more is given back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::base::clock::Clock;
use crate::base::ids::StorageId;
use crate::base::tasks::Tasks;
use crate::limits;
use crate::limits::Definition;
use crate::limits::Handle;
use crate::limits::Kind;
use crate::limits::LimitId;
use crate::limits::OnIsolation;
use crate::limits::Others;
use crate::limits::Parts;
use crate::limits::Settings;
use crate::limits::calendar::Calendar;
use crate::limits::core::Answer;
use crate::limits::core::Refused;
use crate::limits::faults::Fault;
use crate::limits::faults::plant;
use crate::limits::group::Change;
use crate::limits::group::Changes;
use crate::limits::group::Doing;
use crate::limits::group::Group;
use crate::limits::group::Proposal;
use crate::limits::group::Proposed;
use crate::limits::leader::Leader;
use crate::limits::leader::Way;
use crate::limits::messages::Renewal;
use crate::limits::messages::Renewed;
use crate::limits::metrics::Metrics;
use crate::membership;
use crate::transport;
use crate::transport::tests::eventually;
use crate::transport::trust::MeshSecret;

const WALL: Duration = Duration::from_secs(600_000);

/// A group that does as it is told.
#[derive(Default)]
struct Told {
    me: Mutex<Option<StorageId>>,
    term: Mutex<Option<u64>>,
    /// Confirmations that are asked for; the test answers them. None: each is confirmed at once.
    confirms: Option<Mutex<Vec<oneshot::Sender<bool>>>>,
    changes: Mutex<Vec<(u64, Change)>>,
}

impl Group for Told {
    fn leader(&self) -> Option<StorageId> {
        *self.me.lock()
    }

    fn leads(&self) -> Option<u64> {
        *self.term.lock()
    }

    fn confirm(&self, _term: u64) -> Doing<'_, bool> {
        let Some(confirms) = &self.confirms else { return Box::pin(async { true }) };
        let (reply, replied) = oneshot::channel();
        confirms.lock().push(reply);
        Box::pin(async { replied.await.unwrap_or(false) })
    }

    fn changes(&self, after: u64) -> Changes {
        let changes = self.changes.lock().iter().filter(|it| it.0 > after).cloned().collect();
        Changes { changes, epoch_dropped: 0 }
    }

    fn propose(&self, _term: u64, proposal: Proposal) -> Doing<'_, Proposed> {
        let mut changes = self.changes.lock();
        let entry = changes.last().map_or(1, |it| it.0 + 1);
        changes.push(match proposal {
            Proposal::Mint { mint, .. } => (entry, Change::Minted(mint)),
            Proposal::Drop { limit, .. } => (entry, Change::Gone(limit)),
        });
        Box::pin(async { Proposed::Decided })
    }
}

/// Runs a test as one of tokio's, so that it can be run again with a bug.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

struct Stage {
    group: Arc<Told>,
    leader: Leader,
}

impl Stage {
    fn new() -> Self {
        let group = Arc::new(Told { confirms: Some(Mutex::default()), ..Told::default() });
        *group.term.lock() = Some(3);
        let calendar = Calendar::new(Clock.now(), WALL);
        let leader = Leader::new(Arc::clone(&group) as _, Settings::default(), calendar, Metrics::default());
        Self { group, leader }
    }

    fn renew(&mut self, node: u16) -> oneshot::Receiver<Renewed> {
        let (reply, replied) = oneshot::channel();
        let renewal = Renewal { number: 1, ..Renewal::default() };
        self.leader.hear(Clock.now(), (StorageId(node.into()), 1), renewal, Way::Own(reply));
        replied
    }

    fn asked(&self) -> usize {
        self.group.confirms.as_ref().expect("they are asked for").lock().len()
    }

    /// A majority confirms, or not, what it was asked.
    async fn confirm(&mut self, is_confirmed: bool) {
        while self.asked() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.asked(), 1, "one at a time");
        let asked = self.group.confirms.as_ref().and_then(|it| it.lock().pop()).expect("one");
        asked.send(is_confirmed).expect("it waits");
        let done = self.leader.done().await;
        self.leader.take(Clock.now(), done);
    }
}

async fn answered_after_a_confirmation_of_its_own() {
    let mut stage = Stage::new();
    let mut first = stage.renew(1); // with it the office begins, and its own confirmation
    let mut second = stage.renew(2);
    stage.confirm(true).await;
    assert_eq!(first.try_recv(), Err(TryRecvError::Empty), "that one began before it came");
    // The next one is for both, and not for whoever comes while it is under way.
    while stage.asked() == 0 {
        tokio::task::yield_now().await;
    }
    let mut third = stage.renew(3);
    stage.confirm(true).await;
    assert!(first.try_recv().is_ok() && second.try_recv().is_ok());
    assert_eq!(third.try_recv(), Err(TryRecvError::Empty));
    stage.confirm(false).await;
    assert_eq!(third.try_recv(), Err(TryRecvError::Closed), "no majority: no answer");
}

#[test]
fn a_renewal_is_answered_once_the_office_was_confirmed_after_it_came() {
    run(answered_after_a_confirmation_of_its_own());
}

#[test]
fn a_renewal_is_not_answered_by_an_office_that_did_not_hear_it() {
    run(async {
        let mut stage = Stage::new();
        stage.renew(1);
        stage.confirm(true).await;
        let mut waits = stage.renew(2);
        while stage.asked() == 0 {
            tokio::task::yield_now().await;
        }
        *stage.group.term.lock() = Some(5); // it lost the office and has it again
        stage.confirm(true).await;
        assert_eq!(waits.try_recv(), Err(TryRecvError::Closed));
        *stage.group.term.lock() = None;
        let mut late = stage.renew(2);
        assert_eq!(late.try_recv(), Err(TryRecvError::Closed), "it leads no more");
    });
}

// === One node alone ===

const LIMIT: LimitId = LimitId(7);

/// A limiter over a real transport, with a group of one.
struct Alone {
    handle: Handle,
    group: Arc<Told>,
    definitions: watch::Sender<Arc<[Definition]>>,
    tasks: Tasks,
}

fn alone(units: u64, is_meshed: bool) -> Alone {
    // A window of an hour: what is taken is taken for the whole test.
    alone_with((Kind::Requests, 3_600_000), units, is_meshed)
}

fn alone_with((kind, window_ms): (Kind, u32), units: u64, is_meshed: bool) -> Alone {
    let transport::tests::Node { handle, inboxes, tasks, .. } =
        transport::tests::Node::new(1, &MeshSecret::development());
    let me = handle.me().storage;
    let group = Arc::new(Told { me: Mutex::new(Some(me)), term: Mutex::new(Some(1)), ..Told::default() });
    let life = (me, handle.me().boot);
    let others = is_meshed.then(|| {
        let (timing, seen) = (membership::Config::default(), membership::metrics::Metrics::default());
        let membership = membership::start(Vec::new(), timing, handle.clone(), inboxes.swim, seen, &tasks);
        Others { membership, transport: handle, messages: inboxes.limits, renewals: inboxes.renewals }
    });
    let definition = Definition { limit: LIMIT, revision: 1, kind, window_ms, units };
    let (definitions, defined) = watch::channel(Arc::from([definition]));
    let parts = Parts {
        settings: Settings::default(),
        definitions: defined,
        group: Arc::clone(&group) as _,
        me: life,
        others,
        metrics: Metrics::default(),
    };
    Alone { handle: limits::start(parts, &tasks), group, definitions, tasks }
}

async fn has_a_share(handle: &Handle) {
    eventually("it has its share", || handle.standing(LIMIT).is_some()).await;
}

#[test]
fn a_node_alone_divides_takes_and_refuses() {
    [true, false].into_iter().for_each(divides_takes_and_refuses);
}

fn divides_takes_and_refuses(is_meshed: bool) {
    run(async {
        let node = alone(3, is_meshed);
        assert!(matches!(node.handle.take(LIMIT, 1).await, Answer::Refused(Refused::NoShare(LIMIT))), "not minted");
        has_a_share(&node.handle).await;
        let shown = node.handle.standing(LIMIT).map(|it| (it.units, it.share, it.left));
        assert_eq!(shown, Some((3, 3, 3)), "nobody has asked yet, and all of it is there");
        let mut held = Vec::new();
        for _ in 0..3 {
            let Answer::Admitted(taken) = node.handle.take(LIMIT, 1).await else { panic!("there are three") };
            held.push(taken);
        }
        assert!(matches!(node.handle.take(LIMIT, 1).await, Answer::Refused(Refused::Exhausted { .. })));
        assert!(matches!(node.handle.take(LIMIT, 4).await, Answer::Refused(Refused::TooLarge(LIMIT))));
        held.pop().expect("three").give_back();
        assert!(matches!(node.handle.take(LIMIT, 1).await, Answer::Admitted(_)));
        assert_eq!(node.handle.standing(LIMIT).map(|it| (it.units, it.share, it.left)), Some((3, 3, 0)));
        // The node stops what decides in good order.
        node.definitions.send_replace(Arc::default());
        assert_eq!(node.tasks.stop_stage(crate::base::tasks::Stage::Decide, Duration::from_secs(10)).await, 0);
        assert_eq!(node.group.changes.lock().len(), 1, "one mint, and no other");
    });
}

async fn permits_go_to_who_waits() {
    let node = alone_with((Kind::Streams, 0), 2, true);
    assert!(matches!(node.handle.permit(LIMIT).await, Answer::Refused(Refused::NoShare(LIMIT))), "not minted");
    has_a_share(&node.handle).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let Answer::Admitted(permit) = node.handle.permit(LIMIT).await else { panic!("there are two") };
        held.push(permit);
    }
    let (mut left, mut waits) = (JoinSet::new(), JoinSet::new());
    for waiting in [&mut left, &mut waits] {
        let handle = node.handle.clone();
        waiting.spawn(async move { handle.permit(LIMIT).await });
    }
    let waiting = |n| node.handle.standing(LIMIT).is_some_and(|it| it.waiting == n);
    eventually("both wait", || waiting(2)).await;
    left.abort_all();
    eventually("one has left", || waiting(1)).await;
    drop(held.pop());
    let Some(Ok(Answer::Admitted(permit))) = waits.join_next().await else { panic!("one came back") };
    let standing = node.handle.standing(LIMIT).map(|it| (it.units, it.share, it.in_use, it.left, it.waiting));
    assert_eq!(standing, Some((2, 2, 2, 0, 0)));
    drop((permit, held));
    assert_eq!(node.handle.standing(LIMIT).map(|it| (it.in_use, it.left)), Some((0, 2)));
}

#[test]
fn a_permit_that_comes_back_goes_to_who_waits_and_none_is_lost_with_a_client_that_left() {
    run(permits_go_to_who_waits());
}

#[test]
fn without_a_control_group_a_limit_that_others_tell_of_holds_and_serves_nobody() {
    run(async {
        let handle = Handle::nowhere(OnIsolation::Deny);
        assert!(matches!(handle.take(LIMIT, 1).await, Answer::Refused(Refused::NoShare(LIMIT))));
        assert!(matches!(handle.permit(LIMIT).await, Answer::Refused(Refused::NoShare(LIMIT))));
        assert_eq!(handle.standing(LIMIT), None);
        let handle = Handle::nowhere(OnIsolation::Open);
        assert!(matches!(handle.take(LIMIT, u64::MAX).await, Answer::Open));
        assert!(matches!(handle.permit(LIMIT).await, Answer::Open));
    });
}

async fn what_nobody_waits_for_is_given_back() {
    let node = alone(3, true);
    has_a_share(&node.handle).await;
    drop(node.handle.take(LIMIT, 0).await); // opens the window
    let shared = node.handle.0.clone().expect("it is somewhere");
    let purse = shared.purses.load().get(&LIMIT).cloned().expect("it is known");
    // An answer to a ticket that nobody has any more.
    let taken = purse.take(Clock.now(), 2).expect("there are three");
    shared.answer(99, Answer::Admitted(taken));
    assert_eq!(node.handle.standing(LIMIT).map(|it| it.left), Some(3));
}

#[test]
fn units_for_a_client_that_has_left_are_given_back() {
    run(what_nobody_waits_for_is_given_back());
}

#[test]
fn planted_bugs_of_the_driver_are_seen() {
    let tests: [(Fault, fn()); 3] = [
        (Fault::PermitComesBackTwice, || run(permits_go_to_who_waits())),
        (Fault::ConfirmedBefore, || run(answered_after_a_confirmation_of_its_own())),
        (Fault::LeftBehind, || run(what_nobody_waits_for_is_given_back())),
    ];
    for (fault, test) in tests {
        plant(Some(fault));
        let passed = std::panic::catch_unwind(test).is_ok();
        plant(None);
        assert!(!passed, "{fault:?} was not seen");
    }
}
