//! The only place where an error becomes a status, a stable code, a public sentence and a Retry-After.
//!
//! Private causes stay in the log. Every body follows the schema of the client's dialect.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderValue;
use http::StatusCode;
use http::header::CONNECTION;
use http::header::CONTENT_TYPE;
use http::header::RETRY_AFTER;
use http::header::WWW_AUTHENTICATE;

use crate::dialects::BadRequest;
use crate::dialects::ErrorText;
use crate::dialects::Family;
use crate::dialects::json::Invalid;
use crate::dialects::responses::Refused as Unfit;
use crate::history::HistoryError;
use crate::history::Unavailable;
use crate::history::machine::Refusal;
use crate::history::machine::read::Missing;
use crate::observability::labels::label;
use crate::replication::core::EditError as TableError;
use crate::routing::retry::Outcome;
use crate::tenancy::admission::Refused;
use crate::tenancy::budget::OverBudget;
use crate::tenancy::edits::EditError as TenancyError;
use crate::tenancy::keys::AuthError;
use crate::tenancy::listing::KeyId;
use crate::workers::registry::EditError;
use crate::workers::worker::CallError;

use super::Response;
use super::intake::IntakeError;
use super::ratelimit;
use super::ratelimit::whole_seconds;
use super::serve::refusal::BadHead;

