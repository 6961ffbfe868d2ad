//! Claims about routers that share what they placed: several nodes in memory, each with its log.

use std::sync::Arc;
use std::time::Duration;

use super::Outbox;
use super::batch::Batch;
use super::core::Core;
use super::core::Effect;
use super::core::Event;
use super::core::Heard;
use super::core::Said;
use super::core::Setting;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::routing::Config;
use crate::routing::Feedback;
use crate::routing::Reason;
use crate::routing::draw::Draw;
use crate::routing::fixture::Bench;
use crate::routing::fixture::Fleet;
use crate::routing::fixture::Want;
use crate::routing::fixture::prose;
use crate::routing::prefix_map::chain::Key;

/// A node: a router, its log, and the rows it wrote, each with its time.
struct Node {
    bench: Bench,
    outbox: Arc<Outbox>,
    core: Core,
    rows: Vec<(Duration, Vec<u8>)>,
}

struct Mesh {
    nodes: Vec<Node>,
    /// How many rows of each node each node has read.
    read: Vec<Vec<usize>>,
}

impl Mesh {
    fn new(count: usize) -> Self {
        let node = |me: usize| {
            let mut bench = Bench::with(Config::default());
            let outbox = Arc::new(Outbox::default());
            let key = Key::shared(&[7; 32]);
            let fingerprint = key.fingerprint();
            let router =
                crate::routing::Router::new(Config::default(), crate::base::entropy::Entropy::seeded(me as u64));
            bench.router = router.with_peers(key, Arc::clone(&outbox), Arc::default());
            let (me, ttl, tick) = (StorageId(me as u128), Config::default().cache_ttl, bench.router.tick());
            let mut core = Core::new(Setting { me, key: fingerprint, ttl, tick });
            core.step(Duration::ZERO, Event::Workers((1..100).map(WorkerId).collect()), &mut Vec::new());
            assert_eq!(bench.router.since_start(bench.now), Duration::ZERO);
            Node { bench, outbox, core, rows: Vec::new() }
        };
        Self { nodes: (0..count).map(node).collect(), read: vec![vec![0; count]; count] }
    }

    fn pass(&mut self, seconds: u64) {
        self.nodes.iter_mut().for_each(|it| it.bench.pass(seconds));
    }

    /// Everybody writes what it has to say; everybody reads what it has not.
    fn share(&mut self) {
        for at in 0..self.nodes.len() {
            let said = self.nodes[at].outbox.take();
            if self.nodes[at].step(Event::Said(said)) {
                self.read(at, false);
                self.read(at, true);
            }
        }
        for at in 0..self.nodes.len() {
            self.read(at, false);
        }
    }

    fn read(&mut self, at: usize, is_again: bool) {
        let now = self.nodes[at].now();
        let mut rows = Vec::new();
        for (owner, node) in self.nodes.iter().enumerate() {
            let from = if is_again { 0 } else { self.read[at][owner] };
            rows.extend(node.rows[from..].iter().map(|(written, value)| Heard {
                owner: StorageId(owner as u128),
                age: now - *written,
                value: Some(value.clone()),
            }));
            self.read[at][owner] = node.rows.len();
        }
        if self.nodes[at].step(Event::Heard { rows, is_again }) {
            self.read(at, true);
        }
    }

    fn send(&mut self, at: usize, want: &Want<'_>, fleet: &Fleet) -> crate::routing::Route {
        self.nodes[at].bench.choose(want, fleet).expect("a worker")
    }
}

impl Node {
    fn now(&self) -> Duration {
        self.bench.router.since_start(self.bench.now)
    }

    /// Says whether all rows are to be read again.
    fn step(&mut self, event: Event) -> bool {
        let (now, mut effects) = (self.now(), Vec::new());
        self.core.step(now, event, &mut effects);
        self.bench.router.hear(self.bench.now, &effects);
        for effect in &effects {
            if let Effect::Publish(rows) = effect {
                self.rows.extend(rows.iter().filter_map(|it| Some((now, it.1.clone()?))));
            }
        }
        effects.contains(&Effect::ReadAgain)
    }
}

#[test]
fn a_decision_with_a_peers_hint_picks_the_holder() {
    let (mut mesh, fleet) = (Mesh::new(2), Fleet::new(8));
    let turns: Vec<String> = (0..8).map(|turn| prose(turn, 3_700)).collect();
    let first = mesh.send(0, &Want::messages(&[&turns[0]]), &fleet);
    for until in 2..turns.len() {
        mesh.share();
        let so_far: Vec<&str> = turns[..until].iter().map(String::as_str).collect();
        let route = mesh.send(until % 2, &Want::messages(&so_far), &fleet);
        assert_eq!((route.worker, route.reason), (first.worker, Reason::Prefix), "turn {until}");
        assert!(route.new_tokens < 1_300, "turn {until}: {} tokens are new", route.new_tokens);
    }
}

