//! What a cluster is at one moment, as one node and those it names tell it; and what changed since the moment before.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use serde_json::json;

use super::super::client::Node;
use super::super::cluster::Seen;
use super::super::cluster::hit_rate;
use super::super::cluster::listed;
use crate::base::clock::Clock;
use crate::base::clock::Instant;

/// A node that does not answer within this is shown without what only it knows.
const DEADLINE: Duration = Duration::from_millis(1500);
/// Nodes that are asked for themselves. Beyond it they are shown as the asked one sees them.
const ASKED_MAX: usize = 64;

/// One node in the list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// As the asked node sees it.
    pub(super) member: Value,
    /// What it says of itself; null if it was not asked or did not answer.
    pub(super) node: Value,
    /// Milliseconds of a round trip from the asked node.
    pub(super) rtt_ms: Option<f64>,
    /// Requests in a second, since the moment before.
    pub(super) requests_per_second: Option<f64>,
    /// Per cent of prompt tokens that were cached: since the moment before, else since the start.
    pub(super) hit_rate: Option<f64>,
}

/// See the file's header.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) url: String,
    pub(super) taken: Instant,
    pub(super) seen: Seen,
    pub(super) rows: Vec<Row>,
    /// Bytes sent in a second, by table.
    pub(super) sent_per_second: Vec<(String, f64)>,
}

impl Moment {
    /// Asks the node, then those that it names.
    pub(super) async fn of(node: &Node, before: Option<&Self>) -> anyhow::Result<Self> {
        let seen = Seen::of(node, DEADLINE).await?;
        let me = &seen.node["node_id"];
        let members = listed(&seen.members, "members");
        let alone = [json!({"name": seen.node["name"], "state": "alive", "is_self": true})];
        let members = if members.is_empty() { &alone[..] } else { members };
        let asked = members.iter().take(ASKED_MAX).map(async |member| {
            if member["is_self"] == true || (!me.is_null() && member["node_id"] == *me) {
                return seen.node.clone();
            }
            let other = member["http"].as_str().filter(|_| member["state"] == "alive").map(|url| node.beside(url));
            match other {
                Some(Ok(other)) => other.get(DEADLINE, "/cluster/node").await.unwrap_or(Value::Null),
                Some(Err(_)) | None => Value::Null,
            }
        });
        let mut told = join_all(asked).await.into_iter();
        let taken = Clock.now();
        let since = before.map(|it| (it, taken.saturating_duration_since(it.taken).as_secs_f64().max(0.001)));
        let row = |member: &Value| row(member, told.next().unwrap_or(Value::Null), &seen, since);
        let mut rows: Vec<Row> = members.iter().map(row).collect();
        rows.sort_by_key(|it| {
            it.member["name"].as_str().map_or_else(|| it.member["node_id"].to_string(), str::to_owned)
        });
        let sent_per_second = sent(&seen, since);
        Ok(Self { url: node.to_string(), taken, rows, sent_per_second, seen })
    }

    /// For tools.
    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(
            |it| json!({"member": it.member, "node": it.node, "rtt_ms": it.rtt_ms, "hit_rate_percent": it.hit_rate}),
        );
        let Seen { readiness, health, tables, links, workers, .. } = &self.seen;
        json!({"node": self.url, "readiness": readiness, "nodes": rows.collect::<Vec<_>>(), "health": health, "tables": tables,
            "links": links, "workers": workers})
    }
}

fn row(member: &Value, node: Value, seen: &Seen, since: Option<(&Moment, f64)>) -> Row {
    let link = |class: &str| {
        let links = listed(&seen.links, "links").iter();
        links.filter(|it| it["class"] == class).find(|it| it["node_id"] == member["node_id"])
    };
    let before = since.and_then(|(moment, seconds)| {
        let row = moment.rows.iter().find(|it| it.member["node_id"] == member["node_id"])?;
        Some((&row.node, seconds))
    });
    let delta = |field: &str| {
        let (before, seconds) = before?;
        // After a restart it counts anew.
        let difference = node[field].as_f64()? - before[field].as_f64()?;
        (difference >= 0.0).then_some((difference, seconds))
    };
    let now = match (delta("cached_tokens"), delta("input_tokens")) {
        (Some((cached, _)), Some((input, _))) if input > 0.0 => Some(100.0 * cached / input),
        _ => None,
    };
    Row {
        rtt_ms: link("main").and_then(|it| it["rtt_ms"].as_f64()),
        requests_per_second: delta("requests_total").map(|(count, seconds)| count / seconds),
        hit_rate: now.or_else(|| hit_rate(&node)),
        member: member.clone(),
        node,
    }
}

