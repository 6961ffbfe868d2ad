//! What a request's spans are told: operation, worker, usage. Names and numbers only, never content.

use crate::base::clock::Instant;
use crate::dialects::Wire;
use crate::dialects::form::Usage;
use crate::observability::traces::span::Span;
use crate::observability::traces::span::keys;
use crate::routing::Route;
use crate::routing::explain::Considered;
use crate::workers::registry::Entry;

use super::account::Account;

/// The endpoint as OpenTelemetry's GenAI conventions name what is asked of the model.
pub(super) fn operation(wire: &Wire) -> &'static str {
    match wire.name {
        "chat" | "messages" | "responses" => "chat",
        "completions" | "generate" => "text_completion",
        other => other,
    }
}

/// What came before the worker: the request began with its head, and waited for a slot.
pub(super) fn admitted(span: &mut Span, account: &Account) {
    span.began(account.times.started);
    if span.is_recorded() {
        span.set(keys::REQUEST_ID, account.request_id.to_str().unwrap_or_default().to_owned());
        drop(span.part("admission", account.times.queued, account.times.last));
    }
}

/// Candidates told of one decision. More would make a span of a large fleet larger than its request.
const CANDIDATES_MAX: usize = 16;

/// A decision: who was looked at, what each would have cost in tokens, who it was and why.
pub(super) fn decided(span: &Span, from: Instant, until: Instant, route: &Route, considered: &[Considered]) {
    let mut part = span.part("route", from, until);
    part.set(keys::WORKER, route.worker.to_string());
    part.set(keys::ROUTE, format!("{}; {}", route.policy, route.reason.as_str()));
    let told = considered.iter().take(CANDIDATES_MAX).map(|it| {
        let (worker, cost, cached) = (&it.worker, it.cost, it.expected_cached_tokens);
        let (queued, inflight) = (it.queued_prefill_tokens, it.inflight);
        let (source, age) = (it.load_source, it.load_age_ms);
        format!("{worker} cost={cost:.1} cached={cached} queued={queued} inflight={inflight} load={source} age={age}ms")
    });
    part.set(keys::CANDIDATES, told.collect::<Vec<_>>().join("; "));
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
