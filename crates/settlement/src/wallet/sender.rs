//! The one task that sends with a key: one transaction after the other, each watched until it is in the chain.
//!
//! **Nonces** are read from the chain each time, and only this task uses the key; so there is never a gap to wait for, and a process that
//! was killed begins where the chain is. A transaction that it left behind either gets into a block, which the check before
//! the next one sees, or is replaced. Most calls do nothing, or are refused, the second time, so neither way does one count twice. The
//! others are not sent again once their nonce was used, whatever by: an endpoint that lags or lies shows no receipt of what was done.

use super::gas::{Market, SendPolicy, TooDear};
use super::{Mined, SendError, Twice, WalletStatus};
use crate::convert::{from_abi, to_abi};
use crate::endpoints::{Endpoints, Unanswered};
use crate::refusal::Refusal;
use crate::rpc::{Block, Receipt, RpcError};
use crate::transaction::{Fees, Signed, Unsigned};
use alloy_primitives::{B256, Bytes, TxKind, U64, U256};
use seedbank_agreement::WalletKey;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

/// One transaction that somebody wants.
pub(super) struct Order {
    pub(super) to: TxKind,
    pub(super) value: u128,
    pub(super) data: Bytes,
    /// The function, for logs.
    pub(super) what: &'static str,
    pub(super) twice: Twice,
    pub(super) reply: oneshot::Sender<Result<Receipt, SendError>>,
}

/// The task's state.
pub(super) struct Sender {
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) key: WalletKey,
    pub(super) policy: SendPolicy,
    pub(super) status: watch::Sender<WalletStatus>,
    /// The last transaction whose fate was not seen: whatever takes its nonce must offer more.
    pub(super) unseen: Option<Unseen>,
    /// A process before this one may have left a transaction in the pool.
    pub(super) is_new: bool,
}

pub(super) struct Unseen {
    nonce: u64,
    fees: Fees,
}

/// What to do after an attempt that did not end with a block.
enum Attempt {
    Done(Result<Receipt, SendError>),
    /// Another transaction has the nonce: look again whether this one is still wanted.
    NonceTaken,
    /// It took a while until gas was cheap enough: what was checked may no longer hold.
    Waited,
}

/// Where a transaction is.
enum Place {
    Nowhere,
    /// In a block that too few blocks follow.
    Shallow,
    Deep(Receipt),
}

/// How one transaction ended.
enum Fate {
    Mined(Receipt),
    /// By none of these, as far as endpoints show.
    NonceTaken(Vec<Signed>),
    OutOfPatience,
}

/// Another process that uses the same key can take a nonce between two looks; so often in a row it is no accident.
const ATTEMPTS_MAX: u32 = 5;
/// A node that lost the race between two of its own answers shows the receipt within this many looks.
const LOOKS_AFTER_TAKEN: u32 = 5;

