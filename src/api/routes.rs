//! The route table: one line a route. Router, access check and reference page are made from it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::MethodFilter;
use axum::routing::on;
use http::Request;

use crate::dialects::Family;
use crate::dialects::Wire;
use crate::dialects::anthropic;
use crate::dialects::openai::chat;
use crate::dialects::openai::completions;
use crate::dialects::openai::inputs;
use crate::dialects::openai::responses;
use crate::dialects::sglang;
use crate::workers::worker::BoxFuture;

use super::Response;
use super::admin;
use super::admin::chaos;
use super::admin::cluster;
use super::admin::keys;
use super::admin::members;
use super::admin::policies;
use super::admin::tenants;
use super::admin::workers;
use super::conversations;
use super::cors;
use super::error::ApiError;
use super::error::Code;
use super::explain;
use super::gateway::Gateway;
use super::metrics::RouteSeries;
use super::models;
use super::openapi;
use super::relay;
use super::responses as history;
use super::responses::records;

/// What serves a route.
#[derive(Clone, Copy)]
pub enum Serve {
    /// A model request, with its own key check.
    Model(&'static Wire),
    /// A model request that history keeps, with its own key check; where none is kept, as [`Serve::Model`].
    Kept(&'static Wire),
    /// Anybody.
    Public(Handler),
    /// Who may send model requests.
    User(Handler),
    /// Admins; see [`crate::tenancy::keys::Keys::authorise_admin`].
    Admin(Handler),
}

/// A handler of our own.
pub type Handler = fn(Arc<Gateway>, Request<Body>) -> BoxFuture<'static, Result<Response, ApiError>>;

/// One route.
pub struct Route {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// The path, with `{id}` for a part that is read.
    pub path: &'static str,
    /// What serves it.
    pub serve: Serve,
    /// Schema of the request's body in `openapi/schemas.json`; empty: it has none.
    pub takes: &'static str,
    /// Schema of the answer.
    pub gives: &'static str,
    /// For people.
    pub doc: &'static str,
}

const fn route(
    method: &'static str,
    path: &'static str,
    serve: Serve,
    takes: &'static str,
    gives: &'static str,
    doc: &'static str,
) -> Route {
    Route { method, path, serve, takes, gives, doc }
}

use Serve::Admin;
use Serve::Kept;
use Serve::Model;
use Serve::Public;
use Serve::User;

/// All routes.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    route("POST", "/v1/chat/completions", Model(&chat::WIRE), "ChatRequest", "WorkerAnswer", "OpenAI chat completions, streamed or not"),
    route("POST", "/v1/completions", Model(&completions::WIRE), "CompletionRequest", "WorkerAnswer", "OpenAI completions, streamed or not"),
    route("POST", "/v1/embeddings", Model(&inputs::EMBEDDINGS), "InputRequest", "WorkerAnswer", "OpenAI embeddings"),
    route("POST", "/v1/rerank", Model(&inputs::RERANK), "RerankRequest", "WorkerAnswer", "Order documents by relevance"),
    route("POST", "/rerank", Model(&inputs::RERANK), "RerankRequest", "WorkerAnswer", "The same"),
    route("POST", "/v1/classify", Model(&inputs::CLASSIFY), "InputRequest", "WorkerAnswer", "Classify inputs"),
    route("POST", "/v1/tokenize", Model(&inputs::TOKENIZE), "TokenizeRequest", "WorkerAnswer", "The worker's own tokenizer"),
    route("POST", "/tokenize", Model(&inputs::TOKENIZE), "TokenizeRequest", "WorkerAnswer", "The same"),
    route("POST", "/v1/detokenize", Model(&inputs::DETOKENIZE), "TokenizeRequest", "WorkerAnswer", "The worker's own tokenizer, backwards"),
    route("POST", "/detokenize", Model(&inputs::DETOKENIZE), "TokenizeRequest", "WorkerAnswer", "The same"),
    route("POST", "/generate", Model(&sglang::GENERATE), "GenerateRequest", "WorkerAnswer", "SGLang's native generation, streamed or not"),
    route("POST", "/v1/responses", Kept(&responses::WIRE), "ResponsesRequest", "Response", "OpenAI responses, streamed or not or in the background, on any worker; with `--history-backend none` as the worker speaks them"),
    route("GET", "/v1/responses/{id}", User(records::show), "", "Response", "One of them; with `stream=true` its events, after `starting_after`, if it was made in the background"),
    route("DELETE", "/v1/responses/{id}", User(records::delete), "", "DeletedRecord", "Delete it, for good"),
    route("POST", "/v1/responses/{id}/cancel", User(records::cancel), "", "Response", "End one in the background"),
    route("GET", "/v1/responses/{id}/input_items", User(records::input_items), "", "ItemList", "What it was given itself, in pages"),
    route("POST", "/v1/conversations", User(conversations::create), "NewConversation", "Conversation", "Make a conversation"),
    route("GET", "/v1/conversations/{id}", User(conversations::show), "", "Conversation", "One of them"),
    route("POST", "/v1/conversations/{id}", User(conversations::update), "ConversationChange", "Conversation", "Replace its metadata"),
    route("DELETE", "/v1/conversations/{id}", User(conversations::delete), "", "DeletedRecord", "Delete it and its items, for good; responses that were made in it stay"),
    route("GET", "/v1/conversations/{id}/items", User(conversations::list), "", "ItemList", "Its items, in pages"),
    route("POST", "/v1/conversations/{id}/items", User(conversations::add), "NewItems", "ItemList", "Add items to it"),
    route("GET", "/v1/conversations/{id}/items/{item_id}", User(conversations::show_item), "", "Item", "One of them"),
    route("DELETE", "/v1/conversations/{id}/items/{item_id}", User(conversations::delete_item), "", "Conversation", "Delete it, for good"),
    route("POST", "/v1/messages", Model(&anthropic::MESSAGES), "MessagesRequest", "WorkerAnswer", "Anthropic messages, where the worker speaks them"),
    route("POST", "/v1/messages/count_tokens", Model(&anthropic::COUNT_TOKENS), "MessagesRequest", "WorkerAnswer", "Their token count"),
    route("GET", "/v1/models", User(models::list), "", "ModelList", "Every model served here"),
    route("GET", "/v1/models/{id}", User(models::one), "", "ModelCard", "One of them"),
    route("GET", "/liveness", Public(admin::liveness), "", "Alive", "The process lives"),
    route("GET", "/health", Public(admin::liveness), "", "Alive", "The same"),
    route("GET", "/readiness", Public(admin::readiness), "", "Ready", "Requests can be served"),
    route("GET", "/openapi.json", Public(openapi::serve), "", "Document", "This API as an OpenAPI 3.1 document"),
    route("GET", "/workers", Admin(workers::list), "", "WorkerList", "All workers and how they are"),
    route("POST", "/workers", Admin(workers::add), "NewWorker", "ChangedWorker", "Add a worker; the same URL again replaces what was said of it"),
    route("GET", "/workers/{id}", Admin(workers::show), "", "Worker", "One worker"),
    route("PATCH", "/workers/{id}", Admin(workers::change), "WorkerChange", "ChangedWorker", "Change it, drain it or take it back"),
    route("DELETE", "/workers/{id}", Admin(workers::remove), "", "Removed", "Remove it; what is in flight finishes"),
    route("GET", "/policies", Admin(policies::show), "", "Policies", "Which model has which routing policy"),
    route("PUT", "/policies", Admin(policies::set), "NewPolicies", "Policies", "Replace the rules, in force at once"),
    route("DELETE", "/policies", Admin(policies::reset), "", "Policies", "Take them back: the options' rules are in force again"),
    route("GET", "/keys", Admin(keys::list), "", "KeyList", "All API keys, but not the keys themselves: those made here, and those configured at this node"),
    route("POST", "/keys", Admin(keys::add), "NewKey", "AddedKey", "Make a key, or take a given one; it is told once, in the answer, and in force at every node"),
    route("GET", "/keys/{id}", Admin(keys::show), "", "Key", "One key"),
    route("PATCH", "/keys/{id}", Admin(keys::change), "KeyChange", "ChangedKey", "Disable it, take that back, or set its limits"),
    route("DELETE", "/keys/{id}", Admin(keys::remove), "", "Removed", "Remove it, for good, at every node"),
    route("GET", "/tenants", Admin(tenants::list), "", "TenantList", "All tenants"),
    route("POST", "/tenants", Admin(tenants::add), "NewTenant", "ChangedTenant", "Add a tenant"),
    route("GET", "/tenants/{id}", Admin(tenants::show), "", "Tenant", "One tenant, by its name"),
    route("PATCH", "/tenants/{id}", Admin(tenants::change), "TenantChange", "ChangedTenant", "Disable it, with all its keys, enable it, or set its limits"),
    route("DELETE", "/tenants/{id}", Admin(tenants::remove), "", "Removed", "Remove it, for good, and so end its keys"),
    route("GET", "/models", Admin(admin::models::list), "", "ModelSettingsList", "All models that are served or that something is set for"),
    route("GET", "/models/{id}", Admin(admin::models::show), "", "ModelSettings", "One of them; `/` in its name is written `%2F`"),
    route("PATCH", "/models/{id}", Admin(admin::models::change), "ModelChange", "ChangedModel", "Set its limits, or take them away, whether it is served yet or not"),
    route("DELETE", "/models/{id}", Admin(admin::models::remove), "", "Removed", "Take away all that is set for it; workers go on serving it"),
    route("GET", "/cluster/members", Admin(members::list), "", "MemberList", "The nodes of the cluster and how they are, as this one sees them"),
    route("DELETE", "/cluster/members/{id}", Admin(members::forget), "", "Forgotten", "Forget one that left or is down, everywhere and for good, with what it alone said"),
    route("GET", "/cluster/health", Admin(cluster::health), "", "Health", "Whether this node is as it should be, and if not, why"),
    route("GET", "/cluster/tables", Admin(cluster::tables), "", "TableList", "The replicated tables, as they are here"),
    route("GET", "/cluster/node", Admin(cluster::node), "", "Node", "This node: who it is, how it is, what runs in it"),
    route("GET", "/cluster/links", Admin(cluster::links), "", "LinkList", "Its connections to other nodes"),
    route("POST", "/cluster/drain", Admin(cluster::drain), "", "Drained", "Take this node out of service as SIGTERM does: it finishes what is in flight and ends"),
    route("POST", "/cluster/upgrade/finalize", Admin(cluster::finalize), "", "Finalized", "Raise the feature level as far as every node's release can follow: what a new release brings is used from then on"),
    route("GET", "/cluster/history", Admin(admin::history::status), "", "HistoryStatus", "How history is at this node: where it is kept, who leads, how far the others are"),
    route("GET", "/cluster/history/verify", Admin(admin::history::verified), "", "HistoryReport", "Read every row of history and say what does not fit"),
    route("POST", "/cluster/history/snapshot", Admin(admin::history::snapshot), "", "HistorySnapshot", "Let go of the log of history that is not needed any more"),
    route("GET", "/cluster/history/export", Admin(admin::history::exported), "", "HistoryFile", "All of history as of one moment, as a file: a backup, or the way to another backend"),
    route("POST", "/cluster/history/import", Admin(admin::history::imported), "HistoryRows", "HistoryImported", "Put rows of an export in, where nothing is kept; `smg history import` does it whole"),
    route("GET", "/admin/chaos", Admin(chaos::list), "", "FaultList", "The faults on purpose in force at this node; needs `--chaos`, as do the next"),
    route("POST", "/admin/chaos", Admin(chaos::begin), "NewFault", "Fault", "Begin one; it ends by itself"),
    route("DELETE", "/admin/chaos", Admin(chaos::lift_all), "", "FaultList", "End all of them"),
    route("DELETE", "/admin/chaos/{id}", Admin(chaos::lift), "", "Fault", "End one"),
    route("POST", "/v1/route/explain", Admin(explain::explain), "ChatRequest", "Explanation", "Where a chat or completions request would go, and why"),
];

/// The axum router over [`ROUTES`].
pub fn router(gateway: &Arc<Gateway>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let gateway = Arc::clone(gateway);
        let serve = route.serve;
        let series = gateway.metrics.route(route.method, route.path);
        let filter = match route.method {
            "GET" => MethodFilter::GET,
            "POST" => MethodFilter::POST,
            "PUT" => MethodFilter::PUT,
            "PATCH" => MethodFilter::PATCH,
            _ => MethodFilter::DELETE,
        };
        let handler = move |request: Request<Body>| {
            let (gateway, series) = (Arc::clone(&gateway), Arc::clone(&series));
            async move {
                let origin = cors::allowed(&gateway.config.cors_allowed_origins, request.headers());
                let mut response = counted(&gateway, &series, serve, request).await;
                if let Some(origin) = origin {
                    cors::mark(&mut response, origin);
                }
                response
            }
        };
        router = router.route(route.path, on(filter, handler));
    }
    fallbacks(router, gateway)
}

