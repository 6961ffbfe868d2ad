//! The API as an OpenAPI 3.1 document, made from the route table, the schemas beside this file and the error mapping, so
//! that none of them can drift from what is served. `page` renders the same for people.

#[cfg(test)]
mod page;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::base::ids::TenantId;
use crate::dialects::BadRequest;
use crate::dialects::Family;
use crate::dialects::json;
use crate::dialects::responses::Refused as Unfit;
use crate::history::HistoryError;
use crate::history::Id;
use crate::history::Unavailable;
use crate::history::machine::Refusal;
use crate::history::machine::read::Missing;
use crate::limits::Kind;
use crate::replication::core::EditError as TableError;
use crate::tenancy::admission::Refused;
use crate::tenancy::budget::Limit;
use crate::tenancy::budget::OverBudget;
use crate::tenancy::keys::AuthError;
use crate::tenancy::quota::Per;
use crate::tenancy::quota::Scope;
use crate::tenancy::quota::What;
use crate::tenancy::quota::Whose;
use crate::workers::worker::BoxFuture;
use crate::workers::worker::CallError;

use super::Response;
use super::error::ApiError;
use super::error::WorkerFailure;
use super::gateway::Gateway;
use super::intake::IntakeError;
use super::routes::ROUTES;
use super::routes::Route;
use super::routes::Serve;

const SCHEMAS: &str = include_str!("schemas.json");

/// `GET /openapi.json`.
pub fn serve(_: Arc<Gateway>, _: Request<Body>) -> BoxFuture<'static, Result<Response, ApiError>> {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    Box::pin(async {
        let text = TEXT.get_or_init(|| Bytes::from(document().to_string()));
        let mut response = Response::new(super::full(text.clone()));
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    })
}

/// The whole document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route);
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "smg",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    });
    document.sort_all_objects(); // readers look things up
    document
}

fn schemas() -> Map<String, Value> {
    let mut schemas: Value =
        serde_json::from_str(SCHEMAS).expect("the file beside this one is JSON, which a test holds");
    schemas.sort_all_objects();
    schemas.as_object().cloned().unwrap_or_default()
}

