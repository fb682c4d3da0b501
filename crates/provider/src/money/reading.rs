//! Reads that are counted, and vouchers that pay for them.

use crate::money::books::{Accounts, BooksError, Quoted};
use crate::money::unwritten::{Batch, Unwritten};
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
use std::time::Instant;

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
                    // Another read that had to wait for this may have written both: then that is enough.
                    let written = self.blocking(|money| money.write_accounts(Unwritten::take_changed)).await;
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
        let channels = wallet.chain().deployment().channels_domain();
        // All that needs no chain comes first: anybody may send a voucher.
        if request.voucher.signer(&channels) != Ok(voucher.signer) {
            let message = "the voucher is not signed by its signer for this chain and contract";
            return Ok(VoucherAnswer::Refused(refusal(VoucherReason::Signature, message, None)));
        }
        // One of a key at a time.
        let turn = self.turn(key);
        let _mine = turn.lock().await;
        let known = voucher.clone();
        let first = self.blocking(move |money| money.is_news(&key, &known)).await;
        if let Err(refusal) = first.map_err(|error| books_failed(&error))? {
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
        let network = Network::of(remote);
        let taken =
            self.blocking(move |money| money.keep_voucher(key, network, request, cover, &channels)).await;
        taken.map_err(|error| books_failed(&error))
    }

    /// What a key's vouchers wait for, one after the other.
    fn turn(&self, key: PublicKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut paying = self.paying.lock().unwrap_or_else(PoisonError::into_inner);
        paying.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(paying.entry(key).or_default())
    }

    /// Whether a voucher is worth a question to the chain, as far as the books know its lane; or the refusal.
    fn is_news(&self, key: &PublicKey, voucher: &Voucher) -> Result<Result<(), VoucherRefusal>, BooksError> {
        let Some((lane, _)) = self.books().lane(voucher.payer, voucher.signer)? else {
            let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
            let message = "too many new payers at once: try again in a moment";
            return Ok(if strangers.may_ask(Instant::now()) {
                Ok(())
            } else {
                Err(refusal(VoucherReason::ChainUnreachable, message, None))
            });
        };
        let step = step_bytes(self.config.credit.per_key.0);
        let step = egress(step, self.egress_price()).unwrap_or(Amount::ZERO);
        Ok(match step_of(&lane, voucher.cumulative, self.credit().owed(key), step) {
            Step::Enough => Ok(()),
            Step::Stale => {
                Err(refusal(VoucherReason::Stale, "the voucher is not above the last one", Some(&lane)))
            }
            Step::TooSmall => {
                let message =
                    format!("a voucher pays {step} units more than the last at least, or all that is owed");
                Err(refusal(VoucherReason::Other, &message, Some(&lane)))
            }
        })
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
        // What was read meanwhile is written along: that is one sync less.
        let batch = self.unwritten().take_changed();
        let mut accounts = self.as_they_are(batch.iter().flat_map(|batch| &batch.changed));
        let mut account = self.credit().account(&key).copied().unwrap_or(Account::even(network, now));
        account.pay(more, now);
        accounts.insert(key, Some(account));
        let may_miss = batch.as_ref().map(|batch| batch.may_miss);
        let kept = books.keep_payment((payer, signer), &lane, since, &accounts, may_miss);
        self.told(batch, &kept);
        kept?;
        // Only what is on the disk counts: a voucher whose commit failed may come again.
        self.credit().pay(key, network, more, now);
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
            let late = credit
                .accounts()
                .filter(|(_, account)| account.owed > Amount::ZERO && account.since < before);
            late.map(|(key, _)| *key).collect()
        };
        if !late.is_empty() {
            let lost = self.credit().write_off(before);
            tracing::info!(%lost, "debts written off");
            late.into_iter().for_each(|key| self.unwritten().note(key));
        }
        self.write_accounts(Unwritten::take)
    }

    fn write_accounts(&self, take: impl FnOnce(&mut Unwritten) -> Option<Batch>) -> Result<(), BooksError> {
        // One writer at a time: what was noted first is written first.
        let mut books = self.books();
        let Some(batch) = take(&mut self.unwritten()) else { return Ok(()) };
        let kept = books.keep_accounts(&self.as_they_are(&batch.changed), batch.may_miss);
        self.told(Some(batch), &kept);
        kept
    }

    fn as_they_are<'a>(&self, keys: impl IntoIterator<Item = &'a PublicKey>) -> Accounts {
        let credit = self.credit();
        keys.into_iter().map(|key| (*key, credit.account(key).copied())).collect()
    }

    /// Whether a batch is on the disk.
    fn told(&self, batch: Option<Batch>, kept: &Result<(), BooksError>) {
        let Some(batch) = batch else { return };
        match kept {
            Ok(()) => self.unwritten().written(&batch),
            Err(_) => self.unwritten().failed(batch),
        }
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

/// Bytes that a voucher pays at least, unless it pays all that is owed: each costs the provider two questions and a sync.
const STEP_BYTES: u64 = 64 << 10;

/// The least that a voucher pays for, where a key has so much credit: whoever pays when half of it is used pays for more, even while
/// reads are under way that nobody owes yet by the reader's count.
fn step_bytes(credit_bytes: u64) -> u64 {
    STEP_BYTES.min(credit_bytes / 4)
}

/// What a voucher adds to its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Enough,
    /// Nothing.
    Stale,
    /// So little that taking it costs more.
    TooSmall,
}