#[test]
fn field_a1_clients_at_random_find_as_much_at_eight_nodes_as_at_one() {
    let sessions = 60;
    let hits = |count: usize| {
        let (mut mesh, fleet) = (Mesh::new(count), Fleet::new(16));
        let (mut draw, mut held, mut all) = (Draw::new(3), 0, 0);
        for turn in 1..=6 {
            for session in 0..sessions {
                let texts: Vec<String> = (0..turn).map(|it| prose(session * 100 + it, 1_900)).collect();
                let so_far: Vec<&str> = texts.iter().map(String::as_str).collect();
                let at = draw.below(count);
                let route = mesh.send(at, &Want::messages(&so_far), &fleet);
                held += route.expected_cached_tokens;
                all += route.expected_cached_tokens + route.new_tokens;
            }
            mesh.pass(10);
            mesh.share();
        }
        held as f64 / all as f64
    };
    let (one, eight) = (hits(1), hits(8));
    assert!(one > 0.6 && eight >= 0.97 * one, "1 node: {one:.3}, 8 nodes: {eight:.3}");
}

#[test]
fn field_08_a_late_node_finds_what_others_placed_before_it_came() {
    let (mut mesh, fleet) = (Mesh::new(3), Fleet::new(8));
    let prompts: Vec<String> = (0..30).map(|n| prose(n, 9_000)).collect();
    let homes: Vec<WorkerId> = prompts.iter().map(|it| mesh.send(0, &Want::text(it), &fleet).worker).collect();
    let said = mesh.nodes[0].outbox.take();
    mesh.nodes[0].step(Event::Said(said));
    mesh.pass(100);
    mesh.read(2, false);
    for (prompt, home) in prompts.iter().zip(&homes) {
        let route = mesh.send(2, &Want::text(prompt), &fleet);
        assert_eq!((route.worker, route.reason), (*home, Reason::Prefix));
    }
    mesh.pass(90);
    mesh.read(1, false);
    let route = mesh.send(1, &Want::text(&prompts[0]), &fleet);
    assert_eq!(route.reason, Reason::Load, "a hint has the age of the placement, not that of its arrival");
}

#[test]
fn a_short_shared_system_prompt_is_found_from_another_node() {
    let (mut mesh, fleet) = (Mesh::new(2), Fleet::new(8));
    let system = prose(1, 1_100);
    let first = mesh.send(0, &Want::messages(&[&system, &prose(100, 900)]), &fleet);
    mesh.share();
    for n in 1..20 {
        let route = mesh.send(1, &Want::messages(&[&system, &prose(100 + n, 900)]), &fleet);
        assert_eq!(route.worker, first.worker);
        assert!(route.expected_cached_tokens * 4 >= 1_024, "{}", route.expected_cached_tokens);
    }
}

#[test]
fn an_attempt_that_was_never_served_is_taken_back_everywhere() {
    let (mut mesh, fleet) = (Mesh::new(2), Fleet::new(4));
    let prompt = prose(1, 9_000);
    let failed = mesh.send(0, &Want::text(&prompt), &fleet);
    mesh.share();
    let bench = &mesh.nodes[0].bench;
    bench.router.observe(bench.now, Feedback::NotServed { placed: &failed.placed });
    mesh.share();
    assert_eq!(mesh.send(1, &Want::text(&prompt), &fleet).reason, Reason::Load);
}

#[test]
fn a_restarted_worker_is_forgotten_everywhere_and_what_it_gets_then_is_not() {
    let (mut mesh, fleet) = (Mesh::new(2), Fleet::new(1));
    let (before, after) = (prose(1, 9_000), prose(2, 9_000));
    mesh.send(0, &Want::text(&before), &fleet);
    mesh.send(1, &Want::text(&prose(3, 9_000)), &fleet);
    mesh.share();
    mesh.pass(5);
    let bench = &mesh.nodes[0].bench;
    bench.router.observe(bench.now, Feedback::Forgotten(WorkerId(1)));
    mesh.send(0, &Want::text(&after), &fleet);
    mesh.share();
    for at in [0, 1] {
        assert_eq!(mesh.send(at, &Want::text(&after), &fleet).reason, Reason::Prefix, "node {at}");
        assert_eq!(mesh.send(at, &Want::text(&before), &fleet).reason, Reason::Load, "node {at}");
    }
    // The other node's prober sees the same restart a little later: nothing is lost by it.
    mesh.pass(3);
    let bench = &mesh.nodes[1].bench;
    bench.router.observe(bench.now, Feedback::Forgotten(WorkerId(1)));
    mesh.share();
    assert_eq!(mesh.send(1, &Want::text(&after), &fleet).reason, Reason::Prefix);
    // And hears of it from a third: the same.
    let bench = &mesh.nodes[1].bench;
    bench.router.observe(bench.now, Feedback::Doubted(WorkerId(1)));
    mesh.share();
    assert_eq!(mesh.send(1, &Want::text(&after), &fleet).reason, Reason::Prefix);
}

