//! What events say, in our types.

use super::{Contracts, Happened};
use crate::abi::{anchor, beacon, channels, datasets, market, registry};
use crate::channels::{VoucherSkip, reason};
use crate::convert::{amount, from_abi, rate};
use crate::market::Skip;
use crate::rpc::Log;
use alloy_sol_types::SolEventInterface;
use seedbank_agreement::publication::{HeadHash, NameId};
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, Nonce, Proposal, Rate, Revision, SetRoot};
use seedbank_formats::{DatasetId, PublicKey, Timestamp, VersionId};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// In `StorageMarket`.
    Market(MarketEvent),
    /// In `ProviderRegistry`.
    Registry(RegistryEvent),
    /// In `RetrievalChannels`.
    Channels(ChannelEvent),
    /// In `DatasetRegistry`.
    Datasets(DatasetEvent),
    /// A log was anchored.
    #[expect(missing_docs, reason = "as in the contract")]
    Anchored { writer: Address, log: [u8; 32], size: u64, root: [u8; 32] },
    /// An epoch's seed is known.
    #[expect(missing_docs, reason = "as in the contract")]
    SeedSealed { epoch: Epoch, seed: [u8; 32] },
}

/// What happened in the market. Fields are as in the contract, whose comments say when each is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the contract")]
pub enum MarketEvent {
    Deposited { account: Address, from: Address, sum: Amount },
    Withdrawn { account: Address, to: Address, sum: Amount },
    SignerAuthorized { client: Address, signer: Address, cap: Amount, until: Timestamp },
    AgreementOpened { agreement: AgreementId, proposal: Proposal },
    ActivationSkipped { proposal: [u8; 32], reason: Skip },
    Revised { revision: Revision },
    RevisionSkipped { agreement: AgreementId, sequence: u32, reason: Skip },
    TermsBegan { agreement: AgreementId, epoch: Epoch, set_root: SetRoot, size: u64, rate_per_epoch: Rate },
    AgreementClosed { agreement: AgreementId, epoch: Epoch, refund: Amount },
    EndMoved { agreement: AgreementId, end: Epoch, by: Address },
    Reserved { agreement: AgreementId, sum: Amount },
    ReleaseAnnounced { agreement: AgreementId, epoch: Epoch, sum: Amount },
    Released { agreement: AgreementId, sum: Amount },
    Proven { provider: Address, epoch: Epoch, paid: Amount },
    Missed { provider: Address, epoch: Epoch, slashed: Amount, bounty: Amount, recorded_by: Address },
    Compensated { agreement: AgreementId, sum: Amount },
    VoidEpoch { provider: Address, epoch: Epoch },
    Died { provider: Address, epoch: Epoch },
    Asked { agreement: AgreementId, epoch: Epoch, bond: Amount },
    Answered { agreement: AgreementId, epoch: Epoch },
    Unanswered { agreement: AgreementId, epoch: Epoch, slashed: Amount },
    QuestionVoid { agreement: AgreementId, epoch: Epoch },
    LeftEarly { agreement: AgreementId, slashed: Amount },
}

/// What happened in the registry of providers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the contract")]
pub enum RegistryEvent {
    Registered { provider: Address, claimed_identity: PublicKey, profile: String },
    OperatorSet { provider: Address, operator: Address },
    StakeAdded { provider: Address, sum: Amount },
    StakeWithdrawn { provider: Address, to: Address, sum: Amount },
    Slashed { provider: Address, sum: Amount },
    Leaving { provider: Address },
}

/// What happened in the retrieval channels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the contract")]
pub enum ChannelEvent {
    Deposited { payer: Address, payee: Address, from: Address, sum: Amount },
    LaneSet { payer: Address, payee: Address, signer: Address, cap: Amount },
    Redeemed { payer: Address, payee: Address, signer: Address, paid: Amount, cumulative: Amount },
    Shortfall { payer: Address, payee: Address, signer: Address, missing: Amount },
    VoucherSkipped { payer: Address, signer: Address, reason: VoucherSkip },
    ExitRequested { payer: Address, payee: Address, sum: Amount, at: Timestamp },
    ExitCancelled { payer: Address, payee: Address },
    Exited { payer: Address, payee: Address, to: Address, sum: Amount },
    Withdrawn { payee: Address, to: Address, sum: Amount },
}

