//! PostgreSQL: one table of keys and values, and one lock under which a gateway decides.
//!
//! ```text
//!  decide: BEGIN · synchronous_commit on · advisory lock · rows ┐  rows …  ┐  upsert, delete, COMMIT ┐
//!                                                       answer ◀┘  answer ◀┘                 answer ◀┘
//! ```
//! What stands together on a line is sent together. The lock is taken in its own statement, so that the rows that are read after it have all that its last holder committed.

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::Client;
use tokio_postgres::Config;
use tokio_postgres::Row;
use tokio_postgres::Statement;
use tokio_postgres::config::Host;
use tokio_postgres::config::SslMode;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::IsNull;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use super::CONNECT_LIMIT;
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

const CONNECTION: Task = Task { name: "history_postgres", stage: Stage::Carry, on_end: OnEnd::Fine };

/// What a URL looks like.
const EXAMPLE: &str = "postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full";
/// Under this lock a gateway decides. Any number will do that nobody else in the database has: the first eight bytes of `smg history`.
const LOCK: i64 = 0x736d_6720_6869_7374;
/// Under this one it makes tables.
const SCHEMA_LOCK: i64 = LOCK + 1;
/// Rows and bytes of one statement that changes rows.
const CHANGES_LEN_MAX: usize = 4096;
const CHANGES_BYTES_MAX: usize = 16 << 20;
/// A server that does not acknowledge so long is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// Each makes the tables of one version into those of the next. Those that were released never change.
const MIGRATIONS: &[&str] = &["CREATE TABLE smg_history_rows (key bytea PRIMARY KEY, value bytea NOT NULL)"];

/// For each connection. A gateway that is gone must not hold the lock for long; and that a table is small is no reason to read all of it: the server's idea of its size may be old.
const SETTINGS: &str = "SET lock_timeout = '5s'; SET statement_timeout = '30s'; \
    SET idle_in_transaction_session_timeout = '10s'; SET enable_seqscan = off; SET jit = off";
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const GET: &str = "SELECT key, value FROM smg_history_rows WHERE key = ANY($1)";
const SCAN: &str = "SELECT key, value FROM smg_history_rows WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3";
const SCAN_BACK: &str =
    "SELECT key, value FROM smg_history_rows WHERE key >= $1 AND key < $2 ORDER BY key DESC LIMIT $3";
const PUT: &str = "INSERT INTO smg_history_rows (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[]) \
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM smg_history_rows WHERE key = ANY($1)";

/// See the file's header.
pub(super) struct Postgres {
    config: Config,
    tls: Tls,
    tasks: Tasks,
}

impl Postgres {
    pub(super) fn new(url: &Secret, tasks: Tasks) -> Result<Self, InvalidUrl> {
        if !["postgres://", "postgresql://"].iter().any(|it| url.expose().starts_with(it)) {
            return Err(InvalidUrl::Scheme("postgres://"));
        }
        let url = Url::split(url, tls::OPTIONS);
        let tls = Tls::of(&url, Trust::Prefer)?;
        // The cause is left out: it may quote what is a password.
        let mut config: Config = url.rest.parse().map_err(|_may_quote| InvalidUrl::Unparsed(EXAMPLE))?;
        if config.get_hosts().is_empty() {
            return Err(InvalidUrl::Unparsed(EXAMPLE));
        }
        config
            .ssl_mode(match tls.trust {
                Trust::Off => SslMode::Disable,
                Trust::Prefer => SslMode::Prefer,
                Trust::Encrypt | Trust::Chain | Trust::Full => SslMode::Require,
            })
            .connect_timeout(CONNECT_LIMIT)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX)
            .keepalives_idle(UNACKNOWLEDGED_MAX)
            .keepalives_interval(Duration::from_secs(1))
            // Of several hosts, the one that takes writes.
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("smg");
        }
        Ok(Self { config, tls, tasks })
    }

    fn is_near(&self) -> bool {
        self.config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback()),
            Host::Unix(_) => true,
        })
    }

    async fn connect(&self) -> Result<Connection, Lost> {
        self.tls.warn_of("postgres", self.is_near());
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        self.tasks.spawn(CONNECTION, |stop| async move {
            tokio::select! {
                // Whoever uses it is told why it ended.
                _ended = connection => {}
                () = stop.cancelled() => {}
            }
        });
        client.batch_execute(SETTINGS).await?;
        migrate(&client).await?;
        let prepare = |sql| client.prepare(sql);
        let (get, scan, scan_back, put, delete) =
            tokio::try_join!(prepare(GET), prepare(SCAN), prepare(SCAN_BACK), prepare(PUT), prepare(DELETE))?;
        Ok(Connection { statements: Statements { get, scan, scan_back, put, delete }, client, begins: None })
    }
}

