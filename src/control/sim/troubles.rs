//! Everything at once, from one seed: loss, splits, kills with and without power, pauses, while clients write.

use super::busy;
use super::cluster;
use super::millis;
use super::secs;
use super::seeds;
use super::world::World;
use super::world::run;

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tally {
    acked: usize,
    term: u64,
}

async fn trouble(world: &mut World, nodes: u16) -> Result<(), String> {
    let draw = world.entropy.next_u64();
    let at = 1 + (draw >> 8) as u16 % nodes;
    match draw % 5 {
        0 => {
            let with_power = draw & (1 << 40) != 0;
            world.kill(at, with_power);
            busy(world, millis(200 + (draw >> 16) % 6_000)).await?;
            world.start(at);
        }
        1 => {
            world.split(&[at]);
            busy(world, millis(500 + (draw >> 16) % 8_000)).await?;
            world.heal();
        }
        2 => {
            let life = world.at(at).running.as_ref().map(|it| it.life.clone());
            life.iter().for_each(crate::raft::sim::Life::pause);
            busy(world, millis(500 + (draw >> 16) % 9_500)).await?;
            life.iter().for_each(crate::raft::sim::Life::resume);
        }
        3 => {
            // The power of all of them.
            (1..=nodes).for_each(|it| world.kill(it, true));
            world.run(millis(500)).await?;
            (1..=nodes).for_each(|it| world.start(it));
        }
        _ => {
            world.lose(0.1);
            busy(world, secs(3)).await?;
            world.lose(0.0);
        }
    }
    busy(world, millis((draw >> 24) % 3_000)).await
}

/// One run.
pub(super) fn seed(seed: u64) -> Result<Tally, String> {
    run(seed, async |mut world| {
        let nodes = [3, 5][(seed % 2) as usize];
        cluster(&mut world, nodes, usize::from(nodes)).await?;
        for _ in 0..8 {
            trouble(&mut world, nodes).await?;
        }
        world.until_whole(secs(60), usize::from(nodes)).await?;
        let acked = world.nothing_is_lost().await?;
        if acked < 20 {
            return Err(format!("only {acked} writes were acknowledged"));
        }
        let term = world.statuses().values().map(|it| it.group.term).max().unwrap_or_default();
        Ok(Tally { acked, term })
    })
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_and_no_vote_is_taken_back() {
    let mut acked = 0;
    for number in seeds(8) {
        match seed(number) {
            Ok(tally) => acked += tally.acked,
            Err(what) => panic!("seed {number}: {what}"),
        }
    }
    println!("{acked} acknowledged commands in {} runs", seeds(8).end);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(seed(3), seed(3));
}
