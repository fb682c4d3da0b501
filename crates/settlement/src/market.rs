//! `StorageMarket`: balances, agreements, proofs, misses and questions. What can be read of it is here; what can be done is in
//! [`calls`](MarketCalls).

mod calls;

pub use calls::{Activation, MarketCalls, Proof, Revisions};
pub use seedbank_agreement::market::{Question, Skip, Terms};

use crate::abi::market::{FragmentSets, IStorageMarket, StorageMarket as Abi};
use crate::chain::{Chain, ReadError};
use crate::convert::{amount, from_abi, rate, somebody, to_abi};
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, SetRoot};
use seedbank_formats::Timestamp;

/// An open agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// Who pays.
    pub client: Address,
    /// Who stores.
    pub provider: Address,
    /// Number of the last revision; a new one must be higher.
    pub sequence: u32,
    /// Whether somebody ended it: no revision can make it last longer.
    pub ending: bool,
    /// Bytes that no revision may drop before `retained_until`.
    pub retained_bytes: u64,
    /// See `retained_bytes`.
    pub retained_until: Epoch,
    /// What is locked for it, less what was earned before the current terms.
    pub escrow: Amount,
    /// What holds now; None before the agreement's first epoch.
    pub current: Option<Terms>,
    /// What holds from the next epoch on, if that was agreed.
    pub next: Option<Terms>,
}

impl Agreement {
    /// The terms that were agreed last.
    #[must_use]
    pub fn latest(&self) -> Option<&Terms> {
        self.next.as_ref().or(self.current.as_ref())
    }
}

/// Everything that one provider holds, proven together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofSet {
    /// The epoch that is being worked on: all before it are closed.
    pub epoch: Epoch,
    /// Agreements whose terms change with `epoch` and were not moved on yet.
    pub due: u32,
    /// Open agreements.
    pub agreements: u32,
    /// Epochs missed one after the other.
    pub misses: u32,
    /// The first epoch after the set died.
    pub dead_at: Option<Epoch>,
    /// What `epoch` earns if it is proven.
    pub rate: Amount,
    /// The same if every agreement has the dearer of its terms: what the stake must cover.
    pub rate_max: Amount,
    /// Questions of clients that were not answered yet.
    pub questions: u32,
}

/// A client's announcement that it takes back reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The epoch of the announcement.
    pub epoch: Epoch,
    /// How much.
    pub sum: Amount,
}

/// One byte that the current epoch asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// In which agreement's set.
    pub agreement: AgreementId,
    /// Where in that set.
    pub offset: u64,
}

/// What became of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Paid.
    Proven,
    /// Slashed.
    Missed,
    /// Neither: not over, not recorded yet, void, or nothing was held.
    Nothing,
}

/// What was earned with an agreement, and what is still locked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// With the current terms.
    pub earned: Amount,
    /// For what comes.
    pub locked: Amount,
}

/// A client's hot key: how much escrow it may still commit, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority {
    /// Units.
    pub cap: Amount,
    /// The last second in which it may sign.
    pub until: Timestamp,
}

/// Questions to the market. See [`Chain::market`].
#[derive(Clone, Copy)]
pub struct MarketReads<'a>(&'a Chain);

impl Chain {
    /// Questions to the market.
    #[must_use]
    pub fn market(&self) -> MarketReads<'_> {
        MarketReads(self)
    }
}

