//! The passphrase that opens the key store, and the three places it may come from: a terminal, a file, the environment.
//! Never the command line, which every process of the machine can read.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The environment variable that may hold the passphrase.
pub(crate) const PASSPHRASE_VARIABLE: &str = "SEEDBANK_PASSPHRASE";

/// Nobody types more; a file with a longer first line is the wrong file.
const BYTES_MAX: usize = 1024;

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassphraseError {
    /// Nobody to ask.
    #[error(
        "no terminal to ask for the passphrase; give it with --passphrase-file FILE or SEEDBANK_PASSPHRASE"
    )]
    NoTerminal,
    /// The terminal failed.
    #[error("the passphrase could not be read from the terminal")]
    Terminal(#[source] io::Error),
    /// The file can't be read.
    #[error("the passphrase file {} could not be read", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An empty one protects nothing; say so explicitly instead.
    #[error("the passphrase is empty; --insecure-no-passphrase makes a key store without one")]
    Empty,
    /// The first line is far too long to be a passphrase.
    #[error("the passphrase is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// The two entries differ; ask again.
    #[error("the two passphrases differ")]
    Mismatch,
}

/// A passphrase: bytes as typed, at least one. Wiped from memory when dropped.
pub(crate) struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Checks the length; nothing else, since strength can't be measured from here.
    ///
    /// # Errors
    /// [`PassphraseError::Empty`] or [`PassphraseError::TooLong`].
    pub(crate) fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Passphrase, PassphraseError> {
        match bytes.len() {
            0 => Err(PassphraseError::Empty),
            1..=BYTES_MAX => Ok(Passphrase(bytes)),
            _ => Err(PassphraseError::TooLong),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Passphrase(..)")
    }
}

/// Where the passphrase comes from, if the key store has one. Nothing is read or asked before it is needed.
pub(crate) enum PassphraseSource {
    /// The first line of a file.
    File(PathBuf),
    /// The value of [`PASSPHRASE_VARIABLE`].
    Environment(Zeroizing<Vec<u8>>),
    /// The terminal, without showing it.
    Prompt,
}

/// What the passphrase is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassphraseUse {
    /// To open what is there.
    Open,
    /// To protect something new: a person types it twice.
    Choose,
}

impl PassphraseSource {
    /// The file when one was named, else the environment's value when there is one, else the terminal.
    pub(crate) fn choose(file: Option<&Path>, environment: Option<OsString>) -> PassphraseSource {
        match (file, environment) {
            (Some(path), _) => PassphraseSource::File(path.to_owned()),
            (None, Some(value)) => PassphraseSource::Environment(Zeroizing::new(value.into_vec())),
            (None, None) => PassphraseSource::Prompt,
        }
    }

    /// Gets the passphrase.
    ///
    /// # Errors
    /// Any [`PassphraseError`].
    pub(crate) fn read(&self, purpose: PassphraseUse) -> Result<Passphrase, PassphraseError> {
        match self {
            PassphraseSource::File(path) => Passphrase::new(first_line(path)?),
            PassphraseSource::Environment(value) => Passphrase::new(value.clone()),
            PassphraseSource::Prompt => ask(purpose),
        }
    }
}

fn first_line(path: &Path) -> Result<Zeroizing<Vec<u8>>, PassphraseError> {
    // Two more than a passphrase may have, for the line's end: what is longer shows as too long. One buffer from the
    // start: those of a reader, or of a vector that grew, would keep copies.
    let mut line = Zeroizing::new(vec![0; BYTES_MAX + 2]);
    let failed = |source| PassphraseError::File { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut filled = 0;
    while filled < line.len() && !line[..filled].contains(&b'\n') {
        match file.read(&mut line[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let end = line[..filled].iter().position(|byte| *byte == b'\n');
    line.truncate(end.unwrap_or(filled));
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

fn ask(purpose: PassphraseUse) -> Result<Passphrase, PassphraseError> {
    if !io::stdin().is_terminal() {
        return Err(PassphraseError::NoTerminal);
    }
    let prompt = |text: &str| {
        rpassword::prompt_password(text)
            .map(|line| Zeroizing::new(line.into_bytes()))
            .map_err(PassphraseError::Terminal)
    };
    let passphrase = Passphrase::new(prompt("Passphrase of the key store: ")?)?;
    if purpose == PassphraseUse::Choose && *prompt("The same again: ")? != *passphrase.0 {
        return Err(PassphraseError::Mismatch);
    }
    Ok(passphrase)
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, PassphraseError, PassphraseSource, PassphraseUse};
    use std::path::Path;

    fn from_file(contents: &[u8]) -> Result<Vec<u8>, PassphraseError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        std::fs::write(&path, contents).unwrap();
        let source = PassphraseSource::choose(Some(&path), Some("ignored".into()));
        source.read(PassphraseUse::Choose).map(|passphrase| passphrase.as_bytes().to_vec())
    }

    #[test]
    fn file_gives_its_first_line_without_the_line_end() {
        assert_eq!(from_file(b"horse staple\nnot this\n").unwrap(), b"horse staple");
        assert_eq!(from_file(b"horse\r\n").unwrap(), b"horse");
        assert_eq!(from_file(b" no line end ").unwrap(), b" no line end ");
        assert_eq!(from_file(&[b'x'; BYTES_MAX]).unwrap(), [b'x'; BYTES_MAX]);
    }

    #[test]
    fn empty_and_endless_passphrases_are_refused() {
        assert!(matches!(from_file(b"\n").unwrap_err(), PassphraseError::Empty));
        assert!(matches!(from_file(&[b'x'; 5000]).unwrap_err(), PassphraseError::TooLong));
        let empty = PassphraseSource::choose(None, Some("".into()));
        assert!(matches!(empty.read(PassphraseUse::Open).unwrap_err(), PassphraseError::Empty));
    }

    #[test]
    fn environment_is_used_when_no_file_was_named() {
        let source = PassphraseSource::choose(None, Some("from outside".into()));
        assert_eq!(source.read(PassphraseUse::Open).unwrap().as_bytes(), b"from outside");
        assert!(matches!(PassphraseSource::choose(None, None), PassphraseSource::Prompt));
    }

    #[test]
    fn missing_file_is_named() {
        let source = PassphraseSource::choose(Some(Path::new("no/such/file")), None);
        assert!(source.read(PassphraseUse::Open).unwrap_err().to_string().contains("no/such/file"));
    }
}
