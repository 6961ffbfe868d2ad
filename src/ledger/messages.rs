//! What nodes say to each other about load. A frame is `transport::wire`'s version byte, then one [`Message`] or [`Answer`].
//!
//! Numbers only: which worker, how many requests, how many tokens. Variants and fields are only added at the end; anything else takes another
//! version byte.

use serde::Deserialize;
use serde::Serialize;

use super::InFlight;
use crate::transport::lanes::Lane;
use crate::transport::wire;
use crate::transport::wire::WireError;

/// Largest frame that is read.
pub const FRAME_BYTES_MAX: usize = Lane::Ledger.bytes_max();
/// Workers in one report: what fits a frame at twenty-three bytes each, the most one takes. A node that has requests at more than that of one owner's
/// workers says so, and what it left out is unknown there.
pub const REPORT_LEN_MAX: usize = 2800;
/// Commits in one frame. More wait for the next one, a few milliseconds later.
pub const COMMITS_LEN_MAX: usize = 1024;
/// Commits that go with a question: what fits a datagram with it. More wait for the next one.
pub const RIDING_LEN_MAX: usize = 24;
/// Workers asked for at once. A decision looks at eight.
pub const PROBE_LEN_MAX: usize = 64;

/// See the file's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// All that the sender has in flight at the workers whose ledger the receiver keeps. What is not listed is nothing.
    Report(Report),
    /// Requests that the sender began.
    Commits(Vec<Commit>),
    /// How much is in flight at these workers, what the asker has there itself not included?
    Probe(Probe),
}

/// See [`Message::Report`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Grows with each report and commit of one life of the sender.
    pub number: u64,
    /// The members as the sender sees them, hashed: who keeps which ledger follows from it.
    pub view: u64,
    /// Whether everything is listed.
    pub is_complete: bool,
    /// Worker and load, what is zero left out.
    pub loads: Vec<(u64, InFlight)>,
}

/// See [`Message::Probe`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Which workers.
    pub workers: Vec<u64>,
    /// What the asker has begun before, and would have said by itself a little later.
    pub begun: Vec<Commit>,
}

/// See [`Message::Commits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Reports with a larger number count this request already.
    pub number: u64,
    /// Where it went.
    pub worker: u64,
    /// Tokens of its prompt that wait for prefill.
    pub tokens: u64,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// One for each worker asked for, in the order of the question.
    Loads(Vec<Said>),
}

/// What an owner says of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Whether every live member was heard lately. If not, there may be more in flight than is said, and nothing said is not nothing.
    pub is_known: bool,
    /// In flight there, by all nodes but the asker.
    pub others: InFlight,
    /// How long ago the oldest of the reports came that it is made of.
    pub age_ms: u16,
}

impl Message {
    /// As a frame.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    /// From a frame; none: it cannot be read or is longer than anybody means it to be.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message = wire::decode::<Self, FRAME_BYTES_MAX>(bytes).ok()?;
        let fits = match &message {
            Self::Report(report) => report.loads.len() <= REPORT_LEN_MAX,
            Self::Commits(commits) => commits.len() <= COMMITS_LEN_MAX,
            Self::Probe(probe) => probe.workers.len() <= PROBE_LEN_MAX && probe.begun.len() <= RIDING_LEN_MAX,
        };
        fits.then_some(message)
    }
}

