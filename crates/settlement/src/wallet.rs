//! A key's hands: sends transactions, one at a time, and waits until the chain holds them.

mod gas;
mod sender;

pub use gas::SendPolicy;

use crate::chain::Chain;
use crate::convert::to_abi;
use crate::endpoints::{Endpoints, Unanswered};
use crate::refusal::Refusal;
use crate::rpc::Receipt;
use alloy_primitives::{B256, Bytes, TxKind};
use alloy_sol_types::SolCall;
use seedbank_agreement::{Address, WalletKey};
use sender::{Order, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// A transaction that the chain holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mined {
    /// Its hash.
    pub transaction: [u8; 32],
    /// Its block.
    pub block: u64,
    /// That block's hash: if another block is there later, the transaction may be gone.
    pub block_hash: [u8; 32],
    /// Gas that it took.
    pub gas_used: u64,
    /// Price of a unit of it, in wei; 0 where nodes don't say.
    pub gas_price: u128,
    /// The contract that it made, if it made one.
    pub contract: Option<Address>,
}

/// Why a transaction was not done.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The contract refuses it as things are. Nothing was sent.
    #[error("the contract refuses it: {0}")]
    Refused(Refusal),
    /// It got into a block and was refused there: things changed after the check. It cost its gas and did nothing else. Decide again.
    #[error("the contract refused it in a block{}", .refusal.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Reverted {
        /// Where.
        mined: Mined,
        /// What the contract would say now, if it still refuses.
        refusal: Option<Refusal>,
    },
    /// Send the account some of the chain's coin, for gas. Nothing was sent.
    #[error("{account} has not enough of the chain's coin to pay for gas")]
    NoCoin {
        /// Whose.
        account: Address,
    },
    /// The call must be split, or the limit raised. Nothing was sent.
    #[error("it would take {estimate} gas, and at most {max} is offered")]
    TooMuchGas {
        /// What it would take.
        estimate: u64,
        /// The configured limit.
        max: u64,
    },
    /// Wait for a lower price, or raise the cap. Nothing was sent.
    #[error("gas costs {price} wei, and at most {cap} is paid")]
    TooDear {
        /// The market's.
        price: u128,
        /// The configured cap.
        cap: u128,
    },
    /// It was sent, and is in no block yet: the chain stands still, or the price is too low. It may still happen; look at the contract's
    /// state before asking again.
    #[error("it was sent and is in no block yet")]
    Pending,
    /// Its nonce was used, and no endpoint shows what by: it may have been done, and done twice it would count twice, so it is not
    /// sent again. Look for the transactions, or at what they were to change, before asking again.
    #[error(
        "nonce {nonce} was used, and no endpoint shows by what: it may have been done. Look for transaction {}, or at the balance, \
         before you repeat it",
        hashes(.transactions)
    )]
    Unseen {
        /// Its number among the key's transactions.
        nonce: u64,
        /// The hashes under which it was sent, one for each price.
        transactions: Vec<[u8; 32]>,
    },
    /// Another process sends with this key, again and again. Stop one of them.
    #[error("another process sends with this key")]
    KeyInUse,
    /// No endpoint could be asked, or each refused for reasons of its own. If anything was sent, the next check shows it.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The wallet was stopped.
    #[error("the wallet was stopped")]
    Stopped,
}

fn hashes(transactions: &[[u8; 32]]) -> String {
    let hashes: Vec<String> = transactions.iter().map(|hash| B256::from(*hash).to_string()).collect();
    hashes.join(" or ")
}

/// What comes of a call that is done a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twice {
    /// It is refused, or changes nothing more.
    Harmless,
    /// It moves money again.
    Counts,
}

/// What a wallet is doing, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalletStatus {
    /// Nothing.
    Idle,
    /// Asking what a transaction would do and cost.
    Checking,
    /// A transaction waits for a block.
    Waiting {
        /// Its number among the key's transactions.
        nonce: u64,
    },
    /// A transaction waits for gas to get cheaper.
    TooDear {
        /// The market's price in wei.
        price: u128,
        /// The configured cap.
        cap: u128,
    },
}

