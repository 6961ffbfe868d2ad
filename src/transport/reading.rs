//! What is left of a stream that carries one message.

use bytes::Bytes;
use bytes::BytesMut;

/// Why it was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is longer than it may be.
    TooLong,
    /// The stream or its connection has ended before.
    Broken,
}

/// The rest, in order, as what was read of the stream before. Quinn's own `read_to_end` takes pieces in any order: of a piece that came twice, because it was sent again (RFC 9000 13.3), it gives what was read before once
/// more, so the message begins with a byte that is none of its own (quinn-proto 0.11.19), and what is counted wrong then makes a debug build panic with the connection's lock held.
pub(super) async fn rest(stream: &mut quinn::RecvStream, bytes_max: usize) -> Result<Bytes, Unread> {
    let mut all = BytesMut::new();
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.map_err(|_lost| Unread::Broken)? {
        if all.len() + chunk.bytes.len() > bytes_max {
            return Err(Unread::TooLong);
        }
        all.extend_from_slice(&chunk.bytes);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::net::UdpSocket;
    use tokio::task::JoinSet;

    use super::*;
    use crate::transport::tests::eventually;

    const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const LIMIT: Duration = Duration::from_secs(20);

    /// A way between two ends on which a packet of the first can be made late.
    #[derive(Clone)]
    struct Way {
        back: Arc<UdpSocket>,
        late: Arc<Mutex<Late>>,
    }

    enum Late {
        Nothing,
        TheNext,
        This(Vec<u8>),
    }

    impl Way {
        /// The packet that was late arrives.
        async fn release(&self) {
            let late = std::mem::replace(&mut *self.late.lock(), Late::Nothing);
            let Late::This(packet) = late else { panic!("none is late") };
            self.back.send(&packet).await.expect("it is open");
        }

        fn is_late(&self, packet: &[u8]) -> bool {
            let mut late = self.late.lock();
            let is_it = matches!(*late, Late::TheNext);
            if is_it {
                *late = Late::This(packet.to_vec());
            }
            is_it
        }

        async fn carry(self, front: UdpSocket) {
            let (mut forth, mut home, mut asker) = ([0; 2048], [0; 2048], None);
            loop {
                tokio::select! {
                    came = front.recv_from(&mut forth) => {
                        let (len, from) = came.expect("it is open");
                        asker = Some(from);
                        if !self.is_late(&forth[..len]) {
                            self.back.send(&forth[..len]).await.expect("it is open");
                        }
                    }
                    came = self.back.recv(&mut home) => {
                        let len = came.expect("it is open");
                        front.send_to(&home[..len], asker.expect("who asks speaks first")).await.expect("it is open");
                    }
                }
            }
        }
    }

    fn ends() -> (quinn::Endpoint, quinn::Endpoint) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("it is one");
        let server =
            quinn::ServerConfig::with_single_cert(vec![made.cert.der().clone()], key.into()).expect("they fit");
        let mut client = quinn::Endpoint::client(LOCAL).expect("loopback is free");
        client.set_default_client_config(quinn::ClientConfig::with_root_certificates(Arc::new(roots)).expect("roots"));
        (client, quinn::Endpoint::server(server, LOCAL).expect("loopback is free"))
    }

    /// Two connected ends, the way from the first, and what keeps them.
    async fn connected() -> (quinn::Connection, quinn::Connection, Way, ([quinn::Endpoint; 2], JoinSet<()>)) {
        let (client, server) = ends();
        let (front, back) = (UdpSocket::bind(LOCAL).await.expect("free"), UdpSocket::bind(LOCAL).await.expect("free"));
        back.connect(server.local_addr().expect("bound")).await.expect("loopback");
        let at = front.local_addr().expect("bound");
        let way = Way { back: Arc::new(back), late: Arc::new(Mutex::new(Late::Nothing)) };
        let mut carrying = JoinSet::new();
        carrying.spawn(way.clone().carry(front));
        let dial = async { client.connect(at, "localhost").expect("an address").await.expect("connects") };
        let accept = async { server.accept().await.expect("somebody comes").await.expect("connects") };
        let (from, to) = tokio::join!(dial, accept);
        (from, to, way, ([client, server], carrying))
    }

    #[tokio::test]
    async fn what_came_twice_before_it_was_read_is_read_once() {
        let (from, to, way, _kept) = connected().await;
        *way.late.lock() = Late::TheNext;
        let mut stream = from.open_uni().await.expect("it is open");
        stream.write_all(b"\x07a message").await.expect("it is open");
        stream.finish().expect("it was not");
        eventually("it was sent again", || to.stats().frame_rx.stream == 1).await;
        way.release().await;
        eventually("it came twice", || to.stats().frame_rx.stream == 2).await;
        let reading = async {
            let (mut stream, mut lane) = (to.accept_uni().await.expect("it is open"), [0]);
            stream.read_exact(&mut lane).await.expect("it is there");
            (lane, rest(&mut stream, 100).await)
        };
        let (lane, message) = tokio::time::timeout(LIMIT, reading).await.expect("in time");
        assert_eq!((lane, message), ([7], Ok(Bytes::from_static(b"a message"))));
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_read_to_its_end() {
        let (from, to, _way, _kept) = connected().await;
        let mut stream = from.open_uni().await.expect("it is open");
        stream.write_all(&[1; 1000]).await.expect("it is open");
        stream.finish().expect("it was not");
        let reading = async { rest(&mut to.accept_uni().await.expect("it is open"), 999).await };
        assert_eq!(tokio::time::timeout(LIMIT, reading).await.expect("in time"), Err(Unread::TooLong));
    }
}
