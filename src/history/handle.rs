//! History as the API holds it: acts of owners, reads, and the lease under which this node makes responses.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Id;
use super::InvalidName;
use super::Keys;
use super::Lease;
use super::Owner;
use super::backend::Backend;
use super::backend::Doing;
use super::backend::Reading;
use super::backend::Unavailable;
use super::config::Config;
use super::config::Scope;
use super::export::Row;
use super::leases::Leases;
use super::machine::Act;
use super::machine::Command;
use super::machine::CommandId;
use super::machine::Entry;
use super::machine::Outcome;
use super::machine::Refusal;
use super::machine::Room;
use super::machine::read;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::ids::TenantId;
use crate::raft::Coded as _;
use crate::raft::Rows;
use crate::storage::GroupId;
use crate::storage::codec;

/// An act or a read that is not done by then is given up: as long as the loss of a leader may take, twice.
pub const LIMIT: Duration = Duration::from_secs(8);
/// Largest command that goes as one. Longer ones go in parts of this size: several commands must fit an entry of the log, and an entry half a heartbeat.
const PART_BYTES: usize = 192 << 10;

/// Why an act was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// See there. It may be asked again.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// See there. The same would be refused again.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// See there.
    #[error(transparent)]
    Missing(#[from] read::Missing),
}

/// See the file's header. Clones are the same one.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    backend: Arc<dyn Backend>,
    leases: Leases,
    room: Room,
    retention: Duration,
    scope: Scope,
    /// None: content is kept as it is.
    keys: Option<Keys>,
    entropy: Entropy,
}

impl Handle {
    /// Over a backend. `keys` seal content; `me`: this data directory, and which start of it this is.
    #[must_use]
    pub fn new(
        backend: Arc<dyn Backend>,
        config: &Config,
        keys: Option<Keys>,
        me: (StorageId, u64),
        entropy: Entropy,
    ) -> Self {
        let room = Room { bytes_max: config.history_tenant_bytes.0 as u64 };
        let leases = Leases::new(Lease { storage: me.0, boot: me.1, number: 1 });
        let (retention, scope) = (config.history_retention, config.history_scope);
        Self(Arc::new(Inner { backend, leases, room, retention, scope, keys, entropy }))
    }

