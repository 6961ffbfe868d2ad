//! Builds what makes routing one across nodes: the shared hash key, the prefix log and the bindings. Decides nothing.

use std::sync::Arc;

use crate::base::entropy::Entropy;
use crate::base::tasks::Tasks;
use crate::config::Config;
use crate::observability::metrics::Registry as MetricsRegistry;
use crate::replication;
use crate::routing;
use crate::routing::Router;
use crate::routing::affinity;
use crate::routing::affinity::Bindings;
use crate::routing::prefix_log;
use crate::routing::prefix_log::Outbox;
use crate::routing::prefix_map::chain::Key;
use crate::workers::registry::Registry;

/// What routing leaves for other nodes. `None`: there are none, or it keeps everything to itself.
pub(super) struct Sharing {
    outbox: Arc<Outbox>,
    bindings: Arc<Bindings>,
    metrics: routing::Metrics,
}

/// The router. `key`: what all nodes of the mesh key their hashes with.
pub(super) fn router(
    config: &Config,
    key: Option<[u8; 32]>,
    entropy: &Entropy,
    registry: &mut MetricsRegistry,
) -> (Arc<Router>, Option<Sharing>) {
    let metrics = routing::Metrics::register(registry);
    let router = Router::new(config.routing.clone(), entropy.clone()).with_metrics(metrics.clone());
    let Some(key) = key.filter(|_| !config.routing.disable_placement_sharing) else { return (Arc::new(router), None) };
    let outbox = Arc::new(Outbox::new(metrics.outbox_full()));
    let bindings = Arc::new(Bindings::new(metrics.bindings_full()));
    let router = router.with_peers(Key::shared(&key), Arc::clone(&outbox), Arc::clone(&bindings));
    (Arc::new(router), Some(Sharing { outbox, bindings, metrics }))
}

impl Sharing {
    /// Starts what carries it.
    pub(super) fn start(
        self,
        config: &Config,
        router: &Arc<Router>,
        tables: &replication::Handle,
        registry: &Arc<Registry>,
        entropy: &Entropy,
        tasks: &Tasks,
    ) {
        let (router, registry) = (Arc::clone(router), Arc::clone(registry));
        prefix_log::start(prefix_log::Sharing { router, outbox: self.outbox, tables: tables.clone(), registry }, tasks);
        let (tables, entropy, idle) = (tables.clone(), entropy.clone(), config.routing.manual_idle);
        let Self { bindings, metrics, .. } = self;
        affinity::start(affinity::Sharing { bindings, tables, idle, entropy, metrics }, tasks);
    }
}
