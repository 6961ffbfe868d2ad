//! One connection to one peer: the greeting that makes it, and the streams and datagrams on it.
//!
//! ```text
//! dialler                     acceptor
//!   │── handshake (mTLS) ────────▶│   each checks the other's certificate
//!   │── Hello {class, peer} ─────▶│   the peer's node id must be the certificate's
//!   │◀───────────────── peer ─────│   reading this is what makes the connection
//! ```

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::time::sleep_until;
use tokio::time::timeout;

use super::datagram;
use super::datagram::Datagram;
use super::handle::RequestError;
use super::lanes::Class;
use super::lanes::Lane;
use super::lanes::Pacer;
use super::messages::Back;
use super::messages::Outgoing;
use super::messages::Received;
use super::messages::Reply;
use super::messages::Request;
use super::messages::Way;
use super::metrics::Drop as Dropped;
use super::metrics::Metrics;
use super::peer::Peer;
use super::reading;
use super::reading::Unread;
use super::stream::Stream;
use super::wire;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::chaos;
use crate::chaos::core::Carrier;
use crate::chaos::core::Heading;
use crate::chaos::core::Verdict;

/// Longest greeting.
const HELLO_BYTES_MAX: usize = 1 << 10;
/// A message must arrive or leave within this, or its stream is reset: a peer that trickles would hold streams for ever.
pub(super) const STREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait to be written to one peer. Beyond it sending fails; who sends deltas then leaves it to the next exchange.
const QUEUE_LEN_MAX: usize = 256;
/// Messages written to one peer at the same time, each on its stream, so that a large one does not hold up a small one.
const WRITERS_MAX: usize = 16;
/// Questions to one peer that wait for the answer in a datagram. Each lives as long as its deadline, milliseconds.
const ASKED_MAX: usize = 1024;
/// Piece of bulk data between two looks at the pacer.
const PIECE_BYTES: usize = 64 << 10;
/// Messages of one link that a fault on purpose makes late, each way. Beyond it they are dropped, as by a network whose buffers are full.
const LATE_MAX: usize = 1024;
/// Beside a round trip and a quarter, what passes until QUIC sends a lost packet again: the peer may hold its acknowledgement for so long.
const ACK_DELAY: Duration = Duration::from_millis(25);
/// A connection that is asked and says nothing for this long is replaced if it can be. Shorter dials who is only slow; longer waits when a way is there again.
const SILENT: Duration = Duration::from_millis(1500);
const RTT_SAMPLE_PERIOD: Duration = Duration::from_secs(10);
/// Application code of a stream that is not answered.
pub(super) const UNANSWERED: quinn::VarInt = quinn::VarInt::from_u32(1);

/// Where what peers send is put, one queue a lane.
#[derive(Clone, Debug)]
pub(super) struct Outlets {
    pub(super) swim: mpsc::Sender<Received>,
    pub(super) deltas: mpsc::Sender<Received>,
    pub(super) sync: mpsc::Sender<Request>,
    pub(super) ledger: mpsc::Sender<Request>,
    pub(super) bulk: mpsc::Sender<Request>,
    pub(super) raft: mpsc::Sender<Request>,
    pub(super) limits: mpsc::Sender<Received>,
    pub(super) renewals: mpsc::Sender<Request>,
    pub(super) forward: mpsc::Sender<Stream>,
}

/// What all links of a node share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) outlets: Outlets,
    pub(super) metrics: Metrics,
    pub(super) pacer: Arc<Mutex<Pacer>>,
    pub(super) chaos: chaos::Handle,
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    class: Class,
    peer: Peer,
}

/// Why a greeting failed.
#[derive(Debug)]
pub(super) enum HelloError {
    /// The connection broke: the peer refused us, or is gone.
    Broken,
    /// It could not be read.
    Malformed,
    /// The node it names is not the certificate's.
    Spoofed,
}

/// Says who we are and reads who the peer is.
pub(super) async fn greet(conn: &quinn::Connection, me: &Peer, class: Class) -> Result<Peer, HelloError> {
    let (mut send, mut recv) = conn.open_bi().await.map_err(|_lost| HelloError::Broken)?;
    let hello = wire::encode(&Hello { class, peer: me.clone() }).map_err(|_bug| HelloError::Malformed)?;
    send.write_all(&hello).await.map_err(|_lost| HelloError::Broken)?;
    let _ = send.finish(); // fails only when the peer has already reset it, which the read below tells
    let answer = recv.read_to_end(HELLO_BYTES_MAX).await.map_err(|_lost| HelloError::Broken)?;
    wire::decode::<Peer, HELLO_BYTES_MAX>(&answer).map_err(|_unread| HelloError::Malformed)
}

