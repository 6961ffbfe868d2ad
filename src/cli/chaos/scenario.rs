//! A scenario: which node fails how, when and for how long. Everything is checked before anything begins.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use http::Method;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use super::Cluster;
use super::PATH;
use super::Place;
use super::line;
use super::with_node;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::setting::Setting as _;
use crate::chaos::core::LASTS_MAX;
use crate::chaos::fault::ALL;
use crate::chaos::fault::Fault;
use crate::cli::say;

/// Steps of one scenario. More is a program.
const STEPS_MAX: usize = 1000;
/// Longest file read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One fault that is to come.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    at: Duration,
    /// Names or ids of nodes, or [`ALL`].
    nodes: Vec<String>,
    lasts: Duration,
    /// As the API takes it.
    fault: Value,
}

/// What a file says.
#[derive(Debug, Default, PartialEq)]
struct Scenario {
    /// In the order in which they are due.
    steps: Vec<Step>,
    /// Where nodes serve, for names that the cluster does not know.
    places: Vec<(String, String)>,
}

impl Scenario {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: toml::Table = toml::from_str(text).context("it is no TOML")?;
        let mut scenario = Self::default();
        for (key, value) in file {
            match (key.as_str(), value) {
                ("nodes", toml::Value::Table(nodes)) => {
                    for (name, url) in nodes {
                        let url = url.as_str().with_context(|| format!("nodes.{name}: expected a URL"))?;
                        scenario.places.push((name, url.to_owned()));
                    }
                }
                ("steps", toml::Value::Array(steps)) => {
                    ensure!(steps.len() <= STEPS_MAX, "there may be {STEPS_MAX} steps");
                    for (n, step) in (1..).zip(steps) {
                        scenario.steps.push(Step::read(step).with_context(|| format!("step {n}"))?);
                    }
                }
                (key, _) => bail!("`{key}`: a scenario has [[steps]], and [nodes] with a URL for each name"),
            }
        }
        ensure!(!scenario.steps.is_empty(), "it has no [[steps]]");
        scenario.steps.sort_by_key(|it| it.at);
        Ok(scenario)
    }
}

impl Step {
    fn read(step: toml::Value) -> anyhow::Result<Self> {
        let Value::Object(mut fields) = serde_json::to_value(step)? else { bail!("expected a table") };
        let at = time(&mut fields, "at")?;
        let lasts = time(&mut fields, "for")?;
        ensure!(!lasts.is_zero() && lasts <= LASTS_MAX, "`for`: up to {} s", LASTS_MAX.as_secs());
        let nodes = match fields.remove("node") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        ensure!(!nodes.is_empty(), "`node`: the name of a node, a list of them, or `*`");
        let mut fault = Value::Object(fields);
        let read: Fault = serde_json::from_value(fault.clone())?;
        read.check()?;
        fault["for"] = json!(lasts.render());
        Ok(Self { at, nodes, lasts, fault })
    }
}

fn time(fields: &mut Map<String, Value>, name: &str) -> anyhow::Result<Duration> {
    let text = fields.remove(name).with_context(|| format!("`{name}` is required"))?;
    let text = text.as_str().with_context(|| format!("`{name}`: expected a duration such as \"5s\""))?;
    Duration::parse(text).map_err(|error| anyhow::anyhow!("`{name}`: {error}"))
}

/// Where one node is, and where the other nodes of a file are.
struct Stage<'a> {
    cluster: &'a Cluster,
    named: Vec<Place>,
}

impl Stage<'_> {
    fn find(&self, name: &str) -> anyhow::Result<Vec<&Place>> {
        if name == ALL {
            return Ok(self.cluster.here().collect());
        }
        let named = self.named.iter().find(|it| it.name == name);
        named.map_or_else(|| self.cluster.find(name), Ok).map(|it| vec![it])
    }
}

/// A fault that a scenario has begun.
struct Begun<'a> {
    place: &'a Place,
    id: String,
    until: Instant,
}

