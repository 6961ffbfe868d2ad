//! Request bodies: the budget against a model, and every way in which a body can come.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::intake::IntakeError;

const KIB: usize = 1024;
const IDLE: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_secs(2);
const PATIENCE: Patience = Patience { idle: IDLE, whole: Duration::from_secs(3600), budget: WAIT };

/// A body of unknown length: each piece after its pause.
fn body(pieces: Vec<(Duration, usize)>) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Unpin {
    StreamBody::new(Box::pin(futures_util::stream::unfold(pieces.into_iter(), |mut left| async move {
        let (pause, len) = left.next()?;
        Clock.sleep(pause).await;
        Some((Ok(Frame::data(Bytes::from(vec![b'x'; len]))), left))
    })))
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_length_that_fits_the_limit_fits_an_empty_budget() {
    // The budget is as small as the configuration allows: one body of the longest.
    for limit in [KIB, 3 * KIB, 64 * KIB, 100 * KIB, 130 * KIB + 7] {
        let intake = Intake::new(limit, limit, PATIENCE);
        for len in [0, 1, limit / 2, limit - 1, limit] {
            for step in [len.max(1), 7 * KIB, 65 * KIB] {
                let pieces = (0..len.div_ceil(step)).map(|at| (Duration::ZERO, step.min(len - at * step))).collect();
                let held = intake.read(body(pieces)).await.map(|it| it.bytes.len());
                assert_eq!(held, Ok(len), "limit {limit}, pieces of {step}");
                assert_eq!(intake.held_bytes(), 0, "given back");
            }
        }
        let long = intake.read(body(vec![(Duration::ZERO, limit), (Duration::ZERO, 1)])).await.map(drop);
        assert_eq!(long, Err(IntakeError::TooLarge { limit }));
    }
}

#[tokio::test(start_paused = true)]
async fn every_pause_but_the_longest_is_waited_for() {
    let intake = Intake::new(64 * KIB, 64 * KIB, PATIENCE);
    let just = vec![(IDLE - Duration::from_millis(1), 1); 20];
    assert_eq!(intake.read(body(just)).await.map(|it| it.bytes.len()), Ok(20), "the whole body may take longer");
    let over = vec![(Duration::ZERO, 1), (IDLE + Duration::from_millis(1), 1)];
    assert_eq!(intake.read(body(over)).await.map(drop), Err(IntakeError::Stalled(IDLE)));
    assert_eq!(intake.held_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_is_the_clients_and_gives_its_share_back() {
    let intake = Intake::new(64 * KIB, 64 * KIB, PATIENCE);
    let broken = StreamBody::new(futures_util::stream::iter([
        Ok(Frame::data(Bytes::from_static(b"{"))),
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
    ]));
    assert_eq!(intake.read(broken).await.map(drop), Err(IntakeError::Broken));
    assert_eq!(intake.held_bytes(), 0);
}

#[derive(Clone, Debug)]
struct Sender {
    at: u64,
    pieces: Vec<(u64, usize)>,
    holds: u64,
    leaves_after: u64,
}

fn senders() -> impl Strategy<Value = Vec<Sender>> {
    let pieces = prop::collection::vec((0_u64..1500, 0_usize..40 * KIB), 0..5);
    let sender = (0_u64..3000, pieces, 0_u64..4000, 0_u64..9000).prop_map(|(at, pieces, holds, leaves_after)| Sender {
        at,
        pieces,
        holds,
        leaves_after,
    });
    prop::collection::vec(sender, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whoever comes, stalls or leaves: never more than the budget is held, and in the end nothing is.
    #[test]
    fn the_budget_is_never_exceeded_and_never_leaks(senders in senders()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let (limit, budget) = (100 * KIB, 160 * KIB);
            let intake = Intake::new(limit, budget, PATIENCE);
            let over = CancellationToken::new();
            let runs = senders.iter().map(|sender| {
                let intake = intake.clone();
                async move {
                    Clock.sleep(Duration::from_millis(sender.at)).await;
                    let pieces = sender.pieces.iter().map(|(pause, len)| (Duration::from_millis(*pause), *len)).collect();
                    let len: usize = sender.pieces.iter().map(|it| it.1).sum();
                    let read = tokio::time::timeout(Duration::from_millis(sender.leaves_after), intake.read(body(pieces))).await;
                    match read {
                        Err(_left) => {}
                        Ok(Ok(held)) => {
                            assert_eq!(held.bytes.len(), len);
                            assert!(intake.held_bytes() >= len, "what is held is counted");
                            Clock.sleep(Duration::from_millis(sender.holds)).await;
                        }
                        Ok(Err(error)) => {
                            let expected = if len > limit { IntakeError::TooLarge { limit } } else { IntakeError::OverBudget };
                            assert!(error == expected || error == IntakeError::OverBudget, "{error}");
                        }
                    }
                }
            });
            let watch = async {
                while !over.is_cancelled() {
                    assert!(intake.held_bytes() <= budget);
                    Clock.sleep(Duration::from_millis(7)).await;
                }
            };
            let all = async {
                futures_util::future::join_all(runs).await;
                over.cancel();
            };
            tokio::join!(all, watch);
            assert_eq!(intake.held_bytes(), 0);
            let most = intake.read(body(vec![(Duration::ZERO, limit)])).await;
            assert_eq!(most.map(|it| it.bytes.len()), Ok(limit), "the whole budget is there again");
        });
    }
}
