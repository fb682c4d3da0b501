//! What paying asks of a chain, and what it has done there.
//!
//! A trait, since decisions and their order are tested without one; [`super::settled`] is the real one.

use seedbank_agreement::epoch::EpochClock;
use seedbank_agreement::{Address, AgreementId, Amount, Domain, Epoch, Rate, Revision, SetRoot, Signature};
use seedbank_formats::PublicKey;
use std::pin::Pin;

/// An answer that comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, ChainError>> + Send + 'a>>;

/// Why the chain did not answer, or not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Try again later; what needs no chain goes on.
    #[error("the chain can't be reached: {0}")]
    Unreachable(String),
    /// The contracts refuse it: the message names their reason.
    #[error("the contract refused: {0}")]
    Refused(String),
    /// Others changed things between the check and the block: nothing was done, and the same may go well.
    #[error("the contract refused it in a block, since others were faster: {0}")]
    Overtaken(String),
    /// It may have been done, and done twice it would count twice: the message says where to look before it is repeated.
    #[error("{0}")]
    Unseen(String),
    /// The configuration names contracts that are not there, or not these.
    #[error("not the contracts that are configured: {0}")]
    WrongDeployment(String),
    /// There is no money for the transaction itself.
    #[error("the wallet {wallet} can't pay for its transaction: {message}")]
    NoGas {
        /// Whose.
        wallet: Address,
        /// What the endpoint says.
        message: String,
    },
}

/// Where the contracts are, and the rules that clients need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The chain's id.
    pub chain_id: u64,
    /// `Directory`.
    pub directory: Address,
    /// `ProviderRegistry`.
    pub registry: Address,
    /// `StorageMarket`.
    pub market: Address,
    /// `RetrievalChannels`.
    pub channels: Address,
    /// When epochs begin, and how long they are.
    pub clock: EpochClock,
    /// What a client pays for a question that is answered.
    pub question_bond: Amount,
}

impl Place {
    /// What market messages are signed for.
    #[must_use]
    pub fn market_domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, contract: self.market }
    }

    /// What vouchers are signed for.
    #[must_use]
    pub fn channels_domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, contract: self.channels }
    }
}

/// A provider's entry in the registry, as far as clients need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderEntry {
    /// The key by which it is dialled.
    pub endpoint: PublicKey,
    /// That key's word for it, unchecked.
    pub binding: seedbank_formats::Signature,
    /// The key that acts for it.
    pub operator: Address,
    /// Whether it takes no new agreements.
    pub leaving: bool,
}

/// How a provider proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proving {
    /// The epoch that its set is at.
    pub epoch: Epoch,
    /// Agreements that must be moved on first.
    pub due: u32,
    /// Epochs missed in a row.
    pub misses: u32,
    /// Since when its set is dead.
    pub dead_at: Option<Epoch>,
}

/// An open agreement as it stands on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnChain {
    /// The provider's wallet.
    pub provider: Address,
    /// The last revision posted.
    pub sequence: u32,
    /// What is locked and was not earned.
    pub locked: Amount,
    /// What was earned with the current terms so far.
    pub earned: Amount,
    /// What the current terms pay for an epoch; zero before they begin.
    pub rate: Rate,
    /// Bytes of the current terms.
    pub size: u64,
    /// What the next epoch will be paid, by the next terms if there are any.
    pub next_rate: Rate,
    /// The set of the last terms posted.
    pub last_root: SetRoot,
    /// Its bytes.
    pub last_size: u64,
    /// The first epoch that no longer belongs to it.
    pub end: Epoch,
    /// Whether somebody ended it, so that it can't last longer.
    pub ending: bool,
    /// The epoch of an open question about it.
    pub question: Option<Epoch>,
    /// When it was announced that spare escrow is taken back.
    pub release: Option<Epoch>,
}

/// An account's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balances {
    /// Tokens of its own.
    pub wallet: Amount,
    /// In the market, not locked.
    pub free: Amount,
    /// Earned for reads and not withdrawn.
    pub earned: Amount,
}

