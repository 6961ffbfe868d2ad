//! The error mapping: every error there is has a status, a type, a stable code, and a hint where a retry helps.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::Reply;
use crate::api::error::ApiError;
use crate::api::error::WorkerFailure;
use crate::api::intake::IntakeError;
use crate::api::serve::refusal::BadHead;
use crate::dialects::BadRequest;
use crate::dialects::Family;
use crate::dialects::json::Invalid;
use crate::routing::retry::Class;
use crate::tenancy::admission::Refused;
use crate::tenancy::keys::AuthError;
use crate::workers::worker::CallError;
use crate::workers::worker::ConnectFailure;

const SECOND: Duration = Duration::from_secs(1);

fn failures() -> Vec<WorkerFailure> {
    let connect = [ConnectFailure::Refused, ConnectFailure::NoAddress, ConnectFailure::Forbidden, ConnectFailure::Tls];
    let calls =
        [CallError::ConnectTimeout(SECOND), CallError::Lost, CallError::FirstByteTimeout(SECOND), CallError::Protocol];
    let calls = connect.map(CallError::Connect).into_iter().chain(calls).map(WorkerFailure::Call);
    let own = [
        WorkerFailure::Malformed,
        WorkerFailure::InStream,
        WorkerFailure::NoToken(SECOND),
        WorkerFailure::Idle(SECOND),
        WorkerFailure::Total(SECOND),
        WorkerFailure::CutOff,
    ];
    calls.chain(own).chain([429, 500, 502, 503, 504, 529, 599].map(WorkerFailure::Status)).collect()
}

/// Every error, with the status, type and code that clients may build on.
fn errors() -> Vec<(ApiError, u16, &'static str, &'static str)> {
    const INVALID: &str = "invalid_request_error";
    const OVERLOADED: &str = "overloaded_error";
    let mut rows = vec![
        (AuthError::Missing.into(), 401, "authentication_error", "invalid_api_key"),
        (AuthError::Unknown.into(), 401, "authentication_error", "invalid_api_key"),
        (AuthError::NotAdmin.into(), 403, "permission_error", "admin_required"),
        (AuthError::NotLoopback.into(), 403, "permission_error", "admin_required"),
        (ApiError::UnknownPath("/x".to_owned()), 404, INVALID, "unknown_url"),
        (
            ApiError::MethodNotAllowed { given: "PUT".to_owned(), allowed: "GET".to_owned() },
            405,
            INVALID,
            "method_not_allowed",
        ),
        (IntakeError::TooLarge { limit: 7 }.into(), 413, INVALID, "request_too_large"),
        (IntakeError::Stalled(SECOND).into(), 408, INVALID, "request_timeout"),
        (IntakeError::Late(SECOND).into(), 408, INVALID, "request_timeout"),
        (IntakeError::Broken.into(), 400, INVALID, "incomplete_body"),
        (IntakeError::OverBudget.into(), 503, OVERLOADED, "body_budget"),
        (Invalid::Utf8(1).into(), 400, INVALID, "invalid_json"),
        (Invalid::Syntax(1).into(), 400, INVALID, "invalid_json"),
        (Invalid::TooDeep(1).into(), 400, INVALID, "invalid_json"),
        (Invalid::NotAnObject.into(), 400, INVALID, "invalid_json"),
        (BadRequest::Missing("messages").into(), 400, INVALID, "invalid_value"),
        (BadRequest::Repeated("model").into(), 400, INVALID, "invalid_value"),
        (BadRequest::WrongType { field: "stream", expected: "true" }.into(), 400, INVALID, "invalid_value"),
        (ApiError::BadParameter { name: "x-smg-target-worker", expected: "an id" }, 400, INVALID, "invalid_value"),
        (ApiError::UnknownModel { model: "m".to_owned(), hint: String::new() }, 404, INVALID, "model_not_found"),
        (ApiError::ModelRequired, 400, INVALID, "model_required"),
        (ApiError::UnknownWorker("w-0".to_owned()), 404, INVALID, "worker_not_found"),
        (ApiError::UnknownMember("n-0".to_owned()), 404, INVALID, "member_not_found"),
        (ApiError::Refused("no".to_owned()), 400, INVALID, "refused"),
        (ApiError::NoWorkers, 503, OVERLOADED, "no_workers"),
        (Refused::QueueFull.into(), 429, "rate_limit_error", "concurrency_limit"),
        (Refused::QueueTimeout(SECOND).into(), 429, "rate_limit_error", "concurrency_limit"),
        (ApiError::AllBusy { retry_after: SECOND }, 503, OVERLOADED, "workers_busy"),
        (ApiError::TookTooLong(SECOND), 504, "api_error", "total_timeout"),
        (ApiError::Encoded("gzip".to_owned()), 415, INVALID, "unsupported_encoding"),
        (crate::replication::core::EditError::DiskFailed.into(), 503, "api_error", "not_durable"),
        (BadHead::Malformed.into(), 400, INVALID, "invalid_http"),
        (BadHead::Host.into(), 400, INVALID, "invalid_http"),
        (BadHead::TooLarge.into(), 431, INVALID, "head_too_large"),
        (BadHead::UrlTooLong.into(), 414, INVALID, "url_too_long"),
        (BadHead::Late(SECOND).into(), 408, INVALID, "request_timeout"),
        (ApiError::Joining, 503, OVERLOADED, "joining"),
        (ApiError::Draining, 503, OVERLOADED, "draining"),
    ];
    for cause in failures() {
        let (status, code) = match cause {
            WorkerFailure::Call(CallError::ConnectTimeout(_)) => (504, "connect_timeout"),
            WorkerFailure::Call(CallError::FirstByteTimeout(_)) | WorkerFailure::NoToken(_) => {
                (504, "first_token_timeout")
            }
            WorkerFailure::Idle(_) => (504, "idle_timeout"),
            WorkerFailure::Total(_) => (504, "total_timeout"),
            _ => (502, "worker_failed"),
        };
        rows.push((ApiError::WorkerFailed { cause, attempts: 2 }, status, "api_error", code));
    }
    rows
}

