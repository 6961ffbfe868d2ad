//! Our own words on a forwarded stream: before the request, which worker is meant; in the answer's head, what became of the
//! request there. The rest of the stream is plain HTTP/1.1.
//!
//! *Invariants:* the owner sets the verdict of every answer anew, so a worker cannot forge one; a frame of another version is
//! refused before any of the request was looked at.

use std::io;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;

use super::super::worker::CallError;
use super::super::worker::ConnectFailure;
use crate::base::ids::WorkerId;
use crate::observability::labels::Label as _;
use crate::observability::labels::label;
use crate::transport::wire;

/// Carries the [`Verdict`].
pub(super) const VERDICT: HeaderName = HeaderName::from_static("x-smg-forwarded");

/// Longest opening: a version, and two numbers of nine bytes at most.
const OPENING_BYTES_MAX: usize = 32;

/// What the stream begins with: one byte for the length, then a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// Who shall answer.
    pub(super) worker: WorkerId,
    /// Longest wait for the head of its answer.
    pub(super) first_byte_timeout: Duration,
}

impl Opening {
    pub(super) async fn write(self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let millis = u64::try_from(self.first_byte_timeout.as_millis()).unwrap_or(u64::MAX);
        let frame = wire::encode(&(self.worker.0, millis)).map_err(io::Error::other)?;
        let len = u8::try_from(frame.len()).map_err(io::Error::other)?;
        to.write_all(&[&[len], &frame[..]].concat()).await
    }

    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let len = usize::from(from.read_u8().await?);
        if len > OPENING_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; len];
        from.read_exact(&mut frame).await?;
        let (worker, millis) = wire::decode::<(u64, u64), OPENING_BYTES_MAX>(&frame).map_err(io::Error::other)?;
        Ok(Self { worker: WorkerId(worker), first_byte_timeout: Duration::from_millis(millis) })
    }
}

label! {
    /// What became of a request at its worker.
    pub(super) enum Verdict {
        /// The answer is the worker's.
        Answered = "answered",
        /// See [`ConnectFailure::Refused`].
        Refused = "refused",
        /// See [`ConnectFailure::NoAddress`].
        NoAddress = "no_address",
        /// See [`ConnectFailure::Forbidden`].
        Forbidden = "forbidden",
        /// See [`ConnectFailure::Tls`].
        Tls = "tls",
        /// See [`CallError::ConnectTimeout`].
        ConnectTimeout = "connect_timeout",
        /// See [`CallError::Lost`].
        Lost = "lost",
        /// See [`CallError::FirstByteTimeout`].
        FirstByteTimeout = "first_byte_timeout",
        /// See [`CallError::Protocol`].
        Protocol = "protocol",
        /// The owner has no such worker, or reaches it through somebody else.
        NoWay = "no_way",
    }
}

impl Verdict {
    pub(super) fn of(error: &CallError) -> Self {
        match error {
            CallError::Connect(ConnectFailure::Refused) => Self::Refused,
            CallError::Connect(ConnectFailure::NoAddress) => Self::NoAddress,
            CallError::Connect(ConnectFailure::Forbidden) => Self::Forbidden,
            CallError::Connect(ConnectFailure::Tls) => Self::Tls,
            CallError::Connect(ConnectFailure::NoWay) => Self::NoWay,
            CallError::ConnectTimeout(_) => Self::ConnectTimeout,
            CallError::Lost => Self::Lost,
            CallError::FirstByteTimeout(_) => Self::FirstByteTimeout,
            CallError::Protocol => Self::Protocol,
        }
    }

    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }

    /// None: a word that this release does not know.
    pub(super) fn read(header: &HeaderValue) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str().as_bytes() == header.as_bytes())
    }

    /// What the caller makes of it; the times are the caller's own.
    pub(super) fn judge(self, first_byte: Duration, connect: Duration) -> Result<(), CallError> {
        Err(match self {
            Self::Answered => return Ok(()),
            Self::Refused => CallError::Connect(ConnectFailure::Refused),
            Self::NoAddress => CallError::Connect(ConnectFailure::NoAddress),
            Self::Forbidden => CallError::Connect(ConnectFailure::Forbidden),
            Self::Tls => CallError::Connect(ConnectFailure::Tls),
            Self::NoWay => CallError::Connect(ConnectFailure::NoWay),
            Self::ConnectTimeout => CallError::ConnectTimeout(connect),
            Self::Lost => CallError::Lost,
            Self::FirstByteTimeout => CallError::FirstByteTimeout(first_byte),
            Self::Protocol => CallError::Protocol,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use proptest::prelude::*;

    #[tokio::test]
    async fn an_opening_survives_the_wire_and_another_version_is_refused() {
        let opening = Opening { worker: WorkerId(u64::MAX), first_byte_timeout: Duration::from_secs(600) };
        let mut bytes = Vec::new();
        opening.write(&mut bytes).await.expect("written");
        assert_eq!(Opening::read(&mut &bytes[..]).await.expect("readable"), opening);
        assert!(Opening::read(&mut &bytes[..bytes.len() - 1]).await.is_err(), "cut");
        bytes[1] += 1;
        assert!(Opening::read(&mut &bytes[..]).await.is_err(), "another version");
        assert!(Opening::read(&mut &[255, 1, 1][..]).await.is_err(), "longer than any");
    }

    #[test]
    fn a_verdict_is_the_error_it_was_made_of() {
        let (first, connect) = (Duration::from_secs(1), Duration::from_secs(2));
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::read(&verdict.header()), Some(*verdict));
            match verdict.judge(first, connect) {
                Ok(()) => assert_eq!(*verdict, Verdict::Answered),
                Err(error) => assert_eq!(Verdict::of(&error), *verdict),
            }
        }
        assert_eq!(Verdict::read(&HeaderValue::from_static("later")), None);
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_a_damaged_opening_is_read_or_refused(bytes in fuzz::damaged(vec![{
            let frame = wire::encode(&(7_u64, 600_000_u64)).unwrap();
            [&[u8::try_from(frame.len()).unwrap()], &frame[..]].concat()
        }])) {
            use futures_util::FutureExt as _;
            let read = fuzz::within(OPENING_BYTES_MAX, || Opening::read(&mut &bytes[..]).now_or_never());
            if let Ok(read) = read.expect("bytes that are there do not make anybody wait") {
                let mut again = Vec::new();
                read.write(&mut again).now_or_never().unwrap().unwrap();
                prop_assert_eq!(Opening::read(&mut &again[..]).now_or_never().unwrap().unwrap(), read);
                // What follows it is the request; of itself nothing may be missing.
                let len = 1 + usize::from(bytes[0]);
                prop_assert!(len <= bytes.len() && bytes[1] == wire::VERSION);
                prop_assert!(Opening::read(&mut &bytes[..len - 1]).now_or_never().unwrap().is_err(), "it was taken without its last byte");
                let longer = [&[bytes[0] + 1], &bytes[1..len], &[0]].concat();
                prop_assert!(Opening::read(&mut &longer[..]).now_or_never().unwrap().is_err(), "it was taken with a byte behind it");
            }
        }
    }
}
