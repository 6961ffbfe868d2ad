//! The registry that areas register with, and how it is shown: to Prometheus, and as a reference page.
//!
//! It takes what prometheus-client's own registry takes and also remembers each name, help and type, because that one
//! shows a family only once it has a series: the reference page and the test for series that never move need them all.
//! *Invariants:* one name is registered once; what is rendered is the text exposition format 0.0.4, which every scraper
//! reads (the library writes OpenMetrics, in which counters are declared without `_total`).

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Metric;

use super::labels::Label;

/// `Content-Type` of [`Registry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Buckets for times of the gateway itself, in seconds: 10 us to 10 s, about two a decade.
pub const OWN_SECONDS: [f64; 13] = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Buckets for times of model work, in seconds: 5 ms to 10 min. Finer where people set objectives.
pub const MODEL_SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Buckets for the pause between two tokens, in seconds: 1 ms to 10 s, finest where objectives lie (10 to 100 ms).
pub const TOKEN_SECONDS: [f64; 15] =
    [0.001, 0.003, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 3.0, 10.0];

/// A histogram constructor for `Family::new_with_constructor`, with [`OWN_SECONDS`].
#[must_use]
pub fn own_seconds() -> Histogram {
    Histogram::new(OWN_SECONDS)
}

/// The same with [`MODEL_SECONDS`].
#[must_use]
pub fn model_seconds() -> Histogram {
    Histogram::new(MODEL_SECONDS)
}

/// The same with [`TOKEN_SECONDS`].
#[must_use]
pub fn token_seconds() -> Histogram {
    Histogram::new(TOKEN_SECONDS)
}

/// One series for each value of a label, made beforehand: an observation costs an index and no look-up, and every value
/// is shown from the start, so that a rate over the first event is right.
#[derive(Debug)]
pub struct Each<L, M> {
    series: Arc<[M]>,
    label: PhantomData<fn(L)>,
}

impl<L, M> Clone for Each<L, M> {
    fn clone(&self) -> Self {
        Self { series: Arc::clone(&self.series), label: PhantomData }
    }
}

impl<L: Label, M> Each<L, M> {
    /// The series of one value.
    #[must_use]
    pub fn of(&self, value: L) -> &M {
        &self.series[value.index()]
    }
}

/// One more in a gauge, until dropped.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Counts one.
    #[must_use]
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One registered metric, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// As scraped: counters end in `_total`.
    pub name: String,
    /// What it counts.
    pub help: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
}

/// Everything that is measured.
#[derive(Debug, Default)]
pub struct Registry {
    inner: prometheus_client::registry::Registry,
    descriptors: Vec<Descriptor>,
}

impl Registry {
    /// Registers a metric; `_total` is added to a counter's name and a full stop to the help.
    pub fn register(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.describe(name, help, metric.metric_type());
        self.inner.register(name, help, metric);
    }

