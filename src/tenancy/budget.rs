//! What one request takes from the limits of its key, its tenant and its model: before a worker is asked, all or nothing; afterwards what it really used is settled.
//!
//! *Invariants.* 1. A request that is refused, or that no worker was asked for, costs nothing. 2. One that a worker was asked for is paid for: with what the worker says it
//! cost, or, where nobody ever says, with what was reserved.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::SmallVec;

use super::keys::Keys;
use super::keys::Principal;
use super::quota::Applies;
use super::quota::Scope;
use super::quota::What;
use super::quota::Whose;
use crate::base::clock::Instant;
use crate::base::ids::ModelId;
use crate::limits;
use crate::limits::Kind;
use crate::limits::Taken;
use crate::limits::core::Answer;
use crate::limits::core::Refused;
use crate::limits::permits::Permit;
use crate::limits::purse::Remaining;

/// Tokens of an answer that are reserved before any is known.
const OUTPUT_FIRST: u64 = 64;
/// Most that is reserved. Longer answers are settled when they end.
const OUTPUT_MAX: u64 = 4096;

/// A limit that refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Whose.
    pub whose: Whose,
    /// What it counts.
    pub what: What,
    /// Units a window.
    pub units: u64,
}

/// Why a request may not begin. Nothing was spent, and a retry is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// The client's doing.
    #[error("{} has used up its limit of {} {}: try again in {}", limit.whose, limit.units, limit.what, seconds(*retry_after))]
    UsedUp {
        /// Which.
        limit: Limit,
        /// When units may be there again.
        retry_after: Duration,
    },
    /// The client's doing: trying again does not help.
    #[error("{}", too_large(.0))]
    TooLarge(Limit),
    /// The cluster's fault: nobody has told this node its part of the limit.
    #[error("this node holds no part of the limit of {}, {} {}, at this moment: `smg status` at it says why; or try another node", .0.whose, .0.units, .0.what)]
    NoShare(Limit),
}

impl OverBudget {
    /// Which limit.
    #[must_use]
    pub fn limit(&self) -> &Limit {
        let (Self::UsedUp { limit, .. } | Self::TooLarge(limit) | Self::NoShare(limit)) = self;
        limit
    }

    /// When it is worth trying again.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::UsedUp { retry_after, .. } => *retry_after,
            Self::TooLarge(limit) => Duration::from_millis(u64::from(limit.what.window_ms().max(1000))),
            Self::NoShare(_) => Duration::from_secs(1),
        }
    }

    fn of(limit: Limit, why: &Refused) -> Self {
        match *why {
            Refused::Exhausted { retry_after, .. } => Self::UsedUp { limit, retry_after },
            Refused::TooLarge(_) => Self::TooLarge(limit),
            Refused::NoShare(_) => Self::NoShare(limit),
            // As many wait for units as may: those that there are will be used up.
            Refused::Busy(_) => Self::UsedUp { limit, retry_after: Duration::from_secs(1) },
        }
    }
}

fn too_large(Limit { whose, what, units }: &Limit) -> String {
    if *units == 0 {
        return format!("the limit of {whose} is 0 {what}: nobody may until it is raised");
    }
    format!(
        "this request alone is larger than the limit of {whose}, {units} {what}: send a shorter one, or have the limit raised"
    )
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_millis().div_ceil(1000).max(1))
}

/// Units of one limit.
#[derive(Debug)]
struct Held {
    kind: Kind,
    /// Of how many a window.
    limit: u64,
    taken: Taken,
}

/// What is left of one kind after a request took its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Of what.
    pub kind: Kind,
    /// Units a window of the limit that is nearest to its end.
    pub limit: u64,
    /// Units of it that are left, as far as this node knows.
    pub remaining: u64,
    /// When there are new ones.
    pub resets: Duration,
}

/// What a request holds of the limits that apply to it. Dropped before a worker was asked, it gives all back; afterwards it keeps what it holds.
#[derive(Debug, Default)]
pub struct Budget {
    taken: SmallVec<[Held; 2]>,
    /// Given back when the request has ended, however it does.
    open: SmallVec<[Permit; 1]>,
    /// Of the tokens it holds, those for the answer.
    output: u64,
    is_sent: bool,
}