/// What a voucher up to `cumulative` adds, of a key that owes so much.
fn step_of(lane: &Lane, cumulative: Amount, owed: Amount, step: Amount) -> Step {
    let more = cumulative.saturating_sub(lane.newest_sum());
    if more == Amount::ZERO {
        Step::Stale
    } else if more >= step || (owed > Amount::ZERO && more >= owed) {
        Step::Enough
    } else {
        Step::TooSmall
    }
}

/// What the chain says of a voucher's lane, by its newest block: readers don't wait for confirmations. A deposit that a
/// reorganisation takes away has bought no more traffic than it would have paid for, since each voucher asks again.
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
        cumulative: lane.map_or(Amount::ZERO, Lane::newest_sum),
        covered: lane.map_or(Amount::ZERO, |lane| lane.cover().covered_up_to()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, step_bytes, step_of};
    use crate::money::testing::opened;
    use rusqlite::Connection;
    use seedbank_agreement::credit::Network;
    use seedbank_agreement::lane::Cover;
    use seedbank_agreement::{Address, Amount, Domain, Lane, Typed, Voucher, WalletKey};
    use seedbank_formats::PublicKey;
    use seedbank_protocol::payment::{VoucherAnswer, VoucherRequest};
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    const MIB: u64 = 1 << 20;

    #[test]
    fn voucher_adds_a_step_or_pays_all_that_is_owed() {
        let cover =
            Cover { deposit: Amount(5_000), cap: Amount(5_000), redeemed: Amount(100), ..Cover::default() };
        let lane = Lane::new(Address([1; 20]), Address([2; 20]), Address([1; 20]), cover);
        let step = |cumulative, owed| step_of(&lane, Amount(cumulative), Amount(owed), Amount(64));
        assert_eq!(step(100, 0), Step::Stale);
        assert_eq!(step(101, 0), Step::TooSmall);
        assert_eq!(step(101, 2), Step::TooSmall);
        assert_eq!(step(102, 2), Step::Enough);
        assert_eq!(step(163, 0), Step::TooSmall);
        assert_eq!((step(164, 0), step(164, 1_000)), (Step::Enough, Step::Enough));
    }

    #[test]
    fn the_least_that_a_voucher_pays_leaves_room_for_half_of_a_small_credit() {
        assert_eq!(step_bytes(16 << 10), 4 << 10);
        assert_eq!(step_bytes(256 << 20), 64 << 10);
        assert_eq!(step_bytes(0), 0);
    }

    #[tokio::test]
    async fn voucher_that_could_not_be_written_credits_nothing_and_once_it_is_it_credits_once_and_writes_what_others_read()
     {
        let dir = tempfile::tempdir().unwrap();
        let money = Arc::new(opened(dir.path()));
        let (key, remote) = (PublicKey([7; 32]), "192.0.2.7".parse().unwrap());
        assert!(money.charge(key, remote, MIB).await.unwrap().is_some());
        let owed = money.owed_in_all();
        let reader = PublicKey([8; 32]);
        assert!(money.charge(reader, remote, MIB).await.unwrap().is_some());
        let both = money.owed_in_all();
        let signer = WalletKey::from_secret(&[4; 32]).unwrap();
        let channels = Domain { chain_id: 199, contract: Address([5; 20]) };
        let own = signer.address();
        let cumulative = Amount(owed.0 + 10);
        let voucher = Voucher { payer: own, payee: money.address(), signer: own, cumulative };
        let request = VoucherRequest { voucher: voucher.sign(&channels, &signer) };
        let all = Amount(u128::MAX >> 1);
        let cover = Cover { deposit: all, cap: all, ..Cover::default() };
        let take = || money.keep_voucher(key, Network::of(remote), request.clone(), cover, &channels);
        let books = Connection::open(dir.path().join("money.db")).unwrap();
        let full = "CREATE TRIGGER full BEFORE INSERT ON lanes BEGIN SELECT RAISE(ABORT, 'full'); END";
        books.execute_batch(full).unwrap();
        assert!(take().is_err());
        assert_eq!(money.owed_in_all(), both);
        books.execute_batch("DROP TRIGGER full").unwrap();
        let VoucherAnswer::Accepted(standing) = take().unwrap() else { panic!("it is covered") };
        assert_eq!((standing.owed, standing.prepaid), (Amount(0), Amount(10)));
        let written = money.books().accounts().unwrap().into_iter().find(|(key, _)| *key == reader);
        assert_eq!(written.map(|(_, account)| account.owed), Some(owed), "what others read is written along");
        assert!(money.unwritten().take_changed().is_none(), "nothing is left to write");
        money.close_accounts().unwrap();
        drop(money);
        let money = Arc::new(opened(dir.path()));
        assert_eq!(money.credit().account(&key).map(|account| account.ahead), Some(Amount(10)));
    }

    #[test]
    fn account_that_paid_ahead_and_rests_is_not_written_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let money = opened(dir.path());
        let network = Network::V4([192, 0, 2]);
        money.credit().pay(PublicKey([7; 32]), network, Amount(10), seedbank_formats::Timestamp(1));
        money.keep_accounts().unwrap();
        assert!(money.unwritten().take().is_none(), "nobody read and nobody paid");
        assert_eq!(
            money.credit().account(&PublicKey([7; 32])).map(|account| account.ahead),
            Some(Amount(10))
        );
    }

    #[tokio::test]
    async fn reads_that_wait_for_the_disk_together_share_a_write_and_its_announcement() {
        let dir = tempfile::tempdir().unwrap();
        let money = Arc::new(opened(dir.path()));
        let (one, other) = (PublicKey([7; 32]), PublicKey([8; 32]));
        let remote = "192.0.2.7".parse().unwrap();
        let mut first = pin!(money.charge(one, remote, MIB));
        let mut second = pin!(money.charge(other, remote, MIB));
        {
            // Both are counted, and neither can be written yet.
            let _books = money.books();
            let mut context = Context::from_waker(Waker::noop());
            assert!(first.as_mut().poll(&mut context).is_pending());
            assert!(second.as_mut().poll(&mut context).is_pending());
        }
        assert!(first.await.unwrap().is_some() && second.await.unwrap().is_some());
        assert_eq!(money.books().accounts().unwrap().len(), 2, "both are on the disk");
        assert!(money.unwritten().count(one, Amount(1)), "the second took back no announcement");
    }

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
