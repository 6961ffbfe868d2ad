//! What was admitted, what waited, and what nodes said to each other for it.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::core::Answer;
use super::core::Ignored;
use super::core::Refused;
use super::group::Proposed;
use super::messages::Message;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;

label! {
    /// What a request for units came to.
    enum Take {
        Purse = "purse",
        Asked = "asked",
        Open = "open",
        Exhausted = "exhausted",
        TooLarge = "too_large",
        NoShare = "no_share",
        Busy = "busy",
    }
}

label! {
    /// What requests have of limits on streams.
    enum Stream {
        Open = "open",
        Waiting = "waiting",
    }
}

label! {
    /// What nodes say to each other.
    enum Said {
        Pull = "pull",
        Given = "given",
        Told = "told",
        News = "news",
    }
}

label! {
    /// What became of a renewal.
    pub(super) enum Renewing {
        /// The leader answered.
        Answered = "answered",
        /// It did not, or not in time.
        Unanswered = "unanswered",
        /// Nobody is known to lead, or not where.
        NoLeader = "no_leader",
    }
}

/// The buckets of a wait: a round trip in a rack is 0.2 ms, the longest wait 20 ms, for a stream 2 s.
fn wait_seconds() -> Histogram {
    Histogram::new([2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 0.1, 0.25, 0.5, 1.0, 2.0])
}

/// Meters of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    takes: Each<Take, Counter>,
    units: Counter,
    wait_seconds: Histogram,
    messages: Each<Said, Counter>,
    ignored: Each<Ignored, Counter>,
    renewals: Each<Renewing, Counter>,
    known: Gauge,
    streams: Each<Stream, Gauge>,
    proposals: Each<Proposed, Counter>,
    unusable: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::register(&mut Registry::default())
    }
}

impl Metrics {
    /// Registers them.
    #[rustfmt::skip]
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            takes: registry.counters("smg_limits_takes", "Times that units of a limit were wanted, by outcome. `purse`: they were at hand; `asked`: admitted after the slow way, which asks other nodes; `open`: admitted and not counted, because no share is held; `exhausted`: the limit is used up; `too_large`: one request wants more than all of it; `no_share`: refused, because no share is held; `busy`: too many wait", "result"),
            units: registry.counter("smg_limits_taken_units", "Units of limits that were taken when requests were admitted, requests, tokens and streams alike; before they are settled"),
            wait_seconds: registry.histogram("smg_limits_wait_seconds", "Seconds that a request waited for units that were not at hand, or for a stream to end", wait_seconds),
            messages: registry.counters("smg_limits_messages", "Messages to other nodes, by kind. `pull`: this node is short; `given`: what it gives; `told`: what it has left; `news`: as leader of the control group, that something was divided anew", "kind"),
            ignored: registry.counters("smg_limits_ignored", "What came and changed nothing, by reason. `late`: twice or too late; `stranger`: for another life of this node, or of nobody who is here; `too_many`: more limits or nodes than are kept; `absurd`: more units than there are; `unreadable`: no message", "reason"),
            renewals: registry.counters("smg_limits_renewals", "Renewals of this node's shares, by outcome. If none is answered for `--limit-share-hold`, the shares are used no more: look at the control group", "result"),
            known: registry.gauge("smg_limits_known", "Limits whose division this node knows"),
            streams: registry.gauges("smg_limits_streams", "Requests that are open under limits on streams, counted once a limit, and those that wait for another to end", "state"),
            proposals: registry.counters("smg_limits_proposals", "Divisions of limits that this node proposed as leader of the control group, by outcome. `refused`: somebody else was first; `unanswered`: no majority in time", "result"),
            unusable: registry.gauge("smg_limits_unusable", "Definitions of limits that cannot be divided, at the node that leads the control group: too large, or of another kind or window than the number was used for"),
        }
    }

    /// Units were at hand.
    pub(super) fn took(&self, units: u64) {
        self.takes.of(Take::Purse).inc();
        self.units.inc_by(units);
    }

    /// A request was answered the slow way.
    pub(super) fn answered<T>(&self, answer: &Answer<T>, units: impl Fn(&T) -> u64, waited: Duration) {
        let take = match answer {
            Answer::Admitted(taken) => {
                self.units.inc_by(units(taken));
                Take::Asked
            }
            Answer::Open => Take::Open,
            Answer::Refused(Refused::Exhausted { .. }) => Take::Exhausted,
            Answer::Refused(Refused::TooLarge(_)) => Take::TooLarge,
            Answer::Refused(Refused::NoShare(_)) => Take::NoShare,
            Answer::Refused(Refused::Busy(_)) => Take::Busy,
        };
        self.takes.of(take).inc();
        self.wait_seconds.observe(waited.as_secs_f64());
    }

    /// Another node is told something.
    pub(super) fn said(&self, message: &Message) {
        let said = match message {
            Message::Pull(_) => Said::Pull,
            Message::Given(_) => Said::Given,
            Message::Told(_) => Said::Told,
            Message::News(_) => Said::News,
        };
        self.messages.of(said).inc();
    }

    /// Something changed nothing.
    pub(super) fn ignored(&self, why: Ignored) {
        self.ignored.of(why).inc();
    }

    /// A renewal ended.
    pub(super) fn renewed(&self, how: Renewing) {
        self.renewals.of(how).inc();
    }

    /// So many limits are known.
    pub(super) fn knows(&self, limits: usize) {
        self.known.set(i64::try_from(limits).unwrap_or(i64::MAX));
    }

    /// So many streams hold a permit, and so many requests wait for one.
    pub(super) fn streams(&self, open: u64, waiting: usize) {
        self.streams.of(Stream::Open).set(i64::try_from(open).unwrap_or(i64::MAX));
        self.streams.of(Stream::Waiting).set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// A proposal ended.
    pub(super) fn proposed(&self, how: Proposed) {
        self.proposals.of(how).inc();
    }

    /// So many definitions cannot be minted.
    pub(super) fn unusable(&self, definitions: usize) {
        self.unusable.set(i64::try_from(definitions).unwrap_or(i64::MAX));
    }
}