/// Callers wait for their transactions anyway, so more than a few waiting is a caller that doesn't.
const ORDERS_MAX: usize = 64;

/// A chain, and a key that sends to it. Clones share the key's one sending task.
#[derive(Clone)]
pub struct Wallet {
    chain: Chain,
    sending: Sending,
}

impl Wallet {
    /// Starts the key's sending task. Have only one wallet of a key at a time: two would take each other's
    /// nonces, and the same call of both would be one transaction.
    ///
    /// The task ends with the last clone, or with [`Wallet::stop`].
    #[must_use]
    pub fn start(chain: Chain, key: WalletKey, policy: SendPolicy) -> Self {
        let sending = Sending::start(chain.endpoints_arc(), key, policy);
        Self { chain, sending }
    }

    /// The chain that it sends to.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Whose key it is.
    #[must_use]
    pub fn address(&self) -> Address {
        self.sending.address
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> WalletStatus {
        *self.sending.status.borrow()
    }

    /// Tells of every change of what it is doing.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<WalletStatus> {
        self.sending.status.clone()
    }

    /// Takes no further transactions, through whichever clone, and waits for the one under way.
    pub async fn stop(&self) {
        self.sending.stop().await;
    }

    /// Sends some of the chain's coin, in wei: what another key pays its gas with.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn send_coin(&self, to: Address, wei: u128) -> Result<Mined, SendError> {
        let order = (TxKind::Call(to_abi(to)), wei, Bytes::new());
        let sent = self.sending.send("send coin", order.0, order.1, order.2, Twice::Counts);
        sent.await.map(|receipt| Mined::of(&receipt))
    }

    /// Calls a contract.
    pub(crate) async fn call<C: SolCall>(&self, contract: Address, call: C) -> Result<Receipt, SendError> {
        self.call_that(Twice::Harmless, contract, call).await
    }

    async fn call_that<C: SolCall>(
        &self,
        twice: Twice,
        contract: Address,
        call: C,
    ) -> Result<Receipt, SendError> {
        let data = Bytes::from(call.abi_encode());
        self.sending.send(C::SIGNATURE, TxKind::Call(to_abi(contract)), 0, data, twice).await
    }

    /// The same, where nothing but the transaction itself is of interest.
    pub(crate) async fn send<C: SolCall>(&self, contract: Address, call: C) -> Result<Mined, SendError> {
        self.call(contract, call).await.map(|receipt| Mined::of(&receipt))
    }

    /// The same for a call that would move money again: it is never sent under a second nonce.
    pub(crate) async fn send_once<C: SolCall>(&self, contract: Address, call: C) -> Result<Mined, SendError> {
        self.call_that(Twice::Counts, contract, call).await.map(|receipt| Mined::of(&receipt))
    }
}

/// A handle to a sending task.
#[derive(Clone)]
pub(crate) struct Sending {
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<WalletStatus>,
    pub(crate) address: Address,
    stop: Arc<Notify>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Sending {
    pub(crate) fn start(endpoints: Arc<Endpoints>, key: WalletKey, policy: SendPolicy) -> Self {
        let address = key.address();
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let (status, watched) = watch::channel(WalletStatus::Idle);
        let sender = Sender { endpoints, key, policy, status, unseen: None, is_new: true };
        let stop = Arc::new(Notify::new());
        let task = tokio::spawn(sender.run(taken, Arc::clone(&stop)));
        let task = Arc::new(Mutex::new(Some(task)));
        Self { orders, status: watched, address, stop, task }
    }

    pub(crate) async fn send(
        &self,
        what: &'static str,
        to: TxKind,
        value: u128,
        data: Bytes,
        twice: Twice,
    ) -> Result<Receipt, SendError> {
        let (reply, answer) = oneshot::channel();
        let order = Order { to, value, data, what, twice, reply };
        self.orders.send(order).await.map_err(|_| SendError::Stopped)?;
        answer.await.map_err(|_| SendError::Stopped)?
    }

    pub(crate) async fn stop(&self) {
        // Kept until the task looks, which it does between two transactions.
        self.stop.notify_one();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.await.expect("the sending task does not panic");
        }
    }
}
