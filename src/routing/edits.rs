//! The door for operators to the policies, and what puts those in force that the tables say.
//!
//! What the admin API of any node sets goes before what options say, until it is taken back there; a changed option does not undo it. A change
//! is made in the table and put in force here before it is answered; what other nodes set is put in force when it arrives. Where two nodes set
//! policies for the first time at once, the older instance counts everywhere.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::base::entropy::Entropy;
use crate::base::setting::Setting as _;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::base::turns::Turns;
use crate::replication;
use crate::replication::admin::Admin;
use crate::replication::admin::Entry;
use crate::replication::admin::InstanceId;
use crate::replication::core::Edit;
use crate::replication::core::EditError;
use crate::replication::core::Settled;
use crate::replication::tables::POLICIES;
use crate::routing::Policies;
use crate::routing::Router;
use crate::routing::policies::PolicyName;
use crate::routing::rules::Rule;

const EDIT: Task = Task { name: "policy-edit", stage: Stage::Decide, on_end: OnEnd::Fine };
const FOLLOW: Task = Task { name: "policies-in-force", stage: Stage::Decide, on_end: OnEnd::StopNode };

/// The only kind of entry: all policies.
const KIND: u16 = 1;
/// The version of its fields. Another one is left alone and said to be unreadable.
const VERSION: u8 = 1;
/// Its fields: the default policy, and the rules as the option takes them, in order. JSON.
const DEFAULT: u16 = 1;
/// See [`DEFAULT`].
const MODELS: u16 = 2;

/// See the file's header. Clones are the same one.
#[derive(Clone)]
pub struct PolicyEdits(Arc<Inner>);

struct Inner {
    router: Arc<Router>,
    tables: replication::Handle,
    entropy: Entropy,
    turns: Turns,
    /// Held while policies are put in force.
    state: Mutex<State>,
}

struct State {
    configured: Policies,
    is_set: bool,
    is_unreadable: bool,
    in_force: Policies,
}

impl PolicyEdits {
    /// Puts in force what was set, else what options say (which the router does already), and follows the table from now on.
    #[must_use]
    pub fn start(
        router: Arc<Router>,
        tables: replication::Handle,
        configured: Policies,
        entropy: Entropy,
        tasks: Tasks,
    ) -> Self {
        let in_force = configured.clone();
        let state = Mutex::new(State { configured, is_set: false, is_unreadable: false, in_force });
        let turns = Turns::new(EDIT, tasks.clone());
        let inner = Arc::new(Inner { router, tables, entropy, turns, state });
        inner.apply();
        let following = Arc::clone(&inner);
        inner.tables.follow(&[POLICIES], FOLLOW, &tasks, move || following.apply());
        Self(inner)
    }

    /// Sets them.
    pub async fn set(&self, policies: Policies) -> Result<Settled, EditError> {
        let inner = Arc::clone(&self.0);
        let edit = async move {
            let fields = encode(&policies);
            let mut known = inner.instances().into_iter();
            let mut edits = vec![match known.next() {
                Some(counts) => Edit::Set(POLICIES, counts, fields),
                None => Edit::Add(POLICIES, InstanceId(u128::from(inner.entropy.next_u64())), KIND, fields),
            }];
            edits.extend(known.map(|it| Edit::Delete(POLICIES, it)));
            inner.make(edits).await
        };
        self.0.turns.run(edit).await.unwrap_or(Err(EditError::Closing))
    }

    /// Takes back what was set: those of the options are in force again.
    pub async fn reset(&self) -> Result<Settled, EditError> {
        let inner = Arc::clone(&self.0);
        let edit = async move {
            let edits = inner.instances().into_iter().map(|it| Edit::Delete(POLICIES, it)).collect();
            inner.make(edits).await
        };
        self.0.turns.run(edit).await.unwrap_or(Err(EditError::Closing))
    }

    /// The options changed.
    pub fn configure(&self, policies: Policies) {
        self.0.state.lock().configured = policies;
        self.0.apply();
    }

    /// Whether those in force were set here.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.state.lock().is_set
    }
}

impl Inner {
    /// Instances, the one that counts first.
    fn instances(&self) -> Vec<InstanceId> {
        self.tables.admin(POLICIES, |table| by_age(table).into_iter().map(|it| it.0).collect())
    }

    async fn make(&self, edits: Vec<Edit>) -> Result<Settled, EditError> {
        let settled = self.tables.edit(edits).await?;
        self.apply();
        Ok(settled)
    }

