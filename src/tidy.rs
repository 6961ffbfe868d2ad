//! Repository rules that the compiler cannot see, checked by `cargo test`.
//!
//! One package means every module can name every other one, so the layering in
//! `docs/architecture.md` is only as true as this file makes it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Which areas each area may name. Read it top-down: it is the architecture.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("proto", &[]),
    ("observability", &["base"]),
    ("transport", &["base", "observability"]),
    ("membership", &["base", "observability", "transport"]),
    ("replication", &["base", "observability", "transport", "membership"]),
    ("history", &["base", "observability", "proto", "transport", "membership"]),
    ("dialects", &["base"]),
    ("workers", &["base", "observability", "proto", "dialects", "replication"]),
    ("tenancy", &["base", "observability", "replication", "history"]),
    ("routing", &["base", "observability", "dialects", "workers", "replication"]),
    ("plugins", &["base", "observability"]),
    (
        "api",
        &[
            "base",
            "observability",
            "proto",
            "dialects",
            "workers",
            "tenancy",
            "routing",
            "plugins",
            "history",
            "membership",
            "replication",
        ],
    ),
];

/// Roots may name everything; nothing may name them.
const ROOTS: &[&str] = &["config", "node", "lab", "cli"];

/// Crates that exactly one place may name: the adapter that hides them.
const FENCES: &[(&str, &[&str])] = &[
    ("foca", &["membership"]),
    ("quinn", &["transport"]),
    ("openraft", &["history"]),
    ("rocksdb", &["history"]),
    ("axum", &["api"]),
    ("anyhow", &["main.rs", "cli"]),
];

/// Pure files decide; they never wait, read a clock, or draw entropy themselves.
const PURE: &[&str] = &["/core.rs", "/core/", "/crdt/", "/policies/", "/prefix_map/", "/dialects/"];
const IMPURE: &[&str] = &["tokio::", ".await", "Instant::now", "SystemTime::now", "thread_rng"];

const FILE_LINES_MAX: usize = 600;

#[test]
fn layers_point_down() {
    let allowed: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    check(|file| {
        let Some(allowed) = allowed.get(file.area.as_str()) else { return Vec::new() };
        let mut errors = Vec::new();
        for (n, line) in file.code() {
            if line.starts_with("use crate::{") {
                errors.push(format!("{}:{n}: one `use crate::area::…` a line, so this can read it", file.path));
            }
            if let Some(to) = named_area(line).filter(|to| *to != file.area && !allowed.contains(to)) {
                errors.push(format!("{}:{n}: `{}` may not name `{to}`", file.path, file.area));
            }
        }
        errors
    });
}

#[test]
fn fenced_crates_stay_behind_their_adapter() {
    check(|file| {
        let fenced = FENCES.iter().filter(|(_, homes)| !homes.contains(&file.area.as_str()));
        fenced
            .flat_map(|(name, _)| {
                let needle = format!("{name}::");
                file.code()
                    .filter(move |(_, line)| line.contains(&needle))
                    .map(move |(n, _)| format!("{}:{n}: `{name}` is fenced", file.path))
            })
            .collect()
    });
}

#[test]
fn cores_are_pure() {
    check(|file| {
        if !PURE.iter().any(|part| file.path.contains(part)) {
            return Vec::new();
        }
        file.code()
            .filter(|(_, line)| IMPURE.iter().any(|it| line.contains(it)))
            .map(|(n, _)| format!("{}:{n}: a core must be given time, entropy and input", file.path))
            .collect()
    });
}

#[test]
fn files_have_a_header_and_a_size() {
    check(|file| {
        let mut errors = Vec::new();
        if !file.text.starts_with("//!") {
            errors.push(format!("{}:1: say what this file is (`//!`)", file.path));
        }
        let lines = file.text.lines().count();
        if FILE_LINES_MAX < lines {
            errors.push(format!("{}: {lines} lines, limit {FILE_LINES_MAX}", file.path));
        }
        errors
    });
}

struct Source {
    path: String,
    area: String,
    text: String,
}

impl Source {
    /// Numbered lines of shipped code: no comments, nothing after the inline test module.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
        lines.take_while(|(_, line)| *line != "#[cfg(test)]").filter(|(_, line)| !line.starts_with("//"))
    }
}

fn named_area(line: &str) -> Option<&str> {
    let rest = &line[line.find("crate::")? + "crate::".len()..];
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let known = LAYERS.iter().map(|(area, _)| area).chain(ROOTS);
    known.copied().find(|area| *area == &rest[..end])
}

fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let root = Path::new(option_env!("TIDY_ROOT").unwrap_or("src"));
    let mut files = Vec::new();
    collect(root, &mut files);
    assert!(!files.is_empty(), "tidy looked at nothing under {}", root.display());
    let errors: Vec<String> = files
        .iter()
        .map(|path| {
            let inside = path.strip_prefix(root).expect("collected under root");
            let area = inside.iter().next().expect("non-empty").to_string_lossy().into_owned();
            let text = fs::read_to_string(path).expect("source is readable");
            Source { path: path.display().to_string(), area, text }
        })
        .flat_map(|file| rule(&file))
        .collect();
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("directory is readable") {
        let path = entry.expect("entry is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tidy.rs") {
            files.push(path);
        }
    }
}
