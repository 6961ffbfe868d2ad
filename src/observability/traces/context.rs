//! W3C Trace Context (level 1): `traceparent` read and written, `tracestate` carried along.
//!
//! Pure. A header that breaks the grammar counts as absent, as the recommendation demands; it is never an error.

use std::fmt;

/// Longest `tracestate` carried. The recommendation asks for at least 512; a longer one is dropped, never cut.
pub const STATE_LEN_MAX: usize = 512;

/// Where a request stands in somebody's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace; never 0.
    pub trace_id: u128,
    /// The span that sends; never 0.
    pub span_id: u64,
    /// Whether the sender records.
    pub is_sampled: bool,
    /// `tracestate`, as it came.
    pub state: Option<Box<str>>,
}

impl TraceContext {
    /// Reads both headers.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let text = traceparent.trim();
        let mut parts = text.splitn(5, '-');
        let (version, trace_id) = (hex(parts.next()?, 2)?, hex(parts.next()?, 32)?);
        let (span_id, flags) = (hex(parts.next()?, 16)?, hex(parts.next()?, 2)?);
        // Later versions may add fields; version 0 has none, and 255 is not a version.
        let is_whole = parts.next().is_none() || version > 0;
        if version == 0xff || trace_id == 0 || span_id == 0 || !is_whole {
            return None;
        }
        let state = tracestate.map(str::trim).filter(|it| !it.is_empty() && it.len() <= STATE_LEN_MAX);
        let span_id = u64::try_from(span_id).ok()?;
        Some(Self { trace_id, span_id, is_sampled: flags & 1 == 1, state: state.map(Into::into) })
    }

    /// From the headers of a request.
    #[must_use]
    pub fn of(headers: &http::HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|it| it.to_str().ok());
        Self::parse(text("traceparent")?, text("tracestate"))
    }

    /// Into the headers of a request, in place of what was there.
    pub fn inject(&self, headers: &mut http::HeaderMap) {
        let value = http::HeaderValue::try_from(self.to_string()).expect("hex and dashes are a header value");
        headers.insert("traceparent", value);
        match self.state.as_deref().and_then(|it| http::HeaderValue::try_from(it).ok()) {
            Some(state) => headers.insert("tracestate", state),
            None => headers.remove("tracestate"),
        };
    }
}

/// The `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

/// Exactly `len` lower-case hex digits.
fn hex(text: &str, len: usize) -> Option<u128> {
    let is_hex = text.len() == len && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_survives_being_sent_on() {
        let context = TraceContext::parse(GOOD, Some("vendor=1")).expect("is whole");
        assert_eq!((context.to_string().as_str(), context.is_sampled), (GOOD, true));
        let mut headers = http::HeaderMap::new();
        headers.insert("tracestate", http::HeaderValue::from_static("stale=1"));
        context.inject(&mut headers);
        assert_eq!(TraceContext::of(&headers), Some(context));
    }

    #[test]
    fn what_breaks_the_grammar_counts_as_absent() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn later_versions_and_overlong_states_are_taken_as_far_as_known() {
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-comes";
        let context = TraceContext::parse(later, Some(&"x".repeat(STATE_LEN_MAX + 1))).expect("is taken");
        assert_eq!((context.is_sampled, context.state), (false, None));
    }
}
