//! History on real nodes: clients add items to one conversation and make responses through any node, others read, and what all of them saw must fit one order.
//!
//! For a list that only grows that is: what was acknowledged is there, once; a read is a beginning of what there is at the end, and no shorter than what was told before it began. Clients send again what
//! was not answered, to another node, with the same key, as SDKs do.

mod background;
mod bad_disks;
mod canary;
mod field;
mod leader;
mod minority;
mod power;
mod seen;
mod size;

use std::cell::Cell;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use cluster_tests::lasting;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use tokio::task::JoinSet;

use super::ask::open;
use super::control::FORMING;
use super::fleet::Fleet;
use super::fleet::STARTING;
use super::fleet::Start;
use seen::Read;
use seen::Seen;

pub(crate) use background::outlives;
pub(crate) use bad_disks::bad_disks;
pub(crate) use bad_disks::database;
pub(crate) use bad_disks::full_disks;
pub(crate) use bad_disks::torn_logs;
pub(crate) use canary::no_byte;
pub(crate) use field::field_10;
pub(crate) use leader::figure as leader_figure;
pub(crate) use leader::killed as leader_killed;
pub(crate) use minority::says_503;
pub(crate) use power::disks_that_lie;
pub(crate) use power::power_cuts;
pub(crate) use size::figure as size_figure;

/// Longer than any promise, so that what is late is seen to be late and not to be nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between a client's tries, and between its requests.
const PAUSE: Duration = Duration::from_millis(20);
const CONVERSATIONS: &str = "/v1/conversations";
const RESPONSES: &str = "/v1/responses";
const PAGE: usize = 100;

/// One request on a connection of its own: status, `Retry-After`, body.
async fn call(to: SocketAddr, request: &Call<'_>) -> Result<(u16, Option<String>, Bytes), String> {
    let mut link = open(to).await?;
    link.deadline = PATIENCE;
    link.idempotency_key = request.key.map(ToOwned::to_owned);
    if let Some(key) = request.api_key {
        key.clone_into(&mut link.key);
    }
    let answer = link.send(request.method, request.path, request.body).await?;
    let after = answer.headers().get("retry-after").and_then(|it| it.to_str().ok()).map(ToOwned::to_owned);
    Ok((answer.status().as_u16(), after, answer.into_body()))
}

/// What [`call`] asks.
#[derive(Clone, Copy, Default)]
struct Call<'a> {
    method: &'a str,
    path: &'a str,
    body: &'a str,
    /// `Idempotency-Key`.
    key: Option<&'a str>,
    api_key: Option<&'a str>,
}

impl<'a> Call<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: "GET", path, ..Self::default() }
    }

    fn delete(path: &'a str) -> Self {
        Self { method: "DELETE", path, ..Self::default() }
    }

    fn post(path: &'a str, body: &'a str) -> Self {
        Self { method: "POST", path, body, ..Self::default() }
    }
}

impl Fleet<'_> {
    /// One request to one node that is answered.
    async fn told(&self, at: usize, request: Call<'_>) -> (u16, Value) {
        let (status, _, body) = call(self.nodes[at].http, &request).await.expect("it answers");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// History's group as a node sees it.
    pub(crate) async fn kept(&self, at: usize) -> Value {
        let answer = self.ask(at, "GET", "/cluster/history", &Value::Null).await;
        answer.map(|it| it.1["group"].clone()).unwrap_or_default()
    }

    /// Begins history with a conversation; its id.
    pub(crate) async fn conversation(&self) -> String {
        let mut id = None;
        within("a conversation is made", FORMING, async || {
            let made = call(self.nodes[0].http, &Call::post(CONVERSATIONS, "{}")).await;
            id = made.ok().filter(|it| it.0 == 200).and_then(|it| serde_json::from_slice::<Value>(&it.2).ok());
            id.is_some()
        })
        .await;
        id.expect("just seen")["id"].as_str().expect("an id").to_owned()
    }

    /// Waits until all that run are in one group of so many voters and agree on who leads.
    pub(crate) async fn one_history(&self, voters: usize) -> Duration {
        within(&format!("history has {voters} voters and one leader"), FORMING, async || {
            let mut leaders = std::collections::BTreeSet::new();
            for at in self.running() {
                let group = self.kept(at).await;
                let has_all = group["voters"].as_array().map(Vec::len) == Some(voters);
                if !has_all || group["changing_voters"] == true || !group["leader"].is_string() {
                    return false;
                }
                leaders.insert(group["leader"].to_string());
            }
            leaders.len() == 1
        })
        .await
    }

    /// The node that leads history.
    pub(crate) async fn history_leader(&self) -> usize {
        let leader = self.kept(self.running()[0]).await["leader"].clone();
        for at in self.running() {
            if leader == self.storage(at).await.as_str() {
                return at;
            }
        }
        panic!("{leader} leads history, and is nobody's");
    }

    /// All items of a conversation as one node reads them, by their ids.
    async fn items(&self, at: usize, conversation: &str) -> Result<Vec<String>, String> {
        items(self.nodes[at].http, conversation).await
    }

    /// Starts three nodes, which serve `m` and keep history together; a conversation of theirs.
    pub(crate) async fn keeping(&mut self, start: &Start) -> String {
        for at in 0..3 {
            self.start(at, start);
        }
        self.whole(STARTING).await;
        self.all_serve("m", STARTING).await;
        let conversation = self.conversation().await;
        self.one_history(3).await;
        conversation
    }

    /// The same of each node that runs, once all can be read and are alike.
    pub(crate) async fn items_everywhere(&self, conversation: &str) -> Vec<String> {
        let mut all = Vec::new();
        within("every node can be read", STARTING, async || {
            all.clear();
            for at in self.running() {
                match self.items(at, conversation).await {
                    Ok(items) => all.push(items),
                    Err(_) => return false,
                }
            }
            true
        })
        .await;
        // Nobody adds any more: each is the end.
        assert!(all.windows(2).all(|it| it[0] == it[1]), "nodes read different items: {all:?}");
        all.pop().expect("somebody runs")
    }
}

