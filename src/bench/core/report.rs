//! A tally as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::tally::Tally;
use super::tally::Times;

const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// What a run came to.
pub struct Report {
    /// Its counts.
    pub tally: Tally,
    /// How long it took, from the first request to the last answer.
    pub elapsed: Duration,
}

impl Report {
    fn times(&self) -> [(&'static str, &'static str, &Times); 4] {
        [
            ("latency_us", "end to end", &self.tally.latency),
            ("first_token_us", "first token", &self.tally.first_token),
            ("between_tokens_us", "between tokens", &self.tally.between_tokens),
            ("late_us", "sent late", &self.tally.late),
        ]
    }

    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Requests answered as they should be, in a second.
    #[must_use]
    pub fn requests_per_second(&self) -> f64 {
        self.rate(self.tally.ok)
    }

    /// For programs. Times are in microseconds; those that were never measured are left out.
    #[must_use]
    pub fn json(&self) -> Value {
        let errors: serde_json::Map<_, _> =
            self.tally.failed.iter().map(|(failure, count)| (failure.to_string(), json!(count))).collect();
        let mut value = json!({
            "requests": self.tally.requests(),
            "ok": self.tally.ok,
            "errors": errors,
            "seconds": self.elapsed.as_secs_f64(),
            "requests_per_second": self.requests_per_second(),
            "events": self.tally.events,
            "events_per_second": self.rate(self.tally.events),
            "body_bytes": self.tally.bytes,
        });
        for (name, _, times) in self.times().into_iter().filter(|(_, _, times)| times.count() > 0) {
            let mut quantiles: serde_json::Map<_, _> =
                QUANTILES.iter().map(|(name, share)| ((*name).to_owned(), json!(times.quantile(*share)))).collect();
            quantiles.insert("mean".to_owned(), json!(times.mean()));
            value[name] = Value::Object(quantiles);
        }
        value
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let tally = &self.tally;
        let mut text = format!(
            "{} of {} requests answered in {:.2} s: {:.1} a second\n",
            tally.ok,
            tally.requests(),
            self.elapsed.as_secs_f64(),
            self.requests_per_second()
        );
        // A String takes everything, so the results of `writeln!` say nothing.
        if tally.events > 0 {
            let _ = writeln!(text, "{} stream events: {:.1} a second", tally.events, self.rate(tally.events));
        }
        let titles: String = QUANTILES.iter().map(|(name, _)| format!("{name:>10}")).collect();
        let _ = writeln!(text, "\n{:<16}{titles}{:>10}", "ms", "mean");
        for (_, name, times) in self.times().into_iter().filter(|(_, _, times)| times.count() > 0) {
            let cells: String =
                QUANTILES.iter().map(|(_, share)| format!("{:>10.3}", times.quantile(*share) / 1000.0)).collect();
            let _ = writeln!(text, "{name:<16}{cells}{:>10.3}", times.mean() / 1000.0);
        }
        for (failure, count) in &tally.failed {
            let _ = writeln!(text, "\n{count} failed: {failure}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::core::tally::Answered;
    use crate::bench::core::tally::Failure;

    fn report() -> Report {
        let mut tally = Tally::default();
        for n in 1..=100 {
            tally.answered(&Answered { latency: Duration::from_millis(n), first_token: None, events: 0, bytes: 1 });
        }
        tally.failed(Failure::Status(503));
        tally.failed(Failure::Timeout);
        Report { tally, elapsed: Duration::from_secs(2) }
    }

    #[test]
    fn programs_get_counts_rates_and_percentiles() {
        let value = report().json();
        assert_eq!((&value["requests"], &value["ok"]), (&json!(102), &json!(100)));
        assert_eq!(value["errors"], json!({ "status 503": 1, "timed out": 1 }));
        assert_eq!(value["requests_per_second"], json!(50.0));
        let p50 = value["latency_us"]["p50"].as_f64().expect("a number");
        assert!((p50 / 50_000.0 - 1.0).abs() < 0.002, "{p50}");
        assert!(value.get("first_token_us").is_none());
    }

    #[test]
    fn people_get_a_table() {
        let table = report().table();
        assert!(table.starts_with("100 of 102 requests answered in 2.00 s: 50.0 a second\n"), "{table}");
        assert!(table.contains("\n1 failed: status 503\n") && table.contains("\n1 failed: timed out\n"), "{table}");
        assert!(!table.contains("first token"), "{table}");
    }
}
