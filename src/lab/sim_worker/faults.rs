//! Faults on command: what may go wrong, and when.
//!
//! A rule reaches a worker by its options, by `POST /sim/faults` (a JSON list of rules), by [`super::SimWorker::fault`] or
//! by the request header `x-sim-fault` (for that request alone). The short form of a rule is its kind and then
//! `name=value` pairs, separated by `:`, `;` or spaces: `cut after=2 how=reset`, `status:status=503:retry_after=1:next=3`.
//! `after` counts pieces of the body already written: for a stream, its events, the opening one included.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::base::entropy::Entropy;

/// Rules held at one time; a test needs a handful.
pub const RULES_MAX: usize = 64;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Stop listening for `ms`; the request that triggers it (if one does) is reset.
    Refuse,
    /// RST before any byte of the answer.
    ResetBeforeHead,
    /// RST after `bytes` bytes of the answer.
    ResetAfterBytes,
    /// Nothing for `ms` (0: until the client leaves), then the answer.
    StallBeforeHead,
    /// Nothing for `ms` (0: until the client leaves) after `after` pieces, then the rest.
    Stall,
    /// The end after `after` pieces, without the terminal chunk: FIN, or RST with `how=reset`.
    Cut,
    /// An event that is not JSON, after `after` pieces; then the rest.
    MalformedEvent,
    /// A chunk whose length line is not a number, after `after` pieces.
    BadChunk,
    /// `status` (default 503) with the engine's error body, and `Retry-After: retry_after` if given.
    Status,
    /// The answer begins `ms` late.
    SlowStart,
    /// `bytes` random bytes instead of an answer.
    Garbage,
    /// An SSE line of `bytes` bytes after `after` pieces; then the rest.
    HugeLine,
    /// `text`, or the preset named by `how` (`done`, `event`, `cr`, `split-utf8`, `invalid-utf8`, `forged-usage`), raw
    /// after `after` pieces; then the rest.
    Inject,
    /// The engine's own error event after `after` pieces, then the end as the engine ends a stream.
    ErrorEvent,
    /// The event before the end again and again, every `ms`, until the client leaves.
    NeverEnding,
    /// A `content-length` that is `bytes` too large, or with `how=short` too small.
    WrongLength,
    /// The answer byte by byte, one every `ms`.
    Drip,
    /// 307 to `text` (default: the cloud metadata address).
    Redirect,
    /// `after` (at least one) interim `100 Continue` heads before the answer; `how=hints` sends 103 instead.
    Continue,
    /// `text` (default: a second, unasked answer) after the answer, on the same connection.
    TrailingGarbage,
}

/// A fault with its arguments and when it strikes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What goes wrong.
    pub kind: Kind,
    /// Only requests to this path; all but `/sim/*` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Only the next so many matching requests; without it, every one until the rules are cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Only this share of the matching requests, drawn from the worker's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Pieces of the body before it strikes.
    #[serde(default)]
    pub after: usize,
    /// Bytes (see the kind).
    #[serde(default)]
    pub bytes: usize,
    /// Milliseconds (see the kind).
    #[serde(default)]
    pub ms: u64,
    /// Status of [`Kind::Status`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Seconds of `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// A variant (see the kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// Text (see the kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Why a rule was refused; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRule {
    /// Not a rule.
    #[error("not a fault rule: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A part of the short form without `=`.
    #[error("expected `name=value`: {0}")]
    Pair(String),
    /// Too many rules.
    #[error("at most {RULES_MAX} fault rules")]
    TooMany,
}

