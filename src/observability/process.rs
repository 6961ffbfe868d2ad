//! The process as the kernel sees it, read from `/proc` when somebody scrapes, under the names that dashboards know.
//!
//! Elsewhere than on Linux there is no `/proc`: the metrics are then absent, not zero.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;

use super::metrics::Registry;

/// Clock ticks a second in `/proc`: 100 on every Linux, whatever the kernel's own rate (USER_HZ is part of the ABI).
const TICKS_PER_SECOND: f64 = 100.0;

const CPU: (&str, &str, MetricType) = ("process_cpu_seconds", "CPU time, user and system", MetricType::Counter);
const RSS: (&str, &str, MetricType) = ("process_resident_memory_bytes", "Memory in RAM", MetricType::Gauge);
const FDS: (&str, &str, MetricType) = ("process_open_fds", "Open file descriptors", MetricType::Gauge);
const FDS_MAX: (&str, &str, MetricType) = ("process_max_fds", "Most file descriptors allowed", MetricType::Gauge);
const THREADS: (&str, &str, MetricType) = ("process_threads", "Threads", MetricType::Gauge);
const START: (&str, &str, MetricType) =
    ("process_start_time_seconds", "Start of the process since the Unix epoch", MetricType::Gauge);

/// Registers the process metrics and `smg_build_info`.
pub fn register(registry: &mut Registry) {
    let build = [("version", env!("CARGO_PKG_VERSION"))];
    registry.register(
        "smg_build",
        "Version of this build, as a label; several versions at a time: a rollout is under way",
        Info::new(build),
    );
    registry.register_collector(&[CPU, RSS, FDS, FDS_MAX, THREADS, START], Process);
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        if let Some(cpu) = stat.as_deref().and_then(cpu_seconds) {
            let (name, help, kind) = CPU;
            ConstCounter::new(cpu).encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let gauges = [
            (RSS, field(&status, "VmRSS:").map(|kib| kib * 1024.0)),
            (FDS, fs::read_dir("/proc/self/fd").ok().map(|it| it.count() as f64)),
            (FDS_MAX, field(&limits, "Max open files")),
            (THREADS, field(&status, "Threads:")),
            (START, start_seconds(stat.as_deref())),
        ];
        for ((name, help, kind), value) in gauges {
            if let Some(value) = value {
                ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, kind)?)?;
            }
        }
        Ok(())
    }
}

/// The first number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|it| it.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Fields of `/proc/self/stat` after the name, which may itself hold spaces and parentheses. The first is field 3.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_seconds(stat: Option<&str>) -> Option<f64> {
    let boot = field(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
    Some(boot + stat_field(stat?, 22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 3 0 9000 1 2";
        assert_eq!((cpu_seconds(stat), stat_field(stat, 22)), (Some(2.0), Some(9000.0)));
        assert_eq!(field("Name:\tx\nVmRSS:\t  64 kB\n", "VmRSS:"), Some(64.0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_measured() {
        let mut registry = Registry::default();
        register(&mut registry);
        let text = registry.render();
        for descriptor in registry.descriptors() {
            let line = text.lines().find(|it| it.starts_with(&descriptor.name));
            let value: f64 = line.and_then(|it| it.rsplit(' ').next()).and_then(|it| it.parse().ok()).unwrap_or(-1.0);
            assert!(value >= 0.0, "{}: {line:?}", descriptor.name);
        }
    }
}
