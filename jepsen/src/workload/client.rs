//! A client: one operation at a time, at whichever node, and an honest word on how it ended.
//!
//! How an operation ended is decided here for all workloads, by what may be believed of an answer. *Invariant:* what may have taken effect is never `fail`.
//!
//! | answer | a write is | a read is |
//! |---|---|---|
//! | 2xx | `ok` | `ok` |
//! | no connection, or closed before anything was sent | `fail` | `fail` |
//! | no answer in time, connection lost | `info` | `fail` |
//! | 4xx | `fail`: refused before it was done | `fail`, but for 404, which says that nothing is there |
//! | 404 to an addition or a change of a worker | `info`: it is made first, and then looked for | |
//! | 409 `already_exists`, `not_ended` | `info`: something was done under that name | |
//! | 503 `joining`, `body_budget` | `fail`: said before anything was asked of history | `fail` |
//! | 503 with any other code, also `history_unavailable`, `not_durable` and `draining` | `info`: it may be on its way | `fail` |
//! | 507 | `fail`: refused by what decides | `fail` |
//! | other 5xx | `info` | `fail` |

use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::super::history::Kind;
use super::super::link::Link;
use super::super::link::UNSENT;
use super::super::random::Random;
use super::super::recorder::Pending;
use super::Ground;
use super::Workload;

/// Pauses after an operation.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// After one that failed at once, so that a node that refuses is not hammered.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// A node that answers at all does so in a few milliseconds, in some hundred on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Items of a page.
pub(super) const PAGE: usize = 100;

/// What is asked.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) body: &'a str,
    /// `None`: as the admin.
    pub(super) api_key: Option<&'a str>,
    pub(super) idempotency_key: Option<&'a str>,
    pub(super) deadline: Duration,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: &'a str, path: &'a str, body: &'a str) -> Self {
        Self { method, path, body, api_key: None, idempotency_key: None, deadline: DEADLINE }
    }

    pub(super) fn get(path: &'a str) -> Self {
        Self::new("GET", path, "")
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// An answer: its status and its body; what is no JSON is a text.
    Answer(u16, Value),
    /// Nothing was sent.
    Unsent(String),
    /// It was sent, or part of it, and there is no answer.
    Nothing(String),
}

impl Told {
    /// The stable code of an error.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Answer(_, body) => body["error"]["code"].as_str().unwrap_or_default(),
            Self::Unsent(_) | Self::Nothing(_) => "",
        }
    }

    /// Whether it says that what was asked for is not there.
    pub(super) fn is_nothing_there(&self) -> bool {
        matches!(self, Self::Answer(404, _)) && self.code() == "not_found"
    }

    /// The body of a success.
    pub(super) fn body(&self) -> Option<&Value> {
        match self {
            Self::Answer(200..300, body) => Some(body),
            Self::Answer(..) | Self::Unsent(_) | Self::Nothing(_) => None,
        }
    }

    /// In a line.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Answer(status, _) => format!("{status} {}", self.code()),
            Self::Unsent(why) | Self::Nothing(why) => why.clone(),
        }
    }

    /// See the file's header.
    pub(super) fn of_write(&self) -> Kind {
        match self {
            Self::Answer(200..300, _) => Kind::Ok,
            Self::Answer(409, _) if matches!(self.code(), "already_exists" | "not_ended") => Kind::Info,
            Self::Answer(400..500, _) => Kind::Fail,
            Self::Answer(503, _) if matches!(self.code(), "joining" | "body_budget") => Kind::Fail,
            Self::Answer(507, _) | Self::Unsent(_) => Kind::Fail,
            Self::Answer(..) | Self::Nothing(_) => Kind::Info,
        }
    }
}

/// See the file's header.
pub(crate) struct Client {
    pub(super) ground: Rc<Ground>,
    workload: Workload,
    process: u32,
    links: Vec<Option<Link>>,
    pub(super) random: Random,
}

impl Client {
    /// The client of this number in a workload.
    pub(super) fn new(ground: &Rc<Ground>, workload: Workload, number: usize) -> Self {
        let purpose = (workload as u64) << 32 | number as u64;
        Self {
            ground: Rc::clone(ground),
            workload,
            process: ground.recorder.process(),
            links: ground.target.nodes.iter().map(|_| None).collect(),
            random: Random::new(ground.seed, purpose),
        }
    }

