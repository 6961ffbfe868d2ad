//! Whether the process behind a worker's address is still the one that was there before. Pure: answers in, verdict out.
//!
//! A new process has an empty cache, so what was believed of the old one's must go. Its metrics tell: the time it was
//! started, else a counter that went back. A server without metrics is taken to be a new one when it was away.

use std::time::Duration;

use crate::base::clock::Instant;

/// What a worker's metrics say of its age.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signs {
    /// When the process started, in seconds of its clock.
    started: Option<f64>,
    /// Prompt tokens it has counted since.
    counted: Option<f64>,
}

/// The names under which servers count prompt tokens: vLLM, SGLang, llama.cpp.
const COUNTERS: [&str; 3] = ["vllm:prompt_tokens_total", "sglang:prompt_tokens_total", "llamacpp:prompt_tokens_total"];

impl Signs {
    /// Reads the text of `/metrics`.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut signs = Self::default();
        for line in text.lines().filter(|it| !it.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let is_started = name == "process_start_time_seconds";
            if !is_started && !COUNTERS.contains(&name) {
                continue;
            }
            // The value follows the labels; a label's own spaces come before the closing brace.
            let rest = line.rsplit_once('}').map_or(&line[name.len()..], |it| it.1);
            let Some(value) = rest.split_ascii_whitespace().next().and_then(|it| it.parse::<f64>().ok()) else {
                continue;
            };
            if is_started {
                signs.started = Some(value);
            } else {
                signs.counted = Some(signs.counted.unwrap_or(0.0) + value);
            }
        }
        signs
    }

    /// Whether it is worth asking again.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.started.is_some() || self.counted.is_some()
    }
}

/// What is remembered of one worker.
#[derive(Debug, Default)]
pub struct Lifetime {
    last: Option<Signs>,
    /// When this node last found a restart out.
    found: Option<Instant>,
    /// When any node did.
    known: Option<Instant>,
}

impl Lifetime {
    /// Whether the last look found something to compare, or there was none yet.
    #[must_use]
    pub fn wants_signs(&self) -> bool {
        self.last.is_none_or(|it| it.is_any())
    }

    /// When this node last found a restart out. What it heard of others is theirs to tell.
    #[must_use]
    pub fn restarted(&self) -> Option<Instant> {
        self.found
    }

    /// Another node found a restart out then. Whether it is one that was not known: several find out the same one, up to `slack` apart.
    pub fn heard_of_restart(&mut self, at: Instant, slack: Duration) -> bool {
        let is_news = self.known.is_none_or(|known| at > known + slack);
        self.known = self.known.max(Some(at));
        is_news
    }

    /// One look. Whether the process is another one than at the last look; `was_away`: it did not answer in between.
    pub fn look(&mut self, now: Instant, signs: Signs, was_away: bool) -> bool {
        let is_another = self.compare(signs, was_away);
        if is_another {
            (self.found, self.known) = (Some(now), self.known.max(Some(now)));
        }
        is_another
    }

    fn compare(&mut self, signs: Signs, was_away: bool) -> bool {
        let Some(last) = self.last.replace(signs) else { return false };
        match (last, signs) {
            // Some servers compute it anew from the age, so it moves a little.
            (Signs { started: Some(before), .. }, Signs { started: Some(now), .. }) => (now - before).abs() > 1.0,
            (Signs { counted: Some(before), .. }, Signs { counted: Some(now), .. }) => now < before,
            _ => was_away,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(at: f64) -> Signs {
        Signs { started: Some(at), counted: None }
    }

    fn counted(tokens: f64) -> Signs {
        Signs { started: None, counted: Some(tokens) }
    }

    #[test]
    fn signs_are_read_from_what_servers_write() {
        let text = "# HELP process_start_time_seconds Start\n# TYPE process_start_time_seconds gauge\n\
                    process_start_time_seconds 1.76398e+09\n\
                    vllm:prompt_tokens_total{engine=\"0\",model_name=\"a b\"} 10.0\n\
                    vllm:prompt_tokens_total{engine=\"1\",model_name=\"a b\"} 5.0 1700000000\n\
                    vllm:prompt_tokens_cached_total{engine=\"0\"} 3\n";
        assert_eq!(Signs::read(text), Signs { started: Some(1.763_98e9), counted: Some(15.0) });
        assert_eq!(Signs::read("llamacpp:prompt_tokens_total 7\n").counted, Some(7.0));
        assert!(!Signs::read("<html>not metrics</html>\n{\"a\": 1}").is_any());
    }

    #[test]
    fn a_later_start_is_a_restart_and_a_pause_of_the_same_process_is_none() {
        let (mut lifetime, now) = (Lifetime::default(), Instant::now());
        assert!(!lifetime.look(now, started(100.0), true), "the first look has nothing to compare");
        assert!(!lifetime.look(now, started(100.4), true));
        assert!(lifetime.look(now, started(200.0), false), "even where nobody saw it away");
    }

    #[test]
    fn a_counter_that_goes_back_is_a_restart() {
        let (mut lifetime, now) = (Lifetime::default(), Instant::now());
        let verdicts = [10.0, 20.0, 20.0, 3.0].map(|it| lifetime.look(now, counted(it), false));
        assert_eq!(verdicts, [false, false, false, true]);
    }

    #[test]
    fn without_signs_one_that_was_away_is_a_new_one() {
        let (mut lifetime, now) = (Lifetime::default(), Instant::now());
        assert!(lifetime.wants_signs());
        assert!(!lifetime.look(now, Signs::default(), false));
        assert!(!lifetime.wants_signs(), "it has none: asked again only when it comes back");
        assert!(!lifetime.look(now, Signs::default(), false));
        assert!(lifetime.look(now, Signs::default(), true));
    }

    #[test]
    fn a_restart_that_several_find_out_is_one() {
        let (mut lifetime, now) = (Lifetime::default(), Instant::now());
        let (slack, second) = (Duration::from_secs(15), Duration::from_secs(1));
        lifetime.look(now, started(100.0), false);
        assert!(lifetime.look(now, started(200.0), false));
        assert!(!lifetime.heard_of_restart(now - second, slack) && !lifetime.heard_of_restart(now + slack, slack));
        assert!(lifetime.heard_of_restart(now + slack * 2 + second, slack));
    }
}