/// What happened in the registry of names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the contract")]
pub enum DatasetEvent {
    Registered { id: NameId, owner: Address, name: String, dataset: DatasetId, claimed_key: PublicKey },
    Published { id: NameId, sequence: u64, version: VersionId, head: HeadHash },
    PublisherSet { id: NameId, publisher: Address, until: Timestamp },
    TransferOffered { id: NameId, to: Address },
    Transferred { id: NameId, from: Address, to: Address, claimed_key: PublicKey },
    Frozen { id: NameId, version: VersionId },
}

impl Contracts {
    /// None for what our contracts don't say: later ones of the same addresses can't exist, so there is nothing to miss.
    pub(super) fn read(&self, log: &Log) -> Option<Happened> {
        let at = log.address;
        let event = if at == self.market {
            Event::Market(market_event(log)?)
        } else if at == self.registry {
            Event::Registry(registry_event(log)?)
        } else if at == self.channels {
            Event::Channels(channel_event(log)?)
        } else if at == self.datasets {
            Event::Datasets(dataset_event(log)?)
        } else if at == self.anchor {
            use anchor::AuditAnchor::AuditAnchorEvents as E;
            let E::Anchored(e) = decode::<E>(log)?;
            Event::Anchored { writer: from_abi(e.writer), log: e.log.0, size: e.size, root: e.root.0 }
        } else if at == self.randomness {
            use beacon::EmbeddedBeacon::EmbeddedBeaconEvents as E;
            let E::SeedSealed(e) = decode::<E>(log)?;
            Event::SeedSealed { epoch: Epoch(e.epoch), seed: e.seed.0 }
        } else {
            return None;
        };
        Some(Happened {
            block: log.block_number,
            transaction: log.transaction_hash.0,
            index: log.log_index,
            event,
        })
    }
}

fn decode<E: SolEventInterface>(log: &Log) -> Option<E> {
    E::decode_raw_log(&log.topics, &log.data).ok()
}

