//! One connection to the server and one request at a time on it.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::core::answer::Head;
use super::core::events::Stream;
use super::core::tally::Answered;
use super::core::tally::Failure;
use super::core::tally::Tally;
use crate::base::clock::Clock;
use crate::base::clock::Instant;

/// Bytes taken from the socket at once; a head must fit.
const READ_BYTES: usize = 64 << 10;

/// A connection that opens when it is needed and stays open while the server lets it.
pub(super) struct Connection {
    address: String,
    socket: Option<TcpStream>,
    input: Vec<u8>,
    stream: Stream,
    clock: Clock,
}

impl Connection {
    /// To `host:port`.
    pub(super) fn new(address: String) -> Self {
        Self { address, socket: None, input: vec![0; READ_BYTES], stream: Stream::default(), clock: Clock }
    }

    /// Sends `request` and reads its answer; times count from `due`. Gaps between tokens go to `tally` at once.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        due: Instant,
        streamed: bool,
        tally: &parking_lot::Mutex<Tally>,
    ) -> Result<Answered, Failure> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.address).await.map_err(|_any| Failure::Connect)?,
        };
        socket.write_all(request).await.map_err(|_any| Failure::Closed)?;
        let (mut head, mut filled) = self.head(&mut socket).await?;
        let mut reading = Reading { due, streamed: streamed && head.status / 100 == 2, ..Reading::new(due) };
        self.stream.reset();
        let is_whole = loop {
            let taken = self.body(&mut head, filled, &mut reading, tally)?;
            if head.is_done() {
                break taken == filled;
            }
            // Less than all was taken: a line that has not ended; what follows is put behind it.
            self.input.copy_within(taken..filled, 0);
            filled -= taken;
            match socket.read(&mut self.input[filled..]).await {
                Ok(0) if head.ends_with_connection() => break false,
                Ok(0) | Err(_) => return Err(Failure::Closed),
                Ok(read) => filled += read,
            }
        };
        if is_whole && head.keeps_alive {
            self.socket = Some(socket);
        }
        self.judge(&head, &reading)
    }

    /// Reads up to the end of the head; what follows it is left at the start of `input`, and its length returned.
    async fn head(&mut self, socket: &mut TcpStream) -> Result<(Head, usize), Failure> {
        let mut filled = 0;
        loop {
            match socket.read(&mut self.input[filled..]).await {
                Ok(0) | Err(_) => return Err(Failure::Closed),
                Ok(read) => filled += read,
            }
            let Some((head, length)) = Head::read(&self.input[..filled]).map_err(|_any| Failure::Malformed)? else {
                continue;
            };
            self.input.copy_within(length..filled, 0);
            filled -= length;
            if head.status / 100 != 1 {
                return Ok((head, filled));
            }
        }
    }

    fn body(
        &mut self,
        head: &mut Head,
        filled: usize,
        reading: &mut Reading,
        tally: &parking_lot::Mutex<Tally>,
    ) -> Result<usize, Failure> {
        let mut contents = 0;
        let stream = &mut self.stream;
        let taken = head.body(&self.input[..filled], |piece| {
            reading.bytes += piece.len() as u64;
            if reading.streamed {
                let seen = stream.push(piece);
                reading.events += seen.events;
                contents += seen.contents;
            }
        });
        if contents > 0 {
            reading.tokens(self.clock.now(), contents, tally);
        }
        taken.map_err(|_any| Failure::Malformed)
    }

    fn judge(&self, head: &Head, reading: &Reading) -> Result<Answered, Failure> {
        if head.status / 100 != 2 {
            return Err(Failure::Status(head.status));
        }
        if reading.streamed && self.stream.has_failed() {
            return Err(Failure::ErrorEvent);
        }
        if reading.streamed && !self.stream.is_done() {
            return Err(Failure::NotDone);
        }
        Ok(Answered {
            latency: self.clock.now() - reading.due,
            first_token: reading.first.map(|at| at - reading.due),
            events: reading.events,
            bytes: reading.bytes,
        })
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// What was read of one answer so far.
struct Reading {
    due: Instant,
    streamed: bool,
    first: Option<Instant>,
    last: Option<Instant>,
    events: u64,
    bytes: u64,
}

impl Reading {
    fn new(due: Instant) -> Self {
        Self { due, streamed: false, first: None, last: None, events: 0, bytes: 0 }
    }

    /// `count` texts came in one read: the first after a gap, the others at once.
    fn tokens(&mut self, now: Instant, count: u64, tally: &parking_lot::Mutex<Tally>) {
        let mut tally = tally.lock();
        match self.last {
            Some(last) => tally.between_tokens.record(now - last),
            None => self.first = Some(now),
        }
        if count > 1 {
            tally.between_tokens.record_many(Duration::ZERO, count - 1);
        }
        self.last = Some(now);
    }
}
