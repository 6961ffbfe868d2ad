//! `/metrics` read as a scraper reads it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use smg::config::Config;

use crate::Client;

/// One scrape: each series and its value, a histogram's buckets left out.
#[derive(Clone, Debug, Default)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Reads `/metrics`.
    ///
    /// # Panics
    /// When a line is not of the text exposition format.
    pub async fn of(address: SocketAddr) -> Self {
        let text = Client::connect(address).await.get("/metrics").await.text();
        let lines = text.lines().filter(|it| !it.starts_with('#') && !it.contains("_bucket{"));
        let read = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("not a number: {line}")))
        };
        Self(lines.map(read).collect())
    }

    /// The value of one series, written as it is shown; 0 when it is not there.
    #[must_use]
    pub fn value(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// The sum over all series of one name.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        self.0.iter().filter(|it| self::name(it.0) == name).map(|it| it.1).sum()
    }

    /// How many series there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was scraped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of metrics with a series that is not at zero; a histogram by its own name.
    #[must_use]
    pub fn moved(&self) -> BTreeSet<String> {
        let moved = self.0.iter().filter(|it| *it.1 != 0.0).map(|it| name(it.0));
        moved.map(|it| it.strip_suffix("_count").or(it.strip_suffix("_sum")).unwrap_or(it).to_owned()).collect()
    }

    /// Every label with its value, for checks on how they are spelt.
    #[must_use]
    pub fn labels(&self) -> BTreeSet<(String, String)> {
        let sets = self.0.keys().filter_map(|it| it.split_once('{')?.1.strip_suffix('}'));
        let pairs = sets.flat_map(|it| it.split("\",")).filter_map(|it| it.split_once("=\""));
        pairs.map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned())).collect()
    }
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

/// Gives a node a free port for its metrics.
///
/// # Panics
/// When no port is free.
#[must_use]
pub fn measured(mut config: Config) -> Config {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port");
    "127.0.0.1".clone_into(&mut config.node.prometheus_host);
    config.node.prometheus_port = free.port();
    config
}
