//! Repository rules that the compiler cannot see, checked by `cargo test`.
//!
//! One package means every module can name every other one, so the layering in `docs/architecture.md` is only as true as
//! this file makes it. Every rule is a function from a tree to complaints, so that it is tried on a small bad tree too:
//! a rule that has never complained proves nothing.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Which areas each area may name. Read it top-down: it is the architecture.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("proto", &[]),
    ("observability", &["base"]),
    ("chaos", &["base", "observability"]),
    ("storage", &["base", "observability", "chaos"]),
    ("transport", &["base", "observability", "chaos"]),
    ("membership", &["base", "observability", "transport"]),
    ("replication", &["base", "observability", "transport", "membership"]),
    ("raft", &["base", "observability", "storage", "transport"]),
    ("limits", &["base", "observability", "transport", "membership"]),
    // It checks the shares that a leader proposes.
    ("control", &["base", "observability", "storage", "transport", "raft", "limits"]),
    ("history", &["base", "observability", "storage", "transport", "raft", "control"]),
    ("dialects", &["base"]),
    ("workers", &["base", "observability", "chaos", "proto", "dialects", "transport", "membership", "replication"]),
    ("ledger", &["base", "observability", "transport", "membership", "replication", "workers"]),
    ("tenancy", &["base", "observability", "replication", "limits"]),
    ("routing", &["base", "observability", "dialects", "workers", "transport", "replication"]),
    ("plugins", &["base", "observability"]),
    (
        "api",
        &[
            "base",
            "observability",
            "chaos",
            "proto",
            "dialects",
            "workers",
            "limits",
            "tenancy",
            "routing",
            "ledger",
            "plugins",
            "storage",
            "control",
            "history",
            "membership",
            "replication",
        ],
    ),
    ("bench", &["base", "observability"]),
];

/// Roots may name everything; nothing below may name them.
const ROOTS: &[&str] = &["cli", "config", "lab", "lib.rs", "main.rs", "node", "sim"];

/// Crates that only the adapter that hides them may name. Replacing one must touch one place.
const FENCES: &[(&str, &[&str])] = &[
    ("anyhow", &["main.rs", "cli"]),
    ("axum", &["api"]),
    ("bincode", &["storage", "transport"]),
    ("clap", &["cli", "config"]),
    ("foca", &["membership"]),
    ("openraft", &["raft"]),
    ("opentelemetry", &["observability"]),
    ("quinn", &["transport"]),
    ("oracledb", &["history"]),
    ("rand", &["base"]),
    ("ratatui", &["cli"]),
    ("redis", &["history"]),
    ("rocksdb", &["storage"]),
    ("rustix", &["storage"]),
    // The client side's certificates are read where a node is put together.
    ("rustls", &["api", "history", "node", "transport", "workers"]),
    ("tokio_postgres", &["history"]),
    ("tower", &["api"]),
];

/// Pure files decide; they never wait, read a clock, or draw entropy themselves.
const PURE: &[&str] = &["/core.rs", "/core/", "/crdt/", "/policies/", "/prefix_map/", "/machine/", "src/dialects/"];
const IMPURE: &[&str] =
    &["tokio::", ".await", "Instant::now", "SystemTime::now", "thread_rng", "rand::", "parking_lot"];

const FILE_LINES_MAX: usize = 600;
/// Files over the limit, with their size. The list may only shrink, and so may each number in it.
const FILE_LINES_EXCUSED: &[(&str, usize)] = &[];

const README_LINES_MAX: usize = 120;
const ARCHITECTURE_LINES_MAX: usize = 400;

type Rule = fn(&Tree) -> Vec<String>;

#[test]
fn layers_point_down() {
    hold(layers);
}

#[test]
fn fenced_crates_stay_behind_their_adapter() {
    hold(fences);
}

#[test]
fn cores_are_pure() {
    hold(purity);
}

#[test]
fn files_have_a_header_and_a_size() {
    hold(shape);
}

#[test]
fn nothing_is_left_to_do_later() {
    hold(unfinished);
}

#[test]
fn tests_neither_sleep_nor_are_ignored() {
    hold(honest_tests);
}

#[test]
fn links_in_the_docs_resolve() {
    hold(links);
}

#[test]
fn the_changelog_keeps_its_shape() {
    hold(changelog);
}

#[test]
fn pages_that_must_stay_short_are() {
    hold(short_pages);
}

