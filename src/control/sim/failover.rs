//! How long a cluster is without a leader: one that is lost, and one that stops in good order.

use std::time::Duration;

use super::busy;
use super::cluster;
use super::millis;
use super::run;
use super::secs;
use super::seeds;
use super::world::World;
use crate::base::clock::Clock;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::control::messages::Answer;
use crate::control::messages::Message;
use crate::transport::lanes::Lane;

/// The lease, a grace, and an attempt that comes while the lease of the other one is not over.
const LOST_MAX: Duration = millis(2_500);
/// A message, a vote and its fsyncs, and a look.
const HANDED_OVER_MAX: Duration = millis(300);

/// Until all others know another leader.
async fn replaced(world: &mut World, old: u16) -> Result<Duration, String> {
    let begun = Clock.now();
    let storage = world.at(old).storage;
    let is_led = |it: &World| {
        let others = it.statuses().into_iter().filter(|it| it.0 != old);
        others.into_iter().all(|it| it.1.group.leader.is_some_and(|it| it != storage))
    };
    world.until(secs(20), "another leads", is_led).await?;
    Ok(Clock.now() - begun)
}

fn lost(seed: u64) -> Result<Vec<Duration>, String> {
    run(seed, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        let mut took = Vec::new();
        for _ in 0..5 {
            let apart = millis(world.entropy.next_u64() % 1_000);
            busy(&mut world, secs(1) + apart).await?;
            let leader = world.leader().ok_or("no leader")?;
            world.kill(leader, true);
            took.push(replaced(&mut world, leader).await?);
            world.start(leader);
            world.until_whole(secs(30), 3).await?;
        }
        world.nothing_is_lost().await?;
        Ok(took)
    })
}

#[test]
fn another_leads_two_seconds_after_the_leader_was_lost() {
    let mut took: Vec<Duration> =
        seeds(8).flat_map(|seed| lost(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"))).collect();
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("N={}: p50 {median:?}, max {longest:?}", took.len());
    assert!(median < secs(2) && longest < LOST_MAX, "{took:?}");
}

#[test]
fn only_the_leader_is_heard_when_it_wants_another_one() {
    let ran = run(9, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        busy(&mut world, secs(1)).await?;
        let leader = world.leader().ok_or("no leader")?;
        let (one, other) = (1 + leader % 3, 1 + (leader + 1) % 3);
        let before = world.statuses()[&leader].clone();
        let own = before.cluster.ok_or("no cluster")?;
        let led_by = world.at(leader).storage;
        let says = [(world.at(other).storage, own), (StorageId(77), own), (led_by, ClusterId(own.0 ^ 1))];
        for (from, cluster) in says {
            let bytes = Message::Stand { cluster }.encode().expect("it has an encoding");
            let answer = world.tell(one, from, Lane::Raft, bytes).await.and_then(|it| Answer::decode(&it).ok());
            assert_eq!(answer, Some(Answer::Stands(false)), "{from}, {cluster}");
        }
        busy(&mut world, secs(3)).await?;
        assert_eq!(world.statuses()[&leader].group.term, before.group.term);
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn a_leader_that_stops_in_good_order_hands_over() {
    for seed in seeds(8) {
        let ran = run(seed, async |mut world| {
            cluster(&mut world, 3, 3).await?;
            busy(&mut world, secs(2)).await?;
            let leader = world.leader().ok_or("no leader")?;
            let term = world.statuses()[&leader].group.term;
            world.stop(leader);
            let took = replaced(&mut world, leader).await?;
            if took > HANDED_OVER_MAX {
                return Err(format!("another leads after {took:?}"));
            }
            world.until(secs(1), "it has stopped", |it| it.has_stopped(leader)).await?;
            world.kill(leader, true);
            busy(&mut world, secs(5)).await?;
            let terms: Vec<u64> = world.statuses().values().map(|it| it.group.term).collect();
            if terms.iter().any(|it| *it != term + 1) {
                return Err(format!("one election is enough: {term}, then {terms:?}"));
            }
            world.start(leader);
            world.until_whole(secs(30), 3).await?;
            world.nothing_is_lost().await
        });
        ran.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

/// A follower is cut off, from all or from the leader alone, for many leases; the others notice nothing, then or when it is back.
pub(super) fn cut_off_follower(seed: u64) -> Result<(), String> {
    run(seed, async |mut world| {
        cluster(&mut world, 3, 3).await?;
        busy(&mut world, secs(1)).await?;
        let leader = world.leader().ok_or("no leader")?;
        let term = world.statuses()[&leader].group.term;
        let follower = 1 + leader % 3;
        match seed % 2 {
            0 => world.split(&[follower]),
            _ => world.cut(leader, follower),
        }
        busy(&mut world, secs(12)).await?;
        world.heal();
        busy(&mut world, secs(5)).await?;
        let terms: Vec<u64> = world.statuses().values().map(|it| it.group.term).collect();
        if terms.iter().any(|it| *it != term) || world.leader() != Some(leader) {
            return Err(format!("a leader whom a majority heard lost its office: term {term}, then {terms:?}"));
        }
        world.until_whole(secs(30), 3).await?;
        world.nothing_is_lost().await.map(drop)
    })
}

#[test]
fn a_follower_that_was_cut_off_ends_no_office() {
    for seed in seeds(8) {
        cut_off_follower(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}