impl MarketReads<'_> {
    /// What an account may withdraw or commit.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn free(self, account: Address) -> Result<Amount, ReadError> {
        self.read(Abi::freeCall { account: to_abi(account) }).await.map(amount)
    }

    /// What a client's hot key may do.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn authority(self, client: Address, signer: Address) -> Result<Authority, ReadError> {
        let call = Abi::authoritiesCall { client: to_abi(client), signer: to_abi(signer) };
        let found = self.read(call).await?;
        Ok(Authority { cap: Amount(found.cap), until: Timestamp(found.until) })
    }

    /// The open agreement of a client with a provider.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn agreement_of(
        self,
        client: Address,
        provider: Address,
    ) -> Result<Option<AgreementId>, ReadError> {
        let call = Abi::agreementOfCall { client: to_abi(client), provider: to_abi(provider) };
        self.read(call).await.map(|id| (id != 0).then_some(AgreementId(id)))
    }

    /// An agreement as it stands; None if it isn't open.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn get_agreement(self, id: AgreementId) -> Result<Option<Agreement>, ReadError> {
        let found = self.read(Abi::getAgreementCall { id: id.0 }).await?;
        let Some(client) = somebody(found.client) else { return Ok(None) };
        Ok(Some(Agreement {
            client,
            provider: from_abi(found.provider),
            sequence: found.sequence,
            ending: found.ending,
            retained_bytes: found.retainedBytes,
            retained_until: Epoch(found.retainedUntil),
            escrow: Amount(found.escrow),
            current: terms(&found.current),
            next: terms(&found.next),
        }))
    }

    /// A provider's set as it stands; None if it holds nothing.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn get_set(self, provider: Address) -> Result<Option<ProofSet>, ReadError> {
        let found = self.read(Abi::getSetCall { provider: to_abi(provider) }).await?;
        let set = found._0;
        if set.agreements == 0 {
            return Ok(None);
        }
        Ok(Some(ProofSet {
            epoch: Epoch(set.epoch),
            due: set.due,
            agreements: set.agreements,
            misses: set.misses,
            dead_at: (set.deadAt != 0).then_some(Epoch(set.deadAt)),
            rate: Amount(found.rate),
            rate_max: Amount(set.rateMax),
            questions: set.questions,
        }))
    }

    /// The question about an agreement.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn get_question(self, id: AgreementId) -> Result<Option<Question>, ReadError> {
        let found = self.read(Abi::getQuestionCall { id: id.0 }).await?;
        Ok((found.epoch != 0).then_some(Question { epoch: Epoch(found.epoch), bond: Amount(found.bond) }))
    }

    /// The announced release of an agreement's reserve.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn get_release(self, id: AgreementId) -> Result<Option<Release>, ReadError> {
        let found = self.read(Abi::getReleaseCall { id: id.0 }).await?;
        Ok((found.epoch != 0).then_some(Release { epoch: Epoch(found.epoch), sum: Amount(found.amount) }))
    }

    /// What became of a provider's epoch.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn outcome(self, provider: Address, epoch: Epoch) -> Result<Outcome, ReadError> {
        let found = self.read(Abi::outcomeCall { provider: to_abi(provider), epoch: epoch.0 }).await?;
        Ok(match (found.proven, found.missed) {
            (true, _) => Outcome::Proven,
            (false, true) => Outcome::Missed,
            (false, false) => Outcome::Nothing,
        })
    }

    /// How many agreements of a provider change with an epoch.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn changes_in(self, provider: Address, epoch: Epoch) -> Result<u32, ReadError> {
        self.read(Abi::changesInCall { provider: to_abi(provider), epoch: epoch.0 }).await
    }

    /// What was earned with an agreement and what is still locked for it.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn standing(self, id: AgreementId) -> Result<Standing, ReadError> {
        let found = self.read(Abi::standingCall { id: id.0 }).await?;
        Ok(Standing { earned: amount(found.earned), locked: amount(found.locked) })
    }

    /// Where the current epoch asks, in the order in which a proof must answer.
    ///
    /// # Errors
    /// [`ReadError::Refused`] with [`crate::Refusal::NoSeed`] until the seed is sealed.
    pub async fn challenges_of(self, provider: Address) -> Result<Vec<Challenge>, ReadError> {
        let found = self.read(Abi::challengesOfCall { provider: to_abi(provider) }).await?;
        let challenge = |(&id, &offset)| Challenge { agreement: AgreementId(id), offset };
        Ok(found.ids.iter().zip(&found.offsets).map(challenge).collect())
    }

    /// Where the question about an agreement asks, in the order in which an answer must show it.
    ///
    /// # Errors
    /// [`ReadError::Refused`] with [`crate::Refusal::NoSeed`] until its epoch's seed is sealed.
    pub async fn question_of(self, id: AgreementId) -> Result<Vec<u64>, ReadError> {
        self.read(Abi::questionOfCall { id: id.0 }).await
    }

    /// Stake that a provider must keep now.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn stake_needed(self, provider: Address) -> Result<Amount, ReadError> {
        self.read(Abi::stakeNeededCall { provider: to_abi(provider) }).await.map(amount)
    }

    async fn read<C: alloy_sol_types::SolCall>(self, call: C) -> Result<C::Return, ReadError> {
        self.0.read(self.0.deployment().market, call).await
    }
}

fn terms(found: &IStorageMarket::Terms) -> Option<Terms> {
    (found.from != 0).then(|| Terms {
        set_root: SetRoot(found.setRoot.0),
        size: found.size,
        rate_per_epoch: rate(found.ratePerEpoch),
        from: Epoch(found.from),
        end: Epoch(found.end),
    })
}

type SetPathAbi = FragmentSets::Path;
