//! Tenants with a limit, whose clients ask at all nodes for more than it admits.

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
use super::tenant::Tenant;

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

/// See the file's header.
pub(super) struct Limits {
    ground: Rc<Ground>,
    tenants: Vec<(&'static Kind, Tenant)>,
}

impl Limits {
    pub(super) fn new(ground: Rc<Ground>) -> Rc<Self> {
        let tenant = |kind: &'static Kind| (kind, Tenant::new(&ground, kind.per, (kind.per, kind.limit)));
        let tenants = KINDS.iter().map(tenant).collect();
        Rc::new(Self { ground, tenants })
    }

    /// Makes the tenant, and waits until every node holds to its limit.
    async fn prepare(self: Rc<Self>, mut client: Client, at: usize) {
        let (kind, tenant) = &self.tenants[at];
        let about = json!({"limit": kind.limit, "window_ms": kind.window.as_millis() as u64});
        let pending = client.invoke("limit", &tenant.name, about.clone(), 0);
        tenant.make(&mut client).await;
        tenant.until_limited(&mut client).await;
        match tenant.key() {
            Some(_) => client.ok(pending, about),
            None => client.fail(pending, "it did not come into force everywhere in time"),
        }
    }

    async fn client(self: Rc<Self>, mut client: Client, at: usize) {
        let tenant = &self.tenants[at].1;
        tenant.known(&mut client).await;
        let body = json!({"model": self.ground.target.model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]});
        let body = body.to_string();
        while !self.ground.is_over() {
            let node = client.any();
            let pending = client.invoke("ask", &tenant.name, Value::Null, node);
            let request = Request { api_key: tenant.key(), ..Request::new("POST", "/v1/chat/completions", &body) };
            let told = client.ask(node, request).await;
            client.end_write(pending, &told, Value::Null);
            client.pause().await;
        }
    }
}

impl Work for Limits {
    fn clients(self: Rc<Self>) -> Vec<Doing> {
        let mut all: Vec<Doing> = Vec::new();
        for (at, (kind, _)) in self.tenants.iter().enumerate() {
            let first = all.len();
            let one = |number| Client::new(&self.ground, Workload::Limits, first + number);
            all.push(Box::pin(Rc::clone(&self).prepare(one(0), at)));
            let clients = (1..=kind.clients).map(one);
            all.extend(clients.map(|it| -> Doing { Box::pin(Rc::clone(&self).client(it, at)) }).collect::<Vec<_>>());
        }
        all
    }

    /// What was admitted was counted.
    fn finals(self: Rc<Self>, _node: usize) -> Doing {
        Box::pin(async {})
    }
}