    /// Where it is kept.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        &*self.0.backend
    }

    /// Whose records somebody's are.
    pub fn owner(&self, tenant: &TenantId, principal: &str) -> Result<Owner, InvalidName> {
        match self.0.scope {
            Scope::Tenant => Owner::new(tenant, None),
            Scope::Principal => Owner::new(tenant, Some(principal)),
        }
    }

    /// A new id. `prefix`: `resp`, `conv`, `msg`, …
    #[must_use]
    pub fn draw(&self, prefix: &str) -> Id {
        Id::draw(prefix, GroupId::HISTORY, &self.0.entropy)
    }

    /// When a record that is made now goes by itself, in milliseconds since 1970. None: never.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        (!self.0.retention.is_zero()).then(|| now_ms().saturating_add(millis(self.0.retention)))
    }

    /// Does something of an owner's, once, however often the way there is lost. What it did is kept when this returns.
    pub async fn act(&self, owner: &Owner, act: Act) -> Result<Outcome, HistoryError> {
        self.act_within(owner, act, LIMIT).await
    }

    /// The same with another limit.
    pub async fn act_within(&self, owner: &Owner, mut act: Act, limit: Duration) -> Result<Outcome, HistoryError> {
        let until = Clock.now() + limit;
        self.0.keys.iter().for_each(|it| it.seal(owner, &mut act));
        let command = Command::Of { owner: owner.clone(), room: self.0.room, act: Box::new(act) };
        let command = self.in_parts(command, until).await?;
        match self.propose(command, until).await? {
            Outcome::Refused(refusal) => Err(refusal.into()),
            outcome => Ok(outcome),
        }
    }

    /// What is too long for an entry is handed in before; what is left is short.
    async fn in_parts(&self, command: Command, until: Instant) -> Result<Command, HistoryError> {
        let whole = codec::encode(&command).map_err(|_too_long| Refusal::Unsound)?;
        if whole.len() <= PART_BYTES {
            return Ok(command);
        }
        let (upload, mut parts) = (self.0.entropy.next_u128(), 0);
        for bytes in whole.chunks(PART_BYTES) {
            let part = Command::Part { upload, at: parts, bytes: bytes.to_vec() };
            if let Outcome::Refused(refusal) = self.propose(part, until).await? {
                return Err(refusal.into());
            }
            parts += 1;
        }
        Ok(Command::Run { upload, parts })
    }

    async fn propose(&self, command: Command, until: Instant) -> Result<Outcome, Unavailable> {
        propose(&*self.0.backend, &self.0.entropy, command, until).await
    }

    /// Reads rows that have all that anybody was told of before this was called.
    pub async fn read<R, F>(&self, reading: F) -> Result<R, Unavailable>
    where
        R: Send + 'static,
        F: Fn(&dyn Rows) -> R + Send + 'static,
    {
        let keys = self.0.keys.clone();
        let opened = move |rows: &dyn Rows| keys.as_ref().map_or_else(|| reading(rows), |it| reading(&it.open(rows)));
        self.read_within(LIMIT, opened).await
    }

    /// Reads as [`Handle::read`], with another limit and content as it is kept, maybe sealed: for what reads everything.
    pub async fn read_within<R, F>(&self, limit: Duration, reading: F) -> Result<R, Unavailable>
    where
        R: Send + 'static,
        F: Fn(&dyn Rows) -> R + Send + 'static,
    {
        told(reading, |it| self.0.backend.read(it, limit)).await
    }

    /// Reads rows as they are known here, maybe not the newest, and content as it is kept: see [`Backend::glance`].
    pub(super) async fn glance<R, F>(&self, reading: F) -> Result<R, Unavailable>
    where
        R: Send + 'static,
        F: Fn(&dyn Rows) -> R + Send + 'static,
    {
        told(reading, |it| self.0.backend.glance(it, LIMIT)).await
    }

    /// Puts rows of an export in. `at`: rows before these. Nothing else is taken until the last ones are in.
    pub async fn restore(&self, mut at: u64, rows: Vec<Row>, is_last: bool) -> Result<(), HistoryError> {
        let until = Clock.now() + LIMIT;
        let mut pieces = in_pieces(rows).into_iter().peekable();
        loop {
            let rows = pieces.next().unwrap_or_default();
            let is_end = pieces.peek().is_none();
            let count = rows.len() as u64;
            let command = self.in_parts(Command::Restore { at, rows, is_last: is_last && is_end }, until).await?;
            if let Outcome::Refused(refusal) = self.propose(command, until).await? {
                return Err(refusal.into());
            }
            at += count;
            if is_end {
                return Ok(());
            }
        }
    }

    /// The lease under which this node makes responses, held from now on for as long as it is asked for at least every minute. The first one takes a commit.
    pub async fn lease(&self) -> Result<Lease, Unavailable> {
        self.0.leases.get(&*self.0.backend, &self.0.entropy).await
    }

    /// Whether this node may still make what it began under this lease. Past it, another may have taken over.
    #[must_use]
    pub fn is_held(&self, lease: Lease) -> bool {
        self.0.leases.is_held(lease)
    }

    /// Renews the lease while it is in use. To be called once a second.
    pub(super) async fn renew(&self) {
        self.0.leases.renew_if_used(&*self.0.backend, &self.0.entropy).await;
    }

    pub(super) async fn command(&self, command: Command) -> Result<Outcome, Unavailable> {
        self.propose(command, Clock.now() + LIMIT).await
    }
}

/// Proposes a command with a name of its own.
pub(super) async fn propose(
    backend: &dyn Backend,
    entropy: &Entropy,
    command: Command,
    until: Instant,
) -> Result<Outcome, Unavailable> {
    let entry = Entry { id: CommandId(entropy.next_u128()), seen: backend.commands(), command };
    let bytes = entry.encode().map_err(|_bug| Unavailable::Damaged)?;
    backend.propose(bytes, until.saturating_duration_since(Clock.now())).await
}

/// As many rows in each as go in one command; a long one is alone.
fn in_pieces(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let (mut pieces, mut bytes) = (Vec::new(), usize::MAX);
    for row in rows {
        let len = row.0.len() + row.1.len() + 16;
        bytes = bytes.saturating_add(len);
        if bytes > PART_BYTES / 2 {
            pieces.push(Vec::new());
            bytes = len;
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(row);
        }
    }
    pieces
}

/// What a reading makes of the rows that somebody lets it see.
async fn told<'a, R, F>(
    reading: F,
    ask: impl FnOnce(Reading) -> Doing<'a, Result<(), Unavailable>>,
) -> Result<R, Unavailable>
where
    R: Send + 'static,
    F: Fn(&dyn Rows) -> R + Send + 'static,
{
    let answer = Arc::new(Mutex::new(None));
    let answered = Arc::clone(&answer);
    let reading = move |rows: &dyn Rows| *answer.lock() = Some(reading(rows));
    ask(Box::new(reading)).await?;
    answered.lock().take().ok_or(Unavailable::Unreached)
}

/// Milliseconds since 1970, for people and for expiry.
#[must_use]
pub fn now_ms() -> u64 {
    millis(Clock.wall())
}

fn millis(it: Duration) -> u64 {
    u64::try_from(it.as_millis()).unwrap_or(u64::MAX)
}