/// What happens next.
enum Next {
    Step,
    Ended(usize),
    Done,
    Interrupted,
}

/// Goes through a file.
pub(super) async fn run(file: &Path, cluster: &Cluster, is_json: bool) -> anyhow::Result<()> {
    let shown = file.display();
    let len = std::fs::metadata(file).with_context(|| format!("cannot read `{shown}`"))?.len();
    ensure!(len <= FILE_BYTES_MAX, "`{shown}` has {len} bytes, expected at most {FILE_BYTES_MAX}");
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read `{shown}`"))?;
    let scenario = Scenario::parse(&text).with_context(|| format!("`{shown}`"))?;
    let beside = |(name, url): &(String, String)| {
        let node = cluster.me().node.as_ref().context("it was asked")?.beside(url)?;
        anyhow::Ok(Place { name: name.clone(), id: String::new(), is_here: true, node: Some(node) })
    };
    let named = scenario.places.iter().map(beside).collect::<anyhow::Result<_>>()?;
    let stage = Stage { cluster, named };
    for step in &scenario.steps {
        for name in &step.nodes {
            stage.find(name).with_context(|| format!("`{shown}`, the step at {}", step.at.render()))?;
        }
    }
    Run { stage: &stage, started: Clock.now(), begun: Vec::new(), is_json }.go(&scenario.steps).await
}

struct Run<'a> {
    stage: &'a Stage<'a>,
    started: Instant,
    begun: Vec<Begun<'a>>,
    is_json: bool,
}

impl<'a> Run<'a> {
    async fn go(mut self, steps: &[Step]) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut steps = steps.iter().peekable();
        let ended = loop {
            let due = steps.peek().map(|it| self.started + it.at);
            let next = tokio::select! {
                it = self.next(due) => it,
                _ = interrupt.recv() => Next::Interrupted,
                _ = terminate.recv() => Next::Interrupted,
            };
            match next {
                Next::Step => {
                    let Some(step) = steps.next() else { break Ok(()) };
                    if let Err(error) = self.begin(step).await {
                        break Err(error);
                    }
                }
                Next::Ended(at) => {
                    let it = self.begun.remove(at);
                    self.say(
                        "ended",
                        &json!({"id": it.id, "node": it.place.name}),
                        &format!("{} at {} has ended", it.id, it.place.name),
                    );
                }
                Next::Done => break Ok(()),
                Next::Interrupted => break Err(anyhow::anyhow!("interrupted")),
            }
        };
        let left = self.lift().await;
        ended.and(left)
    }

    /// Waits for what comes first: a step, or the end of a fault.
    async fn next(&self, due: Option<Instant>) -> Next {
        let first = self.begun.iter().enumerate().min_by_key(|it| it.1.until);
        match (due, first) {
            (None, None) => Next::Done,
            (Some(due), None) => sleep(due, Next::Step).await,
            (Some(due), Some((_, it))) if due <= it.until => sleep(due, Next::Step).await,
            (_, Some((at, it))) => sleep(it.until, Next::Ended(at)).await,
        }
    }

    async fn begin(&mut self, step: &Step) -> anyhow::Result<()> {
        let mut places: Vec<&'a Place> = Vec::new();
        for name in &step.nodes {
            places.extend(self.stage.find(name)?);
        }
        for place in places {
            let until = Clock.now() + step.lasts;
            let answer = place.ask(Method::POST, PATH, Some(&step.fault)).await;
            let fault = answer
                .with_context(|| format!("{} at {}", step.fault["kind"].as_str().unwrap_or_default(), place.name))?;
            let fault = with_node(fault, place);
            self.begun.push(Begun { place, id: fault["id"].as_str().unwrap_or_default().to_owned(), until });
            self.say("begun", &fault, &line(&fault));
        }
        Ok(())
    }

    /// Ends what this run began and nothing else. What cannot be reached now ends by itself.
    async fn lift(&mut self) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for it in std::mem::take(&mut self.begun) {
            match it.place.ask(Method::DELETE, &format!("{PATH}/{}", it.id), None).await {
                Ok(fault) => {
                    self.say(
                        "lifted",
                        &with_node(fault, it.place),
                        &format!("{} at {} is lifted", it.id, it.place.name),
                    );
                }
                Err(error) => failed.push(format!("{} at {}: {error:#}", it.id, it.place.name)),
            }
        }
        ensure!(failed.is_empty(), "not lifted, it ends by itself: {}", failed.join("; "));
        Ok(())
    }

    fn say(&self, event: &str, fault: &Value, text: &str) {
        let seconds = Clock.now().saturating_duration_since(self.started).as_secs_f64();
        if self.is_json {
            say(&format!("{}\n", json!({"at_seconds": (seconds * 1e3).round() / 1e3, "event": event, "fault": fault})));
        } else {
            say(&format!("{seconds:7.1} s  {text}\n"));
        }
    }
}

