//! How long one routing decision takes, and how that grows: from the parsed prompt to the chosen worker, rendering,
//! hashing, lookup, choice and placement included. `cargo bench -p cluster-tests --bench decision` prints the tables.
//!
//! Every prompt is random text that never repeats. *Cold*: nothing of it is in the map. *Hot*: it was placed before
//! and is asked for again, in another order; *found* is the share of those whose prefix decided (the others had a
//! cheaper worker without it). The map is filled to the stated number of entries first, by placements.

#![allow(clippy::print_stdout, reason = "a bench prints its tables")]

use std::hint::black_box;
use std::time::Duration;

use smg::base::clock::Clock;
use smg::base::entropy::Entropy;
use smg::base::ids::ModelId;
use smg::base::ids::TenantId;
use smg::base::ids::WorkerId;
use smg::base::setting::ByteSize;
use smg::dialects::form::Mark;
use smg::dialects::form::Piece;
use smg::dialects::form::Prompt;
use smg::routing::Config;
use smg::routing::Reason;
use smg::routing::Router;
use smg::routing::candidate::Candidate;
use smg::routing::candidate::Candidates;
use smg::routing::candidate::Told;
use smg::routing::policies::POLICIES;
use smg::routing::policies::PolicyName;
use smg::routing::request::RouteRequest;

/// Decisions measured for each line of a table.
const SAMPLES: usize = 4_000;
const PROMPT_BYTES: usize = 32 << 10;
/// Prompts that only fill the map: eight entries each.
const FILL_BYTES: usize = 2 << 10;

struct Fleet(Vec<Candidate>);

impl Fleet {
    fn new(count: u64) -> Self {
        let worker = |id| Candidate {
            worker: WorkerId(id),
            available: id % 50 != 7,
            suspect: false,
            inflight: (id * 31 % 17) as u32,
            queued_prefill_tokens: id * 7_919 % 40_000,
            told: Told::OWN,
            relative_prefill_rate: 1.0,
        };
        Self((1..=count).map(worker).collect())
    }
}

impl Candidates for Fleet {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn id(&self, index: usize) -> WorkerId {
        self.0[index].worker
    }

    fn at(&self, index: usize) -> Candidate {
        self.0[index]
    }

    fn position(&self, worker: WorkerId) -> Option<usize> {
        self.0.binary_search_by_key(&worker, |it| it.worker).ok()
    }

    fn generation(&self) -> u64 {
        1
    }
}

struct Setup {
    router: Router,
    fleet: Fleet,
    entropy: Entropy,
    model: ModelId,
    tenant: TenantId,
}

impl Setup {
    fn new(policy: &str, workers: u64, map_bytes: usize) -> Self {
        let policy = PolicyName::parse(policy).expect("known");
        let config = Config { policy, cache_map_bytes: ByteSize(map_bytes), ..Config::default() };
        Self {
            router: Router::new(config, Entropy::seeded(1)),
            fleet: Fleet::new(workers),
            entropy: Entropy::seeded(2),
            model: ModelId::parse("model").expect("valid"),
            tenant: TenantId::parse("tenant").expect("valid"),
        }
    }

    /// Text of random words with an escape now and then, as it stands in a JSON body.
    fn text(&self, len: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(len + 32);
        while text.len() < len {
            text.extend_from_slice(format!("{:x} ", self.entropy.next_u64()).as_bytes());
            if self.entropy.below(6) == 0 {
                text.extend_from_slice(b"\\n");
            }
        }
        text.truncate(len);
        text
    }

    /// Decides once; returns how long it took and whether a cached prefix decided.
    fn decide(&self, text: &[u8]) -> (Duration, bool) {
        let mut prompt = Prompt::default();
        let (system, user) = text.split_at(text.len() / 4);
        for (role, content) in [(&b"system"[..], system), (b"user", user)] {
            prompt.pieces.extend([Piece::Mark(Mark::Message), Piece::Text(role)]);
            prompt.pieces.extend([Piece::Mark(Mark::Content), Piece::Text(content)]);
        }
        let request = RouteRequest {
            model: &self.model,
            tenant: &self.tenant,
            prompt: Some(&prompt),
            body_len: text.len(),
            routing_key: None,
            target: None,
            tried: &[],
        };
        let start = Clock.now();
        let route = self.router.choose(start, &request, &self.fleet).expect("a worker");
        let took = Clock.now() - start;
        (took, black_box(route).reason == Reason::Prefix)
    }

