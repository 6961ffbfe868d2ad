//! Recorded loads as arrivals. The format is told from the first line.
//!
//! | format | told by | what repeats |
//! |---|---|---|
//! | Mooncake, JSON lines | `hash_ids` | blocks of 512 tokens; equal id, equal block and equal prefix |
//! | agent sessions, JSON lines | `r` | blocks of 64 tokens within a session; tools and system prompts across sessions |
//! | Azure, CSV | `TIMESTAMP,` | nothing: arrivals and lengths alone |

use std::time::Duration;

use serde::Deserialize;

use super::plan::Arrival;
use super::prompt::Run;
use super::prompt::mix;
use super::prompt::unit;
use crate::bench::options::Options;

/// Mooncake's times are multiples of this, so requests are spread over it.
const MOONCAKE_TICK: f64 = 3.0;
const MOONCAKE_BLOCK: u64 = 512;
const AGENT_BLOCK: u64 = 64;
/// Agent sessions have no common clock; they begin within this, in seconds.
const AGENT_STARTS: f64 = 600.0;
/// Most tokens and blocks of one request that are believed.
const TOKENS_MAX: u64 = 16 << 20;

/// A line that is not what its format says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the trace: expected {expected}")]
pub struct Unreadable {
    line: usize,
    expected: &'static str,
}

/// All arrivals of `text`, in order of time, at the speed asked for.
pub fn read(text: &str, options: &Options) -> Result<Vec<Arrival>, Unreadable> {
    let first = text.lines().next().unwrap_or_default();
    let mut reader = Reader { token: options.token_size.0 as u64, draws: options.seed, arrivals: Vec::new() };
    let line: fn(&mut Reader, usize, &str) -> Option<()> = match first {
        it if it.starts_with("TIMESTAMP,") => Reader::azure,
        it if it.contains("\"hash_ids\"") => Reader::mooncake,
        it if it.contains("\"r\"") => Reader::agent,
        _ => return Err(Unreadable { line: 1, expected: "a trace of Mooncake, agent sessions or Azure" }),
    };
    for (n, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        line(&mut reader, n, text)
            .ok_or(Unreadable { line: n + 1, expected: "the fields of the first line's format" })?;
    }
    let mut arrivals = reader.arrivals;
    arrivals.sort_by_key(|it| it.due);
    let start = arrivals.first().and_then(|it| it.due).unwrap_or_default();
    for it in &mut arrivals {
        it.due = it.due.map(|due| (due - start).div_f64(options.speed));
    }
    Ok(arrivals)
}

struct Reader {
    token: u64,
    draws: u64,
    arrivals: Vec<Arrival>,
}

#[derive(Deserialize)]
struct Mooncake {
    timestamp: f64,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u64>,
}

#[derive(Deserialize)]
struct Session {
    tool: u64,
    sys: u64,
    r: Vec<(f64, u64, u64, f64, f64, Vec<u64>)>,
}

impl Reader {
    fn push(&mut self, seconds: f64, prompt: Vec<Run>, max_tokens: u64) -> Option<()> {
        let due = Some(Duration::try_from_secs_f64(seconds).ok()?);
        self.arrivals.push(Arrival { due, prompt, max_tokens: max_tokens.max(1) });
        Some(())
    }

    fn bytes(&self, tokens: u64) -> Option<u32> {
        (tokens <= TOKENS_MAX).then(|| u32::try_from(tokens * self.token).ok())?
    }

    fn mooncake(&mut self, _n: usize, line: &str) -> Option<()> {
        let it: Mooncake = serde_json::from_str(line).ok()?;
        let mut prompt = Vec::new();
        let mut left = it.input_length;
        for id in it.hash_ids {
            let tokens = left.min(MOONCAKE_BLOCK);
            left -= tokens;
            extend(&mut prompt, 0, id, 1, self.bytes(tokens)?);
        }
        let jitter = unit(&mut self.draws) * MOONCAKE_TICK;
        self.push(it.timestamp / 1000.0 + jitter, prompt, it.output_length)
    }

    fn agent(&mut self, n: usize, line: &str) -> Option<()> {
        let it: Session = serde_json::from_str(line).ok()?;
        let start = unit(&mut self.draws) * AGENT_STARTS;
        let spaces = Spaces::of(&it, n);
        for (turn, (at, input, output, _api, _first, blocks)) in it.r.into_iter().enumerate() {
            let mut prompt = Vec::new();
            for pair in blocks.chunks(2) {
                let [first, count] = *pair else { return None };
                (first.checked_add(count)? <= TOKENS_MAX).then_some(())?;
                spaces.extend(&mut prompt, first, count, self.bytes(AGENT_BLOCK)?);
            }
            let whole: u64 = blocks.chunks(2).map(|pair| pair[1]).sum();
            let rest = self.bytes(input.saturating_sub(whole * AGENT_BLOCK))?;
            extend(&mut prompt, spaces.own ^ 1, turn as u64, 1, rest);
            self.push(start + at, prompt, output)?;
        }
        Some(())
    }

    fn azure(&mut self, n: usize, line: &str) -> Option<()> {
        if n == 0 {
            return Some(());
        }
        let mut fields = line.trim().split(',');
        let at = seconds(fields.next()?)?;
        let bytes = self.bytes(fields.next()?.parse().ok()?)?;
        let output = fields.next()?.parse().ok()?;
        self.push(at, vec![Run { space: 0, first: n as u64, count: 1, bytes }], output)
    }
}

