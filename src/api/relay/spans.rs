//! What a request's spans are told: operation, worker, usage. Names and numbers only, never content.

use crate::dialects::Wire;
use crate::dialects::form::Usage;
use crate::observability::traces::span::Span;
use crate::observability::traces::span::keys;
use crate::routing::Route;
use crate::workers::registry::Entry;

/// The endpoint as OpenTelemetry's GenAI conventions name what is asked of the model.
pub(super) fn operation(wire: &Wire) -> &'static str {
    match wire.name {
        "chat" | "messages" | "responses" => "chat",
        "completions" | "generate" => "text_completion",
        other => other,
    }
}

/// The worker that is tried, and why it.
pub(super) fn worker(span: &mut Span, entry: &Entry, route: &Route) {
    if !span.is_recorded() {
        return;
    }
    span.set(keys::WORKER, entry.id.to_string());
    span.set(keys::ROUTE, format!("{}; {}", route.policy, route.reason.as_str()));
    span.set(keys::PROVIDER, entry.facts.engine.name());
    if let Ok(url) = entry.spec.url.parse::<http::Uri>() {
        span.set(keys::SERVER_ADDRESS, url.host().unwrap_or_default().to_owned());
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
        span.set(keys::SERVER_PORT, u64::from(port));
    }
}

/// What the answer took.
pub(super) fn usage(span: &mut Span, usage: Usage) {
    for (key, tokens) in [
        (keys::INPUT_TOKENS, usage.prompt),
        (keys::OUTPUT_TOKENS, usage.completion),
        (keys::CACHED_TOKENS, usage.cached),
    ] {
        if let Some(tokens) = tokens {
            span.set(key, tokens);
        }
    }
}
