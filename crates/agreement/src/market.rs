//! The money of `StorageMarket` and the stakes of `ProviderRegistry`, as one value: the same steps, the same refusals.
//!
//! It says what the contracts will do before anything is sent, and runs beside their bytecode in tests, value by value. Where the contracts
//! count with accumulators and trees, it counts plainly, so that a slip in theirs shows. Tokens are not modelled: what arrives is given,
//! and [`Market::owed`] is what the contract must hold.
//!
//! A step that is refused changes nothing, as a transaction that reverts. Who calls and in which block is an argument.

mod beacon;
mod going_on;
mod holdings;
mod opening;
mod proving;
mod refusal;

pub use beacon::{Block, EmbeddedBeacon};
pub use going_on::RELEASE_BEFORE;
pub use opening::SignedRevision;
pub use proving::Proof;
pub use refusal::{Refusal, Skip};

use crate::address::Address;
use crate::amount::{Amount, Rate};
use crate::epoch::{AgreementId, Epoch};
use crate::proposal::SetRoot;
use crate::typed::Domain;
use holdings::{Holdings, count};
use seedbank_formats::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Bounties are so many parts of it.
const BASIS: u128 = 10_000;

/// What a deployment decided for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Parameters {
    /// Chunks asked for in an epoch.
    pub challenges: u32,
    /// A miss costs this many epochs' pay.
    pub slash_epochs: u32,
    /// A provider's stake covers this many epochs' pay.
    pub stake_epochs: u32,
    /// So many misses one after the other end a set.
    pub misses_max: u32,
    /// Notice of either side, in epochs.
    pub notice_epochs: u32,
    /// Share of a slash that goes to whoever recorded the miss, in 1/10,000.
    pub bounty_basis_points: u32,
    /// What a client pays for a question that is answered.
    pub question_bond: Amount,
}

/// Who calls, and in which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The sender.
    pub sender: Address,
    /// The block.
    pub block: Block,
}

/// What is held, and at which price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The set.
    pub set_root: SetRoot,
    /// Its bytes.
    pub size: u64,
    /// What each proven epoch earns.
    pub rate_per_epoch: Rate,
    /// The first epoch in which they hold.
    pub from: Epoch,
    /// The first epoch in which they no longer hold.
    pub end: Epoch,
}

/// An open agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// Who pays.
    pub client: Address,
    /// Who stores.
    pub provider: Address,
    /// The last revision's.
    pub sequence: u32,
    /// Its place in the provider's row of rates.
    pub position: u32,
    /// Whether somebody ended it: no revision can make it last longer.
    pub ending: bool,
    /// Bytes that no revision may drop before `retained_until`.
    pub retained_bytes: u64,
    /// See `retained_bytes`.
    pub retained_until: Epoch,
    /// What is locked for it, less what was earned up to its current terms' beginning.
    pub escrow: Amount,
    /// What holds now; none before its first epoch.
    pub current: Option<Terms>,
    /// What holds from the next epoch on, if that was agreed.
    pub next: Option<Terms>,
}

impl Agreement {
    /// The epoch with which it ends, as things are.
    #[must_use]
    pub fn end(&self) -> Epoch {
        self.next.or(self.current).expect("an open agreement has terms").end
    }

    /// The higher of its rates now and next.
    fn dearer(&self) -> Rate {
        let rate = |terms: Option<Terms>| terms.map_or(Rate::ZERO, |terms| terms.rate_per_epoch);
        rate(self.current).max(rate(self.next))
    }
}

/// Everything that one provider holds, proven together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProofSet {
    /// The epoch that is worked on: all before it are closed.
    pub epoch: Epoch,
    /// Agreements whose terms change with it and were not moved on yet.
    pub due: u32,
    /// Open agreements.
    pub agreements: u32,
    /// Epochs missed one after the other.
    pub misses: u32,
    /// The first epoch after the set died.
    pub dead_at: Option<Epoch>,
    /// Questions that were not answered yet.
    pub questions: u32,
    /// What an epoch would earn if every agreement had the dearer of its terms: what the stake must cover.
    pub rate_max: Amount,
}

