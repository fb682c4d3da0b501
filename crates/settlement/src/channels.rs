//! `RetrievalChannels`: deposits that pay for reading, lanes with caps, and vouchers.

use crate::abi::channels::RetrievalChannels as Abi;
use crate::chain::{Chain, ReadError};
use crate::convert::{amount, to_abi};
use crate::rpc::Receipt;
use crate::wallet::{Mined, SendError, Wallet};
use alloy_primitives::Bytes;
use alloy_sol_types::SolEvent;
use seedbank_agreement::{Address, Amount, Signed, Voucher};
use seedbank_formats::Timestamp;

/// One payer's money for one payee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// What is left of the deposits.
    pub deposit: Amount,
    /// Caps of all lanes, less what they redeemed.
    pub promised: Amount,
    /// The exit that is under way.
    pub exit: Option<Exit>,
}

/// Money that is about to leave a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// How much.
    pub sum: Amount,
    /// The time from which it may.
    pub at: Timestamp,
}

/// One signer's part of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// The highest cumulative amount that is covered.
    pub cap: Amount,
    /// What was redeemed of it.
    pub redeemed: Amount,
}

/// What became of one voucher of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeemed {
    /// The payee was credited.
    Paid {
        /// How much.
        paid: Amount,
        /// What the lane paid in all.
        cumulative: Amount,
        /// What the voucher is good for beyond its lane's cap: it can be redeemed again when that is raised.
        missing: Amount,
    },
    /// Nothing was paid.
    Skipped {
        /// Why.
        reason: VoucherSkip,
        /// What it is good for beyond its lane's cap.
        missing: Amount,
    },
}

/// Why a voucher was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoucherSkip {
    /// Not signed by the signer that it names.
    Signature,
    /// No more than was redeemed already.
    Stale,
    /// Its lane's cap is used up.
    Uncovered,
    /// For a reason that this program doesn't know.
    Unknown,
}

/// What became of a batch of vouchers, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// The transaction.
    pub mined: Mined,
    /// One for each voucher.
    pub vouchers: Vec<Redeemed>,
}

/// Questions to the channels. See [`Chain::channels`].
#[derive(Clone, Copy)]
pub struct ChannelReads<'a>(&'a Chain);

/// Calls of the channels. See [`Wallet::channels`].
#[derive(Clone, Copy)]
pub struct ChannelCalls<'a>(&'a Wallet);

impl Chain {
    /// Questions to the retrieval channels.
    #[must_use]
    pub fn channels(&self) -> ChannelReads<'_> {
        ChannelReads(self)
    }
}

impl Wallet {
    /// Calls of the retrieval channels.
    #[must_use]
    pub fn channels(&self) -> ChannelCalls<'_> {
        ChannelCalls(self)
    }
}

impl ChannelReads<'_> {
    /// A payer's channel to a payee; empty if there never was one.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn channel(self, payer: Address, payee: Address) -> Result<Channel, ReadError> {
        let found = self.read(Abi::channelsCall { payer: to_abi(payer), payee: to_abi(payee) }).await?;
        let exit =
            (found.exitAt != 0).then_some(Exit { sum: Amount(found.leaving), at: Timestamp(found.exitAt) });
        Ok(Channel { deposit: Amount(found.deposit), promised: Amount(found.promised), exit })
    }

    /// A signer's lane.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn lane(self, payer: Address, payee: Address, signer: Address) -> Result<Lane, ReadError> {
        let call = Abi::lanesCall { payer: to_abi(payer), payee: to_abi(payee), signer: to_abi(signer) };
        let found = self.read(call).await?;
        Ok(Lane { cap: Amount(found.cap), redeemed: Amount(found.redeemed) })
    }

    /// What a payee redeemed and did not withdraw.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn earned(self, payee: Address) -> Result<Amount, ReadError> {
        self.read(Abi::earnedCall { payee: to_abi(payee) }).await.map(amount)
    }

    async fn read<C: alloy_sol_types::SolCall>(self, call: C) -> Result<C::Return, ReadError> {
        self.0.read(self.0.deployment().channels, call).await
    }
}

