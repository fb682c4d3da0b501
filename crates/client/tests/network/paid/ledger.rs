//! A chain in memory: money moves as the contracts move it, as far as clients look at it.

use seedbank_agreement::epoch::EpochClock;
use seedbank_agreement::lane::{Cover, Exit};
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, Proposal, Rate, Revision};
use seedbank_client::pay::chain::{
    Authority, Balances, Chain, ChainError, ChannelState, Later, OnChain, Order, Place, ProviderEntry,
    Proving,
};
use seedbank_formats::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) const EPOCH_SECONDS: u32 = 86_400;
pub(crate) const GENESIS: u64 = 1_000_000;
/// An announced exit may be taken so much later.
pub(crate) const EXIT_SECONDS: u64 = 3_600;

#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) client: Address,
    pub(crate) state: OnChain,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) epoch: Epoch,
    /// Seconds since the epoch began.
    pub(crate) elapsed: u64,
    pub(crate) is_down: bool,
    /// Whether the token is worth something.
    pub(crate) is_dear: bool,
    pub(crate) providers: BTreeMap<Address, ProviderEntry>,
    pub(crate) proving: BTreeMap<Address, Proving>,
    pub(crate) tokens: BTreeMap<Address, Amount>,
    pub(crate) free: BTreeMap<Address, Amount>,
    pub(crate) open: BTreeMap<AgreementId, Open>,
    pub(crate) authorities: BTreeMap<Address, Authority>,
    pub(crate) channels: BTreeMap<Address, (Amount, Amount)>,
    /// What leaves a channel, and when.
    pub(crate) exits: BTreeMap<Address, (Amount, u64)>,
    pub(crate) lanes: BTreeMap<(Address, Address), Amount>,
    pub(crate) redeemed: BTreeMap<(Address, Address), Amount>,
    /// When it was announced that escrow comes back, and how much.
    pub(crate) releases: BTreeMap<AgreementId, (Epoch, Amount)>,
    pub(crate) orders: Vec<Order>,
    last: u32,
}

impl State {
    fn time(&self) -> u64 {
        GENESIS + u64::from(self.epoch.0) * u64::from(EPOCH_SECONDS) + self.elapsed
    }
}

/// Shared by all who use the chain.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<State>>);

fn take(from: &mut BTreeMap<Address, Amount>, whose: Address, sum: Amount) -> Result<(), ChainError> {
    let has = from.entry(whose).or_default();
    *has = has.checked_sub(sum).ok_or_else(|| ChainError::Refused(format!("{has} is less than {sum}")))?;
    Ok(())
}

fn give(to: &mut BTreeMap<Address, Amount>, whose: Address, sum: Amount) {
    let has = to.entry(whose).or_default();
    *has = has.checked_add(sum).unwrap();
}

impl Ledger {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What the till of a provider does with a proposal that it takes.
    pub(crate) fn activate(&self, proposal: &Proposal) -> Result<AgreementId, ChainError> {
        let mut state = self.state();
        take(&mut state.free, proposal.client, proposal.escrow)?;
        let needed = proposal.rate_per_epoch.over(proposal.end_epoch.0 - state.epoch.0 - 1);
        assert!(proposal.escrow >= needed, "the whole term is covered");
        state.last += 1;
        let id = AgreementId(state.last);
        let on_chain = OnChain {
            provider: proposal.provider,
            sequence: 0,
            locked: proposal.escrow,
            earned: Amount::ZERO,
            rate: Rate::ZERO,
            size: 0,
            next_rate: proposal.rate_per_epoch,
            last_root: proposal.set_root,
            last_size: proposal.size,
            end: proposal.end_epoch,
            ending: false,
            question: None,
            release: None,
        };
        state.open.insert(id, Open { client: proposal.client, state: on_chain });
        Ok(id)
    }

    pub(crate) fn covers(&self, revision: &Revision) -> bool {
        let state = self.state();
        let Some(open) = state.open.get(&revision.agreement) else { return false };
        let current = open.state.rate.max(open.state.next_rate).over(1);
        let next = revision.rate_per_epoch.over(revision.end_epoch.0 - revision.from_epoch.0);
        open.state.locked >= current.checked_add(next).unwrap()
    }

    pub(crate) fn cover(&self, payee: Address, signer: Address) -> Cover {
        let state = self.state();
        Cover {
            deposit: state.channels.get(&payee).map_or(Amount::ZERO, |(deposit, _)| *deposit),
            cap: state.lanes.get(&(payee, signer)).copied().unwrap_or_default(),
            redeemed: state.redeemed.get(&(payee, signer)).copied().unwrap_or_default(),
            exit: if state.exits.contains_key(&payee) { Exit::Pending } else { Exit::None },
        }
    }

