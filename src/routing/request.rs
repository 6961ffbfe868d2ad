//! What a policy is told about one request.

use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::base::ids::WorkerId;
use crate::dialects::form::Prompt;

/// One request, as far as choosing a worker needs it. Borrowed; nothing is kept but hashes (P11). The prompt's text has a
/// lifetime of its own because a [`Prompt`] is invariant in it.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a, 'p> {
    /// The model asked for.
    pub model: &'a ModelId,
    /// Who asks: prefix hashes are keyed by it, so no tenant can see another's cache state (P9).
    pub tenant: &'a TenantId,
    /// The prompt; `None` where the endpoint has none that a cache could share.
    pub prompt: Option<&'a Prompt<'p>>,
    /// Bytes of the request body: the size where there is no prompt.
    pub body_len: usize,
    /// `x-smg-routing-key`, else `None`.
    pub routing_key: Option<&'a str>,
    /// `x-smg-target-worker`: a worker id the caller insists on.
    pub target: Option<WorkerId>,
    /// Workers that already failed this request; never chosen again.
    pub tried: &'a [WorkerId],
}
