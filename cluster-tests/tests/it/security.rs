//! Who may do what, tried from outside: every route of the table with every kind of token and one tenant's objects with the keys of others.
//!
//! The routes come from [`ROUTES`], so a new one is tried by itself. [`judge`] says what is wrong with a table of answers; it is tried on wrong ones, too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use cluster_tests::Answer;
use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::node;
use cluster_tests::scrape::measured;
use serde_json::Value;
use serde_json::json;
use smg::api::routes::ROUTES;
use smg::api::routes::Route;
use smg::api::routes::Serve;
use smg::base::clock::Clock;
use smg::dialects::Family;
use smg::history::config::Kind;
use tokio::sync::Semaphore;

use super::tenants::call;

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    User,
    Admin,
}

impl Needs {
    fn of(route: &Route) -> Self {
        match route.serve {
            Serve::Public(_) => Self::Nothing,
            Serve::User(_) | Serve::Model(_) | Serve::Kept(_) => Self::User,
            Serve::Admin(_) => Self::Admin,
        }
    }
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// Nothing that needs one: this status.
    Nothing(u16),
    /// It is no HTTP: this status, everywhere.
    Broken(u16),
    User,
    Admin,
}

/// One answer to somebody.
#[derive(Clone, Debug)]
struct Cell {
    route: String,
    needs: Needs,
    who: &'static str,
    may: May,
    /// Whether what the path names is there.
    is_there: bool,
    status: u16,
    /// Ids taken out.
    body: String,
    is_in_schema: bool,
}

/// What is wrong with a table of answers.
fn judge(cells: &[Cell]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut told: BTreeMap<(&str, &str), &Cell> = BTreeMap::new();
    for cell in cells {
        let (is_refused, is_let_in) = match (cell.needs, cell.may) {
            (_, May::Broken(status)) => (cell.status == status, false),
            (Needs::Nothing, _) | (Needs::User, May::User) | (_, May::Admin) => {
                (false, !matches!(cell.status, 401 | 403 | 500))
            }
            (_, May::Nothing(status)) => (cell.status == status, false),
            (Needs::Admin, May::User) => (cell.status == 403, false),
        };
        if !is_refused && !is_let_in {
            let what = if cell.is_there { "what is there" } else { "nothing" };
            wrong.push(format!("{} of {what} to {}: {}", cell.route, cell.who, cell.status));
        }
        if cell.status >= 400 && !cell.is_in_schema {
            wrong.push(format!("{} to {}: not in the schema: {}", cell.route, cell.who, cell.body));
        }
        if is_refused
            && let Some(other) = told.insert((cell.route.as_str(), cell.who), cell)
            && (other.status, &other.body) != (cell.status, &cell.body)
        {
            wrong.push(format!("{} tells {} what is there: `{}`, `{}`", cell.route, cell.who, other.body, cell.body));
        }
    }
    wrong
}

/// Sends a request with these headers as they are.
async fn send(node: SocketAddr, method: &str, path: &str, headers: &[u8], body: &str) -> Answer {
    let mut client = Client::connect(node).await;
    let len = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {len}\r\n");
    client.send(&[head.as_bytes(), headers, b"\r\n", body.as_bytes()].concat()).await;
    client.answer().await
}

fn bearer(key: &str) -> Vec<u8> {
    format!("authorization: Bearer {key}\r\n").into_bytes()
}

/// An id of the same form that was never given.
fn never(id: &str) -> String {
    let other = if id.ends_with('0') { '1' } else { '0' };
    format!("{}{other}", &id[..id.len() - 1])
}

/// Keys of two tenants, of one that is disabled, and of an operator; and objects of the first tenant.
struct World {
    node: smg::node::Node,
    worker: Upstream,
    admin: String,
    /// By name.
    keys: BTreeMap<&'static str, String>,
    response: Value,
    conversation: String,
    item: String,
    /// Ids of the worker, and of a key.
    worker_id: String,
    key_id: String,
}