fn hold(rule: Rule) {
    let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(!tree.sources.is_empty(), "tidy looked at nothing");
    let errors = rule(&tree);
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

fn layers(tree: &Tree) -> Vec<String> {
    let mut errors = Vec::new();
    for file in tree.shipped() {
        let area = file.area();
        if area == "tidy.rs" || ROOTS.contains(&area) || ROOTS.contains(&area.trim_end_matches(".rs")) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == area.trim_end_matches(".rs")) else {
            errors.push(format!("{}: `{area}` is no area of the architecture", file.path));
            continue;
        };
        for (n, line) in file.code() {
            if line.starts_with("use crate::{") || line.starts_with("use super::{") {
                errors.push(format!("{}:{n}: one `use crate::area::…` a line, so this can read it", file.path));
            }
            for to in file.areas_named(line) {
                if to != area.trim_end_matches(".rs") && !allowed.contains(&to) {
                    errors.push(format!("{}:{n}: `{area}` may not name `{to}`", file.path));
                }
            }
        }
    }
    errors
}

fn fences(tree: &Tree) -> Vec<String> {
    let mut errors = Vec::new();
    // This file has the names in its own bad trees.
    for file in tree.shipped().filter(|file| file.area() != "tidy.rs") {
        for (name, homes) in FENCES {
            if homes.contains(&file.area()) || homes.contains(&file.area().trim_end_matches(".rs")) {
                continue;
            }
            let named = file.code().filter(|(_, line)| names_crate(line, name));
            errors.extend(named.map(|(n, _)| format!("{}:{n}: `{name}` is fenced into {homes:?}", file.path)));
        }
    }
    errors
}

fn purity(tree: &Tree) -> Vec<String> {
    let pure = tree.shipped().filter(|file| PURE.iter().any(|part| file.path.contains(part)));
    pure.filter(|file| !file.is_test())
        .flat_map(|file| {
            let impure = file.code().filter(|(_, line)| IMPURE.iter().any(|it| line.contains(it)));
            impure.map(|(n, _)| format!("{}:{n}: a core must be given time, entropy and input", file.path))
        })
        .collect()
}

fn shape(tree: &Tree) -> Vec<String> {
    let mut errors = Vec::new();
    for file in &tree.sources {
        if !file.text.starts_with("//!") {
            errors.push(format!("{}:1: say what this file is (`//!`)", file.path));
        }
        let lines = file.text.lines().count();
        let excused = FILE_LINES_EXCUSED.iter().find(|(path, _)| *path == file.path).map(|(_, lines)| *lines);
        if excused.unwrap_or(FILE_LINES_MAX) < lines {
            errors.push(format!("{}: {lines} lines, limit {}", file.path, excused.unwrap_or(FILE_LINES_MAX)));
        }
        if excused.is_some_and(|excused| lines < excused) {
            errors.push(format!("{}: {lines} lines now: lower its excuse, or drop it", file.path));
        }
    }
    errors
}

fn unfinished(tree: &Tree) -> Vec<String> {
    // Put together here, so that this file does not complain about itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let mut errors = Vec::new();
    for file in tree.sources.iter().chain(&tree.pages) {
        for (n, line) in (1..).zip(file.text.lines()) {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            if words.into_iter().any(|word| marks.iter().any(|mark| mark == word)) {
                errors.push(format!("{}:{n}: an issue number, or nothing", file.path));
            }
        }
    }
    errors
}

fn honest_tests(tree: &Tree) -> Vec<String> {
    let mut errors = Vec::new();
    for file in tree.sources.iter().filter(|file| file.path != "src/tidy.rs") {
        for (n, line) in file.test_lines() {
            if line.contains("thread::sleep") || line.contains("time::sleep(") {
                errors.push(format!("{}:{n}: wait for a condition with a deadline, or pause the clock", file.path));
            }
        }
        for (n, line) in (1..).zip(file.text.lines().map(str::trim)) {
            if line.starts_with("#[ignore") || line.starts_with("#[should_panic") {
                errors.push(format!("{}:{n}: a test runs, and says what it expects", file.path));
            }
        }
    }
    errors
}

fn links(tree: &Tree) -> Vec<String> {
    let mut errors = Vec::new();
    for page in &tree.pages {
        let folder = tree.root.join(&page.path).parent().map(Path::to_path_buf).unwrap_or_default();
        let mut is_fenced = false;
        for (n, line) in (1..).zip(page.text.lines()) {
            is_fenced ^= line.trim_start().starts_with("```");
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let local = targets.filter(|it| !it.contains("://") && !it.starts_with('#') && !it.starts_with("mailto:"));
            for target in local.filter(|_| !is_fenced) {
                let path = target.split('#').next().unwrap_or_default();
                if !folder.join(path).exists() {
                    errors.push(format!("{}:{n}: there is no `{target}`", page.path));
                }
            }
        }
    }
    errors
}

