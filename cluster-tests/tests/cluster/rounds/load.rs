//! Requests at a rate, whatever becomes of them: chat completions at every node, half of them streamed, each counted from when it was due.
//!
//! A client here does what every HTTP client does, and no more: a request that was not sent because a kept connection had been closed goes out once more on a new one. Nothing else is asked again.
//! One in ten leaves in the middle of a long answer, on a connection of its own.

use std::cell::Cell;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use cluster_tests::lasting;
use serde_json::json;
use smg::base::clock::Clock;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ask::Link;
use crate::ask::UNSENT;
use crate::ask::open;

/// Requests a second at each node.
pub(super) const RATE: u32 = 12;
/// Under way at a node. BOUND: a node that answers nobody keeps so many; what is due beyond is counted as not answered.
const UNDER_WAY_MAX: usize = 400;
/// A client that waits for longer has left.
const PATIENCE: Duration = Duration::from_secs(10);
const TOKENS: u32 = 8;
/// One of so many requests is for a long stream, whose client leaves before long.
const LEAVES: u64 = 10;
const TOKENS_LEFT: u32 = 300;
/// Of those, one of so many leaves so long after it asked; others, so long after the answer began.
const EARLY: u64 = 4;
const EARLY_AFTER: Duration = Duration::from_millis(400);

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As it should.
    Served,
    /// Nobody listened, or the connection was closed before anything was sent.
    NotSent,
    /// No answer, a broken one, or one that is an error.
    Failed(String),
    /// A stream that began and ended with its dialect's own error event.
    Broken,
    /// A stream that began and ended without a word.
    Silent,
    /// A stream that had begun and whose client left.
    Left,
    /// Its client left some time after it had asked, whether an answer had begun or not.
    LeftEarly,
}

impl End {
    /// Whether nothing went wrong.
    pub(super) fn is_well(&self) -> bool {
        matches!(self, Self::Served | Self::Left | Self::LeftEarly)
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) node: usize,
    pub(super) due: Instant,
    pub(super) ended: Instant,
    pub(super) end: End,
}

/// Clients at work until they are told to stop. In a `LocalSet`.
pub(super) struct Load {
    shared: Rc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    samples: RefCell<Vec<Sample>>,
    factor: Cell<u32>,
    is_stopped: Cell<bool>,
    number: Cell<u64>,
}

/// Connections to one node that nobody uses at the moment, and how many requests are under way.
#[derive(Default)]
struct Node {
    idle: RefCell<Vec<Link>>,
    under_way: Cell<usize>,
}

impl Load {
    pub(super) fn begin(nodes: &[SocketAddr]) -> Self {
        let shared = Rc::new(Shared {
            samples: RefCell::default(),
            factor: Cell::new(1),
            is_stopped: Cell::new(false),
            number: Cell::new(0),
        });
        let mut tasks = JoinSet::new();
        for (at, node) in nodes.iter().enumerate() {
            tasks.spawn_local(arrive(at, *node, Rc::clone(&shared)));
        }
        Self { shared, tasks }
    }

    /// So many times the usual rate.
    pub(super) fn times(&self, factor: u32) {
        self.shared.factor.set(factor);
    }

    /// What has ended until now, and was due since `from`.
    pub(super) fn since(&self, from: Instant) -> Vec<Sample> {
        self.shared.samples.borrow().iter().filter(|it| it.due >= from).cloned().collect()
    }

    /// Forgets what was due before.
    pub(super) fn forget(&self, before: Instant) {
        self.shared.samples.borrow_mut().retain(|it| it.due >= before);
    }

