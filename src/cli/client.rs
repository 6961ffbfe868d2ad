//! One question to a running node over HTTP: the smallest client there is, for commands that ask and print.
//!
//! Absent on purpose: pooling, TLS, redirects. Every wait has a deadline.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use bytes::Bytes;
use clap::ArgMatches;
use http::Method;
use http::Request;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::base::setting::Setting as _;
use crate::tenancy::config::KeySpec;

/// A node answers its admin API at once or not at all, but for a drain, which waits for what is in flight.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Longer than the drain timeouts that people set.
pub(super) const DRAIN_DEADLINE: Duration = Duration::from_secs(3600);

/// Longest answer read. Sixteen thousand workers are a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The node that the command line names.
pub(super) struct Node {
    host: String,
    port: u16,
    key: Option<String>,
}

impl Node {
    /// From `--node` and `--key`.
    pub(super) fn of(matches: &ArgMatches) -> anyhow::Result<Self> {
        let url = matches.get_one::<String>("node").expect("it has a default");
        Self::at(url, matches.get_one::<String>("key").cloned().or_else(key_of_environment))
    }

    /// Another node, asked with the same key.
    pub(super) fn beside(&self, url: &str) -> anyhow::Result<Self> {
        Self::at(url, self.key.clone())
    }

    pub(super) fn at(url: &str, key: Option<String>) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("`--node` is not a URL: `{url}`"))?;
        if uri.scheme_str() != Some("http") {
            bail!("`--node` must be an http:// URL, it is: `{url}`");
        }
        let host = uri.host().with_context(|| format!("`--node` names no host: `{url}`"))?.to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(30_000), key })
    }

    /// Asks and waits. An answer that is not 2xx is an error with the node's own words.
    pub(super) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.ask_within(DEADLINE, method, path, body)
    }

    /// The same with another deadline.
    pub(super) fn ask_within(
        &self,
        deadline: Duration,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.answer(deadline, method, path, body))
    }

    /// Reads, on a runtime that is there already.
    pub(super) async fn get(&self, deadline: Duration, path: &str) -> anyhow::Result<Value> {
        self.answer(deadline, Method::GET, path, None).await
    }

    /// The same with any question.
    pub(super) async fn answer(
        &self,
        deadline: Duration,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let body = Bytes::from(body.map(Value::to_string).unwrap_or_default());
        let mut bytes = Vec::new();
        let answer = self.exchange(method, path, body, ANSWER_BYTES_MAX, &mut bytes);
        let status = tokio::time::timeout(deadline, answer)
            .await
            .with_context(|| format!("no answer from {self} in time"))??;
        self.read(status, &bytes)
    }

    /// Writes what is answered as it comes.
    pub(super) fn download(&self, deadline: Duration, path: &str, to: &mut dyn Write) -> anyhow::Result<()> {
        let answer = self.exchange(Method::GET, path, Bytes::new(), usize::MAX, to);
        let status = self.wait(deadline, answer)?;
        anyhow::ensure!(status.is_success(), "{self} answered {status}; its log says why");
        Ok(())
    }

    /// Sends bytes.
    pub(super) fn upload(&self, deadline: Duration, path: &str, body: Vec<u8>) -> anyhow::Result<Value> {
        let mut bytes = Vec::new();
        let answer = self.exchange(Method::POST, path, body.into(), ANSWER_BYTES_MAX, &mut bytes);
        let status = self.wait(deadline, answer)?;
        self.read(status, &bytes)
    }

    fn wait<T>(&self, deadline: Duration, answer: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answered = runtime.block_on(async { tokio::time::timeout(deadline, answer).await });
        answered.with_context(|| format!("no answer from {self} in time"))?
    }

    fn read(&self, status: http::StatusCode, bytes: &[u8]) -> anyhow::Result<Value> {
        let text = String::from_utf8_lossy(bytes);
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|_not_json| Value::String(text.into_owned()));
        if status.is_success() {
            return Ok(json);
        }
        let message = json.pointer("/error/message").and_then(Value::as_str).unwrap_or("no reason given");
        bail!("{self} answered {status}: {message}");
    }

    /// Asks; what is answered goes to `to`, at most so many bytes.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        bytes_max: usize,
        to: &mut dyn Write,
    ) -> anyhow::Result<http::StatusCode> {
        let address = (self.host.trim_matches(['[', ']']), self.port);
        let stream = tokio::net::TcpStream::connect(address).await.with_context(|| format!("cannot reach {self}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request =
            Request::builder().method(method).uri(path).header("host", format!("{}:{}", self.host, self.port));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.header("content-type", "application/json").body(Full::new(body))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let mut body = Limited::new(response.into_body(), bytes_max);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| anyhow::anyhow!(error))?;
                frame.data_ref().map_or(Ok(()), |it| to.write_all(it))?;
            }
            anyhow::Ok(status)
        };
        // The connection is driven here, beside the answer, so nothing is left running.
        let driven = async {
            let _ = connection.await; // its failure is the answer's failure, told there
            std::future::pending().await
        };
        tokio::select! { answer = answer => answer, () = driven => unreachable!("it never ends") }
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// The first key of the variable that the gateway itself reads.
fn key_of_environment() -> Option<String> {
    let keys = std::env::var("SMG_API_KEY").ok()?;
    let keys = Vec::<KeySpec>::parse(&keys).ok()?;
    keys.first().map(|it| it.key.expose().to_owned())
}