/// The other side of [`greet`]. `is_certified` says whether a node id is the certificate's: nothing is answered before.
pub(super) async fn answer(
    conn: &quinn::Connection,
    me: &Peer,
    is_certified: impl Fn(&Peer) -> bool,
) -> Result<(Peer, Class), HelloError> {
    let (mut send, mut recv) = conn.accept_bi().await.map_err(|_lost| HelloError::Broken)?;
    let hello = match recv.read_to_end(HELLO_BYTES_MAX).await {
        Ok(hello) => hello,
        Err(quinn::ReadToEndError::TooLong) => return Err(HelloError::Malformed),
        Err(quinn::ReadToEndError::Read(_)) => return Err(HelloError::Broken),
    };
    let hello = wire::decode::<Hello, HELLO_BYTES_MAX>(&hello).map_err(|_unread| HelloError::Malformed)?;
    if !is_certified(&hello.peer) {
        return Err(HelloError::Spoofed);
    }
    let own = wire::encode(me).map_err(|_bug| HelloError::Malformed)?;
    send.write_all(&own).await.map_err(|_lost| HelloError::Broken)?;
    let _ = send.finish(); // likewise
    Ok((hello.peer, hello.class))
}

/// A connection that was made.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: Arc<Peer>,
    pub(super) class: Class,
    pub(super) conn: quinn::Connection,
    back: Back,
    asked: Mutex<Asked>,
    heard: Mutex<(u64, Instant)>,
    shared: Shared,
}

/// Questions in datagrams that are not answered yet. BOUND: [`ASKED_MAX`]; further ones are streams.
#[derive(Debug, Default)]
struct Asked {
    last: u32,
    waiting: HashMap<u32, oneshot::Sender<Bytes>>,
}

/// A question in a datagram, forgotten when nobody waits for it any more.
struct Waiting<'a> {
    link: &'a Link,
    id: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.asked.lock().waiting.remove(&self.id);
    }
}

/// What is still to be written; for [`Link::run`].
pub(super) type Queue = mpsc::Receiver<Outgoing>;

impl Link {
    pub(super) fn new(peer: Peer, class: Class, conn: quinn::Connection, shared: Shared) -> (Self, Queue) {
        let (queue, rest) = mpsc::channel(QUEUE_LEN_MAX);
        let (peer, chaos, metrics) = (Arc::new(peer), shared.chaos.clone(), shared.metrics.clone());
        let back = Back { peer: Arc::clone(&peer), conn: conn.clone(), queue, chaos, metrics };
        let heard = Mutex::new((0, Clock.now()));
        (Self { peer, class, conn, back, asked: Mutex::default(), heard, shared }, rest)
    }

    /// Whether nothing came for [`SILENT`], by the packets that had come when it was `heard` last. For whoever waited for an answer: a connection on which nothing is asked is silent, too.
    pub(super) fn is_silent(&self) -> bool {
        let (packets, now) = (self.conn.stats().udp_rx.datagrams, Clock.now());
        let mut heard = self.heard.lock();
        if heard.0 != packets {
            *heard = (packets, now);
        }
        now.saturating_duration_since(heard.1) >= SILENT
    }

    /// Sends a message. False: it was dropped, and counted.
    pub(super) fn send(&self, lane: Lane, bytes: Bytes) -> bool {
        let len = bytes.len();
        let is_sent = if self.fits(lane, len) {
            self.back.send(lane, &Datagram::Message(bytes))
        } else {
            self.queue(lane, bytes)
        };
        if is_sent {
            self.shared.metrics.sent(lane, len);
        }
        is_sent
    }

    fn queue(&self, lane: Lane, bytes: Bytes) -> bool {
        let due = match self.fate(lane, Heading::Out) {
            Verdict::Pass => None,
            Verdict::Late(by) => Some(Clock.now() + by),
            Verdict::Cut => {
                self.shared.metrics.dropped(Dropped::OnPurpose);
                return true;
            }
        };
        let is_queued = self.back.queue.try_send(Outgoing { lane, bytes, is_datagram: false, due }).is_ok();
        if !is_queued {
            self.shared.metrics.dropped(Dropped::QueueFull);
        }
        is_queued
    }

