//! How nodes talk: QUIC on one UDP port, both sides known by certificate, traffic in lanes.
//!
//! ```text
//! areas above ─▶ Handle ──frames──▶ link ─▶ QUIC ─▶ peer
//!             ◀─ Inboxes ◀─frames── link ◀─ QUIC ◀─
//! ```
//! Areas above are cores whose drivers move frames between their effects and a [`Handle`]; in simulation the same frames move over [`twin`].
//!
//! *Invariants.* 1. Nothing reaches an inbox before certificate, cluster and node id of its sender were checked (`trust`), and what a node
//! says of itself agrees with its certificate. 2. A dial never holds anybody up: it runs in a task of its own, and sending to a peer without a
//! connection returns at once. 3. Every queue, message and wait is bounded; what does not fit is dropped and counted. 4. A connection counts as made
//! when the first bytes of the peer were read over it: in TLS 1.3 a client believes in a handshake that the server then refuses.
//! *Absent on purpose:* retries and order. A lane carries a message once or not at all, and two messages may overtake each other; who needs more repeats itself.

pub mod core;
mod datagram;
mod driver;
mod ends;
pub(crate) mod faults;
mod handle;
pub mod identity;
pub mod lanes;
mod link;
mod messages;
pub mod metrics;
mod peer;
mod reading;
mod stream;
pub mod trust;
pub mod twin;
pub mod wire;

pub use driver::StartError;
pub use driver::start;
pub use handle::GreetError;
pub use handle::Handle;
pub use handle::Inboxes;
pub use handle::LinkView;
pub use handle::NotSent;
pub use handle::RequestError;
pub use messages::Received;
pub use messages::Reply;
pub use messages::Request;
pub use peer::Peer;
pub use stream::Stream;

#[cfg(test)]
pub(crate) mod tests;
