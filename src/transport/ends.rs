//! Making a connection, from either end: handshake, certificate, greeting, and what is counted when one of them fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::handle::GreetError;
use super::lanes::Class;
use super::link;
use super::link::HelloError;
use super::link::Link;
use super::metrics::Metrics;
use super::metrics::Refusal;
use super::peer::Peer;
use super::trust::Trust;
use crate::base::ids::NodeId;
use crate::chaos;
use crate::chaos::core::Heading;

/// Handshake and greeting of a connection that another began. Shorter loses peers behind slow links, longer keeps more half-made ones.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// The same of one that this node began. Shorter: a dial that began while the way was cut must not outlast the cut for long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Names mean nothing here; TLS wants one.
const HOST: &str = "smg.internal";

/// What making connections needs; each dial and handshake has a clone.
#[derive(Clone)]
pub(super) struct Ends {
    pub(super) endpoint: quinn::Endpoint,
    pub(super) clients: Clients,
    pub(super) trust: Trust,
    pub(super) me: Arc<ArcSwap<Peer>>,
    pub(super) metrics: Metrics,
    pub(super) chaos: chaos::Handle,
}

/// How connections are begun, by what they are for.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) main: quinn::ClientConfig,
    pub(super) bulk: quinn::ClientConfig,
}

impl Clients {
    fn of(&self, class: Class) -> quinn::ClientConfig {
        match class {
            Class::Main => self.main.clone(),
            Class::Bulk => self.bulk.clone(),
        }
    }
}

pub(super) struct Made {
    pub(super) conn: quinn::Connection,
    pub(super) peer: Peer,
    pub(super) class: Class,
}

impl Ends {
    /// Dials an address; `node` is who should be there, if that is known. Where it is to replace a silent connection that was heard again when the peer answers, the peer is not greeted: it would close that one.
    pub(super) async fn dial(
        self,
        addr: SocketAddr,
        node: Option<NodeId>,
        class: Class,
        silent: Option<Arc<Link>>,
    ) -> Result<Made, GreetError> {
        self.metrics.dialled();
        let dial = async {
            self.pass(node.as_ref()).await;
            let connecting = self.endpoint.connect_with(self.clients.of(class), addr, HOST);
            let conn = connecting.map_err(|_closing| GreetError::Unreachable)?.await.map_err(|e| self.lost(&e))?;
            let certified = self.certified(&conn);
            if node.is_some() && certified != node {
                return Err(self.refuse(&conn, Refusal::Spoofed)); // before a word is said to it
            }
            self.pass(certified.as_ref()).await;
            if silent.is_some_and(|it| it.conn.close_reason().is_none() && !it.is_silent()) {
                conn.close(0u32.into(), b"not needed");
                return Err(GreetError::Unreachable);
            }
            let peer = link::greet(&conn, &self.me.load(), class).await.map_err(|e| self.unmade(&conn, &e))?;
            if certified.as_ref() != Some(&peer.node) {
                return Err(self.refuse(&conn, Refusal::Spoofed));
            }
            if peer.is_same_life(&self.me.load()) {
                conn.close(0u32.into(), b"self");
                return Err(GreetError::Itself);
            }
            Ok(Made { conn, peer, class })
        };
        timeout(DIAL_TIMEOUT, dial).await.unwrap_or_else(|_elapsed| {
            self.metrics.refused(Refusal::Timeout);
            Err(GreetError::Unreachable)
        })
    }

    /// Takes a connection that another began.
    pub(super) async fn accept(self, incoming: quinn::Incoming) -> Option<Made> {
        let accept = async {
            let conn = incoming.accept().map_err(|e| self.lost(&e))?.await.map_err(|e| self.lost(&e))?;
            let certified = self.certified(&conn);
            self.pass(certified.as_ref()).await;
            let is_certified = |peer: &Peer| certified.as_ref() == Some(&peer.node);
            let greeted = link::answer(&conn, &self.me.load(), is_certified).await;
            let (peer, class) = greeted.map_err(|e| self.unmade(&conn, &e))?;
            if peer.is_same_life(&self.me.load()) {
                // The dialler closes it once it has read who this is.
                conn.closed().await;
                return Err(GreetError::Itself);
            }
            Ok(Made { conn, peer, class })
        };
        let made = timeout(HELLO_TIMEOUT, accept).await.unwrap_or_else(|_elapsed| {
            self.metrics.refused(Refusal::Timeout);
            Err(GreetError::Unreachable)
        });
        made.ok()
    }

    /// Never ends where a partition on purpose cuts one way or the other: no greeting passes. Whoever waits has a deadline.
    async fn pass(&self, node: Option<&NodeId>) {
        let is_cut = |it: &NodeId| [Heading::In, Heading::Out].iter().any(|way| self.chaos.is_cut(it.as_str(), *way));
        if node.is_some_and(is_cut) {
            std::future::pending().await
        }
    }

    fn certified(&self, conn: &quinn::Connection) -> Option<NodeId> {
        let chain = conn.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        self.trust.name(&chain)
    }

    fn refuse(&self, conn: &quinn::Connection, why: Refusal) -> GreetError {
        self.metrics.refused(why);
        conn.close(1u32.into(), why.as_str().as_bytes());
        GreetError::Refused
    }

    fn unmade(&self, conn: &quinn::Connection, error: &HelloError) -> GreetError {
        match (error, conn.close_reason()) {
            (HelloError::Malformed, _) => self.refuse(conn, Refusal::Malformed),
            (HelloError::Spoofed, _) => self.refuse(conn, Refusal::Spoofed),
            (HelloError::Broken, Some(lost)) => self.lost(&lost),
            (HelloError::Broken, None) => GreetError::Unreachable,
        }
    }

    /// Counts why a connection was not made. What our own verifier refused, it has counted.
    fn lost(&self, error: &quinn::ConnectionError) -> GreetError {
        /// TLS alerts of RFC 8446, 6.2, that follow from a verdict of ours.
        const JUDGED: [u8; 3] = [42, 45, 48];
        const CERTIFICATE_REQUIRED: u8 = 116;
        let refusal = match error {
            quinn::ConnectionError::ApplicationClosed(_) | quinn::ConnectionError::ConnectionClosed(_) => {
                Refusal::ByPeer
            }
            quinn::ConnectionError::TransportError(error) => {
                let alert = u64::from(error.code).to_le_bytes()[0];
                if JUDGED.contains(&alert) {
                    return GreetError::Refused;
                }
                if alert == CERTIFICATE_REQUIRED { Refusal::Untrusted } else { Refusal::Malformed }
            }
            quinn::ConnectionError::VersionMismatch => Refusal::Malformed,
            quinn::ConnectionError::TimedOut => {
                self.metrics.refused(Refusal::Timeout);
                return GreetError::Unreachable;
            }
            quinn::ConnectionError::Reset
            | quinn::ConnectionError::LocallyClosed
            | quinn::ConnectionError::CidsExhausted => return GreetError::Unreachable,
        };
        self.metrics.refused(refusal);
        GreetError::Refused
    }
}
