//! Responses in the background: begun at one node, followed at others from any event on, looked at everywhere.

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

const CLIENTS: usize = 4;
/// Of a hundred jobs, so many have a long answer, if the worker gives one.
const LONG: usize = 30;
/// BOUND: how many are made, and how many of them at a time.
const JOBS_MAX: usize = 150;
const OPEN_MAX: usize = 6;
/// How long one is followed.
const FOLLOWED_FOR: Duration = Duration::from_secs(6);
/// In the end.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Job {
    name: String,
    id: String,
    is_ended: bool,
}

/// See the file's header.
pub(super) struct Background {
    ground: Rc<Ground>,
    jobs: RefCell<Vec<Job>>,
    names: Cell<usize>,
}

fn is_end(status: &Value) -> bool {
    matches!(status.as_str(), Some("completed" | "incomplete" | "failed" | "cancelled"))
}

impl Background {
    pub(super) fn new(ground: Rc<Ground>) -> Rc<Self> {
        Rc::new(Self { ground, jobs: RefCell::default(), names: Cell::new(0) })
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
                let at = client.random.one(&open).copied().filter(|_| drawn < 90).unwrap_or(any);
                let node = client.any();
                if drawn < 60 {
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
        // A long one is under way when its node is lost, and when another takes it over.
        let tokens = if client.random.percent(LONG) { 400 } else { 32 };
        let body = json!({"model": self.ground.target.model, "input": format!("say {name}"), "max_output_tokens": tokens, "background": true});
        let node = client.any();
        let pending = client.invoke("create", &name, Value::Null, node);
        let told = client.ask(node, Request::new("POST", "/v1/responses", &body.to_string())).await;
        let id = told.body().and_then(|it| it["id"].as_str()).map(ToOwned::to_owned);
        client.end_write(pending, &told, json!(id));
        match id {
            Some(id) => self.jobs.borrow_mut().push(Job { name, id, is_ended: false }),
            None => client.rest().await,
        }
    }

    /// The status that was told.
    async fn read(&self, client: &mut Client, at: usize, node: usize, f: &str) -> Option<Value> {
        let Job { name, id, .. } = self.jobs.borrow()[at].clone();
        let pending = client.invoke(f, &name, Value::Null, node);
        let told = client.ask(node, Request::get(&format!("/v1/responses/{id}"))).await;
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

    /// What came is written down, also if the node was lost in the middle. Whether it came to its end.
    async fn follow(
        &self,
        client: &mut Client,
        at: usize,
        node: usize,
        (f, after): (&str, Option<usize>),
        limit: Duration,
    ) -> bool {
        let Job { name, id, .. } = self.jobs.borrow()[at].clone();
        let query = after.map(|it| format!("&starting_after={it}")).unwrap_or_default();
        let pending = client.invoke(f, &name, json!({"after": after}), node);
        match client.follow(node, &format!("/v1/responses/{id}?stream=true{query}"), limit).await {
            Ok((text, is_whole)) => {
                let events = sse::events(&text);
                let has_ended = events.last().is_some_and(sse::is_terminal);
                client.ok(pending, json!({"after": after, "events": sse::noted(&events), "whole": is_whole}));
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
        (0..CLIENTS).map(one).collect()
    }

    fn finals(self: Rc<Self>, node: usize) -> Doing {
        Box::pin(async move {
            let mut client = Client::new(&self.ground, Workload::Background, CLIENTS + node);
            let mut open: Vec<usize> = (0..self.jobs.borrow().len()).collect();
            while !open.is_empty() && !self.ground.is_late() {
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