/// Where the blocks of a session are shared: tools with sessions of equal tools, then system prompts, then its own.
struct Spaces {
    tool_end: u64,
    system_end: u64,
    tool: u64,
    system: u64,
    own: u64,
}

impl Spaces {
    fn of(session: &Session, n: usize) -> Self {
        let space = |kind: u64, a: u64, b: u64| mix(&mut (kind << 60 ^ a << 30 ^ b)) & !1;
        Self {
            tool_end: 1 + session.tool / AGENT_BLOCK,
            system_end: 1 + session.tool.saturating_add(session.sys) / AGENT_BLOCK,
            tool: space(1, session.tool, 0),
            system: space(2, session.tool, session.sys),
            own: space(3, n as u64, 0),
        }
    }

    fn extend(&self, prompt: &mut Vec<Run>, first: u64, count: u64, bytes: u32) {
        let end = first + count;
        let parts = [
            (0, self.tool_end, self.tool),
            (self.tool_end, self.system_end, self.system),
            (self.system_end, end, self.own),
        ];
        for (from, to, space) in parts {
            let (from, to) = (from.max(first), to.min(end));
            if from < to {
                extend(prompt, space, from, (to - from) as u32, bytes);
            }
        }
    }
}

/// Adds blocks, to the last run where they continue it.
fn extend(prompt: &mut Vec<Run>, space: u64, first: u64, count: u32, bytes: u32) {
    if bytes == 0 {
        return;
    }
    if let Some(last) = prompt.last_mut()
        && (last.space, last.bytes, last.first + u64::from(last.count)) == (space, bytes, first)
    {
        last.count += count;
        return;
    }
    prompt.push(Run { space, first, count, bytes });
}

/// `2023-11-16 18:17:03.9799600` as seconds; only differences mean something.
fn seconds(text: &str) -> Option<f64> {
    let (date, time) = text.split_once(' ')?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.split(':').map(str::parse::<f64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    // Days before a month, in a year that begins in March (Hinnant, days_from_civil).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some(days as f64 * 86_400.0 + hour * 3600.0 + minute * 60.0 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::core::prompt::length;

    fn read_at(text: &str, speed: f64) -> Vec<Arrival> {
        read(text, &Options { speed, ..Options::default() }).expect("is read")
    }

    #[test]
    fn mooncake_blocks_become_runs_and_times_are_spread() {
        let line = |ids: &str, input| {
            format!("{{\"timestamp\":3000,\"input_length\":{input},\"output_length\":7,\"hash_ids\":[{ids}]}}\n")
        };
        let all = read_at(&(line("0,1,2,46", 1600) + &line("0,1,9", 1030)), 1.0);
        let long = all.iter().find(|it| length(&it.prompt) == 6400).expect("1600 tokens of 4 bytes");
        let expected =
            [Run { space: 0, first: 0, count: 3, bytes: 2048 }, Run { space: 0, first: 46, count: 1, bytes: 256 }];
        assert_eq!((long.prompt.as_slice(), long.max_tokens), (expected.as_slice(), 7));
        assert_eq!(all[0].due, Some(Duration::ZERO));
        assert!(all[1].due.is_some_and(|due| Duration::ZERO < due && due < Duration::from_secs(3)));
    }

    #[test]
    fn agent_sessions_share_tools_and_system_prompt_only() {
        let session = "{\"id\":\"x\",\"tool\":640,\"sys\":320,\"r\":[[0.0,1930,5,1.0,0,[1,30]],[9.0,1990,6,1.0,0,[1,29,40,2]]]}\n";
        let all = read_at(&session.repeat(2), 2.0);
        assert_eq!(all.len(), 4);
        let turns: Vec<_> = all.iter().filter(|it| it.max_tokens == 5).collect();
        assert_eq!(length(&turns[0].prompt), 1930 * 4);
        assert_eq!(turns[0].prompt[..2], turns[1].prompt[..2]);
        assert_eq!((turns[0].prompt[0].count, turns[0].prompt[1].count), (10, 5));
        assert_ne!(turns[0].prompt[2].space, turns[1].prompt[2].space);
        let later = all.iter().find(|it| it.max_tokens == 6).expect("the second turn");
        assert_eq!(length(&later.prompt), 1990 * 4);
    }

    #[test]
    fn azure_rows_keep_their_gaps_over_midnight_and_months() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-29 23:59:59.5000000,100,10\n2024-03-01 00:00:01.0000000,50,0\n";
        let all = read_at(text, 0.5);
        assert_eq!(all[1].due.map(|it| it.as_secs_f64()), Some(3.0));
        assert_eq!((length(&all[0].prompt), all[0].max_tokens, all[1].max_tokens), (400, 10, 1));
        assert_ne!(all[0].prompt[0].first, all[1].prompt[0].first);
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line() {
        let refused = |text: &str| read(text, &Options::default()).expect_err("is refused").line;
        assert_eq!(refused("hello"), 1);
        assert_eq!(refused("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,1,2\nyesterday,1,2"), 3);
        let huge = "{\"timestamp\":0,\"input_length\":1,\"output_length\":1,\"hash_ids\":[-1]}";
        assert_eq!(refused(huge), 1);
        assert_eq!(refused("{\"id\":\"x\",\"tool\":0,\"sys\":0,\"r\":[[0,1,1,0,0,[1,18446744073709551615]]]}"), 1);
    }
}
