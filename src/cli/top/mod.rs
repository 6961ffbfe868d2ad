//! `smg top`: a cluster in a terminal, live. `moment.rs` asks the nodes, `picture.rs` draws what they said, here is the loop.
//!
//! It reads HTTP endpoints and nothing else, so it works from anywhere a node's clients work. Asking is a thread of its own: a node that does not
//! answer must not hold the keys up. *Absent on purpose:* commands. It looks and touches nothing.

mod moment;
mod picture;

use std::io::IsTerminal as _;
use std::sync::mpsc;
use std::time::Duration;

use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use clap::value_parser;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyModifiers;
use ratatui::crossterm::terminal;
use serde_json::Value;

use self::moment::Moment;
use super::args::asking;
use super::client::Node;
use super::say;

/// Of a picture that goes to no terminal.
const SIZE: (u16, u16) = (110, 40);
/// How long a key waits at most.
const KEYS: Duration = Duration::from_millis(100);

/// The command.
pub(super) fn command() -> Command {
    let every = Arg::new("interval").long("interval").value_name("SECONDS").default_value("1");
    let every = every.value_parser(value_parser!(u64).range(1..=60)).help("Seconds between two looks");
    let once = Arg::new("once").long("once").action(ArgAction::SetTrue);
    asking(Command::new("top"))
        .about("A running cluster, live: nodes, links, workers, hit rates, tables; q quits")
        .arg(every)
        .arg(once.help("Print one picture and end; so does a standard output that is no terminal"))
}

/// Runs until `q`.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let node = Node::of(matches)?;
    let interval = Duration::from_secs(matches.get_one::<u64>("interval").copied().unwrap_or(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let first = runtime.block_on(Moment::of(&node, None))?;
    let is_live = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if matches.get_flag("json") {
        say(&format!("{:#}\n", first.json()));
    } else if matches.get_flag("once") || !is_live {
        say(&printed(&first)?);
    } else {
        return live(node, first, interval, runtime);
    }
    Ok(())
}

/// The picture as lines of text.
fn printed(moment: &Moment) -> anyhow::Result<String> {
    let (columns, rows) = if std::io::stdout().is_terminal() { terminal::size().unwrap_or(SIZE) } else { SIZE };
    let mut terminal = Terminal::new(TestBackend::new(columns, rows))?;
    terminal.draw(|frame| picture::draw(frame, moment, None))?;
    let buffer = terminal.backend().buffer();
    let cells = buffer.content().chunks(usize::from(columns.max(1)));
    let lines = cells.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
    let text = lines.fold(String::new(), |text, line| text + line.trim_end() + "\n");
    Ok(text.trim_end().to_owned() + "\n")
}

fn live(node: Node, first: Moment, interval: Duration, runtime: tokio::runtime::Runtime) -> anyhow::Result<()> {
    // BOUND: one moment waits to be drawn; the asker waits with it.
    let (moments, seen) = mpsc::sync_channel(1);
    let mut last = first.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::park_timeout(interval);
            let next = runtime.block_on(Moment::of(&node, Some(&last)));
            next.iter().for_each(|it| last = it.clone());
            if moments.send(next).is_err() {
                return; // nobody looks any more
            }
        }
    });
    let mut terminal = ratatui::try_init()?;
    let shown = watch(&mut terminal, first, &seen);
    ratatui::restore();
    shown
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    mut moment: Moment,
    seen: &mpsc::Receiver<anyhow::Result<Moment>>,
) -> anyhow::Result<()> {
    let mut trouble = None;
    loop {
        terminal.draw(|frame| picture::draw(frame, &moment, trouble.as_deref()))?;
        if event::poll(KEYS)? && matches!(event::read()?, Event::Key(key) if is_end(key)) {
            return Ok(());
        }
        match seen.try_recv() {
            Ok(Ok(next)) => (moment, trouble) = (next, None),
            Ok(Err(error)) => trouble = Some(format!("{error:#}")),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => anyhow::bail!("nobody asks the node any more"),
        }
    }
}

fn is_end(key: KeyEvent) -> bool {
    let is_control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

/// A field as text.
fn text(of: &Value, field: &str) -> String {
    match &of[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
