//! A tenant with a limit, whose clients ask at all nodes for more than it admits.

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

/// They ask for about twice the limit.
const CLIENTS: usize = 6;
const LIMIT: u64 = 30;
const WINDOW: Duration = Duration::from_secs(1);
/// Until every node has a share of a new limit.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
const LOOKED_EVERY: Duration = Duration::from_millis(200);

/// See the file's header.
pub(super) struct Limits {
    ground: Rc<Ground>,
    tenant: String,
    key: String,
    in_force: Cell<bool>,
}

impl Limits {
    pub(super) fn new(ground: Rc<Ground>) -> Rc<Self> {
        let (tenant, key) = (format!("jepsen-{}", ground.tag), format!("sk-jepsen-clients-{}", ground.tag));
        Rc::new(Self { ground, tenant, key, in_force: Cell::new(false) })
    }

    /// Makes the tenant, its key and its limit, each until it is there; then waits until every node holds to it.
    async fn prepare(self: Rc<Self>, mut client: Client) {
        let limits = json!({"limits": [{"what": "requests", "per": "second", "limit": LIMIT}]});
        let steps = [
            ("POST", "/tenants".to_owned(), json!({"name": self.tenant})),
            ("POST", "/keys".to_owned(), json!({"name": self.tenant, "tenant": self.tenant, "key": self.key})),
            ("PATCH", format!("/tenants/{}", self.tenant), limits),
        ];
        let about = json!({"limit": LIMIT, "window_ms": WINDOW.as_millis() as u64});
        let pending = client.invoke("limit", &self.tenant, about.clone(), 0);
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
            while !self.holds(&mut client, node).await {
                if self.ground.is_over() || tokio::time::Instant::now() > until {
                    return client.fail(pending, "it did not come into force everywhere in time");
                }
                tokio::time::sleep(LOOKED_EVERY).await;
            }
        }
        client.ok(pending, about);
        self.in_force.set(true);
    }

    async fn holds(&self, client: &mut Client, node: usize) -> bool {
        let told = client.ask(node, Request::get(&format!("/tenants/{}", self.tenant))).await;
        told.body().is_some_and(|it| it["limits"][0]["here"]["share"].as_u64().is_some_and(|share| share > 0))
    }

    async fn client(self: Rc<Self>, mut client: Client) {
        while !self.in_force.get() && !self.ground.is_over() {
            tokio::time::sleep(LOOKED_EVERY).await;
        }
        let body = json!({"model": self.ground.target.model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]});
        let body = body.to_string();
        while !self.ground.is_over() {
            let node = client.any();
            let pending = client.invoke("ask", &self.tenant, Value::Null, node);
            let request = Request { api_key: Some(&self.key), ..Request::new("POST", "/v1/chat/completions", &body) };
            let told = client.ask(node, request).await;
            client.end_write(pending, &told, Value::Null);
            client.pause().await;
        }
    }
}

impl Work for Limits {
    fn clients(self: Rc<Self>) -> Vec<Doing> {
        let one = |number| Client::new(&self.ground, Workload::Limits, number);
        let mut all: Vec<Doing> = vec![Box::pin(Rc::clone(&self).prepare(one(CLIENTS)))];
        all.extend((0..CLIENTS).map(|number| -> Doing { Box::pin(Rc::clone(&self).client(one(number))) }));
        all
    }

    /// What was admitted was counted.
    fn finals(self: Rc<Self>, _node: usize) -> Doing {
        Box::pin(async {})
    }
}
