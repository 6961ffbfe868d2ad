//! The internal form: what any dialect's request and event stream mean to the rest of the system.
//!
//! Borrowed from the body wherever possible. Grows with the dialects that need more of it.

/// A prompt as a worker's cache sees it: an ordered list of pieces whose rendering is canonical, so that two requests
/// that share a conversation's beginning share a byte prefix whatever their JSON looked like.
#[derive(Clone, Debug, Default)]
pub struct Prompt<'a> {
    /// In rendering order: tools first (templates put them into the system prompt), then messages.
    pub pieces: Vec<Piece<'a>>,
}

/// One piece of a [`Prompt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A structural mark that no text can imitate: rendered as `0xFF` and this byte (`0xFF` never occurs in UTF-8).
    Mark(Mark),
    /// The inside of a JSON string (escapes not yet undone); rendered decoded.
    Text(&'a [u8]),
    /// A JSON value whose meaning does not matter here (tool definitions, images, arguments); rendered without
    /// whitespace outside of strings.
    Json(&'a [u8]),
    /// A token id given by the client.
    Token(u32),
}

/// Structural marks of a rendering. The numbers are part of the prefix map's keys: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// Begins the tool definitions.
    Tools = 1,
    /// Begins a message; its role follows as text.
    Message = 2,
    /// Begins the content of a message.
    Content = 3,
    /// Begins a non-text part (image, audio, file).
    Part = 4,
    /// Begins the tool calls of a message.
    Calls = 5,
    /// Begins any other field of a message that templates can show (name, tool_call_id, reasoning).
    Field = 6,
    /// Separates inputs of a batch.
    Next = 7,
}

impl Prompt<'_> {
    /// Appends the canonical rendering to `out`, at most `limit` bytes (0xFF-marked; see [`Piece`]). Costs what `limit`
    /// does, however long a piece is.
    pub fn render(&self, out: &mut Vec<u8>, limit: usize) {
        let end = out.len().saturating_add(limit);
        for piece in &self.pieces {
            // No escape is longer than six bytes for one (a pair: twelve for four), so what lies beyond cannot be seen.
            let seen = (end - out.len()).saturating_mul(6).saturating_add(12);
            match piece {
                Piece::Mark(mark) => out.extend_from_slice(&[0xFF, *mark as u8]),
                Piece::Text(raw) => super::json::decode_into(&raw[..seen.min(raw.len())], out),
                Piece::Json(raw) => super::json::compact_into(&raw[..seen.min(raw.len())], out),
                Piece::Token(token) => out.extend_from_slice(&token.to_le_bytes()),
            }
            if out.len() >= end {
                out.truncate(end);
                return;
            }
        }
    }
}

/// What a finished answer cost, in tokens, as the worker reports it. Absent is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: Option<u64>,
    /// Tokens of the answer.
    pub completion: Option<u64>,
    /// Tokens of the prompt that the worker had in its cache.
    pub cached: Option<u64>,
}

/// One event of a streamed answer, as far as the gateway needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Opens the answer without content (a role, an id): may be held back.
    Preamble,
    /// Text, reasoning or a piece of a tool call: from here on a retry would be visible.
    Content,
    /// The choice ended (`finish_reason`).
    Finish,
    /// Usage alone, without choices.
    Usage,
    /// The end marker of the dialect (`[DONE]`).
    Done,
    /// The worker reports an error inside the stream.
    Error,
    /// The worker refuses the request inside the stream: the client's fault, and every worker would say the same.
    Refusal,
    /// Not an event of this dialect: a broken worker.
    Malformed,
}

/// What the gateway needs to know of a request, whatever its dialect.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// The model asked for; `None` where the endpoint does not need one.
    pub model: Option<std::borrow::Cow<'a, str>>,
    /// Whether the answer is to be streamed.
    pub is_stream: bool,
    /// The prompt, where caches can share it.
    pub prompt: Option<Prompt<'a>>,
    /// Where usage has to be asked for in the body: `None` when the client asked itself, or the dialect always tells.
    pub usage_splice: Option<Splice>,
}

/// A change of a body: `range` is replaced by `text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Bytes to leave out.
    pub range: std::ops::Range<usize>,
    /// Bytes to put there.
    pub text: &'static str,
}

/// What one streamed event told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its kind.
    pub event: Event,
    /// Usage, where it carried any.
    pub usage: Option<Usage>,
}

impl From<Event> for Observed {
    fn from(event: Event) -> Self {
        Self { event, usage: None }
    }
}

impl Usage {
    /// Later reports win, field by field: some dialects tell the prompt first and the rest at the end.
    #[must_use]
    pub fn merged(self, later: Self) -> Self {
        Self {
            prompt: later.prompt.or(self.prompt),
            completion: later.completion.or(self.completion),
            cached: later.cached.or(self.cached),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_limited_rendering_is_the_beginning_of_the_whole_one(
            texts in proptest::collection::vec(r#"([a-z]|\\n|\\u0041|\\ud83d\\ude00|\\\\){0,40}"#, 1..4), limit in 1_usize..90,
        ) {
            let mut prompt = Prompt::default();
            for text in &texts {
                prompt.pieces.extend([Piece::Mark(Mark::Message), Piece::Text(text.as_bytes())]);
            }
            let (mut whole, mut part) = (Vec::new(), Vec::new());
            prompt.render(&mut whole, usize::MAX);
            prompt.render(&mut part, limit);
            prop_assert_eq!(&part[..], &whole[..limit.min(whole.len())]);
        }
    }
}