impl Sender {
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>, stop: Arc<Notify>) {
        loop {
            let order = tokio::select! {
                biased;
                () = stop.notified() => return,
                order = orders.recv() => order,
            };
            let Some(order) = order else { return };
            // Nobody waits for it any more: nothing was sent, so nothing is.
            if order.reply.is_closed() {
                continue;
            }
            let result = self.process(&order).await;
            if let Err(error) = &result {
                debug!(what = order.what, %error, "transaction not done");
            }
            self.status.send_replace(WalletStatus::Idle);
            // The caller may have gone meanwhile; the chain has what it has.
            drop(order.reply.send(result));
        }
    }

    async fn process(&mut self, order: &Order) -> Result<Receipt, SendError> {
        let deadline = Instant::now() + self.policy.patience;
        let mut attempts = 0;
        while attempts < ATTEMPTS_MAX {
            match self.attempt(order, deadline).await? {
                Attempt::Done(result) => return result,
                Attempt::NonceTaken => {
                    warn!(what = order.what, "another transaction took the nonce; looking again");
                    self.unseen = None;
                    attempts += 1;
                }
                Attempt::Waited => {}
            }
        }
        Err(SendError::KeyInUse)
    }

    async fn attempt(&mut self, order: &Order, deadline: Instant) -> Result<Attempt, SendError> {
        self.status.send_replace(WalletStatus::Checking);
        self.await_left_behind(deadline).await?;
        self.check(order).await?;
        let gas_limit = self.gas_limit(order).await?;
        let nonce = self.nonce("latest").await?;
        let before = self.unseen.as_ref().filter(|unseen| unseen.nonce == nonce).map(|unseen| unseen.fees);
        let Some(fees) = self.affordable(order, before, deadline).await? else {
            return Ok(Attempt::Waited);
        };
        let mut sent = Vec::new();
        self.submit(order, nonce, gas_limit, fees, &mut sent).await?;
        let result = match self.watch(order, nonce, gas_limit, fees, sent, deadline).await? {
            Fate::Mined(receipt) => {
                self.unseen = None;
                Ok(receipt)
            }
            Fate::NonceTaken(sent) => match order.twice {
                Twice::Harmless => return Ok(Attempt::NonceTaken),
                Twice::Counts => {
                    self.unseen = None;
                    let transactions = sent.iter().map(|signed| signed.hash.0).collect();
                    Err(SendError::Unseen { nonce, transactions })
                }
            },
            Fate::OutOfPatience => Err(SendError::Pending),
        };
        Ok(Attempt::Done(match result {
            Ok(receipt) if receipt.status == 1 => Ok(receipt),
            Ok(receipt) => Err(SendError::Reverted {
                mined: Mined::of(&receipt),
                // What it would say now; by now that may be nothing.
                refusal: self.check(order).await.err().and_then(|error| match error {
                    SendError::Refused(refusal) => Some(refusal),
                    _ => None,
                }),
            }),
            Err(error) => Err(error),
        }))
    }

    /// A transaction of a process before this one gets its time; after that its nonce is used again.
    async fn await_left_behind(&mut self, deadline: Instant) -> Result<(), SendError> {
        if !self.is_new {
            return Ok(());
        }
        let until = deadline.min(Instant::now() + self.policy.stuck_after);
        loop {
            let (latest, pending) = (self.nonce("latest").await?, self.nonce("pending").await?);
            if pending <= latest || Instant::now() >= until {
                self.is_new = false;
                return Ok(());
            }
            info!(nonce = latest, "a transaction of this key is waiting for a block");
            self.status.send_replace(WalletStatus::Waiting { nonce: latest });
            sleep(self.policy.poll).await;
        }
    }

    /// Whether the contract would do it now.
    async fn check(&self, order: &Order) -> Result<(), SendError> {
        let params = json!([self.as_call(order), "latest"]);
        match self.endpoints.ask::<Value>("eth_call", params).await {
            Ok(_) => Ok(()),
            Err(unanswered) => Err(self.refused(unanswered)),
        }
    }

    async fn gas_limit(&self, order: &Order) -> Result<u64, SendError> {
        let params = json!([self.as_call(order)]);
        let estimate: U64 = self
            .endpoints
            .ask("eth_estimateGas", params)
            .await
            .map_err(|unanswered| self.refused(unanswered))?;
        self.policy
            .limit(estimate.to())
            .map_err(|too_much| SendError::TooMuchGas { estimate: too_much.estimate, max: too_much.max })
    }

    fn refused(&self, unanswered: Unanswered) -> SendError {
        match unanswered.refusal() {
            Some(error) if says_no_coin(error) => SendError::NoCoin { account: self.key.address() },
            Some(error) => match Refusal::of(error) {
                Some(refusal) => SendError::Refused(refusal),
                None => SendError::Unanswered(unanswered),
            },
            None => SendError::Unanswered(unanswered),
        }
    }

    fn as_call(&self, order: &Order) -> Value {
        let mut call = json!({ "from": to_abi(self.key.address()), "data": order.data });
        if let TxKind::Call(to) = order.to {
            call["to"] = json!(to);
        }
        if order.value != 0 {
            call["value"] = json!(U256::from(order.value));
        }
        call
    }

    async fn nonce(&self, at: &str) -> Result<u64, Unanswered> {
        let params = json!([to_abi(self.key.address()), at]);
        Ok(self.endpoints.ask::<U64>("eth_getTransactionCount", params).await?.to())
    }

    async fn market(&self) -> Result<Market, Unanswered> {
        let block: Option<Block> =
            self.endpoints.ask("eth_getBlockByNumber", json!(["latest", false])).await?;
        let price = |price: U256| price.saturating_to::<u128>();
        match block.and_then(|block| block.base_fee_per_gas) {
            None => {
                let now: U256 = self.endpoints.ask("eth_gasPrice", json!([])).await?;
                Ok(Market::Legacy { price: price(now) })
            }
            Some(base) => {
                // Not every node with London has it; those are content without a tip.
                let tip = match self.endpoints.ask::<U256>("eth_maxPriorityFeePerGas", json!([])).await {
                    Ok(tip) => price(tip),
                    Err(unanswered) if unanswered.refusal().is_some() => 0,
                    Err(unanswered) => return Err(unanswered),
                };
                Ok(Market::London { base: price(base), tip })
            }
        }
    }

    /// What to offer. None if it took waiting to come below the cap.
    async fn affordable(
        &self,
        order: &Order,
        before: Option<Fees>,
        deadline: Instant,
    ) -> Result<Option<Fees>, SendError> {
        let mut waited = false;
        loop {
            match self.policy.fees(self.market().await?, before) {
                Ok(fees) => return Ok((!waited).then_some(fees)),
                Err(TooDear { price, cap }) => {
                    if !waited {
                        warn!(what = order.what, price, cap, "gas costs more than is paid; waiting");
                    }
                    waited = true;
                    self.status.send_replace(WalletStatus::TooDear { price, cap });
                    if order.reply.is_closed() || Instant::now() >= deadline {
                        return Err(SendError::TooDear { price, cap });
                    }
                    sleep(self.policy.poll).await;
                }
            }
        }
    }

    async fn submit(
        &mut self,
        order: &Order,
        nonce: u64,
        gas_limit: u64,
        fees: Fees,
        sent: &mut Vec<Signed>,
    ) -> Result<(), SendError> {
        let unsigned = Unsigned {
            chain_id: self.endpoints.chain_id(),
            nonce,
            to: order.to,
            value: order.value,
            data: &order.data,
            gas_limit,
            fees,
        };
        let signed = unsigned.sign(&self.key);
        debug!(what = order.what, nonce, transaction = %signed.hash, price = fees.max(), "sending a transaction");
        // Before it is sent: from now on it may be in somebody's pool.
        self.unseen = Some(Unseen { nonce, fees });
        let result = self.endpoints.broadcast(&signed.raw).await;
        sent.push(signed);
        let Err(unanswered) = result else { return Ok(()) };
        match unanswered.refusal() {
            // It may have arrived all the same; watching shows that, and sends it again.
            None => Ok(()),
            // The chain or the pool has another transaction with this nonce: watching shows which, or replaces it.
            Some(error) if says_nonce_used(error) || says_underpriced(error) => Ok(()),
            Some(error) if says_no_coin(error) => {
                self.unseen = None;
                Err(SendError::NoCoin { account: self.key.address() })
            }
            Some(_) => {
                self.unseen = None;
                Err(SendError::Unanswered(unanswered))
            }
        }
    }

    /// Looks for the transaction until it is deep enough in the chain, and sends it again where it is stuck.
    async fn watch(
        &mut self,
        order: &Order,
        nonce: u64,
        gas_limit: u64,
        mut fees: Fees,
        mut sent: Vec<Signed>,
        deadline: Instant,
    ) -> Result<Fate, SendError> {
        self.status.send_replace(WalletStatus::Waiting { nonce });
        let mut resubmit_at = Instant::now() + self.policy.stuck_after;
        let mut taken = 0;
        loop {
            match self.look(&sent).await {
                Ok(Place::Deep(receipt)) => return Ok(Fate::Mined(receipt)),
                // It is in the chain, so nothing has to be sent again.
                Ok(Place::Shallow) => resubmit_at = Instant::now() + self.policy.stuck_after,
                Ok(Place::Nowhere) => {
                    // Asked after the receipts: a nonce that was used before that has its receipt by now.
                    if self.nonce("latest").await.is_ok_and(|next| next > nonce) {
                        taken += 1;
                        if taken >= LOOKS_AFTER_TAKEN {
                            return Ok(Fate::NonceTaken(sent));
                        }
                    } else {
                        taken = 0;
                    }
                }
                Err(unanswered) => warn!(what = order.what, %unanswered, "can't look for a transaction"),
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Fate::OutOfPatience);
            }
            if now >= resubmit_at {
                resubmit_at = now + self.policy.stuck_after;
                self.resubmit(order, nonce, gas_limit, &mut fees, &mut sent).await?;
            }
            sleep(self.policy.poll).await;
        }
    }

    async fn resubmit(
        &mut self,
        order: &Order,
        nonce: u64,
        gas_limit: u64,
        fees: &mut Fees,
        sent: &mut Vec<Signed>,
    ) -> Result<(), SendError> {
        let Ok(market) = self.market().await else {
            return Ok(());
        };
        match self.policy.fees(market, Some(*fees)) {
            Ok(higher) => {
                warn!(what = order.what, nonce, price = higher.max(), "transaction is stuck; offering more");
                *fees = higher;
                self.submit(order, nonce, gas_limit, higher, sent).await
            }
            Err(TooDear { price, cap }) => {
                warn!(what = order.what, nonce, price, cap, "transaction is stuck, and more is not paid");
                self.status.send_replace(WalletStatus::TooDear { price, cap });
                // Nodes forget what waits for long.
                if let Some(last) = sent.last() {
                    drop(self.endpoints.broadcast(&last.raw).await);
                }
                Ok(())
            }
        }
    }

    /// Where whichever of the transactions is that is in the chain.
    async fn look(&self, sent: &[Signed]) -> Result<Place, Unanswered> {
        for signed in sent.iter().rev() {
            let Some(receipt) = self.receipt(signed.hash).await? else { continue };
            self.endpoints.saw_block(receipt.block_number);
            if self.policy.confirmations <= 1 {
                return Ok(Place::Deep(receipt));
            }
            let wanted = receipt.block_number.saturating_add(self.policy.confirmations - 1);
            let head: U64 = self.endpoints.ask("eth_blockNumber", json!([])).await?;
            if head.to::<u64>() < wanted {
                return Ok(Place::Shallow);
            }
            // Asked again: it may have moved to another block since, or out of the chain.
            return Ok(match self.receipt(signed.hash).await? {
                Some(again) if again.block_hash == receipt.block_hash => Place::Deep(again),
                Some(_) => Place::Shallow,
                None => Place::Nowhere,
            });
        }
        Ok(Place::Nowhere)
    }

    async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, Unanswered> {
        self.endpoints.ask("eth_getTransactionReceipt", json!([hash])).await
    }
}

impl Mined {
    pub(crate) fn of(receipt: &Receipt) -> Self {
        Self {
            transaction: receipt.transaction_hash.0,
            block: receipt.block_number,
            block_hash: receipt.block_hash.0,
            gas_used: receipt.gas_used,
            gas_price: receipt.effective_gas_price.map_or(0, |price| price.saturating_to()),
            contract: receipt.contract_address.map(from_abi),
        }
    }
}

fn says(error: &RpcError, words: &[&str]) -> bool {
    let message = error.message.to_lowercase();
    words.iter().any(|word| message.contains(word))
}

fn says_no_coin(error: &RpcError) -> bool {
    says(error, &["insufficient funds", "insufficient balance for", "doesn't have enough funds"])
}

fn says_nonce_used(error: &RpcError) -> bool {
    says(error, &["nonce too low", "nonce is too low", "invalid nonce", "oldnonce"])
}

fn says_underpriced(error: &RpcError) -> bool {
    says(error, &["underpriced", "too low to replace", "replacement"])
}
