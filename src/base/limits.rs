//! Every bound of the system in one place, with the reason for its size and what happens beyond it.

use std::time::Duration;

/// Default for the largest request body, in bytes. Beyond it: 413. Smaller cuts image prompts, larger lets one client
/// hold much of [`BODY_BUDGET_BYTES`].
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Default for all request bodies held at one time, in bytes. Beyond it a request waits, then gets 503.
pub const BODY_BUDGET_BYTES: usize = 512 << 20;

/// A response that is not a stream is held back whole up to this size, so that a worker that dies half way can be
/// replaced unseen (P6); longer ones are passed on as they come.
pub const RESPONSE_HELD_BYTES_MAX: usize = 1 << 20;

/// Longest single SSE event accepted from a worker, in bytes. Beyond it the stream fails as malformed.
pub const SSE_EVENT_BYTES_MAX: usize = 4 << 20;

/// Deepest JSON nesting accepted in a request body. Beyond it: 400. Real requests stay below 32.
pub const JSON_DEPTH_MAX: usize = 128;

/// Request head: bytes and number of header lines. Beyond: 431 and the connection is closed.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// See [`HEAD_BYTES_MAX`].
pub const HEADERS_MAX: usize = 100;

/// A client has this long to send a complete request head (slow loris), then the connection is closed.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest pause between two pieces of a request body, then 408. The whole body is bounded by the total timeout.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Workers in one registry. Beyond it adding one is refused.
pub const WORKERS_MAX: usize = 16_384;

/// Requests that one node forwards to one other at a time. Beyond it that worker asks for a pause, and the request goes elsewhere.
/// They share the 512 streams of a link with questions about load and tables, which must always find one.
pub const FORWARDED_TO_NODE_MAX: usize = 384;

/// Requests that a node carries out for others at a time. Beyond it they are refused. More is more than local workers compute.
pub const FORWARDED_FROM_NODES_MAX: usize = 1024;

/// Bytes of their bodies that it holds at a time. Beyond it they are refused. At least two of the largest must fit.
pub const FORWARDED_BYTES_MAX: usize = 256 << 20;

/// Data directories that a cluster knows. Beyond it no new one joins until one is forgotten.
pub const STORAGES_MAX: usize = 1024;

/// Data directories that a cluster remembers not to take back. Beyond it the one that was forgotten first may join again, as a new one would.
pub const FORGOTTEN_MAX: usize = 4096;

/// Limits whose shares are given out. Beyond it a new one is refused.
pub const MINTS_MAX: usize = 8192;

/// Limits that were removed and are remembered as such, so that nodes hear of it. Beyond it the one removed first is forgotten: a node that was away since keeps its share
/// of nothing until it is started anew.
pub const DROPPED_MAX: usize = 4096;

/// Bytes of all their shares. Beyond it they are refused. They are in memory at every member, and in every snapshot.
pub const MINTS_BYTES_MAX: usize = 32 << 20;

/// Distinct models shown as a metric label; later ones are counted under `other`, so that clients cannot grow series.
pub const MODEL_LABELS_MAX: usize = 256;

/// Workers shown one by one in metrics, in the order of their ids. More would make a scrape of a large fleet cost more than
/// it tells; the sums count all.
pub const WORKER_SERIES_MAX: usize = 1024;

const _: () = assert!(2 * BODY_BYTES_MAX <= FORWARDED_BYTES_MAX, "a forwarded body must fit, and another beside it");
const _: () = assert!(BODY_BYTES_MAX <= BODY_BUDGET_BYTES, "one body must fit the budget");
const _: () = assert!(RESPONSE_HELD_BYTES_MAX <= SSE_EVENT_BYTES_MAX, "a whole answer may be one event");
