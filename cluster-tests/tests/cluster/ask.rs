//! Questions to a node in the operator's name.

use std::net::SocketAddr;

use serde_json::Value;

pub(crate) use jepsen::link::Link;
pub(crate) use jepsen::link::UNSENT;

/// The operator's key of every cluster here. It is looked for afterwards where no key may be.
pub(crate) const ADMIN_KEY: &str = "sk-canary-admin-5e1f";

/// A connection in the operator's name.
pub(crate) async fn open(to: SocketAddr) -> Result<Link, String> {
    Link::open(to, ADMIN_KEY).await
}

/// One request on a connection of its own.
pub(crate) async fn ask(to: SocketAddr, method: &str, path: &str, body: &Value) -> Result<(u16, Value), String> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, bytes) = open(to).await?.call(method, path, &body).await?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}