    /// Pays a voucher as far as its lane's cap goes.
    pub(crate) fn redeem(&self, payee: Address, signer: Address, cumulative: Amount) {
        let mut state = self.state();
        let cap = state.lanes.get(&(payee, signer)).copied().unwrap_or_default();
        let redeemed = state.redeemed.entry((payee, signer)).or_default();
        let more = cumulative.min(cap).saturating_sub(*redeemed);
        *redeemed = redeemed.checked_add(more).unwrap();
        let (deposit, promised) = state.channels.entry(payee).or_default();
        *deposit = deposit.checked_sub(more).expect("caps are covered by the deposit");
        *promised = promised.checked_sub(more).unwrap();
    }

    pub(crate) fn pass(&self, epochs: u32) {
        let mut state = self.state();
        state.epoch.0 += epochs;
        let epoch = state.epoch;
        state.proving.values_mut().for_each(|proving| proving.epoch = epoch);
    }

    /// A wallet's way to it.
    pub(crate) fn of(&self, wallet: Address) -> Arc<Wallet> {
        Arc::new(Wallet { ledger: self.clone(), wallet, place: place() })
    }
}

pub(crate) fn place() -> Place {
    Place {
        chain_id: 31_337,
        directory: Address([0xd1; 20]),
        registry: Address([0xd2; 20]),
        market: Address([0xd3; 20]),
        channels: Address([0xd4; 20]),
        clock: EpochClock { genesis: Timestamp(GENESIS), epoch_seconds: EPOCH_SECONDS },
        question_bond: Amount(500),
    }
}

pub(crate) struct Wallet {
    ledger: Ledger,
    wallet: Address,
    place: Place,
}

impl Wallet {
    fn read<T: Send + 'static>(&self, read: impl FnOnce(&State) -> T + Send + 'static) -> Later<'_, T> {
        Box::pin(async move {
            let state = self.ledger.state();
            if state.is_down {
                Err(ChainError::Unreachable("it is down".to_owned()))
            } else {
                Ok(read(&state))
            }
        })
    }

    fn carry_out(&self, order: Order) -> Result<[u8; 32], ChainError> {
        let own = self.wallet;
        let mut guard = self.ledger.state();
        let state = &mut *guard;
        if state.is_down {
            return Err(ChainError::Unreachable("it is down".to_owned()));
        }
        let refused = |why: &str| Err(ChainError::Refused(why.to_owned()));
        match order.clone() {
            Order::Mint(_) if state.is_dear => return refused("not the token's maker"),
            Order::Mint(sum) => give(&mut state.tokens, own, sum),
            Order::Deposit(sum) => {
                take(&mut state.tokens, own, sum)?;
                give(&mut state.free, own, sum);
            }
            Order::Withdraw(sum, to) => {
                take(&mut state.free, own, sum)?;
                give(&mut state.tokens, to, sum);
            }
            Order::Reserve(id, sum) => {
                take(&mut state.free, own, sum)?;
                let open = state.open.get_mut(&id).unwrap();
                open.state.locked = open.state.locked.checked_add(sum).unwrap();
            }
            Order::AnnounceRelease(id, sum) => {
                let epoch = state.epoch;
                state.releases.insert(id, (epoch, sum));
                state.open.get_mut(&id).unwrap().state.release = Some(epoch);
            }
            Order::Release(id) => {
                let (announced, sum) = state.releases.remove(&id).unwrap();
                if !(2..4).contains(&(state.epoch.0 - announced.0)) {
                    return refused("not its time");
                }
                let open = state.open.get_mut(&id).unwrap();
                let needed = open.state.next_rate.over(open.state.end.0.saturating_sub(state.epoch.0));
                let sum = sum.min(open.state.locked.saturating_sub(needed));
                (open.state.release, open.state.locked) = (None, open.state.locked.checked_sub(sum).unwrap());
                give(&mut state.free, own, sum);
            }
            Order::Terminate(id) => {
                let (epoch, open) = (state.epoch, state.open.get_mut(&id).unwrap());
                (open.state.end, open.state.ending) = (Epoch(epoch.0 + 1), true);
            }
            Order::Authorize { signer, cap, until } => {
                state.authorities.insert(signer, Authority { cap, until });
            }
            Order::Revise(revisions) => {
                for posted in revisions {
                    assert_eq!(posted.revision.from_epoch, Epoch(state.epoch.0 + 1), "posted in time");
                    let open = state.open.get_mut(&posted.revision.agreement).unwrap();
                    open.state.sequence = posted.revision.sequence;
                    open.state.end = posted.revision.end_epoch;
                    open.state.next_rate = posted.revision.rate_per_epoch;
                    open.state.last_root = posted.revision.set_root;
                    open.state.last_size = posted.revision.size;
                }
            }
            Order::Advance(_) | Order::MoveOn(_) => {}
            Order::CloseDead(id) => {
                let open = state.open.remove(&id).unwrap();
                give(&mut state.free, open.client, open.state.locked);
            }
            Order::Ask(id) => {
                take(&mut state.free, own, self.place.question_bond)?;
                let (epoch, open) = (state.epoch, state.open.get_mut(&id).unwrap());
                open.state.question = Some(Epoch(epoch.0 + 1));
            }
            Order::Fail(id) => {
                let (epoch, open) = (state.epoch, state.open.get_mut(&id).unwrap());
                open.state.question = None;
                (open.state.end, open.state.ending) = (Epoch(epoch.0 + 1), true);
                give(&mut state.free, own, self.place.question_bond);
            }
            Order::Fund(payee, sum) => {
                take(&mut state.tokens, own, sum)?;
                let channel = state.channels.entry(payee).or_default();
                channel.0 = channel.0.checked_add(sum).unwrap();
            }
            Order::SetLane { payee, signer, cap } => {
                if state.exits.contains_key(&payee) {
                    return refused("leaving");
                }
                let (deposit, promised) = state.channels.entry(payee).or_default();
                let lane = state.lanes.entry((payee, signer)).or_default();
                let promised_then = promised.checked_add(cap.checked_sub(*lane).unwrap()).unwrap();
                if promised_then > *deposit {
                    return refused("not covered");
                }
                (*promised, *lane) = (promised_then, cap);
            }
            Order::RequestExit(payee, sum) => {
                if sum > state.channels.entry(payee).or_default().0 {
                    return refused("not there");
                }
                let at = state.time() + EXIT_SECONDS;
                state.exits.insert(payee, (sum, at));
            }
            Order::CancelExit(payee) => drop(state.exits.remove(&payee)),
            Order::Exit { payee, signers, to } => {
                let now = state.time();
                let Some((sum, _)) = state.exits.get(&payee).copied().filter(|(_, at)| *at <= now) else {
                    return refused("not due");
                };
                let (deposit, mut promised) = state.channels.get(&payee).copied().unwrap_or_default();
                let redeemed =
                    |signer: &Address| state.redeemed.get(&(payee, *signer)).copied().unwrap_or_default();
                for signer in &signers {
                    let cap = state.lanes.get(&(payee, *signer)).copied().unwrap_or_default();
                    promised = promised.checked_sub(cap.checked_sub(redeemed(signer)).unwrap()).unwrap();
                }
                let sum = sum.min(deposit);
                let left = deposit.checked_sub(sum).unwrap();
                if left < promised {
                    return refused("not covered");
                }
                let lowered: Vec<_> =
                    signers.iter().map(|signer| ((payee, *signer), redeemed(signer))).collect();
                state.lanes.extend(lowered);
                state.exits.remove(&payee);
                state.channels.insert(payee, (left, promised));
                give(&mut state.tokens, to, sum);
            }
        }
        state.orders.push(order);
        Ok([u8::try_from(state.orders.len() % 256).unwrap(); 32])
    }
}