    /// What a fault on purpose makes of a stream's message.
    fn fate(&self, lane: Lane, heading: Heading) -> Verdict {
        if self.shared.chaos.is_well() {
            return Verdict::Pass;
        }
        let repeat_after = self.conn.rtt().mul_f64(1.25) + ACK_DELAY;
        let carrier = Carrier::Stream(repeat_after);
        self.shared.chaos.message(self.peer.node.as_str(), heading, lane.is_gossip(), carrier)
    }

    /// Waits as long as a fault on purpose wants. Never ends where it lets nothing pass: whoever waits has a deadline.
    async fn pass(&self, lane: Lane, heading: Heading) {
        match self.fate(lane, heading) {
            Verdict::Pass => {}
            Verdict::Late(by) => Clock.sleep(by).await,
            Verdict::Cut => pending().await,
        }
    }

    /// The same of a question that came, or of its answer. False: it does not pass, and whoever asked has given up, or is made to.
    async fn passes(&self, lane: Lane, heading: Heading, send: &mut quinn::SendStream) -> bool {
        match self.fate(lane, heading) {
            Verdict::Pass => true,
            Verdict::Late(by) => {
                Clock.sleep(by).await;
                true
            }
            Verdict::Cut => {
                self.shared.metrics.dropped(Dropped::OnPurpose);
                let _ = timeout(STREAM_TIMEOUT, send.stopped()).await; // told at once, the asker would know more than over a cut wire
                let _ = send.reset(UNANSWERED); // fails only when the peer has gone
                false
            }
        }
    }

    /// Whether it is sent in one datagram.
    fn fits(&self, lane: Lane, len: usize) -> bool {
        lane.is_brief() && self.conn.max_datagram_size().is_some_and(|max| len + datagram::HEAD_BYTES <= max)
    }