fn changelog(tree: &Tree) -> Vec<String> {
    const SECTIONS: &[&str] =
        &["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known limits", "Upgrade notes"];
    let Some(page) = tree.pages.iter().find(|page| page.path == "docs/changelog.md") else {
        return vec!["docs/changelog.md: there must be one".to_owned()];
    };
    let mut errors = Vec::new();
    if !page.text.starts_with("# Changelog\n") {
        errors.push(format!("{}:1: begins with `# Changelog`", page.path));
    }
    let mut releases = page.text.lines().filter_map(|line| line.strip_prefix("## "));
    if releases.next() != Some("[Unreleased]") {
        errors.push(format!("{}: its first release is `## [Unreleased]`", page.path));
    }
    for (n, line) in (1..).zip(page.text.lines()) {
        if line.strip_prefix("### ").is_some_and(|section| !SECTIONS.contains(&section)) {
            errors.push(format!("{}:{n}: a section is one of {SECTIONS:?}", page.path));
        }
    }
    errors
}

fn short_pages(tree: &Tree) -> Vec<String> {
    let limits = [("README.md", README_LINES_MAX), ("docs/architecture.md", ARCHITECTURE_LINES_MAX)];
    let mut errors = Vec::new();
    for (path, limit) in limits {
        match tree.pages.iter().find(|page| page.path == path).map(|page| page.text.lines().count()) {
            None => errors.push(format!("{path}: there must be one")),
            Some(lines) if lines > limit => errors.push(format!("{path}: {lines} lines, limit {limit}")),
            Some(_) => {}
        }
    }
    errors
}

/// Everything the rules look at.
struct Tree {
    root: PathBuf,
    /// Rust files of the package and of its test crate.
    sources: Vec<Source>,
    /// The README and what is below `docs/`.
    pages: Vec<Source>,
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut tree = Self { root: root.to_path_buf(), sources: Vec::new(), pages: Vec::new() };
        for folder in ["src", "cluster-tests/src", "cluster-tests/tests", "cluster-tests/benches"] {
            collect(root, &root.join(folder), "rs", &mut tree.sources);
        }
        collect(root, &root.join("docs"), "md", &mut tree.pages);
        if let Ok(text) = fs::read_to_string(root.join("README.md")) {
            tree.pages.push(Source { path: "README.md".to_owned(), text });
        }
        tree
    }

    fn shipped(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|file| file.path.starts_with("src/"))
    }
}

struct Source {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The folder below `src`, or the file there.
    fn area(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || self.path.starts_with("cluster-tests/tests")
    }

    /// Numbered lines of shipped code: no comments, nothing after the inline test module.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(self.text.lines().map(str::trim));
        lines.take_while(|(_, line)| *line != "#[cfg(test)]").filter(|(_, line)| !line.starts_with("//"))
    }

    /// Numbered lines of tests.
    fn test_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.is_test();
        let lines = (1..).zip(self.text.lines().map(str::trim));
        lines
            .skip_while(move |(_, line)| !is_test && *line != "#[cfg(test)]")
            .filter(|(_, line)| !line.starts_with("//"))
    }

    /// Areas that a line names from the root: by `crate::`, or by as many `super::` as lead there.
    fn areas_named<'a>(&self, line: &'a str) -> Vec<&'a str> {
        let inside = self.path.trim_start_matches("src/").trim_end_matches("mod.rs").trim_end_matches(".rs");
        let depth = inside.split('/').filter(|part| !part.is_empty()).count();
        let up = "super::".repeat(depth);
        let from_root = line.match_indices("crate::").map(|(at, it)| &line[at + it.len()..]);
        let from_below =
            line.match_indices(up.as_str()).map(|(at, it)| &line[at + it.len()..]).take(usize::from(depth > 0));
        let heads = from_root.chain(from_below).filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            // `crate::config! {…}` is a macro of `base`, not the area.
            (!rest[end..].starts_with('!')).then_some(&rest[..end])
        });
        heads.filter(|head| LAYERS.iter().any(|(area, _)| area == head) || ROOTS.contains(head)).collect()
    }
}

/// Whether the line has `name::` as a path's first segment.
fn names_crate(line: &str, name: &str) -> bool {
    let needle = format!("{name}::");
    line.match_indices(&needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_') && !line[..at].ends_with("::")
            || line[..at].ends_with(" ::")
    })
}

fn collect(root: &Path, folder: &Path, extension: &str, into: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry is readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(root, &path, extension, into);
        } else if path.extension().is_some_and(|it| it == extension) {
            let text = fs::read_to_string(&path).expect("source is readable");
            let path = path.strip_prefix(root).expect("collected below the root").to_string_lossy().replace('\\', "/");
            into.push(Source { path, text });
        }
    }
}

/// Each rule against a tree that breaks it once, and against one that does not.
mod rules {
    use super::*;