    /// A counter.
    pub fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.register(name, help, counter.clone());
        counter
    }

    /// A gauge.
    pub fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.register(name, help, gauge.clone());
        gauge
    }

    /// A histogram, its buckets from `make`.
    pub fn histogram(&mut self, name: &str, help: &str, make: fn() -> Histogram) -> Histogram {
        let histogram = make();
        self.register(name, help, histogram.clone());
        histogram
    }

    /// A counter for each value of the label `key`.
    pub fn counters<L: Label>(&mut self, name: &str, help: &str, key: &'static str) -> Each<L, Counter> {
        self.each(name, help, key, Counter::default)
    }

    /// A gauge for each value of the label `key`.
    pub fn gauges<L: Label>(&mut self, name: &str, help: &str, key: &'static str) -> Each<L, Gauge> {
        self.each(name, help, key, Gauge::default)
    }

    /// A histogram for each value of the label `key`.
    pub fn histograms<L: Label>(
        &mut self,
        name: &str,
        help: &str,
        key: &'static str,
        make: fn() -> Histogram,
    ) -> Each<L, Histogram> {
        self.each(name, help, key, make)
    }

    fn each<L: Label, M: Metric + Clone>(
        &mut self,
        name: &str,
        help: &str,
        key: &'static str,
        make: fn() -> M,
    ) -> Each<L, M>
    where
        Family<[(&'static str, &'static str); 1], M, fn() -> M>: Metric,
    {
        let family = Family::<[(&'static str, &'static str); 1], M, fn() -> M>::new_with_constructor(make);
        let series = L::ALL.iter().map(|it| family.get_or_create_owned(&[(key, it.text())])).collect();
        self.register(name, help, family);
        Each { series, label: PhantomData }
    }

    /// Counters with labels that are not known beforehand; the caller bounds them.
    pub fn family<S>(&mut self, name: &str, help: &str) -> Family<S, Counter>
    where
        S: EncodeLabelSet + std::fmt::Debug + Clone + Eq + std::hash::Hash + Send + Sync + 'static,
    {
        let family = Family::default();
        self.register(name, help, family.clone());
        family
    }

    /// Histograms with labels that are not known beforehand; the caller bounds them.
    pub fn histogram_family<S>(
        &mut self,
        name: &str,
        help: &str,
        make: fn() -> Histogram,
    ) -> Family<S, Histogram, fn() -> Histogram>
    where
        S: EncodeLabelSet + std::fmt::Debug + Clone + Eq + std::hash::Hash + Send + Sync + 'static,
    {
        let family = Family::new_with_constructor(make);
        self.register(name, help, family.clone());
        family
    }

    /// Registers what is measured only when asked for, and what it yields.
    pub fn register_collector(
        &mut self,
        yields: &[(&'static str, &'static str, MetricType)],
        collector: impl Collector,
    ) {
        for (name, help, kind) in yields {
            self.describe(name, help, *kind);
        }
        self.inner.register_collector(Box::new(collector));
    }

    fn describe(&mut self, name: &str, help: &str, kind: MetricType) {
        let (suffix, kind) = match kind {
            MetricType::Counter => ("_total", "counter"),
            MetricType::Gauge => ("", "gauge"),
            MetricType::Histogram => ("", "histogram"),
            MetricType::Info => ("_info", "gauge"),
            MetricType::Unknown => ("", "untyped"),
        };
        let descriptor = Descriptor { name: format!("{name}{suffix}"), help: format!("{help}."), kind };
        assert!(!self.descriptors.iter().any(|it| it.name == descriptor.name), "registered twice: {}", descriptor.name);
        self.descriptors.push(descriptor);
    }

    /// All metrics, also those without a series yet, in the order in which they were registered.
    #[must_use]
    pub fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors
    }

    /// The text exposition format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut open_metrics = String::new();
        text::encode(&mut open_metrics, &self.inner).expect("a String takes everything");
        exposition(&open_metrics)
    }

    /// `docs/reference/metrics.md`.
    #[must_use]
    pub fn render_reference(&self) -> String {
        let mut page = "# Metrics\n\n*Generated; `make bless` rewrites it.*\n\n".to_owned();
        page.push_str(
            "Scraped at `--prometheus-port`, path `/metrics`. Labels are bounded: models beyond the first 256\n",
        );
        page.push_str("are counted under `other`.\n\n| metric | type | counts |\n|---|---|---|\n");
        let mut sorted: Vec<_> = self.descriptors.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        for it in sorted {
            let _ = writeln!(page, "| `{}` | {} | {} |", it.name, it.kind, it.help.replace('|', "\\|"));
        }
        page
    }
}

/// OpenMetrics text as text exposition 0.0.4: counters are declared under the name they are scraped by, types that
/// Prometheus does not know become ones it does, units and the end mark go. Nobody here records exemplars, which 0.0.4
/// does not have.
fn exposition(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(comment) = line.strip_prefix("# ") else {
            let _ = writeln!(out, "{line}");
            continue;
        };
        // TYPE is written with its HELP; UNIT and EOF have no meaning here.
        let Some(("HELP", rest)) = comment.split_once(' ') else { continue };
        let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
        // The type stands on the next line; both get the name that is scraped.
        let kind = lines.peek().and_then(|it| it.rsplit(' ').next()).unwrap_or("unknown");
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            other => ("", other),
        };
        let _ = writeln!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
    }
    out
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::EncodeLabelSet;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::info::Info;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Labels {
        model: String,
    }

    #[test]
    fn what_is_rendered_is_what_prometheus_0_0_4_says() {
        let mut registry = Registry::default();
        let (requests, seconds) = (Family::<Labels, Counter>::default(), Histogram::new([0.5]));
        registry.register("smg_requests", "Requests", requests.clone());
        registry.register("smg_seconds", "Time", seconds.clone());
        registry.register("smg_build", "Build", Info::new([("version", "1")]));
        requests.get_or_create(&Labels { model: "a # {\"}\nb".to_owned() }).inc();
        seconds.observe(0.25);
        let expected = concat!(
            "# HELP smg_requests_total Requests.\n# TYPE smg_requests_total counter\n",
            "smg_requests_total{model=\"a # {\\\"}\\nb\"} 1\n",
            "# HELP smg_seconds Time.\n# TYPE smg_seconds histogram\n",
            "smg_seconds_sum 0.25\nsmg_seconds_count 1\n",
            "smg_seconds_bucket{le=\"0.5\"} 1\nsmg_seconds_bucket{le=\"+Inf\"} 1\n",
            "# HELP smg_build_info Build.\n# TYPE smg_build_info gauge\nsmg_build_info{version=\"1\"} 1\n",
        );
        assert_eq!(registry.render(), expected);
    }

    #[test]
    fn a_metric_without_a_series_is_still_in_the_inventory() {
        let mut registry = Registry::default();
        registry.register("smg_b", "Second", Family::<Labels, Gauge>::default());
        registry.register("smg_a", "First | one", Counter::<u64>::default());
        assert!(!registry.render().contains("smg_b"));
        assert_eq!(registry.descriptors().len(), 2);
        let page = registry.render_reference();
        let rows = page.lines().skip_while(|it| !it.starts_with("|---")).skip(1).collect::<Vec<_>>();
        assert_eq!(rows, ["| `smg_a_total` | counter | First \\| one. |", "| `smg_b` | gauge | Second. |"]);
    }
}
