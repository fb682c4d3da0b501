//! Reads that are counted, and vouchers that pay for them.

use crate::money::books::{BooksError, Quoted};
use crate::money::unwritten::Unwritten;
use crate::money::{Money, books_failed, no_chain};
use crate::service::now;
use seedbank_agreement::credit::{Account, Network};
use seedbank_agreement::lane::{Cover, Exit, VoucherError};
use seedbank_agreement::price::egress;
use seedbank_agreement::{Amount, Domain, Lane, Voucher};
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_protocol::messages::Problem;
use seedbank_protocol::payment::{
    PaymentDue, Standing, VoucherAnswer, VoucherReason, VoucherRefusal, VoucherRequest,
};
use seedbank_settlement::{ReadError, Wallet};
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};

/// A read that was counted. What is not sent after all is given back.
#[derive(Clone)]
pub(crate) struct Charged {
    money: Arc<Money>,
    key: PublicKey,
    network: Network,
    bytes: u64,
    price: Amount,
}

impl Charged {
    /// Gives back what was counted beyond so many bytes.
    pub(crate) fn sent_only(&self, bytes: u64) {
        let cost = |bytes| egress(bytes, self.price).unwrap_or(Amount::ZERO);
        let unsent = cost(self.bytes).saturating_sub(cost(bytes));
        if unsent > Amount::ZERO {
            self.money.credit().pay(self.key, self.network, unsent, now());
            self.money.unwritten().note(self.key);
        }
    }
}

impl Money {
    /// What a GiB costs: the lowest price that was quoted and holds.
    pub(super) fn egress_price(&self) -> Amount {
        let now = now();
        let quoted = self.quoted_before.iter().filter(|quoted: &&Quoted| quoted.expires >= now);
        let today = Amount(self.prices.retrieval_per_gib.0);
        quoted.map(|quoted| quoted.egress).min().map_or(today, |lowest| lowest.min(today))
    }

    /// Counts a read before it is answered, if the key may have it. `None` where reads are free.
    pub(crate) async fn charge(
        self: &Arc<Money>,
        key: PublicKey,
        remote: IpAddr,
        bytes: u64,
    ) -> Result<Option<Charged>, Problem> {
        let price = self.egress_price();
        if price == Amount::ZERO {
            return Ok(None);
        }
        let network = Network::of(remote);
        // What can't be paid can't be owed either.
        let cost = egress(bytes, price).unwrap_or(Amount::MAX);
        let charged = self.credit().charge(key, network, cost, now());
        match charged {
            Ok(()) => {
                let fits = self.unwritten().count(key, cost);
                if !fits {
                    let written = self.blocking(|money| money.keep_accounts()).await;
                    written.map_err(|error| books_failed(&error))?;
                }
                Ok(Some(Charged { money: Arc::clone(self), key, network, bytes, price }))
            }
            Err(required) => {
                let due = PaymentDue {
                    owed: required.owed,
                    needed: required.pay,
                    credit_bytes: bytes_for(required.left, price),
                    payee: self.address(),
                    egress_per_gib: price,
                };
                let message = format!("{} units must be paid before this read", required.pay);
                Err(Problem::payment_required(message, due))
            }
        }
    }

    /// Takes a voucher for whoever holds the connection.
    pub(crate) async fn take_voucher(
        self: &Arc<Money>,
        key: PublicKey,
        remote: IpAddr,
        request: VoucherRequest,
    ) -> Result<VoucherAnswer, Problem> {
        let wallet = self.link().ok_or_else(no_chain)?;
        let voucher = &request.voucher.message;
        if voucher.payee != self.address() {
            let refusal = refusal(VoucherReason::WrongPayee, "the voucher is for another payee", None);
            return Ok(VoucherAnswer::Refused(refusal));
        }
        let cover = match cover(wallet, voucher).await {
            Ok(cover) => cover,
            Err(error) => {
                tracing::warn!(%error, "the chain does not say what a voucher is worth");
                let message = "this provider can't ask its chain at the moment";
                return Ok(VoucherAnswer::Refused(refusal(VoucherReason::ChainUnreachable, message, None)));
            }
        };
        let channels = wallet.chain().deployment().channels_domain();
        let network = Network::of(remote);
        let taken =
            self.blocking(move |money| money.keep_voucher(key, network, request, cover, &channels)).await;
        taken.map_err(|error| books_failed(&error))
    }

    /// Voucher and account are on disk when this returns.
    pub(super) fn keep_voucher(
        &self,
        key: PublicKey,
        network: Network,
        request: VoucherRequest,
        cover: Cover,
        channels: &Domain,
    ) -> Result<VoucherAnswer, BooksError> {
        let Voucher { payer, payee, signer, .. } = request.voucher.message;
        let mut books = self.books();
        let now = now();
        let (mut lane, since) = match books.lane(payer, signer)? {
            Some((lane, since)) if lane.redeemable() > Amount::ZERO => (lane, since),
            Some((lane, _)) => (lane, now),
            None => (Lane::new(payer, payee, signer, cover), now),
        };
        lane.set_cover(cover);
        let more = match lane.accept(request.voucher, channels) {
            Ok(more) => more,
            Err(error) => {
                let reason = match error {
                    VoucherError::OtherLane | VoucherError::Signature => VoucherReason::Signature,
                    VoucherError::NotHigher { .. } => VoucherReason::Stale,
                    VoucherError::NoLane | VoucherError::NotCovered { .. } => VoucherReason::Uncovered,
                    VoucherError::Exiting => VoucherReason::Exiting,
                };
                return Ok(VoucherAnswer::Refused(refusal(reason, &error.to_string(), Some(&lane))));
            }
        };
        self.credit().pay(key, network, more, now);
        let account: Option<Account> = self.credit().account(&key).copied();
        books.keep_payment((payer, signer), &lane, since, (&key, account.as_ref()))?;
        tracing::debug!(%key, %payer, %signer, %more, "voucher taken");
        Ok(VoucherAnswer::Accepted(self.standing_of(&key, network)))
    }