fn market_event(log: &Log) -> Option<MarketEvent> {
    use MarketEvent as M;
    use market::StorageMarket::StorageMarketEvents as E;
    let agreement = AgreementId;
    Some(match decode::<E>(log)? {
        E::Deposited(e) => {
            M::Deposited { account: from_abi(e.account), from: from_abi(e.from), sum: amount(e.amount) }
        }
        E::Withdrawn(e) => {
            M::Withdrawn { account: from_abi(e.account), to: from_abi(e.to), sum: amount(e.amount) }
        }
        E::SignerAuthorized(e) => M::SignerAuthorized {
            client: from_abi(e.client),
            signer: from_abi(e.signer),
            cap: Amount(e.cap),
            until: Timestamp(e.until),
        },
        E::AgreementOpened(e) => {
            M::AgreementOpened { agreement: agreement(e.agreement), proposal: proposal(&e.terms) }
        }
        E::ActivationSkipped(e) => {
            M::ActivationSkipped { proposal: e.proposal.0, reason: Skip::of(e.reason) }
        }
        E::Revised(e) => M::Revised { revision: revision(&e.terms) },
        E::RevisionSkipped(e) => M::RevisionSkipped {
            agreement: agreement(e.agreement),
            sequence: e.sequence,
            reason: Skip::of(e.reason),
        },
        E::TermsBegan(e) => M::TermsBegan {
            agreement: agreement(e.agreement),
            epoch: Epoch(e.epoch),
            set_root: SetRoot(e.setRoot.0),
            size: e.size,
            rate_per_epoch: rate(e.ratePerEpoch),
        },
        E::AgreementClosed(e) => M::AgreementClosed {
            agreement: agreement(e.agreement),
            epoch: Epoch(e.epoch),
            refund: amount(e.refund),
        },
        E::EndMoved(e) => {
            M::EndMoved { agreement: agreement(e.agreement), end: Epoch(e.endEpoch), by: from_abi(e.by) }
        }
        E::Reserved(e) => M::Reserved { agreement: agreement(e.agreement), sum: amount(e.amount) },
        E::ReleaseAnnounced(e) => M::ReleaseAnnounced {
            agreement: agreement(e.agreement),
            epoch: Epoch(e.epoch),
            sum: amount(e.amount),
        },
        E::Released(e) => M::Released { agreement: agreement(e.agreement), sum: amount(e.amount) },
        E::Proven(e) => {
            M::Proven { provider: from_abi(e.provider), epoch: Epoch(e.epoch), paid: amount(e.paid) }
        }
        E::Missed(e) => M::Missed {
            provider: from_abi(e.provider),
            epoch: Epoch(e.epoch),
            slashed: amount(e.slashed),
            bounty: amount(e.bounty),
            recorded_by: from_abi(e.recordedBy),
        },
        E::Compensated(e) => M::Compensated { agreement: agreement(e.agreement), sum: amount(e.amount) },
        E::VoidEpoch(e) => M::VoidEpoch { provider: from_abi(e.provider), epoch: Epoch(e.epoch) },
        E::Died(e) => M::Died { provider: from_abi(e.provider), epoch: Epoch(e.epoch) },
        E::Asked(e) => {
            M::Asked { agreement: agreement(e.agreement), epoch: Epoch(e.epoch), bond: amount(e.bond) }
        }
        E::Answered(e) => M::Answered { agreement: agreement(e.agreement), epoch: Epoch(e.epoch) },
        E::Unanswered(e) => M::Unanswered {
            agreement: agreement(e.agreement),
            epoch: Epoch(e.epoch),
            slashed: amount(e.slashed),
        },
        E::QuestionVoid(e) => M::QuestionVoid { agreement: agreement(e.agreement), epoch: Epoch(e.epoch) },
        E::LeftEarly(e) => M::LeftEarly { agreement: agreement(e.agreement), slashed: amount(e.slashed) },
        E::EIP712DomainChanged(_) => return None,
    })
}

fn proposal(terms: &market::IStorageMarket::Proposal) -> Proposal {
    Proposal {
        client: from_abi(terms.client),
        provider: from_abi(terms.provider),
        set_root: SetRoot(terms.setRoot.0),
        size: terms.size,
        rate_per_epoch: rate(terms.ratePerEpoch),
        end_epoch: Epoch(terms.endEpoch),
        escrow: Amount(terms.escrow),
        retained_bytes: terms.retainedBytes,
        retained_until: Epoch(terms.retainedUntil),
        accept_by: Epoch(terms.acceptBy),
        nonce: Nonce(terms.nonce.to_be_bytes()),
    }
}

fn revision(terms: &market::IStorageMarket::Revision) -> Revision {
    Revision {
        agreement: AgreementId(terms.agreement),
        sequence: terms.sequence,
        set_root: SetRoot(terms.setRoot.0),
        size: terms.size,
        rate_per_epoch: rate(terms.ratePerEpoch),
        from_epoch: Epoch(terms.fromEpoch),
        end_epoch: Epoch(terms.endEpoch),
        retained_bytes: terms.retainedBytes,
        retained_until: Epoch(terms.retainedUntil),
    }
}

