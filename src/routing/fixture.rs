//! A fleet in memory, and requests in one line, for the tests of this area.

use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::base::ids::WorkerId;
use crate::dialects::form::Mark;
use crate::dialects::form::Piece;
use crate::dialects::form::Prompt;
use crate::dialects::form::Usage;
use crate::routing::Config;
use crate::routing::Feedback;
use crate::routing::Route;
use crate::routing::RouteError;
use crate::routing::Router;
use crate::routing::candidate::Candidate;
use crate::routing::candidate::Candidates;
use crate::routing::candidate::Told;
use crate::routing::policies::PolicyName;
use crate::routing::request::RouteRequest;

/// Candidates that a test writes down.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub workers: Vec<Candidate>,
    pub generation: u64,
}

impl Fleet {
    /// Idle workers with the ids 1 to `count`.
    pub fn new(count: u64) -> Self {
        let idle = |id| Candidate {
            worker: WorkerId(id),
            available: true,
            suspect: false,
            inflight: 0,
            queued_prefill_tokens: 0,
            told: Told::OWN,
            relative_prefill_rate: 1.0,
        };
        Self { workers: (1..=count).map(idle).collect(), generation: 1 }
    }

    pub fn worker(&mut self, id: u64) -> &mut Candidate {
        self.workers.iter_mut().find(|it| it.worker.0 == id).expect("in the fleet")
    }

    pub fn remove(&mut self, id: u64) {
        self.workers.retain(|it| it.worker.0 != id);
        self.generation += 1;
    }
}

impl Candidates for Fleet {
    fn len(&self) -> usize {
        self.workers.len()
    }

    fn id(&self, index: usize) -> WorkerId {
        self.workers[index].worker
    }

    fn at(&self, index: usize) -> Candidate {
        self.workers[index]
    }

    fn position(&self, worker: WorkerId) -> Option<usize> {
        self.workers.binary_search_by_key(&worker, |it| it.worker).ok()
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

/// A router, its time, and who asks.
pub struct Bench {
    pub router: Router,
    pub now: Instant,
    pub tenant: TenantId,
    pub model: ModelId,
}

/// One request to be sent.
#[derive(Clone, Default)]
pub struct Want<'a> {
    pub messages: Vec<&'a str>,
    pub key: Option<&'a str>,
    pub target: Option<u64>,
    pub tried: Vec<WorkerId>,
    pub body_len: usize,
}

impl<'a> Want<'a> {
    pub fn text(text: &'a str) -> Self {
        Self { messages: vec![text], ..Self::default() }
    }

    pub fn messages(messages: &[&'a str]) -> Self {
        Self { messages: messages.to_vec(), ..Self::default() }
    }

    pub fn key(key: &'a str) -> Self {
        Self { key: Some(key), ..Self::default() }
    }

    pub fn len(body_len: usize) -> Self {
        Self { body_len, ..Self::default() }
    }

    pub fn tried(mut self, tried: &[u64]) -> Self {
        self.tried = tried.iter().copied().map(WorkerId).collect();
        self
    }
}

impl Bench {
    pub fn new(policy: &str) -> Self {
        Self::with(Config { policy: PolicyName::parse(policy).expect("known"), ..Config::default() })
    }

    pub fn with(config: Config) -> Self {
        Self {
            router: Router::new(config, Entropy::seeded(7)),
            now: Clock.now(),
            tenant: TenantId::parse("team").expect("valid"),
            model: ModelId::parse("llama").expect("valid"),
        }
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub fn tenant(&mut self, name: &str) {
        self.tenant = TenantId::parse(name).expect("valid");
    }

    /// Hands the request to `then` in the form the router takes.
    pub fn with_request<T>(&self, want: &Want<'_>, then: impl FnOnce(&RouteRequest<'_, '_>) -> T) -> T {
        let mut prompt = Prompt::default();
        for message in &want.messages {
            prompt.pieces.push(Piece::Mark(Mark::Message));
            prompt.pieces.push(Piece::Text(message.as_bytes()));
        }
        then(&RouteRequest {
            model: &self.model,
            tenant: &self.tenant,
            prompt: (!want.messages.is_empty()).then_some(&prompt),
            body_len: want.body_len.max(want.messages.iter().map(|it| it.len()).sum()),
            routing_key: want.key,
            target: want.target.map(WorkerId),
            tried: &want.tried,
        })
    }

    pub fn choose(&self, want: &Want<'_>, fleet: &Fleet) -> Result<Route, RouteError> {
        self.with_request(want, |request| self.router.choose(self.now, request, fleet))
    }

    /// The id of the worker chosen, where one has to be.
    pub fn send(&self, want: &Want<'_>, fleet: &Fleet) -> u64 {
        self.choose(want, fleet).expect("a worker").worker.0
    }

    /// The worker reports this many prompt and cached tokens.
    pub fn served(&self, route: &Route, prompt: u64, cached: Option<u64>) {
        let usage = Usage { prompt: Some(prompt), completion: None, cached };
        self.router.observe(self.now, Feedback::Served { placed: &route.placed, usage });
    }
}

/// `len` bytes of text that differ with `seed` everywhere.
pub fn prose(seed: u64, len: usize) -> String {
    let mut draw = crate::routing::draw::Draw::new(seed);
    let mut text = String::with_capacity(len + 16);
    while text.len() < len {
        text.push_str(&format!("{:x} ", draw.next_u64()));
    }
    text.truncate(len);
    text
}