    /// Asks and waits for the answer.
    pub(super) async fn request(&self, lane: Lane, bytes: &[u8]) -> Result<Bytes, RequestError> {
        if self.fits(lane, bytes.len())
            && let Some((waiting, answer)) = self.ask()
        {
            let question = Datagram::Question(waiting.id, Bytes::copy_from_slice(bytes));
            if !self.back.send(lane, &question) {
                return Err(RequestError::Lost);
            }
            return answer.await.map_err(|_ended| RequestError::Lost);
        }
        let lost = |_| RequestError::Lost;
        self.pass(lane, Heading::Out).await;
        let (mut send, mut recv) = self.conn.open_bi().await.map_err(lost)?;
        self.write(lane, &mut send, bytes, true).await.map_err(|_lost| RequestError::Lost)?;
        match recv.read_to_end(lane.bytes_max()).await {
            Ok(answer) => {
                self.pass(lane, Heading::In).await;
                self.shared.metrics.received(lane, answer.len());
                Ok(answer.into())
            }
            Err(quinn::ReadToEndError::TooLong) => Err(RequestError::TooLarge),
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(UNANSWERED))) => Err(RequestError::Unanswered),
            Err(quinn::ReadToEndError::Read(_)) => Err(RequestError::Lost),
        }
    }

    fn ask(&self) -> Option<(Waiting<'_>, oneshot::Receiver<Bytes>)> {
        let mut asked = self.asked.lock();
        if asked.waiting.len() >= ASKED_MAX {
            return None;
        }
        asked.last = asked.last.wrapping_add(1);
        let (id, (reply, answer)) = (asked.last, oneshot::channel());
        asked.waiting.insert(id, reply);
        Some((Waiting { link: self, id }, answer))
    }

    /// Opens a stream of the forwarding lane.
    pub(super) async fn open(&self) -> Result<Stream, RequestError> {
        self.pass(Lane::Forward, Heading::Out).await;
        let (mut send, recv) = self.conn.open_bi().await.map_err(|_lost| RequestError::Lost)?;
        send.write_all(&[Lane::Forward.byte()]).await.map_err(|_lost| RequestError::Lost)?;
        Ok(self.stream(send, recv, true))
    }

    /// Ends it at once; what is under way is lost.
    pub(super) fn close(&self, reason: &'static str) {
        self.conn.close(quinn::VarInt::from_u32(0), reason.as_bytes());
    }

    /// Reads and writes until the connection ends.
    pub(super) async fn run(self: Arc<Self>, queue: Queue) {
        self.carry(queue).await;
        self.asked.lock().waiting.clear(); // whoever waits learns that no answer comes
    }

    async fn carry(&self, queue: Queue) {
        let (mut reading, mut late) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut sample = tokio::time::interval_at(Clock.now() + RTT_SAMPLE_PERIOD, RTT_SAMPLE_PERIOD);
        let writing = self.write_queue(queue);
        tokio::pin!(writing);
        // BOUND: quinn lets the peer open only so many streams, see `driver::quic`; each read has a deadline.
        loop {
            tokio::select! {
                () = &mut writing => return,
                Some(()) = reading.next(), if !reading.is_empty() => {}
                Some((lane, datagram)) = late.next(), if !late.is_empty() => self.deliver(lane, datagram),
                datagram = self.conn.read_datagram() => match datagram.map(|it| self.take_datagram(it)) {
                    Ok(None) => {}
                    Ok(Some(_)) if late.len() >= LATE_MAX => self.shared.metrics.dropped(Dropped::QueueFull),
                    Ok(Some((by, lane, datagram))) => late.push(async move {
                        Clock.sleep(by).await;
                        (lane, datagram)
                    }),
                    Err(_) => return,
                },
                stream = self.conn.accept_uni() => match stream {
                    Ok(stream) => reading.push(futures_util::future::Either::Left(self.take_message(stream))),
                    Err(_) => return,
                },
                stream = self.conn.accept_bi() => match stream {
                    Ok((send, recv)) => reading.push(futures_util::future::Either::Right(self.take_request(send, recv))),
                    Err(_) => return,
                },
                _ = sample.tick() => self.shared.metrics.rtt(self.conn.rtt()),
            }
        }
    }

    async fn write_queue(&self, mut queue: Queue) {
        let (mut writing, mut late) = (FuturesUnordered::new(), FuturesUnordered::new());
        loop {
            tokio::select! {
                Some(()) = writing.next(), if !writing.is_empty() => {}
                Some(message) = late.next(), if !late.is_empty() => writing.push(self.write_out(message)),
                message = queue.recv(), if writing.len() < WRITERS_MAX && late.len() < LATE_MAX => match message {
                    Some(message @ Outgoing { due: Some(due), .. }) => late.push(async move {
                        sleep_until(due).await;
                        message
                    }),
                    Some(message) => writing.push(self.write_out(message)),
                    None => return,
                },
            }
        }
    }

    async fn write_out(&self, Outgoing { lane, bytes, is_datagram, .. }: Outgoing) {
        if is_datagram {
            if self.conn.send_datagram(bytes).is_err() {
                self.shared.metrics.dropped(Dropped::TooLarge);
            }
            return;
        }
        let write = async {
            let mut stream = self.conn.open_uni().await.map_err(io::Error::from)?;
            self.write(lane, &mut stream, &bytes, true).await
        };
        if !matches!(timeout(STREAM_TIMEOUT, write).await, Ok(Ok(()))) {
            self.shared.metrics.dropped(Dropped::NoLink);
        }
    }

    /// Writes a whole message, with its lane in front or not, at the pace of its class.
    async fn write(&self, lane: Lane, stream: &mut quinn::SendStream, bytes: &[u8], named: bool) -> io::Result<()> {
        if named {
            stream.write_all(&[lane.byte()]).await?;
        }
        for piece in bytes.chunks(PIECE_BYTES) {
            if lane.class() == Class::Bulk {
                let pause = self.shared.pacer.lock().take(Clock.now(), piece.len());
                Clock.sleep(pause).await;
            }
            stream.write_all(piece).await?;
        }
        let _ = stream.finish(); // fails only when the peer has reset it, and then nobody is there to be told
        Ok(())
    }

    /// Takes one. Some: it is late, on purpose.
    fn take_datagram(&self, bytes: Bytes) -> Option<(Duration, Lane, Datagram)> {
        let Some((lane, datagram)) = datagram::read(bytes).filter(|it| it.0.class() == self.class) else {
            self.shared.metrics.dropped(Dropped::NoReader);
            return None;
        };
        let (chaos, node) = (&self.shared.chaos, self.peer.node.as_str());
        match chaos.message(node, Heading::In, lane.is_gossip(), Carrier::Datagram) {
            Verdict::Pass => self.deliver(lane, datagram),
            Verdict::Cut => self.shared.metrics.dropped(Dropped::OnPurpose),
            Verdict::Late(by) => return Some((by, lane, datagram)),
        }
        None
    }

    fn deliver(&self, lane: Lane, datagram: Datagram) {
        match datagram {
            Datagram::Message(bytes) => self.put(lane, bytes),
            Datagram::Question(id, bytes) => {
                self.put_question(lane, bytes, Way::Datagram { lane, id, back: self.back.clone() });
            }
            Datagram::Answer(id, bytes) => {
                self.shared.metrics.received(lane, bytes.len());
                if let Some(reply) = self.asked.lock().waiting.remove(&id) {
                    let _ = reply.send(bytes); // gone: its deadline has passed
                }
            }
        }
    }

    async fn take_message(&self, mut stream: quinn::RecvStream) {
        let read = timeout(STREAM_TIMEOUT, read_message(&mut stream, self.class)).await;
        match read {
            Ok(Ok((lane, bytes))) => match self.fate(lane, Heading::In) {
                Verdict::Pass => self.put(lane, bytes),
                Verdict::Cut => self.shared.metrics.dropped(Dropped::OnPurpose),
                Verdict::Late(by) => {
                    Clock.sleep(by).await;
                    self.put(lane, bytes);
                }
            },
            Ok(Err(why)) => self.refuse(&mut stream, why),
            Err(_elapsed) => self.refuse(&mut stream, Dropped::NoLink),
        }
    }

    fn refuse(&self, stream: &mut quinn::RecvStream, why: Dropped) {
        self.shared.metrics.dropped(why);
        let _ = stream.stop(UNANSWERED); // fails only when all of it has come
    }

    fn put(&self, lane: Lane, bytes: Bytes) {
        let outlet = match lane {
            Lane::Swim => &self.shared.outlets.swim,
            Lane::Deltas => &self.shared.outlets.deltas,
            Lane::Limits => &self.shared.outlets.limits,
            Lane::Ledger => return self.put_question(lane, bytes, Way::Nowhere),
            Lane::Sync | Lane::Forward | Lane::Bulk | Lane::Raft | Lane::Renewals => {
                return self.shared.metrics.dropped(Dropped::NoReader);
            }
        };
        self.shared.metrics.received(lane, bytes.len());
        if let Err(error) = outlet.try_send(Received { from: Arc::clone(&self.peer), bytes }) {
            self.shared.metrics.dropped(why_full(&error));
        }
    }

    fn put_question(&self, lane: Lane, bytes: Bytes, answer: Way) {
        let outlet = match lane {
            Lane::Sync => &self.shared.outlets.sync,
            Lane::Ledger => &self.shared.outlets.ledger,
            Lane::Bulk => &self.shared.outlets.bulk,
            Lane::Raft => &self.shared.outlets.raft,
            Lane::Renewals => &self.shared.outlets.renewals,
            Lane::Swim | Lane::Deltas | Lane::Forward | Lane::Limits => {
                return self.shared.metrics.dropped(Dropped::NoReader);
            }
        };
        self.shared.metrics.received(lane, bytes.len());
        let request = Request { from: Arc::clone(&self.peer), bytes, answer: Reply(answer) };
        if let Err(error) = outlet.try_send(request) {
            self.shared.metrics.dropped(why_full(&error));
        }
    }

    fn put_stream(&self, send: quinn::SendStream, recv: quinn::RecvStream) {
        let Err(error) = self.shared.outlets.forward.try_send(self.stream(send, recv, false)) else { return };
        self.shared.metrics.dropped(why_full(&error));
        error.into_inner().resets = true; // ended, it would look like an answer of no bytes
    }

    fn stream(&self, send: quinn::SendStream, recv: quinn::RecvStream, resets: bool) -> Stream {
        let (chaos, metrics) = (self.shared.chaos.clone(), self.shared.metrics.clone());
        Stream::new(Arc::clone(&self.peer), (recv, send), resets, chaos, metrics)
    }

    async fn take_request(&self, mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
        let mut byte = [0];
        let lane = match timeout(STREAM_TIMEOUT, recv.read_exact(&mut byte)).await {
            Ok(Ok(())) => Lane::from_byte(byte[0]).filter(|lane| lane.class() == self.class),
            Ok(Err(_)) | Err(_) => return self.refuse(&mut recv, Dropped::NoLink),
        };
        let lane = match lane {
            Some(lane @ (Lane::Sync | Lane::Ledger | Lane::Bulk | Lane::Raft | Lane::Renewals)) => lane,
            Some(Lane::Forward) => {
                if self.passes(Lane::Forward, Heading::In, &mut send).await {
                    self.put_stream(send, recv);
                }
                return;
            }
            Some(Lane::Swim | Lane::Deltas | Lane::Limits) | None => return self.refuse(&mut recv, Dropped::NoReader),
        };
        let bytes = match timeout(STREAM_TIMEOUT, reading::rest(&mut recv, lane.bytes_max())).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(Unread::TooLong)) => return self.refuse(&mut recv, Dropped::TooLarge),
            Ok(Err(Unread::Broken)) | Err(_) => return self.refuse(&mut recv, Dropped::NoLink),
        };
        if !self.passes(lane, Heading::In, &mut send).await {
            return;
        }
        let (answer, answered) = oneshot::channel();
        self.put_question(lane, bytes, Way::Stream(answer));
        let Ok(Ok(bytes)) = timeout(STREAM_TIMEOUT, answered).await else {
            let _ = send.reset(UNANSWERED); // fails only when the peer has gone
            return;
        };
        if !self.passes(lane, Heading::Out, &mut send).await {
            return;
        }
        self.shared.metrics.sent(lane, bytes.len());
        // The peer has its own deadline; a link that ends drops this future.
        if self.write(lane, &mut send, &bytes, false).await.is_err() {
            self.shared.metrics.dropped(Dropped::NoLink);
        }
    }
}

