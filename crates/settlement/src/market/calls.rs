//! What can be done in the market.

use super::{SetPathAbi, Skip};
use crate::abi::market::{IStorageMarket, StorageMarket as Abi};
use crate::convert::{rate_units, to_abi, units, word};
use crate::rpc::Receipt;
use crate::wallet::{Mined, SendError, Wallet};
use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{SolCall, SolEvent};
use seedbank_agreement::chunk_path::ChunkPath;
use seedbank_agreement::fragment_set::SetPath;
use seedbank_agreement::{Address, AgreementId, Amount, Proposal, Revision, Signature, Signed};
use seedbank_formats::Timestamp;

/// Calls of the market. See [`Wallet::market`].
#[derive(Clone, Copy)]
pub struct MarketCalls<'a>(&'a Wallet);

/// One challenged chunk: which fragment holds the challenged byte, and the chunk of that fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The fragment and its way to the set's root.
    pub fragment: SetPath,
    /// The chunk and its way to the fragment's id.
    pub chunk: ChunkPath,
}

/// What became of proposals, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The transaction.
    pub mined: Mined,
    /// The new agreement, or why there is none.
    pub agreements: Vec<Result<AgreementId, Skip>>,
}

/// What became of revisions, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revisions {
    /// The transaction.
    pub mined: Mined,
    /// Posted, or why not.
    pub revisions: Vec<Result<(), Skip>>,
}

impl Wallet {
    /// Calls of the market.
    #[must_use]
    pub fn market(&self) -> MarketCalls<'_> {
        MarketCalls(self)
    }
}

impl MarketCalls<'_> {
    /// Adds the wallet's tokens to an account's free balance. Approve them first.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn deposit(self, account: Address, sum: Amount) -> Result<Mined, SendError> {
        self.send_once(Abi::depositCall { account: to_abi(account), amount: units(sum) }).await
    }

    /// Sends the wallet's free tokens to `to`.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn withdraw(self, sum: Amount, to: Address) -> Result<Mined, SendError> {
        self.send_once(Abi::withdrawCall { amount: units(sum), to: to_abi(to) }).await
    }

    /// Lets `signer` sign proposals for the wallet that commit at most `cap` of escrow, and revisions, until then.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn authorize(self, signer: Address, cap: Amount, until: Timestamp) -> Result<Mined, SendError> {
        self.send(Abi::authorizeCall { signer: to_abi(signer), cap: cap.0, until: until.0 }).await
    }

    /// Opens agreements from clients' signed proposals, from the next epoch on.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn activate(self, proposals: &[Signed<Proposal>]) -> Result<Activation, SendError> {
        let call = Abi::activateCall {
            proposals: proposals.iter().map(|proposal| proposal_call(&proposal.message)).collect(),
            signatures: proposals.iter().map(|proposal| signature_call(&proposal.signature)).collect(),
        };
        let receipt = self.call(call).await?;
        Ok(Activation { mined: Mined::of(&receipt), agreements: activated(&receipt, self.at(), proposals) })
    }

    /// Posts revisions: each with its client's signature, and its provider's.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn revise(self, revisions: &[(Signed<Revision>, Signature)]) -> Result<Revisions, SendError> {
        let call = Abi::reviseCall {
            revisions: revisions.iter().map(|(revision, _)| revision_call(&revision.message)).collect(),
            ofClients: revisions.iter().map(|(revision, _)| signature_call(&revision.signature)).collect(),
            ofProviders: revisions.iter().map(|(_, provider)| signature_call(provider)).collect(),
        };
        let receipt = self.call(call).await?;
        let revisions = revised(&receipt, self.at(), revisions.len());
        Ok(Revisions { mined: Mined::of(&receipt), revisions })
    }

    /// Moves agreements on whose terms begin or end now. Ones that are not due are passed over.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn move_on(self, ids: &[AgreementId]) -> Result<Mined, SendError> {
        self.send(Abi::moveOnCall { ids: ids.iter().map(|id| id.0).collect() }).await
    }

    /// Adds to what is locked for an agreement of the wallet, for later revisions.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn reserve(self, id: AgreementId, sum: Amount) -> Result<Mined, SendError> {
        self.send_once(Abi::reserveCall { id: id.0, amount: sum.0 }).await
    }

    /// Announces that the wallet takes back so much reserve.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn announce_release(self, id: AgreementId, sum: Amount) -> Result<Mined, SendError> {
        self.send(Abi::announceReleaseCall { id: id.0, amount: sum.0 }).await
    }

    /// Takes back the reserve that was announced two or three epochs ago.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn release(self, id: AgreementId) -> Result<Mined, SendError> {
        self.send(Abi::releaseCall { id: id.0 }).await
    }

    /// Ends an agreement after the notice. Either side may.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn terminate(self, id: AgreementId) -> Result<Mined, SendError> {
        self.send(Abi::terminateCall { id: id.0 }).await
    }

    /// Proves that a provider still holds its whole set, in the order of `challenges_of`. The pay is the provider's, whoever sends it.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn prove(self, provider: Address, proofs: &[Proof]) -> Result<Mined, SendError> {
        let proofs = proofs.iter().map(proof_call).collect();
        self.send(Abi::proveCall { provider: to_abi(provider), proofs }).await
    }

    /// Closes at most so many of a provider's past epochs. Whoever records a miss gets the bounty.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn advance(self, provider: Address, max: u32) -> Result<Mined, SendError> {
        self.send(Abi::advanceCall { provider: to_abi(provider), max }).await
    }

    /// Refunds an agreement of a dead set.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn close_dead(self, id: AgreementId) -> Result<Mined, SendError> {
        self.send(Abi::closeDeadCall { id: id.0 }).await
    }

    /// Asks for chunks of the wallet's own agreement, chosen by the next epoch's seed.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn ask(self, id: AgreementId) -> Result<Mined, SendError> {
        self.send(Abi::askCall { id: id.0 }).await
    }

    /// Answers a question in its epoch, in the order of `question_of`.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn answer(self, id: AgreementId, proofs: &[Proof]) -> Result<Mined, SendError> {
        self.send(Abi::answerCall { id: id.0, proofs: proofs.iter().map(proof_call).collect() }).await
    }

    /// Ends an agreement whose question was not answered in its epoch.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn fail(self, id: AgreementId) -> Result<Mined, SendError> {
        self.send(Abi::failCall { id: id.0 }).await
    }

    async fn call<C: SolCall>(self, call: C) -> Result<Receipt, SendError> {
        self.0.call(self.at(), call).await
    }

    async fn send<C: SolCall>(self, call: C) -> Result<Mined, SendError> {
        self.0.send(self.at(), call).await
    }

    async fn send_once<C: SolCall>(self, call: C) -> Result<Mined, SendError> {
        self.0.send_once(self.at(), call).await
    }

    fn at(self) -> Address {
        self.0.chain().deployment().market
    }
}