/// Whether a key may sign for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Authority {
    /// How much escrow it may still commit.
    pub cap: Amount,
    /// Until when, in seconds since 1970.
    pub until: u64,
}

/// A channel and one lane of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelState {
    /// What is left of the deposits.
    pub deposit: Amount,
    /// Caps of all lanes, less what they redeemed.
    pub promised: Amount,
    /// When an announced exit may be taken.
    pub exit_at: Option<u64>,
    /// How much leaves with it.
    pub leaving: Amount,
    /// The lane's cap.
    pub cap: Amount,
    /// What the lane's vouchers have brought the payee.
    pub redeemed: Amount,
}

/// A revision that both have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRevision {
    /// The terms.
    pub revision: Revision,
    /// The client's signature.
    pub client: Signature,
    /// The provider's.
    pub provider: Signature,
}

/// Something to be done on the chain by the wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Make tokens, where that is possible.
    Mint(Amount),
    /// From the wallet into the market's free balance.
    Deposit(Amount),
    /// From the free balance to an address.
    Withdraw(Amount, Address),
    /// From the free balance into an agreement's escrow.
    Reserve(AgreementId, Amount),
    /// Announce that escrow which no terms need is taken back.
    AnnounceRelease(AgreementId, Amount),
    /// Take it back into the free balance.
    Release(AgreementId),
    /// Give notice.
    Terminate(AgreementId),
    /// Let a key sign proposals and revisions.
    Authorize {
        /// Whose key.
        signer: Address,
        /// For how much escrow.
        cap: Amount,
        /// Until when, in seconds since 1970.
        until: u64,
    },
    /// Post revisions.
    Revise(Vec<SignedRevision>),
    /// Close a provider's past epochs.
    Advance(Address),
    /// Move agreements on whose terms begin or end.
    MoveOn(Vec<AgreementId>),
    /// Close an agreement of a provider whose set is dead.
    CloseDead(AgreementId),
    /// Ask a provider about one agreement.
    Ask(AgreementId),
    /// A question was not answered.
    Fail(AgreementId),
    /// From the wallet into the channel with a payee.
    Fund(Address, Amount),
    /// Raise a lane's cap.
    SetLane {
        /// The payee.
        payee: Address,
        /// The lane's signer.
        signer: Address,
        /// The new cap.
        cap: Amount,
    },
    /// Announce that money of a channel is taken back.
    RequestExit(Address, Amount),
    /// Stay after all.
    CancelExit(Address),
    /// Take it back, and lower these lanes to what they redeemed.
    Exit {
        /// The payee.
        payee: Address,
        /// Lanes of it.
        signers: Vec<Address>,
        /// Where the money goes.
        to: Address,
    },
}

/// Reads a deployment, and sends for one wallet.
pub trait Chain: Send + Sync {
    /// Where the contracts are.
    fn place(&self) -> &Place;
    /// The wallet that transactions are sent for.
    fn wallet(&self) -> Address;
    /// The current epoch, by the chain's own time.
    fn epoch(&self) -> Later<'_, Epoch>;
    /// The chain's time, in seconds since 1970.
    fn time(&self) -> Later<'_, u64>;
    /// A provider's entry; `None` if it did not register.
    fn provider(&self, wallet: Address) -> Later<'_, Option<ProviderEntry>>;
    /// How a provider proves.
    fn proving(&self, wallet: Address) -> Later<'_, Proving>;
    /// The wallet's open agreement with a provider.
    fn agreement_with(&self, provider: Address) -> Later<'_, Option<AgreementId>>;
    /// An open agreement.
    fn agreement(&self, id: AgreementId) -> Later<'_, Option<OnChain>>;
    /// An account's money.
    fn balances(&self, account: Address) -> Later<'_, Balances>;
    /// What a key may sign for the wallet.
    fn authority(&self, signer: Address) -> Later<'_, Authority>;
    /// The wallet's channel with a payee, and one lane of it.
    fn channel(&self, payee: Address, signer: Address) -> Later<'_, ChannelState>;
    /// Has something done, and waits until it is. Orders of all processes of a home go one after the other.
    fn order(&self, order: Order) -> Later<'_, [u8; 32]>;
}
