//! The door for operators to the policies: a change is kept first, then put in force.
//!
//! What the admin API sets goes before what options say, until it is taken back there; a changed option does not undo it.
//! *Invariant:* a change that was refused changed neither the journal nor the router.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;

use crate::base::journal::Journal;
use crate::base::journal::Kept;
use crate::base::journal::NotKept;
use crate::base::journal::Row;
use crate::base::setting::Setting as _;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::base::turns::Turns;
use crate::routing::Policies;
use crate::routing::Router;
use crate::routing::rules::Rule;

const EDIT: Task = Task { name: "policy-edit", stage: Stage::Decide, on_end: OnEnd::Fine };

/// The version of what is kept. Another one is left alone and said to be unreadable.
const VERSION: u32 = 1;

/// See the file's header. Clones are the same one.
#[derive(Clone)]
pub struct PolicyEdits(Arc<Inner>);

struct Inner {
    router: Arc<Router>,
    journal: Arc<dyn Journal>,
    turns: Turns,
    state: Mutex<State>,
}

struct State {
    configured: Policies,
    is_set: bool,
}

/// What is kept: JSON, because it describes itself.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    default: String,
    /// Each as the option takes it.
    models: Vec<String>,
}

impl PolicyEdits {
    /// Puts in force what was set before the restart, else what options say (which the router does already).
    #[must_use]
    pub fn restore(router: Arc<Router>, journal: Arc<dyn Journal>, configured: Policies, tasks: Tasks) -> Self {
        let kept = journal.rows().into_iter().find(|(row, _)| *row == Row::Policies);
        let set = kept.and_then(|(_, value)| {
            let decoded = decode(&value);
            if decoded.is_none() {
                tracing::error!(
                    "the policies set through the admin API cannot be read: those of the options are in force"
                );
            }
            decoded
        });
        let is_set = set.is_some();
        if let Some(policies) = set {
            router.set_policies(policies);
        }
        let state = Mutex::new(State { configured, is_set });
        Self(Arc::new(Inner { router, journal, turns: Turns::new(EDIT, tasks), state }))
    }

    /// Sets them.
    pub async fn set(&self, policies: Policies) -> Result<Kept, NotKept> {
        let inner = Arc::clone(&self.0);
        let edit = async move {
            let kept = inner.journal.put(Row::Policies, encode(&policies)).await?;
            inner.state.lock().is_set = true;
            inner.router.set_policies(policies);
            Ok(kept)
        };
        self.0.turns.run(edit).await.unwrap_or(Err(NotKept::Closing))
    }

    /// Takes back what was set: those of the options are in force again.
    pub async fn reset(&self) -> Result<Kept, NotKept> {
        let inner = Arc::clone(&self.0);
        let edit = async move {
            let kept = inner.journal.remove(Row::Policies).await?;
            let mut state = inner.state.lock();
            state.is_set = false;
            inner.router.set_policies(state.configured.clone());
            Ok(kept)
        };
        self.0.turns.run(edit).await.unwrap_or(Err(NotKept::Closing))
    }

    /// The options changed.
    pub fn configure(&self, policies: Policies) {
        let mut state = self.0.state.lock();
        if !state.is_set && state.configured != policies {
            self.0.router.set_policies(policies.clone());
        }
        state.configured = policies;
    }

    /// Whether those in force were set here.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.state.lock().is_set
    }
}

fn encode(policies: &Policies) -> Vec<u8> {
    let models = policies.models.iter().map(Rule::render).collect();
    let record = Record { version: VERSION, default: policies.default.as_str().to_owned(), models };
    serde_json::to_vec(&record).expect("text is JSON")
}

fn decode(value: &[u8]) -> Option<Policies> {
    let record: Record = serde_json::from_slice(value).ok().filter(|it: &Record| it.version == VERSION)?;
    let models: Result<Vec<Rule>, _> = record.models.iter().map(|it| Rule::parse(it)).collect();
    let default = crate::routing::policies::PolicyName::parse(&record.default).ok()?;
    Some(Policies { default, models: models.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::entropy::Entropy;
    use crate::base::ids::ModelId;
    use crate::history::Handle;
    use crate::history::Place;
    use crate::routing::Config;
    use crate::routing::policies::PolicyName;

    fn policies(default: &str, rules: &[&str]) -> Policies {
        let models = rules.iter().map(|it| Rule::parse(it).unwrap()).collect();
        Policies { default: PolicyName::parse(default).unwrap(), models }
    }

    fn start(directory: &std::path::Path) -> (PolicyEdits, Arc<Router>) {
        let router = Arc::new(Router::new(Config::default(), Entropy::from_os()));
        let handle = Handle::open(Place::Named(directory.to_path_buf()), crate::history::Metrics::default());
        let configured = Config::default().policies();
        (PolicyEdits::restore(Arc::clone(&router), Arc::new(handle), configured, Tasks::new()), router)
    }

    #[tokio::test]
    async fn what_was_set_is_in_force_at_once_and_after_a_restart_until_it_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let of = |router: &Router, model| router.policies().of(&ModelId::parse(model).unwrap()).as_str();
        let (edits, router) = start(directory.path());
        let set = policies("random", &["llama3:latest:manual", "llama*:round_robin"]);
        assert_eq!(edits.set(set.clone()).await, Ok(Kept::Durably));
        assert_eq!(
            [of(&router, "llama3:latest"), of(&router, "llama-4"), of(&router, "x")],
            ["manual", "round_robin", "random"]
        );
        drop((edits, router));

        let (edits, router) = start(directory.path());
        assert_eq!((edits.is_set(), of(&router, "llama-4")), (true, "round_robin"));
        edits.configure(policies("bucket", &[]));
        assert_eq!(of(&router, "x"), "random", "an option does not undo what was set");
        assert_eq!(edits.reset().await, Ok(Kept::Durably));
        assert_eq!((edits.is_set(), of(&router, "llama-4")), (false, "bucket"));
        edits.configure(policies("manual", &[]));
        assert_eq!(of(&router, "x"), "manual");
        drop((edits, router));
        assert!(!start(directory.path()).0.is_set());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert_eq!(decode(&encode(&policies("random", &["a*:manual"]))), Some(policies("random", &["a*:manual"])));
        for bad in
            [r#"{"version":2,"default":"random","models":[]}"#, r#"{"version":1,"default":"best","models":[]}"#, ""]
        {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
