//! `docs/reference/cli.md`, rendered from what clap is told. Only the golden test renders it.

use std::fmt::Write as _;

use clap::Command;

use super::args;
use super::incumbent::Becomes;
use super::incumbent::FLAGS;
use crate::config::Config;

/// The page.
pub(super) fn render() -> String {
    let mut page = "# Command line\n\n*Generated; `make bless` rewrites it.*\n\n".to_owned();
    page.push_str(
        "`smg [FLAGS]` serves. Exit codes: 0 done, 1 failed while running, 2 a command line or configuration\n",
    );
    page.push_str("that cannot be used.\n\n## Commands\n\n| command | does |\n|---|---|\n");
    commands(&mut page, &args::command(), "smg");
    page.push_str("\n## Flags of `smg`, `smg serve` and `smg config`\n\n");
    page.push_str("What each does is in [config.md](config.md), under its file key.\n\n");
    page.push_str("| flag | value | key |\n|---|---|---|\n| `--config` | PATH | |\n");
    for option in Config::options() {
        let spec = option.spec;
        let list = if spec.is_list { " ..." } else { "" };
        let value = args::value_name(spec).replace('|', " or ");
        let _ = writeln!(page, "| `--{}` | {value}{list} | `{}.{}` |", spec.flag, option.section, spec.key);
    }
    page.push_str(
        "\n## Flags of other gateways\n\nTaken with one warning, or refused where going on would be wrong.\n\n",
    );
    page.push_str("| flag | here |\n|---|---|\n");
    for flag in FLAGS {
        let here = match flag.becomes {
            Becomes::Renamed(to, _) => format!("`--{to}`"),
            Becomes::Nothing(instead) => instead.to_owned(),
            Becomes::Refused(why) => format!("refused: {why}"),
        };
        let _ = writeln!(page, "| `--{}` | {here} |", flag.name);
    }
    page
}

fn commands(page: &mut String, command: &Command, name: &str) {
    for it in command.get_subcommands() {
        let name = format!("{name} {}", it.get_name());
        let about = it.get_about().map(ToString::to_string).unwrap_or_default();
        let aliases: Vec<_> = it.get_visible_aliases().map(|it| format!("`{it}`")).collect();
        let aliases = if aliases.is_empty() { String::new() } else { format!(" (also {})", aliases.join(", ")) };
        let _ = writeln!(page, "| `{name}` | {about}{aliases} |");
        commands(page, it, &name);
    }
}