impl Server for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn connect(&self) -> Doing<'_, Result<Box<dyn Session>, Lost>> {
        Box::pin(async move { Ok(Box::new(Postgres::connect(self).await?) as Box<dyn Session>) })
    }
}

/// Makes the tables, or makes older ones into those of this release. One gateway at a time; in one transaction.
async fn migrate(client: &Client) -> Result<(), Lost> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version(client).await? == Some(known) {
        return Ok(());
    }
    client.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")).await?;
    let found = version(client).await?.unwrap_or_default();
    let Some(missing) = usize::try_from(found).ok().and_then(|it| MIGRATIONS.get(it..)) else {
        return Err(Lost::Newer { found, known });
    };
    let mut sql = String::new();
    if found == 0 {
        sql += "CREATE TABLE IF NOT EXISTS smg_history_schema (version bigint NOT NULL); \
                INSERT INTO smg_history_schema SELECT 0 WHERE NOT EXISTS (SELECT FROM smg_history_schema);";
    }
    missing.iter().for_each(|it| sql = format!("{sql} {it};"));
    client.batch_execute(&format!("{sql} UPDATE smg_history_schema SET version = {known}; COMMIT")).await?;
    tracing::info!(from = found, to = known, "the tables of history were made");
    Ok(())
}

async fn version(client: &Client) -> Result<Option<i64>, Lost> {
    let is_there = client.query_one("SELECT to_regclass('smg_history_schema') IS NOT NULL", &[]).await?;
    if !is_there.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client.query_opt("SELECT version FROM smg_history_schema", &[]).await?;
    Ok(row.map(|it| it.try_get(0)).transpose()?)
}

struct Statements {
    get: Statement,
    scan: Statement,
    scan_back: Statement,
    put: Statement,
    delete: Statement,
}

struct Connection {
    client: Client,
    statements: Statements,
    /// A transaction that has yet to begin.
    begins: Option<Purpose>,
}

impl Connection {
    /// Sent together with what follows it: the server takes one after the other.
    async fn begin_now(&self, begins: Option<Purpose>) -> Result<(), tokio_postgres::Error> {
        match begins {
            None => Ok(()),
            Some(Purpose::Read) => self.client.batch_execute(BEGIN_READ).await,
            Some(Purpose::Decide) => {
                let sql = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = on";
                self.client.batch_execute(&format!("{sql}; SELECT pg_advisory_xact_lock({LOCK})")).await
            }
        }
    }

    async fn rows(&self, wants: &[Want]) -> Result<Found, tokio_postgres::Error> {
        let keys: Vec<Bytes<'_>> = wants
            .iter()
            .filter_map(|it| match it {
                Want::Row(key) => Some(Bytes(key)),
                Want::Rows { .. } => None,
            })
            .collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        pairs(&self.client.query(&self.statements.get, &[&keys]).await?)
    }

    async fn scan(&self, want: &Want) -> Result<Found, tokio_postgres::Error> {
        let Want::Rows { from, to, most, is_back } = want else { return Ok(Vec::new()) };
        let statement = if *is_back { &self.statements.scan_back } else { &self.statements.scan };
        let most = i64::try_from(*most).unwrap_or(i64::MAX);
        pairs(&self.client.query(statement, &[&Bytes(from), &Bytes(to), &most]).await?)
    }

    async fn fetch(&mut self, wants: &[Want]) -> Result<Vec<Found>, Lost> {
        let begins = self.begins.take();
        // ORDER: what is polled first is sent first.
        let scans = futures_util::future::try_join_all(wants.iter().map(|it| self.scan(it)));
        let ((), mut rows, scans) = tokio::try_join!(biased; self.begin_now(begins), self.rows(wants), scans)?;
        rows.sort();
        let found = wants.iter().zip(scans).map(|(want, scan)| match want {
            Want::Row(key) => {
                let at = rows.binary_search_by(|it| it.0.cmp(key));
                at.ok().and_then(|it| rows.get(it)).cloned().into_iter().collect()
            }
            Want::Rows { .. } => scan,
        });
        Ok(found.collect())
    }

