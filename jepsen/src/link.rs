//! Questions to a node that may be dead, cut off or stopped: every one ends in time, with an answer or with a reason.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A node that answers at all does so in a few milliseconds, in some hundred on a busy machine.
const DEADLINE: Duration = Duration::from_secs(5);

/// The connection was closed before anything of the request had been sent.
pub const UNSENT: &str = "closed before the request was sent";

/// A connection to a node, kept between requests.
pub struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<()>,
    /// Whose requests these are.
    pub key: String,
    /// Sent as `x-smg-routing-key`.
    pub routing_key: Option<String>,
    /// Sent as `idempotency-key`.
    pub idempotency_key: Option<String>,
    /// How long an answer is waited for; five seconds unless changed.
    pub deadline: Duration,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Link {
    /// Connects; `key` is whose requests these are.
    ///
    /// # Errors
    /// Why there is no connection.
    #[expect(clippy::disallowed_methods, reason = "the runtime of whoever asks owns it, and it ends with the link")]
    pub async fn open(to: SocketAddr, key: &str) -> Result<Self, String> {
        let stream = timeout(DEADLINE, TcpStream::connect(to)).await.map_err(|_late| "no connection in time")?;
        let stream = stream.map_err(|error| format!("no connection: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let made = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let (sender, connection) = made;
        let connection = tokio::spawn(async move {
            let _ = connection.await; // the request that was under way tells why
        });
        Ok(Self {
            sender,
            connection,
            key: key.to_owned(),
            routing_key: None,
            idempotency_key: None,
            deadline: DEADLINE,
        })
    }

    /// Whether another request can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// One request; status and body.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub async fn call(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Bytes), String> {
        let answer = self.send(method, path, body).await?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    /// The same, for those who read the head.
    ///
    /// # Errors
    /// Why there is no answer: [`UNSENT`] if nothing was sent, otherwise nobody knows whether it was carried out.
    ///
    /// # Panics
    /// When the method, the path or a header is none.
    pub async fn send(&mut self, method: &str, path: &str, body: &str) -> Result<http::Response<Bytes>, String> {
        let request = self.request(method, path, body);
        let answered = async {
            self.sender.ready().await.map_err(|_closed| UNSENT.to_owned())?;
            let (head, body) = self.sender.send_request(request).await.map_err(why)?.into_parts();
            Ok::<_, String>(http::Response::from_parts(head, body.collect().await.map_err(why)?.to_bytes()))
        };
        let answered = timeout(self.deadline, answered).await;
        answered.map_err(|_late| format!("no answer within {:?}", self.deadline))?
    }

    /// GETs a stream; what came of it is in `into` whatever ends it. The status, if it ended by itself in time.
    ///
    /// # Errors
    /// As [`Link::send`].
    ///
    /// # Panics
    /// As [`Link::send`].
    pub async fn stream(&mut self, path: &str, into: &mut Vec<u8>) -> Result<u16, String> {
        let request = self.request("GET", path, "");
        let deadline = self.deadline;
        let flow = async {
            self.sender.ready().await.map_err(|_closed| UNSENT.to_owned())?;
            let (head, mut body) = self.sender.send_request(request).await.map_err(why)?.into_parts();
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(why)?.into_data() {
                    into.extend_from_slice(&data); // BOUND: what a node sends until the deadline
                }
            }
            Ok::<_, String>(head.status.as_u16())
        };
        timeout(deadline, flow).await.map_err(|_late| format!("not ended within {deadline:?}"))?
    }

    /// POSTs for a stream and leaves `after` its first piece: whoever calls drops the link. The status, what came, and whether it had ended before.
    ///
    /// # Errors
    /// As [`Link::send`].
    ///
    /// # Panics
    /// As [`Link::send`].
    pub async fn leave(&mut self, path: &str, body: &str, after: Duration) -> Result<(u16, Vec<u8>, bool), String> {
        let request = self.request("POST", path, body);
        let begun = async {
            self.sender.ready().await.map_err(|_closed| UNSENT.to_owned())?;
            let (head, mut body) = self.sender.send_request(request).await.map_err(why)?.into_parts();
            let first = body.frame().await;
            Ok::<_, String>((head.status.as_u16(), first, body))
        };
        let begun = timeout(self.deadline, begun).await;
        let (status, first, mut body) = begun.map_err(|_late| format!("nothing within {:?}", self.deadline))??;
        let mut came = Vec::new();
        let rest = async {
            let mut frame = first;
            while let Some(it) = frame {
                if let Ok(data) = it.map_err(why)?.into_data() {
                    came.extend_from_slice(&data); // BOUND: what a node sends until `after`
                }
                frame = body.frame().await;
            }
            Ok::<_, String>(())
        };
        let is_whole = match timeout(after, rest).await {
            Ok(ended) => ended.map(|()| true)?,
            Err(_it_is_time) => false,
        };
        Ok((status, came, is_whole))
    }

    fn request(&self, method: &str, path: &str, body: &str) -> http::Request<Full<Bytes>> {
        let request = http::Request::builder().method(method).uri(path).header("host", "smg");
        let request = request.header("authorization", format!("Bearer {}", self.key));
        let mut request = request.header("content-type", "application/json");
        if let Some(key) = &self.routing_key {
            request = request.header("x-smg-routing-key", key);
        }
        if let Some(key) = &self.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request")
    }
}

/// Why there is no answer, in a word that says whether anything was sent.
fn why(error: hyper::Error) -> String {
    if error.is_canceled() { UNSENT.to_owned() } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A node that reads a request, says this, and hangs up.
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    async fn node(says: &'static str) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let read = stream.read(&mut [0; 4096]).await.expect("a request");
            assert!(read > 0);
            stream.write_all(says.as_bytes()).await.expect("it is there");
        });
        address
    }

    #[tokio::test]
    async fn what_was_sent_and_not_answered_is_told_apart_from_what_was_not_sent() {
        let mut link = Link::open(node("").await, "k").await.expect("it listens");
        let lost = link.call("POST", "/", "{}").await.expect_err("it hangs up");
        assert_ne!(lost, UNSENT);
        let unsent = link.call("POST", "/", "{}").await.expect_err("it has hung up");
        assert_eq!(unsent, UNSENT);
    }

    #[tokio::test]
    async fn what_came_of_a_stream_is_there_though_it_was_cut() {
        const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for (says, is_whole) in [("3\r\nabc\r\n0\r\n\r\n", true), ("3\r\nabc\r\n5\r\nde", false)] {
            let says = Box::leak(format!("{HEAD}{says}").into_boxed_str());
            let mut link = Link::open(node(says).await, "k").await.expect("it listens");
            let mut text = Vec::new();
            assert_eq!(link.stream("/", &mut text).await.is_ok(), is_whole);
            assert!(text.starts_with(b"abc"), "{text:?}");
        }
    }
}