fn sent(seen: &Seen, since: Option<(&Moment, f64)>) -> Vec<(String, f64)> {
    let Some((before, seconds)) = since else { return Vec::new() };
    let then = listed(&before.seen.tables, "tables");
    let rate = |table: &Value| {
        let old = then.iter().find(|it| it["name"] == table["name"])?;
        let bytes = table["bytes_sent"].as_f64()? - old["bytes_sent"].as_f64()?;
        Some((table["name"].as_str()?.to_owned(), (bytes / seconds).max(0.0)))
    };
    listed(&seen.tables, "tables").iter().filter_map(rate).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Three nodes, one of them down, as the first sees them.
    pub(in super::super) fn seen() -> Seen {
        let worker = |url: &str, via: &str, load: u64| {
            json!({"url": url, "state": "ready", "source": "flag", "via": via, "models": [{"id": "m"}], "load": load,
            "queued_prefill_tokens": 100 * load, "prefill_tokens_per_second": 14_000.0})
        };
        Seen {
            readiness: json!({"status": "ready"}),
            node: json!({"name": "gw-1", "node_id": "n-1", "uptime_seconds": 65, "workers": 2, "requests_active": 3, "requests_total": 100,
                "input_tokens": 1000, "cached_tokens": 900, "release": "1.0.0"}),
            members: json!({"mesh": true, "members": [
                {"node_id": "n-1", "name": "gw-1", "state": "alive", "is_self": true, "zone": "a"},
                {"node_id": "n-2", "name": "gw-2", "state": "alive", "is_self": false},
                {"node_id": "n-3", "name": null, "state": "down", "is_self": false}]}),
            health: json!({"status": "red", "reasons": ["`keys` was not exchanged"]}),
            tables: json!({"tables": [
                {"name": "workers", "entries": 4, "bytes_sent": 5000, "red": false, "in_force": true},
                {"name": "keys", "entries": 0, "bytes_sent": 0, "red": true, "in_force": true}]}),
            links: json!({"links": [{"node_id": "n-2", "class": "main", "rtt_ms": 0.42}, {"node_id": "n-2", "class": "bulk", "rtt_ms": 9.0}]}),
            workers: json!({"workers": [worker("http://gpu1:8000", "-", 7), worker("http://gpu2:8000", "gw-2", 0)]}),
        }
    }

    pub(in super::super) fn moment(seen: Seen, before: Option<&Moment>, seconds: u64) -> Moment {
        let taken = before.map_or_else(|| Clock.now(), |it| it.taken) + Duration::from_secs(seconds);
        let since = before.map(|it| (it, seconds as f64));
        let own = |it: &Value| if it["is_self"] == true { seen.node.clone() } else { Value::Null };
        let rows = listed(&seen.members, "members").iter().map(|it| row(it, own(it), &seen, since)).collect();
        Moment { url: "http://gw-1:30000".to_owned(), taken, rows, sent_per_second: sent(&seen, since), seen }
    }

    #[test]
    fn what_changed_is_told_for_a_second_and_a_restart_is_no_change() {
        let before = moment(seen(), None, 0);
        assert_eq!((before.rows[0].hit_rate, before.rows[0].requests_per_second), (Some(90.0), None));
        assert_eq!((before.rows[1].rtt_ms, before.rows[2].rtt_ms), (Some(0.42), None));
        let mut later = seen();
        later.node["requests_total"] = json!(140);
        later.node["input_tokens"] = json!(1200);
        later.node["cached_tokens"] = json!(1000);
        later.tables["tables"][0]["bytes_sent"] = json!(9000);
        let after = moment(later, Some(&before), 2);
        assert_eq!((after.rows[0].requests_per_second, after.rows[0].hit_rate), (Some(20.0), Some(50.0)));
        assert_eq!(after.sent_per_second[0], ("workers".to_owned(), 2000.0));
        let restarted = moment(seen(), Some(&after), 1);
        assert_eq!((restarted.rows[0].requests_per_second, restarted.rows[0].hit_rate), (None, Some(90.0)));
    }
}