impl ChannelCalls<'_> {
    /// Adds the wallet's tokens to a payer's channel. Approve them first.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn deposit(self, payer: Address, payee: Address, sum: Amount) -> Result<Mined, SendError> {
        self.send_once(Abi::depositCall { payer: to_abi(payer), payee: to_abi(payee), amount: sum.0 }).await
    }

    /// Lets `signer` promise up to `cap` in all to a payee. Caps only rise.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn set_lane(self, payee: Address, signer: Address, cap: Amount) -> Result<Mined, SendError> {
        self.send(Abi::setLaneCall { payee: to_abi(payee), signer: to_abi(signer), cap: cap.0 }).await
    }

    /// Credits payees with what vouchers are good for.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn redeem(self, vouchers: &[Signed<Voucher>]) -> Result<Redemption, SendError> {
        let signatures =
            vouchers.iter().map(|voucher| Bytes::from(voucher.signature.as_bytes().to_vec())).collect();
        let call = Abi::redeemCall {
            vouchers: vouchers.iter().map(|voucher| to_call(&voucher.message)).collect(),
            signatures,
        };
        let receipt = self.0.call(self.at(), call).await?;
        Ok(Redemption { mined: Mined::of(&receipt), vouchers: outcomes(&receipt, self.at(), vouchers) })
    }

    /// Sends what the wallet earned to `to`.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn withdraw(self, to: Address) -> Result<Mined, SendError> {
        self.send(Abi::withdrawCall { to: to_abi(to) }).await
    }

    /// Announces that the wallet takes back so much of a channel.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn request_exit(self, payee: Address, sum: Amount) -> Result<Mined, SendError> {
        self.send(Abi::requestExitCall { payee: to_abi(payee), amount: sum.0 }).await
    }

    /// Takes an announcement back.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn cancel_exit(self, payee: Address) -> Result<Mined, SendError> {
        self.send(Abi::cancelExitCall { payee: to_abi(payee) }).await
    }

    /// Ends an announced exit. The lanes of `signers` fall to what they redeemed.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn exit(self, payee: Address, signers: &[Address], to: Address) -> Result<Mined, SendError> {
        let signers = signers.iter().copied().map(to_abi).collect();
        self.send(Abi::exitCall { payee: to_abi(payee), signers, to: to_abi(to) }).await
    }

    async fn send<C: alloy_sol_types::SolCall>(self, call: C) -> Result<Mined, SendError> {
        self.0.send(self.at(), call).await
    }

    async fn send_once<C: alloy_sol_types::SolCall>(self, call: C) -> Result<Mined, SendError> {
        self.0.send_once(self.at(), call).await
    }

    fn at(self) -> Address {
        self.0.chain().deployment().channels
    }
}

fn to_call(voucher: &Voucher) -> Abi::Voucher {
    Abi::Voucher {
        payer: to_abi(voucher.payer),
        payee: to_abi(voucher.payee),
        signer: to_abi(voucher.signer),
        cumulative: voucher.cumulative.0,
    }
}

/// What the events say about each voucher. The contract goes through them in order: a shortfall comes before what it is about.
fn outcomes(receipt: &Receipt, contract: Address, vouchers: &[Signed<Voucher>]) -> Vec<Redeemed> {
    let unknown = Redeemed::Skipped { reason: VoucherSkip::Unknown, missing: Amount::ZERO };
    let mut outcomes = vec![unknown; vouchers.len()];
    let mut at = 0;
    let mut missing = Amount::ZERO;
    for log in receipt.logs.iter().filter(|log| log.address == to_abi(contract)) {
        let (topics, data) = (log.topics.iter().copied(), log.data.as_ref());
        if let Ok(shortfall) = Abi::Shortfall::decode_raw_log(topics.clone(), data) {
            missing = Amount(shortfall.missing);
        } else if let Ok(event) = Abi::Redeemed::decode_raw_log(topics.clone(), data) {
            if let Some(outcome) = outcomes.get_mut(at) {
                *outcome = Redeemed::Paid {
                    paid: Amount(event.paid),
                    cumulative: Amount(event.cumulative),
                    missing,
                };
            }
            (at, missing) = (at + 1, Amount::ZERO);
        } else if let Ok(skipped) = Abi::VoucherSkipped::decode_raw_log(topics, data) {
            let index = skipped.index.saturating_to::<usize>();
            if let Some(outcome) = outcomes.get_mut(index) {
                *outcome = Redeemed::Skipped { reason: reason(skipped.reason), missing };
            }
            (at, missing) = (index.saturating_add(1), Amount::ZERO);
        }
    }
    outcomes
}

/// By its number in the contract.
pub(crate) fn reason(skip: u8) -> VoucherSkip {
    match skip {
        1 => VoucherSkip::Signature,
        2 => VoucherSkip::Stale,
        3 => VoucherSkip::Uncovered,
        _ => VoucherSkip::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn reasons_are_numbered_as_in_the_contract() {
        let source = include_str!("../../../contracts/src/RetrievalChannels.sol");
        let body = source.split_once("enum Skip {").unwrap().1.split_once('}').unwrap().0;
        for (number, name) in body.split(',').enumerate().skip(1) {
            assert_eq!(format!("{:?}", reason(u8::try_from(number).unwrap())), name.trim());
        }
    }
}