    /// Places prompts until the map has this many entries.
    fn fill(&self, entries: u64) {
        while self.router.prefix_map_size().0 < entries {
            for _ in 0..16 {
                self.decide(&self.text(FILL_BYTES));
            }
        }
    }

    fn measure(&self, prompt_bytes: usize) -> [Spread; 2] {
        let texts: Vec<Vec<u8>> = (0..SAMPLES).map(|_| self.text(prompt_bytes)).collect();
        let cold = Spread::of(texts.iter().map(|it| self.decide(it)).collect());
        // A prime stride visits all of them in another order.
        let again = (0..SAMPLES).map(|n| &texts[n * 1_009 % SAMPLES]);
        [cold, Spread::of(again.map(|it| self.decide(it)).collect())]
    }
}

struct Spread {
    median: f64,
    p99: f64,
    found_percent: f64,
}

impl Spread {
    fn of(mut decisions: Vec<(Duration, bool)>) -> Self {
        let found = decisions.iter().filter(|it| it.1).count();
        decisions.sort_unstable();
        let at = |part: f64| decisions[(decisions.len() as f64 * part) as usize].0.as_secs_f64() * 1e6;
        Self { median: at(0.5), p99: at(0.99), found_percent: found as f64 * 100.0 / decisions.len() as f64 }
    }
}

fn row(name: &str, setup: &Setup, prompt_bytes: usize) {
    let [cold, hot] = setup.measure(prompt_bytes);
    let (entries, bytes) = setup.router.prefix_map_size();
    println!(
        "| {name} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} % | {entries} | {:.1} |",
        cold.median,
        cold.p99,
        hot.median,
        hot.p99,
        hot.found_percent,
        bytes as f64 / f64::from(1 << 20)
    );
}

fn head(title: &str, first: &str) {
    println!("\n{title}\n");
    println!(
        "| {first} | cold median us | cold p99 | hot median us | hot p99 | found | entries at the end | map MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
}

fn main() {
    head("cache_aware, 32 KB prompts, 64 workers", "entries before");
    for entries in [10_000, 100_000, 1_000_000, 10_000_000] {
        // Twice the room the entries need, so that they are all there.
        let setup = Setup::new("cache_aware", 64, (entries as usize * 32).max(32 << 20));
        setup.fill(entries);
        row(&entries.to_string(), &setup, PROMPT_BYTES);
    }
    head("cache_aware, 32 KB prompts, 10^6 entries", "workers");
    for workers in [4, 16, 100, 1_000, 10_000] {
        let setup = Setup::new("cache_aware", workers, 32 << 20);
        setup.fill(1_000_000);
        row(&workers.to_string(), &setup, PROMPT_BYTES);
    }
    head("cache_aware, 64 workers, 10^6 entries", "prompt bytes");
    for prompt_bytes in [256, 1 << 10, 8 << 10, 32 << 10, 128 << 10, 512 << 10] {
        let setup = Setup::new("cache_aware", 64, 32 << 20);
        setup.fill(1_000_000);
        row(&prompt_bytes.to_string(), &setup, prompt_bytes);
    }
    head("every policy, 32 KB prompts, 64 workers", "policy");
    for policy in POLICIES {
        row(policy.name, &Setup::new(policy.name, 64, 32 << 20), PROMPT_BYTES);
    }
    let setup = Setup::new("cache_aware", 4, 32 << 20);
    for _ in 0..50_000 {
        setup.decide(&setup.text(8 << 10));
    }
    let (entries, bytes) = setup.router.prefix_map_size();
    println!("\n50,000 distinct 8 KB prompts: {entries} entries, {:.1} MiB", bytes as f64 / f64::from(1 << 20));
}
