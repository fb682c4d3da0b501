//! What a provider asks, signed, and until when it keeps its word.

use crate::abi::Words;
use crate::address::Address;
use crate::keccak::keccak256;
use crate::price::Prices;
use crate::signature::NobodysSignature;
use crate::typed::{Domain, Name, Signed, Typed};
use seedbank_formats::Timestamp;

/// A provider's prices. The domain that it is signed for names chain and market.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quote {
    /// The provider's wallet: it, or its operator, signs.
    pub provider: Address,
    /// For keeping and for reading.
    pub prices: Prices,
    /// The shortest agreement that the provider opens.
    pub epochs_min: u32,
    /// The provider opens agreements at these prices until then.
    pub expires: Timestamp,
    /// Bytes that a reader may owe before it pays.
    pub credit_bytes: u64,
}

const TYPE: &str = "Quote(address provider,uint128 rentPerGibMonth,uint128 egressPerGib,uint32 epochsMin,\
    uint64 expires,uint64 creditBytes)";

impl Typed for Quote {
    fn digest(&self, domain: &Domain) -> [u8; 32] {
        let fields = Words::with_capacity(7)
            .bytes32(&keccak256(TYPE.as_bytes()))
            .address(&self.provider)
            .uint(self.prices.rent_per_gib_month.0)
            .uint(self.prices.egress_per_gib.0)
            .uint(self.epochs_min)
            .uint(self.expires.0)
            .uint(self.credit_bytes);
        domain.digest(Name::Quote, &fields)
    }
}

/// Why a quote is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// Not signed by the provider that it names, or for another market or chain. Nothing in it may be believed.
    #[error("the quote is not signed by its provider for this market")]
    Signature,
    /// Ask for a new one.
    #[error("the quote expired at {0}")]
    Expired(Timestamp),
    /// Go elsewhere, or raise the ceiling.
    #[error("the provider asks more than the ceiling")]
    Ceiling,
    /// The provider wants a longer agreement.
    #[error("the provider opens agreements of {0} epochs or more")]
    Epochs(u32),
}

/// What a client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The most that it pays.
    pub ceiling: Prices,
    /// For how long it wants the data kept.
    pub epochs: u32,
}

impl Signed<Quote> {
    /// Checks that the quote is `provider`'s (by its own key or its operator's, as the registry has it), holds at `now`, and asks no
    /// more than what is wanted.
    ///
    /// # Errors
    /// [`QuoteError`], the first reason of signature, expiry, ceiling and term.
    pub fn check(
        &self,
        domain: &Domain,
        operator: Address,
        now: Timestamp,
        wanted: &Wanted,
    ) -> Result<&Quote, QuoteError> {
        let quote = &self.message;
        let signer = self.signer(domain).map_err(|NobodysSignature| QuoteError::Signature)?;
        if signer != quote.provider && signer != operator {
            return Err(QuoteError::Signature);
        }
        if now > quote.expires {
            return Err(QuoteError::Expired(quote.expires));
        }
        if !quote.prices.within(&wanted.ceiling) {
            return Err(QuoteError::Ceiling);
        }
        if wanted.epochs < quote.epochs_min {
            return Err(QuoteError::Epochs(quote.epochs_min));
        }
        Ok(quote)
    }
}

#[cfg(test)]
mod tests {
    use super::{Quote, QuoteError, Wanted};
    use crate::address::Address;
    use crate::amount::Amount;
    use crate::price::Prices;
    use crate::typed::{Domain, Typed};
    use crate::wallet::WalletKey;
    use seedbank_formats::Timestamp;

    #[test]
    fn quotes_are_taken_from_their_provider_in_time_and_below_the_ceiling() {
        let domain = Domain { chain_id: 31_337, contract: Address([5; 20]) };
        let (wallet, operator, stranger) = {
            let key = |byte| WalletKey::from_secret(&[byte; 32]).unwrap();
            (key(1), key(2), key(3))
        };
        let prices = Prices { rent_per_gib_month: Amount(100), egress_per_gib: Amount(10) };
        let quote = Quote {
            provider: wallet.address(),
            prices,
            epochs_min: 14,
            expires: Timestamp(1_000),
            credit_bytes: 1 << 20,
        };
        let wanted = Wanted { ceiling: prices, epochs: 14 };
        let check = |domain: &Domain, key: &WalletKey, now, wanted: &Wanted| {
            let signed = quote.clone().sign(&Domain { chain_id: 31_337, contract: Address([5; 20]) }, key);
            signed.check(domain, operator.address(), Timestamp(now), wanted).map(|_| ())
        };
        assert_eq!(check(&domain, &wallet, 1_000, &wanted), Ok(()));
        assert_eq!(check(&domain, &operator, 1_000, &wanted), Ok(()));
        assert_eq!(check(&domain, &stranger, 1_000, &wanted), Err(QuoteError::Signature));
        let elsewhere = [Domain { chain_id: 1, ..domain }, Domain { contract: Address([6; 20]), ..domain }];
        for other in elsewhere {
            assert_eq!(check(&other, &wallet, 1_000, &wanted), Err(QuoteError::Signature));
        }
        assert_eq!(check(&domain, &wallet, 1_001, &wanted), Err(QuoteError::Expired(Timestamp(1_000))));
        let ceiling = Prices { egress_per_gib: Amount(9), ..prices };
        assert_eq!(check(&domain, &wallet, 1_000, &Wanted { ceiling, ..wanted }), Err(QuoteError::Ceiling));
        assert_eq!(
            check(&domain, &wallet, 1_000, &Wanted { epochs: 13, ..wanted }),
            Err(QuoteError::Epochs(14))
        );
    }
}