/// What is none of [`ROUTES`]: another path, or another method.
fn fallbacks(router: Router, gateway: &Arc<Gateway>) -> Router {
    let series = gateway.metrics.route("other", "other");
    let (counts, gateway) = (Arc::clone(&series), Arc::clone(gateway));
    let refuse = move |gateway: &Gateway, series: &RouteSeries, error: ApiError| {
        gateway.metrics.requested(series);
        gateway.metrics.answered(series, error.classify().0, Some(error.classify().2));
        error.response(Family::OpenAi)
    };
    let edge = Arc::clone(&gateway);
    let other_path = move |request: Request<Body>| async move { refuse(&edge, &counts, unknown_path(&request)) };
    let other_method = move |request: Request<Body>| async move {
        let origin = cors::allowed(&gateway.config.cors_allowed_origins, request.headers());
        match origin.filter(|_| request.method() == http::Method::OPTIONS) {
            Some(origin) => cors::preflight(origin),
            None => refuse(&gateway, &series, wrong_method(&request)),
        }
    };
    router.fallback(other_path).method_not_allowed_fallback(other_method)
}

/// Serves a request, counts it and, where somebody reads the access log, writes its line.
async fn counted(gateway: &Arc<Gateway>, series: &RouteSeries, serve: Serve, request: Request<Body>) -> Response {
    gateway.metrics.requested(series);
    // A model request writes its own line when its answer has ended.
    let has_line = !matches!(serve, Model(_) | Kept(_)) && tracing::enabled!(target: "access", tracing::Level::DEBUG);
    let line = has_line.then(|| (request.method().clone(), request.uri().path().to_owned(), gateway.clock.now()));
    let response = dispatch(Arc::clone(gateway), serve, request).await;
    gateway.metrics.answered(series, response.status(), response.extensions().get().map(|it: &Code| it.0));
    if let Some((method, path, started)) = line {
        let total_ms = ((gateway.clock.now() - started).as_secs_f64() * 1e6).round() / 1e3;
        let status = response.status().as_u16();
        tracing::debug!(target: "access", %method, path, status, total_ms, "request");
    }
    response
}