    /// Puts in force what the table says now.
    fn apply(&self) {
        let mut state = self.state.lock();
        let set = self.tables.admin(POLICIES, |table| by_age(table).first().map(|it| decode(it.1)));
        let is_unreadable = set == Some(None);
        if is_unreadable && !state.is_unreadable {
            tracing::error!("the policies set through the admin API cannot be read: those of the options are in force");
        }
        let set = set.flatten();
        (state.is_set, state.is_unreadable) = (set.is_some(), is_unreadable);
        let wanted = set.unwrap_or_else(|| state.configured.clone());
        // A policy may have a memory, which setting it anew would lose.
        if state.in_force != wanted {
            state.in_force = wanted.clone();
            self.router.set_policies(wanted);
        }
    }
}

fn by_age(table: &Admin) -> Vec<(InstanceId, &Entry)> {
    let mut all: Vec<_> = table.entries().filter(|(_, entry)| entry.kind == KIND).collect();
    all.sort_by_key(|(key, entry)| (entry.born, key.birth));
    all.into_iter().map(|(key, entry)| (key.id, entry)).collect()
}

fn encode(policies: &Policies) -> Vec<(u16, u8, Vec<u8>)> {
    let models: Vec<String> = policies.models.iter().map(Rule::render).collect();
    let json = |value: serde_json::Value| value.to_string().into_bytes();
    vec![(DEFAULT, VERSION, json(policies.default.as_str().into())), (MODELS, VERSION, json(models.into()))]
}

fn decode(entry: &Entry) -> Option<Policies> {
    let rules: Vec<String> = value(entry, MODELS)?;
    let models: Result<Vec<Rule>, _> = rules.iter().map(|it| Rule::parse(it)).collect();
    let default = PolicyName::parse(&value::<String>(entry, DEFAULT)?).ok()?;
    Some(Policies { default, models: models.ok()? })
}

fn value<T: DeserializeOwned>(entry: &Entry, number: u16) -> Option<T> {
    let field = entry.fields.get(&number).filter(|it| it.version == VERSION)?;
    serde_json::from_slice(&field.bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ModelId;
    use crate::replication::store::memory::Disk;
    use crate::routing::Config;

    fn policies(default: &str, rules: &[&str]) -> Policies {
        let models = rules.iter().map(|it| Rule::parse(it).unwrap()).collect();
        Policies { default: PolicyName::parse(default).unwrap(), models }
    }

    fn start(disk: &Disk) -> (PolicyEdits, Arc<Router>) {
        let router = Arc::new(Router::new(Config::default(), Entropy::from_os()));
        let tasks = Tasks::new();
        let tables = replication::alone(disk, &tasks);
        let configured = Config::default().policies();
        (PolicyEdits::start(Arc::clone(&router), tables, configured, Entropy::from_os(), tasks), router)
    }

    #[tokio::test]
    async fn what_was_set_is_in_force_at_once_and_after_a_restart_until_it_is_taken_back() {
        let disk = Disk::default();
        let of = |router: &Router, model| router.policies().of(&ModelId::parse(model).unwrap()).as_str();
        let (edits, router) = start(&disk);
        let set = policies("random", &["llama3:latest:manual", "llama*:round_robin"]);
        assert!(edits.set(set.clone()).await.unwrap().is_safe);
        assert_eq!(
            [of(&router, "llama3:latest"), of(&router, "llama-4"), of(&router, "x")],
            ["manual", "round_robin", "random"]
        );
        drop((edits, router));

        let (edits, router) = start(&disk);
        assert_eq!((edits.is_set(), of(&router, "llama-4")), (true, "round_robin"));
        edits.configure(policies("bucket", &[]));
        assert_eq!(of(&router, "x"), "random", "an option does not undo what was set");
        assert!(edits.reset().await.unwrap().is_safe);
        assert_eq!((edits.is_set(), of(&router, "llama-4")), (false, "bucket"));
        edits.configure(policies("manual", &[]));
        assert_eq!(of(&router, "x"), "manual");
        drop((edits, router));
        assert!(!start(&disk).0.is_set());
    }

    #[tokio::test]
    async fn what_cannot_be_read_leaves_the_options_in_force_and_is_replaced_by_what_is_set_next() {
        let disk = Disk::default();
        let (edits, router) = start(&disk);
        let newer = vec![(DEFAULT, VERSION + 1, b"{}".to_vec()), (MODELS, VERSION, b"[]".to_vec())];
        edits.0.tables.edit(vec![Edit::Add(POLICIES, InstanceId(1), KIND, newer)]).await.unwrap();
        edits.0.apply();
        assert_eq!((edits.is_set(), router.policies().default.as_str()), (false, "cache_aware"));
        edits.set(policies("random", &[])).await.unwrap();
        assert_eq!((edits.is_set(), router.policies().default.as_str()), (true, "random"));
        assert_eq!(edits.0.instances(), [InstanceId(1)]);
    }
}
