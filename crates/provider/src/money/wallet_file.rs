//! The key on disk with which a provider sends and signs: secp256k1 in hex, for the operator's eyes only.
//!
//! Like the identity it is not sealed: a daemon must prove again after a power cut without anybody there. Who takes the wallet's own key can
//! take what was not withdrawn yet, and the stake that no agreement needs: withdraw often, or keep the wallet elsewhere and an operator's
//! key here. Who takes that can sign and end agreements, and spend the coin that it has for gas.

use crate::identity_file::{self, IdentityError};
use seedbank_agreement::{Address, WalletKey};
use std::io;
use std::path::Path;
use zeroize::Zeroizing;

/// Why the wallet can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WalletFileError {
    /// See there; the file is the wallet's.
    #[error(
        "the wallet's key; put it back from a copy, or make a new folder with `seedbank provider init --rpc URL --directory ADDRESS`"
    )]
    File(#[from] IdentityError),
    /// The digits are no key: restore it from a copy.
    #[error("the wallet's key is no key of this curve")]
    NoKey,
    /// The file can't be made.
    #[error("can't make the wallet's key")]
    Create(#[from] io::Error),
}

/// Reads a wallet's key.
pub(crate) fn load(path: &Path) -> Result<WalletKey, WalletFileError> {
    let secret = Zeroizing::new(identity_file::load_secret(path)?);
    WalletKey::from_secret(&secret).map_err(|_| WalletFileError::NoKey)
}

/// Makes a wallet in a provider's folder, under this name. Gives its address.
///
/// # Errors
/// [`WalletFileError`]; a file that is there is never overwritten.
pub fn create_wallet(dir: &Path, name: &str) -> Result<Address, WalletFileError> {
    loop {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret).map_err(io::Error::other)?;
        // One of 2^128 secrets is none.
        if let Ok(key) = WalletKey::from_secret(&secret) {
            return keep_wallet(dir, name, &key);
        }
    }
}

/// Writes a key to a new file. Gives its address.
pub(crate) fn keep_wallet(dir: &Path, name: &str, key: &WalletKey) -> Result<Address, WalletFileError> {
    let text = Zeroizing::new(identity_file::secret_text(&key.secret()));
    identity_file::create_private(&dir.join(name), text.as_bytes())?;
    std::fs::File::open(dir)?.sync_all()?;
    Ok(key.address())
}

#[cfg(test)]
mod tests {
    use super::{WalletFileError, create_wallet, load};
    use crate::identity_file::IdentityError;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn wallet_reads_back_and_is_never_overwritten_nor_shown() {
        let dir = tempfile::tempdir().unwrap();
        let address = create_wallet(dir.path(), "wallet.key").unwrap();
        let path = dir.path().join("wallet.key");
        assert_eq!(load(&path).unwrap().address(), address);
        assert!(matches!(create_wallet(dir.path(), "wallet.key"), Err(WalletFileError::Create(_))));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(load(&path), Err(WalletFileError::File(IdentityError::Exposed { .. }))));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, "0".repeat(64)).unwrap();
        assert!(matches!(load(&path), Err(WalletFileError::NoKey)));
    }
}