    /// All items of a conversation, page after page from the first. Each page is what there is when it is read, so the whole is what there is when the last one is.
    pub(super) async fn items(&mut self, node: usize, id: &str) -> Result<Vec<Value>, Told> {
        let (mut items, mut last) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/conversations/{id}/items?order=asc&limit={PAGE}{last}");
            let told = self.ask(node, Request::get(&path)).await;
            let page =
                told.body().and_then(|it| it["data"].as_array().map(|data| (data.clone(), it["has_more"] == true)));
            let Some((data, has_more)) = page else { return Err(told) };
            items.extend(data);
            match items.last().and_then(|it| it["id"].as_str()) {
                Some(id) if has_more => last = format!("&after={id}"),
                Some(_) | None => return Ok(items),
            }
        }
    }

    /// Any node.
    pub(super) fn any(&mut self) -> usize {
        self.random.below(self.ground.target.nodes.len())
    }

    /// Any but this one, if there are others.
    pub(super) fn other(&mut self, than: usize) -> usize {
        let nodes = self.ground.target.nodes.len();
        (than + 1 + self.random.below(nodes.saturating_sub(1))) % nodes.max(1)
    }

    /// An operation begins.
    pub(super) fn invoke(&self, f: &str, key: &str, value: Value, node: usize) -> Pending {
        self.ground.recorder.invoke(self.process, self.workload.name(), f, key, value, Some(node))
    }

    /// It took effect.
    pub(super) fn ok(&self, pending: Pending, value: Value) {
        self.ground.recorder.ok(pending, value);
    }

    /// It did not.
    pub(super) fn fail(&self, pending: Pending, why: &str) {
        self.ground.recorder.fail(pending, why);
    }

    /// Nobody knows, so this is another client from now on.
    pub(super) fn info(&mut self, pending: Pending, value: Value, why: &str) {
        if value.is_null() {
            self.ground.recorder.info(pending, why);
        } else {
            self.ground.recorder.info_told(pending, value, why);
        }
        self.process = self.ground.recorder.process();
    }

    /// Ends a write as its answer says; whether it took effect for certain.
    pub(super) fn end_write(&mut self, pending: Pending, told: &Told, value: Value) -> bool {
        match told.of_write() {
            Kind::Ok => self.ok(pending, value),
            Kind::Fail => self.fail(pending, &told.why()),
            Kind::Info | Kind::Invoke => self.info(pending, Value::Null, &told.why()),
        }
        told.of_write() == Kind::Ok
    }

    /// One request to one node.
    pub(super) async fn ask(&mut self, node: usize, request: Request<'_>) -> Told {
        let mut link = match self.link(node, &request).await {
            Ok(link) => link,
            Err(why) => return Told::Unsent(why),
        };
        match link.call(request.method, request.path, request.body).await {
            Ok((status, body)) => {
                self.links[node] = Some(link);
                let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
                Told::Answer(status, serde_json::from_slice(&body).unwrap_or_else(|_no_json| text()))
            }
            Err(why) if why == UNSENT => Told::Unsent(why),
            Err(why) => Told::Nothing(why),
        }
    }

    /// A stream of events, as far as it came; whether it ended by itself.
    pub(super) async fn follow(&mut self, node: usize, request: Request<'_>) -> Result<(String, bool), Told> {
        let mut link = self.link(node, &request).await.map_err(Told::Unsent)?;
        let mut text = Vec::new();
        let (told, over) = (link.stream(request.path, &mut text).await, self.ground.is_over());
        let text = String::from_utf8_lossy(&text).into_owned();
        match told {
            Ok(200) => Ok((text, true)),
            Ok(status) => Err(Told::Answer(status, serde_json::from_str(&text).unwrap_or_default())),
            Err(_why) if over || !text.is_empty() => Ok((text, false)),
            Err(why) => Err(Told::Nothing(why)),
        }
    }

    async fn link(&mut self, node: usize, request: &Request<'_>) -> Result<Link, String> {
        let mut link = match self.links[node].take().filter(Link::is_open) {
            Some(link) => link,
            None => Link::open(self.ground.target.nodes[node], "").await?,
        };
        request.api_key.unwrap_or(&self.ground.target.admin_key).clone_into(&mut link.key);
        link.idempotency_key = request.idempotency_key.map(ToOwned::to_owned);
        link.deadline = request.deadline;
        Ok(link)
    }

    /// Between operations.
    pub(super) async fn pause(&mut self) {
        let pause = self.random.between(PAUSE_MIN, PAUSE_MAX);
        tokio::time::sleep(pause).await;
    }

    /// After one that came to nothing.
    pub(super) async fn rest(&mut self) {
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_have_taken_effect_is_never_called_failed() {
        let told = |status, code: &str| Told::Answer(status, json!({"error": {"code": code}})).of_write();
        assert_eq!(told(200, ""), Kind::Ok);
        for (status, code) in
            [(400, "invalid_value"), (404, "not_found"), (429, "rate_limit_exceeded"), (503, "joining")]
        {
            assert_eq!(told(status, code), Kind::Fail, "{status} {code}");
        }
        for (status, code) in [
            (503, "history_unavailable"),
            (503, "not_durable"),
            (503, "draining"),
            (503, "workers_busy"),
            (502, "worker_failed"),
            (500, ""),
            (409, "already_exists"),
        ] {
            assert_eq!(told(status, code), Kind::Info, "{status} {code}");
        }
        assert_eq!(Told::Unsent("refused".to_owned()).of_write(), Kind::Fail);
        assert_eq!(Told::Nothing("no answer".to_owned()).of_write(), Kind::Info);
    }
}
