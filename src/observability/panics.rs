//! Panics as log lines and as a count, instead of text between the lines.
//!
//! A panic ends one connection or one task, never the process, so somebody has to be told. *Invariant:* only messages
//! that stand in the code are logged: a formatted one may quote what was being read, a prompt for example.

use std::any::Any;
use std::panic::PanicHookInfo;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::metrics;

static PANICS: AtomicU64 = AtomicU64::new(0);

const NAME: (&str, &str, MetricType) = (
    "smg_panics",
    "Panics since the start; each ended one connection or task. Any: a bug, please report the log line",
    MetricType::Counter,
);

/// From now on panics are counted and logged as errors.
pub fn watch() {
    std::panic::set_hook(Box::new(noted));
}

fn noted(panic: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Relaxed);
    let message = shown(panic.payload());
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or_default().to_owned();
    tracing::error!(place, thread, message, "a panic: this is a bug");
}

/// The message, if it stands in the code as it is.
fn shown(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(not shown: it may quote input)")
}

/// Registers the count.
pub fn register(registry: &mut metrics::Registry) {
    registry.register_collector(&[NAME], Panics);
}

#[derive(Debug)]
struct Panics;

impl Collector for Panics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (name, help, kind) = NAME;
        ConstCounter::new(PANICS.load(Relaxed)).encode(encoder.encode_descriptor(name, help, None, kind)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_made_of_input_is_not_shown() {
        let of = |panic: fn()| shown(&*std::panic::catch_unwind(panic).expect_err("panics"));
        assert_eq!(of(|| panic!("as it stands")), "as it stands");
        assert!(!of(|| drop("a canary prompt \u{fc}"[..17].to_owned())).contains("canary"));
    }
}
