//! Tenants with a limit, whose clients ask at all nodes for more than it admits.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::Client;
use super::Doing;
use super::Ground;
use super::Work;
use super::Workload;
use super::client::Request;
use super::client::Told;

/// Until every node has a share of a new limit.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
const LOOKED_EVERY: Duration = Duration::from_millis(200);

/// What a tenant may: one whose windows come and go, and one whose window outlives a node that is started again.
struct Kind {
    per: &'static str,
    limit: u64,
    window: Duration,
    /// They ask for about twice the limit, or more.
    clients: usize,
}

const KINDS: [Kind; 2] = [
    Kind { per: "second", limit: 30, window: Duration::from_secs(1), clients: 6 },
    Kind { per: "minute", limit: 90, window: Duration::from_secs(60), clients: 2 },
];

struct Tenant {
    kind: &'static Kind,
    name: String,
    key: String,
    in_force: Cell<bool>,
}

/// See the file's header.
pub(super) struct Limits {
    ground: Rc<Ground>,
    tenants: Vec<Tenant>,
}

impl Limits {
    pub(super) fn new(ground: Rc<Ground>) -> Rc<Self> {
        let tenant = |kind: &'static Kind| Tenant {
            kind,
            name: format!("jepsen-{}-{}", kind.per, ground.tag),
            key: format!("sk-jepsen-{}-{}", kind.per, ground.tag),
            in_force: Cell::new(false),
        };
        let tenants = KINDS.iter().map(tenant).collect();
        Rc::new(Self { ground, tenants })
    }

    /// Makes the tenant, its key and its limit, each until it is there; then waits until every node holds to it.
    async fn prepare(self: Rc<Self>, mut client: Client, at: usize) {
        let Tenant { kind, name, key, .. } = &self.tenants[at];
        let limits = json!({"limits": [{"what": "requests", "per": kind.per, "limit": kind.limit}]});
        let steps = [
            ("POST", "/tenants".to_owned(), json!({"name": name})),
            ("POST", "/keys".to_owned(), json!({"name": name, "tenant": name, "key": key})),
            ("PATCH", format!("/tenants/{name}"), limits),
        ];
        let about = json!({"limit": kind.limit, "window_ms": kind.window.as_millis() as u64});
        let pending = client.invoke("limit", name, about.clone(), 0);
        for (method, path, body) in steps {
            let mut is_done = false;
            while !is_done && !self.ground.is_over() {
                let told = client.ask(0, Request::new(method, &path, &body.to_string())).await;
                // 400 `refused`: it was there, because an answer was lost.
                is_done = told.body().is_some() || matches!(told, Told::Answer(400, _));
                if !is_done {
                    client.rest().await;
                }
            }
        }
        let until = tokio::time::Instant::now() + KNOWN_WITHIN;
        for node in 0..self.ground.target.nodes.len() {
            while !holds(&mut client, node, name).await {
                if self.ground.is_over() || tokio::time::Instant::now() > until {
                    return client.fail(pending, "it did not come into force everywhere in time");
                }
                tokio::time::sleep(LOOKED_EVERY).await;
            }
        }
        client.ok(pending, about);
        self.tenants[at].in_force.set(true);
    }

    async fn client(self: Rc<Self>, mut client: Client, at: usize) {
        let tenant = &self.tenants[at];
        while !tenant.in_force.get() && !self.ground.is_over() {
            tokio::time::sleep(LOOKED_EVERY).await;
        }
        let body = json!({"model": self.ground.target.model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]});
        let body = body.to_string();
        while !self.ground.is_over() {
            let node = client.any();
            let pending = client.invoke("ask", &tenant.name, Value::Null, node);
            let request = Request { api_key: Some(&tenant.key), ..Request::new("POST", "/v1/chat/completions", &body) };
            let told = client.ask(node, request).await;
            client.end_write(pending, &told, Value::Null);
            client.pause().await;
        }
    }
}

async fn holds(client: &mut Client, node: usize, tenant: &str) -> bool {
    let told = client.ask(node, Request::get(&format!("/tenants/{tenant}"))).await;
    told.body().is_some_and(|it| it["limits"][0]["here"]["share"].as_u64().is_some_and(|share| share > 0))
}

impl Work for Limits {
    fn clients(self: Rc<Self>) -> Vec<Doing> {
        let mut all: Vec<Doing> = Vec::new();
        for (at, tenant) in self.tenants.iter().enumerate() {
            let first = all.len();
            let one = |number| Client::new(&self.ground, Workload::Limits, first + number);
            all.push(Box::pin(Rc::clone(&self).prepare(one(0), at)));
            let clients = (1..=tenant.kind.clients).map(one);
            all.extend(clients.map(|it| -> Doing { Box::pin(Rc::clone(&self).client(it, at)) }).collect::<Vec<_>>());
        }
        all
    }

    /// What was admitted was counted.
    fn finals(self: Rc<Self>, _node: usize) -> Doing {
        Box::pin(async {})
    }
}
