//! Redis: a hash of keys and values, a sorted set of the keys for their order, and a number that every change raises.
//!
//! ```text
//!  decide: WATCH number · rows ┐  rows …  ┐  MULTI · changes · number + 1 · EXEC ┐
//!                     answer ◀┘  answer ◀┘           done, or another was first ◀┘
//! ```
//! Nothing is locked: who finds at the end that another gateway was first begins again. All three keys have the same hash tag. What an answer is worth is what the server makes of it, so it
//! is asked at the beginning how it keeps what it has, and the log says what may be lost.

use std::net::IpAddr;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::ConnectionAddr;
use redis::ConnectionInfo;
use redis::IntoConnectionInfo as _;
use redis::Pipeline;
use redis::RedisError;
use redis::Value;
use redis::aio::MultiplexedConnection;
use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::net::TcpStream;

use super::server::Found;
use super::server::Lost;
use super::server::Purpose;
use super::server::Server;
use super::server::Session;
use super::server::Want;
use super::tls;
use super::tls::Tls;
use super::tls::Trust;
use super::url::InvalidUrl;
use super::url::Url;
use crate::base::secret::Secret;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::history::backend::Doing;
use crate::raft::RowChange;

const CONNECTION: Task = Task { name: "history_redis", stage: Stage::Carry, on_end: OnEnd::Fine };

/// What a URL looks like.
const EXAMPLE: &str = "rediss://USER:PASSWORD@HOST:PORT/NUMBER";
const ROWS: &str = "smg:{history}:rows";
const KEYS: &str = "smg:{history}:keys";
const NUMBER: &str = "smg:{history}:number";
const SCHEMA: &str = "smg:{history}:schema";
/// How the rows lie there.
const SCHEMA_VERSION: i64 = 1;
/// Rows of one command. More hold up whoever else asks the server.
const ROWS_LEN_MAX: usize = 512;
/// A peer that is silent for so long is asked whether it is there.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// See the file's header.
pub(super) struct Redis {
    info: ConnectionInfo,
    tls: Option<Tls>,
    tasks: Tasks,
}

impl Redis {
    pub(super) fn new(url: &Secret, tasks: Tasks) -> Result<Self, InvalidUrl> {
        let url = Url::split(url, tls::OPTIONS);
        let (is_tls, place) = match url.rest.split_once("://") {
            Some(("redis", place)) => (false, place),
            Some(("rediss", place)) => (true, place),
            Some(_) | None => return Err(InvalidUrl::Scheme("rediss://` or `redis://")),
        };
        // The driver's own TLS is left out of the build; it is told of the place alone. The cause is left out: it may quote what is a password.
        let info =
            format!("redis://{place}").into_connection_info().map_err(|_may_quote| InvalidUrl::Unparsed(EXAMPLE))?;
        let unsaid = if is_tls { Trust::Full } else { Trust::Off };
        let tls = Some(Tls::of(&url, unsaid)?).filter(|_| is_tls);
        if tls.as_ref().is_some_and(|it| it.trust < Trust::Encrypt) {
            let value = url.option("sslmode").unwrap_or_default().to_owned();
            let expected = "`require`, `verify-ca` or `verify-full` with `rediss://`";
            return Err(InvalidUrl::Option { name: "sslmode", value, expected });
        }
        match info.addr() {
            ConnectionAddr::Tcp(..) => Ok(Self { info, tls, tasks }),
            _ => Err(InvalidUrl::Unparsed(EXAMPLE)),
        }
    }

    async fn connect(&self) -> Result<Connection, Lost> {
        let ConnectionAddr::Tcp(host, port) = self.info.addr() else { return Err(Lost::Strange) };
        let is_near = host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback());
        match &self.tls {
            Some(tls) => tls.warn_of("redis", is_near),
            None if !is_near => {
                tracing::warn!("history's server is on the network without TLS: `rediss://` in `--history-url` uses it")
            }
            None => {}
        }
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream)
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENT_MAX).with_interval(SILENT_MAX))?;
        let inner = match &self.tls {
            Some(tls) => self.speak(tls.connect(host, stream).await?).await?,
            None => self.speak(stream).await?,
        };
        let mut connection = Connection { inner, begins: None };
        connection.open().await?;
        Ok(connection)
    }

    async fn speak<S>(&self, stream: S) -> Result<MultiplexedConnection, Lost>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        // Whoever asks has a deadline of his own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(self.info.redis_settings(), stream, config).await?;
        self.tasks.spawn(CONNECTION, |stop| async move {
            tokio::select! {
                () = driver => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(connection)
    }
}

impl Server for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn connect(&self) -> Doing<'_, Result<Box<dyn Session>, Lost>> {
        Box::pin(async move { Ok(Box::new(Redis::connect(self).await?) as Box<dyn Session>) })
    }
}

struct Connection {
    inner: MultiplexedConnection,
    /// A transaction that has yet to begin.
    begins: Option<Purpose>,
}