    /// Asserts that `rule` complains of `text` at `path`, and only in words that have `says` in them.
    fn check(rule: Rule, path: &str, text: &str, says: Option<&str>) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join(path);
        fs::create_dir_all(file.parent().expect("a file lies somewhere")).expect("folders can be made");
        fs::write(&file, text).expect("files can be written");
        let errors = rule(&Tree::read(folder.path()));
        match says {
            None => assert!(errors.is_empty(), "{errors:?}"),
            Some(says) => {
                assert!(!errors.is_empty(), "nothing was said about {text:?}");
                assert!(errors.iter().all(|error| error.contains(says)), "{errors:?}");
            }
        }
    }

    #[test]
    fn an_arrow_up_or_sideways_is_seen_however_it_is_written() {
        check(layers, "src/routing/a.rs", "use crate::workers::View;\nuse super::b;", None);
        check(layers, "src/routing/mod.rs", "crate::config! { }", None);
        check(layers, "src/workers/a.rs", "use crate::routing::Route;", Some("`workers` may not name `routing`"));
        check(layers, "src/workers/a/b.rs", "x(super::super::super::routing::R)", Some("may not name `routing`"));
        check(layers, "src/workers/mod.rs", "use super::api;", Some("may not name `api`"));
        check(layers, "src/control/a.rs", "use crate::replication::Table;", Some("may not name `replication`"));
        check(layers, "src/base/a.rs", "use crate::{ids, api};", Some("a line"));
        check(layers, "src/helpers/mod.rs", "", Some("no area"));
    }

    #[test]
    fn a_fenced_crate_is_seen_outside_its_fence_only() {
        check(fences, "src/storage/a.rs", "use rocksdb::DB;", None);
        check(fences, "src/workers/a.rs", "use crate::base::rand::x;", None);
        check(fences, "src/tenancy/a.rs", "use openraft::Raft;", Some("`openraft` is fenced"));
        check(fences, "src/node/a.rs", "fn a() -> anyhow::Result<()>", Some("`anyhow` is fenced"));
        check(fences, "src/api/a.rs", "use clap::Parser;", Some("`clap` is fenced"));
    }

    #[test]
    fn a_core_that_waits_or_locks_is_seen() {
        for path in ["src/control/machine/a.rs", "src/dialects/a.rs", "src/routing/policies/a.rs", "src/x/core.rs"] {
            check(purity, path, "fn a() {}\n#[cfg(test)]\nuse tokio::x;", None);
            check(purity, path, "x.await", Some("a core must be given"));
            check(purity, path, "use parking_lot::Mutex;", Some("a core must be given"));
        }
    }

    #[test]
    fn a_file_without_header_or_over_the_limit_is_seen() {
        check(shape, "src/a.rs", "//! It is.\n", None);
        check(shape, "src/a.rs", "fn a() {}\n", Some("say what this file is"));
        let long = format!("//! It is.\n{}", "\n".repeat(FILE_LINES_MAX));
        check(shape, "cluster-tests/src/a.rs", &long, Some("601 lines"));
    }

    #[test]
    fn what_is_put_off_is_seen() {
        check(unfinished, "docs/a.md", "the todo list of a user", None);
        check(unfinished, "src/a.rs", &format!("// {}: later", ["TO", "DO"].concat()), Some("issue number"));
    }

    #[test]
    fn a_test_that_sleeps_or_is_skipped_is_seen() {
        check(honest_tests, "src/a/b.rs", "time::sleep(x);\n#[cfg(test)]\nmod tests {}", None);
        check(honest_tests, "src/a/b.rs", "#[cfg(test)]\nmod tests { tokio::time::sleep(x) }", Some("deadline"));
        check(honest_tests, "src/a/tests.rs", "std::thread::sleep(x)", Some("deadline"));
        check(honest_tests, "cluster-tests/tests/it/a.rs", "tokio::time::sleep(x)", Some("deadline"));
        check(honest_tests, "src/a/tests.rs", "#[ignore = \"slow\"]", Some("a test runs"));
    }

    #[test]
    fn a_link_to_nowhere_is_seen() {
        check(links, "docs/a/b.md", "[x](b.md#there) [y](https://example.org) [z](#here) [w](../a/b.md)", None);
        check(links, "docs/a.md", "```\n[x](gone.md)\n```", None);
        check(links, "docs/a.md", "see [x](gone.md)", Some("no `gone.md`"));
        check(links, "README.md", "[x](docs/gone.md#a)", Some("no `docs/gone.md#a`"));
    }

    #[test]
    fn a_changelog_of_another_shape_is_seen() {
        let good = "# Changelog\n\n## [Unreleased]\n\n### Added\n";
        check(changelog, "docs/changelog.md", good, None);
        check(changelog, "docs/changelog.md", &good.replace("Added", "News"), Some("a section is one of"));
        check(changelog, "docs/changelog.md", &good.replace("[Unreleased]", "1.0"), Some("first release"));
        check(changelog, "docs/other.md", "", Some("there must be one"));
    }
}