impl Rule {
    /// A fault without arguments that strikes every request.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            path: None,
            next: None,
            probability: None,
            after: 0,
            bytes: 0,
            ms: 0,
            status: None,
            retry_after: None,
            how: None,
            text: None,
        }
    }

    /// Reads the short form or one JSON object.
    pub fn parse(text: &str) -> Result<Self, InvalidRule> {
        let text = text.trim();
        if text.starts_with('{') {
            return Ok(serde_json::from_str(text)?);
        }
        let mut parts = text.split([':', ';', ' ']).filter(|it| !it.is_empty());
        let mut fields = Map::new();
        fields.insert("kind".to_owned(), Value::from(parts.next().unwrap_or_default()));
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| InvalidRule::Pair(part.to_owned()))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            fields.insert(name.to_owned(), value);
        }
        Ok(serde_json::from_value(Value::Object(fields))?)
    }

    /// Reads a JSON list of rules, or a single one.
    pub fn parse_list(json: &[u8]) -> Result<Vec<Self>, InvalidRule> {
        if json.trim_ascii_start().starts_with(b"[") {
            return Ok(serde_json::from_slice(json)?);
        }
        Ok(vec![serde_json::from_slice(json)?])
    }

    /// Whether the answer itself must be written by hand, below HTTP.
    pub(super) fn is_below_http(&self) -> bool {
        !matches!(self.kind, Kind::StallBeforeHead | Kind::SlowStart | Kind::Status | Kind::Redirect)
    }
}

/// The rules in force. The common case, none, costs one load.
#[derive(Debug)]
pub(super) struct Faults {
    is_armed: AtomicBool,
    rules: Mutex<Vec<Rule>>,
    entropy: Entropy,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { is_armed: AtomicBool::new(false), rules: Mutex::default(), entropy: Entropy::seeded(seed) }
    }

    pub(super) fn add(&self, added: Vec<Rule>) -> Result<(), InvalidRule> {
        let mut rules = self.rules.lock();
        if rules.len() + added.len() > RULES_MAX {
            return Err(InvalidRule::TooMany);
        }
        rules.extend(added);
        self.is_armed.store(!rules.is_empty(), Ordering::Release);
        Ok(())
    }

    pub(super) fn clear(&self) {
        self.rules.lock().clear();
        self.is_armed.store(false, Ordering::Release);
    }

    pub(super) fn list(&self) -> Vec<Rule> {
        self.rules.lock().clone()
    }

    /// The fault that strikes a request to `path`: the first matching rule; used-up rules leave.
    pub(super) fn strike(&self, path: &str) -> Option<Rule> {
        if !self.is_armed.load(Ordering::Acquire) {
            return None;
        }
        let mut rules = self.rules.lock();
        let index = rules.iter().position(|rule| {
            let is_here = rule.path.as_deref().is_none_or(|it| it == path);
            is_here && rule.probability.is_none_or(|it| self.entropy.unit() < it)
        })?;
        let struck = rules[index].clone();
        if let Some(next) = &mut rules[index].next {
            *next = next.saturating_sub(1);
            if *next == 0 {
                rules.remove(index);
            }
        }
        self.is_armed.store(!rules.is_empty(), Ordering::Release);
        Some(struck)
    }

    /// Bytes that mean nothing.
    pub(super) fn garbage(&self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.entropy.next_u64() as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_and_json_say_the_same() {
        let rule = Rule { after: 2, how: Some("reset".into()), next: Some(3), ..Rule::new(Kind::Cut) };
        assert_eq!(Rule::parse("cut after=2 how=reset next=3").expect("parses"), rule);
        assert_eq!(Rule::parse("cut:after=2:how=reset:next=3").expect("parses"), rule);
        assert_eq!(Rule::parse(&serde_json::to_string(&rule).expect("renders")).expect("parses"), rule);
        assert!(Rule::parse("cut aftr=2").is_err() && Rule::parse("melt").is_err() && Rule::parse("cut 2").is_err());
    }

    #[test]
    fn a_rule_strikes_its_path_as_often_as_it_says() {
        let faults = Faults::new(0);
        faults.add(vec![Rule::parse("status next=2 path=/a").expect("parses")]).expect("room");
        let struck: Vec<bool> = ["/b", "/a", "/a", "/a"].iter().map(|it| faults.strike(it).is_some()).collect();
        assert_eq!(struck, [false, true, true, false]);
        assert!(faults.add(vec![Rule::new(Kind::Drip); RULES_MAX + 1]).is_err());
    }

    #[test]
    fn the_same_seed_draws_the_same_faults() {
        let draw = || {
            let faults = Faults::new(9);
            faults.add(vec![Rule { probability: Some(0.3), ..Rule::new(Kind::Cut) }]).expect("room");
            (0..200).map(|_| faults.strike("/").is_some()).collect::<Vec<_>>()
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        assert!((30..90).contains(&drawn.iter().filter(|it| **it).count()));
    }
}
