//! What flows through a streamed answer: each event is looked at once, and most are passed on as they lie in the bytes.
//!
//! Learns content, end, error and usage; takes out what the client did not ask for and what follows an end or an error.
//! *Invariant:* what the client shall see is the worker's bytes, cut at events only.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::dialects::form::Event;
use crate::dialects::form::Observed;
use crate::dialects::form::Usage;
use crate::dialects::sse;
use crate::dialects::sse::Splitter;

use super::super::error::WorkerFailure;
use super::attempt::NO_USAGE;

/// What is known of a stream of events by now.
pub(super) struct Parser {
    splitter: Splitter,
    observe: fn(&[u8]) -> Observed,
    strips_usage: bool,
    pub(super) has_content: bool,
    pub(super) is_done: bool,
    pub(super) has_error: bool,
    /// The error is the client's, and passed on like content.
    pub(super) is_refused: bool,
    /// The data of an error event that came before any content.
    pub(super) said: Option<Bytes>,
    pub(super) usage: Usage,
    /// Events taken in, comments left out.
    pub(super) events: u64,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Whole.
    Well,
    /// With an error that is the client's.
    Refused,
    /// With an error of the worker.
    Failed,
}

impl Parser {
    /// At the begin of a stream; `strips_usage`: the client did not ask for the event that tells it.
    pub(super) fn new(observe: fn(&[u8]) -> Observed, strips_usage: bool) -> Self {
        Self {
            splitter: Splitter::default(),
            observe,
            strips_usage,
            has_content: false,
            is_done: false,
            has_error: false,
            is_refused: false,
            said: None,
            usage: NO_USAGE,
            events: 0,
        }
    }

    /// Whether nothing that follows is for the client.
    pub(super) fn is_over(&self) -> bool {
        self.is_done || (self.has_error && self.has_content)
    }

    /// How a stream that ended without a fault of ours has ended.
    pub(super) fn ended(&self) -> Ended {
        match (self.has_error, self.is_refused) {
            (false, _) => Ended::Well,
            (true, true) => Ended::Refused,
            (true, false) => Ended::Failed,
        }
    }

    /// Takes in one read; what the client shall see goes to `out`.
    pub(super) fn take(&mut self, piece: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), WorkerFailure> {
        self.splitter.push(piece)?;
        let whole = self.splitter.ready();
        let (mut kept, mut from, mut at) = (Vec::new(), 0, 0);
        while let Some(event) = self.splitter.next() {
            let keeps = !self.is_done && !self.has_error && self.judge(&event)?;
            if !keeps {
                if from < at {
                    kept.push(whole.slice(from..at));
                }
                from = at + event.len();
            }
            at += event.len();
        }
        if from < at {
            kept.push(whole.slice(from..at));
        }
        out.extend(kept);
        Ok(())
    }

    /// Learns from one event; whether the client shall see it.
    fn judge(&mut self, event: &[u8]) -> Result<bool, WorkerFailure> {
        if sse::is_comment(event) {
            return Ok(true);
        }
        let Some(data) = sse::data(event) else { return Ok(true) };
        let observed = (self.observe)(&data);
        if let Some(usage) = observed.usage {
            self.usage = self.usage.merged(usage);
        }
        if observed.event != Event::Malformed {
            self.events += 1;
        }
        match observed.event {
            Event::Preamble => {}
            Event::Content | Event::Finish => self.has_content = true,
            Event::Usage => return Ok(!self.strips_usage),
            Event::Done => self.is_done = true,
            Event::Error => {
                self.has_error = true;
                self.said = (!self.has_content).then(|| Bytes::copy_from_slice(&data));
            }
            Event::Refusal => (self.has_error, self.is_refused, self.has_content) = (true, true, true),
            Event::Malformed => return Err(WorkerFailure::Malformed),
        }
        Ok(true)
    }
}

impl From<sse::Broken> for WorkerFailure {
    fn from(_: sse::Broken) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::base::fuzz;
    use crate::dialects::Wire;
    use crate::dialects::anthropic;
    use crate::dialects::openai::chat;
    use crate::dialects::openai::completions;
    use crate::dialects::openai::responses;
    use crate::dialects::sglang;

