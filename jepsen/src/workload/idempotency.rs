//! The same request with the same key, sent again and again, at once and after an answer was lost, to one node after the other: it is done once.

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
use super::responses::is_open;

/// Each is two, so that a request is under way twice.
const CLIENTS: usize = 2;
const MADE_WITHIN: Duration = Duration::from_secs(15);
/// Requests that go to one conversation.
const ROUNDS: usize = 30;
/// How often one is sent.
const TRIES_MAX: usize = 5;

/// See the file's header.
pub(super) struct Idempotency {
    ground: Rc<Ground>,
    /// Names and ids. BOUND: one for [`ROUNDS`] requests.
    conversations: RefCell<Vec<(String, String)>>,
}

/// One request, as often as it is sent.
struct Same {
    name: String,
    what: &'static str,
    place: String,
    path: String,
    body: String,
}

impl Idempotency {
    pub(super) fn new(ground: Rc<Ground>) -> Rc<Self> {
        Rc::new(Self { ground, conversations: RefCell::default() })
    }

    async fn client(self: Rc<Self>, number: usize) {
        let one = |it| Client::new(&self.ground, Workload::Idempotency, it);
        let (mut client, mut twin) = (one(2 * number), one(2 * number + 1));
        let (mut place, mut made) = (None, 0);
        for round in 0.. {
            if round % ROUNDS == 0 {
                place = None;
            }
            while place.is_none() && !self.ground.is_over() {
                place = self.conversation(&mut client, &format!("{}.i{number}x{made}", self.ground.tag)).await;
                made += 1;
                client.pause().await;
            }
            let Some((place, id)) = place.as_ref().filter(|_| !self.ground.is_over()) else { return };
            let name = format!("{}.k{number}x{round}", self.ground.tag);
            let same = self.request(&name, place, id, client.random.percent(30));
            self.round(&mut client, &mut twin, &same).await;
            client.pause().await;
        }
    }

    /// A conversation to ask in, made with a key too.
    async fn conversation(&self, client: &mut Client, name: &str) -> Option<(String, String)> {
        let (what, path, body) = ("conversation", "/v1/conversations".to_owned(), "{}".to_owned());
        let same = Same { name: name.to_owned(), what, place: String::new(), path, body };
        let node = client.any();
        let id = self.ask(client, node, &same).await?;
        let again = client.other(node);
        self.ask(client, again, &same).await;
        self.conversations.borrow_mut().push((name.to_owned(), id.clone()));
        Some((name.to_owned(), id))
    }

    fn request(&self, name: &str, place: &str, id: &str, is_response: bool) -> Same {
        let (what, path, body) = if is_response {
            let body =
                json!({"model": self.ground.target.model, "input": name, "max_output_tokens": 8, "conversation": id});
            ("response", "/v1/responses".to_owned(), body)
        } else {
            let body = json!({"items": [{"type": "message", "role": "user", "content": name}]});
            ("items", format!("/v1/conversations/{id}/items"), body)
        };
        Same { name: name.to_owned(), what, place: place.to_owned(), path, body: body.to_string() }
    }

    /// Until it was answered twice, or often enough.
    async fn round(&self, client: &mut Client, twin: &mut Client, same: &Same) {
        let (mut answers, mut node) = (0, client.any());
        for _ in 0..TRIES_MAX {
            if client.random.percent(40) {
                let other = client.other(node);
                let (one, two) = tokio::join!(self.ask(client, node, same), self.ask(twin, other, same));
                answers += usize::from(one.is_some()) + usize::from(two.is_some());
            } else {
                answers += usize::from(self.ask(client, node, same).await.is_some());
            }
            if answers >= 2 {
                return;
            }
            node = client.other(node);
            client.pause().await;
        }
    }

    /// Sends it once; the id that was answered.
    async fn ask(&self, client: &mut Client, node: usize, same: &Same) -> Option<String> {
        let pending = client.invoke("ask", &same.name, json!({"what": same.what, "in": same.place}), node);
        let request = Request {
            idempotency_key: Some(&same.name),
            deadline: MADE_WITHIN,
            ..Request::new("POST", &same.path, &same.body)
        };
        let told = client.ask(node, request).await;
        let Some(answer) = told.body() else {
            client.end_write(pending, &told, Value::Null);
            client.rest().await;
            return None;
        };
        let id = if same.what == "items" { &answer["data"][0]["id"] } else { &answer["id"] };
        let value = json!({"what": same.what, "in": same.place, "id": id, "status": answer["status"]});
        if is_open(answer) {
            client.info(pending, value, "its end was not told");
            return None;
        }
        client.ok(pending, value);
        id.as_str().map(ToOwned::to_owned)
    }

    /// What users wrote in a conversation, in order.
    async fn texts(&self, client: &mut Client, node: usize, id: &str) -> Result<Vec<Value>, Told> {
        let items = client.items(node, id).await?;
        let asked = items.iter().filter(|it| it["role"] == "user");
        Ok(asked.map(|it| it["content"][0]["text"].clone()).collect())
    }
}

impl Work for Idempotency {
    fn clients(self: Rc<Self>) -> Vec<Doing> {
        (0..CLIENTS).map(|number| -> Doing { Box::pin(Rc::clone(&self).client(number)) }).collect()
    }

    fn finals(self: Rc<Self>, node: usize) -> Doing {
        Box::pin(async move {
            let mut client = Client::new(&self.ground, Workload::Idempotency, 2 * CLIENTS + node);
            let all = self.conversations.borrow().clone();
            for (name, id) in all {
                loop {
                    let pending = client.invoke("final", &name, Value::Null, node);
                    match self.texts(&mut client, node, &id).await {
                        Ok(texts) => break client.ok(pending, Value::Array(texts)),
                        Err(told) => client.fail(pending, &told.why()),
                    }
                    if self.ground.is_late() {
                        return;
                    }
                    client.rest().await;
                }
            }
        })
    }
}
