//! Request bodies: held once, under a global byte budget, each piece with a deadline.
//!
//! A body that came in one piece is that piece; several are joined once. Over the budget a request waits, then is told
//! to come back (P8).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http_body::Body;
use http_body_util::BodyExt as _;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::observability::metrics::Registry;

/// Why a body was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// Longer than the limit. The client's fault.
    #[error("the request body is longer than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The client paused for too long.
    #[error("the request body did not arrive: no byte for {0:?}")]
    Stalled(Duration),
    /// The client sends too slowly.
    #[error("the request body was not complete within: {0:?}")]
    Late(Duration),
    /// The client went away or broke HTTP.
    #[error("the request body ended early or broke HTTP")]
    Broken,
    /// All bodies held at this moment fill the budget. Nobody's fault; a retry is safe.
    #[error("the gateway holds as many request bytes as it may")]
    OverBudget,
}

/// Bounds on bodies.
#[derive(Clone)]
pub struct Intake {
    budget: Arc<Semaphore>,
    budget_units: u32,
    body_len_max: usize,
    patience: Patience,
}

/// How long a body is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two pieces.
    pub idle: Duration,
    /// From the first to the last.
    pub whole: Duration,
    /// For the budget.
    pub budget: Duration,
}

/// A body and its share of the budget.
#[derive(Debug)]
pub struct Held {
    /// The body.
    pub bytes: Bytes,
    share: Vec<OwnedSemaphorePermit>,
}

impl Held {
    /// Gives both back.
    pub fn release(&mut self) {
        self.bytes = Bytes::new();
        self.share.clear();
    }
}

/// The budget is counted in KiB, so that it fits the semaphore.
const UNIT: usize = 1024;

/// What a body of unknown length asks of the budget at a time.
const STEP: usize = 64 << 10;

impl Intake {
    /// `body_len_max` per body, `budget` for all.
    #[must_use]
    pub fn new(body_len_max: usize, budget: usize, patience: Patience) -> Self {
        let budget_units = u32::try_from(budget.max(body_len_max).div_ceil(UNIT)).unwrap_or(u32::MAX >> 4);
        let semaphore = Arc::new(Semaphore::new(budget_units as usize));
        Self { budget: semaphore, budget_units, body_len_max, patience }
    }

    /// Bytes held now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        (self.budget_units as usize - self.budget.available_permits()) * UNIT
    }

    /// Shows how much of the budget is in use.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(&[BUDGET_USED, BUDGET], Used(self.clone()));
    }

    /// Reads a whole body.
    pub async fn read<B>(&self, mut body: B) -> Result<Held, IntakeError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let limit = self.body_len_max;
        let told = body.size_hint().upper().map(|it| usize::try_from(it).unwrap_or(usize::MAX));
        if told.is_some_and(|it| it > limit) {
            return Err(IntakeError::TooLarge { limit });
        }
        let mut share = Vec::with_capacity(1);
        let mut paid = self.pay(told.unwrap_or(STEP).min(limit), &mut share).await?;
        let end = Clock.now() + self.patience.whole;
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(piece) = self.next_piece(&mut body, end).await? {
            let len = first.len() + joined.len() + piece.len();
            if len > limit {
                return Err(IntakeError::TooLarge { limit });
            }
            if len > paid {
                // Never more than one body may need, or a long one would wait for what it holds itself.
                let most = limit.next_multiple_of(UNIT) - paid;
                paid += self.pay(STEP.max(len - paid).min(most), &mut share).await?;
            }
            if first.is_empty() && joined.is_empty() {
                first = piece;
            } else {
                if joined.is_empty() {
                    joined.reserve(told.unwrap_or(len * 2).max(len));
                    joined.extend_from_slice(&std::mem::take(&mut first));
                }
                joined.extend_from_slice(&piece);
            }
        }
        let bytes = if joined.is_empty() { first } else { joined.freeze() };
        Ok(Held { bytes, share })
    }

    /// Holds a body that was made here, under the same budget.
    pub async fn hold(&self, bytes: Bytes) -> Result<Held, IntakeError> {
        if bytes.len() > self.body_len_max {
            return Err(IntakeError::TooLarge { limit: self.body_len_max });
        }
        let mut share = Vec::with_capacity(1);
        self.pay(bytes.len(), &mut share).await?;
        Ok(Held { bytes, share })
    }

    /// Longest body that is taken.
    #[must_use]
    pub fn body_len_max(&self) -> usize {
        self.body_len_max
    }

    async fn next_piece<B>(&self, body: &mut B, end: Instant) -> Result<Option<Bytes>, IntakeError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            if body.is_end_stream() {
                return Ok(None);
            }
            let Patience { idle, whole, .. } = self.patience;
            let left = end - Clock.now();
            let late = if left < idle { IntakeError::Late(whole) } else { IntakeError::Stalled(idle) };
            let waited = tokio::time::timeout(idle.min(left), body.frame()).await;
            match waited.map_err(|_elapsed| late)? {
                None => return Ok(None),
                Some(Err(_)) => return Err(IntakeError::Broken), // hyper's cause is always the connection
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) if piece.is_empty() => {}
                    Ok(piece) => return Ok(Some(piece)),
                    Err(_trailers) => {}
                },
            }
        }
    }

    async fn pay(&self, bytes: usize, share: &mut Vec<OwnedSemaphorePermit>) -> Result<usize, IntakeError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.budget_units);
        let waited =
            tokio::time::timeout(self.patience.budget, Arc::clone(&self.budget).acquire_many_owned(units)).await;
        let permit = waited.map_err(|_elapsed| IntakeError::OverBudget)?;
        share.push(permit.expect("the semaphore is never closed"));
        Ok(units as usize * UNIT)
    }
}

