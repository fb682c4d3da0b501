//! The owner's keys at rest: one recovery phrase, sealed under a passphrase, and the dataset keys that others handed over.
//!
//! This is the only code that writes a secret down. A home has one file, `keys.sealed` (mode 0600); it is replaced as a
//! whole, so a crash leaves the old one or the new one. A store made without a passphrase says so in its header and is
//! never asked for one: throw-away networks need no person. What is deliberately absent: an agent that keeps keys unlocked,
//! and any way to put a secret on a command line.

mod dataset_key;
mod passphrase;
mod phrase;
mod private_file;
mod ring;
mod sealed;

pub(crate) use dataset_key::{DatasetKey, ParseProviderAddressError, ProviderAddress};
pub(crate) use passphrase::{
    PASSPHRASE_VARIABLE, Passphrase, PassphraseError, PassphraseSource, PassphraseUse,
};
pub(crate) use phrase::Phrase;
pub(crate) use private_file::{create_private, replace_private};
pub(crate) use ring::KeyRing;
pub(crate) use sealed::{GUESS_COST_DEFAULT, GuessCost, Protection, UnsealError};

use sealed::{Contents, FILE_BYTES_MAX, IMPORTED_MAX, Lock, StoreKey};
use seedbank_formats::DatasetId;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why keys could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// This home has keys. Overwriting them would lose whatever only they open.
    #[error("{} exists; choose another home with SEEDBANK_HOME, or move that file away", .0.display())]
    Exists(PathBuf),
    /// The system gives no randomness.
    #[error("the system gave no randomness")]
    Randomness(#[source] getrandom::Error),
    /// No memory for Argon2.
    #[error(transparent)]
    Seal(#[from] UnsealError),
    /// The disk refused.
    #[error("{} could not be written", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why keys could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// This home has no keys yet.
    #[error("no keys at {}; make some with `seedbank key init`, or bring yours back with `seedbank key recover`", .0.display())]
    Missing(PathBuf),
    /// The disk refused.
    #[error("{} could not be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No passphrase to try.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// Try another passphrase.
    #[error("wrong passphrase for {}", .0.display())]
    WrongPassphrase(PathBuf),
    /// The file is no good; the phrase brings everything back but imported dataset keys.
    #[error("{} does not open; move it away, then restore a copy or use `seedbank key recover`", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: UnsealError,
    },
}

