//! `/policies`: which model has which policy, in force at once.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::routing::Policies;
use crate::routing::policies::PolicyName;
use crate::routing::rules::Pattern;
use crate::routing::rules::RULES_MAX;
use crate::routing::rules::Rule;

use super::super::audit::Author;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Answered;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    default: Option<String>,
    #[serde(default)]
    models: Vec<WantedRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedRule {
    model: String,
    policy: String,
}

/// The rules, and what they come to for each model served.
pub fn show(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move { Ok(super::super::json(&view(&gateway))) })
}

/// Replaces the rules.
pub fn set(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let author = Author::of(&request);
        let wanted: Wanted = super::read(&gateway, request).await?;
        let policies = read(wanted, gateway.router.policies().default)?;
        let before = view(&gateway);
        let settled = gateway.policies.set(policies).await?;
        let after = view(&gateway);
        author.did("policies_set", "", &before, &after);
        Ok(super::edited(&gateway, after, &settled))
    })
}

/// Takes back what was set: the options' rules are in force again.
pub fn reset(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let before = view(&gateway);
        let settled = gateway.policies.reset().await?;
        let after = view(&gateway);
        Author::of(&request).did("policies_reset", "", &before, &after);
        Ok(super::edited(&gateway, after, &settled))
    })
}

fn read(wanted: Wanted, default: PolicyName) -> Result<Policies, ApiError> {
    let refused = |field: &str, why: &dyn std::fmt::Display| ApiError::Refused(format!("`{field}`: {why}"));
    if wanted.models.len() > RULES_MAX {
        return Err(refused("models", &format_args!("there may be {RULES_MAX} rules")));
    }
    let policy = |field: &str, text: &str| PolicyName::parse(text).map_err(|error| refused(field, &error));
    let default = wanted.default.map_or(Ok(default), |it| policy("default", &it))?;
    let rule = |(n, it): (usize, WantedRule)| {
        let model = Pattern::parse(&it.model).map_err(|error| refused(&format!("models[{n}].model"), &error))?;
        Ok(Rule { model, policy: policy(&format!("models[{n}].policy"), &it.policy)? })
    };
    let models: Result<Vec<Rule>, ApiError> = wanted.models.into_iter().enumerate().map(rule).collect();
    Ok(Policies { default, models: models? })
}

fn view(gateway: &Gateway) -> Value {
    let policies = gateway.router.policies();
    let rules: Vec<_> =
        policies.models.iter().map(|it| json!({"model": it.model.as_str(), "policy": it.policy.as_str()})).collect();
    let fleet = gateway.registry.fleet();
    let mut served: Vec<_> = fleet.by_model.keys().collect();
    served.sort_unstable();
    let served: Vec<_> =
        served.iter().map(|it| json!({"model": it.as_str(), "policy": policies.of(it).as_str()})).collect();
    json!({
        "default": policies.default.as_str(),
        "models": rules,
        "source": if gateway.policies.is_set() { "api" } else { "config" },
        "served": served,
    })
}
