//! A node without a mesh: its group is there when it is needed, lasts, and is the first of a mesh later.

use std::sync::Arc;

use super::cluster;
use super::commands;
use super::run;
use super::secs;
use super::world::World;
use crate::base::ids::StorageId;
use crate::base::tasks::Stop;
use crate::control::Config;
use crate::control::ControlError;
use crate::control::Ground;
use crate::control::Standing;
use crate::control::alone;
use crate::control::core::bootstrap::Kept;
use crate::control::core::bootstrap::Stage;
use crate::control::machine::Command;
use crate::control::machine::Outcome;
use crate::limits::LimitId;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::ROOM_MIN;
use crate::storage::Store;
use crate::storage::keys::Key;
use crate::storage::memory::Disk;

/// The disk of a place, for a node without a mesh.
pub(super) struct Own(pub(super) Config, pub(super) Disk);

impl Ground for Own {
    fn me(&self) -> StorageId {
        self.0.me
    }

    fn found(&self) -> Option<Store> {
        Some(Store::in_memory(self.1.clone()))
    }

    fn open(&self) -> (Config, Option<Store>) {
        (self.0.clone(), self.found())
    }
}

fn mint(number: u8) -> Command {
    commands::mint(LimitId(number.into()), 1)
}

async fn propose(world: &World, at: u16, number: u8) -> Result<Outcome, ControlError> {
    world.handle(at).expect("it runs").propose(&mint(number), secs(5)).await
}

#[test]
fn a_group_of_one_is_founded_when_it_is_needed_lasts_and_is_the_first_of_a_mesh() {
    let ran = run(1, async |mut world| {
        world.place(1, 1);
        world.start_alone(1);
        world.run(secs(60)).await?;
        let dormant = world.handle(1).expect("it runs").status();
        assert_eq!((dormant.standing, dormant.cluster), (Standing::Dormant, None));
        assert_eq!(propose(&world, 1, 1).await, Ok(Outcome::Changed));
        let cluster = world.handle(1).and_then(|it| it.status().cluster).expect("a cluster");
        for number in 2..5 {
            world.kill(1, true);
            world.start_alone(1);
            let is_back = |it: &World| it.standing(1) == Standing::Member(cluster);
            world.until(secs(5), "it takes up what it kept, unasked", is_back).await?;
            assert_eq!(propose(&world, 1, number - 1).await, Ok(Outcome::Unchanged), "it knows what it answered");
            assert_eq!(propose(&world, 1, number).await, Ok(Outcome::Changed));
        }
        world.kill(1, true);
        (2..=3).for_each(|at| world.place(at, 2));
        (1..=3).for_each(|at| world.start(at));
        world.until_whole(secs(30), 3).await?;
        assert_eq!(world.handle(3).and_then(|it| it.status().cluster), Some(cluster));
        assert_eq!(propose(&world, 3, 4).await, Ok(Outcome::Unchanged), "and so do the others now");
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn a_directory_that_belongs_with_others_or_is_promised_is_no_group_of_one() {
    let ran = run(2, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        let cluster = world.handle(1).and_then(|it| it.status().cluster).expect("a cluster");
        (1..=3).for_each(|at| world.kill(at, true));
        // One of several; a new directory of one of several; one that has promised itself.
        world.at(2).storage = StorageId(7);
        world.place(4, 3);
        let store = Store::in_memory(world.at(4).disk.clone());
        let (storage, stage, only, lives) =
            (world.at(4).storage, Stage::Granted { to: StorageId(9) }, None, Default::default());
        let mut batch = Batch::default();
        batch.put(Key::Own(GroupId::CONTROL), &Kept { storage, stage, only, lives }).expect("it has an encoding");
        store.write_durably(batch).expect("there is room");
        for at in [1, 2, 4] {
            world.start_alone(at);
            let expected = if at == 4 { Standing::Promised(StorageId(9)) } else { Standing::NeedsMesh(cluster) };
            assert_eq!(propose(&world, at, 1).await, Err(ControlError::NoCluster(expected)));
            world.kill(at, true);
        }
        world.start(1);
        world.start(3);
        world.until(secs(30), "the two go on", |it| it.leader().is_some()).await.map(drop)
    });
    ran.unwrap();
}

#[test]
fn a_full_disk_founds_and_takes_nothing_until_there_is_room() {
    let ran = run(3, async |mut world| {
        world.place(1, 1);
        let disk = world.at(1).disk.clone();
        world.start_alone(1);
        disk.leave(Some(ROOM_MIN - 1));
        for _ in 0..2 {
            assert_eq!(propose(&world, 1, 1).await, Err(ControlError::NoRoom));
        }
        disk.leave(None);
        assert_eq!(propose(&world, 1, 1).await, Ok(Outcome::Changed));
        disk.leave(Some(ROOM_MIN - 1));
        assert_eq!(propose(&world, 1, 2).await, Err(ControlError::NoRoom));
        assert!(!world.handle(1).expect("it runs").status().has_room);
        // It is started anew before there is room.
        world.kill(1, true);
        world.at(1).disk.leave(Some(ROOM_MIN - 1));
        world.start_alone(1);
        let is_back = |it: &World| matches!(it.standing(1), Standing::Member(_));
        world.until(secs(5), "it takes up what it kept", is_back).await?;
        assert_eq!(propose(&world, 1, 2).await, Err(ControlError::NoRoom));
        world.at(1).disk.leave(None);
        assert_eq!(propose(&world, 1, 2).await, Ok(Outcome::Changed));
        assert!(!world.has_stopped(1));
        Ok(())
    });
    ran.unwrap();
}

/// Nothing is kept.
struct Nowhere(Config);

impl Ground for Nowhere {
    fn me(&self) -> StorageId {
        self.0.me
    }

    fn found(&self) -> Option<Store> {
        None
    }

    fn open(&self) -> (Config, Option<Store>) {
        (self.0.clone(), None)
    }
}

#[test]
fn where_nothing_is_kept_it_holds_until_the_restart() {
    let ran = run(4, async |mut world| {
        world.place(1, 1);
        let config = world.config(1);
        let cluster = config.draw;
        for _ in 0..2 {
            let (handle, driver) = alone(Arc::new(Nowhere(config.clone())));
            let stop = Stop::new();
            let running = crate::raft::sim::Life::default();
            running.spawn(driver.run(stop.clone()));
            assert_eq!(handle.read(|_| ()), None);
            assert_eq!(handle.propose(&mint(1), secs(5)).await, Ok(Outcome::Changed), "a new one knows nothing");
            assert_eq!(handle.propose(&mint(1), secs(5)).await, Ok(Outcome::Unchanged));
            assert_eq!(handle.read(|it| it.storages().len()), Some(1));
            assert_eq!(handle.status().standing, Standing::Passing(cluster));
            stop.cancel();
        }
        Ok(())
    });
    ran.unwrap();
}