/// Why a dataset's key could not be added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The dataset is this owner's: its key is derived from the phrase.
    #[error("dataset {0} is your own; its key needs no import")]
    Own(DatasetId),
    /// There is no room.
    #[error("a key store holds keys of at most {IMPORTED_MAX} datasets of others")]
    Full,
    /// The system gives no randomness.
    #[error("the system gave no randomness")]
    Randomness(#[source] getrandom::Error),
    /// The disk refused; the store is as it was.
    #[error("{} could not be written", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How a new store is protected.
pub(crate) enum NewProtection<'a> {
    /// Not at all, which the person must have asked for by name.
    InsecureNone,
    /// By this passphrase, at this cost a guess.
    Passphrase(&'a Passphrase, GuessCost),
}

/// The sealed keys of one home.
#[derive(Debug, Clone)]
pub(crate) struct KeyStore {
    path: PathBuf,
}

impl KeyStore {
    /// The store in this file, which need not exist yet.
    pub(crate) fn new(path: PathBuf) -> KeyStore {
        KeyStore { path }
    }

    /// Whether there is a file.
    pub(crate) fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Seals a phrase into a new file.
    ///
    /// # Errors
    /// Any [`CreateError`].
    pub(crate) fn create(
        &self,
        phrase: &Phrase,
        protection: &NewProtection<'_>,
    ) -> Result<KeyRing, CreateError> {
        let written = |source| CreateError::Write { path: self.path.clone(), source };
        let _lock = self.lock().map_err(written)?;
        if self.exists() {
            return Err(CreateError::Exists(self.path.clone()));
        }
        let salt = random().map_err(CreateError::Randomness)?;
        let key = match protection {
            NewProtection::InsecureNone => Lock::new(Protection::None, salt).key(None)?,
            NewProtection::Passphrase(passphrase, cost) => {
                Lock::new(Protection::Passphrase(*cost), salt).key(Some(passphrase))?
            }
        };
        let contents = Contents { entropy: phrase.entropy(), imported: BTreeMap::new() };
        let file = key.seal(&contents, random().map_err(CreateError::Randomness)?);
        replace_private(&self.path, &file).map_err(written)?;
        Ok(KeyRing::new(phrase, contents.imported))
    }

    /// What opens the store, without opening it.
    ///
    /// # Errors
    /// [`OpenError::Missing`], [`OpenError::Read`] or [`OpenError::Unusable`].
    pub(crate) fn protection(&self) -> Result<Protection, OpenError> {
        let lock = Lock::of(&self.read()?).map_err(|source| self.unusable(source))?;
        Ok(lock.protection)
    }

    /// Opens the store. The passphrase's source is used only when the store has a passphrase.
    ///
    /// # Errors
    /// Any [`OpenError`].
    pub(crate) fn open(&self, source: &PassphraseSource) -> Result<KeyRing, OpenError> {
        let (_, contents) = self.unseal(source)?;
        Ok(KeyRing::new(&Phrase::from_entropy(&contents.entropy), contents.imported))
    }

    /// Adds the key of somebody else's dataset, or replaces an older one of the same dataset: the key epochs of both are
    /// kept.
    ///
    /// # Errors
    /// Any [`ImportError`].
    pub(crate) fn import(&self, source: &PassphraseSource, key: DatasetKey) -> Result<KeyRing, ImportError> {
        let written = |source| ImportError::Write { path: self.path.clone(), source };
        if !self.exists() {
            // Before the lock, which may have no folder to lie in.
            return Err(OpenError::Missing(self.path.clone()).into());
        }
        let _lock = self.lock().map_err(written)?;
        let (store_key, mut contents) = self.unseal(source)?;
        let phrase = Phrase::from_entropy(&contents.entropy);
        let dataset = key.dataset();
        if KeyRing::new(&phrase, BTreeMap::new()).identity().public() == key.owner() {
            return Err(ImportError::Own(dataset));
        }
        let merged = match contents.imported.get(&dataset) {
            Some(older) => key.with_secrets_of(older),
            None => key,
        };
        contents.imported.insert(dataset, merged);
        if contents.imported.len() > IMPORTED_MAX {
            return Err(ImportError::Full);
        }
        let file = store_key.seal(&contents, random().map_err(ImportError::Randomness)?);
        replace_private(&self.path, &file).map_err(written)?;
        Ok(KeyRing::new(&phrase, contents.imported))
    }

    fn unseal(&self, source: &PassphraseSource) -> Result<(StoreKey, Contents), OpenError> {
        let file = self.read()?;
        let lock = Lock::of(&file).map_err(|source| self.unusable(source))?;
        let key = match lock.protection {
            Protection::None => lock.key(None),
            Protection::Passphrase(_) => lock.key(Some(&source.read(PassphraseUse::Open)?)),
        };
        let key = key.map_err(|source| self.unusable(source))?;
        let contents = key.unseal(&file).map_err(|source| self.unusable(source))?;
        Ok((key, contents))
    }

    fn unusable(&self, source: UnsealError) -> OpenError {
        match source {
            UnsealError::WrongPassphrase => OpenError::WrongPassphrase(self.path.clone()),
            source => OpenError::Unusable { path: self.path.clone(), source },
        }
    }

    fn read(&self) -> Result<Vec<u8>, OpenError> {
        match read_at_most(&self.path, FILE_BYTES_MAX) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(OpenError::Missing(self.path.clone()))
            }
            Err(source) => Err(OpenError::Read { path: self.path.clone(), source }),
        }
    }

    /// Held while the file is replaced: of two imports at once, neither is lost.
    fn lock(&self) -> io::Result<File> {
        let path = self.path.with_extension("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    }
}

fn read_at_most(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others may read the key store; `chmod 600` it");
    }
    let mut bytes = Vec::new();
    // One byte more than allowed is read, and fails as trailing or damaged.
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{
        CreateError, DatasetKey, GuessCost, ImportError, KeyStore, NewProtection, OpenError, Passphrase,
        PassphraseSource, Phrase, Protection,
    };
    use crate::home::Home;
    use seedbank_formats::PublicKey;
    use seedbank_formats::keys::{DatasetSecret, KeyEpoch};
    use seedbank_store::testing::{MemDisk, Sweep};
    use seedbank_testkit::recording::{record_test, write_out};
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use zeroize::Zeroizing;

    /// The cheapest that Argon2 allows.
    const CHEAP: GuessCost = GuessCost { memory_kib: 8, passes: 1, lanes: 1 };

    fn given(text: &str) -> PassphraseSource {
        PassphraseSource::choose(None, Some(text.into()))
    }

    /// A source that fails the test when it is used.
    fn never() -> PassphraseSource {
        PassphraseSource::File("never/asked".into())
    }

    fn store(folder: &tempfile::TempDir) -> KeyStore {
        KeyStore::new(folder.path().join("keys.sealed"))
    }

    fn protected_store(folder: &tempfile::TempDir) -> KeyStore {
        let store = store(folder);
        let passphrase = Passphrase::new(Zeroizing::new(b"horse".to_vec())).unwrap();
        store
            .create(&Phrase::from_entropy(&[1; 32]), &NewProtection::Passphrase(&passphrase, CHEAP))
            .unwrap();
        store
    }

    fn recorded_home(root: &Path) -> Home {
        Home::resolve(Some(&root.join("data/home")), None).unwrap()
    }

    #[test]
    #[ignore = "the history that another test records"]
    fn recorded_history() {
        let Some(root) = std::env::var_os("RECORDED_ROOT") else { return };
        let home = recorded_home(Path::new(&root));
        let mut marks = std::fs::File::create(std::env::var_os("RECORDED_MARKS").unwrap()).unwrap();
        home.create().unwrap();
        let store = KeyStore::new(home.key_file());
        store.create(&Phrase::from_entropy(&[1; 32]), &NewProtection::InsecureNone).unwrap();
        writeln!(marks, "made").unwrap();
        store.import(&never(), foreign_key(1, &[0])).unwrap();
        writeln!(marks, "changed").unwrap();
    }

    /// The store is there once it was said to be, as it was before a change or after it.
    fn check(disk: &MemDisk, marks: &[String]) -> Result<(), String> {
        let left = tempfile::tempdir().unwrap();
        write_out(disk, left.path());
        let store = KeyStore::new(recorded_home(left.path()).key_file());
        if !store.exists() {
            return if marks.is_empty() { Ok(()) } else { Err("it is gone".to_owned()) };
        }
        let imported = store.open(&never()).map_err(|error| error.to_string())?.imported().len();
        if imported + 1 < marks.len() { Err("the change is gone".to_owned()) } else { Ok(()) }
    }

    #[test]
    fn power_failing_at_any_call_leaves_the_old_keys_or_the_new() {
        let folder = tempfile::tempdir().unwrap();
        let history = "keystore::tests::recorded_history";
        let Some(recording) = record_test(folder.path(), history) else { return };
        let sweep = Sweep { subsets_of_max: 6, samples: 30, tears_max: 4 };
        let states = recording.each_crash(sweep, 1, &mut check).unwrap_or_else(|broken| panic!("{broken}"));
        println!("{states} disks after {} calls", recording.len());
        assert!(states > 30, "{states}");
        for wanted in ["/", "data/", "data/home/", "data/home/keys.sealed.new"] {
            let without = recording.without_syncs(|path| path == wanted);
            assert!(without.each_crash(sweep, 1, &mut check).is_err(), "{wanted} need not be synced");
        }
    }

    fn foreign_key(salt: u8, epochs: &[u32]) -> DatasetKey {
        let secrets: BTreeMap<_, _> = epochs
            .iter()
            .map(|epoch| (KeyEpoch(*epoch), DatasetSecret::new([u8::try_from(*epoch).unwrap(); 32])))
            .collect();
        DatasetKey::new(PublicKey([9; 32]), [salt; 32], secrets, "notes", Vec::new()).unwrap()
    }

    #[test]
    fn no_secret_is_shown_by_what_holds_it() {
        let phrase = Phrase::from_entropy(&[0x5a; 32]);
        let words = phrase.words();
        let passphrase = Passphrase::new(Zeroizing::new(b"horse".to_vec())).unwrap();
        let key = foreign_key(1, &[65, 66]);
        let ring = super::KeyRing::new(&phrase, BTreeMap::from([(key.dataset(), key.clone())]));
        let shown = format!("{phrase:?} {passphrase:?} {key:?} {ring:?}");
        let first = words.split(' ').next().unwrap();
        for secret in [first, "horse", "5a5a", "90, 90", "4141", "65, 65", "4242", "66, 66"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }

    #[test]
    fn keys_come_back_with_the_right_passphrase_only() {
        let folder = tempfile::tempdir().unwrap();
        let store = protected_store(&folder);
        assert_eq!(store.protection().unwrap(), Protection::Passphrase(CHEAP));
        let ring = store.open(&given("horse")).unwrap();
        let expected = super::KeyRing::new(&Phrase::from_entropy(&[1; 32]), BTreeMap::new());
        assert_eq!(ring.identity().public(), expected.identity().public());
        assert!(matches!(store.open(&given("house")).unwrap_err(), OpenError::WrongPassphrase(_)));
        assert!(matches!(store.open(&never()).unwrap_err(), OpenError::Passphrase(_)));
    }

    #[test]
    fn store_without_passphrase_never_asks() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        store.create(&Phrase::from_entropy(&[1; 32]), &NewProtection::InsecureNone).unwrap();
        assert_eq!(store.protection().unwrap(), Protection::None);
        store.open(&never()).unwrap();
        store.import(&never(), foreign_key(1, &[0])).unwrap();
    }

    #[test]
    fn keys_are_never_overwritten_and_only_their_owner_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = protected_store(&folder);
        let again = store.create(&Phrase::from_entropy(&[2; 32]), &NewProtection::InsecureNone).unwrap_err();
        assert!(matches!(again, CreateError::Exists(_)));
        let mode = std::fs::metadata(folder.path().join("keys.sealed")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        store.open(&given("horse")).unwrap();
    }

    #[test]
    fn missing_damaged_and_foreign_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.sealed");
        assert!(matches!(store(&folder).open(&never()).unwrap_err(), OpenError::Missing(_)));
        let store = protected_store(&folder);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[60] ^= 4;
        std::fs::write(&path, &bytes).unwrap();
        let damaged = store.open(&given("horse")).unwrap_err();
        assert!(std::error::Error::source(&damaged).unwrap().to_string().contains("damaged"));
        std::fs::write(&path, b"").unwrap();
        assert!(matches!(store.open(&given("horse")).unwrap_err(), OpenError::Unusable { .. }));
        std::fs::write(&path, b"-----BEGIN SOMETHING ELSE-----").unwrap();
        let foreign = store.open(&given("horse")).unwrap_err();
        assert!(std::error::Error::source(&foreign).unwrap().to_string().contains("magic"));
    }

    #[test]
    fn imported_keys_stay_and_epochs_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = protected_store(&folder);
        let (one, other) = (foreign_key(1, &[0, 1]), foreign_key(2, &[0]));
        store.import(&given("horse"), one.clone()).unwrap();
        store.import(&given("horse"), other.clone()).unwrap();
        store.import(&given("horse"), foreign_key(1, &[1, 2])).unwrap();
        let ring = store.open(&given("horse")).unwrap();
        assert_eq!(ring.imported().len(), 2);
        let epochs: Vec<u32> =
            ring.imported()[&one.dataset()].secrets().keys().map(|epoch| epoch.0).collect();
        assert_eq!(epochs, [0, 1, 2]);
        assert_eq!(ring.imported()[&other.dataset()].name(), "notes");
    }

    #[test]
    fn imports_at_the_same_time_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = protected_store(&folder);
        std::thread::scope(|scope| {
            for salt in 0..8 {
                let store = &store;
                scope.spawn(move || store.import(&given("horse"), foreign_key(salt, &[0])).unwrap());
            }
        });
        assert_eq!(store.open(&given("horse")).unwrap().imported().len(), 8);
    }

    #[test]
    fn own_dataset_is_not_imported() {
        let folder = tempfile::tempdir().unwrap();
        let store = protected_store(&folder);
        let own =
            store.open(&given("horse")).unwrap().export([4; 32], KeyEpoch(0), "mine", Vec::new()).unwrap();
        assert!(matches!(store.import(&given("horse"), own).unwrap_err(), ImportError::Own(_)));
    }
}
