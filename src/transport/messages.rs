//! What comes from a peer, and how what goes to it gets there: messages, questions with the way back for their answers, and datagrams that may be late.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::datagram;
use super::datagram::Datagram;
use super::lanes::Lane;
use super::metrics::Drop as Dropped;
use super::metrics::Metrics;
use super::peer::Peer;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::chaos;
use crate::chaos::core::Carrier;
use crate::chaos::core::Heading;
use crate::chaos::core::Verdict;

/// A message of a peer.
#[derive(Clone, Debug)]
pub struct Received {
    /// Who sent it; the node id is certified.
    pub from: Arc<Peer>,
    /// What it sent.
    pub bytes: Bytes,
}

/// A question of a peer.
#[derive(Debug)]
pub struct Request {
    /// Who asks; the node id is certified.
    pub from: Arc<Peer>,
    /// What.
    pub bytes: Bytes,
    /// Where the answer goes.
    pub answer: Reply,
}

/// Where an answer goes. Dropped without one, the peer hears that there is none; who asked in a datagram has a deadline for that.
#[derive(Debug)]
pub struct Reply(pub(super) Way);

#[derive(Debug)]
pub(super) enum Way {
    /// It was no question.
    Nowhere,
    Stream(oneshot::Sender<Bytes>),
    Datagram {
        lane: Lane,
        id: u32,
        back: Back,
    },
}

/// How a datagram gets to the peer, whenever that is.
#[derive(Clone, Debug)]
pub(super) struct Back {
    pub(super) peer: Arc<Peer>,
    pub(super) conn: quinn::Connection,
    pub(super) queue: mpsc::Sender<Outgoing>,
    pub(super) chaos: chaos::Handle,
    pub(super) metrics: Metrics,
}

impl Back {
    /// False: it was dropped, and counted. What a fault on purpose takes is sent, as far as anybody here can know.
    pub(super) fn send(&self, lane: Lane, datagram: &Datagram) -> bool {
        let bytes = datagram::write(datagram, lane);
        let (is_sent, why) =
            match self.chaos.message(self.peer.node.as_str(), Heading::Out, lane.is_gossip(), Carrier::Datagram) {
                Verdict::Pass => (self.conn.send_datagram(bytes).is_ok(), Dropped::TooLarge),
                Verdict::Late(by) => {
                    let late = Outgoing { lane, bytes, is_datagram: true, due: Some(Clock.now() + by) };
                    (self.queue.try_send(late).is_ok(), Dropped::QueueFull)
                }
                Verdict::Cut => {
                    self.metrics.dropped(Dropped::OnPurpose);
                    (true, Dropped::OnPurpose)
                }
            };
        if !is_sent {
            self.metrics.dropped(why);
        }
        is_sent
    }
}

impl Reply {
    /// Goes to a test.
    #[cfg(test)]
    pub(crate) fn to(asker: oneshot::Sender<Bytes>) -> Self {
        Self(Way::Stream(asker))
    }

    /// Answers. Nobody is told whether it arrives.
    pub fn send(self, bytes: Bytes) {
        match self.0 {
            Way::Nowhere => {}
            Way::Stream(reply) => drop(reply.send(bytes)), // gone: its deadline has passed
            Way::Datagram { lane, id, back } => {
                back.metrics.sent(lane, bytes.len());
                back.send(lane, &Datagram::Answer(id, bytes)); // what did not go was counted
            }
        }
    }
}

/// Something to be written to the peer: a message on a stream of its own, or a whole datagram.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) lane: Lane,
    pub(super) bytes: Bytes,
    pub(super) is_datagram: bool,
    /// Not before: a fault on purpose.
    pub(super) due: Option<Instant>,
}
