//! Rounds on disk: one JSON line each, there once it was written and not before.

use std::fmt;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::io::Write as _;
use std::path::Path;

use super::round::Round;

/// A line is one round, whose timeline is most of it: some ten kilobytes.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// Why there are no rounds to be had.
#[derive(Debug)]
pub enum ReadError {
    /// The file cannot be read.
    Io(io::Error),
    /// A whole line is no round.
    Line {
        /// Which, from 1.
        number: usize,
        /// Why not.
        error: serde_json::Error,
    },
    /// A line is longer than any round.
    TooLong {
        /// Which, from 1.
        number: usize,
    },
    /// A later program wrote it; what it means is not known here.
    Version {
        /// Which line, from 1.
        number: usize,
        /// What it says.
        version: u8,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "rounds cannot be read: {error}"),
            Self::Line { number, error } => write!(f, "line {number} is no round: {error}"),
            Self::TooLong { number } => write!(f, "line {number} has more than {LINE_BYTES_MAX} bytes"),
            Self::Version { number, version } => {
                write!(f, "line {number} has version {version}, and {} is the last that is known", Round::VERSION)
            }
        }
    }
}

impl std::error::Error for ReadError {}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// All rounds of a file. A last line that is not whole is the round that was being written when its writer ended: it is passed over.
///
/// # Errors
/// Whole lines that are no rounds.
pub fn read(path: &Path) -> Result<Vec<Round>, ReadError> {
    let mut lines = BufReader::new(File::open(path)?);
    let (mut rounds, mut line) = (Vec::new(), Vec::new());
    for number in 1.. {
        line.clear();
        let length = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        let is_whole = line.ends_with(b"\n");
        if length as u64 == LINE_BYTES_MAX && !is_whole {
            return Err(ReadError::TooLong { number });
        }
        match serde_json::from_slice::<Round>(&line) {
            _ if length == 0 => break,
            Ok(round) if round.version > Round::VERSION => {
                return Err(ReadError::Version { number, version: round.version });
            }
            Ok(round) => rounds.push(round),
            Err(error) if is_whole => return Err(ReadError::Line { number, error }),
            Err(_torn) => break,
        }
    }
    Ok(rounds)
}

/// Adds a round. It is on disk when this returns; what a writer before left of a line goes.
///
/// # Errors
/// The round may be there or not.
pub fn append(path: &Path, round: &Round) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.lock()?; // runs side by side may write to one file; given back when it is closed
    let mut line = Vec::new();
    if let Some(tail) = tail(&mut file)? {
        // It was whole but for its end, or it was not.
        if serde_json::from_slice::<Round>(&tail).is_ok() {
            line.push(b'\n');
        } else {
            let whole = file.seek(SeekFrom::End(0))? - tail.len() as u64;
            file.set_len(whole)?;
        }
    }
    file.seek(SeekFrom::End(0))?;
    serde_json::to_writer(&mut line, round)?;
    line.push(b'\n');
    if line.len() as u64 >= LINE_BYTES_MAX {
        return Err(io::Error::other(format!("a round of {} bytes would not be read again", line.len())));
    }
    file.write_all(&line)?;
    file.sync_all()?;
    if is_new {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// What stands after the last end of a line, if anything does.
fn tail(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let length = file.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(LINE_BYTES_MAX).read_to_end(&mut end)?;
    let tail = match end.iter().rposition(|it| *it == b'\n') {
        Some(at) => end.split_off(at + 1),
        None if from == 0 => end,
        None => return Err(io::Error::other("the file does not end in a round")),
    };
    Ok((!tail.is_empty()).then_some(tail))
}
