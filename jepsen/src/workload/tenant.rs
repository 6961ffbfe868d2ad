//! A tenant of a workload's own, with a key and a limit of requests.

use std::cell::Cell;
use std::rc::Rc;

use serde_json::Value;
use serde_json::json;

use super::Client;
use super::Ground;
use super::client::Request;
use super::client::Told;

/// See the file's header.
pub(super) struct Tenant {
    ground: Rc<Ground>,
    pub(super) name: String,
    key: String,
    /// `second` or `minute`, and how many then.
    limit: (&'static str, u64),
    is_known: Cell<bool>,
}

impl Tenant {
    pub(super) fn new(ground: &Rc<Ground>, word: &str, limit: (&'static str, u64)) -> Self {
        let (name, key) = (format!("jepsen-{word}-{}", ground.tag), format!("sk-jepsen-{word}-{}", ground.tag));
        Self { ground: Rc::clone(ground), name, key, limit, is_known: Cell::new(false) }
    }

    /// Its key, once every node knows it.
    pub(super) fn key(&self) -> Option<&str> {
        self.is_known.get().then_some(&self.key)
    }

    /// Makes it, its limit and its key, each until it is there; the limit first, so that nothing is let in without it.
    pub(super) async fn make(&self, client: &mut Client) {
        let steps = [
            ("POST", "/tenants".to_owned(), json!({"name": self.name})),
            ("PATCH", self.path(), self.limited(Some(self.limit.1))),
            ("POST", "/keys".to_owned(), json!({"name": self.name, "tenant": self.name, "key": self.key})),
        ];
        // 400 `refused`: it was there, because an answer was lost.
        let is_done = |it: &Told| it.body().is_some() || matches!(it, Told::Answer(400, _));
        for (method, path, body) in steps {
            self.until(client, 0, Request::new(method, &path, &body.to_string()), is_done).await;
        }
    }

    /// Waits until every node answers to the key.
    pub(super) async fn until_served(&self, client: &mut Client) {
        let request = Request { api_key: Some(&self.key), ..Request::get("/v1/models") };
        self.everywhere(client, request, |it| it.body().is_some_and(Value::is_object)).await;
    }

    /// Waits until every node has a share of the limit.
    pub(super) async fn until_limited(&self, client: &mut Client) {
        let holds = |it: &Told| {
            let share = it.body().and_then(|it| it["limits"][0]["here"]["share"].as_u64());
            share.is_some_and(|it| it > 0)
        };
        self.everywhere(client, Request::get(&self.path()), holds).await;
    }

    async fn everywhere(&self, client: &mut Client, request: Request<'_>, is_so: impl Fn(&Told) -> bool) {
        for node in 0..self.ground.target.nodes.len() {
            self.until(client, node, request, &is_so).await;
        }
        self.is_known.set(!self.ground.is_over());
    }

    /// Takes its limit away, where there is one: what waits begins. Whether there is none now.
    pub(super) async fn free(&self, client: &mut Client, node: usize) -> bool {
        if !self.is_known.get() {
            return true;
        }
        let pending = client.invoke("free", &self.name, Value::Null, node);
        let told = client.ask(node, Request::new("PATCH", &self.path(), &self.limited(None).to_string())).await;
        client.end_write(pending, &told, Value::Null)
    }

    fn path(&self) -> String {
        format!("/tenants/{}", self.name)
    }

    fn limited(&self, to: Option<u64>) -> Value {
        json!({"limits": [{"what": "requests", "per": self.limit.0, "limit": to}]})
    }

    /// Asks again until it is so.
    async fn until(&self, client: &mut Client, node: usize, request: Request<'_>, is_so: impl Fn(&Told) -> bool) {
        while !self.ground.is_over() && !is_so(&client.ask(node, request).await) {
            client.rest().await;
        }
    }

    /// Waits until it is known.
    pub(super) async fn known(&self, client: &mut Client) {
        while !self.is_known.get() && !self.ground.is_over() {
            client.rest().await;
        }
    }
}