impl Connection {
    /// Whether the server has rows that are understood here, and what it does with them.
    async fn open(&mut self) -> Result<(), Lost> {
        // ORDER: it is asked for first, because a server without room lets nothing be set, and may yet be read.
        let mut found: Option<i64> = redis::cmd("GET").arg(SCHEMA).query_async(&mut self.inner).await?;
        if found.is_none() {
            let mut pipe = redis::pipe();
            pipe.cmd("SETNX").arg(SCHEMA).arg(SCHEMA_VERSION).ignore().cmd("GET").arg(SCHEMA);
            (found,) = pipe.query_async(&mut self.inner).await.map_err(no_room)?;
        }
        let found = found.unwrap_or_default();
        if found != SCHEMA_VERSION {
            return Err(Lost::Newer { found, known: SCHEMA_VERSION });
        }
        for doubt in self.doubts().await {
            tracing::warn!(server = "redis", "{doubt}; see docs/operating/backends.md");
        }
        Ok(())
    }

    /// What may become of answers that were given.
    async fn doubts(&mut self) -> Vec<&'static str> {
        let mut doubts = Vec::new();
        match self.setting("appendonly").await.as_deref() {
            Some("yes") => match self.setting("appendfsync").await.as_deref() {
                Some("always") => {}
                _ => doubts.push("a second of history is lost when the server dies: set `appendfsync always` there"),
            },
            Some(_) => doubts.push("history is lost when the server restarts: set `appendonly yes` and `appendfsync always` there"),
            None => doubts.push("the server does not say how it keeps history: see that it has `appendonly yes` and `appendfsync always`"),
        }
        let has_limit = self.setting("maxmemory").await.is_some_and(|it| it != "0");
        if has_limit && self.setting("maxmemory-policy").await.is_some_and(|it| it.starts_with("allkeys")) {
            doubts.push(
                "the server throws history away when its memory is full: set `maxmemory-policy noeviction` there",
            );
        }
        doubts
    }

    /// None: it may not be asked.
    async fn setting(&mut self, name: &str) -> Option<String> {
        let asked: Result<Vec<String>, _> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut self.inner).await;
        asked.ok()?.into_iter().nth(1)
    }

    async fn fetch(&mut self, wants: &[Want]) -> Result<Vec<Found>, Lost> {
        let mut pipe = redis::pipe();
        if self.begins.take().is_some() {
            pipe.cmd("WATCH").arg(NUMBER).ignore();
        }
        let keys: Vec<&[u8]> = wants.iter().filter_map(row).collect();
        values_of(&mut pipe, &keys);
        wants.iter().for_each(|it| scan(&mut pipe, it));
        let mut answers = pipe.query_async::<Vec<Value>>(&mut self.inner).await?.into_iter();
        let mut values = values_in(&mut answers, keys.len())?.into_iter();
        let mut found = Vec::with_capacity(wants.len());
        let mut scanned = Vec::new();
        for want in wants {
            match want {
                Want::Row(key) => {
                    let value = values.next().flatten();
                    found.push(value.map(|it| (key.clone(), it)).into_iter().collect());
                }
                Want::Rows { .. } => {
                    let keys: Vec<Vec<u8>> = redis::from_redis_value(answers.next().ok_or(Lost::Strange)?)
                        .map_err(|_other| Lost::Strange)?;
                    scanned.extend(keys.iter().cloned());
                    found.push(keys.into_iter().map(|it| (it, Vec::new())).collect());
                }
            }
        }
        self.fill(wants, &mut found, &scanned).await?;
        Ok(found)
    }

    /// Fetches the values of keys that scans found. One whose row went meanwhile is left out: then another decided, and this comes to nothing anyhow.
    async fn fill(&mut self, wants: &[Want], found: &mut [Found], scanned: &[Vec<u8>]) -> Result<(), Lost> {
        if scanned.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = scanned.iter().map(Vec::as_slice).collect();
        let mut pipe = redis::pipe();
        values_of(&mut pipe, &keys);
        let mut answers = pipe.query_async::<Vec<Value>>(&mut self.inner).await?.into_iter();
        let mut values = values_in(&mut answers, keys.len())?.into_iter();
        for (want, found) in wants.iter().zip(found) {
            if row(want).is_none() {
                let whole = std::mem::take(found).into_iter().filter_map(|it| Some((it.0, values.next().flatten()?)));
                *found = whole.collect();
            }
        }
        Ok(())
    }

    async fn commit(&mut self, changes: &[RowChange]) -> Result<bool, Lost> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        let puts: Vec<(&[u8], &[u8])> = changes.iter().filter_map(|it| Some((&*it.0, it.1.as_deref()?))).collect();
        let gone: Vec<&[u8]> = changes.iter().filter(|it| it.1.is_none()).map(|it| &*it.0).collect();
        for some in puts.chunks(ROWS_LEN_MAX) {
            let rows = pipe.cmd("HSET").arg(ROWS);
            for (key, value) in some {
                rows.arg(*key).arg(*value);
            }
            let keys = pipe.ignore().cmd("ZADD").arg(KEYS);
            for (key, _) in some {
                keys.arg(0).arg(*key);
            }
            pipe.ignore();
        }
        for some in gone.chunks(ROWS_LEN_MAX) {
            pipe.cmd("HDEL").arg(ROWS).arg(some).ignore().cmd("ZREM").arg(KEYS).arg(some).ignore();
        }
        if !changes.is_empty() {
            pipe.cmd("INCR").arg(NUMBER).ignore();
        }
        self.execute(&mut pipe).await
    }

    /// False: the number is another one than when the transaction began.
    async fn execute(&mut self, pipe: &mut Pipeline) -> Result<bool, Lost> {
        pipe.atomic().cmd("EXISTS").arg(SCHEMA);
        let done: Option<(i64,)> = pipe.query_async(&mut self.inner).await.map_err(no_room)?;
        Ok(done.is_some())
    }
}