/// Everything a request can end with besides an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The key. The client's fault.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// No such path. The client's fault.
    #[error("no such endpoint: `{0}`. See docs/reference/api.md for what there is")]
    UnknownPath(String),
    /// The path exists, the method does not. The client's fault.
    #[error("this endpoint takes {allowed}, not `{given}`")]
    MethodNotAllowed {
        /// What was sent.
        given: String,
        /// What is taken.
        allowed: String,
    },
    /// The head. The client's fault.
    #[error(transparent)]
    BadHead(#[from] BadHead),
    /// The body. Mostly the client's fault.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// Compressed. The client's fault: nothing is unpacked here, so that nothing small becomes large.
    #[error("a body with `Content-Encoding: {0}` is not taken: send it as it is")]
    Encoded(String),
    /// Not JSON. The client's fault.
    #[error(transparent)]
    Json(#[from] Invalid),
    /// Not a request of this endpoint. The client's fault.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// A header or a query of ours that cannot be read. The client's fault.
    #[error("`{name}` must be {expected}")]
    BadParameter {
        /// Which.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Nothing here serves the model. The client's fault, or a worker is missing.
    #[error("the model `{model}` does not exist here{hint}")]
    UnknownModel {
        /// The model asked for.
        model: String,
        /// What to do next.
        hint: String,
    },
    /// Several models are served, so one must be named. The client's fault.
    #[error("`model` is required: several models are served here")]
    ModelRequired,
    /// `/workers/{id}` of a worker that is not there. The client's fault.
    #[error("no worker with this id: `{0}`")]
    UnknownWorker(String),
    /// `/keys/{id}` of a key that is not there. The client's fault. What is no id is not repeated: it may be a key.
    #[error("no key with this id{}. An id is `k-` and 32 hex digits, and `smg keys` lists them", .0.map(|it| format!(": `{it}`")).unwrap_or_default())]
    UnknownKey(Option<KeyId>),
    /// `/tenants/{id}` of a tenant that is not there. The client's fault.
    #[error("no such tenant: `{0}`")]
    UnknownTenant(String),
    /// `/cluster/members/{id}` of a node that is not known. The client's fault.
    #[error("no node with this id, data directory or name: `{0}`; `smg members` lists them")]
    UnknownMember(String),
    /// An admin edit that cannot be done. The client's fault.
    #[error("{0}")]
    Refused(String),
    /// An admin edit that could not be kept. The disk's fault, or too many at a time; the edit may be made again.
    #[error("the change was not kept: {0}")]
    NotKept(TableError),
    /// A field of a request for a response or a conversation. The client's fault.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// No such response, conversation or item: it never was, it was deleted, or it is another's. The client's fault.
    #[error("there is no {what} `{id}`")]
    NoRecord {
        /// What was asked for.
        what: &'static str,
        /// Its id, as it came.
        id: String,
        /// The field that named it; `None`: the path.
        param: Option<&'static str>,
    },
    /// What is kept, or would be, did not allow it.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A response or a conversation, where nothing is kept. The operator's choice.
    #[error("responses and conversations are not kept here: `--history-backend` is `none`")]
    NoHistory,
    /// Something that only a response in the background allows. The client's fault.
    #[error("`{0}` cannot be {1}: only a response that was created with `background: true` can")]
    NotBackground(String, &'static str),
    /// A response that was to be cancelled has ended. The client's fault.
    #[error("`{0}` has ended, and is {1}: it cannot be cancelled")]
    HasEnded(String, &'static str),
    /// Nobody serves anything yet.
    #[error("no worker is registered: start with `--worker-urls URL` or POST /workers {{\"url\": ...}}")]
    NoWorkers,
    /// Admission. Nobody's fault.
    #[error(transparent)]
    Admission(#[from] Refused),
    /// A limit of a key, a tenant or a model.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// Every worker of the model was tried or asked for a pause.
    #[error("all workers of this model are busy or unavailable; try again")]
    AllBusy {
        /// When to come back.
        retry_after: Duration,
    },
    /// The workers failed, and no further attempt was allowed.
    #[error("the request could not be completed: {cause} (workers tried: {attempts})")]
    WorkerFailed {
        /// The last failure.
        cause: WorkerFailure,
        /// How many workers were tried.
        attempts: usize,
    },
    /// The whole request, waiting included, took too long.
    #[error("the request was not answered within: {0:?}")]
    TookTooLong(Duration),
    /// The gateway has not compared its tables with the cluster's yet.
    #[error("this gateway is joining its cluster; try again")]
    Joining,
    /// The gateway is stopping.
    #[error("this gateway is shutting down; try again")]
    Draining,
}

impl From<Unavailable> for ApiError {
    fn from(error: Unavailable) -> Self {
        Self::History(error.into())
    }
}

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Unknown(id) => Self::UnknownWorker(id.to_string()),
            EditError::NotKept(error) => error.into(),
            EditError::Url(_) | EditError::TooMany => Self::Refused(error.to_string()),
        }
    }
}

impl From<TenancyError> for ApiError {
    fn from(error: TenancyError) -> Self {
        match error {
            TenancyError::UnknownKey(id) => Self::UnknownKey(Some(id)),
            TenancyError::UnknownTenant(name) => Self::UnknownTenant(name.as_str().to_owned()),
            TenancyError::UnknownModel(name) => Self::UnknownModel {
                model: name.to_string(),
                hint: ": nothing is set for it, GET /models lists what is".to_owned(),
            },
            TenancyError::NotKept(error) => error.into(),
            TenancyError::NoTenant(_)
            | TenancyError::TenantTaken(_)
            | TenancyError::TenantName
            | TenancyError::KeyName(_)
            | TenancyError::KeyText
            | TenancyError::KeyTaken(_)
            | TenancyError::KeyConfigured
            | TenancyError::OwnTenant
            | TenancyError::TooManyKeys
            | TenancyError::TooManyTenants
            | TenancyError::TooManyModels
            | TenancyError::Quota(_)
            | TenancyError::TooManyLimits => Self::Refused(error.to_string()),
        }
    }
}

impl From<TableError> for ApiError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Refused(_) => Self::Refused(error.to_string()),
            TableError::DiskFailed | TableError::Busy | TableError::NoTable => Self::NotKept(error),
            TableError::Closing => Self::Draining,
        }
    }
}

/// How the last worker failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerFailure {
    /// No whole answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A status that says it failed.
    #[error("the worker answered with status {0}")]
    Status(u16),
    /// The stream broke its grammar.
    #[error("the worker sent a malformed stream")]
    Malformed,
    /// An error inside the stream, before any content.
    #[error("the worker reported an error inside its stream")]
    InStream,
    /// Neither content nor an end in time.
    #[error("the worker sent no token within: {0:?}")]
    NoToken(Duration),
    /// No byte for too long in the middle of an answer.
    #[error("the worker sent nothing for: {0:?}")]
    Idle(Duration),
    /// The whole request took too long.
    #[error("the request took longer than: {0:?}")]
    Total(Duration),
    /// The gateway stops and its drain timeout is over.
    #[error("the gateway shut down before the answer was complete")]
    CutOff,
}

