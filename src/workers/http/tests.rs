//! The HTTP worker against a server that plays scripts on raw sockets, so that a test sees what is on the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::base::clock::Clock;
use crate::base::setting::Setting as _;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::workers::address::Cidr;
use crate::workers::config::Config;
use crate::workers::conformance;
use crate::workers::conformance::call;
use crate::workers::conformance::good;
use crate::workers::fake::Seen;
use crate::workers::fake::Step;
use crate::workers::metrics::Metrics;
use crate::workers::worker::ConnectFailure;

const SERVER: Task = Task { name: "scripted-server", stage: Stage::Carry, on_end: OnEnd::Fine };

/// What a connection does after each answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Keep,
    /// Closes in silence: the client finds out when it sends again.
    Close,
}

struct Server {
    url: String,
    seen: watch::Receiver<Seen>,
    connections: Arc<Mutex<usize>>,
    tasks: Tasks,
}

async fn server(scripts: Vec<Vec<Step>>, after: After) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (send, seen) = watch::channel(Seen::default());
    let (tasks, connections) = (Tasks::new(), Arc::new(Mutex::new(0)));
    if scripts.iter().flatten().any(|it| matches!(it, Step::Refuse)) {
        return Server { url, seen, connections, tasks }; // the listener is dropped: nobody listens
    }
    let scripts = Arc::new(Mutex::new(std::collections::VecDeque::from(scripts)));
    let (counted, spawner) = (Arc::clone(&connections), tasks.clone());
    tasks.spawn(SERVER, |_| async move {
        while let Ok((stream, _)) = listener.accept().await {
            *counted.lock() += 1;
            let (scripts, send) = (Arc::clone(&scripts), send.clone());
            spawner.spawn(SERVER, |_| async move {
                let _ = serve(stream, &scripts, &send, after).await; // the client left
            });
        }
    });
    Server { url, seen, connections, tasks }
}

type Scripts = Mutex<std::collections::VecDeque<Vec<Step>>>;

async fn serve(stream: TcpStream, scripts: &Scripts, seen: &watch::Sender<Seen>, after: After) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(call) = read_request(&mut stream).await? {
        seen.send_modify(|seen| seen.calls.push(call));
        let steps = {
            let mut scripts = scripts.lock();
            let next = if scripts.len() > 1 { scripts.pop_front() } else { scripts.front().cloned() };
            next.unwrap_or_default()
        };
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let is_whole = tokio::select! {
            played = play(&mut writer, steps) => played?,
            _ = reader.read_u8() => {
                seen.send_modify(|seen| seen.cancelled += 1);
                return Ok(());
            }
        };
        if !is_whole || after == After::Close {
            return Ok(());
        }
    }
    Ok(())
}

async fn play(writer: &mut (impl tokio::io::AsyncWrite + Unpin), steps: Vec<Step>) -> std::io::Result<bool> {
    for step in steps {
        match step {
            Step::Refuse | Step::Lose => return Ok(false),
            Step::Wait(duration) => Clock.sleep(duration).await,
            Step::Stall => std::future::pending().await,
            Step::Head(status, headers) => {
                let mut head = format!("HTTP/1.1 {} X\r\ntransfer-encoding: chunked\r\n", status.as_u16());
                for (name, value) in &headers {
                    head += &format!("{name}: {}\r\n", value.to_str().expect("text"));
                }
                writer.write_all(format!("{head}\r\n").as_bytes()).await?;
            }
            Step::Send(piece) => {
                let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
                writer.write_all(&chunk).await?;
            }
        }
    }
    writer.write_all(b"0\r\n\r\n").await?;
    Ok(true)
}

/// Reads one request as it is on the wire; `None` at the end of the connection.
async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Call>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method: Method = words.next().expect("a method").parse().expect("valid");
    let path = words.next().expect("a path").to_owned();
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.append(name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"));
    }
    let len = headers.get("content-length").map_or(0, |it| it.to_str().expect("text").parse().expect("a number"));
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    let body = Segments::from(Bytes::from(body));
    Ok(Some(Call { method, path, headers, body, first_byte_timeout: Duration::ZERO }))
}