fn operation(route: &Route) -> Value {
    let mut responses = Map::new();
    let makes = ["ChangedWorker", "AddedKey", "ChangedTenant"].contains(&route.gives) && route.method == "POST";
    let status = if makes { "201" } else { "200" };
    responses.insert(status.to_owned(), answer(route));
    let schema = if family(route) == Family::Anthropic { "AnthropicError" } else { "Error" };
    for (status, codes) in failures(route) {
        let content = json!({"application/json": {"schema": named(schema)}});
        responses.insert(status.to_string(), json!({"description": codes.join(", "), "content": content}));
    }
    let mut operation = json!({
        "summary": route.doc,
        "x-smg-role": role(route.serve),
        "security": security(route.serve),
        "responses": responses,
    });
    if !route.takes.is_empty() {
        let content = json!({"application/json": {"schema": named(route.takes)}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    operation
}

fn answer(route: &Route) -> Value {
    let mut content = json!({"application/json": {"schema": named(route.gives)}});
    let (Serve::Model(wire) | Serve::Kept(wire)) = route.serve else {
        return json!({"description": route.gives, "content": content});
    };
    if wire.observe.is_some() {
        content["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    let text = |doc| json!({"description": doc, "schema": {"type": "string"}});
    json!({
        "description": "The worker's own answer and status.",
        "content": content,
        "headers": {
            "x-smg-worker": text("Who answered."),
            "x-smg-route": text("`POLICY; REASON`: why it."),
            "x-request-id": text("The client's, or one made here."),
        },
    })
}

fn parameters(route: &Route) -> Vec<Value> {
    let parameter = |name: &str, place: &str, doc: &str| json!({"name": name, "in": place, "required": place == "path", "description": doc, "schema": {"type": "string"}});
    let mut parameters = Vec::new();
    if route.path.contains("{id}") {
        parameters.push(parameter("id", "path", "Which one."));
    }
    if route.path.contains("{item_id}") {
        parameters.push(parameter("item_id", "path", "Which item."));
    }
    parameters.extend(history_parameters(route));
    if matches!(route.serve, Serve::Model(_) | Serve::Kept(_)) || route.gives == "Explanation" {
        parameters.push(parameter(
            "x-smg-routing-key",
            "header",
            "Requests with one key stay together, where the policy heeds it.",
        ));
        parameters.push(parameter("x-smg-target-worker", "header", "The id of the worker that must answer."));
    }
    parameters
}

/// What history's routes take besides.
fn history_parameters(route: &Route) -> Vec<Value> {
    let query = |name: &str, kind: &str, doc: &str| json!({"name": name, "in": "query", "required": false, "description": doc, "schema": {"type": kind}});
    let key = json!({"name": "Idempotency-Key", "in": "header", "required": false, "schema": {"type": "string"},
        "description": "The same request with the same key does once what it does, for a day, at whichever node."});
    match (route.method, route.gives) {
        ("GET", "ItemList") => vec![
            query("limit", "integer", "Items of a page: 1 to 100, 20 if not said."),
            query("order", "string", "`asc` or `desc`, newest first if not said."),
            query("after", "string", "The id of the item that the page begins after."),
        ],
        ("GET", "Response") => vec![
            query("stream", "boolean", "Answer as server-sent events."),
            query("starting_after", "integer", "The number of the event to go on after."),
        ],
        ("POST", _) if ["ResponsesRequest", "NewConversation", "NewItems"].contains(&route.takes) => vec![key],
        _ => Vec::new(),
    }
}

fn named(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn family(route: &Route) -> Family {
    if let Serve::Model(wire) | Serve::Kept(wire) = route.serve { wire.family } else { Family::OpenAi }
}

/// Who may, for people and for the document.
fn role(serve: Serve) -> &'static str {
    match serve {
        Serve::Public(_) => "anybody",
        Serve::Model(_) | Serve::Kept(_) | Serve::User(_) => "user",
        Serve::Admin(_) => "admin",
    }
}

fn security(serve: Serve) -> Value {
    match serve {
        Serve::Public(_) => json!([]),
        // Without any key configured, everybody may (admin: from this machine).
        Serve::Model(_) | Serve::Kept(_) | Serve::User(_) | Serve::Admin(_) => {
            json!([{"bearer": []}, {"header": []}, {}])
        }
    }
}

/// The codes a route can answer with besides success, by status.
fn failures(route: &Route) -> BTreeMap<u16, Vec<&'static str>> {
    let mut codes: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for error in errors(route) {
        let (status, _, code) = error.classify();
        let known = codes.entry(status.as_u16()).or_default();
        if !known.contains(&code) {
            known.push(code);
        }
    }
    codes
}

/// One of each error that a route can end with.
fn errors(route: &Route) -> Vec<ApiError> {
    let mut errors = match route.serve {
        Serve::Public(_) => Vec::new(),
        Serve::Model(_) | Serve::Kept(_) | Serve::User(_) => refused_keys(),
        Serve::Admin(_) => [refused_keys(), vec![AuthError::NotAdmin.into()]].concat(),
    };
    if !route.takes.is_empty() {
        errors.push(IntakeError::TooLarge { limit: 0 }.into());
        errors.push(IntakeError::Stalled(Duration::ZERO).into());
        errors.push(IntakeError::Broken.into());
        errors.push(IntakeError::OverBudget.into());
    }
    match route.serve {
        Serve::Model(_) | Serve::Kept(_) => errors.extend(model_errors()),
        Serve::Admin(_) if route.gives == "Explanation" => errors.extend(choice_errors()),
        Serve::Admin(_) if !route.takes.is_empty() => errors.push(ApiError::Refused(String::new())),
        Serve::Admin(_) | Serve::User(_) | Serve::Public(_) => {}
    }
    if matches!(route.serve, Serve::Admin(_))
        && route.method != "GET"
        && !["Explanation", "Drained", "Finalized", "HistorySnapshot", "HistoryImported", "Fault", "FaultList"]
            .contains(&route.gives)
    {
        errors.push(ApiError::NotKept(TableError::DiskFailed));
    }
    if route.path.starts_with("/v1/responses") || route.path.starts_with("/v1/conversations") {
        errors.extend(history_errors(route));
    }
    match route.path {
        "/cluster/upgrade/finalize" => errors.push(ApiError::Refused(String::new())),
        path if path.starts_with("/cluster/history/") => {
            errors.extend([ApiError::NoHistory, HistoryError::from(Unavailable::Unreached).into()]);
            match route.gives {
                "HistoryImported" => errors.push(HistoryError::from(Refusal::NotEmpty).into()),
                "HistorySnapshot" | "HistoryFile" => errors.push(ApiError::Refused(String::new())),
                _ => {}
            }
        }
        path if path.starts_with("/admin/chaos") => {
            errors.push(ApiError::NoChaos);
            match (route.method, path) {
                ("POST", _) => {
                    errors.extend([ApiError::UnknownMember(String::new()), ApiError::UnknownWorker(String::new())])
                }
                ("DELETE", "/admin/chaos/{id}") => errors.push(ApiError::UnknownFault(String::new())),
                _ => {}
            }
        }
        "/cluster/members/{id}" => {
            errors.extend([ApiError::UnknownMember(String::new()), ApiError::Refused(String::new())])
        }
        "/workers/{id}" => errors.push(ApiError::UnknownWorker(String::new())),
        "/keys/{id}" => errors.push(ApiError::UnknownKey(None)),
        "/tenants/{id}" => {
            errors.push(ApiError::UnknownTenant(String::new()));
            if route.method == "DELETE" {
                errors.push(ApiError::Refused(String::new()));
            }
        }
        "/v1/models/{id}" => errors.push(unknown_model()),
        "/models/{id}" if route.method != "PATCH" => errors.push(unknown_model()),
        "/readiness" => errors.extend([ApiError::Draining, ApiError::Joining, busy()]),
        _ => {}
    }
    errors
}

/// What history can say.
fn history_errors(route: &Route) -> Vec<ApiError> {
    let id = Id::parse("resp_1").expect("an id");
    let none = |param| ApiError::NoRecord { what: "", id: String::new(), param };
    let mut errors = vec![ApiError::Joining, HistoryError::from(Unavailable::Unreached).into()];
    if !matches!(route.serve, Serve::Kept(_)) {
        errors.push(ApiError::NoHistory);
    }
    if route.path != "/v1/conversations" {
        errors.push(none(None));
    }
    errors.extend([Unfit::invalid("", ""), Unfit::unsupported("", "")].map(ApiError::from));
    if !route.takes.is_empty() {
        let refused = [Refusal::Full(0), Refusal::TooMany(0), Refusal::Unsound];
        errors.extend(refused.map(|it| HistoryError::from(it).into()));
        errors.extend(json::parse(&Bytes::from_static(b"{")).err().map(ApiError::from));
        errors.push(ApiError::Encoded(String::new()));
    }
    match (route.method, route.path) {
        ("POST", "/v1/responses") => {
            errors.push(none(Some("previous_response_id")));
            let refused = [Refusal::KeyReused, Refusal::Unfinished(id.clone())];
            errors.extend(refused.map(|it| HistoryError::from(it).into()));
            let missing = [Missing::Broken { of: id.clone(), gone: id }, Missing::TooLarge(0)];
            errors.extend(missing.map(|it| HistoryError::from(it).into()));
        }
        ("POST", "/v1/conversations" | "/v1/conversations/{id}/items") => {
            let refused = [Refusal::KeyReused, Refusal::Exists(id)];
            errors.extend(refused.map(|it| HistoryError::from(it).into()));
        }
        ("GET", "/v1/responses/{id}") => errors.push(ApiError::NotBackground(String::new(), "")),
        ("POST", "/v1/responses/{id}/cancel") => {
            errors.extend([ApiError::NotBackground(String::new(), ""), ApiError::HasEnded(String::new(), "")]);
        }
        _ => {}
    }
    errors
}

/// What can be wrong with a key.
fn refused_keys() -> Vec<ApiError> {
    let tenant = TenantId::parse("tenant").expect("a valid name");
    let gone = AuthError::TenantGone(tenant.clone());
    [AuthError::Missing, AuthError::Disabled, AuthError::TenantDisabled(tenant), gone].map(ApiError::from).to_vec()
}

/// One of each.
fn over_budget() -> [OverBudget; 3] {
    let whose = Whose { scope: Scope::Tenant, name: "tenant".into() };
    let limit = Limit { whose, what: What { kind: Kind::Requests, per: Some(Per::Minute) }, units: 1 };
    let used_up = OverBudget::UsedUp { limit: limit.clone(), retry_after: Duration::from_secs(1) };
    [used_up, OverBudget::TooLarge(limit.clone()), OverBudget::NoShare(limit)]
}

fn model_errors() -> Vec<ApiError> {
    let failed = |cause| ApiError::WorkerFailed { cause, attempts: 1 };
    let mut errors = choice_errors();
    errors.push(Refused::QueueFull.into());
    errors.extend(over_budget().map(ApiError::from));
    errors.push(busy());
    errors.push(ApiError::Draining);
    errors.push(failed(CallError::Lost.into()));
    errors.push(failed(CallError::ConnectTimeout(Duration::ZERO).into()));
    errors.push(failed(WorkerFailure::NoToken(Duration::ZERO)));
    errors.push(failed(WorkerFailure::Idle(Duration::ZERO)));
    errors.push(ApiError::TookTooLong(Duration::ZERO));
    errors.push(ApiError::Encoded(String::new()));
    errors
}

/// What can be wrong with a request for a model before anybody is asked.
fn choice_errors() -> Vec<ApiError> {
    let invalid = json::parse(&Bytes::from_static(b"{")).err().map(ApiError::from);
    let target = ApiError::BadParameter { name: "x-smg-target-worker", expected: "a worker id" };
    let mut errors: Vec<ApiError> = invalid.into_iter().collect();
    errors.extend([BadRequest::Missing("messages").into(), target, ApiError::ModelRequired]);
    errors.extend([ApiError::Refused(String::new()), unknown_model(), ApiError::NoWorkers]);
    errors
}

fn unknown_model() -> ApiError {
    ApiError::UnknownModel { model: String::new(), hint: String::new() }
}

fn busy() -> ApiError {
    ApiError::AllBusy { retry_after: Duration::from_secs(1) }
}