    async fn put(&self, some: &[(&[u8], &[u8])]) -> Result<(), tokio_postgres::Error> {
        let (keys, values): (Vec<_>, Vec<_>) = some.iter().map(|it| (Bytes(it.0), Bytes(it.1))).unzip();
        self.client.execute(&self.statements.put, &[&keys, &values]).await.map(drop)
    }

    async fn commit(&mut self, changes: &[RowChange]) -> Result<bool, Lost> {
        let gone: Vec<Bytes<'_>> = changes.iter().filter(|it| it.1.is_none()).map(|it| Bytes(&it.0)).collect();
        let puts: Vec<(&[u8], &[u8])> = changes.iter().filter_map(|it| Some((&*it.0, it.1.as_deref()?))).collect();
        let delete = async {
            if !gone.is_empty() {
                self.client.execute(&self.statements.delete, &[&gone]).await?;
            }
            Ok(())
        };
        let puts = futures_util::future::try_join_all(portions(&puts).map(|it| self.put(it)));
        // If one fails, the commit that was sent with it undoes all of them.
        let done = tokio::try_join!(biased; delete, puts, self.client.batch_execute("COMMIT"));
        done.map(|_| true).map_err(no_room)
    }
}

/// What is bound to a statement. The driver shows that in its log, where neither names nor content of anybody may be.
struct Bytes<'a>(&'a [u8]);

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl ToSql for Bytes<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        <&[u8] as ToSql>::accepts(kind)
    }

    tokio_postgres::types::to_sql_checked!();
}

/// What goes in one statement.
fn portions<'a, 'b>(mut rest: &'a [(&'b [u8], &'b [u8])]) -> impl Iterator<Item = &'a [(&'b [u8], &'b [u8])]> {
    std::iter::from_fn(move || {
        let (mut len, mut bytes) = (0, 0);
        for (key, value) in rest.iter().take(CHANGES_LEN_MAX) {
            bytes += key.len() + value.len();
            if len > 0 && bytes > CHANGES_BYTES_MAX {
                break;
            }
            len += 1;
        }
        let (first, after) = rest.split_at(len);
        rest = after;
        (!first.is_empty()).then_some(first)
    })
}

fn pairs(rows: &[Row]) -> Result<Found, tokio_postgres::Error> {
    rows.iter().map(|it| Ok((it.try_get(0)?, it.try_get(1)?))).collect()
}

fn no_room(error: tokio_postgres::Error) -> Lost {
    match error.code() {
        Some(code) if *code == SqlState::DISK_FULL || *code == SqlState::OUT_OF_MEMORY => Lost::NoRoom,
        _ => Lost::Postgres(error),
    }
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
        true
    }

    fn end(&mut self) -> Doing<'_, Result<bool, Lost>> {
        Box::pin(async move {
            // One that fetched nothing never began.
            if self.begins.take().is_none() {
                self.client.batch_execute("COMMIT").await?;
            }
            Ok(true)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Postgres::new(&Secret::new(url), Tasks::new()).err().map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_url_is_understood_or_refused_without_showing_it() {
        for url in ["postgres://u:canary@h/d", "postgresql://h1,h2:5433/d?sslmode=verify-full&connect_timeout=3"] {
            assert_eq!(refused(url), "");
        }
        let is_bad = |url: &str, word: &str| refused(url).contains(word) && !refused(url).contains("canary");
        assert!(is_bad("mysql://u:canary@h/d", "`postgres://`"));
        assert!(is_bad("postgres://u:canary@h/d?sslmode=maybe", "`verify-full`"));
        assert!(is_bad("postgres://u:canary@h/d?sslrootcert=/nowhere.pem", "/nowhere.pem"));
        assert!(is_bad("postgres://u:canary@h/d?canary=canary", "not understood"));
        assert!(is_bad("postgres://u:canary@h:canary/d", "not understood"));
    }

    #[test]
    fn changes_go_in_portions() {
        let large = vec![0_u8; CHANGES_BYTES_MAX];
        let rows: Vec<(&[u8], &[u8])> = vec![(b"a", b"1"), (b"b", &large), (b"c", &large), (b"d", b"2")];
        let lens = |rows: &[(&[u8], &[u8])]| portions(rows).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(lens(&rows), [1, 1, 1, 1]);
        assert_eq!(lens(&[]), [0; 0]);
        assert_eq!(lens(&vec![(&b"k"[..], &b"v"[..]); CHANGES_LEN_MAX + 1]), [CHANGES_LEN_MAX, 1]);
    }
}
