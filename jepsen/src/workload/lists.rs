//! Conversations as lists that only grow: items with names of our own are added, all are read, through any node.
//!
//! Each item is sent once, so that what became of it is what one request did. A list is left behind when it is long enough for more than one page; the last reads are of all lists.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;

use serde_json::Value;
use serde_json::json;

use super::Client;
use super::Doing;
use super::Ground;
use super::Work;
use super::Workload;
use super::client::Request;

const CLIENTS: usize = 5;
/// Lists that grow at a time.
const AT_ONCE: usize = 2;
/// More than a page of items.
const LENGTH: usize = 120;
/// Of a hundred operations.
const APPENDS: usize = 60;
/// Of a hundred that were acknowledged, so many are looked for elsewhere at once: a moment later every node may have them.
const LOOKED_FOR: usize = 60;

#[derive(Clone)]
struct List {
    /// Ours; the cluster gives another.
    name: String,
    id: String,
    asked: usize,
}

/// See the file's header.
pub(super) struct Lists {
    ground: Rc<Ground>,
    /// BOUND: as many as are filled while it runs.
    all: RefCell<Vec<List>>,
    /// Which of them grow; `None`: one is being made.
    growing: RefCell<Vec<Option<usize>>>,
    names: Cell<usize>,
    items: Cell<u64>,
}

impl Lists {
    pub(super) fn new(ground: Rc<Ground>) -> Rc<Self> {
        Rc::new(Self {
            ground,
            all: RefCell::default(),
            growing: RefCell::default(),
            names: Cell::new(0),
            items: Cell::new(0),
        })
    }

    /// `home`: the only node that it asks, so that the others' writes go on while one does not answer, and how long nobody's did is known. `None`: any.
    async fn client(self: Rc<Self>, mut client: Client, home: Option<usize>) {
        while !self.ground.is_over() {
            let node = home.unwrap_or_else(|| client.any());
            match self.choose(&mut client) {
                Some(at) if client.random.percent(APPENDS) => self.append(&mut client, at, node, home.is_none()).await,
                Some(at) => {
                    self.read(&mut client, at, node, "read").await;
                }
                None if self.growing.borrow().len() < AT_ONCE => self.make(&mut client, node).await,
                None => {}
            }
            client.pause().await;
        }
    }

    /// One that grows. `None`: there are too few.
    fn choose(&self, client: &mut Client) -> Option<usize> {
        let mut growing = self.growing.borrow_mut();
        growing.retain(|it| it.is_none_or(|at| self.all.borrow()[at].asked < LENGTH));
        if growing.len() < AT_ONCE {
            return None;
        }
        client.random.one(&growing).copied().flatten()
    }

    async fn make(&self, client: &mut Client, node: usize) {
        self.growing.borrow_mut().push(None);
        let name = format!("{}.c{}", self.ground.tag, self.names.replace(self.names.get() + 1));
        let pending = client.invoke("create", &name, Value::Null, node);
        let told = client.ask(node, Request::new("POST", "/v1/conversations", "{}")).await;
        let id = told.body().and_then(|it| it["id"].as_str()).map(ToOwned::to_owned);
        client.end_write(pending, &told, json!(id));
        let mut growing = self.growing.borrow_mut();
        let place = growing.iter().position(Option::is_none).unwrap_or_default();
        growing.remove(place);
        if let Some(id) = id {
            self.all.borrow_mut().push(List { name, id, asked: 0 });
            growing.push(Some(self.all.borrow().len() - 1));
        }
    }

    async fn append(&self, client: &mut Client, at: usize, node: usize, may_look: bool) {
        let number = self.items.replace(self.items.get() + 1);
        let List { name, id, .. } = self.all.borrow()[at].clone();
        self.all.borrow_mut()[at].asked += 1;
        let item = format!("msg_{}x{number}", self.ground.tag);
        let content = format!("item {number}");
        let body = json!({"items": [{"type": "message", "role": "user", "content": content, "id": item}]}).to_string();
        let pending = client.invoke("append", &name, json!(number), node);
        let told = client.ask(node, Request::new("POST", &format!("/v1/conversations/{id}/items"), &body)).await;
        if !client.end_write(pending, &told, json!(number)) {
            client.rest().await;
        } else if may_look && client.random.percent(LOOKED_FOR) {
            let other = client.other(node);
            self.read(client, at, other, "read").await;
        }
    }

    /// Whether it was answered.
    async fn read(&self, client: &mut Client, at: usize, node: usize, f: &str) -> bool {
        let List { name, id, .. } = self.all.borrow()[at].clone();
        let pending = client.invoke(f, &name, Value::Null, node);
        match client.items(node, &id).await {
            Ok(items) => client.ok(pending, items.iter().map(|it| self.number(&it["id"])).collect()),
            Err(told) => {
                client.fail(pending, &told.why());
                client.rest().await;
                return told.is_nothing_there(); // it will not be there the next time
            }
        }
        true
    }

    /// Our number of an item; another's name as it is.
    fn number(&self, id: &Value) -> Value {
        let ours =
            id.as_str().and_then(|it| it.strip_prefix("msg_")?.strip_prefix(&self.ground.tag)?.strip_prefix('x'));
        ours.and_then(|it| it.parse::<u64>().ok()).map_or_else(|| id.clone(), Value::from)
    }
}

impl Work for Lists {
    fn clients(self: Rc<Self>) -> Vec<Doing> {
        let nodes = self.ground.target.nodes.len();
        let one = |number| -> Doing {
            let client = Client::new(&self.ground, Workload::Lists, number);
            Box::pin(Rc::clone(&self).client(client, (number < nodes).then_some(number)))
        };
        (0..CLIENTS).map(one).collect()
    }

    fn finals(self: Rc<Self>, node: usize) -> Doing {
        Box::pin(async move {
            let mut client = Client::new(&self.ground, Workload::Lists, CLIENTS + node);
            let all = self.all.borrow().len();
            for at in 0..all {
                while !self.read(&mut client, at, node, "final").await {
                    if self.ground.is_late() {
                        return;
                    }
                }
            }
        })
    }
}
