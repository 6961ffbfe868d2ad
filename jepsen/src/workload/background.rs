//! Responses in the background: begun at one node, followed at others from any event on, looked at everywhere, some of them cancelled. Those of a tenant that may begin little wait before anything is made of them.

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
use super::responses::noted;
use super::sse;
use super::tenant::Tenant;

const CLIENTS: usize = 4;
/// Of a hundred jobs, so many have a long answer, if the worker gives one.
const LONG: usize = 30;
/// Tokens of a long answer, of another, and of one that has waited: it lasts for some seconds, and those behind it wait for more.
const TOKENS_LONG: usize = 400;
const TOKENS: usize = 32;
const TOKENS_WAITED: usize = 200;
/// What the tenant may in the whole cluster. More, and nothing waits; none, and nothing is made.
const FEW: (&str, u64) = ("second", 1);
/// BOUND: how many are made, and how many of them at a time; of those the tenant's.
const JOBS_MAX: usize = 150;
const OPEN_MAX: usize = 10;
const WAITING_MAX: usize = 5;
/// Of a hundred operations; the rest create, follow and read.
const CANCELS: usize = 5;
/// How long one is followed.
const FOLLOWED_FOR: Duration = Duration::from_secs(6);
/// In the end.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Job {
    name: String,
    id: String,
    is_waiting: bool,
    is_ended: bool,
}

/// See the file's header.
pub(super) struct Background {
    ground: Rc<Ground>,
    tenant: Tenant,
    jobs: RefCell<Vec<Job>>,
    names: Cell<usize>,
}

fn is_end(status: &Value) -> bool {
    matches!(status.as_str(), Some("completed" | "incomplete" | "failed" | "cancelled"))
}

impl Background {
    pub(super) fn new(ground: Rc<Ground>) -> Rc<Self> {
        let tenant = Tenant::new(&ground, "few", FEW);
        Rc::new(Self { ground, tenant, jobs: RefCell::default(), names: Cell::new(0) })
    }

    async fn client(self: Rc<Self>, mut client: Client) {
        while !self.ground.is_over() {
            let jobs = self.jobs.borrow().len();
            let open: Vec<usize> = (0..jobs).filter(|at| !self.jobs.borrow()[*at].is_ended).collect();
            let drawn = client.random.below(100);
            if jobs == 0 || (open.len() < OPEN_MAX && jobs < JOBS_MAX && drawn < 30) {
                self.create(&mut client).await;
            } else {
                let any = client.random.below(jobs);
                let at =
                    client.random.one(&open).copied().filter(|_| !(90..100 - CANCELS).contains(&drawn)).unwrap_or(any);
                let node = client.any();
                if drawn >= 100 - CANCELS {
                    self.cancel(&mut client, at, node).await;
                } else if drawn < 60 {
                    let after = client.random.percent(50).then(|| client.random.below(8));
                    self.follow(&mut client, at, node, ("follow", after), FOLLOWED_FOR).await;
                } else {
                    self.read(&mut client, at, node, "read").await;
                }
            }
            client.pause().await;
        }
    }

    async fn create(&self, client: &mut Client) {
        let name = format!("{}.b{}", self.ground.tag, self.names.replace(self.names.get() + 1));
        let waiting = self.jobs.borrow().iter().filter(|it| it.is_waiting && !it.is_ended).count();
        let key = self.tenant.key().filter(|_| waiting < WAITING_MAX);
        // A long one is under way when its node is lost; one that waits is made by another.
        let tokens = match key {
            Some(_) => TOKENS_WAITED,
            None if client.random.percent(LONG) => TOKENS_LONG,
            None => TOKENS,
        };
        let body = json!({"model": self.ground.target.model, "input": format!("say {name}"), "max_output_tokens": tokens, "background": true});
        let node = client.any();
        let pending = client.invoke("create", &name, json!({"waits": key.is_some()}), node);
        let body = body.to_string();
        let told = client.ask(node, Request { api_key: key, ..Request::new("POST", "/v1/responses", &body) }).await;
        let id = told.body().and_then(|it| it["id"].as_str()).map(ToOwned::to_owned);
        client.end_write(pending, &told, json!(id));
        match id {
            Some(id) => self.jobs.borrow_mut().push(Job { name, id, is_waiting: key.is_some(), is_ended: false }),
            None => client.rest().await,
        }
    }