async fn sleep(until: Instant, then: Next) -> Next {
    tokio::time::sleep_until(until).await;
    then
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_scenario() {
        let scenario = Scenario::parse(include_str!("../../../docs/examples/chaos.toml")).unwrap();
        assert!(scenario.steps.len() > 3 && scenario.steps.is_sorted_by_key(|it| it.at), "{scenario:?}");
    }

    #[test]
    fn steps_come_in_the_order_of_their_times() {
        let text = "[nodes]\nx = \"http://h:1\"\n[[steps]]\nat = \"5s\"\nnode = [\"a\", \"b\"]\nfor = \"1s\"\nkind = \"gossip\"\n\
            [[steps]]\nat = \"0s\"\nnode = \"*\"\nfor = \"1m\"\nkind = \"worker_delay\"\nworker = \"*\"\nms = 5\n";
        let scenario = Scenario::parse(text).unwrap();
        let seconds = Duration::from_secs;
        let first = json!({"kind": "worker_delay", "worker": "*", "ms": 5, "for": "1m"});
        let steps = [
            Step { at: seconds(0), nodes: vec!["*".to_owned()], lasts: seconds(60), fault: first },
            Step {
                at: seconds(5),
                nodes: vec!["a".to_owned(), "b".to_owned()],
                lasts: seconds(1),
                fault: json!({"kind": "gossip", "for": "1s"}),
            },
        ];
        assert_eq!(scenario.steps, steps);
        assert_eq!(scenario.places, [("x".to_owned(), "http://h:1".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_step() {
        let step = |text: &str| {
            format!("[[steps]]\nat = \"0s\"\nnode = \"a\"\nfor = \"1s\"\nkind = \"gossip\"\n[[steps]]\n{text}")
        };
        for (text, says) in [
            ("x".to_owned(), "no TOML"),
            (String::new(), "no [[steps]]"),
            ("[[stesp]]\n".to_owned(), "`stesp`"),
            (step("at = \"1s\""), "step 2"),
            (step("at = \"soon\"\nfor = \"1s\"\nnode = \"a\"\nkind = \"gossip\""), "`at`"),
            (step("at = 1\nfor = \"1s\"\nnode = \"a\"\nkind = \"gossip\""), "`at`: expected a duration"),
            (step("at = \"1s\"\nfor = \"11m\"\nnode = \"a\"\nkind = \"gossip\""), "`for`: up to 600 s"),
            (step("at = \"1s\"\nfor = \"1s\"\nkind = \"gossip\""), "`node`"),
            (step("at = \"1s\"\nfor = \"1s\"\nnode = \"a\"\nkind = \"earthquake\""), "unknown variant"),
            (step("at = \"1s\"\nfor = \"1s\"\nnode = \"a\"\nkind = \"loss\"\nnodes = [\"b\"]\nratio = 2"), "`ratio`"),
        ] {
            let error = format!("{:#}", Scenario::parse(&text).expect_err(&text));
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