    /// Lets what was sent be answered.
    pub(super) async fn end(mut self) {
        self.shared.is_stopped.set(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn arrive(at: usize, node: SocketAddr, shared: Rc<Shared>) {
    let (kept, mut requests) = (Rc::new(Node::default()), JoinSet::new());
    let mut due = Clock.now();
    while !shared.is_stopped.get() {
        while requests.try_join_next().is_some() {}
        let number = shared.number.get();
        shared.number.set(number + 1);
        if kept.under_way.get() >= UNDER_WAY_MAX {
            let end = End::Failed("nobody was answered for too long".to_owned());
            shared.samples.borrow_mut().push(Sample { node: at, due, ended: Clock.now(), end });
        } else {
            requests.spawn_local(one(at, node, number, due, Rc::clone(&kept), Rc::clone(&shared)));
        }
        due += Duration::from_secs(1) / (RATE * shared.factor.get());
        // What was held up is sent at once, and counted from when it was due.
        lasting(due.saturating_duration_since(Clock.now())).await;
    }
    while requests.join_next().await.is_some() {}
}

async fn one(at: usize, node: SocketAddr, number: u64, due: Instant, kept: Rc<Node>, shared: Rc<Shared>) {
    kept.under_way.set(kept.under_way.get() + 1);
    let end = asked(node, number, &kept).await;
    kept.under_way.set(kept.under_way.get() - 1);
    shared.samples.borrow_mut().push(Sample { node: at, due, ended: Clock.now(), end });
}

async fn asked(node: SocketAddr, number: u64, kept: &Node) -> End {
    let leaves = number % LEAVES == LEAVES / 2;
    let is_stream = number.is_multiple_of(2) || leaves;
    let body = json!({
        "model": "m", "stream": is_stream, "max_tokens": if leaves { TOKENS_LEFT } else { TOKENS },
        "messages": [{"role": "user", "content": format!("question {number} of many, {}", number * 7919 % 104_729)}],
    });
    let body = body.to_string();
    if leaves {
        return left(node, number, &body).await;
    }
    let idle = kept.idle.borrow_mut().pop().filter(Link::is_open);
    if let Some(mut link) = idle {
        match link.call("POST", "/v1/chat/completions", &body).await {
            Err(reason) if reason == UNSENT => {}
            answered => return judged(answered, is_stream, link, kept),
        }
    }
    let Ok(mut link) = open(node).await else { return End::NotSent };
    link.deadline = PATIENCE;
    match link.call("POST", "/v1/chat/completions", &body).await {
        Err(reason) if reason == UNSENT => End::NotSent,
        answered => judged(answered, is_stream, link, kept),
    }
}

/// A client that leaves some time after it asked, or after the answer began.
async fn left(node: SocketAddr, number: u64, body: &str) -> End {
    let Ok(mut link) = open(node).await else { return End::NotSent };
    link.deadline = PATIENCE;
    let is_early = (number / LEAVES).is_multiple_of(EARLY);
    let after = if is_early { EARLY_AFTER } else { Duration::from_millis(number * 7919 % 200) };
    let leaving = link.leave("/v1/chat/completions", body, after);
    let Ok(came) = tokio::time::timeout(if is_early { EARLY_AFTER } else { PATIENCE }, leaving).await else {
        return End::LeftEarly;
    };
    match came {
        Err(reason) if reason == UNSENT => End::NotSent,
        Err(reason) => End::Failed(reason),
        Ok((200, came, is_whole)) => match (String::from_utf8_lossy(&came).contains("\"error\""), is_whole) {
            (true, _) => End::Broken,
            (false, true) => End::Silent, // nobody waits for as many tokens
            (false, false) => End::Left,
        },
        Ok((status, came, _)) => {
            let text = String::from_utf8_lossy(&came).into_owned();
            End::Failed(format!("{status}: {}", text.chars().take(200).collect::<String>()))
        }
    }
}

fn judged(answered: Result<(u16, bytes::Bytes), String>, is_stream: bool, link: Link, kept: &Node) -> End {
    let end = match answered {
        Err(reason) => return End::Failed(reason),
        Ok((200, body)) if is_stream => {
            let text = String::from_utf8_lossy(&body);
            match (text.trim_end().ends_with("data: [DONE]"), text.contains("\"error\"")) {
                (_, true) => End::Broken,
                (true, false) => End::Served,
                (false, false) => End::Silent,
            }
        }
        Ok((200, body)) => match serde_json::from_slice::<serde_json::Value>(&body) {
            Ok(answer) if answer["choices"][0]["message"]["content"].is_string() => End::Served,
            _ => End::Failed(format!("200: {}", String::from_utf8_lossy(&body))),
        },
        Ok((status, body)) => {
            let text = String::from_utf8_lossy(&body).into_owned();
            End::Failed(format!("{status}: {}", &text[..text.len().min(200)]))
        }
    };
    kept.idle.borrow_mut().push(link);
    end
}