/// Page after page, from the first. Each page is what there is when it is read, so the whole is no shorter than what there was at the beginning.
async fn items(node: SocketAddr, conversation: &str) -> Result<Vec<String>, String> {
    let mut items: Vec<String> = Vec::new();
    loop {
        let after = items.last().map(|it| format!("&after={it}")).unwrap_or_default();
        let path = format!("{CONVERSATIONS}/{conversation}/items?order=asc&limit={PAGE}{after}");
        let (status, _, body) = call(node, &Call::get(&path)).await?;
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        let page: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let ids = page["data"].as_array().ok_or("no list")?;
        items.extend(ids.iter().filter_map(|it| it["id"].as_str().map(ToOwned::to_owned)));
        if page["has_more"] != true {
            return Ok(items);
        }
    }
}

/// Clients at work until they are told to stop. Must be used in a `LocalSet`.
pub(crate) struct Clients {
    seen: Rc<RefCell<Seen>>,
    stop: Rc<Cell<bool>>,
    tasks: JoinSet<()>,
    nodes: Vec<SocketAddr>,
    conversation: String,
}

/// One of them.
#[derive(Clone)]
struct Client {
    seen: Rc<RefCell<Seen>>,
    stop: Rc<Cell<bool>>,
    nodes: Vec<SocketAddr>,
    conversation: String,
    number: usize,
}

impl Clients {
    pub(crate) fn new(fleet: &Fleet<'_>, conversation: &str) -> Self {
        let nodes = fleet.nodes.iter().map(|it| it.http).collect();
        let (seen, stop, tasks) = Default::default();
        Self { seen, stop, tasks, nodes, conversation: conversation.to_owned() }
    }

    fn client(&self, number: usize) -> Client {
        Client {
            seen: Rc::clone(&self.seen),
            stop: Rc::clone(&self.stop),
            nodes: self.nodes.clone(),
            conversation: self.conversation.clone(),
            number,
        }
    }

    /// So many that add items, one that makes responses if there is a worker, one that reads.
    pub(crate) fn begin(&mut self, writers: usize, makes: bool) {
        for number in 0..writers {
            self.tasks.spawn_local(self.client(number).adds());
        }
        if makes {
            self.tasks.spawn_local(self.client(writers).makes());
        }
        self.tasks.spawn_local(self.client(writers + 1).reads());
    }

    /// Waits until each has had its last answer.
    pub(crate) async fn end(mut self) -> Seen {
        self.stop.set(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client does not panic");
        }
        std::mem::take(&mut *self.seen.borrow_mut())
    }

    fn acknowledged(&self) -> usize {
        self.seen.borrow().added.len()
    }
}

impl Client {
    /// Sends until somebody answers other than "not now". `None`: told to stop before.
    async fn send(&self, path: &str, body: &str, key: &str) -> Option<(u16, Value)> {
        let mut at = self.number;
        while !self.stop.get() {
            let request = Call { key: Some(key), ..Call::post(path, body) };
            if let Ok((status, _, body)) = call(self.nodes[at % self.nodes.len()], &request).await {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                // A node that has just started does not know yet what its workers serve.
                if status != 503 && body["error"]["code"] != "model_not_found" {
                    return Some((status, body));
                }
            }
            self.seen.borrow_mut().unavailable += 1;
            at += 1;
            lasting(PAUSE).await;
        }
        None
    }

    async fn adds(self) {
        let path = format!("{CONVERSATIONS}/{}/items", self.conversation);
        for turn in 0.. {
            let id = format!("msg_{}x{turn}", self.number);
            let body = json!({"items": [{"type": "message", "role": "user", "content": id, "id": id}]}).to_string();
            match self.send(&path, &body, &format!("key-{id}")).await {
                None => return,
                Some((200, _)) => self.seen.borrow_mut().add(id),
                Some((status, body)) => self.seen.borrow_mut().wrong.push(format!("POST of {id}: {status} {body}")),
            }
            lasting(PAUSE).await;
        }
    }

    async fn makes(mut self) {
        for turn in 0.. {
            let input = format!("question {turn}");
            let body = json!({"model": "m", "input": input}).to_string();
            self.number += 1;
            match self.send(RESPONSES, &body, &format!("response-{turn}")).await {
                None => return,
                Some((200, response)) => self.seen.borrow_mut().make(response),
                Some((status, body)) => self.seen.borrow_mut().wrong.push(format!("POST of {input}: {status} {body}")),
            }
            lasting(PAUSE * 5).await;
        }
    }

    async fn reads(self) {
        let mut at = 0;
        while !self.stop.get() {
            let begun = Clock.now();
            match items(self.nodes[at % self.nodes.len()], &self.conversation).await {
                Ok(items) => {
                    let read = Read { node: at % self.nodes.len(), begun, ended: Clock.now(), items };
                    self.seen.borrow_mut().reads.push(read);
                }
                Err(reason) if reason.starts_with("404") => {
                    self.seen.borrow_mut().wrong.push(format!("a read: {reason}"));
                }
                Err(_) => self.seen.borrow_mut().unavailable += 1,
            }
            at += 1;
            lasting(PAUSE * 5).await;
        }
    }
}
