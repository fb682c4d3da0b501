//! Reader tokens that were checked lately.
//!
//! A signature takes longer to check than a small range takes to read, and a reader shows the same token with every
//! request. Only what a token says is remembered: whether it is still good, who shows it and what it opens is compared
//! each time.

use seedbank_formats::receipt::{ReaderToken, SignedError};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Tokens in one generation; two generations are kept. At some 300 bytes each, a megabyte.
const GENERATION_TOKENS_MAX: usize = 2_048;

/// Remembers checked tokens, and forgets those that nobody showed for a while.
#[derive(Debug, Default)]
pub(crate) struct CheckedTokens {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Vec<u8>, ReaderToken>,
    old: HashMap<Vec<u8>, ReaderToken>,
}

impl Generations {
    /// The token, which counts as young from now on.
    fn get(&mut self, signed: &[u8]) -> Option<ReaderToken> {
        if let Some(token) = self.young.get(signed) {
            return Some(token.clone());
        }
        let (signed, token) = self.old.remove_entry(signed)?;
        self.insert(signed, token.clone());
        Some(token)
    }

    fn insert(&mut self, signed: Vec<u8>, token: ReaderToken) {
        if self.young.len() >= GENERATION_TOKENS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(signed, token);
    }
}

impl CheckedTokens {
    /// What a signed token says, once its signature was found right.
    ///
    /// # Errors
    /// [`SignedError`], which is not remembered.
    pub(crate) fn check(&self, signed: &[u8]) -> Result<ReaderToken, SignedError> {
        if let Some(token) = self.lock().get(signed) {
            return Ok(token);
        }
        let token = ReaderToken::check(signed)?;
        self.lock().insert(signed.to_vec(), token.clone());
        Ok(token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{CheckedTokens, GENERATION_TOKENS_MAX, Generations};
    use seedbank_formats::keys::SigningKey;
    use seedbank_formats::receipt::ReaderToken;
    use seedbank_formats::{PublicKey, Timestamp};

    fn token(until: u64) -> ReaderToken {
        ReaderToken { reader: PublicKey([1; 32]), bearer: PublicKey([2; 32]), until: Timestamp(until) }
    }

    #[test]
    fn remembered_token_is_the_one_that_was_checked() {
        let key = SigningKey::from_seed([5; 32]);
        let token = ReaderToken { reader: key.public(), ..token(9) };
        let signed = token.sign(&key);
        let tokens = CheckedTokens::default();
        assert_eq!(tokens.check(&signed).unwrap(), token);
        assert_eq!(tokens.check(&signed).unwrap(), token);
        let mut forged = signed.clone();
        forged[40] ^= 1;
        assert!(tokens.check(&forged).is_err());
        assert_eq!(tokens.lock().young.len(), 1);
    }

    #[test]
    fn tokens_in_use_outlive_a_flood_and_the_rest_is_bounded() {
        let mut generations = Generations::default();
        generations.insert(b"used".to_vec(), token(0));
        for number in 0..5 * GENERATION_TOKENS_MAX {
            generations.insert(number.to_le_bytes().to_vec(), token(1));
            if number % 1_000 == 0 {
                assert!(generations.get(b"used").is_some());
            }
        }
        let count = generations.young.len() + generations.old.len();
        assert!(count <= 2 * GENERATION_TOKENS_MAX, "{count}");
    }
}