impl World {
    async fn new() -> Self {
        let worker = Upstream::start("one").await;
        let mut config = measured(config(&[&worker]));
        config.history.history_backend = Kind::Memory;
        let node = node(config).await;
        let at = node.address;
        let text = |answer: &Answer, field: &str| {
            answer.json()[field].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
        };
        for name in ["ops", "a", "b", "off"] {
            assert_eq!(call(at, "POST", "/tenants", "", &json!({"name": name})).await.status, 201);
        }
        let admin = text(
            &call(at, "POST", "/keys", "", &json!({"name": "root", "tenant": "ops", "role": "admin"})).await,
            "key",
        );
        let (mut keys, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for (name, tenant) in [("a", "a"), ("b", "b"), ("revoked", "a"), ("disabled", "a"), ("off", "off")] {
            let made = call(at, "POST", "/keys", &admin, &json!({"name": name, "tenant": tenant})).await;
            ids.insert(name, text(&made, "id"));
            keys.insert(name, text(&made, "key"));
        }
        assert_eq!(call(at, "DELETE", &format!("/keys/{}", ids["revoked"]), &admin, &json!({})).await.status, 200);
        assert_eq!(
            call(at, "PATCH", &format!("/keys/{}", ids["disabled"]), &admin, &json!({"disabled": true})).await.status,
            200
        );
        assert_eq!(call(at, "PATCH", "/tenants/off", &admin, &json!({"enabled": false})).await.status, 200);
        let made = call(at, "POST", "/v1/responses", &keys["a"], &json!({"model": "m", "input": "canary-of-a"})).await;
        let response = made.json();
        assert_eq!(made.status, 200, "{response}");
        let items = json!({"items": [{"role": "user", "content": "canary-of-a"}]});
        let conversation = text(&call(at, "POST", "/v1/conversations", &keys["a"], &items).await, "id");
        let listed =
            call(at, "GET", &format!("/v1/conversations/{conversation}/items"), &keys["a"], &json!({})).await.json();
        let item = listed["data"][0]["id"].as_str().expect("an item").to_owned();
        let listed = call(at, "GET", "/workers", &admin, &json!({})).await.json();
        let worker_id = listed["workers"][0]["id"].as_str().expect("an id").to_owned();
        let key_id = ids["b"].clone();
        Self { node, worker, admin, keys, response, conversation, item, worker_id, key_id }
    }

    fn response(&self) -> &str {
        self.response["id"].as_str().expect("an id")
    }

    /// Whoever asks, the headers that say so, and what they are good for.
    fn askers(&self) -> Vec<(&'static str, Vec<u8>, May)> {
        let (user, admin) = (&self.keys["a"], &self.admin);
        let of = |name: &str| bearer(&self.keys[name]);
        let twice = |one: &str, two: &str| [bearer(one), bearer(two)].concat();
        let both = |one: &str, two: &str| [bearer(one), format!("x-api-key: {two}\r\n").into_bytes()].concat();
        vec![
            ("nobody", Vec::new(), May::Nothing(401)),
            ("an unknown key", bearer("sk-unknown"), May::Nothing(401)),
            ("a revoked key", of("revoked"), May::Nothing(401)),
            ("a disabled key", of("disabled"), May::Nothing(403)),
            ("a key of a disabled tenant", of("off"), May::Nothing(403)),
            ("a user", of("a"), May::User),
            ("a user of another tenant", of("b"), May::User),
            ("an operator", bearer(admin), May::Admin),
            ("an operator by the other header", format!("X-API-Key: {admin}\r\n").into_bytes(), May::Admin),
            ("an operator, spaced", format!("authorization: bearer   {admin}  \r\n").into_bytes(), May::Admin),
            ("two operators", twice(admin, admin), May::Nothing(401)),
            ("an operator, then a stranger", twice(admin, "sk-unknown"), May::Nothing(401)),
            ("a stranger, then an operator", twice("sk-unknown", admin), May::Nothing(401)),
            (
                "two other headers",
                format!("x-api-key: {user}\r\nx-api-key: {admin}\r\n").into_bytes(),
                May::Nothing(401),
            ),
            ("a stranger with an operator's other header", both("sk-unknown", admin), May::Nothing(401)),
            ("a user with an operator's other header", both(user, admin), May::User),
            ("no key after the scheme", b"authorization: Bearer \r\n".to_vec(), May::Nothing(401)),
            ("a scheme alone", b"authorization: Bearer\r\n".to_vec(), May::Nothing(401)),
            ("another scheme", format!("authorization: Basic {admin}\r\n").into_bytes(), May::Nothing(401)),
            ("a key and more", bearer(&format!("{admin} {admin}")), May::Nothing(401)),
            ("a key and a comma", bearer(&format!("{admin},")), May::Nothing(401)),
            ("a key but for its end", bearer(&admin[..admin.len() - 1]), May::Nothing(401)),
            ("a key in capitals", bearer(&admin.to_ascii_uppercase()), May::Nothing(401)),
            ("bytes that are no text", b"authorization: Bearer \xff\xc3\x28\r\n".to_vec(), May::Nothing(401)),
            ("a very long key", bearer(&"k".repeat(40_000)), May::Nothing(401)),
            ("a NUL", b"authorization: Bearer a\0b\r\n".to_vec(), May::Broken(400)),
        ]
    }

    /// A path of the route: of what is there, or of what never was.
    fn path(&self, route: &Route, is_there: bool) -> String {
        let id = match route.path.split('/').find(|it| !it.is_empty() && *it != "v1" && *it != "cluster") {
            Some("responses") => self.response(),
            Some("conversations") => &self.conversation,
            Some("tenants") => "a",
            Some("workers") => &self.worker_id,
            Some("keys") => &self.key_id,
            _ => "m",
        };
        let named = |id: &str| if is_there { id.to_owned() } else { never(id) };
        route.path.replace("{id}", &named(id)).replace("{item_id}", &named(&self.item))
    }

    async fn cell(&self, route: &Route, is_there: bool, (who, headers, may): &(&'static str, Vec<u8>, May)) -> Cell {
        let path = self.path(route, is_there);
        let answer = send(self.node.address, route.method, &path, headers, "{}").await;
        let body = answer.text();
        let is_anthropic = matches!(route.serve, Serve::Model(wire) if wire.family == Family::Anthropic);
        let error = serde_json::from_str::<Value>(&body).map(|it| it["error"].clone()).unwrap_or_default();
        let is_in_schema =
            error["message"].is_string() && error["type"].is_string() && (is_anthropic || error["code"].is_string());
        Cell {
            route: format!("{} {}", route.method, route.path),
            needs: Needs::of(route),
            who,
            may: *may,
            is_there,
            status: answer.status,
            // Heads that are no HTTP are refused before anybody knows of routes.
            is_in_schema: is_in_schema || matches!(may, May::Broken(_)),
            body: body.replace(&path, "PATH"),
        }
    }
}

#[tokio::test]
async fn matrix_every_route_asks_every_token_for_what_its_line_says() {
    let world = World::new().await;
    let mut cells = Vec::new();
    // Taking the node out of service comes last, and an operator's word for it last of all.
    let (last, routes): (Vec<_>, Vec<_>) = ROUTES.iter().partition(|it| it.path == "/cluster/drain");
    for route in routes.into_iter().chain(last) {
        let mut askers = world.askers();
        askers.sort_by_key(|it| it.2 == May::Admin);
        for asker in &askers {
            // Of what is there, only where nobody may touch it.
            let is_let_in =
                matches!((Needs::of(route), asker.2), (Needs::Nothing, _) | (Needs::User, May::User) | (_, May::Admin));
            if !is_let_in {
                cells.push(world.cell(route, true, asker).await);
            }
            cells.push(world.cell(route, false, asker).await);
            if route.path == "/cluster/drain" && asker.2 == May::Admin {
                break;
            }
        }
    }
    let wrong = judge(&cells);
    assert!(wrong.is_empty(), "{} of {} answers:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
    assert!(cells.len() > 40 * ROUTES.len(), "{} answers", cells.len());
    // A backup is all of history, and an operator's.
    let may_have = |it: &Cell| it.may == May::User || it.may == May::Admin && it.route == "GET /cluster/history/export";
    let leak = cells.iter().find(|it| !may_have(it) && it.body.contains("canary-of-a"));
    assert!(leak.is_none(), "{:?}", leak.map(|it| (&it.route, it.who, it.status)));
    world.node.shutdown().await;
}

#[tokio::test]
async fn matrix_a_key_in_the_query_is_none() {
    let world = World::new().await;
    for route in ROUTES.iter().filter(|it| Needs::of(it) != Needs::Nothing) {
        let (path, admin) = (world.path(route, false), &world.admin);
        let path = format!("{path}?key={admin}&api_key={admin}&access_token={admin}&authorization=Bearer%20{admin}");
        let answer = send(world.node.address, route.method, &path, b"", "{}").await;
        assert_eq!(answer.status, 401, "{} {}", route.method, route.path);
        assert!(!answer.text().contains(admin.as_str()), "{}", answer.text());
    }
    world.node.shutdown().await;
}

#[test]
fn matrix_wrong_answers_are_noticed() {
    let cell = |needs, may, is_there, status: u16| Cell {
        route: "GET /x/{id}".to_owned(),
        needs,
        who: "somebody",
        may,
        is_there,
        status,
        body: format!("answered {status}"),
        is_in_schema: true,
    };
    let right = [
        vec![cell(Needs::User, May::Nothing(401), true, 401), cell(Needs::User, May::Nothing(401), false, 401)],
        vec![cell(Needs::Admin, May::User, true, 403)],
        vec![cell(Needs::User, May::User, false, 404)],
        vec![cell(Needs::Admin, May::Admin, false, 400)],
        vec![cell(Needs::Nothing, May::Nothing(401), true, 200)],
        vec![cell(Needs::Nothing, May::Broken(400), true, 400)],
    ];
    for cells in &right {
        assert_eq!(judge(cells), Vec::<String>::new(), "{cells:?}");
    }
    let told = |mut cells: Vec<Cell>| {
        cells[1].body = "there is no such thing".to_owned();
        cells
    };
    let shapeless = |mut cell: Cell| {
        cell.is_in_schema = false;
        cell
    };
    for cells in [
        vec![cell(Needs::User, May::Nothing(401), true, 200)],
        vec![cell(Needs::User, May::Nothing(401), true, 404)],
        vec![cell(Needs::User, May::Nothing(403), true, 401)],
        vec![cell(Needs::Admin, May::User, true, 200)],
        vec![cell(Needs::Admin, May::User, false, 404)],
        vec![cell(Needs::User, May::User, false, 401)],
        vec![cell(Needs::Admin, May::Admin, false, 500)],
        vec![cell(Needs::Nothing, May::Broken(400), true, 200)],
        vec![shapeless(cell(Needs::User, May::User, false, 404))],
        told(right[0].clone()),
    ] {
        assert!(!judge(&cells).is_empty(), "nobody noticed: {cells:?}");
    }
}

/// A body that a route takes, so that it gets as far as the object.
fn body(takes: &str) -> &'static str {
    match takes {
        "NewItems" => r#"{"items":[{"role":"user","content":"x"}]}"#,
        "ConversationChange" => r#"{"metadata":{"a":"b"}}"#,
        _ => "",
    }
}

/// Status, head and body without what differs between any two answers.
fn seen(answer: &Answer, id: &str) -> (u16, Vec<String>, String) {
    let head = answer.head.lines().filter(|it| !it.starts_with("date:") && !it.starts_with("x-request-id:"));
    (
        answer.status,
        head.map(|it| it.replace(&id.to_ascii_lowercase(), "ID")).collect(),
        answer.text().replace(id, "ID"),
    )
}

/// What bodies and headers name of another tenant's.
async fn references(world: &World, background: &str) {
    let at = world.node.address;
    for (id, body) in [
        (world.response(), r#"{"model":"m","input":"x","previous_response_id":"ID"}"#),
        (background, r#"{"model":"m","input":"x","previous_response_id":"ID"}"#),
        (world.conversation.as_str(), r#"{"model":"m","input":"x","conversation":"ID"}"#),
        (world.conversation.as_str(), r#"{"model":"m","input":"x","conversation":{"id":"ID"},"stream":true}"#),
        (world.item.as_str(), r#"{"model":"m","input":[{"type":"item_reference","id":"ID"}]}"#),
        (world.item.as_str(), r#"{"model":"m","input":[{"type":"item_reference","id":"ID"}],"background":true}"#),
    ] {
        let ask = async |id: &str| {
            send(at, "POST", "/v1/responses", &bearer(&world.keys["b"]), &body.replace("ID", id)).await
        };
        let (real, none) = (ask(id).await, ask(&never(id)).await);
        assert!(real.status >= 400, "{body}: {}", real.text());
        assert_eq!(seen(&real, id), seen(&none, &never(id)), "{body}");
    }
    // The same key of idempotency is another tenant's own, whatever it was given with.
    let keyed = async |key: &str, input: &str| {
        let headers = [bearer(key), b"idempotency-key: same\r\n".to_vec()].concat();
        send(at, "POST", "/v1/responses", &headers, &json!({"model": "m", "input": input}).to_string()).await
    };
    let (one, two) = (keyed(&world.keys["a"], "of a").await, keyed(&world.keys["b"], "of b").await);
    assert_eq!((one.status, two.status), (200, 200), "{} {}", one.text(), two.text());
    assert_ne!(one.json()["id"], two.json()["id"]);
}

#[tokio::test]
async fn matrix_what_another_tenant_has_is_as_if_it_never_was() {
    let world = World::new().await;
    let at = world.node.address;
    let own = call(at, "POST", "/v1/conversations", &world.keys["b"], &json!({})).await.json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let gate = Arc::new(Semaphore::new(0));
    world.worker.script(vec![Step::stream_head(), Step::content("seen"), Step::Await(Arc::clone(&gate)), Step::end()]);
    let background = json!({"model": "m", "input": "x", "background": true, "stream": false});
    let background = call(at, "POST", "/v1/responses", &world.keys["a"], &background).await.json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let routes = ROUTES.iter().filter(|it| {
        matches!(it.serve, Serve::User(_)) && it.path.contains("{id}") && !it.path.starts_with("/v1/models")
    });
    let mut tried = 0;
    for route in routes {
        let ids: &[&str] = if route.path.starts_with("/v1/responses") {
            &[world.response(), &background]
        } else {
            &[&world.conversation]
        };
        for (id, query) in ids
            .iter()
            .flat_map(|id| ["", "?stream=true", "?stream=true&starting_after=0", "?limit=1"].map(|query| (*id, query)))
        {
            let path =
                |id: &str| format!("{}{query}", route.path.replace("{id}", id).replace("{item_id}", &world.item));
            for key in [&world.keys["b"], &world.admin] {
                let real = send(at, route.method, &path(id), &bearer(key), body(route.takes)).await;
                let none = send(at, route.method, &path(&never(id)), &bearer(key), body(route.takes)).await;
                assert!(real.status >= 400, "{} {}: {}", route.method, path(id), real.text());
                assert_eq!(seen(&real, id), seen(&none, &never(id)), "{} {}", route.method, route.path);
                tried += 1;
            }
        }
        if route.path.contains("{item_id}") {
            let path = |item: &str| route.path.replace("{id}", &own).replace("{item_id}", item);
            let real = send(at, route.method, &path(&world.item), &bearer(&world.keys["b"]), "").await;
            let none = send(at, route.method, &path(&never(&world.item)), &bearer(&world.keys["b"]), "").await;
            assert_eq!(seen(&real, &world.item), seen(&none, &never(&world.item)), "{}", route.path);
        }
    }
    assert!(tried > 100, "{tried}");
    references(&world, &background).await;
    // And nothing of the owner's was changed.
    gate.add_permits(1);
    let path = format!("/v1/responses/{}", world.response());
    assert_eq!(call(at, "GET", &path, &world.keys["a"], &json!({})).await.json(), world.response);
    let path = format!("/v1/responses/{background}");
    eventually("it went on", async || {
        call(at, "GET", &path, &world.keys["a"], &json!({})).await.json()["status"] == "completed"
    })
    .await;
    let path = format!("/v1/conversations/{}", world.conversation);
    assert_eq!(call(at, "GET", &path, &world.keys["a"], &json!({})).await.json()["metadata"], json!({}));
    world.node.shutdown().await;
}

#[tokio::test]
async fn matrix_the_time_that_an_answer_takes_does_not_tell_what_another_tenant_has() {
    let world = World::new().await;
    let (real, none) = (world.response().to_owned(), never(world.response()));
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..200 {
        for turn in 0..2 {
            // By turns the first of the two, so that whatever comes after something else is both.
            let which = (turn + round) % 2;
            let path = format!("/v1/responses/{}", [&real, &none][which]);
            let begun = Clock.now();
            assert_eq!(send(world.node.address, "GET", &path, &bearer(&world.keys["b"]), "").await.status, 404);
            times[which].push(Clock.now() - begun);
        }
    }
    let [real, none] = times.map(|mut it| {
        it.sort_unstable();
        it[it.len() / 2]
    });
    assert!(real < none * 3 / 2 && none < real * 3 / 2, "medians of {real:?} and {none:?}");
    world.node.shutdown().await;
}