    /// The status that was told.
    async fn read(&self, client: &mut Client, at: usize, node: usize, f: &str) -> Option<Value> {
        let Job { name, id, is_waiting, .. } = self.jobs.borrow()[at].clone();
        let api_key = self.tenant.key().filter(|_| is_waiting);
        let pending = client.invoke(f, &name, Value::Null, node);
        let path = format!("/v1/responses/{id}");
        let told = client.ask(node, Request { api_key, ..Request::get(&path) }).await;
        match &told {
            Told::Answer(200, body) => {
                client.ok(pending, noted(body));
                if is_end(&body["status"]) {
                    self.jobs.borrow_mut()[at].is_ended = true;
                }
                return Some(body["status"].clone());
            }
            told if told.is_nothing_there() => client.ok(pending, Value::Null),
            told => {
                client.fail(pending, &told.why());
                client.rest().await;
            }
        }
        None
    }

    async fn cancel(&self, client: &mut Client, at: usize, node: usize) {
        let Job { name, id, is_waiting, .. } = self.jobs.borrow()[at].clone();
        let api_key = self.tenant.key().filter(|_| is_waiting);
        let pending = client.invoke("cancel", &name, Value::Null, node);
        let path = format!("/v1/responses/{id}/cancel");
        let told = client.ask(node, Request { api_key, ..Request::new("POST", &path, "") }).await;
        client.end_write(pending, &told, told.body().map(noted).unwrap_or_default());
    }

    /// What came is written down, also if the node was lost in the middle. Whether it came to its end.
    async fn follow(
        &self,
        client: &mut Client,
        at: usize,
        node: usize,
        (f, after): (&str, Option<usize>),
        limit: Duration,
    ) -> bool {
        let Job { name, id, is_waiting, .. } = self.jobs.borrow()[at].clone();
        let api_key = self.tenant.key().filter(|_| is_waiting);
        let query = after.map(|it| format!("&starting_after={it}")).unwrap_or_default();
        let pending = client.invoke(f, &name, json!({"after": after}), node);
        let path = format!("/v1/responses/{id}?stream=true{query}");
        match client.follow(node, Request { api_key, deadline: limit, ..Request::get(&path) }).await {
            Ok((text, is_whole)) => {
                let events = sse::events(&text);
                let end = events.last().filter(|it| sse::is_terminal(it)).map(|it| noted(&it["response"]));
                let texts = sse::texts(&events).filter(|_| after.is_none());
                let has_ended = end.is_some();
                let told = json!({"after": after, "events": sse::noted(&events), "whole": is_whole, "end": end, "texts": texts});
                client.ok(pending, told);
                has_ended
            }
            Err(told) => {
                client.fail(pending, &told.why());
                client.rest().await;
                false
            }
        }
    }
}

impl Work for Background {
    fn clients(self: Rc<Self>) -> Vec<Doing> {
        let one = |number| -> Doing {
            Box::pin(Rc::clone(&self).client(Client::new(&self.ground, Workload::Background, number)))
        };
        let makes = Rc::clone(&self);
        let mut maker = Client::new(&self.ground, Workload::Background, CLIENTS + self.ground.target.nodes.len());
        let mut all: Vec<Doing> = vec![Box::pin(async move {
            makes.tenant.make(&mut maker).await;
            makes.tenant.until_served(&mut maker).await;
        })];
        all.extend((0..CLIENTS).map(one));
        all
    }

    fn finals(self: Rc<Self>, node: usize) -> Doing {
        Box::pin(async move {
            let mut client = Client::new(&self.ground, Workload::Background, CLIENTS + node);
            let mut is_free = false;
            let mut open: Vec<usize> = (0..self.jobs.borrow().len()).collect();
            while !open.is_empty() && !self.ground.is_late() {
                is_free = is_free || self.tenant.free(&mut client, node).await;
                let mut left = Vec::new();
                for at in open {
                    let is_over = self.read(&mut client, at, node, "final").await.as_ref().is_some_and(is_end)
                        && self.follow(&mut client, at, node, ("final_events", None), FOLLOWED_WITHIN).await;
                    if !is_over {
                        left.push(at);
                    }
                    if self.ground.is_late() {
                        return;
                    }
                }
                open = left;
                client.rest().await;
            }
        })
    }
}
