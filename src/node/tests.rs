//! What is registered, and what people are shown of it.

use std::collections::BTreeSet;

use super::*;
use crate::observability::golden;

/// Everything that a node can register: one with the mesh, in a lab.
async fn registered() -> MetricsRegistry {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut metrics, tasks, mut config) = (MetricsRegistry::default(), Tasks::new(), Config::default());
    config.node.data_dir = Some(directory.path().display().to_string());
    (config.mesh.ha_mesh, config.mesh.mesh_port) = (true, 0);
    "127.0.0.1".clone_into(&mut config.mesh.mesh_host);
    config.node.chaos = true;
    let chaos = wiring::chaos(&config, &tasks, &mut metrics);
    let mesh = wiring::mesh(&config, &tasks, &mut metrics, &chaos).await.expect("loopback is free");
    build(&config, &tasks, &mut metrics, mesh, chaos).expect("the defaults are sound");
    metrics
}

/// Names of metrics in a text, buckets by their histogram's.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let metrics = words.filter(|it| it.starts_with("smg_") || it.starts_with("process_"));
    metrics.map(|it| it.strip_suffix("_bucket").unwrap_or(it)).collect()
}

#[tokio::test]
async fn the_reference_page_of_metrics_is_up_to_date() {
    golden("docs/reference/metrics.md", &registered().await.render_reference());
}

#[tokio::test]
async fn every_metric_of_the_dashboard_is_registered_and_every_one_registered_is_shown() {
    let metrics = registered().await;
    let registered: BTreeSet<_> = metrics.descriptors().iter().map(|it| it.name.as_str()).collect();
    assert_eq!(named(include_str!("../../docs/dashboards/smg.json")), registered);
}

#[tokio::test]
async fn every_metric_of_the_alerts_and_of_the_guides_is_registered() {
    let metrics = registered().await;
    let registered: BTreeSet<_> = metrics.descriptors().iter().map(|it| it.name.as_str()).collect();
    for text in [
        include_str!("../../docs/examples/alerts.yml"),
        include_str!("../../docs/operating/failure-modes.md"),
        include_str!("../../docs/operating/metrics.md"),
    ] {
        let unknown: Vec<_> = named(text).difference(&registered).copied().collect();
        assert!(unknown.is_empty() && named(text).len() > 10, "{unknown:?}");
    }
}

/// `name{key="a|b"}` in a text: name, key and each value.
fn selected(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("smg_") {
        let Some((name, rest)) = text[at..].split_once('{') else { continue };
        let is_name = name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
        let Some((key, rest)) = rest.split_once('=').filter(|_| is_name) else { continue };
        let values = rest.trim_start_matches('~').strip_prefix('"').and_then(|it| it.split('"').next());
        for value in values.into_iter().flat_map(|it| it.split('|')) {
            found.push((name.to_owned(), key.to_owned(), value.to_owned()));
        }
    }
    found
}

#[tokio::test]
async fn every_label_value_of_the_alerts_and_of_the_guides_exists_where_it_can_be_known() {
    let shown = registered().await.render();
    let mut checked = 0;
    for text in [
        include_str!("../../docs/examples/alerts.yml"),
        include_str!("../../docs/operating/failure-modes.md"),
        include_str!("../../docs/operating/metrics.md"),
    ] {
        for (name, key, value) in selected(text) {
            let name = name.trim_end_matches("_bucket");
            let has = |it: &str| shown.lines().any(|line| line.starts_with(name) && line.contains(it));
            // Series of labels that are not known beforehand come with the first request.
            if has(&format!("{key}=\"")) {
                assert!(has(&format!("{key}=\"{value}\"")), "{name}: no {key} is {value}");
                checked += 1;
            }
        }
    }
    assert!(checked > 10, "{checked}");
}

/// Help is read in the middle of the night: it is more than the name said again.
#[tokio::test]
async fn every_metric_of_ours_says_its_unit_or_what_it_counts() {
    for it in registered().await.descriptors().iter().filter(|it| it.name.starts_with("smg_")) {
        let is_time = it.name.ends_with("_seconds");
        let is_size = it.name.contains("_bytes");
        assert!(it.help.len() > 24, "{}: {}", it.name, it.help);
        assert!(!is_time || it.help.starts_with("Seconds"), "{}: {}", it.name, it.help);
        assert!(!is_size || it.help.starts_with("Bytes"), "{}: {}", it.name, it.help);
    }
}

/// Stops a node that has a request, and says whether it was answered.
async fn answers_before_it_stops() -> bool {
    const REQUEST: Task = Task { name: "request", stage: Stage::Serve, on_end: OnEnd::Fine };
    let mut config = Config::default();
    (config.server.port, config.server.threads, config.node.prometheus_port) = (0, 1, 0);
    "127.0.0.1".clone_into(&mut config.server.host);
    let node = Node::start(config).await.expect("the defaults are sound");
    let (tell, mut told) = tokio::sync::oneshot::channel();
    node.tasks.spawn(REQUEST, |_| async move {
        Clock.sleep(Duration::from_millis(50)).await;
        let _ = tell.send(()); // whoever asks is there until the end
    });
    node.shutdown().await;
    told.try_recv().is_ok()
}

#[tokio::test]
async fn a_node_that_stops_answers_what_it_has_unless_a_bug_is_planted() {
    assert!(answers_before_it_stops().await);
    faults::plant(Some(Fault::NobodyIsWaitedFor));
    assert!(!answers_before_it_stops().await);
    faults::plant(None);
}

#[test]
fn a_worker_url_that_is_refused_is_told_without_its_credentials() {
    for (url, told) in [
        ("http://u:canary@h:8000", "--worker-urls http://***@h:8000: "),
        ("u:canary space@h", "--worker-urls ***@h: "),
        ("http://gpu1:80000", "--worker-urls http://gpu1:80000: `url`: the port must be a number from 1 to 65535"),
    ] {
        let mut config = Config::default();
        config.workers.urls = vec![url.to_owned()];
        let error = named_workers(&config).expect_err("refused").to_string();
        assert!(error.starts_with(told) && !error.contains("canary"), "{error}");
    }
}
