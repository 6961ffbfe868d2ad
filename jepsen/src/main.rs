//! `jepsen run` asks a cluster and judges what it was told, `jepsen check` judges a history again, `jepsen edn` writes one as others read it.

#![expect(clippy::print_stdout, reason = "a program whose answers are read")]

use std::net::SocketAddr;
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use jepsen::Recorder;
use jepsen::Run;
use jepsen::Target;
use jepsen::Workload;
use jepsen::check;
use jepsen::edn;
use jepsen::history;
use jepsen::summary;

const USAGE: &str = "\
jepsen run --node HOST:PORT [--node ...] --key ADMIN_KEY --model MODEL --out DIR
           [--workload NAME,...]  lists, responses, idempotency, background, workers, limits; default: all
           [--worker URL ...]     spare workers, which `workers` adds and removes
           [--seconds N]          how long clients ask; default 30
           [--settle N]           seconds for the last reads; default 60
           [--seed N]             what clients draw; default 1
jepsen check FILE...              judges histories again
jepsen edn FILE                   prints a history as Jepsen writes it

It ends with 1 if something was told that cannot be, with 2 if it could not be found out.";

/// Why it did not come to a verdict.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.split_first() {
        Some((&"run", rest)) => Wanted::read(rest).and_then(|it| run(&it)),
        Some((&"check", files)) if !files.is_empty() => check_again(files),
        Some((&"edn", [file])) => {
            history::read(Path::new(file)).map(|it| print!("{}", edn(&it))).map(|()| false).map_err(Failure::from)
        }
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(1),
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

/// What `run` is asked for.
struct Wanted {
    target: Target,
    workloads: Vec<Workload>,
    seconds: u64,
    settle: u64,
    seed: u64,
    out: PathBuf,
}

impl Wanted {
    fn read(words: &[&str]) -> Result<Self, Failure> {
        let target = Target { nodes: Vec::new(), admin_key: String::new(), model: String::new(), workers: Vec::new() };
        let (workloads, out) = (Workload::ALL.to_vec(), PathBuf::new());
        let mut wanted = Self { target, workloads, seconds: 30, settle: 60, seed: 1, out };
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} needs a value\n\n{USAGE}", pair[0]).into()) };
            match *name {
                "--node" => wanted.target.nodes.push(address(value)?),
                "--key" => (*value).clone_into(&mut wanted.target.admin_key),
                "--model" => (*value).clone_into(&mut wanted.target.model),
                "--worker" => wanted.target.workers.push((*value).to_owned()),
                "--workload" => wanted.workloads = value.split(',').map(workload).collect::<Result<_, _>>()?,
                "--seconds" => wanted.seconds = value.parse()?,
                "--settle" => wanted.settle = value.parse()?,
                "--seed" => wanted.seed = value.parse()?,
                "--out" => wanted.out = PathBuf::from(value),
                other => return Err(format!("there is no {other}\n\n{USAGE}").into()),
            }
        }
        let Target { nodes, model, .. } = &wanted.target;
        if nodes.is_empty() || model.is_empty() || wanted.out.as_os_str().is_empty() {
            return Err(format!("--node, --model and --out are needed\n\n{USAGE}").into());
        }
        Ok(wanted)
    }
}

fn address(text: &str) -> Result<SocketAddr, Failure> {
    text.to_socket_addrs()?.next().ok_or_else(|| format!("{text} has no address").into())
}

fn workload(name: &str) -> Result<Workload, Failure> {
    Workload::by_name(name).ok_or_else(|| format!("there is no workload {name}\n\n{USAGE}").into())
}

/// Whether something was violated.
fn run(wanted: &Wanted) -> Result<bool, Failure> {
    std::fs::create_dir_all(&wanted.out)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let recorder = Recorder::new();
    runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        let mut run = Run::begin(Rc::new(wanted.target.clone()), &recorder, &wanted.workloads, wanted.seed);
        for left in (1..=wanted.seconds).rev() {
            if left % 10 == 0 {
                println!("{left} s left, {} events", recorder.events().len());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        run.stop().await;
        println!("last reads");
        run.settle(Duration::from_secs(wanted.settle)).await;
    }));
    let (events, file) = (recorder.events(), wanted.out.join("history.jsonl"));
    history::write(&file, &events)?;
    std::fs::write(wanted.out.join("history.edn"), edn(&events))?;
    let verdicts = check(&events);
    std::fs::write(wanted.out.join("verdicts.json"), serde_json::to_vec_pretty(&verdicts)?)?;
    println!("{}\n{}", file.display(), summary::summary(&events, &verdicts));
    Ok(summary::is_violated(&verdicts))
}

/// Whether something was violated in one of them.
fn check_again(files: &[&str]) -> Result<bool, Failure> {
    let mut is_violated = false;
    for file in files {
        let events = history::read(Path::new(file)).map_err(|error| format!("{file}: {error}"))?;
        let verdicts = check(&events);
        println!("{file}\n{}", summary::summary(&events, &verdicts));
        is_violated |= summary::is_violated(&verdicts);
    }
    Ok(is_violated)
}