fn dialer(tasks: &Tasks, config: &Config) -> Dialer {
    Dialer::new(config, tasks.clone(), Metrics::default()).expect("no files to read")
}

fn worker(server: &Server, key: Option<&str>) -> HttpWorker {
    worker_at(&server.url, key, &server.tasks)
}

fn worker_at(url: &str, key: Option<&str>, tasks: &Tasks) -> HttpWorker {
    let origin = Origin::parse(url).expect("a URL");
    HttpWorker::new(origin, key.map(Secret::new).as_ref(), dialer(tasks, &Config::default()))
}

async fn ask(worker: &HttpWorker, call: Call) -> Result<Vec<u8>, CallError> {
    Ok(worker.call(call).await?.body.collect().await?.to_bytes().to_vec())
}

#[tokio::test]
async fn the_http_worker_conforms() {
    conformance::suite(|scripts| async move {
        let server = server(scripts, After::Keep).await;
        let made = (Arc::new(worker(&server, None)) as Arc<dyn Worker>, server.seen.clone());
        std::mem::forget(server.tasks); // the server lives as long as the test
        made
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_used_again_and_again() {
    let server = server(vec![good()], After::Keep).await;
    let worker = worker(&server, None);
    for _ in 0..200 {
        assert_eq!(ask(&worker, call()).await.expect("answered"), b"hello world");
    }
    assert_eq!(*server.connections.lock(), 1);
    assert_eq!(worker.close_idle(Clock.now() + Duration::from_secs(1)), 0);
    ask(&worker, call()).await.expect("answered");
    assert_eq!(*server.connections.lock(), 2, "a closed connection is replaced");
}

#[tokio::test]
async fn field_c6_no_hidden_cap_holds_back_connections() {
    let mut scripts = vec![vec![Step::Stall]; 500];
    scripts.push(good());
    let mut server = server(scripts, After::Keep).await;
    let worker = worker(&server, None);
    let mut waiting: futures_util::stream::FuturesUnordered<_> = (0..500).map(|_| worker.call(call())).collect();
    tokio::select! {
        _ = futures_util::StreamExt::next(&mut waiting) => panic!("nothing answers"),
        () = conformance::arrived(&mut server.seen, 500) => {}
    }
    assert_eq!(ask(&worker, call()).await.expect("not held back"), b"hello world");
    assert_eq!(*server.connections.lock(), 501);
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_unseen() {
    let server = server(vec![good()], After::Close).await;
    let worker = worker(&server, None);
    for _ in 0..50 {
        assert_eq!(ask(&worker, call()).await.expect("answered"), b"hello world");
    }
    assert_eq!(server.seen.borrow().calls.len(), 50);
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_not_tried_again() {
    let server = server(vec![vec![Step::Lose]], After::Close).await;
    assert_eq!(ask(&worker(&server, None), call()).await, Err(CallError::Lost));
    assert_eq!(server.seen.borrow().calls.len(), 1);
}

#[tokio::test]
async fn credentials_and_hop_headers_end_here_in_both_directions() {
    let mut theirs = HeaderMap::new();
    for (name, value) in [("connection", "x-hop, keep-alive"), ("x-hop", "1"), ("keep-alive", "timeout=5")] {
        theirs.insert(name, HeaderValue::from_static(value));
    }
    theirs.insert("x-end", HeaderValue::from_static("kept"));
    let server = server(vec![vec![Step::Head(http::StatusCode::OK, theirs), Step::text("x")]], After::Keep).await;
    let mut sent = call();
    for (name, value) in [
        ("authorization", "Bearer client-canary"),
        ("x-api-key", "client-canary"),
        ("cookie", "client-canary"),
        ("proxy-authorization", "client-canary"),
        ("connection", "x-private"),
        ("x-private", "client-canary"),
        ("host", "client-canary"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("content-length", "999999"),
        ("transfer-encoding", "chunked"),
    ] {
        sent.headers.insert(name, HeaderValue::from_static(value));
    }
    sent.headers.append("connection", HeaderValue::from_static("x-second"));
    sent.headers.insert("x-second", HeaderValue::from_static("client-canary"));
    let worker = worker(&server, Some("worker-key"));
    let answer = worker.call(sent).await.expect("answered");
    let names: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["x-end"]);
    let seen = server.seen.borrow();
    let arrived = &seen.calls[0].headers;
    assert!(!format!("{arrived:?}").contains("canary"), "{arrived:?}");
    assert_eq!(arrived["authorization"], "Bearer worker-key");
    assert_eq!(format!("http://{}", arrived["host"].to_str().expect("text")), server.url);
    assert_eq!((&arrived["content-length"], arrived.get("transfer-encoding")), (&HeaderValue::from_static("13"), None));
    let debug = format!("{:?}", worker.authorization);
    assert!(!debug.contains("worker-key"), "{debug}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_never_followed() {
    let mut headers = HeaderMap::new();
    headers.insert("location", HeaderValue::from_static("http://169.254.169.254/latest"));
    let server = server(vec![vec![Step::Head(http::StatusCode::FOUND, headers)]], After::Keep).await;
    let answer = worker(&server, None).call(call()).await.expect("answered");
    assert_eq!((answer.status, *server.connections.lock()), (http::StatusCode::FOUND, 1));
}

#[tokio::test]
async fn field_f5_a_forbidden_address_is_not_dialled_however_it_is_spelled() {
    let tasks = Tasks::new();
    for host in [
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[fe80::1]",
        "0.0.0.0",
        "[::]",
        "2852039166",
        "0xa9fea9fe",
        "0",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "0xa9.0xfe.0xa9.0xfe",
        "169.16689662",
        "169.254.43518",
        "169.254.169.254.",
        "[fd00:ec2::254]",
        "[64:ff9b::a9fe:a9fe]",
        "100.100.100.200",
        "168.63.129.16",
        "%31%36%39.254.169.254",
        "169%2e254.169.254",
    ] {
        // What is no URL goes nowhere.
        if Origin::parse(&format!("http://{host}:80")).is_err() {
            continue;
        }
        let worker = worker_at(&format!("http://{host}:80"), None, &tasks);
        let error = ask(&worker, call()).await.expect_err("not dialled");
        let why = [ConnectFailure::Forbidden, ConnectFailure::NoAddress].map(CallError::Connect);
        assert!(why.contains(&error), "{host}: {error}");
    }
    let config = Config { allow_cidrs: vec![Cidr::parse("10.0.0.0/8").expect("a network")], ..Config::default() };
    let origin = Origin::parse("http://127.0.0.1:1").expect("a URL");
    let worker = HttpWorker::new(origin, None, dialer(&tasks, &config));
    assert_eq!(ask(&worker, call()).await, Err(CallError::Connect(ConnectFailure::Forbidden)));
}

#[tokio::test]
async fn a_base_path_stands_before_every_call() {
    let server = server(vec![good()], After::Keep).await;
    let worker = worker_at(&format!("{}/team/", server.url), None, &server.tasks);
    ask(&worker, call()).await.expect("answered");
    assert_eq!(server.seen.borrow().calls[0].path, "/team/v1/chat/completions?a=1");
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_error_and_not_sent_twice() {
    for (answer, error) in [
        (&b"NONSENSE\r\n\r\n"[..], CallError::Protocol),
        (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", CallError::Protocol),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", CallError::Protocol),
        (b"HTTP/1.1 2", CallError::Lost),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let worker = worker_at(&format!("http://{}", listener.local_addr().expect("bound")), None, &Tasks::new());
        let answering = async {
            let (stream, _) = listener.accept().await.expect("accepts");
            let mut stream = BufReader::new(stream);
            read_request(&mut stream).await.expect("readable");
            stream.write_all(answer).await.expect("written");
            drop(stream);
            listener.accept().await
        };
        let asked = tokio::select! {
            asked = ask(&worker, call()) => asked,
            _ = answering => panic!("sent twice"),
        };
        assert_eq!(asked, Err(error), "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn a_connection_that_is_not_there_in_time_is_given_up() {
    // A listener whose backlog is never accepted still connects; TLS then never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let limit = Duration::from_millis(50);
    let config = Config { connect_timeout: limit, ..Config::default() };
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let worker = HttpWorker::new(Origin::parse(&url).expect("a URL"), None, dialer(&Tasks::new(), &config));
    assert_eq!(ask(&worker, call()).await, Err(CallError::ConnectTimeout(limit)));
}
