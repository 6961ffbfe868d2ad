//! Responses as registers that are written once: made, continued, read at any node, deleted for good.

use std::cell::Cell;
use std::cell::RefCell;
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
use super::sse;

const CLIENTS: usize = 4;
/// A worker may take its time.
const MADE_WITHIN: Duration = Duration::from_secs(15);
/// BOUND: how many are made.
const KNOWN_MAX: usize = 400;
/// Of a hundred operations; the rest are reads.
const CREATES: usize = 40;
const DELETES: usize = 10;

#[derive(Clone)]
struct Known {
    /// Ours; the cluster gives another.
    name: String,
    id: String,
    is_deleted: bool,
}

/// See the file's header.
pub(super) struct Responses {
    ground: Rc<Ground>,
    known: RefCell<Vec<Known>>,
    names: Cell<usize>,
}

/// What of a response is kept in a history: all that must not change, and what a reader wants to see.
pub(super) fn noted(body: &Value) -> Value {
    json!({"id": body["id"], "status": body["status"], "previous": body["previous_response_id"], "code": body["error"]["code"], "digest": sse::digest(body)})
}

/// Whether what was told of a response is not what is kept of it: that is still open, or in other hands.
pub(super) fn is_open(body: &Value) -> bool {
    body["incomplete_details"]["reason"] == "storage_unconfirmed" || body["error"]["code"] == "node_lost"
}

impl Responses {
    pub(super) fn new(ground: Rc<Ground>) -> Rc<Self> {
        Rc::new(Self { ground, known: RefCell::default(), names: Cell::new(0) })
    }

    async fn client(self: Rc<Self>, mut client: Client) {
        while !self.ground.is_over() {
            let known = self.known.borrow().len();
            let drawn = client.random.below(100);
            if known == 0 || (drawn < CREATES && known < KNOWN_MAX) {
                self.create(&mut client).await;
            } else {
                let at = client.random.below(known);
                // The newest ones are asked for most.
                let at = if client.random.percent(50) { known - 1 - (known - 1 - at) % 8.min(known) } else { at };
                if drawn >= 100 - DELETES && !self.known.borrow()[at].is_deleted {
                    self.delete(&mut client, at).await;
                } else {
                    let node = client.any();
                    self.read(&mut client, at, node, "read").await;
                }
            }
            client.pause().await;
        }
    }

    async fn create(&self, client: &mut Client) {
        let name = format!("{}.r{}", self.ground.tag, self.names.replace(self.names.get() + 1));
        let previous = if client.random.percent(50) { client.random.one(&self.known.borrow()).cloned() } else { None };
        let is_stream = client.random.percent(33);
        let mut body = json!({"model": self.ground.target.model, "input": format!("say {name}"), "max_output_tokens": 16, "stream": is_stream});
        if let Some(previous) = &previous {
            body["previous_response_id"] = json!(previous.id);
        }
        let asked = json!({"previous": previous.as_ref().map(|it| &it.name), "previous_id": previous.as_ref().map(|it| &it.id), "stream": is_stream});
        let node = client.any();
        let pending = client.invoke("create", &name, asked, node);
        let body = body.to_string();
        let told =
            client.ask(node, Request { deadline: MADE_WITHIN, ..Request::new("POST", "/v1/responses", &body) }).await;
        let Some(answer) = told.body() else {
            client.end_write(pending, &told, Value::Null);
            return client.rest().await;
        };
        let events = if is_stream { sse::events(answer.as_str().unwrap_or_default()) } else { Vec::new() };
        let last = if is_stream {
            events.last().filter(|it| sse::is_terminal(it)).map(|it| &it["response"])
        } else {
            Some(answer)
        };
        let begun = events.first().map(|it| &it["response"]["id"]);
        let id = last.map(|it| &it["id"]).or(begun).and_then(Value::as_str).map(ToOwned::to_owned);
        match last {
            Some(last) if !is_open(last) => {
                let mut value = noted(last);
                if is_stream {
                    value["events"] = sse::noted(&events);
                }
                client.ok(pending, value);
            }
            Some(_) | None => client.info(pending, json!({"id": id}), "its end was not told"),
        }
        if let Some(id) = id {
            let at = self.known.borrow().len();
            self.known.borrow_mut().push(Known { name, id, is_deleted: false });
            // At once: a moment later every node may have it.
            let other = client.other(node);
            self.read(client, at, other, "read").await;
        }
    }

    /// Whether it was answered.
    async fn read(&self, client: &mut Client, at: usize, node: usize, f: &str) -> bool {
        let Known { name, id, .. } = self.known.borrow()[at].clone();
        let pending = client.invoke(f, &name, Value::Null, node);
        let told = client.ask(node, Request::get(&format!("/v1/responses/{id}"))).await;
        match &told {
            Told::Answer(200, body) => client.ok(pending, noted(body)),
            told if told.is_nothing_there() => client.ok(pending, Value::Null),
            told => {
                client.fail(pending, &told.why());
                client.rest().await;
                return false;
            }
        }
        true
    }

    async fn delete(&self, client: &mut Client, at: usize) {
        self.known.borrow_mut()[at].is_deleted = true;
        let Known { name, id, .. } = self.known.borrow()[at].clone();
        let node = client.any();
        let pending = client.invoke("delete", &name, Value::Null, node);
        let told = client.ask(node, Request::new("DELETE", &format!("/v1/responses/{id}"), "")).await;
        if told.is_nothing_there() {
            client.ok(pending, Value::Null); // as a read says it
        } else if client.end_write(pending, &told, json!(true)) {
            let other = client.other(node);
            self.read(client, at, other, "read").await;
        }
    }
}

impl Work for Responses {
    fn clients(self: Rc<Self>) -> Vec<Doing> {
        let one = |number| -> Doing {
            Box::pin(Rc::clone(&self).client(Client::new(&self.ground, Workload::Responses, number)))
        };
        (0..CLIENTS).map(one).collect()
    }

    fn finals(self: Rc<Self>, node: usize) -> Doing {
        Box::pin(async move {
            let mut client = Client::new(&self.ground, Workload::Responses, CLIENTS + node);
            let known = self.known.borrow().len();
            for at in 0..known {
                while !self.read(&mut client, at, node, "final").await {
                    if self.ground.is_late() {
                        return;
                    }
                }
            }
        })
    }
}
