//! Oracle: one table of keys and values, locked while a gateway decides. The driver waits for the network, so it runs on threads that may.
//!
//! *No server was to be had for this: it is compiled, and the SQL and what is bound to it are tested, but nothing of it ever ran against a database.*
//!
//! Reads are of one moment because their transaction is read only. Values longer than a `RAW` goes in line lie in a second table in pieces, so that no locator of a large object has to be followed:
//! a row is its pieces, in order.

use std::sync::Arc;
use std::time::Duration;

use oracledb::Config;
use oracledb::Connection as Link;
use oracledb::Error;
use oracledb::ErrorKind;
use oracledb::ToDbValue;
use parking_lot::Mutex;

use super::CONNECT_LIMIT;
use super::server::Found;
use super::server::Lost;
use super::server::Purpose;
use super::server::Server;
use super::server::Session;
use super::server::Want;
use super::url::InvalidUrl;
use crate::base::secret::Secret;
use crate::history::backend::Doing;
use crate::raft::RowChange;

/// What a URL looks like.
const EXAMPLE: &str = "oracle://USER:PASSWORD@HOST:PORT/SERVICE";
/// Longest piece of a value: a `RAW` of every configuration has room for it.
const PIECE_BYTES: usize = 2000;
/// Longest that one call waits.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Keys of one statement. More binds than these and the statement is not worth its text.
const KEYS_MAX: usize = 64;

/// Each makes the tables of one version into those of the next. Those that were released never change.
const MIGRATIONS: &[&str] =
    &["CREATE TABLE smg_history_rows (key RAW(2000) NOT NULL, part NUMBER(10) NOT NULL, value RAW(2000), \
     CONSTRAINT smg_history_pk PRIMARY KEY (key, part)) ORGANIZATION INDEX"];
const SCHEMA: &str = "CREATE TABLE smg_history_schema (version NUMBER(10) NOT NULL)";
const VERSION: &str = "SELECT version FROM smg_history_schema";
const FIRST_VERSION: &str = "INSERT INTO smg_history_schema VALUES (0)";
const RAISE_VERSION: &str = "UPDATE smg_history_schema SET version = :1 WHERE version = :2";
const LOCK: &str = "LOCK TABLE smg_history_rows IN EXCLUSIVE MODE WAIT 5";
const READ_ONLY: &str = "SET TRANSACTION READ ONLY";
const PUT: &str = "INSERT INTO smg_history_rows (key, part, value) VALUES (:1, :2, :3)";
const DELETE: &str = "DELETE FROM smg_history_rows WHERE key = :1";

/// Server's codes: a table that is there already, one that is missing, and what has no room.
const EXISTS: usize = 955;
const MISSING: usize = 942;
const NO_ROOM: &[usize] = &[257, 1536, 1631, 1652, 1653, 1654, 30036];

/// See the file's header.
pub(super) struct Oracle {
    place: String,
    user: String,
    password: Secret,
}

impl Oracle {
    pub(super) fn new(url: &Secret) -> Result<Self, InvalidUrl> {
        let rest = url.expose().strip_prefix("oracle://").ok_or(InvalidUrl::Scheme("oracle://"))?;
        let unparsed = InvalidUrl::Unparsed(EXAMPLE);
        let Some((who, place)) = rest.rsplit_once('@') else { return Err(unparsed) };
        let Some((user, password)) = who.split_once(':') else { return Err(unparsed) };
        let (Some(user), Some(password)) = (decoded(user), decoded(password)) else { return Err(unparsed) };
        let is_place = place.split_once('/').is_some_and(|(host, service)| !host.is_empty() && !service.is_empty());
        // The driver's own check of the place; it knows no password yet.
        if !is_place || Config::default().set_connect_string(place).is_err() {
            return Err(unparsed);
        }
        Ok(Self { place: place.to_owned(), user, password: Secret::new(&password) })
    }

    fn config(&self) -> Result<Config, Error> {
        let config = Config::default().set_credentials(&self.user, self.password.expose());
        Ok(config.set_transport_connect_timeout(CONNECT_LIMIT).set_connect_string(&self.place)?)
    }
}

/// `%40` and so on as what they stand for.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = rest.get(2..)?;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

impl Server for Oracle {
    fn name(&self) -> &'static str {
        "oracle"
    }

    fn connect(&self) -> Doing<'_, Result<Box<dyn Session>, Lost>> {
        Box::pin(async move {
            let config = self.config()?;
            let link = blocking(move || {
                let link = oracledb::connect(config)?;
                link.set_call_timeout(Some(CALL_LIMIT))?;
                migrate(&link)?;
                Ok(link)
            });
            Ok(Box::new(Connection { link: Arc::new(Mutex::new(link.await?)), begins: None }) as Box<dyn Session>)
        })
    }
}

/// On a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Lost> + Send + 'static) -> Result<T, Lost> {
    tokio::task::spawn_blocking(work).await.map_err(|_panicked| Lost::Strange)?
}