impl Budget {
    /// Of each kind, the limit of which least is left. Costs a few reads, no lock.
    #[must_use]
    pub fn left(&self, now: Instant) -> SmallVec<[Left; 2]> {
        let mut all: SmallVec<[Left; 2]> = SmallVec::new();
        for Held { kind, limit, taken } in &self.taken {
            let Remaining { units, resets } = taken.remaining(now);
            let left = Left { kind: *kind, limit: *limit, remaining: units.min(*limit), resets };
            match all.iter_mut().find(|it| it.kind == *kind) {
                // Of two with as much left the longer window is the tighter one.
                Some(it)
                    if (left.remaining, std::cmp::Reverse(resets)) < (it.remaining, std::cmp::Reverse(it.resets)) =>
                {
                    *it = left;
                }
                Some(_) => {}
                None => all.push(left),
            }
        }
        all
    }

    /// A worker is asked: from now on it costs.
    pub fn sent(&mut self) {
        self.is_sent = true;
    }

    /// The worker says what it cost. What it does not say costs what was reserved. Does nothing where no worker was asked.
    pub fn settle(&mut self, now: Instant, prompt: Option<u64>, completion: Option<u64>) {
        if !self.is_sent {
            return;
        }
        for Held { kind, mut taken, .. } in std::mem::take(&mut self.taken) {
            if kind != Kind::Tokens {
                continue; // dropped, it is spent
            }
            let output = taken.split(self.output);
            if let Some(used) = prompt {
                taken.settle(now, used);
            }
            if let Some(used) = completion {
                output.settle_output(now, used);
            }
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if !self.is_sent {
            std::mem::take(&mut self.taken).into_iter().for_each(|it| it.taken.give_back());
        }
    }
}

/// What a request is believed to cost in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Of its prompt.
    pub prompt: u64,
    /// Whether its answer costs any.
    pub has_answer: bool,
}

/// Takes from the limits that apply to requests.
pub struct Budgets {
    keys: Arc<Keys>,
    limits: limits::Handle,
    /// Tokens of an answer, about.
    output: AtomicU64,
}

impl Budgets {
    /// Of the keys, tenants and models that `keys` knows.
    #[must_use]
    pub fn new(keys: Arc<Keys>, limits: limits::Handle) -> Self {
        Self { keys, limits, output: AtomicU64::new(OUTPUT_FIRST) }
    }

    /// How the limits stand at this node.
    #[must_use]
    pub fn limits(&self) -> &limits::Handle {
        &self.limits
    }

    /// Takes a request, and the tokens of its prompt and about as many as an answer has, from all limits that apply, or from none. Waits for other nodes' units for some
    /// milliseconds where this one has not enough, and for two seconds at most until another request has ended.
    pub async fn take(&self, principal: &Principal, model: &ModelId, expected: Expected) -> Result<Budget, OverBudget> {
        let mut budget = Budget::default();
        let applying = self.keys.applying(principal, model);
        let refused = |it: &Applies, why: &Refused| {
            let name = match it.scope {
                Scope::Key => Arc::clone(&principal.name),
                Scope::Tenant => principal.tenant.as_str().into(),
                Scope::Model => model.as_str().into(),
            };
            OverBudget::of(Limit { whose: Whose { scope: it.scope, name }, what: it.what, units: it.units }, why)
        };
        // ORDER: who waits for another request to end must not hold units of a window meanwhile: it may be over then.
        for it in applying.iter().filter(|it| it.what.kind == Kind::Streams) {
            match self.limits.permit(it.limit).await {
                Answer::Admitted(permit) => budget.open.push(permit),
                Answer::Open => {}
                Answer::Refused(why) => return Err(refused(it, &why)),
            }
        }
        for it in &applying {
            let wanted = match it.what.kind {
                Kind::Streams => continue,
                Kind::Requests => 1,
                Kind::Tokens => {
                    budget.output = if expected.has_answer { self.output.load(Ordering::Relaxed) } else { 0 };
                    expected.prompt + budget.output
                }
            };
            match self.limits.take(it.limit, wanted).await {
                Answer::Admitted(taken) => budget.taken.push(Held { kind: it.what.kind, limit: it.units, taken }),
                Answer::Open => {}
                Answer::Refused(why) => return Err(refused(it, &why)),
            }
        }
        Ok(budget)
    }