async fn dispatch(gateway: Arc<Gateway>, serve: Serve, mut request: Request<Body>) -> Response {
    let handler = match serve {
        Model(wire) => return Box::pin(relay::serve(gateway, wire, request)).await,
        Kept(wire) => {
            return match gateway.history.clone() {
                None => Box::pin(relay::serve(gateway, wire, request)).await,
                Some(kept) => Box::pin(history::create(gateway, kept, request)).await,
            };
        }
        Public(handler) => handler,
        User(handler) => match gateway.keys.authenticate(request.headers()) {
            Ok(principal) => {
                request.extensions_mut().insert(principal);
                handler
            }
            Err(error) => return ApiError::from(error).response(Family::OpenAi),
        },
        Admin(handler) => {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
            let is_loopback = peer.is_some_and(|it| it.0.ip().to_canonical().is_loopback());
            match gateway.keys.authorise_admin(request.headers(), is_loopback) {
                Ok(principal) => {
                    // Reading is what tells an operator why a node does not join.
                    let is_edit = request.method() != http::Method::GET;
                    if let Some(Err(error)) = is_edit.then(|| gateway.admit(Arc::clone(&principal))) {
                        return error.response(Family::OpenAi);
                    }
                    request.extensions_mut().insert(principal);
                    handler
                }
                Err(error) => return ApiError::from(error).response(Family::OpenAi),
            }
        }
    };
    handler(gateway, request).await.unwrap_or_else(|error| error.response(Family::OpenAi))
}

fn unknown_path(request: &Request<Body>) -> ApiError {
    ApiError::UnknownPath(request.uri().path().chars().take(200).collect())
}

fn wrong_method(request: &Request<Body>) -> ApiError {
    let path = request.uri().path();
    let methods: Vec<&str> = ROUTES.iter().filter(|it| matches(it.path, path)).map(|it| it.method).collect();
    let given: String = request.method().as_str().chars().take(32).collect();
    ApiError::MethodNotAllowed { given, allowed: methods.join(", ") }
}

/// Whether a path is one of this pattern, part for part.
fn matches(pattern: &str, path: &str) -> bool {
    let is_as_long = pattern.split('/').count() == path.split('/').count();
    is_as_long
        && pattern.split('/').zip(path.split('/')).all(|(pattern, part)| pattern == part || pattern.starts_with('{'))
}