    const WIRES: [&Wire; 5] =
        [&chat::WIRE, &completions::WIRE, &responses::WIRE, &anthropic::MESSAGES, &sglang::GENERATE];

    /// A stream of each kind.
    const STREAMS: [&str; 5] = [
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n: ping\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"Gr\u{fc}\u{1F680}\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":3}}\n\ndata: [DONE]\n\n",
        "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"error\":{\"message\":\"x\",\"code\":400}}\n\n",
        "event: response.created\ndata: {\"type\":\"response.created\"}\n\nevent: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":9}}}\n\n",
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":4}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        "data: {\"text\":\"a\",\"meta_info\":{\"prompt_tokens\":9}}\n\ndata: [DONE]\n\ndata: {\"text\":\"b\"}\n\n",
    ];

    /// What the client sees, whether the stream was followed to its end, and what was learned.
    fn read(wire: &Wire, strips_usage: bool, stream: &[u8], cuts: &[usize]) -> (Vec<u8>, bool, String) {
        let mut parser = Parser::new(wire.observe.expect("it streams"), strips_usage);
        let (mut out, mut is_whole) = (VecDeque::new(), true);
        for piece in cuts.windows(2) {
            is_whole &= is_whole && parser.take(Bytes::copy_from_slice(&stream[piece[0]..piece[1]]), &mut out).is_ok();
        }
        let Parser { has_content, is_done, has_error, is_refused, said, usage, events, .. } = parser;
        let learned = format!("{has_content} {is_done} {has_error} {is_refused} {said:?} {usage:?} {events}");
        (Vec::from(out).concat(), is_whole, learned)
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_stream_is_the_same_however_it_is_cut(
            kind in 0..WIRES.len(),
            stream in fuzz::damaged(STREAMS.iter().map(|it| it.as_bytes().to_vec()).collect()),
            cuts in prop::collection::vec(any::<Index>(), 0..12),
            strips_usage in any::<bool>(),
        ) {
            let mut at: Vec<usize> = cuts.iter().map(|it| it.index(stream.len() + 1)).chain([0, stream.len()]).collect();
            at.sort_unstable();
            let (wire, len) = (WIRES[kind], stream.len());
            let whole = read(wire, strips_usage, &stream, &[0, len]);
            let cut = fuzz::within(1 << 20, || read(wire, strips_usage, &stream, &at));
            prop_assert_eq!(whole.1, cut.1, "whether it is well formed");
            if whole.1 {
                prop_assert_eq!(&whole, &cut);
            }
            // Of one that breaks, what came before may have been passed on or not: it is the beginning of the same.
            let single = read(wire, strips_usage, &stream, &(0..=len).collect::<Vec<_>>());
            prop_assert!(single.0.starts_with(&whole.0) && single.0.starts_with(&cut.0));
            prop_assert_eq!(whole.1, single.1, "whether it is well formed, byte by byte");
            if whole.1 {
                prop_assert_eq!(&whole, &single);
                // Nothing behind the end, whole events in their order, and none that was not sent.
                let mut splitter = Splitter::default();
                splitter.push(Bytes::copy_from_slice(&whole.0)).expect("it was well formed");
                let mut is_over = false;
                while let Some(event) = splitter.next() {
                    prop_assert!(!is_over, "{:?} behind the end", String::from_utf8_lossy(&event));
                    is_over |= !sse::is_comment(&event) && sse::data(&event).is_some_and(|it| wire.observe.expect("it streams")(&it).event == Event::Done);
                }
                let mut rest = &stream[..];
                for event in whole.0.split_inclusive(|it| *it == b'\n') {
                    let at = rest.windows(event.len()).position(|it| it == event);
                    prop_assert!(at.is_some(), "{:?} was not sent", String::from_utf8_lossy(event));
                    rest = &rest[at.unwrap_or_default() + event.len()..];
                }
            }
        }
    }
}