fn registry_event(log: &Log) -> Option<RegistryEvent> {
    use RegistryEvent as R;
    use registry::ProviderRegistry::ProviderRegistryEvents as E;
    Some(match decode::<E>(log)? {
        E::Registered(e) => R::Registered {
            provider: from_abi(e.provider),
            claimed_identity: PublicKey(e.endpointKey.0),
            profile: e.profile,
        },
        E::OperatorSet(e) => {
            R::OperatorSet { provider: from_abi(e.provider), operator: from_abi(e.operator) }
        }
        E::StakeAdded(e) => R::StakeAdded { provider: from_abi(e.provider), sum: amount(e.amount) },
        E::StakeWithdrawn(e) => {
            R::StakeWithdrawn { provider: from_abi(e.provider), to: from_abi(e.to), sum: amount(e.amount) }
        }
        E::Slashed(e) => R::Slashed { provider: from_abi(e.provider), sum: amount(e.amount) },
        E::Leaving(e) => R::Leaving { provider: from_abi(e.provider) },
    })
}

fn channel_event(log: &Log) -> Option<ChannelEvent> {
    use ChannelEvent as C;
    use channels::RetrievalChannels::RetrievalChannelsEvents as E;
    Some(match decode::<E>(log)? {
        E::Deposited(e) => C::Deposited {
            payer: from_abi(e.payer),
            payee: from_abi(e.payee),
            from: from_abi(e.from),
            sum: amount(e.amount),
        },
        E::LaneSet(e) => C::LaneSet {
            payer: from_abi(e.payer),
            payee: from_abi(e.payee),
            signer: from_abi(e.signer),
            cap: Amount(e.cap),
        },
        E::Redeemed(e) => C::Redeemed {
            payer: from_abi(e.payer),
            payee: from_abi(e.payee),
            signer: from_abi(e.signer),
            paid: Amount(e.paid),
            cumulative: Amount(e.cumulative),
        },
        E::Shortfall(e) => C::Shortfall {
            payer: from_abi(e.payer),
            payee: from_abi(e.payee),
            signer: from_abi(e.signer),
            missing: Amount(e.missing),
        },
        E::VoucherSkipped(e) => C::VoucherSkipped {
            payer: from_abi(e.payer),
            signer: from_abi(e.signer),
            reason: reason(e.reason),
        },
        E::ExitRequested(e) => C::ExitRequested {
            payer: from_abi(e.payer),
            payee: from_abi(e.payee),
            sum: Amount(e.amount),
            at: Timestamp(e.exitAt),
        },
        E::ExitCancelled(e) => C::ExitCancelled { payer: from_abi(e.payer), payee: from_abi(e.payee) },
        E::Exited(e) => C::Exited {
            payer: from_abi(e.payer),
            payee: from_abi(e.payee),
            to: from_abi(e.to),
            sum: Amount(e.amount),
        },
        E::Withdrawn(e) => {
            C::Withdrawn { payee: from_abi(e.payee), to: from_abi(e.to), sum: amount(e.amount) }
        }
        E::EIP712DomainChanged(_) => return None,
    })
}

fn dataset_event(log: &Log) -> Option<DatasetEvent> {
    use DatasetEvent as D;
    use datasets::DatasetRegistry::DatasetRegistryEvents as E;
    Some(match decode::<E>(log)? {
        E::Registered(e) => D::Registered {
            id: NameId(e.id.0),
            owner: from_abi(e.owner),
            name: e.name,
            dataset: DatasetId(e.datasetId.0),
            claimed_key: PublicKey(e.ownerKey.0),
        },
        E::Published(e) => D::Published {
            id: NameId(e.id.0),
            sequence: e.sequence,
            version: VersionId(e.version.0),
            head: HeadHash(e.head.0),
        },
        E::PublisherSet(e) => D::PublisherSet {
            id: NameId(e.id.0),
            publisher: from_abi(e.publisher),
            until: Timestamp(e.until),
        },
        E::TransferOffered(e) => D::TransferOffered { id: NameId(e.id.0), to: from_abi(e.to) },
        E::Transferred(e) => D::Transferred {
            id: NameId(e.id.0),
            from: from_abi(e.from),
            to: from_abi(e.to),
            claimed_key: PublicKey(e.ownerKey.0),
        },
        E::Frozen(e) => D::Frozen { id: NameId(e.id.0), version: VersionId(e.version.0) },
        E::EIP712DomainChanged(_) => return None,
    })
}