async fn read_message(stream: &mut quinn::RecvStream, class: Class) -> Result<(Lane, Bytes), Dropped> {
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map_err(|_lost| Dropped::NoLink)?;
    let lane = Lane::from_byte(byte[0])
        .filter(|it| matches!(it, Lane::Swim | Lane::Deltas | Lane::Ledger) && it.class() == class);
    let lane = lane.ok_or(Dropped::NoReader)?;
    match reading::rest(stream, lane.bytes_max()).await {
        Ok(bytes) => Ok((lane, bytes)),
        Err(Unread::TooLong) => Err(Dropped::TooLarge),
        Err(Unread::Broken) => Err(Dropped::NoLink),
    }
}

fn why_full<T>(error: &TrySendError<T>) -> Dropped {
    match error {
        TrySendError::Full(_) => Dropped::QueueFull,
        TrySendError::Closed(_) => Dropped::NoReader,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::older::Older;

    #[test]
    fn how_an_older_release_greets_is_read() {
        let zone = |it| crate::base::ids::Zone::parse(it).ok();
        let small = Peer { zone: zone("rack-2"), ..crate::transport::tests::peer(7) };
        // No two of its fields are alike, so that none takes the place of another unseen.
        let lives = Peer {
            node: crate::base::ids::NodeId::parse("node-1").unwrap(),
            storage: crate::base::ids::StorageId(u128::MAX - 1),
            boot: 300,
            generation: 1_790_000_000_000,
            renewals: 2,
            addr: ([10, 0, 0, 1], 30_001).into(),
            zone: zone("rack-1"),
        };
        for (file, peer) in [("src/transport/older.hex", small), ("src/transport/older_lives.hex", lives)] {
            let hello = |class| wire::encode(&Hello { class, peer: peer.clone() }).unwrap();
            let now =
                [("main", hello(Class::Main)), ("bulk", hello(Class::Bulk)), ("answer", wire::encode(&peer).unwrap())];
            let older = Older::of(file, &now);
            for (name, class) in [("main", Class::Main), ("bulk", Class::Bulk)] {
                let read = wire::decode::<Hello, HELLO_BYTES_MAX>(older.bytes(name)).unwrap();
                assert_eq!((read.class, read.peer), (class, peer.clone()));
            }
            assert_eq!(wire::decode::<Peer, HELLO_BYTES_MAX>(older.bytes("answer")).unwrap(), peer);
        }
    }
}