/// A statement that makes a table ends the transaction before it: each version is one step, and two gateways that take it at once find that it is taken.
fn migrate(link: &Link) -> Result<(), Lost> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found = match version(link) {
        Err(error) if code(&error) == Some(MISSING) => {
            unless_there(link.execute(SCHEMA, &[]))?;
            None
        }
        found => found?,
    };
    if found.is_none() {
        link.execute(FIRST_VERSION, &[])?;
        link.commit()?;
    }
    let found = found.unwrap_or_default();
    let Some(missing) = usize::try_from(found).ok().and_then(|it| MIGRATIONS.get(it..)) else {
        return Err(Lost::Newer { found, known });
    };
    for (from, sql) in (found..).zip(missing) {
        unless_there(link.execute(sql, &[]))?;
        link.execute(RAISE_VERSION, &[&(from + 1), &from])?;
        link.commit()?;
    }
    Ok(())
}

/// The highest: two gateways may each have written a first one.
fn version(link: &Link) -> Result<Option<i64>, Error> {
    let mut highest = None;
    for row in link.query(VERSION, &[])? {
        highest = highest.max(Some(row?.get::<i64>(0)?));
    }
    Ok(highest)
}

fn code(error: &Error) -> Option<usize> {
    match error.kind() {
        ErrorKind::DbError(it) => Some(it.code()),
        _ => None,
    }
}

fn unless_there<T>(done: Result<T, Error>) -> Result<(), Error> {
    match done {
        Err(error) if code(&error) == Some(EXISTS) => Ok(()),
        done => done.map(drop),
    }
}

fn no_room(error: Error) -> Lost {
    if code(&error).is_some_and(|it| NO_ROOM.contains(&it)) { Lost::NoRoom } else { Lost::Oracle(error) }
}

struct Connection {
    link: Arc<Mutex<Link>>,
    /// A transaction that has yet to begin.
    begins: Option<Purpose>,
}

/// One row of the table: a piece of a value.
type Piece = (Vec<u8>, Vec<u8>);

fn sql_of_get(keys: usize) -> String {
    let binds: Vec<String> = (1..=keys).map(|it| format!(":{it}")).collect();
    format!("SELECT key, value FROM smg_history_rows WHERE key IN ({}) ORDER BY key, part", binds.join(", "))
}

/// The keys are limited, not the pieces.
fn sql_of_scan(is_back: bool) -> String {
    let order = if is_back { " DESC" } else { "" };
    let keys = format!(
        "SELECT key FROM smg_history_rows WHERE part = 0 AND key >= :1 AND key < :2 ORDER BY key{order} FETCH FIRST :3 ROWS ONLY"
    );
    format!("SELECT key, value FROM smg_history_rows WHERE key IN ({keys}) ORDER BY key{order}, part")
}

/// Pieces that follow each other are one value. An empty value is null there.
fn assembled(pieces: impl IntoIterator<Item = Piece>) -> Found {
    let mut found: Found = Vec::new();
    for (key, piece) in pieces {
        match found.last_mut().filter(|it| it.0 == key) {
            Some(last) => last.1.extend(piece),
            None => found.push((key, piece)),
        }
    }
    found
}

/// What a value is there: at least one piece, so that an empty one is there, too.
fn pieces(value: &[u8]) -> Vec<&[u8]> {
    if value.is_empty() { vec![value] } else { value.chunks(PIECE_BYTES).collect() }
}

fn query(link: &Link, sql: &str, binds: &[&dyn ToDbValue]) -> Result<Found, Error> {
    let mut all = Vec::new();
    for row in link.query(sql, binds)? {
        let row = row?;
        all.push((row.get::<Vec<u8>>(0)?, row.get::<Option<Vec<u8>>>(1)?.unwrap_or_default()));
    }
    Ok(assembled(all))
}

fn fetch(link: &Link, begins: Option<Purpose>, wants: &[Want]) -> Result<Vec<Found>, Lost> {
    match begins {
        None => {}
        Some(Purpose::Read) => drop(link.execute(READ_ONLY, &[])?),
        Some(Purpose::Decide) => drop(link.execute(LOCK, &[])?),
    }
    let keys: Vec<&Vec<u8>> = wants
        .iter()
        .filter_map(|it| match it {
            Want::Row(key) => Some(key),
            Want::Rows { .. } => None,
        })
        .collect();
    let mut rows = Found::new();
    for some in keys.chunks(KEYS_MAX) {
        let binds: Vec<&dyn ToDbValue> = some.iter().map(|it| *it as &dyn ToDbValue).collect();
        rows.extend(query(link, &sql_of_get(some.len()), &binds)?);
    }
    rows.sort();
    let mut found = Vec::with_capacity(wants.len());
    for want in wants {
        found.push(match want {
            Want::Row(key) => {
                let at = rows.binary_search_by(|it| it.0.cmp(key));
                at.ok().and_then(|it| rows.get(it)).cloned().into_iter().collect()
            }
            Want::Rows { from, to, most, is_back } => {
                let most = i64::try_from(*most).unwrap_or(i64::MAX);
                query(link, &sql_of_scan(*is_back), &[from, to, &most])?
            }
        });
    }
    Ok(found)
}