#[test]
fn a_worker_that_one_node_lost_sight_of_is_forgotten_by_no_other() {
    let (mut mesh, fleet) = (Mesh::new(2), Fleet::new(1));
    let prompt = prose(1, 9_000);
    mesh.send(0, &Want::text(&prompt), &fleet);
    mesh.share();
    let bench = &mesh.nodes[0].bench;
    bench.router.observe(bench.now, Feedback::Doubted(WorkerId(1)));
    mesh.share();
    assert_eq!(mesh.send(0, &Want::text(&prompt), &fleet).reason, Reason::Load);
    assert_eq!(mesh.send(1, &Want::text(&prompt), &fleet).reason, Reason::Prefix);
}

#[test]
fn a_cache_that_forgets_sooner_is_found_out_by_all_but_silence_teaches_nobody() {
    let forgets = |cached: Option<u64>| {
        let (mut mesh, fleet) = (Mesh::new(2), Fleet::new(1));
        for n in 0..12 {
            let prompt = prose(n, 8_000);
            mesh.send(0, &Want::text(&prompt), &fleet);
            mesh.pass(100);
            let again = mesh.send(0, &Want::text(&prompt), &fleet);
            mesh.nodes[0].bench.served(&again, 2_000, cached);
            mesh.share();
        }
        let prompt = prose(99, 8_000);
        mesh.send(1, &Want::text(&prompt), &fleet);
        mesh.pass(100);
        mesh.send(1, &Want::text(&prompt), &fleet).expected_cached_tokens == 0
    };
    assert!(forgets(Some(0)), "zero is an answer");
    assert!(!forgets(None), "absent is not zero");
}

#[test]
fn field_f7_tenants_do_not_see_each_other_through_a_peer() {
    let (mut mesh, fleet) = (Mesh::new(2), Fleet::new(1));
    let prompt = prose(1, 20_000);
    mesh.send(0, &Want::text(&prompt), &fleet);
    mesh.share();
    mesh.nodes[1].bench.tenant("rival");
    assert_eq!(mesh.send(1, &Want::text(&prompt), &fleet).expected_cached_tokens, 0);
    mesh.nodes[1].bench.tenant("team");
    assert!(mesh.send(1, &Want::text(&prompt), &fleet).expected_cached_tokens > 4_000);
}

/// P11, and that a row tells nothing to who lacks the key: equal prompts of two clusters share no number.
#[test]
fn no_8_bytes_of_a_prompt_are_in_what_leaves_the_node() {
    let (mut mesh, fleet) = (Mesh::new(1), Fleet::new(8));
    let mut draw = Draw::new(11);
    let prompts: Vec<String> = (0..200).map(|n| prose(n, 100 + draw.below(20_000))).collect();
    for prompt in &prompts {
        let half = prompt.len() / 2;
        let route = mesh.send(0, &Want::messages(&[&prompt[..half], &prompt[half..]]), &fleet);
        if draw.below(5) == 0 {
            let bench = &mesh.nodes[0].bench;
            bench.router.observe(bench.now, Feedback::NotServed { placed: &route.placed });
        }
        if draw.below(3) == 0 {
            mesh.share();
        }
    }
    mesh.share();
    let rows: Vec<u8> = mesh.nodes[0].rows.iter().flat_map(|it| it.1.clone()).collect();
    assert!(rows.len() > 2_000, "{}", rows.len());
    let windows: std::collections::HashSet<&[u8]> = prompts.iter().flat_map(|it| it.as_bytes().windows(8)).collect();
    assert!(rows.windows(8).all(|it| !windows.contains(it)));
}

/// The budget of gossip: 1,000 requests a second at 8 nodes, prompts of 200 to 3,000 tokens in conversations.
#[test]
fn a_cluster_with_a_thousand_requests_a_second_spends_less_than_60_kb_a_second_and_node() {
    let (mut mesh, fleet) = (Mesh::new(1), Fleet::new(40));
    let mut draw = Draw::new(5);
    let seconds = 20;
    for second in 0..seconds {
        for n in 0..125 {
            let session = second / 4 * 125 + n;
            let turns: Vec<String> =
                (0..=second % 4).map(|turn| prose(session * 10 + turn, 800 + draw.below(2_200))).collect();
            let so_far: Vec<&str> = turns.iter().map(String::as_str).collect();
            mesh.send(0, &Want::messages(&so_far), &fleet);
            if n == 62 {
                mesh.share();
            }
        }
        mesh.share();
        mesh.pass(1);
    }
    let bytes: usize = mesh.nodes[0].rows.iter().map(|it| it.1.len() + 34).sum();
    let out = bytes * 7 / seconds as usize;
    println!("{} bytes a second to each of 7 others, {out} in all", bytes / seconds as usize);
    assert!(out < 60_000, "{out}");
}

#[test]
fn a_full_outbox_drops_and_counts() {
    let dropped = prometheus_client::metrics::counter::Counter::default();
    let outbox = Outbox::new(dropped.clone());
    let some = Said::NewLife(WorkerId(1));
    outbox.say(std::iter::repeat_n(some, 70_000));
    assert_eq!((outbox.take().len(), dropped.get()), (65_536, 70_000 - 65_536));
    assert_eq!(outbox.take(), []);
    assert_eq!(Batch::decode(&[]), None);
}