/// A provider's entry in the registry, as far as money goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    /// Key that may prove, activate and sign revisions.
    pub operator: Address,
    /// What it stands to lose.
    pub stake: Amount,
    /// Whether it takes no new agreements.
    pub leaving: bool,
}

/// A client's hot key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Authority {
    cap: Amount,
    until: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Release {
    announced: Epoch,
    amount: Amount,
}

/// A client's question about one agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The epoch whose seed asks and in which it must be answered.
    pub epoch: Epoch,
    /// What it costs if it is answered.
    pub bond: Amount,
}

/// Sums over all accounts and agreements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of free balances.
    pub free: Amount,
    /// Locked for epochs not proven.
    pub locked: Amount,
    /// Of bonds.
    pub bonded: Amount,
    /// Slashed stake that clients will get.
    pub compensation: Amount,
}

/// The market with its registry and its beacon.
#[derive(Debug, Clone)]
pub struct Market {
    parameters: Parameters,
    domain: Domain,
    beacon: EmbeddedBeacon,
    free: BTreeMap<Address, Amount>,
    totals: Totals,
    authorities: BTreeMap<(Address, Address), Authority>,
    accepted: BTreeSet<[u8; 32]>,
    last_agreement: u32,
    agreement_of: BTreeMap<(Address, Address), AgreementId>,
    agreements: BTreeMap<AgreementId, Agreement>,
    questions: BTreeMap<AgreementId, Question>,
    releases: BTreeMap<AgreementId, Release>,
    holdings: BTreeMap<Address, Holdings>,
    providers: BTreeMap<Address, Provider>,
}

impl Market {
    /// A market that was just deployed.
    #[must_use]
    pub fn new(parameters: Parameters, domain: Domain, beacon: EmbeddedBeacon) -> Market {
        Market {
            parameters,
            domain,
            beacon,
            free: BTreeMap::new(),
            totals: Totals::default(),
            authorities: BTreeMap::new(),
            accepted: BTreeSet::new(),
            last_agreement: 0,
            agreement_of: BTreeMap::new(),
            agreements: BTreeMap::new(),
            questions: BTreeMap::new(),
            releases: BTreeMap::new(),
            holdings: BTreeMap::new(),
            providers: BTreeMap::new(),
        }
    }

    // What can be read.

    /// What an account may withdraw or commit.
    #[must_use]
    pub fn free(&self, account: &Address) -> Amount {
        self.free.get(account).copied().unwrap_or_default()
    }

    /// The sums.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// All tokens that the contract must hold.
    #[must_use]
    pub fn owed(&self) -> Amount {
        let Totals { free, locked, bonded, compensation } = self.totals;
        [free, locked, bonded, compensation]
            .into_iter()
            .chain(self.providers.values().map(|one| one.stake))
            .sum()
    }

    /// An open agreement.
    #[must_use]
    pub fn agreement(&self, id: AgreementId) -> Option<&Agreement> {
        self.agreements.get(&id)
    }

    /// All open agreements.
    pub fn agreements(&self) -> impl Iterator<Item = (AgreementId, &Agreement)> {
        self.agreements.iter().map(|(id, agreement)| (*id, agreement))
    }

    /// The open agreement of a client with a provider.
    #[must_use]
    pub fn agreement_of(&self, client: &Address, provider: &Address) -> Option<AgreementId> {
        self.agreement_of.get(&(*client, *provider)).copied()
    }

    /// A provider's set, and what its epoch earns if it is proven; `None` if it holds nothing.
    #[must_use]
    pub fn set(&self, provider: &Address) -> Option<(&ProofSet, Amount)> {
        let holdings = self.holdings.get(provider).filter(|holdings| holdings.set.agreements != 0)?;
        Some((&holdings.set, holdings.rate()))
    }

    /// The question about an agreement.
    #[must_use]
    pub fn question(&self, id: AgreementId) -> Option<&Question> {
        self.questions.get(&id)
    }

    /// A provider's entry.
    #[must_use]
    pub fn provider(&self, provider: &Address) -> Option<&Provider> {
        self.providers.get(provider)
    }