/// Agreements in the order of their proposals: the contract goes through them in order, and says of each either that it opened one or
/// why not.
fn activated(
    receipt: &Receipt,
    market: Address,
    proposals: &[Signed<Proposal>],
) -> Vec<Result<AgreementId, Skip>> {
    let mut outcomes = vec![Err(Skip::Unknown); proposals.len()];
    let mut opened = Vec::new();
    for log in receipt.logs.iter().filter(|log| log.address == to_abi(market)) {
        let (topics, data) = (log.topics.iter().copied(), log.data.as_ref());
        if let Ok(event) = Abi::AgreementOpened::decode_raw_log(topics.clone(), data) {
            opened.push(AgreementId(event.agreement));
        } else if let Ok(event) = Abi::ActivationSkipped::decode_raw_log(topics, data)
            && let Some(outcome) = outcomes.get_mut(event.index.saturating_to::<usize>())
        {
            *outcome = Err(match Skip::of(event.reason) {
                // Told apart from what was not skipped.
                Skip::Unknown => Skip::NotOpen,
                known => known,
            });
        }
    }
    let mut opened = opened.into_iter();
    for outcome in &mut outcomes {
        if *outcome == Err(Skip::Unknown)
            && let Some(id) = opened.next()
        {
            *outcome = Ok(id);
        }
    }
    outcomes
}

fn revised(receipt: &Receipt, market: Address, count: usize) -> Vec<Result<(), Skip>> {
    let mut outcomes = vec![Ok(()); count];
    for log in receipt.logs.iter().filter(|log| log.address == to_abi(market)) {
        if let Ok(event) = Abi::RevisionSkipped::decode_raw_log(log.topics.iter().copied(), &log.data)
            && let Some(outcome) = outcomes.get_mut(event.index.saturating_to::<usize>())
        {
            *outcome = Err(Skip::of(event.reason));
        }
    }
    outcomes
}

fn signature_call(signature: &Signature) -> Bytes {
    Bytes::from(signature.as_bytes().to_vec())
}

fn proposal_call(proposal: &Proposal) -> IStorageMarket::Proposal {
    IStorageMarket::Proposal {
        client: to_abi(proposal.client),
        provider: to_abi(proposal.provider),
        setRoot: word(proposal.set_root.0),
        size: proposal.size,
        ratePerEpoch: rate_units(proposal.rate_per_epoch),
        endEpoch: proposal.end_epoch.0,
        escrow: proposal.escrow.0,
        retainedBytes: proposal.retained_bytes,
        retainedUntil: proposal.retained_until.0,
        acceptBy: proposal.accept_by.0,
        nonce: U256::from_be_bytes(proposal.nonce.0),
    }
}

fn revision_call(revision: &Revision) -> IStorageMarket::Revision {
    IStorageMarket::Revision {
        agreement: revision.agreement.0,
        sequence: revision.sequence,
        setRoot: word(revision.set_root.0),
        size: revision.size,
        ratePerEpoch: rate_units(revision.rate_per_epoch),
        fromEpoch: revision.from_epoch.0,
        endEpoch: revision.end_epoch.0,
        retainedBytes: revision.retained_bytes,
        retainedUntil: revision.retained_until.0,
    }
}

fn proof_call(proof: &Proof) -> IStorageMarket::Proof {
    let SetPath { fragment, turns, hashes, sums } = &proof.fragment;
    IStorageMarket::Proof {
        fragment: SetPathAbi {
            fragment: word(fragment.id.0),
            length: fragment.length,
            retainUntil: fragment.retain_until.0,
            turns: *turns,
            hashes: hashes.iter().copied().map(word).collect(),
            sums: sums.clone(),
        },
        chunk: Bytes::from(proof.chunk.chunk.clone()),
        siblings: proof.chunk.siblings.iter().copied().map(word).collect(),
    }
}
