//! From flags, environment and file to a [`Config`], keeping where each value came from.
//!
//! Reading is pure over [`Sources`], so that a reload and a test do exactly what a start does. An empty environment
//! variable counts as absent (compose files produce them); variables that Kubernetes sets for a service that is named
//! `smg` (`SMG_PORT=tcp://...`, `SMG_SERVICE_HOST`, ...) are not ours and are passed over.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use super::Config;
use super::Named;
use super::error::Errors;
use super::error::Problem;
use crate::base::nearest::nearest;

/// Names the file when `--config` does not.
pub const CONFIG_ENV: &str = "SMG_CONFIG";

/// Variables that are ours but no options: the file, and what this repository's Makefile hands to its tools.
const NOT_OPTIONS: &[&str] = &[CONFIG_ENV, "SMG_BIN", "SMG_CACHE"];

/// Where a value came from. Later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The file.
    File,
    /// An `SMG_*` variable.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "command line",
        })
    }
}

/// What was given, unread.
#[derive(Clone, Default)]
pub struct Sources {
    /// Flags without dashes and their values, in order.
    pub flags: Vec<(String, Vec<String>)>,
    /// The process environment.
    pub env: Vec<(String, String)>,
    /// Path of the file, when there is one.
    pub path: Option<PathBuf>,
}

/// A configuration that passed every check, and where it came from.
#[derive(Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    pub(super) given: BTreeMap<&'static str, Given>,
    sources: Sources,
}

/// An option's last word: not `Debug`, it may be a secret.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// A value as given: text still to be split when the option is a list, or items that are not.
#[derive(Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Items(Vec<String>),
}

impl Sources {
    /// These flags with the environment of this process; `--config` wins over [`CONFIG_ENV`].
    #[must_use]
    pub fn of_process(flags: Vec<(String, Vec<String>)>, config_flag: Option<PathBuf>) -> Self {
        let env: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        let named = env.iter().find(|(name, value)| name == CONFIG_ENV && !value.is_empty());
        let path = config_flag.or_else(|| named.map(|(_, value)| PathBuf::from(value)));
        Self { flags, env, path }
    }

    /// Reads the file, if one is named, and everything else.
    pub fn load(self) -> Result<Loaded, Errors> {
        let text = match &self.path {
            None => String::new(),
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(cause) => return Err(Errors(vec![Problem::Unreadable { path: path.clone(), cause }])),
            },
        };
        self.load_text(&text)
    }

    /// The same with the file's text in hand.
    pub fn load_text(self, file: &str) -> Result<Loaded, Errors> {
        let mut reading = Reading { options: Config::options(), given: BTreeMap::new(), problems: Vec::new() };
        reading.file(self.path.as_deref().unwrap_or(Path::new("smg.toml")), file);
        reading.environment(&self.env);
        reading.flags(&self.flags);
        let mut config = Config::default();
        reading.apply(&mut config);
        // Rules between options only make sense of options that could be read.
        if reading.problems.is_empty() {
            reading.problems.extend(super::check::check(&config));
        }
        if reading.problems.is_empty() {
            Ok(Loaded { config, given: reading.given, sources: self })
        } else {
            Err(Errors(reading.problems))
        }
    }
}

impl Loaded {
    /// Where the option's value came from.
    #[must_use]
    pub fn origin(&self, flag: &str) -> Origin {
        self.given.get(flag).map_or(Origin::Default, |it| it.origin)
    }

    /// The file that was read.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.sources.path.as_deref()
    }

    /// Reads the same sources again (SIGHUP). The old configuration stays in force when this fails.
    pub fn reload(&self) -> Result<Self, Errors> {
        self.sources.clone().load()
    }
}

struct Reading {
    options: Vec<Named>,
    given: BTreeMap<&'static str, Given>,
    problems: Vec<Problem>,
}

impl Reading {
    fn give(&mut self, option: Named, origin: Origin, value: Value) {
        self.given.insert(option.spec.flag, Given { origin, value });
    }

    fn unknown(&mut self, origin: Origin, what: &'static str, name: String, valid: impl Iterator<Item = String>) {
        let nearest = nearest(&name, valid);
        self.problems.push(Problem::Unknown { origin, what, name, nearest });
    }

