//! A tenant that may begin little at a time: what it asks in the background waits, with nothing made of it yet.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::Client;
use super::Ground;
use super::client::Request;
use super::client::Told;

/// Requests a second, in the whole cluster. More, and nothing waits; none, and nothing is made.
const LIMIT: u64 = 1;
const LOOKED_EVERY: Duration = Duration::from_millis(200);

/// See the file's header.
pub(super) struct Tenant {
    ground: Rc<Ground>,
    name: String,
    key: String,
    is_known: Cell<bool>,
}

impl Tenant {
    pub(super) fn new(ground: &Rc<Ground>) -> Self {
        let (name, key) = (format!("jepsen-few-{}", ground.tag), format!("sk-jepsen-few-{}", ground.tag));
        Self { ground: Rc::clone(ground), name, key, is_known: Cell::new(false) }
    }

    /// Its key, once every node knows it.
    pub(super) fn key(&self) -> Option<&str> {
        self.is_known.get().then_some(&self.key)
    }

    /// Makes it, its limit and its key, each until it is there; the limit first, so that nothing is let in without it.
    pub(super) async fn make(&self, client: &mut Client) {
        let limits = json!({"limits": [{"what": "requests", "per": "second", "limit": LIMIT}]});
        let steps = [
            ("POST", "/tenants".to_owned(), json!({"name": self.name})),
            ("PATCH", format!("/tenants/{}", self.name), limits),
            ("POST", "/keys".to_owned(), json!({"name": self.name, "tenant": self.name, "key": self.key})),
        ];
        for (method, path, body) in steps {
            let body = body.to_string();
            // 400 `refused`: it was there, because an answer was lost.
            self.until(client, 0, Request::new(method, &path, &body), |it| {
                it.body().is_some() || matches!(it, Told::Answer(400, _))
            })
            .await;
        }
        for node in 0..self.ground.target.nodes.len() {
            let request = Request { api_key: Some(&self.key), ..Request::get("/v1/models") };
            self.until(client, node, request, |it| it.body().is_some_and(Value::is_object)).await;
        }
        self.is_known.set(!self.ground.is_over());
    }

    /// Asks again until it is so.
    async fn until(&self, client: &mut Client, node: usize, request: Request<'_>, is_so: impl Fn(&Told) -> bool) {
        while !self.ground.is_over() && !is_so(&client.ask(node, request).await) {
            tokio::time::sleep(LOOKED_EVERY).await;
        }
    }
}