    /// Whether a provider's epoch was proven, and whether it was missed.
    #[must_use]
    pub fn outcome(&self, provider: &Address, epoch: Epoch) -> (bool, bool) {
        let holdings = self.holdings.get(provider);
        holdings.map_or((false, false), |one| (one.proven.contains(&epoch), one.missed.contains(&epoch)))
    }

    /// Agreements of a provider that change with an epoch that is still to come.
    #[must_use]
    pub fn changes_in(&self, provider: &Address, epoch: Epoch) -> u32 {
        self.holdings.get(provider).and_then(|one| one.due_in.get(&epoch)).copied().unwrap_or(0)
    }

    /// What an agreement's current terms earned, and what is still locked for it.
    #[must_use]
    pub fn standing(&self, id: AgreementId) -> Option<(Amount, Amount)> {
        let agreement = self.agreements.get(&id)?;
        let holdings = self.holdings.get(&agreement.provider)?;
        let set = &holdings.set;
        let mut earned = holdings.earned(agreement, set.dead_at.unwrap_or(set.epoch)).ok()?;
        if let Some(terms) = agreement.current
            && set.dead_at.is_none()
            && holdings.proven.contains(&set.epoch)
        {
            earned = earned.checked_add(terms.rate_per_epoch.into())?;
        }
        Some((earned, agreement.escrow.checked_sub(earned)?))
    }

    /// Stake that a provider must keep now; `None` while it is not known.
    ///
    /// # Errors
    /// [`Refusal::BeforeGenesis`].
    pub fn stake_needed(&self, provider: &Address, block: &Block) -> Result<Option<Amount>, Refusal> {
        let Some((set, _)) = self.set(provider) else { return Ok(Some(Amount::ZERO)) };
        if set.dead_at.is_some() {
            return Ok(Some(Amount::ZERO));
        }
        if set.epoch != self.now(block)? {
            return Ok(None);
        }
        let more = if set.questions == 0 { 0 } else { self.parameters.slash_epochs };
        let epochs = self.parameters.stake_epochs.checked_add(more).ok_or(Refusal::Overflow)?;
        Ok(Some(set.rate_max.checked_mul(epochs).ok_or(Refusal::Overflow)?))
    }

    // Balances and stakes.

    /// Adds tokens that arrived to an account's free balance.
    ///
    /// # Errors
    /// [`Refusal::Overflow`].
    pub fn deposit(&mut self, account: Address, arrived: Amount) -> Result<(), Refusal> {
        self.step(|market| market.credit(account, arrived))
    }

    /// Takes free tokens of the caller out.
    ///
    /// # Errors
    /// [`Refusal::Balance`].
    pub fn withdraw(&mut self, call: &Call, amount: Amount) -> Result<(), Refusal> {
        self.step(|market| market.debit(call.sender, amount))
    }

    /// Lets `signer` sign for the caller: proposals up to `cap`, and revisions, until a time.
    pub fn authorize(&mut self, call: &Call, signer: Address, cap: Amount, until: Timestamp) {
        self.authorities.insert((call.sender, signer), Authority { cap, until });
    }

    /// Makes the caller a provider that takes agreements.
    pub fn register(&mut self, call: &Call) {
        let new = Provider { operator: call.sender, stake: Amount::ZERO, leaving: false };
        self.providers.entry(call.sender).or_insert(new).leaving = false;
    }

    /// Names the caller's operator.
    ///
    /// # Errors
    /// [`Refusal::NotRegistered`].
    pub fn set_operator(&mut self, call: &Call, operator: Address) -> Result<(), Refusal> {
        self.registered(&call.sender)?.operator = operator;
        Ok(())
    }

    /// Says that the caller takes no new agreements.
    ///
    /// # Errors
    /// [`Refusal::NotRegistered`].
    pub fn leave(&mut self, call: &Call) -> Result<(), Refusal> {
        self.registered(&call.sender)?.leaving = true;
        Ok(())
    }