    fn file(&mut self, path: &Path, text: &str) {
        let table: toml::Table = match toml::from_str(text) {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map_or(0, |it| text[..it.start.min(text.len())].matches('\n').count()) + 1;
                let message = error.message().to_owned();
                return self.problems.push(Problem::Syntax { path: path.to_owned(), line, message });
            }
        };
        for (section, value) in table {
            let known = Config::sections().iter().map(|(name, _)| (*name).to_owned());
            match value {
                toml::Value::Table(keys) if known.clone().any(|it| it == section) => self.section(&section, keys),
                _ => self.unknown(Origin::File, "section", section, known),
            }
        }
    }

    fn section(&mut self, section: &str, keys: toml::Table) {
        let options: Vec<Named> = self.options.iter().copied().filter(|it| it.section == section).collect();
        for (key, value) in keys {
            let name = format!("{section}.{key}");
            let Some(option) = options.iter().copied().find(|it| it.spec.key == key) else {
                let valid = options.iter().map(|it| format!("{section}.{}", it.spec.key));
                self.unknown(Origin::File, "key", name, valid);
                continue;
            };
            match self.value(option, &name, value) {
                Ok(value) => self.give(option, Origin::File, value),
                Err(problem) => self.problems.push(problem),
            }
        }
    }

    /// The text form of a file's value; tables become their fields joined by colons, in the option's own order.
    fn value(&mut self, option: Named, name: &str, value: toml::Value) -> Result<Value, Problem> {
        let bad = |expected: String| Problem::BadValue {
            origin: Origin::File,
            name: name.to_owned(),
            value: "***".to_owned(),
            expected: expected.into(),
        };
        let toml::Value::Array(items) = value else {
            return scalar(&value).map(Value::Text).ok_or_else(|| bad(format!("expected {}", option.spec.kind)));
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            let text = match item {
                toml::Value::Table(fields) if !option.spec.table_keys.is_empty() => {
                    Some(self.joined(option, name, &fields))
                }
                other => scalar(&other),
            };
            texts.push(text.ok_or_else(|| bad(format!("expected a list of {}", option.spec.kind)))?);
        }
        Ok(Value::Items(texts))
    }

    fn joined(&mut self, option: Named, name: &str, fields: &toml::Table) -> String {
        let valid = option.spec.table_keys;
        for field in fields.keys().filter(|it| !valid.contains(&it.as_str())) {
            let valid = valid.iter().map(|it| format!("{name}.{it}"));
            self.unknown(Origin::File, "key", format!("{name}.{field}"), valid);
        }
        let text = |key: &&str| fields.get(*key).and_then(scalar).unwrap_or_default();
        valid.iter().map(text).collect::<Vec<_>>().join(":")
    }

    fn environment(&mut self, env: &[(String, String)]) {
        for (name, value) in env {
            let is_option = name.starts_with("SMG_") && !NOT_OPTIONS.contains(&name.as_str());
            if !is_option || value.is_empty() || is_from_kubernetes(name, value) {
                continue;
            }
            match self.options.iter().copied().find(|it| env_name(it.spec.flag) == *name) {
                Some(option) => self.give(option, Origin::Environment, Value::Text(value.clone())),
                None => {
                    let valid: Vec<String> = self.options.iter().map(|it| env_name(it.spec.flag)).collect();
                    self.unknown(Origin::Environment, "variable", name.clone(), valid.into_iter());
                }
            }
        }
    }

    fn flags(&mut self, flags: &[(String, Vec<String>)]) {
        for (flag, values) in flags {
            match self.options.iter().copied().find(|it| it.spec.flag == *flag) {
                Some(option) => self.give(option, Origin::Flag, Value::Text(values.join(","))),
                None => {
                    let valid: Vec<String> = self.options.iter().map(|it| it.spec.flag.to_owned()).collect();
                    self.unknown(Origin::Flag, "flag", flag.clone(), valid.into_iter());
                }
            }
        }
    }

    fn apply(&mut self, config: &mut Config) {
        for option in &self.options {
            let Some(given) = self.given.get(option.spec.flag) else { continue };
            let (result, shown) = match &given.value {
                Value::Text(text) => (config.set(*option, text), text.clone()),
                Value::Items(items) => (config.set_items(*option, items), items.join(",")),
            };
            if let Err(expected) = result {
                let name = match given.origin {
                    Origin::Flag => format!("--{}", option.spec.flag),
                    Origin::Environment => env_name(option.spec.flag),
                    Origin::Default | Origin::File => format!("{}.{}", option.section, option.spec.key),
                };
                let value = if option.spec.is_secret { "***".to_owned() } else { shown };
                self.problems.push(Problem::BadValue { origin: given.origin, name, value, expected });
            }
        }
    }
}

/// The environment variable of a flag.
#[must_use]
pub fn env_name(flag: &str) -> String {
    format!("SMG_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Docker links and Kubernetes services fill the environment with names made of the service's own.
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let is_link = name.ends_with("_PORT") && (value.starts_with("tcp://") || value.starts_with("udp://"));
    let is_part = ["_TCP", "_UDP", "_SCTP"].iter().any(|it| name.contains(it)) && name.contains("_PORT_");
    is_link || is_part || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(it) => Some(it.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}
