//! Workers are added, changed and removed at any node. Each time one is added it gets a label of its own, so that what is seen says which time it was.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::super::recorder::Pending;
use super::Client;
use super::Doing;
use super::Ground;
use super::Work;
use super::Workload;
use super::client::Request;
use super::client::Told;

const CLIENTS: usize = 3;
/// Adding waits up to three seconds for what the worker says of itself, and up to two for another node.
const EDITED_WITHIN: Duration = Duration::from_secs(8);
/// The label that says which addition it was.
const LABEL: &str = "jepsen";
/// The key of what is about all of them.
const ALL: &str = "*";
/// Last reads are this far apart: what was edited last may be on its way.
const ALIKE_AFTER: Duration = Duration::from_secs(2);

/// See the file's header.
pub(super) struct Workers {
    ground: Rc<Ground>,
    numbers: Cell<u64>,
    /// What each node said in the end.
    last: RefCell<Vec<Option<Value>>>,
}

impl Workers {
    pub(super) fn new(ground: Rc<Ground>) -> Rc<Self> {
        let last = RefCell::new(vec![None; ground.target.nodes.len()]);
        Rc::new(Self { ground, numbers: Cell::new(1), last })
    }

    async fn client(self: Rc<Self>, mut client: Client) {
        while !self.ground.is_over() {
            let (node, drawn) = (client.any(), client.random.below(100));
            let url = client.random.one(&self.ground.target.workers).cloned();
            let Some(url) = url else { return };
            match drawn {
                0..30 => self.add(&mut client, &url, node).await,
                30..45 => self.edit(&mut client, "remove", &url, node).await,
                45..68 => self.edit(&mut client, "change", &url, node).await,
                _ => drop(self.read(&mut client, node, "read").await),
            }
            client.pause().await;
        }
    }

    fn number(&self) -> u64 {
        self.numbers.replace(self.numbers.get() + 1)
    }

    async fn add(&self, client: &mut Client, url: &str, node: usize) {
        let label = format!("{}.{}", self.ground.tag, self.number());
        let body = json!({"url": url, "labels": {LABEL: label}}).to_string();
        let pending = client.invoke("add", url, json!({"label": label}), node);
        let request = Request { deadline: EDITED_WITHIN, ..Request::new("POST", "/workers", &body) };
        let told = client.ask(node, request).await;
        let durable = told.body().is_some_and(|it| it["durable"] == true);
        end(client, pending, &told, json!({"label": label, "durable": durable}));
    }

    /// Looks for its id at the node, then changes or removes it there.
    async fn edit(&self, client: &mut Client, f: &str, url: &str, node: usize) {
        let listed = self.read(client, node, "read").await;
        let Some(id) = listed.iter().find(|it| it["url"] == url).and_then(|it| it["id"].as_str()) else { return };
        let path = format!("/workers/{id}");
        // Numbers, because a priority is one; no two changes say the same.
        let priority = 1000 + self.number();
        let body = json!({"priority": priority}).to_string();
        let (request, value) = match f {
            "remove" => (Request::new("DELETE", &path, ""), Value::Null),
            _ => (Request::new("PATCH", &path, &body), json!({"priority": priority})),
        };
        let pending = client.invoke(f, url, value.clone(), node);
        let told = client.ask(node, Request { deadline: EDITED_WITHIN, ..request }).await;
        if f == "remove" {
            client.end_write(pending, &told, value); // one that is not there is looked for before anything is done
        } else {
            end(client, pending, &told, value);
        }
    }

    /// What the node lists, of ours.
    async fn read(&self, client: &mut Client, node: usize, f: &str) -> Vec<Value> {
        let pending = client.invoke(f, ALL, Value::Null, node);
        let told = client.ask(node, Request::get("/workers")).await;
        let Some(listed) = self.ours(&told) else {
            client.fail(pending, &told.why());
            client.rest().await;
            return Vec::new();
        };
        client.ok(pending, shown(&listed));
        listed
    }

    fn ours(&self, told: &Told) -> Option<Vec<Value>> {
        let workers = told.body()?["workers"].as_array()?;
        let is_ours = |it: &&Value| self.ground.target.workers.iter().any(|url| it["url"] == url.as_str());
        Some(workers.iter().filter(is_ours).cloned().collect())
    }
}

/// Ends an addition or a change. Either is made, and then looked for: 404 says only that it is not there any more, because somebody removed it meanwhile.
fn end(client: &mut Client, pending: Pending, told: &Told, value: Value) {
    if matches!(told, Told::Answer(404, _)) {
        client.info(pending, Value::Null, &told.why());
    } else {
        client.end_write(pending, told, value);
    }
}

/// Of each URL what was said of the first of it, which is the one that edits are made to.
fn shown(listed: &[Value]) -> Value {
    let mut all = Map::new();
    for it in listed {
        let url = it["url"].as_str().unwrap_or_default();
        all.entry(url).or_insert_with(|| json!({"label": it["labels"][LABEL], "priority": it["priority"]}));
    }
    Value::Object(all)
}

impl Work for Workers {
    fn clients(self: Rc<Self>) -> Vec<Doing> {
        let one = |number| -> Doing {
            Box::pin(Rc::clone(&self).client(Client::new(&self.ground, Workload::Workers, number)))
        };
        (0..CLIENTS).map(one).collect()
    }

    /// Until all nodes said the same twice.
    fn finals(self: Rc<Self>, node: usize) -> Doing {
        Box::pin(async move {
            let mut client = Client::new(&self.ground, Workload::Workers, CLIENTS + node);
            let mut times_alike = 0;
            loop {
                let pending = client.invoke("final", ALL, Value::Null, node);
                let told = client.ask(node, Request::get("/workers")).await;
                match self.ours(&told) {
                    Some(listed) => {
                        let seen = shown(&listed);
                        client.ok(pending, seen.clone());
                        self.last.borrow_mut()[node] = Some(seen);
                    }
                    None => client.fail(pending, &told.why()),
                }
                let last = self.last.borrow().clone();
                let is_alike = last[node].is_some() && last.iter().all(|it| *it == last[node]);
                times_alike = if is_alike { times_alike + 1 } else { 0 };
                if times_alike > 1 || self.ground.is_late() {
                    return;
                }
                tokio::time::sleep(ALIKE_AFTER).await;
            }
        })
    }
}
