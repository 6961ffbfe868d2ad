//! Values in a stream or a file, each with its length and a hash of it: length (4 bytes, little-endian), XXH3 of what follows (8), the value. One of length zero is the last.

use std::io;
use std::io::Read;
use std::io::Write;

use xxhash_rust::xxh3::xxh3_64;

use super::codec;

/// Why a frame was not read. Whoever made the stream, or what carried it.
#[derive(Debug, thiserror::Error)]
pub enum Torn {
    /// It ended, or could not be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
}

/// Writes one.
pub fn write(out: &mut dyn Write, value: &[u8]) -> io::Result<()> {
    let len = u32::try_from(value.len()).map_err(io::Error::other)?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(&xxh3_64(value).to_le_bytes())?;
    out.write_all(value)
}

/// Reads one. None: the last one.
pub fn read(from: &mut impl Read) -> Result<Option<Vec<u8>>, Torn> {
    let (mut len, mut hash) = ([0; 4], [0; 8]);
    from.read_exact(&mut len)?;
    from.read_exact(&mut hash)?;
    let len = u64::from(u32::from_le_bytes(len));
    if len > codec::BYTES_MAX as u64 {
        return Err(Torn::Damaged);
    }
    // Read as it comes, so that a length that lies does not make anybody allocate it.
    let mut value = Vec::new();
    let read = from.by_ref().take(len).read_to_end(&mut value)?;
    let is_whole = read as u64 == len && xxh3_64(&value) == u64::from_le_bytes(hash);
    match (is_whole, len) {
        (false, _) => Err(Torn::Damaged),
        (true, 0) => Ok(None),
        (true, _) => Ok(Some(value)),
    }
}
