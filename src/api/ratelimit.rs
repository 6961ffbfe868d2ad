//! `x-ratelimit-*`: what the clients of rate-limited APIs read, on answers and on refusals.
//!
//! They are for pacing, not for counting. What remains is what this node holds and what it heard that the others hold, up to a twentieth of a window ago; whether a request is let in is decided
//! by the units themselves. Of each kind the limit is told of which least is left.

use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

use crate::base::clock::Instant;
use crate::limits::Kind;
use crate::tenancy::budget::Budget;
use crate::tenancy::budget::OverBudget;

/// Limit, remaining, reset.
fn names(kind: Kind) -> [HeaderName; 3] {
    let names = match kind {
        Kind::Requests => {
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
        }
        Kind::Streams => ["x-ratelimit-limit-streams", "x-ratelimit-remaining-streams", "x-ratelimit-reset-streams"],
        Kind::Tokens => ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
    };
    names.map(HeaderName::from_static)
}

fn put(headers: &mut HeaderMap, kind: Kind, limit: u64, remaining: u64, reset: Duration) {
    let [of_limit, of_remaining, of_reset] = names(kind);
    headers.insert(of_limit, HeaderValue::from(limit));
    headers.insert(of_remaining, HeaderValue::from(remaining));
    if let Ok(reset) = HeaderValue::try_from(format!("{}s", whole_seconds(reset).max(1))) {
        headers.insert(of_reset, reset);
    }
}

/// What is left after a request took its part. Empty where nothing is limited.
#[must_use]
pub fn left(budget: &Budget, now: Instant) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for it in budget.left(now) {
        put(&mut headers, it.kind, it.limit, it.remaining, it.resets);
    }
    headers
}

/// The limit that refused one.
pub fn put_refused(headers: &mut HeaderMap, over: &OverBudget) {
    let limit = over.limit();
    put(headers, limit.what.kind, limit.units, 0, over.retry_after());
    if let Some(per) = limit.what.per {
        headers.insert("x-ratelimit-window", HeaderValue::from_static(per.as_str()));
    }
}

/// Rounded up: who comes back at the second told must not come too early.
#[must_use]
pub fn whole_seconds(pause: Duration) -> u64 {
    pause.as_secs().saturating_add(u64::from(pause.subsec_nanos() > 0))
}