fn commit(link: &Link, changes: &[RowChange]) -> Result<(), Error> {
    let keys: Vec<[&dyn ToDbValue; 1]> = changes.iter().map(|it| [&it.0 as &dyn ToDbValue]).collect();
    let keys: Vec<&[&dyn ToDbValue]> = keys.iter().map(<[_; 1]>::as_slice).collect();
    if !keys.is_empty() {
        link.execute_batch(DELETE, keys.as_slice())?;
    }
    let rows: Vec<(&Vec<u8>, i64, Vec<u8>)> = changes
        .iter()
        .filter_map(|(key, value)| Some((key, pieces(value.as_deref()?))))
        .flat_map(|(key, pieces)| (0..).zip(pieces).map(move |(part, piece)| (key, part, piece.to_vec())))
        .collect();
    let binds: Vec<[&dyn ToDbValue; 3]> =
        rows.iter().map(|it| [it.0 as &dyn ToDbValue, &it.1 as &dyn ToDbValue, &it.2 as &dyn ToDbValue]).collect();
    for some in binds.chunks(KEYS_MAX * KEYS_MAX) {
        let some: Vec<&[&dyn ToDbValue]> = some.iter().map(<[_; 3]>::as_slice).collect();
        link.execute_batch(PUT, some.as_slice())?;
    }
    link.commit()
}

impl Session for Connection {
    fn begin(&mut self, purpose: Purpose) {
        self.begins = Some(purpose);
    }

    fn fetch<'a>(&'a mut self, wants: &'a [Want]) -> Doing<'a, Result<Vec<Found>, Lost>> {
        let (link, begins, wants) = (Arc::clone(&self.link), self.begins.take(), wants.to_vec());
        Box::pin(blocking(move || fetch(&link.lock(), begins, &wants)))
    }

    fn commit<'a>(&'a mut self, changes: &'a [RowChange]) -> Doing<'a, Result<bool, Lost>> {
        let (link, changes) = (Arc::clone(&self.link), changes.to_vec());
        Box::pin(blocking(move || commit(&link.lock(), &changes).map(|()| true).map_err(no_room)))
    }

    fn has_moments(&self) -> bool {
        true
    }

    fn end(&mut self) -> Doing<'_, Result<bool, Lost>> {
        let (link, has_begun) = (Arc::clone(&self.link), self.begins.take().is_none());
        Box::pin(blocking(move || {
            if has_begun {
                link.lock().rollback()?;
            }
            Ok(true)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Oracle::new(&Secret::new(url)).err().map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_url_is_understood_or_refused_without_showing_it() {
        let it = Oracle::new(&Secret::new("oracle://smg:c%40nary@h:1521/ORCLPDB1")).unwrap();
        assert_eq!((it.user.as_str(), it.password.expose(), it.place.as_str()), ("smg", "c@nary", "h:1521/ORCLPDB1"));
        let is_bad = |url: &str, word: &str| refused(url).contains(word) && !refused(url).contains("canary");
        assert!(is_bad("postgres://u:canary@h/d", "`oracle://`"));
        for url in ["oracle://u:canary@h", "oracle://canary", "oracle://u:canary%zz@h/s", "oracle://ucanary@h/s"] {
            assert!(is_bad(url, "not understood"), "{url}");
        }
    }

    #[test]
    fn a_value_is_its_pieces_in_order() {
        let long: Vec<u8> = (0..5000_u32).map(|it| it as u8).collect();
        let values: [&[u8]; 4] = [&long, b"", b"x", &long[..PIECE_BYTES]];
        let keys: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
        let rows = keys.iter().zip(values).flat_map(|(key, value)| {
            pieces(value).into_iter().map(|it| (key.to_vec(), it.to_vec())).collect::<Vec<_>>()
        });
        let rows: Vec<Piece> = rows.collect();
        assert_eq!(rows.len(), 3 + 1 + 1 + 1);
        assert!(rows.iter().all(|it| it.1.len() <= PIECE_BYTES));
        let whole = assembled(rows);
        assert!(whole.iter().map(|it| (&*it.0, &*it.1)).eq(keys.into_iter().zip(values)));
    }

    #[test]
    fn statements_name_what_they_are_given() {
        assert_eq!(
            sql_of_get(3),
            "SELECT key, value FROM smg_history_rows WHERE key IN (:1, :2, :3) ORDER BY key, part"
        );
        assert!(sql_of_scan(true).contains("ORDER BY key DESC FETCH FIRST :3 ROWS ONLY) ORDER BY key DESC, part"));
        assert!(!sql_of_scan(false).contains("DESC"));
    }
}
