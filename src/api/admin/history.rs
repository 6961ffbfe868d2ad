//! `/cluster/history`: how history is at this node, all of it as a file and back, and whether its rows are sound.

use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Seek as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::HeaderValue;
use http::Request;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::history::Handle;
use crate::history::Rows;
use crate::history::export;
use crate::history::group;
use crate::history::machine::verify;
use crate::history::now_ms;

use super::super::Response;
use super::super::audit::Author;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Answered;

/// Reading everything there is.
const ALL_LIMIT: Duration = Duration::from_secs(3600);
/// Folder for files that are made to be read once.
const FOLDER: &str = "exchange";

fn handle(gateway: &Gateway) -> Result<&Handle, ApiError> {
    gateway.history.as_ref().ok_or(ApiError::NoHistory)
}

/// How it is at this node. Does not wait for a leader.
pub fn status(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let Some(handle) = gateway.history.as_ref() else {
            return Ok(super::super::json(&json!({"backend": "none"})));
        };
        let backend = handle.backend();
        let group = backend.group().as_ref().map(group_status);
        let answer = json!({"backend": backend.name(), "commands": backend.commands(), "group": group});
        Ok(super::super::json(&answer))
    })
}

fn group_status(status: &group::Status) -> Value {
    let group = &status.group;
    let shown = |it: &std::collections::BTreeSet<crate::base::ids::StorageId>| {
        it.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let sending = group.sending.iter().map(|it| (it.0.to_string(), json!(it.1)));
    let behind = group.matched.iter().map(|it| (it.0.to_string(), json!(group.last.saturating_sub(*it.1))));
    json!({
        "takes_part": status.is_here,
        "has_room": status.has_room,
        "leader": group.leader.map(|it| it.to_string()),
        "term": group.term,
        "voters": shown(&group.voters),
        "changing_voters": group.is_joint,
        "learners": shown(&group.learners),
        "last": group.last,
        "applied": group.applied,
        "behind": behind.collect::<serde_json::Map<_, _>>(),
        "sending": sending.collect::<serde_json::Map<_, _>>(),
        "snapshot_bytes": status.snapshot_bytes,
        "to_be_purged": status.is_to_be_purged,
    })
}

/// Reads every row and says what does not fit.
pub fn verified(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let handle = handle(&gateway)?;
        let report = handle.read_within(ALL_LIMIT, verify::verify).await?;
        let total = report.total;
        let answer = json!({
            "sound": report.faults == 0,
            "rows": report.rows,
            "responses": total.responses,
            "conversations": total.conversations,
            "bytes": total.bytes,
            "faults": report.faults,
            "told": report.told,
        });
        Ok(super::super::json(&answer))
    })
}

/// Lets go of the log that is not needed any more.
pub fn snapshot(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let handle = handle(&gateway)?;
        let none = || ApiError::Refused(format!("the backend `{}` has no log", handle.backend().name()));
        let upto = handle.backend().snapshot().ok_or_else(none)?.await?;
        let answer = json!({"upto": upto});
        Author::of(&request).did("history_snapshot", "", &Value::Null, &answer);
        Ok(super::super::json(&answer))
    })
}

/// All of it, as of one moment, in the format of [`export`].
pub fn exported(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let handle = handle(&gateway)?;
        let (folder, backend) = (folder(&gateway), handle.backend().name());
        let file = handle.read_within(ALL_LIMIT, move |rows| written(&folder, backend, rows)).await?;
        let file = file.map_err(|error| {
            tracing::error!(%error, "the export could not be written");
            ApiError::Refused(format!("the export could not be written to the node's disk: {error}"))
        })?;
        let bytes = file.metadata().map(|it| it.len()).unwrap_or_default();
        Author::of(&request).did("history_exported", "", &Value::Null, &json!({"bytes": bytes}));
        let mut response = Response::new(Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(file))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(bytes));
        Ok(response)
    })
}

fn folder(gateway: &Gateway) -> PathBuf {
    let store = gateway.storage.opened();
    let directory = store.as_ref().and_then(|it| it.directory());
    directory.map_or_else(std::env::temp_dir, |it| it.join(FOLDER))
}

/// A file without a name: it goes with whoever reads it.
fn written(folder: &Path, backend: &str, rows: &dyn Rows) -> Result<File, export::ExportError> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("export-{}-{}", std::process::id(), now_ms()));
    let file = File::options().create_new(true).read(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let mut out = BufWriter::new(file);
    export::write(rows, backend, now_ms(), &mut out)?;
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// Puts rows of an export in: `?at=` rows before these, `&last=true` with the last ones.
pub fn imported(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (author, query) = (Author::of(&request), request.uri().query().unwrap_or_default().to_owned());
        let value = |name: &str| query.split('&').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        let bad = || ApiError::BadParameter { name: "at", expected: "the number of rows before these" };
        let at: u64 = value("at").and_then(|it| it.parse().ok()).ok_or_else(bad)?;
        let is_last = value("last") == Some("true");
        let handle = handle(&gateway)?;
        let held = gateway.intake.read(request.into_body()).await?;
        let rows = export::decode_rows(&held.bytes).map_err(|error| ApiError::Refused(error.to_string()))?;
        let next = at + rows.len() as u64;
        handle.restore(at, rows, is_last).await?;
        let answer = json!({"rows": next, "last": is_last});
        if is_last {
            author.did("history_imported", "", &Value::Null, &answer);
        }
        Ok(super::super::json(&answer))
    })
}
