//! The sequencer's key on disk: a secp256k1 secret in hex, for the operator's eyes only.
//!
//! It is not sealed with a passphrase: a chain must start again after a power cut without anybody there. Who takes it can
//! sign other blocks under this chain's name, which followers notice, and can spend nobody's money.

use k256::ecdsa::SigningKey;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The key's file name in a chain's folder.
pub const KEY_FILE: &str = "sequencer.key";

/// Its name until block 0 is written: a key by its final name means that there is a chain.
const NEW_KEY_FILE: &str = "sequencer.key.new";

/// 64 hex digits and a line's end; one more, to notice what follows.
const FILE_BYTES_MAX: u64 = 66;

/// Why the sequencer's key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be read or written: check the folder, or restore the file from a copy.
    #[error("can't use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others may read the file: whoever did can sign blocks of this chain.
    #[error("{path} can be read by others (mode {mode:o}): chmod 600 it, or start a new chain")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no key: restore it from a copy.
    #[error("{path} is no sequencer's key: expected 64 hex digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Makes a key for a chain that does not exist yet, durably but for its name. One of a chain that was never begun goes.
pub(crate) fn create(dir: &Path) -> Result<SigningKey, KeyError> {
    let path = dir.join(NEW_KEY_FILE);
    let file = |source| KeyError::File { path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        Ok(()) | Err(_) => {}
    }
    let key = loop {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut()).map_err(|error| file(io::Error::other(error)))?;
        // One number in 2^128 is no key.
        if let Ok(key) = SigningKey::from_slice(secret.as_ref()) {
            break key;
        }
    };
    let secret = Zeroizing::new(<[u8; 32]>::from(key.to_bytes()));
    let text = Zeroizing::new(format!("{}\n", alloy_primitives::hex::encode(*secret)));
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(file)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(file)?;
    Ok(key)
}

/// Gives the key its final name: its chain has begun.
pub(crate) fn settle(dir: &Path) -> Result<(), KeyError> {
    let path = dir.join(KEY_FILE);
    std::fs::rename(dir.join(NEW_KEY_FILE), &path)
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(|source| KeyError::File { path, source })
}

/// Reads the key of the chain in `dir`; `None` if there is none.
pub(crate) fn load(dir: &Path) -> Result<Option<SigningKey>, KeyError> {
    load_from(dir.join(KEY_FILE))
}

/// Reads the key of a chain whose making may have been cut short; `None` if there is none.
pub(crate) fn load_new(dir: &Path) -> Result<Option<SigningKey>, KeyError> {
    load_from(dir.join(NEW_KEY_FILE))
}

fn load_from(path: PathBuf) -> Result<Option<SigningKey>, KeyError> {
    let error = |source| KeyError::File { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(error(source)),
    };
    let mode = file.metadata().map_err(error)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path, mode });
    }
    let mut text = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(error)?;
    parse(&text).map(Some).ok_or(KeyError::Malformed { path })
}

fn parse(text: &[u8]) -> Option<SigningKey> {
    let digits: &[u8; 64] = text.strip_suffix(b"\n").unwrap_or(text).try_into().ok()?;
    let mut secret = Zeroizing::new([0; 32]);
    alloy_primitives::hex::decode_to_slice(digits, secret.as_mut()).ok()?;
    SigningKey::from_slice(secret.as_ref()).ok()
}

#[cfg(test)]
mod tests {
    use super::{KEY_FILE, KeyError, create, load, load_new, settle};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn key_has_its_name_once_its_chain_has_begun() {
        let folder = tempfile::tempdir().unwrap();
        let _never_begun = create(folder.path()).unwrap();
        let key = create(folder.path()).unwrap();
        assert!(load(folder.path()).unwrap().is_none());
        assert_eq!(load_new(folder.path()).unwrap(), Some(key.clone()));
        settle(folder.path()).unwrap();
        assert_eq!(load(folder.path()).unwrap(), Some(key));
        assert!(load_new(folder.path()).unwrap().is_none() && settle(folder.path()).is_err());
    }

    #[test]
    fn exposed_and_malformed_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        for text in ["", "zz", &"1".repeat(63), &"1".repeat(65), &"0".repeat(64), &"f".repeat(64)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            assert!(matches!(load(folder.path()), Err(KeyError::Malformed { .. })), "{text}");
        }
        std::fs::write(&path, "1".repeat(64)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(load(folder.path()), Err(KeyError::Exposed { mode: 0o640, .. })));
    }
}