const TOTAL_TIMEOUT: &str = "total_timeout";
/// The stable code of an answer that is no success, carried with the response to where answers are counted.
#[derive(Clone, Copy, Debug)]
pub struct Code(pub &'static str);

label! {
    /// [`WorkerFailure`] without what it carries.
    pub enum WorkerFault {
        /// No connection.
        NotConnected = "not_connected",
        /// No connection in time.
        ConnectTimeout = "connect_timeout",
        /// No response head in time.
        FirstByteTimeout = "first_byte_timeout",
        /// The connection ended early.
        Lost = "lost",
        /// Not HTTP.
        Protocol = "protocol",
        /// 429 or 503.
        Busy = "busy",
        /// Another status that says it failed.
        Status = "status",
        /// A stream that broke its grammar.
        Malformed = "malformed",
        /// An error event.
        InStream = "in_stream",
        /// No token in time.
        NoToken = "no_token",
        /// Silence in the middle.
        Idle = "idle",
        /// The whole request took too long.
        TotalTimeout = "total_timeout",
        /// We are stopping.
        CutOff = "cut_off",
    }
}

impl WorkerFailure {
    /// Its kind, for metrics and traces.
    #[must_use]
    pub fn fault(&self) -> WorkerFault {
        match self {
            Self::Call(CallError::Connect(_)) => WorkerFault::NotConnected,
            Self::Call(CallError::ConnectTimeout(_)) => WorkerFault::ConnectTimeout,
            Self::Call(CallError::FirstByteTimeout(_)) => WorkerFault::FirstByteTimeout,
            Self::Call(CallError::Lost) => WorkerFault::Lost,
            Self::Call(CallError::Protocol) => WorkerFault::Protocol,
            Self::Status(429 | 503) => WorkerFault::Busy,
            Self::Status(_) => WorkerFault::Status,
            Self::Malformed => WorkerFault::Malformed,
            Self::InStream => WorkerFault::InStream,
            Self::NoToken(_) => WorkerFault::NoToken,
            Self::Idle(_) => WorkerFault::Idle,
            Self::Total(_) => WorkerFault::TotalTimeout,
            Self::CutOff => WorkerFault::CutOff,
        }
    }

    /// As the retry rules see it.
    #[must_use]
    pub fn outcome(&self, retry_after: Option<Duration>) -> Outcome {
        match self {
            Self::Status(status) => Outcome::Status { code: *status, retry_after },
            Self::Call(CallError::Connect(_) | CallError::ConnectTimeout(_)) => Outcome::NotConnected,
            Self::Call(CallError::FirstByteTimeout(_)) | Self::NoToken(_) => Outcome::FirstByteTimeout,
            Self::Call(CallError::Lost) | Self::InStream | Self::Idle(_) | Self::Total(_) | Self::CutOff => {
                Outcome::Lost
            }
            Self::Call(CallError::Protocol) | Self::Malformed => Outcome::Malformed,
        }
    }

    /// The code of a timeout, a name for each kind.
    fn timeout_code(&self) -> Option<&'static str> {
        match self {
            Self::Call(CallError::ConnectTimeout(_)) => Some("connect_timeout"),
            Self::Call(CallError::FirstByteTimeout(_)) | Self::NoToken(_) => Some("first_token_timeout"),
            Self::Idle(_) => Some("idle_timeout"),
            Self::Total(_) => Some(TOTAL_TIMEOUT),
            Self::Call(CallError::Connect(_) | CallError::Lost | CallError::Protocol)
            | Self::Status(_)
            | Self::Malformed
            | Self::InStream
            | Self::CutOff => None,
        }
    }
}

impl ApiError {
    /// Whether it is told to nobody, since the client left.
    #[must_use]
    pub fn is_client_gone(&self) -> bool {
        matches!(self, Self::Intake(IntakeError::Broken))
    }

