//! The key that seals secrets on a node without a mesh: it lies beside the store, for its owner only.
//!
//! It keeps a copied log, snapshot or backup of the store from giving credentials away; who reads the whole directory as the
//! gateway's user has both. *Invariants:* the key is made once, fsynced before it is used, and never leaves this file.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::error::OpenError;
use crate::base::entropy::Entropy;
use crate::base::seal::Sealer;
use crate::base::seal::parse_key;

/// The key's file in the data directory.
const FILE: &str = "seal.key";

/// The key in `directory`, made when there is none. Whoever calls holds the store's lock, so nobody else makes one too.
pub(super) fn open(directory: &Path) -> Result<Sealer, OpenError> {
    let path = directory.join(FILE);
    let not_writable = |source| OpenError::NotWritable { directory: directory.to_path_buf(), source };
    let key = match fs::read_to_string(&path) {
        Ok(text) => parse_key(text.trim()).ok_or(OpenError::SealKey { path })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(directory, &path).map_err(not_writable)?,
        Err(error) => return Err(not_writable(error)),
    };
    Ok(Sealer::new(&[key]))
}

fn make(directory: &Path, path: &Path) -> io::Result<[u8; 32]> {
    let key = Entropy::secret();
    let hex = key.iter().fold(String::with_capacity(65), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    });
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(hex.as_bytes())?;
    file.write_all(b"\n")?;
    // ORDER: file and name are on disk before anything is sealed, or a crash could leave what nobody can open.
    file.sync_all()?;
    fs::File::open(directory)?.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::base::seal::Seals as _;
    use crate::base::secret::Secret;

    #[test]
    fn the_key_is_made_once_for_its_owner_and_a_damaged_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let sealed = open(directory.path()).unwrap().seal_now(&Secret::new("x"), "y");
        assert!(open(directory.path()).unwrap().open(&sealed, "y").is_some());
        let path = directory.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(matches!(open(directory.path()), Err(OpenError::SealKey { .. })));
    }
}