#[test]
fn every_error_has_its_status_type_and_code() {
    for (error, status, kind, code) in errors() {
        let classified = error.classify();
        assert_eq!((classified.0.as_u16(), classified.1, classified.2), (status, kind, code), "{error:?}");
    }
}

#[tokio::test]
async fn every_error_is_a_response_that_its_family_can_read() {
    for (error, status, kind, code) in errors() {
        for family in [Family::OpenAi, Family::Anthropic] {
            let reply = Reply::of(error.response(family)).await;
            assert_eq!((reply.status.as_u16(), reply.header("content-type")), (status, Some("application/json")));
            let body = reply.json();
            assert_eq!((&body["error"]["type"], &body["error"]["message"]), (&kind.into(), &error.to_string().into()));
            match family {
                Family::OpenAi | Family::Responses => assert_eq!(body["error"]["code"], Value::from(code), "{error:?}"),
                Family::Anthropic => assert_eq!(body["type"], Value::from("error"), "{error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn exactly_what_a_retry_can_help_says_when_and_what_needs_a_key_says_how() {
    for (error, status, ..) in errors() {
        let reply = Reply::of(error.response(Family::OpenAi)).await;
        assert_eq!(reply.header("retry-after").is_some(), matches!(status, 429 | 503), "{error:?}");
        assert_eq!(reply.header("www-authenticate"), (status == 401).then_some("Bearer"), "{error:?}");
    }
}

/// Who comes back after the seconds told must not come too early.
#[tokio::test]
async fn a_pause_is_told_in_whole_seconds_and_never_shorter_than_it_is() {
    for (pause, told) in [(0, "1"), (1, "1"), (999, "1"), (1000, "1"), (1001, "2"), (1999, "2"), (59_001, "60")] {
        let error = ApiError::AllBusy { retry_after: Duration::from_millis(pause) };
        let reply = Reply::of(error.response(Family::OpenAi)).await;
        assert_eq!(reply.header("retry-after"), Some(told), "{pause} ms");
    }
}

#[test]
fn the_field_at_fault_is_named_where_there_is_one() {
    for (error, ..) in errors() {
        let expected = match &error {
            ApiError::BadRequest(it) => Some(it.field()),
            ApiError::UnknownModel { .. } | ApiError::ModelRequired => Some("model"),
            ApiError::BadParameter { name, .. } => Some(*name),
            _ => None,
        };
        assert_eq!(error.text().param.as_deref(), expected, "{error:?}");
        let text = error.text().message;
        assert!(!text.is_empty() && !text.ends_with('.') && !text.contains('\n'), "{text}");
    }
}

/// A retry is for what another worker can do better: never for a success, a redirect or the client's own mistake.
#[test]
fn a_worker_that_failed_is_judged_alike_by_retries_and_by_the_client() {
    for cause in failures() {
        let class = cause.outcome(None).class();
        let expected = match &cause {
            WorkerFailure::Status(429 | 503 | 529) => Class::Backpressure,
            WorkerFailure::Status(500 | 502 | 504) | WorkerFailure::Malformed | WorkerFailure::InStream => {
                Class::Failed
            }
            WorkerFailure::Status(_) => Class::Neutral,
            WorkerFailure::Call(CallError::Connect(_) | CallError::ConnectTimeout(_)) => Class::Unreachable,
            WorkerFailure::Call(CallError::Lost | CallError::FirstByteTimeout(_) | CallError::Protocol)
            | WorkerFailure::NoToken(_)
            | WorkerFailure::Idle(_)
            | WorkerFailure::Total(_)
            | WorkerFailure::CutOff => Class::Failed,
        };
        assert_eq!(class, expected, "{cause:?}");
        let error = ApiError::WorkerFailed { cause, attempts: 1 };
        assert!(error.classify().0.is_server_error());
        assert_ne!(error.classify().0, StatusCode::SERVICE_UNAVAILABLE, "that would promise a time to come back");
    }
}
