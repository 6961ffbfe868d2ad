//! A hundred gateways and a thousand workers: what the prefix log costs each gateway (ROUTING.md 2).
//!
//! Every gateway decides, every gateway writes rows; one of them reads those of all others, since all read the same. Two thousand and five hundred requests a second
//! with four thousand new tokens each are ten thousand uncached tokens a second and worker.

use std::sync::Arc;
use std::time::Duration;

use super::gateway::Gateway;
use super::gateway::Pool;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::bench::core::prompt;
use crate::bench::core::prompt::Run;
use crate::dialects::form::Mark;
use crate::dialects::form::Piece;
use crate::dialects::form::Prompt;
use crate::replication::NewRow;
use crate::replication::messages::Message;
use crate::replication::owned::PartDelta;
use crate::replication::owned::RowDelta;
use crate::replication::tables::PREFIXES;
use crate::routing::Config;
use crate::routing::prefix_log::core::Heard;
use crate::routing::request::RouteRequest;
use crate::sim::is_asked_for;

/// Bytes of a turn: four thousand tokens.
const TURN_BYTES: u32 = 16_000;
const TURNS: u32 = 3;
const FLUSHES_A_SECOND: u64 = 2;

/// Conversations of a few turns, each sent to any gateway.
struct Chats {
    draw: Entropy,
    text: prompt::Pool,
    sessions: Vec<(u64, u32)>,
    last: u64,
}

impl Chats {
    fn send(&mut self, now: Instant, gateways: &[Gateway]) {
        if self.draw.below(TURNS as usize) == 0 || self.sessions.is_empty() {
            self.last += 1;
            self.sessions.push((self.last, 0));
        }
        let at = self.draw.below(self.sessions.len());
        let (id, turns) = &mut self.sessions[at];
        *turns += 1;
        let mut bytes = Vec::new();
        self.text.write(Run { space: *id, first: 0, count: *turns, bytes: TURN_BYTES }, &mut bytes);
        if *turns == TURNS {
            self.sessions.swap_remove(at);
        }
        let turns = bytes.chunks(TURN_BYTES as usize);
        let prompt = Prompt { pieces: turns.flat_map(|it| [Piece::Mark(Mark::Message), Piece::Text(it)]).collect() };
        let (tenant, model) = (TenantId::parse("team").expect("valid"), ModelId::parse("llama").expect("valid"));
        let request = RouteRequest {
            model: &model,
            tenant: &tenant,
            prompt: Some(&prompt),
            body_len: bytes.len(),
            routing_key: None,
            target: None,
            tried: &[],
        };
        let gateway = &gateways[self.draw.below(gateways.len())];
        let pool = Pool { gateway, now, readings: None, is_shared: false };
        gateway.router.choose(now, &request, &pool).expect("there are workers");
    }
}

/// A frame with these rows, as replication sends it to each member.
fn frame(gateway: &Gateway, version: u64, rows: &[NewRow]) -> usize {
    let rows: Vec<RowDelta> = (version..)
        .zip(rows)
        .map(|(version, (name, bytes))| RowDelta { name: name.clone(), version, age_ms: 0, bytes: bytes.clone() })
        .collect();
    let (owner, to) = (gateway.peer.storage, version + rows.len() as u64);
    let part = PartDelta { owner, boot: 1, from: version, to, head: to, floor: 0, rows };
    Message::Parts { table: PREFIXES, parts: vec![part], is_all: true }.encode().expect("encodes").len()
}

#[test]
fn p8_the_prefix_log_of_a_hundred_gateways_costs_each_less_than_its_budget() {
    let (gateways, workers, per_second, seconds) =
        if is_asked_for("large") { (100, 1000, 2500, 60) } else { (10, 100, 100, 4) };
    let begun = Clock.now();
    let peer = |n: usize| Arc::new(crate::transport::tests::peer(n as u16 + 1));
    let mut all: Vec<Gateway> =
        (0..gateways).map(|n| Gateway::new(Config::default(), peer(n), workers, true, n as u64, begun)).collect();
    let mut chats = Chats { draw: Entropy::seeded(1), text: prompt::Pool::new(7), sessions: Vec::new(), last: 0 };
    let (mut frames, mut inbound, mut heard) = (0_u64, 0_u64, 0_u64);
    for flush in 0..seconds * FLUSHES_A_SECOND {
        let now = begun + Duration::from_millis(flush * 1000 / FLUSHES_A_SECOND);
        (0..per_second / FLUSHES_A_SECOND).for_each(|_| chats.send(now, &all));
        let mut rows = Vec::new();
        for gateway in &mut all[1..] {
            let written = gateway.flush(now);
            if !written.is_empty() {
                frames += 1;
                inbound += frame(gateway, flush + 1, &written) as u64;
                let values = written.into_iter().filter_map(|it| it.1);
                rows.extend(values.map(|it| Heard {
                    owner: gateway.peer.storage,
                    age: Duration::ZERO,
                    value: Some(it),
                }));
            }
        }
        heard += rows.len() as u64;
        let _ = all[0].flush(now); // its own rows are not read here
        all[0].take(now, rows);
    }
    let (entries, map) = all[0].router.prefix_map_size();
    let counts = all[1].log.counts();
    let inbound_rate = inbound as f64 / seconds as f64;
    println!(
        "{gateways} gateways, {workers} workers, {per_second} requests/s, {seconds} s: into each gateway {:.1} kB/s in {:.0} frames/s; \
         out of each {:.2} kB/s to each of the others, {:.1} kB/s in all; its map {entries} entries, {:.1} MB; {heard} rows; one gateway's counts {counts:?}",
        inbound_rate / 1000.0,
        frames as f64 / seconds as f64,
        inbound_rate / 1000.0 / (gateways - 1) as f64,
        inbound_rate / 1000.0,
        map as f64 / 1e6,
    );
    assert!(entries > 0 && counts.over_batch == 0);
    assert!(inbound_rate < 200_000.0, "{inbound_rate}");
}
