//! The recovery phrase: 24 English words (BIP-39) that stand for 256 random bits, and for everything derived from them.

use bip39::{Error, Language, Mnemonic};
use std::fmt;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// How many words a phrase has: the strongest that BIP-39 knows. Shorter ones are refused.
const WORDS: usize = 24;

/// Far more than 24 words can take.
const FILE_BYTES_MAX: u64 = 4096;

/// Why there is no phrase.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PhraseError {
    /// Words are missing or too many; look at the paper again.
    #[error("a recovery phrase has 24 words, this has {found}")]
    WordCount {
        /// Words found.
        found: usize,
    },
    /// A word is not on the list. The word itself is not repeated: it may be half of a secret.
    #[error("word {position} is not in the BIP-39 English word list; check its spelling")]
    UnknownWord {
        /// Which word, counted from 1.
        position: usize,
    },
    /// All words exist, but not together: one was swapped or mistaken.
    #[error("these 24 words don't belong together: one is wrong or two are swapped")]
    Checksum,
    /// Nobody to ask.
    #[error("no terminal to ask for the recovery phrase; give it with --phrase-file FILE")]
    NoTerminal,
    /// The terminal failed.
    #[error("the recovery phrase could not be read from the terminal")]
    Terminal(#[source] io::Error),
    /// The file can't be read, or is no text.
    #[error("{} could not be read", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A recovery phrase. Wiped from memory when dropped.
pub(crate) struct Phrase(Mnemonic);

impl Phrase {
    /// A new phrase from the system's randomness.
    ///
    /// # Errors
    /// The system has none to give.
    pub(crate) fn generate() -> Result<Phrase, getrandom::Error> {
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(entropy.as_mut_slice())?;
        Ok(Phrase::from_entropy(&entropy))
    }

    /// The phrase of these bits.
    pub(crate) fn from_entropy(entropy: &[u8; 32]) -> Phrase {
        Phrase(Mnemonic::from_entropy(entropy).expect("256 bits are a phrase of 24 words"))
    }

    /// The bits of this phrase.
    pub(crate) fn entropy(&self) -> Zeroizing<[u8; 32]> {
        let (mut padded, len) = self.0.to_entropy_array();
        let entropy = *padded.first_chunk().expect("the array has 33 bytes");
        debug_assert_eq!(len, 32, "a phrase of 24 words has 256 bits");
        padded.zeroize();
        Zeroizing::new(entropy)
    }

    /// Reads a phrase as a person wrote it: any case, any white space between the words.
    ///
    /// # Errors
    /// [`PhraseError::WordCount`], [`PhraseError::UnknownWord`] or [`PhraseError::Checksum`].
    pub(crate) fn parse(text: &str) -> Result<Phrase, PhraseError> {
        let lower = Zeroizing::new(text.to_lowercase());
        let found = lower.split_whitespace().count();
        if found != WORDS {
            return Err(PhraseError::WordCount { found });
        }
        match Mnemonic::parse_in_normalized(Language::English, &lower) {
            Ok(mnemonic) => Ok(Phrase(mnemonic)),
            Err(Error::UnknownWord(index)) => Err(PhraseError::UnknownWord { position: index + 1 }),
            Err(Error::BadWordCount(found)) => Err(PhraseError::WordCount { found }),
            // The other two can't happen with 24 words of one named language.
            Err(Error::InvalidChecksum | Error::BadEntropyBitCount(_) | Error::AmbiguousLanguages(_)) => {
                Err(PhraseError::Checksum)
            }
        }
    }

    /// Reads the phrase from a file, or asks for it without showing it.
    ///
    /// # Errors
    /// Any [`PhraseError`].
    pub(crate) fn read(file: Option<&Path>) -> Result<Phrase, PhraseError> {
        let text = match file {
            Some(path) => read_file(path)?,
            None => ask()?,
        };
        Phrase::parse(&text)
    }

    /// The words, separated by spaces.
    pub(crate) fn words(&self) -> Zeroizing<String> {
        // Room for the longest words: a text that grows leaves copies behind.
        let mut words = Zeroizing::new(String::with_capacity(WORDS * 9));
        for (number, word) in self.0.words().enumerate() {
            if number > 0 {
                words.push(' ');
            }
            words.push_str(word);
        }
        words
    }

    /// The 64 bytes that BIP-39 derives from the phrase, without its optional passphrase.
    pub(super) fn seed(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.0.to_seed_normalized(""))
    }
}

impl fmt::Debug for Phrase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Phrase(..)")
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, PhraseError> {
    let room = usize::try_from(FILE_BYTES_MAX).expect("a few thousand");
    let mut text = Zeroizing::new(String::with_capacity(room));
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|source| PhraseError::File { path: path.to_owned(), source })?;
    Ok(text)
}

fn ask() -> Result<Zeroizing<String>, PhraseError> {
    if !io::stdin().is_terminal() {
        return Err(PhraseError::NoTerminal);
    }
    rpassword::prompt_password("Recovery phrase (24 words, not shown): ")
        .map(Zeroizing::new)
        .map_err(PhraseError::Terminal)
}

#[cfg(test)]
mod tests {
    use super::{Phrase, PhraseError};

    /// The first vector of 256 bits that BIP-39 publishes.
    const ZERO_PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
        abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

    #[test]
    fn words_and_bits_are_those_of_bip_39() {
        let phrase = Phrase::from_entropy(&[0; 32]);
        assert_eq!(*phrase.words(), ZERO_PHRASE);
        assert_eq!(*Phrase::parse(ZERO_PHRASE).unwrap().entropy(), [0; 32]);
        assert_eq!(phrase.seed()[..4], [0x40, 0x8b, 0x28, 0x5c]);
    }

    #[test]
    fn case_and_white_space_do_not_matter() {
        let phrase = Phrase::from_entropy(&[0x5a; 32]);
        let written = format!("\n {} \r\n", phrase.words().to_uppercase().replace(' ', "\t \n"));
        assert_eq!(*Phrase::parse(&written).unwrap().entropy(), [0x5a; 32]);
    }

    #[test]
    fn what_is_wrong_with_a_phrase_is_told_without_repeating_it() {
        let short = Phrase::parse("abandon art").unwrap_err();
        assert!(matches!(short, PhraseError::WordCount { found: 2 }));
        let misspelt = Phrase::parse(&ZERO_PHRASE.replace("art", "artt")).unwrap_err();
        assert!(matches!(misspelt, PhraseError::UnknownWord { position: 24 }));
        assert!(!misspelt.to_string().contains("artt"));
        let swapped = Phrase::parse(&ZERO_PHRASE.replace("art", "zoo")).unwrap_err();
        assert!(matches!(swapped, PhraseError::Checksum));
    }

    #[test]
    fn two_new_phrases_differ() {
        let (one, other) = (Phrase::generate().unwrap(), Phrase::generate().unwrap());
        assert_ne!(*one.words(), *other.words());
        assert_eq!(format!("{one:?}"), "Phrase(..)");
    }

    #[test]
    fn phrase_file_is_read_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phrase");
        assert!(Phrase::read(Some(&path)).unwrap_err().to_string().contains("phrase"));
        std::fs::write(&path, format!("{ZERO_PHRASE}\n")).unwrap();
        assert_eq!(*Phrase::read(Some(&path)).unwrap().entropy(), [0; 32]);
    }
}
