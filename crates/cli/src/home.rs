//! `SEEDBANK_HOME`: the one folder where an owner's keys, catalog and caches live, and what stands where in it.
//!
//! Paths only; each part of the program makes its own files. The folder is for its owner alone (mode 0700): the
//! steward's socket in it is the owner's authority.

use seedbank_store::make_folder;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The longest path that a Unix socket's address can hold, without the zero byte at its end (`sun_path`).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why there is no home.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// Neither a home nor a user's home is known.
    #[error("no home: set SEEDBANK_HOME (or HOME) to a folder")]
    Unknown,
    /// The system does not say where a relative path begins.
    #[error("{} can't be made an absolute path", path.display())]
    Relative {
        /// Which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No socket fits in.
    #[error("the home's path is too long for a socket in it; set SEEDBANK_HOME to a shorter one than {}", .0.display())]
    TooLong(PathBuf),
    /// The folder can't be made.
    #[error("{} could not be made", path.display())]
    Create {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An owner's folder. Its path is absolute, so that daemons may change theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    /// The home that was chosen by flag or `SEEDBANK_HOME`, else `.local/share/seedbank` in the user's home. Nothing is
    /// created.
    ///
    /// # Errors
    /// [`HomeError::Unknown`], [`HomeError::Relative`] or [`HomeError::TooLong`].
    pub(crate) fn resolve(chosen: Option<&Path>, user_home: Option<OsString>) -> Result<Home, HomeError> {
        let chosen = chosen.filter(|path| !path.as_os_str().is_empty());
        let path = match (chosen, user_home.filter(|home| !home.is_empty())) {
            (Some(path), _) => path.to_owned(),
            (None, Some(home)) => PathBuf::from(home).join(".local/share/seedbank"),
            (None, None) => return Err(HomeError::Unknown),
        };
        let root = std::path::absolute(&path).map_err(|source| HomeError::Relative { path, source })?;
        let home = Home { root };
        if home.steward_socket().as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(HomeError::TooLong(home.root));
        }
        Ok(home)
    }

    /// Makes the folder durably, for its owner alone, when it is missing. One that is there keeps its mode.
    ///
    /// # Errors
    /// [`HomeError::Create`].
    pub(crate) fn create(&self) -> Result<(), HomeError> {
        let failed = |source| HomeError::Create { path: self.root.clone(), source };
        make_folder(&self.root).map_err(failed)
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The sealed keys.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.root.join("keys.sealed")
    }

    /// The catalog's database and its lock.
    pub(crate) fn catalog_dir(&self) -> PathBuf {
        self.root.join("catalog")
    }

    /// The embedded chain.
    pub(crate) fn chain_dir(&self) -> PathBuf {
        self.root.join("chain")
    }

    /// The deduplication index's runs, which can be rebuilt.
    pub(crate) fn index_dir(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Where a running steward listens for this owner's commands.
    pub(crate) fn steward_socket(&self) -> PathBuf {
        self.root.join("steward.sock")
    }

    /// Which chain is paid on, and how much: see [`crate::chain_config`].
    pub(crate) fn chain_file(&self) -> PathBuf {
        self.root.join("network.toml")
    }

    /// What this home's processes remember of what they promised: see `seedbank_client::pay`.
    pub(crate) fn pay_dir(&self) -> PathBuf {
        self.root.join("pay")
    }

    /// What the chain was last known to say of others' names: see [`crate::registries`].
    pub(crate) fn names_dir(&self) -> PathBuf {
        self.root.join("names")
    }

    /// The local network that `up` and `demo` start: one folder a provider.
    pub(crate) fn network_dir(&self) -> PathBuf {
        self.root.join("network")
    }
}

#[cfg(test)]
mod tests {
    use super::{Home, HomeError};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    #[test]
    fn chosen_folder_goes_before_the_users_home() {
        let home = Home::resolve(Some(Path::new("/srv/seeds")), Some("/home/ada".into())).unwrap();
        assert_eq!(home.key_file(), Path::new("/srv/seeds/keys.sealed"));
        let home = Home::resolve(Some(Path::new("")), Some("/home/ada".into())).unwrap();
        assert_eq!(home.root(), Path::new("/home/ada/.local/share/seedbank"));
        assert!(matches!(Home::resolve(None, Some("".into())), Err(HomeError::Unknown)));
    }

    #[test]
    fn relative_folder_becomes_absolute() {
        let home = Home::resolve(Some(Path::new("here")), None).unwrap();
        assert_eq!(home.root(), std::env::current_dir().unwrap().join("here"));
    }

    #[test]
    fn path_without_room_for_a_socket_is_refused_at_once() {
        let long = format!("/{}", "x".repeat(100));
        assert!(matches!(Home::resolve(Some(Path::new(&long)), None), Err(HomeError::TooLong(_))));
    }

    #[test]
    fn folder_is_made_for_its_owner_alone_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&folder.path().join("a/b")), None).unwrap();
        home.create().unwrap();
        home.create().unwrap();
        assert_eq!(std::fs::metadata(home.root()).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(home.root().join("file"), b"").unwrap();
        let blocked = Home::resolve(Some(&home.root().join("file")), None).unwrap();
        assert!(matches!(blocked.create().unwrap_err(), HomeError::Create { .. }));
    }
}
