//! `smg mesh secret` and `smg mesh bootstrap`: what a cluster needs before it starts, and how a data directory is taken out of one. Neither asks a node.

use std::path::Path;

use clap::Arg;
use clap::ArgAction;
use clap::ArgGroup;
use clap::ArgMatches;
use clap::Command;

use super::say;
use crate::base::entropy::Entropy;
use crate::base::ids::ClusterId;
use crate::chaos;
use crate::control;
use crate::history::group;
use crate::storage::Handle;
use crate::storage::Metrics;
use crate::storage::Place;
use crate::storage::Store;
use crate::transport::identity;
use crate::transport::trust::MeshSecret;

pub(super) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let bootstrap = Command::new("bootstrap")
        .about("Mend a data directory whose node is stopped: take its grant back, or let it join as a new one")
        .arg(Arg::new("data-dir").long("data-dir").required(true).help("The data directory"))
        .arg(flag("reset", "Take its grant back: the node that was to found the cluster with it is lost for good"))
        .arg(flag(
            "new-storage",
            "Make it a new one: it was copied, restored from a backup, or belongs to another cluster",
        ))
        .arg(flag(
            "force-new-group",
            "Make it a cluster of its own with what it has: most voters are lost for good. All other nodes must rejoin as new ones",
        ))
        .group(ArgGroup::new("what").args(["reset", "new-storage", "force-new-group"]).required(true));
    Command::new("mesh")
        .about("What a cluster needs before it starts")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("secret").about("Print a new mesh secret; give it to every node of a cluster"))
        .subcommand(bootstrap)
}

/// Does what was asked.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let Some(("bootstrap", matches)) = matches.subcommand() else {
        say(&format!("{}\n", MeshSecret::generate().expose()));
        return Ok(());
    };
    let path = Path::new(matches.get_one::<String>("data-dir").expect("required"));
    let done = match ["reset", "new-storage"].map(|it| matches.get_flag(it)) {
        [true, _] => reset(path)?.to_owned(),
        [_, true] => renew(path)?.to_owned(),
        [false, false] => force(path)?,
    };
    say(&done);
    Ok(())
}

fn force(path: &Path) -> anyhow::Result<String> {
    let store = store_of(path)?;
    let entropy = Entropy::from_os();
    let draw = ClusterId(entropy.next_u128());
    if let Some(me) = control::whose(&store)? {
        group::recover(&store, me)?;
    }
    let Some(cluster) = control::recover(&store, draw)? else {
        anyhow::bail!("it belongs to no cluster, so there is nothing to go on from: start the node")
    };
    Ok(format!(
        "it is {cluster} now, a cluster of this node alone, with what its disk has; what only the lost nodes had is gone\n\
         start this node again; on every other node of the old cluster, stopped: smg mesh bootstrap --data-dir DIR --new-storage\n"
    ))
}

/// The store of a stopped node.
pub(super) fn store_of(path: &Path) -> anyhow::Result<Store> {
    anyhow::ensure!(
        path.join(identity::FILE).exists(),
        "`{}` is no data directory of a node with a mesh",
        path.display()
    );
    let handle = Handle::open(Place::Named(path.to_path_buf()), Metrics::default(), chaos::Handle::default());
    handle.store().ok_or_else(|| anyhow::anyhow!("the data directory cannot be used: stop its node first"))
}

fn reset(path: &Path) -> anyhow::Result<&'static str> {
    let store = store_of(path)?;
    anyhow::ensure!(control::reset(&store)?, "it belongs to a cluster already, so there is no grant to take back");
    Ok("its grant is taken back; start the node again\n")
}

/// The old name stays beside the new one, for whoever looks for what happened.
fn renew(path: &Path) -> anyhow::Result<&'static str> {
    let file = path.join(identity::FILE);
    // Holds the store's lock: a node that runs on it would go on under a name that is no more.
    let _held = store_of(path)?;
    std::fs::rename(&file, path.join(format!("{}.old", identity::FILE)))?;
    Ok("start the node again: it joins as a new one, and keeps what the cluster's tables hold\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::Identity;

    #[test]
    fn a_directory_becomes_a_new_one_and_only_a_stopped_node_s() {
        let data = tempfile::tempdir().unwrap();
        assert!(
            renew(data.path()).is_err() && reset(data.path()).is_err() && force(data.path()).is_err(),
            "it is none"
        );
        let storage = || Identity::open(data.path(), 1, &Entropy::from_os()).unwrap().storage;
        let before = storage();
        let running =
            Handle::open(Place::Named(data.path().to_path_buf()), Metrics::default(), chaos::Handle::default());
        assert!(renew(data.path()).is_err() && reset(data.path()).is_err(), "its node runs");
        drop(running);
        assert_eq!(storage(), before);
        renew(data.path()).unwrap();
        assert_ne!(storage(), before);
        reset(data.path()).unwrap();
        assert!(force(data.path()).unwrap_err().to_string().contains("no cluster"));
    }
}