impl Answer {
    /// As a frame.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(self)
    }

    /// The loads of `len` workers. None: it cannot be read, or answers something else.
    #[must_use]
    pub fn loads(bytes: &[u8], len: usize) -> Option<Vec<Said>> {
        match wire::decode::<Self, FRAME_BYTES_MAX>(bytes).ok()? {
            Self::Loads(said) => Some(said).filter(|it| it.len() == len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use proptest::prelude::*;

    fn load(requests: u32, queued_tokens: u64) -> InFlight {
        InFlight { requests, queued_tokens }
    }

    #[test]
    fn the_bytes_of_version_one_do_not_change() {
        let report = Report { number: 7, view: 3, is_complete: true, loads: vec![(5, load(1, 300))] };
        assert_eq!(Message::Report(report).encode().unwrap(), [1, 0, 7, 3, 1, 1, 5, 1, 251, 44, 1]);
        let commits = Message::Commits(vec![Commit { number: 8, worker: 5, tokens: 9 }]);
        assert_eq!(commits.encode().unwrap(), [1, 1, 1, 8, 5, 9]);
        let begun = vec![Commit { number: 8, worker: 5, tokens: 9 }];
        let probe = Message::Probe(Probe { workers: vec![5, 6], begun });
        assert_eq!(probe.encode().unwrap(), [1, 2, 2, 5, 6, 1, 8, 5, 9]);
        let said = Said { is_known: true, others: load(2, 4), age_ms: 9 };
        assert_eq!(Answer::Loads(vec![said]).encode().unwrap(), [1, 0, 1, 1, 2, 4, 9]);
    }

    #[test]
    fn the_largest_messages_fit_the_lane_and_larger_ones_are_refused() {
        let most = (u64::MAX, load(u32::MAX, u64::MAX));
        let report = |len| Message::Report(Report { loads: vec![most; len], ..Report::default() });
        let commit = Commit { number: u64::MAX, worker: u64::MAX, tokens: 1 << 30 };
        let commits = |len| Message::Commits(vec![commit; len]);
        let probe = |len| Message::Probe(Probe { workers: vec![u64::MAX; len], begun: Vec::new() });
        let riding = |len| Message::Probe(Probe { workers: vec![u64::MAX; 8], begun: vec![commit; len] });
        assert!(riding(RIDING_LEN_MAX).encode().unwrap().len() < 1100, "it is one datagram");
        let most = [
            (report(REPORT_LEN_MAX), report(REPORT_LEN_MAX + 1)),
            (commits(1024), commits(1025)),
            (probe(64), probe(65)),
            (riding(RIDING_LEN_MAX), riding(RIDING_LEN_MAX + 1)),
        ];
        for (largest, larger) in most {
            let bytes = largest.encode().unwrap();
            assert!(bytes.len() < FRAME_BYTES_MAX, "{}", bytes.len());
            assert_eq!(Message::decode(&bytes), Some(largest));
            assert_eq!(Message::decode(&larger.encode().unwrap()), None);
        }
        assert_eq!(Message::decode(b"rubbish"), None);
        assert_eq!(Answer::loads(&Answer::Loads(vec![Said::default(); 2]).encode().unwrap(), 3), None);
    }

    /// One of each, and an answer.
    fn valid() -> Vec<Vec<u8>> {
        let begun = vec![Commit { number: 8, worker: 5, tokens: 9 }; 3];
        let report = Report { number: 7, view: 3, is_complete: true, loads: vec![(5, load(1, 300)), (6, load(2, 9))] };
        let messages = [
            Message::Report(report),
            Message::Report(Report { loads: vec![(u64::MAX, load(u32::MAX, u64::MAX)); 2], ..Report::default() }),
            Message::Report(Report::default()),
            Message::Commits(begun.clone()),
            Message::Probe(Probe { workers: vec![5, 6], begun }),
        ];
        let said = Said { is_known: true, others: load(2, 4), age_ms: 9 };
        let answers = [0, 1, 2, 3].map(|len| Answer::Loads(vec![said; len]).encode().unwrap());
        messages.iter().map(|it| it.encode().unwrap()).chain(answers).collect()
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_message_is_read_or_refused(bytes in fuzz::damaged(valid())) {
            fuzz::whole(FRAME_BYTES_MAX, 1, &bytes, Message::decode, |it| it.encode().unwrap());
            let loads = |bytes: &[u8]| Answer::loads(bytes, 2);
            let loads = fuzz::whole(FRAME_BYTES_MAX, 1, &bytes, loads, |it| Answer::Loads(it.clone()).encode().unwrap());
            prop_assert!(loads.is_none_or(|it| it.len() == 2), "as many as were asked for");
        }
    }
}