impl Chain for Wallet {
    fn place(&self) -> &Place {
        &self.place
    }

    fn wallet(&self) -> Address {
        self.wallet
    }

    fn epoch(&self) -> Later<'_, Epoch> {
        self.read(|state| state.epoch)
    }

    fn time(&self) -> Later<'_, u64> {
        self.read(State::time)
    }

    fn provider(&self, wallet: Address) -> Later<'_, Option<ProviderEntry>> {
        self.read(move |state| state.providers.get(&wallet).cloned())
    }

    fn proving(&self, wallet: Address) -> Later<'_, Proving> {
        self.read(move |state| {
            let proving = Proving { epoch: state.epoch, ..Proving::default() };
            state.proving.get(&wallet).copied().unwrap_or(proving)
        })
    }

    fn agreement_with(&self, provider: Address) -> Later<'_, Option<AgreementId>> {
        let own = self.wallet;
        self.read(move |state| {
            let mut open = state.open.iter();
            open.find(|(_, open)| open.client == own && open.state.provider == provider).map(|(id, _)| *id)
        })
    }

    fn agreement(&self, id: AgreementId) -> Later<'_, Option<OnChain>> {
        self.read(move |state| state.open.get(&id).map(|open| open.state))
    }

    fn balances(&self, account: Address) -> Later<'_, Balances> {
        self.read(move |state| Balances {
            wallet: state.tokens.get(&account).copied().unwrap_or_default(),
            free: state.free.get(&account).copied().unwrap_or_default(),
            earned: Amount::ZERO,
        })
    }

    fn authority(&self, signer: Address) -> Later<'_, Authority> {
        self.read(move |state| state.authorities.get(&signer).copied().unwrap_or_default())
    }

    fn channel(&self, payee: Address, signer: Address) -> Later<'_, ChannelState> {
        self.read(move |state| {
            let (deposit, promised) = state.channels.get(&payee).copied().unwrap_or_default();
            let cap = state.lanes.get(&(payee, signer)).copied().unwrap_or_default();
            let redeemed = state.redeemed.get(&(payee, signer)).copied().unwrap_or_default();
            let exit = state.exits.get(&payee).copied();
            let (exit_at, leaving) = (exit.map(|(_, at)| at), exit.map_or(Amount::ZERO, |(sum, _)| sum));
            ChannelState { deposit, promised, exit_at, leaving, cap, redeemed }
        })
    }

    fn order(&self, order: Order) -> Later<'_, [u8; 32]> {
        Box::pin(async move { self.carry_out(order) })
    }
}
