//! What is sent to the gateways: recorded traces from `../shared/traces`, and short chats made here.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::entropy::Entropy;
use crate::bench::core::prompt::Run;
use crate::bench::core::prompt::mix;
use crate::bench::core::trace;
use crate::bench::options::Options;

/// Bytes of text for a token.
pub(super) const TOKEN_BYTES: u64 = 4;
/// Recorded users pause for hours; a pause counts as at most this, as in ROUTING.md.
const PAUSE_MAX: f64 = 60.0;

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) at: Duration,
    pub(super) prompt: Vec<Run>,
    pub(super) tokens: u64,
    pub(super) answer: u64,
}

/// A named load.
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) requests: Vec<Request>,
}

impl Request {
    /// The names of its blocks, `tokens` each.
    pub(super) fn blocks(&self, tokens: u64, into: &mut Vec<u64>) {
        into.clear();
        for run in &self.prompt {
            // Runs shorter than a block are the rest of a prompt: nobody else has it.
            let in_run = (u64::from(run.bytes) / TOKEN_BYTES).div_ceil(tokens).max(1);
            for n in 0..u64::from(run.count) {
                let block = |part: u64| mix(&mut (run.space.rotate_left(32) ^ (run.first + n) ^ (part << 52)));
                into.extend((0..in_run).map(block));
            }
        }
    }
}

/// A trace's text. None: it is not on this machine, which is said.
fn text(name: &str) -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/traces").join(name);
    std::fs::read_to_string(&path).inspect_err(|error| println!("NOT RUN: no traces: {}: {error}", path.display())).ok()
}

fn requests(text: &str, seed: u64) -> Vec<Request> {
    let options = Options { seed, ..Options::default() };
    let arrivals = trace::read(text, &options).expect("the trace is read");
    let request = |it: crate::bench::core::plan::Arrival| {
        let bytes = crate::bench::core::prompt::length(&it.prompt) as u64;
        Request {
            at: it.due.unwrap_or_default(),
            tokens: (bytes / TOKEN_BYTES).max(1),
            prompt: it.prompt,
            answer: it.max_tokens,
        }
    };
    arrivals.into_iter().map(request).collect()
}

/// The conversation trace, `times` over: each with sessions of its own.
pub(super) fn conversation(times: u64) -> Option<Load> {
    let text = text("mooncake_conversation_trace.jsonl")?;
    let mut all = Vec::new();
    for time in 0..times {
        let mut some = requests(&text, 1 + time);
        some.iter_mut().flat_map(|it| &mut it.prompt).for_each(|run| run.space = time);
        all.append(&mut some);
    }
    all.sort_by_key(|it| it.at);
    Some(Load { name: "conversation", requests: all })
}

/// Coding agents: the first `most` sessions, pauses cut.
pub(super) fn agents(most: usize) -> Option<Load> {
    let text = text("agent_sessions_blk64_rle.jsonl")?;
    let sessions: Vec<String> = text.lines().take(most).map(without_pauses).collect();
    Some(Load { name: "agents", requests: requests(&sessions.join("\n"), 1) })
}

fn without_pauses(line: &str) -> String {
    let mut session: serde_json::Value = serde_json::from_str(line).expect("a session");
    let (mut last, mut now) = (0.0, 0.0);
    for request in session["r"].as_array_mut().expect("requests") {
        let at = request[0].as_f64().expect("a time");
        now += (at - last).clamp(0.0, PAUSE_MAX);
        last = at;
        request[0] = now.into();
    }
    session.to_string()
}

/// Short chats: one of forty system prompts (the popular ones much more often), then turns of some hundred tokens.
pub(super) fn chats(seed: u64, per_second: f64, seconds: f64) -> Load {
    let draw = Entropy::seeded(seed);
    let mut all = Vec::new();
    let mut at = 0.0;
    let (mut session, block) = (0, 16);
    while at < seconds {
        at -= (1.0 - draw.unit()).ln() / per_second * 3.0; // three turns a session, in the mean
        session += 1;
        let system = (40.0 * draw.unit().powi(3)) as u64;
        let system_blocks = 6 + system % 7 * 4; // 96 to 480 tokens
        let run = |space: u64, first: u64, count: u64| Run {
            space,
            first,
            count: count as u32,
            bytes: (block * TOKEN_BYTES) as u32,
        };
        let (mut own, mut when) = (0, at);
        for _ in 0..1 + draw.below(5) {
            own += 6 + draw.below(12) as u64; // 96 to 288 tokens a turn, with the answer before it
            let tokens = (system_blocks + own) * block;
            if tokens > 1_500 {
                break;
            }
            let prompt = vec![run(1 << 40 | system, 0, system_blocks), run(2 << 40 | session, 0, own)];
            let request =
                Request { at: Duration::from_secs_f64(when), prompt, tokens, answer: 40 + draw.below(200) as u64 };
            all.push(request);
            when += 4.0 + 20.0 * draw.unit();
        }
    }
    all.sort_by_key(|it| it.at);
    Load { name: "short chats", requests: all }
}