    /// Status, kind and stable code.
    #[must_use]
    pub fn classify(&self) -> (StatusCode, &'static str, &'static str) {
        const INVALID: &str = "invalid_request_error";
        const OVERLOADED: &str = "overloaded_error";
        const RATE_LIMIT: &str = "rate_limit_error";
        match self {
            Self::Auth(AuthError::Missing | AuthError::Repeated | AuthError::Unknown) => {
                (StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key")
            }
            Self::Auth(AuthError::NotAdmin | AuthError::NotLoopback) => {
                (StatusCode::FORBIDDEN, "permission_error", "admin_required")
            }
            Self::Auth(AuthError::Disabled) => (StatusCode::FORBIDDEN, "permission_error", "key_disabled"),
            Self::Auth(AuthError::TenantDisabled(_)) => (StatusCode::FORBIDDEN, "permission_error", "tenant_disabled"),
            Self::Auth(AuthError::TenantGone(_)) => (StatusCode::FORBIDDEN, "permission_error", "tenant_removed"),
            Self::UnknownPath(_) => (StatusCode::NOT_FOUND, INVALID, "unknown_url"),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed"),
            Self::BadHead(bad) => bad_head(*bad),
            Self::Intake(IntakeError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "request_too_large"),
            Self::Intake(IntakeError::Stalled(_) | IntakeError::Late(_)) => {
                (StatusCode::REQUEST_TIMEOUT, INVALID, "request_timeout")
            }
            Self::Intake(IntakeError::Broken) => (StatusCode::BAD_REQUEST, INVALID, "incomplete_body"),
            Self::Intake(IntakeError::OverBudget) => (StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "body_budget"),
            Self::Encoded(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_encoding"),
            Self::Json(_) => (StatusCode::BAD_REQUEST, INVALID, "invalid_json"),
            Self::BadRequest(_) | Self::BadParameter { .. } => (StatusCode::BAD_REQUEST, INVALID, "invalid_value"),
            Self::UnknownModel { .. } => (StatusCode::NOT_FOUND, INVALID, "model_not_found"),
            Self::ModelRequired => (StatusCode::BAD_REQUEST, INVALID, "model_required"),
            Self::UnknownWorker(_) => (StatusCode::NOT_FOUND, INVALID, "worker_not_found"),
            Self::UnknownKey(_) => (StatusCode::NOT_FOUND, INVALID, "key_not_found"),
            Self::UnknownTenant(_) => (StatusCode::NOT_FOUND, INVALID, "tenant_not_found"),
            Self::UnknownMember(_) => (StatusCode::NOT_FOUND, INVALID, "member_not_found"),
            Self::Refused(_) => (StatusCode::BAD_REQUEST, INVALID, "refused"),
            Self::NotKept(_) => (StatusCode::SERVICE_UNAVAILABLE, "api_error", "not_durable"),
            Self::Unfit(Unfit::Invalid { .. }) => (StatusCode::BAD_REQUEST, INVALID, "invalid_value"),
            Self::Unfit(Unfit::Unsupported { .. }) => (StatusCode::BAD_REQUEST, INVALID, "unsupported_value"),
            Self::NoRecord { param: Some("previous_response_id"), .. } => {
                (StatusCode::BAD_REQUEST, INVALID, "previous_response_not_found")
            }
            Self::NoRecord { .. } => (StatusCode::NOT_FOUND, INVALID, "not_found"),
            Self::History(error) => history(error),
            Self::NoHistory => (StatusCode::NOT_FOUND, INVALID, "history_off"),
            Self::NotBackground(..) => (StatusCode::BAD_REQUEST, INVALID, "not_background"),
            Self::HasEnded(..) => (StatusCode::BAD_REQUEST, INVALID, "already_ended"),
            Self::NoWorkers => (StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "no_workers"),
            Self::Admission(_) => (StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT, "concurrency_limit"),
            Self::OverBudget(OverBudget::UsedUp { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded")
            }
            Self::OverBudget(OverBudget::TooLarge(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT, "request_exceeds_limit")
            }
            Self::OverBudget(OverBudget::NoShare(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT, "limit_unavailable")
            }
            Self::AllBusy { .. } => (StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "workers_busy"),
            Self::WorkerFailed { cause, .. } => match cause.timeout_code() {
                Some(code) => (StatusCode::GATEWAY_TIMEOUT, "api_error", code),
                None => (StatusCode::BAD_GATEWAY, "api_error", "worker_failed"),
            },
            Self::TookTooLong(_) => (StatusCode::GATEWAY_TIMEOUT, "api_error", TOTAL_TIMEOUT),
            Self::Joining => (StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "joining"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "draining"),
        }
    }

    /// When a retry makes sense; every 429 and 503 says so.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::AllBusy { retry_after } => Some(*retry_after),
            Self::OverBudget(it) => Some(it.retry_after()),
            other => {
                let status = other.classify().0;
                let busy = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
                busy.then_some(Duration::from_secs(1))
            }
        }
    }

    /// The public text.
    #[must_use]
    pub fn text(&self) -> ErrorText {
        let (_, kind, code) = self.classify();
        let param: Option<Cow<'static, str>> = match self {
            Self::BadRequest(error) => Some(error.field().into()),
            Self::Unfit(error) => Some(error.field().to_owned().into()),
            Self::NoRecord { param, .. } => param.map(Into::into),
            Self::UnknownModel { .. } | Self::ModelRequired => Some("model".into()),
            Self::BadParameter { name, .. } => Some((*name).into()),
            _ => None,
        };
        ErrorText { message: self.to_string(), kind, code, param }
    }

