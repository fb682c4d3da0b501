//! The provider's identity on disk: the seed of its Ed25519 key, in hex, for the operator's eyes only.
//!
//! Unlike an owner's keys it is not sealed with a passphrase: a daemon must start again after a power cut without
//! anybody there. Who takes it can pose as this provider, and reads nothing.

use seedbank_formats::keys::SigningKey;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The key's file name in a provider's folder.
pub const IDENTITY_FILE: &str = "identity.key";

/// 64 hex digits and a line's end; one more, to notice what follows.
const FILE_BYTES_MAX: u64 = 66;

/// Why the identity can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file can't be read: check the folder, or prepare one with `provider init`.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others may read the file: whoever did can pose as this provider.
    #[error("{path} can be read by others (mode {mode:o}): chmod 600 it, or make a new identity")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no key: restore it from a copy.
    #[error("{path} is not an identity: expected 64 hex digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A new key, from the system's randomness.
pub(crate) fn generate() -> io::Result<SigningKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(SigningKey::from_seed(seed))
}

/// Writes the key to a new file in `dir`, durably.
pub(crate) fn create(dir: &Path, key: &SigningKey) -> io::Result<()> {
    create_private(&dir.join(IDENTITY_FILE), secret_text(key.seed()).as_bytes())
}

/// A secret as its file holds it.
pub(crate) fn secret_text(secret: &[u8; 32]) -> String {
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    digits + "\n"
}

/// Writes a new file that only its owner may read, durably but for its name.
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads the key of the provider in `dir`.
///
/// # Errors
/// [`IdentityError`].
pub(crate) fn load(dir: &Path) -> Result<SigningKey, IdentityError> {
    load_secret(&dir.join(IDENTITY_FILE)).map(SigningKey::from_seed)
}

/// Reads 32 bytes that only their owner may read.
pub(crate) fn load_secret(path: &Path) -> Result<[u8; 32], IdentityError> {
    let path = path.to_owned();
    let read = |source| IdentityError::Read { path: path.clone(), source };
    let file = File::open(&path).map_err(read)?;
    let mode = file.metadata().map_err(read)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path, mode });
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(read)?;
    parse_seed(&text).ok_or(IdentityError::Malformed { path })
}

fn parse_seed(text: &[u8]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.strip_suffix(b"\n").unwrap_or(text).try_into().ok()?;
    let mut seed = [0; 32];
    for (byte, pair) in seed.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use super::{IDENTITY_FILE, IdentityError, create, generate, load};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn key_reads_back_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let key = generate().unwrap();
        create(folder.path(), &key).unwrap();
        assert_eq!(load(folder.path()).unwrap().public(), key.public());
        assert!(create(folder.path(), &generate().unwrap()).is_err());
    }

    #[test]
    fn exposed_malformed_and_missing_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(IDENTITY_FILE);
        assert!(matches!(load(folder.path()), Err(IdentityError::Read { .. })));
        for text in ["", "zz", &"0".repeat(63), &"0".repeat(65), &"é".repeat(32)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            assert!(matches!(load(folder.path()), Err(IdentityError::Malformed { .. })), "{text}");
        }
        std::fs::write(&path, "0".repeat(64)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(load(folder.path()), Err(IdentityError::Exposed { mode: 0o640, .. })));
    }
}
