//! Cashing vouchers when `redeem` says so.

use crate::chain_config::WEI_PER_COIN;
use crate::money::Money;
use crate::money::books::{BooksError, RedemptionRow};
use crate::money::connect::ChainError;
use crate::money::reading::cover;
use crate::money::redeem::{Payer, Rules, Waiting, due, is_worth_asking};
use crate::service::now;
use seedbank_agreement::lane::Exit;
use seedbank_agreement::{Amount, Lane, Signed, Voucher};
use seedbank_formats::Timestamp;
use seedbank_protocol::payment::TransactionHash;
use seedbank_settlement::{Mined, Redeemed, Wallet};
use std::sync::Arc;

/// Why vouchers were not cashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CashError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Books(#[from] BooksError),
}

/// A lane that has brought nothing for so long is forgotten: what it was paid the chain knows.
const LANE_S: u64 = 30 * 86_400;

/// What was cashed longer ago than this stays cashed: no chain takes back a day.
const FINAL_AFTER_S: u64 = 86_400;

impl Money {
    /// Looks at vouchers again that were cashed lately: what the chain has not paid after all waits again.
    pub(crate) async fn recheck_cashed(self: &Arc<Money>, wallet: &Wallet) -> Result<(), CashError> {
        let lanes = self.blocking(|money| money.books().lanes()).await?;
        let young = Timestamp(now().0.saturating_sub(FINAL_AFTER_S));
        for (payer, signer, lane, since) in lanes {
            let Some(voucher) = lane.newest().cloned() else { continue };
            let is_cashed = voucher.message.cumulative <= lane.cover().redeemed;
            if !is_cashed || since < young {
                continue;
            }
            let cover = cover(wallet, &voucher.message).await.map_err(ChainError::from)?;
            if cover.redeemed >= lane.cover().redeemed {
                continue;
            }
            let vanished = self.blocking(move |money| -> Result<Amount, BooksError> {
                let mut books = money.books();
                // A newer voucher may have come in the meantime.
                let Some((mut lane, since)) = books.lane(payer, signer)? else { return Ok(Amount::ZERO) };
                lane.set_cover(cover);
                books.take_back_redemptions((payer, signer), &lane, since)
            });
            let vanished = vanished.await?;
            tracing::warn!(%payer, %signer, %vanished, "the chain has not cashed a voucher after all: it waits again");
        }
        Ok(())
    }

    /// Cashes what it pays to cash at this price of gas. Gives the transaction.
    pub(crate) async fn cash(
        self: &Arc<Money>,
        wallet: &Wallet,
        gas_price_wei: u128,
    ) -> Result<Option<Mined>, CashError> {
        let config = self.config.redeem;
        let gas_price = gas_price_wei.saturating_mul(config.coin_in_units.0).div_ceil(WEI_PER_COIN);
        let rules = Rules { factor: config.factor, age_s: config.age_s, gas_price: Amount(gas_price) };
        let lanes = self.blocking(|money| money.books().lanes()).await?;
        let mut open: Vec<(Lane, Timestamp, Signed<Voucher>)> = Vec::new();
        let old = Timestamp(now().0.saturating_sub(LANE_S));
        let mut dead = Vec::new();
        for (payer, signer, mut lane, since) in lanes {
            let Some(voucher) = lane.newest().cloned() else { continue };
            if voucher.message.cumulative <= lane.cover().redeemed {
                if since < old {
                    dead.push((payer, signer));
                }
                continue;
            }
            // What is worth less than its gas whatever the chain says waits for more of it.
            if !is_worth_asking(&lane, &rules) {
                continue;
            }
            // As the chain has it now: somebody may have cashed it, raised the cap, or be leaving.
            lane.set_cover(cover(wallet, &voucher.message).await.map_err(ChainError::from)?);
            if lane.redeemable() == Amount::ZERO {
                if since < old {
                    dead.push((payer, signer));
                }
                continue;
            }
            open.push((lane, since, voucher));
        }
        if !dead.is_empty() {
            self.blocking(move |money| money.books().forget_lanes(&dead, old)).await?;
        }
        let waiting: Vec<Waiting> = open
            .iter()
            .map(|(lane, since, _)| Waiting {
                due: lane.redeemable(),
                since: *since,
                payer: if lane.cover().exit == Exit::Pending { Payer::Leaves } else { Payer::Stays },
            })
            .collect();
        let chosen = due(&waiting, &rules, now());
        if chosen.is_empty() {
            return Ok(None);
        }
        let vouchers: Vec<Signed<Voucher>> = chosen.iter().map(|at| open[*at].2.clone()).collect();
        let redemption = wallet.channels().redeem(&vouchers).await.map_err(ChainError::from)?;
        for (at, outcome) in chosen.iter().zip(redemption.vouchers) {
            let (lane, since, voucher) = open[*at].clone();
            let after = cover(wallet, &voucher.message).await.map_err(ChainError::from)?;
            self.keep_cashed(lane, since, voucher, outcome, after, redemption.mined).await?;
        }
        Ok(Some(redemption.mined))
    }

    async fn keep_cashed(
        self: &Arc<Money>,
        mut lane: Lane,
        since: Timestamp,
        voucher: Signed<Voucher>,
        outcome: Redeemed,
        after: seedbank_agreement::lane::Cover,
        mined: Mined,
    ) -> Result<(), BooksError> {
        let Voucher { payer, signer, .. } = voucher.message;
        self.blocking(move |money| {
            let mut books = money.books();
            // A newer voucher may have come in the meantime.
            if let Some((newer, _)) = books.lane(payer, signer)? {
                lane = newer;
            }
            lane.set_cover(after);
            match outcome {
                Redeemed::Paid { paid, .. } => {
                    let transaction = TransactionHash(mined.transaction);
                    tracing::info!(%payer, %signer, %paid, %transaction, "voucher cashed");
                    books.keep_redemption(&RedemptionRow { transaction, paid, time: now(), voucher }, &lane)
                }
                Redeemed::Skipped { reason, .. } => {
                    tracing::warn!(%payer, %signer, ?reason, "voucher not cashed");
                    books.keep_lane((payer, signer), &lane, since)
                }
            }
        })
        .await
    }
}
