//! `smg bench`: options in, a bar while it runs, a table or JSON out.

use std::time::Duration;

use clap::Arg;
use clap::ArgAction;
use clap::ArgMatches;
use clap::Command;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use super::Failure;
use super::args;
use super::say;
use crate::bench;
use crate::bench::Progress;
use crate::bench::RunError;
use crate::bench::options::Options;

/// Between two looks at how far it is.
const TICK: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "Examples:
  smg bench --url http://localhost:30000 --connections 64 --duration 10s
  smg bench --rate 200 --stream --prompt-size 8KiB --shared-prefix 4KiB --json
  smg bench --trace mooncake_conversation_trace.jsonl --speed 10 --stream";

/// The command.
pub(super) fn command() -> Command {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the result as JSON");
    Command::new("bench")
        .about("Load any OpenAI-compatible server, in a closed loop, at a rate or from a trace; percentiles of its answers")
        .after_help(EXAMPLES)
        .args(args::own_flags::<Options>())
        .arg(json)
}

/// Runs it. Requests that failed are part of the result, not a failure of the command.
pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let options: Options = args::own_options(matches)?;
    let progress = Progress::default();
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| bench::run(&options, &progress));
        let bar = bar();
        while !running.is_finished() {
            std::thread::park_timeout(TICK);
            show(&bar, &progress, &options);
        }
        bar.finish_and_clear();
        running.join()
    });
    let report = match report {
        Ok(Ok(report)) => report,
        Ok(Err(error @ RunError::Start(_))) => return Err(Failure::Run(error.into())),
        Ok(Err(error)) => return Err(Failure::Usage(error.into())),
        Err(_panic) => return Err(Failure::Run(anyhow::Error::msg("the load generator panicked"))),
    };
    say(&if matches.get_flag("json") { format!("{:#}\n", report.json()) } else { report.table() });
    Ok(())
}

/// Drawn on standard error, and only when that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} requests, {per_sec} {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: &Progress, options: &Options) {
    let (ended, failed) = progress.ended();
    // Without a known number, as many as the time gone by promises.
    let share = options.sending_time().map_or(1.0, |all| bar.elapsed().as_secs_f64() / all.as_secs_f64());
    let expected = (ended as f64 / share.clamp(0.01, 1.0)) as u64;
    let total = progress.total();
    bar.set_length(if total > 0 { total } else { expected.max(ended) });
    bar.set_position(ended);
    if failed > 0 {
        bar.set_message(format!("({failed} failed)"));
    }
}