const BUDGET_USED: (&str, &str, MetricType) = (
    "smg_http_body_budget_used_bytes",
    "Bytes of request bodies held now. Near the budget: requests wait for it",
    MetricType::Gauge,
);
const BUDGET: (&str, &str, MetricType) =
    ("smg_http_body_budget_bytes", "Bytes of request bodies that may be held (`--body-budget`)", MetricType::Gauge);

struct Used(Intake);

impl std::fmt::Debug for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Used")
    }
}

impl Collector for Used {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let budget = self.0.budget_units as usize * UNIT;
        for ((name, help, kind), bytes) in [(BUDGET_USED, self.0.held_bytes()), (BUDGET, budget)] {
            let gauge = ConstGauge::<i64>::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::Full;
    use http_body_util::StreamBody;

    use super::*;

    fn intake() -> Intake {
        let [idle, whole, budget] = [5, 20, 1].map(Duration::from_secs);
        Intake::new(8 * UNIT, 16 * UNIT, Patience { idle, whole, budget })
    }

    fn pieces(pieces: Vec<&'static [u8]>) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin {
        StreamBody::new(futures_util::stream::iter(
            pieces.into_iter().map(|it| Ok(Frame::data(Bytes::from_static(it)))),
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_in_one_piece_is_not_copied_and_many_are_joined() {
        let whole = Bytes::from_static(b"whole");
        let held = intake().read(Full::new(whole.clone())).await.expect("taken");
        assert_eq!(held.bytes.as_ptr(), whole.as_ptr());
        assert_eq!(intake().read(pieces(vec![b"a", b"", b"bc"])).await.expect("taken").bytes, "abc");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_over_the_limit_is_refused_told_or_not() {
        let long: &'static [u8] = &[b'x'; 8 * UNIT + 1];
        let expected = Err(IntakeError::TooLarge { limit: 8 * UNIT });
        assert_eq!(intake().read(Full::new(Bytes::from_static(long))).await.map(drop), expected);
        assert_eq!(intake().read(pieces(vec![&long[..4000], &long[..4000], &long[..400]])).await.map(drop), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_body_ends_and_gives_its_budget_back() {
        let intake = intake();
        let stalled =
            StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>());
        assert_eq!(intake.read(stalled).await.map(drop), Err(IntakeError::Stalled(Duration::from_secs(5))));
        assert_eq!(intake.held_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_for_ever_is_ended_too() {
        let intake = intake();
        let drops = futures_util::stream::unfold((), |()| async {
            Clock.sleep(Duration::from_secs(4)).await;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let dripping = StreamBody::new(Box::pin(drops));
        assert_eq!(intake.read(dripping).await.map(drop), Err(IntakeError::Late(Duration::from_secs(20))));
        assert_eq!(intake.held_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn over_the_budget_a_request_waits_then_is_refused() {
        let intake = intake();
        let eight = || Full::new(Bytes::from_static(&[b'x'; 8 * UNIT]));
        let (first, _second) = (intake.read(eight()).await.expect("fits"), intake.read(eight()).await.expect("fits"));
        assert_eq!(intake.read(eight()).await.map(drop), Err(IntakeError::OverBudget));
        drop(first);
        intake.read(eight()).await.expect("fits again");
    }
}
