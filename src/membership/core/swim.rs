//! foca, as the core uses it: a life of a node is its identity, `wire` its codec, and what it wants done is collected.

use std::num::NonZeroU8;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Buf;
use bytes::BufMut;
use foca::Codec;
use foca::Header;
use foca::Identity;
use foca::Notification;
use foca::OwnedNotification;
use foca::PeriodicParams;
use foca::Runtime;
use foca::Timer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::membership::Config;
use crate::transport::Peer;
use crate::transport::wire;
use crate::transport::wire::WireError;

pub(super) type Foca = foca::Foca<Peer, Wire, Entropy, foca::NoCustomBroadcast>;

/// Largest packet: it fits the first datagram of a connection, before QUIC has learned that larger ones pass.
const PACKET_BYTES_MAX: NonZeroUsize = at_least_one(1100);
/// How often an update is passed on. foca's own rule gives 3 for five nodes; at 20 % loss that is 52 false downs an hour, 10 gives 2.5.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::MIN.saturating_add(9);
/// Others that a probe is repeated through, and that each round of gossip goes to.
const FANOUT: NonZeroUsize = at_least_one(3);
const GOSSIP_PERIOD: Duration = Duration::from_millis(200);
/// Each node asks one other for members this often: what gossip lost is found again.
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(10);
/// How long foca refuses a life that is over. Longer than any of its packets can still be under way.
const REMEMBER_DOWN: Duration = Duration::from_secs(300);

impl Identity for Peer {
    type Addr = NodeId;

    /// A new life for a node that others hold for dead. The step doubles, so that it outruns any life that a clock
    /// once set in the future left behind.
    fn renew(&self) -> Option<Self> {
        let generation = self.generation.saturating_add(1 << self.renewals.min(62));
        Some(Self { generation, renewals: self.renewals.saturating_add(1), ..self.clone() })
    }

    fn addr(&self) -> NodeId {
        self.node.clone()
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        (self.generation, self.storage, self.boot) > (other.generation, other.storage, other.boot)
    }
}

/// `wire`, as foca asks for it: nothing is written when it does not fit.
#[derive(Debug)]
pub(super) struct Wire;

#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the packet is full")]
    Full,
}

impl Wire {
    fn put(item: &impl Serialize, mut into: impl BufMut) -> Result<(), CodecError> {
        let bytes = wire::put(item)?;
        if into.remaining_mut() < bytes.len() {
            return Err(CodecError::Full);
        }
        into.put_slice(&bytes);
        Ok(())
    }

    fn take<T: DeserializeOwned>(mut from: impl Buf) -> Result<T, CodecError> {
        let (item, len) = wire::take(from.chunk())?;
        from.advance(len);
        Ok(item)
    }
}

impl Codec<Peer> for Wire {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Peer>, into: impl BufMut) -> Result<(), CodecError> {
        Self::put(header, into)
    }

    fn decode_header(&mut self, from: impl Buf) -> Result<Header<Peer>, CodecError> {
        Self::take(from)
    }

    fn encode_member(&mut self, member: &foca::Member<Peer>, into: impl BufMut) -> Result<(), CodecError> {
        Self::put(member, into)
    }

    fn decode_member(&mut self, from: impl Buf) -> Result<foca::Member<Peer>, CodecError> {
        Self::take(from)
    }
}

/// Who a packet says it is from, and in which incarnation.
pub(super) fn sender(packet: &[u8]) -> Option<(Peer, u16)> {
    Wire.decode_header(packet).ok().map(|header| (header.src, header.src_incarnation))
}

/// What foca wants done.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) packets: Vec<(Peer, Vec<u8>)>,
    pub(super) timers: Vec<(Duration, Timer<Peer>)>,
    pub(super) notes: Vec<OwnedNotification<Peer>>,
}

impl Runtime<Peer> for Collected {
    fn notify(&mut self, note: Notification<'_, Peer>) {
        self.notes.push(note.to_owned());
    }

    fn send_to(&mut self, to: Peer, packet: &[u8]) {
        self.packets.push((to, packet.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Peer>, after: Duration) {
        self.timers.push((after, timer));
    }
}

const fn at_least_one(n: usize) -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(n - 1)
}

pub(super) fn new(me: Peer, config: &Config, entropy: Entropy) -> Foca {
    let mut swim = foca::Config::simple();
    swim.probe_period = config.probe_period;
    swim.probe_rtt = config.probe_rtt;
    swim.suspect_to_down_after = config.suspect_for;
    swim.num_indirect_probes = FANOUT;
    swim.notify_down_members = true;
    swim.remove_down_after = Some(REMEMBER_DOWN);
    swim.periodic_gossip = Some(PeriodicParams { frequency: GOSSIP_PERIOD, num_members: FANOUT });
    swim.periodic_announce = Some(PeriodicParams { frequency: ANNOUNCE_PERIOD, num_members: NonZeroUsize::MIN });
    swim.max_packet_size = PACKET_BYTES_MAX;
    swim.max_transmissions = TRANSMISSIONS;
    Foca::new(me, swim, entropy, Wire)
}