    /// Adds to a provider's stake from the caller's free balance.
    ///
    /// # Errors
    /// [`Refusal::NotRegistered`], [`Refusal::Balance`].
    pub fn add_stake(&mut self, call: &Call, provider: Address, amount: Amount) -> Result<(), Refusal> {
        self.step(|market| {
            let entry = market.registered(&provider)?;
            entry.stake = add(entry.stake, amount)?;
            market.debit(call.sender, amount)
        })
    }

    /// Moves stake of the caller that no agreement needs to the free balance of `to`.
    ///
    /// # Errors
    /// [`Refusal::NotRegistered`], [`Refusal::StakeNeeded`].
    pub fn withdraw_stake(&mut self, call: &Call, amount: Amount, to: Address) -> Result<(), Refusal> {
        self.step(|market| {
            let stake = market.registered(&call.sender)?.stake;
            let needed = market.stake_needed(&call.sender, &call.block)?;
            let left = stake.checked_sub(amount).filter(|left| needed.is_some_and(|needed| *left >= needed));
            let left = left.ok_or(Refusal::StakeNeeded { needed, stake })?;
            market.registered(&call.sender)?.stake = left;
            market.credit(to, amount)
        })
    }

    // Inside.

    /// Does a step whole or not at all.
    fn step<T>(&mut self, step: impl FnOnce(&mut Market) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut next = self.clone();
        let done = step(&mut next)?;
        *self = next;
        Ok(done)
    }

    fn now(&self, block: &Block) -> Result<Epoch, Refusal> {
        self.beacon.clock().at(block.time).ok_or(Refusal::BeforeGenesis)
    }

    fn credit(&mut self, account: Address, amount: Amount) -> Result<(), Refusal> {
        let free = self.free.entry(account).or_default();
        *free = add(*free, amount)?;
        self.totals.free = add(self.totals.free, amount)?;
        Ok(())
    }

    fn debit(&mut self, account: Address, amount: Amount) -> Result<(), Refusal> {
        let free = self.free(&account);
        let left = free.checked_sub(amount).ok_or(Refusal::Balance { wanted: amount, free })?;
        self.free.insert(account, left);
        self.totals.free = sub(self.totals.free, amount)?;
        Ok(())
    }

    fn registered(&mut self, provider: &Address) -> Result<&mut Provider, Refusal> {
        self.providers.get_mut(provider).ok_or(Refusal::NotRegistered(*provider))
    }

    fn stake(&self, provider: &Address) -> Amount {
        self.providers.get(provider).map_or(Amount::ZERO, |entry| entry.stake)
    }

    fn slash(&mut self, provider: &Address, amount: Amount) -> Result<(), Refusal> {
        if amount == Amount::ZERO {
            return Ok(());
        }
        let entry = self.registered(provider)?;
        entry.stake = sub(entry.stake, amount)?;
        Ok(())
    }

    /// Whether a key acts for a provider.
    fn acts(&self, key: &Address, provider: &Address) -> bool {
        let operator = self.providers.get(provider).map(|entry| entry.operator);
        key == provider || (*key != Address::ZERO && operator == Some(*key))
    }

    fn opened(&mut self, id: AgreementId) -> Result<&mut Agreement, Refusal> {
        self.agreements.get_mut(&id).ok_or(Refusal::NotOpen(id))
    }

    fn yours(&mut self, call: &Call, id: AgreementId) -> Result<&mut Agreement, Refusal> {
        let agreement = self.opened(id)?;
        if agreement.client == call.sender { Ok(agreement) } else { Err(Refusal::NotYours) }
    }

    fn holds(&mut self, provider: Address) -> &mut Holdings {
        self.holdings.entry(provider).or_default()
    }
}

fn add(a: Amount, b: Amount) -> Result<Amount, Refusal> {
    a.checked_add(b).ok_or(Refusal::Overflow)
}

fn sub(a: Amount, b: Amount) -> Result<Amount, Refusal> {
    a.checked_sub(b).ok_or(Refusal::Overflow)
}

fn times(a: Amount, by: u32) -> Result<Amount, Refusal> {
    a.checked_mul(by).ok_or(Refusal::Overflow)
}