    fn standing_of(&self, key: &PublicKey, network: Network) -> Standing {
        let price = self.egress_price();
        let credit = self.credit();
        let account = credit.account(key);
        let prepaid = account.map_or(Amount::ZERO, |account| account.ahead);
        let on_credit = credit.left(key, network).saturating_sub(prepaid);
        Standing { owed: credit.owed(key), prepaid, credit_bytes: bytes_for(on_credit, price) }
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down accounts that changed, and writes off what nobody will pay.
    pub(crate) fn keep_accounts(&self) -> Result<(), BooksError> {
        let now = now();
        let before = Timestamp(now.0.saturating_sub(self.config.credit.write_off_s));
        let late: Vec<PublicKey> = {
            let credit = self.credit();
            let late = credit.accounts().filter(|(_, account)| account.since < before);
            late.map(|(key, _)| *key).collect()
        };
        if !late.is_empty() {
            let lost = self.credit().write_off(before);
            tracing::info!(%lost, "debts written off");
            late.into_iter().for_each(|key| self.unwritten().note(key));
        }
        // One writer at a time: what was noted first is written first.
        let mut books = self.books();
        let Some(batch) = self.unwritten().take() else { return Ok(()) };
        let accounts: Vec<(PublicKey, Option<Account>)> = {
            let credit = self.credit();
            batch.changed.iter().map(|key| (*key, credit.account(key).copied())).collect()
        };
        let kept = books.keep_accounts(&accounts, batch.may_miss);
        match &kept {
            Ok(()) => self.unwritten().written(&batch),
            Err(_) => self.unwritten().failed(batch),
        }
        kept
    }

    /// Writes down accounts for the last time: nothing is read any more.
    pub(crate) fn close_accounts(&self) -> Result<(), BooksError> {
        self.keep_accounts()?;
        self.keep_accounts()
    }

    /// All that readers owe.
    pub(crate) fn owed_in_all(&self) -> Amount {
        self.credit().total()
    }
}

/// What the chain says of a voucher's lane.
pub(super) async fn cover(wallet: &Wallet, voucher: &Voucher) -> Result<Cover, ReadError> {
    let channels = wallet.chain().channels();
    let (channel, lane) = tokio::try_join!(
        channels.channel(voucher.payer, voucher.payee),
        channels.lane(voucher.payer, voucher.payee, voucher.signer),
    )?;
    let exit = if channel.exit.is_some() { Exit::Pending } else { Exit::None };
    Ok(Cover { deposit: channel.deposit, cap: lane.cap, redeemed: lane.redeemed, exit })
}

/// How many bytes an amount buys.
fn bytes_for(amount: Amount, price: Amount) -> u64 {
    let whole = amount
        .0
        .checked_mul(1 << 30)
        .map_or(u128::MAX, |scaled| scaled.checked_div(price.0).unwrap_or(u128::MAX));
    u64::try_from(whole).unwrap_or(u64::MAX)
}

fn refusal(reason: VoucherReason, message: &str, lane: Option<&Lane>) -> VoucherRefusal {
    VoucherRefusal {
        reason,
        message: message.to_owned(),
        cumulative: lane.map_or(Amount::ZERO, |lane| lane.promised().max(lane.cover().redeemed)),
        covered: lane.map_or(Amount::ZERO, |lane| lane.cover().covered_up_to()),
    }
}

#[cfg(test)]
mod tests {
    use crate::money::costs::opened;
    use seedbank_agreement::Amount;
    use seedbank_formats::PublicKey;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn what_a_kill_forgets_of_readers_accounts_is_set_aside_and_an_end_in_order_forgets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let remote = "192.0.2.7".parse().unwrap();
        let mut served = Amount::ZERO;
        for (round, ends_in_order) in [false, true, false, false, true].into_iter().enumerate() {
            let money = Arc::new(opened(dir.path()));
            assert!(money.owed_in_all() >= served, "a kill gave credit back");
            let before = money.owed_in_all();
            for _ in 0..20 {
                let key = PublicKey([u8::try_from(round).unwrap() + 1; 32]);
                assert!(money.charge(key, remote, MIB).await.unwrap().is_some());
            }
            let counted = money.owed_in_all().saturating_sub(before);
            served = served.checked_add(counted).unwrap();
            if ends_in_order {
                let owed = money.owed_in_all();
                money.close_accounts().unwrap();
                drop(money);
                assert_eq!(opened(dir.path()).owed_in_all(), owed);
            }
        }
    }
}