fn row(want: &Want) -> Option<&[u8]> {
    match want {
        Want::Row(key) => Some(key),
        Want::Rows { .. } => None,
    }
}

fn values_of(pipe: &mut Pipeline, keys: &[&[u8]]) {
    for some in keys.chunks(ROWS_LEN_MAX) {
        pipe.cmd("HMGET").arg(ROWS).arg(some);
    }
}

/// The values that [`values_of`] asked for, of so many keys.
fn values_in(answers: &mut impl Iterator<Item = Value>, keys: usize) -> Result<Vec<Option<Vec<u8>>>, Lost> {
    let mut values = Vec::with_capacity(keys);
    while values.len() < keys {
        let some: Vec<Option<Vec<u8>>> =
            redis::from_redis_value(answers.next().ok_or(Lost::Strange)?).map_err(|_other| Lost::Strange)?;
        if some.is_empty() {
            return Err(Lost::Strange);
        }
        values.extend(some);
    }
    Ok(values)
}

fn scan(pipe: &mut Pipeline, want: &Want) {
    let Want::Rows { from, to, most, is_back } = want else { return };
    let (from, to) = ([b"[", &**from].concat(), [b"(", &**to].concat());
    let most = i64::try_from(*most).unwrap_or(-1);
    if *is_back {
        pipe.cmd("ZREVRANGEBYLEX").arg(KEYS).arg(to).arg(from);
    } else {
        pipe.cmd("ZRANGEBYLEX").arg(KEYS).arg(from).arg(to);
    }
    pipe.arg("LIMIT").arg(0).arg(most);
}

/// A server that is out of memory, or that cannot write its log, takes no transaction.
fn no_room(error: RedisError) -> Lost {
    let causes = error.clone().into_server_errors();
    let is_full = causes.is_some_and(|it| it.iter().any(|(_, it)| matches!(it.code(), "OOM" | "MISCONF")));
    if is_full { Lost::NoRoom } else { Lost::Redis(error) }
}

impl Session for Connection {
    fn begin(&mut self, purpose: Purpose) {
        self.begins = Some(purpose);
    }

    fn fetch<'a>(&'a mut self, wants: &'a [Want]) -> Doing<'a, Result<Vec<Found>, Lost>> {
        Box::pin(Connection::fetch(self, wants))
    }

    fn commit<'a>(&'a mut self, changes: &'a [RowChange]) -> Doing<'a, Result<bool, Lost>> {
        Box::pin(Connection::commit(self, changes))
    }

    fn has_moments(&self) -> bool {
        false
    }

    fn end(&mut self) -> Doing<'_, Result<bool, Lost>> {
        Box::pin(async move {
            // One that fetched nothing never began.
            match self.begins.take() {
                Some(_) => Ok(true),
                None => self.execute(&mut redis::pipe()).await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Redis::new(&Secret::new(url), Tasks::new()).err().map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_url_is_understood_or_refused_without_showing_it() {
        for url in ["redis://:canary@h:1/2", "rediss://u:canary@h", "rediss://h?sslmode=require"] {
            assert_eq!(refused(url), "");
        }
        let is_bad = |url: &str, word: &str| refused(url).contains(word) && !refused(url).contains("canary");
        assert!(is_bad("http://u:canary@h", "`redis://`"));
        assert!(is_bad("rediss://u:canary@h?sslmode=prefer", "`verify-full`"));
        assert!(is_bad("redis://u:canary@h/canary", "not understood"));
    }

    #[test]
    fn a_scan_names_its_bounds_as_bytes() {
        let asked = |is_back, most| {
            let mut pipe = redis::pipe();
            scan(&mut pipe, &Want::Rows { from: vec![1, 0], to: vec![1, 255], most, is_back });
            String::from_utf8_lossy(&pipe.get_packed_pipeline()).replace("\r\n", " ")
        };
        assert!(
            asked(false, 9)
                .contains("ZRANGEBYLEX $18 smg:{history}:keys $3 [\u{1}\0 $3 (\u{1}\u{fffd} $5 LIMIT $1 0 $1 9")
        );
        assert!(
            asked(true, usize::MAX)
                .contains("ZREVRANGEBYLEX $18 smg:{history}:keys $3 (\u{1}\u{fffd} $3 [\u{1}\0 $5 LIMIT $1 0 $2 -1")
        );
    }
}
