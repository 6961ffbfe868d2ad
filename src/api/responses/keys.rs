//! `Idempotency-Key`: a request that is sent again does once what it does, at whichever node.

use http::HeaderMap;
use http::Method;
use xxhash_rust::xxh3::Xxh3;

use crate::dialects::responses::Refused as Unfit;
use crate::history::machine::Idempotency;
use crate::history::machine::KEY_LEN_MAX;
use crate::history::now_ms;

use super::super::error::ApiError;

pub(in crate::api) const HEADER: &str = "idempotency-key";
/// How long a key is remembered.
const REMEMBERED_MS: u64 = 86_400_000;

/// The key that a request has, if any, and what it stands for.
pub(in crate::api) fn read(
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Result<Option<Idempotency>, ApiError> {
    let Some(key) = headers.get(HEADER) else { return Ok(None) };
    let key = key.to_str().ok().filter(|it| (1..=KEY_LEN_MAX).contains(&it.len()));
    let key = key.ok_or_else(|| Unfit::invalid("Idempotency-Key", "1 to 255 printable ASCII characters"))?;
    let mut hash = Xxh3::new();
    for part in [method.as_str().as_bytes(), b" ", path.as_bytes(), b"\n", body] {
        hash.update(part);
    }
    let fingerprint = hash.digest128();
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint, expires_ms: now_ms().saturating_add(REMEMBERED_MS) }))
}
