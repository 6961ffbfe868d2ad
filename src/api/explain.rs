//! `/v1/route/explain`: where a request would go and why, without sending it or remembering it.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::dialects::json;
use crate::dialects::openai::chat;
use crate::dialects::openai::completions;
use crate::workers::worker::BoxFuture;

use super::Response;
use super::error::ApiError;
use super::gateway::Gateway;
use super::relay;

/// Takes the body of a chat or a completions request.
pub fn explain(gateway: Arc<Gateway>, request: Request<Body>) -> BoxFuture<'static, Result<Response, ApiError>> {
    Box::pin(async move {
        let (head, body) = request.into_parts();
        let principal =
            gateway.keys.authenticate(&head.headers).or_else(|_| gateway.keys.authorise_admin(&head.headers, true))?;
        let held = gateway.intake.read(body).await?;
        let body = held.bytes.clone();
        let object = json::parse(&body)?;
        let wire = if object.get("prompt").is_some() { &completions::WIRE } else { &chat::WIRE };
        let parsed = (wire.read)(&object)?;
        let explanation = relay::explain(gateway, wire, head, &parsed, held, principal).await?;
        let value = serde_json::to_value(&explanation).unwrap_or_else(|_| json!({}));
        Ok(super::json(&value))
    })
}