    /// An answer had so many tokens.
    pub fn learn(&self, completion: u64) {
        let known = self.output.load(Ordering::Relaxed);
        // Nothing depends on its being exact: a lesson that another thread overwrites is lost.
        self.output.store((known * 15 + completion.min(OUTPUT_MAX)).div_ceil(16), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::limits::purse::Purse;
    use crate::limits::purse::tests::purse;

    /// A request that took one of a hundred requests, and thirty of a hundred tokens, ten of them for the answer.
    fn taken(now: Instant) -> (Budget, [Arc<Purse>; 2]) {
        let purses = [purse(now, 100), purse(now, 100)];
        let units = [(Kind::Requests, 1), (Kind::Tokens, 30)];
        let take = |(purse, (kind, units)): (&Arc<Purse>, (Kind, u64))| Held {
            kind,
            limit: 100,
            taken: purse.take(now, units).expect("there are"),
        };
        let taken = purses.iter().zip(units).map(take).collect();
        (Budget { taken, output: 10, open: SmallVec::new(), is_sent: false }, purses)
    }

    fn left(purses: &[Arc<Purse>; 2], now: Instant) -> [u64; 2] {
        [0, 1].map(|it: usize| purses[it].left(purses[it].window(now)))
    }

    #[test]
    fn a_request_that_no_worker_was_asked_for_costs_nothing() {
        let now = Clock.now();
        let (mut budget, purses) = taken(now);
        assert_eq!(left(&purses, now), [99, 70]);
        budget.settle(now, Some(5), Some(5));
        drop(budget);
        assert_eq!(left(&purses, now), [100, 100]);
    }

    #[test]
    fn one_that_a_worker_was_asked_for_costs_what_the_worker_says_and_what_was_reserved_where_it_says_nothing() {
        let now = Clock.now();
        for (usage, tokens) in [
            ((Some(12), Some(3)), 85),
            ((Some(25), Some(40)), 35),
            ((None, None), 70),
            ((Some(12), None), 78),
            ((None, Some(0)), 80),
        ] {
            let (mut budget, purses) = taken(now);
            budget.sent();
            budget.settle(now, usage.0, usage.1);
            drop(budget);
            assert_eq!(left(&purses, now), [99, tokens], "{usage:?}");
        }
    }

    #[test]
    fn of_each_kind_the_limit_is_told_of_which_least_is_left() {
        let now = Clock.now();
        let purses = [10, 300, 5].map(|it| purse(now, it));
        let held = |(purse, (kind, limit)): (&Arc<Purse>, (Kind, u64))| Held {
            kind,
            limit,
            taken: purse.take(now, 1).expect("there is one"),
        };
        let kinds = [(Kind::Requests, 10), (Kind::Tokens, 100), (Kind::Requests, 50)];
        let mut budget = Budget {
            taken: purses.iter().zip(kinds).map(held).collect(),
            output: 0,
            open: SmallVec::new(),
            is_sent: false,
        };
        let left: Vec<_> = budget.left(now).iter().map(|it| (it.kind, it.limit, it.remaining)).collect();
        assert_eq!(left, [(Kind::Requests, 50, 4), (Kind::Tokens, 100, 100)], "never more than the limit");
        budget.sent();
        assert!(Budget::default().left(now).is_empty(), "nothing is said where nothing is limited");
    }

    #[test]
    fn every_refusal_names_whose_limit_it_is_and_says_what_to_do() {
        let what = What::parse("tokens", "second").expect("is one");
        let limit = limits::LimitId(1);
        let after = Duration::from_millis(1400);
        for (why, text, wait) in [
            (Refused::Exhausted { limit, retry_after: after }, "try again in 2 s", after),
            (Refused::Busy(limit), "try again in 1 s", Duration::from_secs(1)),
            (Refused::TooLarge(limit), "send a shorter one", Duration::from_secs(1)),
            (Refused::NoShare(limit), "`smg status` at it says why", Duration::from_secs(1)),
        ] {
            let whose = Whose { scope: Scope::Model, name: "m".into() };
            let over = OverBudget::of(Limit { whose, what, units: 9 }, &why);
            let said = over.to_string();
            assert!(
                said.contains("model `m`") && said.contains("9 tokens per second") && said.contains(text),
                "{said}"
            );
            assert_eq!((over.retry_after(), over.limit().what, over.limit().units), (wait, what, 9));
        }
        let whose = Whose { scope: Scope::Key, name: "ci".into() };
        let none = OverBudget::TooLarge(Limit { whose, what, units: 0 }).to_string();
        assert_eq!(none, "the limit of key `ci` is 0 tokens per second: nobody may until it is raised");
    }
}
