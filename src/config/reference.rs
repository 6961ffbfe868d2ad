//! The configuration for people: the reference page, and the file that `smg config print` writes.

use std::fmt::Write as _;

use super::Config;
use super::Loaded;
use super::Named;
use super::env_name;
use super::load::Origin;

/// `docs/reference/config.md`.
#[must_use]
pub fn render_reference() -> String {
    let defaults = Config::default();
    let mut page = INTRODUCTION.to_owned();
    for (section, purpose) in Config::sections() {
        let _ = write!(page, "\n## [{section}]\n\n{}\n", purpose.trim()); // a String takes everything
        for option in Config::options().into_iter().filter(|it| it.section == *section) {
            let spec = option.spec;
            let default = match defaults.render(option) {
                text if text.is_empty() => "none".to_owned(),
                text => format!("`{text}`"),
            };
            let list = if spec.is_list { "list of " } else { "" };
            let _ = write!(
                page,
                "\n### `{}`\n\n{}\n\n`--{}` · `{}` · {list}{} · default {default}\n",
                spec.key,
                sentence(spec.doc),
                spec.flag,
                env_name(spec.flag),
                spec.kind,
            );
        }
    }
    page
}

const INTRODUCTION: &str = "# Configuration

*Generated from the options themselves; `make bless` rewrites it.*

A flag wins over the environment, the environment over the file. The file is TOML, named by `--config PATH` or
`SMG_CONFIG`; each section below is one of its tables. Unknown keys are errors. Lists take spaces, commas and repeated
flags; in the file, arrays. `smg config check` says what is wrong, `smg config print` shows every value and where it
came from.

SIGHUP reads everything again: workers, keys, limits, policies and the log level are taken over, other changes are logged as needing a restart, and
a configuration with an error changes nothing. Workers are added and removed while running at `/workers`.
";

/// The whole configuration as a file that gives the same one again (but for its secrets).
#[must_use]
pub fn render_print(loaded: &Loaded) -> String {
    let mut text = String::new();
    for (section, _) in Config::sections() {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{separator}[{section}]"); // a String takes everything
        for option in Config::options().into_iter().filter(|it| it.section == *section) {
            let value = loaded.config.render(option);
            let origin = match loaded.origin(option.spec.flag) {
                Origin::Default => "default".to_owned(),
                Origin::File => loaded.path().map_or("file".to_owned(), |it| it.display().to_string()),
                Origin::Environment => env_name(option.spec.flag),
                Origin::Flag => format!("--{}", option.spec.flag),
            };
            // An absent value has no TOML form; the line stays as a comment, so that every option is seen.
            let absent = if value.is_empty() && !option.spec.is_list { "# " } else { "" };
            let _ = writeln!(text, "{absent}{} = {} # {origin}", option.spec.key, toml_value(option, &value));
        }
    }
    text
}

fn toml_value(option: Named, value: &str) -> String {
    let quoted = |it: &str| toml::Value::String(it.to_owned()).to_string();
    if option.spec.is_list {
        let items: Vec<String> = value.split(',').filter(|it| !it.is_empty()).map(quoted).collect();
        return format!("[{}]", items.join(", "));
    }
    let is_bare = option.spec.is_switch || option.spec.kind.starts_with("number");
    if is_bare { value.to_owned() } else { quoted(value) }
}

/// Doc comments keep the space after `///`; joined lines read as one.
pub(crate) fn sentence(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}