    /// The whole response in the schema of `family`.
    #[must_use]
    pub fn response(&self, family: Family) -> Response {
        if let Self::History(HistoryError::Missing(Missing::Unreadable(_))) = self {
            tracing::error!(error = %self, "what was asked for is kept here and cannot be read: is the file of --history-key-file the one that the other nodes have?");
        }
        let mut response = Response::new(super::full(family.error_body(&self.text())));
        let (status, _, code) = self.classify();
        *response.status_mut() = status;
        response.extensions_mut().insert(Code(code));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after).max(1)));
        }
        if let Self::OverBudget(it) = self {
            ratelimit::put_refused(headers, it);
        }
        if let Self::Auth(AuthError::Missing | AuthError::Repeated | AuthError::Unknown) = self {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::Intake(_) = self {
            // The rest of the body is not read, so no other request can follow it.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What history says. Nothing of it that may pass is ever a 404.
fn history(error: &HistoryError) -> (StatusCode, &'static str, &'static str) {
    const INVALID: &str = "invalid_request_error";
    const UNAVAILABLE: (StatusCode, &str, &str) = (StatusCode::SERVICE_UNAVAILABLE, "api_error", "history_unavailable");
    match error {
        HistoryError::Unavailable(_) | HistoryError::Missing(Missing::Unreadable(_)) => UNAVAILABLE,
        HistoryError::Refused(Refusal::NotFound(_)) | HistoryError::Missing(Missing::NotFound(_)) => {
            (StatusCode::NOT_FOUND, INVALID, "not_found")
        }
        HistoryError::Missing(Missing::Broken { .. }) => {
            (StatusCode::BAD_REQUEST, INVALID, "previous_response_deleted")
        }
        HistoryError::Missing(Missing::TooLarge(_)) => (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "context_too_large"),
        HistoryError::Refused(Refusal::Exists(_)) => (StatusCode::CONFLICT, INVALID, "already_exists"),
        HistoryError::Refused(Refusal::Unfinished(_)) => (StatusCode::CONFLICT, INVALID, "not_ended"),
        HistoryError::Refused(Refusal::Ended(_)) => (StatusCode::BAD_REQUEST, INVALID, "already_ended"),
        HistoryError::Refused(Refusal::NotEmpty) => (StatusCode::CONFLICT, INVALID, "history_not_empty"),
        HistoryError::Refused(Refusal::Restoring(_)) => UNAVAILABLE,
        HistoryError::Refused(Refusal::KeyReused) => (StatusCode::CONFLICT, INVALID, "idempotency_key_reused"),
        HistoryError::Refused(Refusal::Full(_)) => (StatusCode::INSUFFICIENT_STORAGE, INVALID, "history_full"),
        HistoryError::Refused(Refusal::TooMany(_)) => (StatusCode::BAD_REQUEST, INVALID, "too_many"),
        // Nothing else is unsound that comes from here.
        HistoryError::Refused(Refusal::Unsound) => (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "content_too_large"),
        HistoryError::Refused(
            Refusal::Stale | Refusal::Owned | Refusal::NoLease | Refusal::Gap(_) | Refusal::TooOld,
        ) => UNAVAILABLE,
    }
}

fn bad_head(bad: BadHead) -> (StatusCode, &'static str, &'static str) {
    const INVALID: &str = "invalid_request_error";
    match bad {
        BadHead::Malformed | BadHead::Host => (StatusCode::BAD_REQUEST, INVALID, "invalid_http"),
        BadHead::TooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, INVALID, "head_too_large"),
        BadHead::UrlTooLong => (StatusCode::URI_TOO_LONG, INVALID, "url_too_long"),
        BadHead::Late(_) => (StatusCode::REQUEST_TIMEOUT, INVALID, "request_timeout"),
    }
}
