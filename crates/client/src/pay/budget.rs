//! What may be paid, and how much is set aside for it: decisions in checked integers, without clock, chain or network.
//!
//! Rent is planned by the month: the sum over all agreements must stay within the budget, together with what was read in
//! this month. Money that is set aside comes back when it is not needed, so it is no cost; it is what must be there.

use seedbank_agreement::price::{MONTH_SECONDS, Prices, TooDear, egress};
use seedbank_agreement::{Amount, Epoch, Rate};

/// What a home is willing to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The highest prices that are accepted.
    pub ceiling: Prices,
    /// For everything together, in 30 days.
    pub per_month: Amount,
    /// For so many epochs an agreement is made; the steward goes on renewing it.
    pub term_epochs: u32,
}

/// Of the credit that a payee offers so much is used: what is paid ahead is half of that, and lost if it sends nothing for it.
pub const CREDIT_BYTES_MAX: u64 = 256 << 20;

/// Nor more than this part of a month's budget: no payee drains it with one demand.
const BUDGET_SHARE: u128 = 16;

/// A payee that has sent nothing yet is paid for so many bytes at most, beside what is asked of it.
const FIRST_BYTES: u64 = 4 << 20;

/// An agreement as long as this is renewed when half of it is over.
pub const TERM_EPOCHS_DEFAULT: u32 = 30;

/// The budget does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the budget of {per_month} units a month is exhausted: rent takes {rent}, reads took {read} this month, and {more} more \
     are wanted; raise it with `seedbank chain use --budget`"
)]
pub struct BudgetExhausted {
    /// The budget.
    pub per_month: Amount,
    /// Rent of 30 days by what is agreed already.
    pub rent: Amount,
    /// What was paid for reads in this month.
    pub read: Amount,
    /// What would come on top.
    pub more: Amount,
}

/// What is spent already, by the month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spending {
    /// Rent of 30 days by what is agreed.
    pub rent: Amount,
    /// Paid for reads in this month.
    pub read: Amount,
}

impl Limits {
    /// Whether so much more may be spent in a month.
    ///
    /// # Errors
    /// [`BudgetExhausted`].
    pub fn allow(&self, spending: &Spending, more: Amount) -> Result<(), BudgetExhausted> {
        let Spending { rent, read } = *spending;
        let sum = rent.checked_add(read).and_then(|sum| sum.checked_add(more));
        match sum {
            Some(sum) if sum <= self.per_month => Ok(()),
            // What costs nothing is within any budget, even one that is overdrawn by what was agreed before.
            _ if more == Amount::ZERO => Ok(()),
            Some(_) | None => Err(BudgetExhausted { per_month: self.per_month, rent, read, more }),
        }
    }

    /// How far this home goes with a payee that lets it owe so many bytes, and how far before that has sent anything.
    ///
    /// # Errors
    /// [`TooDear`] for prices that nobody could pay.
    pub fn trust(&self, credit_bytes: u64, egress_per_gib: Amount) -> Result<Trust, TooDear> {
        let first = egress(FIRST_BYTES, egress_per_gib)?;
        let offered = egress(credit_bytes.min(CREDIT_BYTES_MAX), egress_per_gib)?;
        Ok(Trust { credit: offered.min(self.share().max(first)), first })
    }

    /// The part of a month's budget that goes into one lane, or ahead to one payee.
    fn share(&self) -> Amount {
        Amount(self.per_month.0 / BUDGET_SHARE)
    }
}

/// What a rate comes to in 30 days, epochs rounded up.
#[must_use]
pub fn monthly(rate: Rate, epoch_seconds: u32) -> Amount {
    rate.over(MONTH_SECONDS.div_ceil(epoch_seconds.max(1)))
}

/// What is locked with a first agreement: its whole term, and as much again, so that what is added next needs no
/// transaction.
#[must_use]
pub fn first_escrow(rate: Rate, term_epochs: u32) -> Amount {
    rate.over(term_epochs.saturating_mul(2))
}

/// What an agreement has to pay with, as the chain tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purse {
    /// The current epoch.
    pub now: Epoch,
    /// What is locked for it and was not earned yet.
    pub locked: Amount,
    /// What the current terms pay for an epoch; zero before they begin.
    pub rate: Rate,
}

impl Purse {
    /// What is left for terms that begin with the next epoch, once the current epoch is paid.
    #[must_use]
    pub fn left(&self) -> Amount {
        self.locked.saturating_sub(self.rate.over(1))
    }

    /// How long terms of this rate, from the next epoch on, can last: at most so many epochs. `None` if not even
    /// `epochs_min` can be paid.
    #[must_use]
    pub fn term(&self, rate: Rate, epochs_min: u32, epochs_max: u32) -> Option<u32> {
        let most = match self.left().0.checked_div(rate.units()) {
            // What costs nothing lasts as long as anybody likes.
            None => epochs_max,
            Some(epochs) => u32::try_from(epochs).unwrap_or(u32::MAX).min(epochs_max),
        };
        (most >= epochs_min.max(1)).then_some(most)
    }

    /// What must be added so that terms of this rate last `epochs` epochs.
    #[must_use]
    pub fn missing(&self, rate: Rate, epochs: u32) -> Amount {
        rate.over(epochs).saturating_sub(self.left())
    }
}

/// How far a home goes with one payee, in money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust {
    /// What it may be owed, of which half is paid ahead.
    pub credit: Amount,
    /// What is paid ahead to a payee that has sent nothing.
    pub first: Amount,
}

/// How a process stands with a provider that it reads from, in money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The price of what it got.
    pub spent: Amount,
    /// The price of all that it asked for, with what it gave up before it came: the provider may have sent that.
    pub asked: Amount,
    /// The price of what it waits for.
    pub awaited: Amount,
    /// What its vouchers added since it began.
    pub paid: Amount,
    /// What was paid ahead before it began, by the provider's word. It only ever puts a payment off.
    pub prepaid: Amount,
    /// What processes before it or beside it read and did not pay, by the provider's word. So much is paid with the rest, within
    /// what is fair.
    pub left: Amount,
    /// How far to go with the provider.
    pub trust: Trust,
}

impl Account {
    /// What to pay now, ahead of need: nothing while less than half of the credit is used; then what is owed and half of
    /// the credit ahead, so that a voucher is sent for each credit's worth of reading. The first pays what is owed alone: how
    /// processes before this one left their account is known from the answer to it.
    #[must_use]
    pub fn ahead(&self) -> Amount {
        let owed = self.due().saturating_sub(self.prepaid);
        let half = Amount(self.trust.credit.0 / 2);
        if owed < half || owed == Amount::ZERO {
            Amount::ZERO
        } else if self.paid == Amount::ZERO {
            owed
        } else {
            owed.saturating_add(half).min(self.fair())
        }
    }

    /// What to pay when the provider asks for `needed`: that and half of the credit ahead, or all that is owed and awaited, so
    /// that reads which wait together need one voucher. `None` when that is not fair.
    #[must_use]
    pub fn demanded(&self, needed: Amount) -> Option<Amount> {
        let ahead = needed.checked_add(Amount(self.trust.credit.0 / 2).min(self.earned()))?;
        let all = self.due().checked_add(self.awaited)?;
        let fair = self.fair();
        (needed <= fair).then(|| ahead.max(all).min(fair))
    }

    /// Above this a provider gets nothing: more than this process asked for, and the credit that others with the same key may
    /// have used. Who sends nothing gets no more: nothing is paid ahead, and nothing for reads that were given up, beyond as much
    /// as came, and a little at first.
    fn fair(&self) -> Amount {
        let (earned, waiting) = (self.earned(), self.spent.saturating_add(self.awaited));
        let asked = self.asked.min(waiting.saturating_add(earned));
        asked.saturating_add(self.trust.credit.min(earned)).saturating_sub(self.paid)
    }

    fn earned(&self) -> Amount {
        self.spent.saturating_add(self.trust.first)
    }

    /// What others with the same key did not pay, where the provider says that `owed` is owed in all.
    #[must_use]
    pub fn left_of(&self, owed: Amount) -> Amount {
        owed.saturating_sub(self.spent.saturating_add(self.awaited).saturating_sub(self.paid))
    }

    /// What came and was not paid, of this process and of others.
    fn due(&self) -> Amount {
        let left = self.left.min(self.trust.credit).min(self.earned());
        self.spent.saturating_add(left).saturating_sub(self.paid)
    }
}

/// Reads that a lane is funded for at once: a transaction for so many, not for each voucher.
const LANE_BYTES: u64 = 16 << 30;

/// How high a lane's cap becomes that must cover `cumulative`: for many reads more, but for no more than a part of the budget.
/// What is not used comes back with the channel's exit.
///
/// # Errors
/// [`TooDear`] for prices that nobody could pay.
pub fn lane_cap(cumulative: Amount, egress_per_gib: Amount, limits: &Limits) -> Result<Amount, TooDear> {
    cumulative.checked_add(egress(LANE_BYTES, egress_per_gib)?.min(limits.share())).ok_or(TooDear)
}

/// What to deposit so that a channel covers its lanes with this one's cap raised.
#[must_use]
pub fn deposit_missing(deposit: Amount, promised: Amount, cap: Amount, new_cap: Amount) -> Amount {
    let promised = promised.saturating_add(new_cap.saturating_sub(cap));
    promised.saturating_sub(deposit)
}

#[cfg(test)]
mod tests {
    use super::{
        Account, CREDIT_BYTES_MAX, Limits, Purse, Spending, Trust, deposit_missing, first_escrow, lane_cap,
        monthly,
    };
    use proptest::prelude::{any, proptest};
    use seedbank_agreement::price::{Prices, TooDear};
    use seedbank_agreement::{Amount, Epoch, Rate};

    fn rate(units: u128) -> Rate {
        Rate::new(units).unwrap()
    }

    fn limits(per_month: u128) -> Limits {
        let ceiling = Prices { rent_per_gib_month: Amount(10), egress_per_gib: Amount(10) };
        Limits { ceiling, per_month: Amount(per_month), term_epochs: 30 }
    }

    #[test]
    fn rent_and_reads_share_the_budget() {
        let spending = Spending { rent: Amount(60), read: Amount(30) };
        assert!(limits(100).allow(&spending, Amount(10)).is_ok());
        let refused = limits(100).allow(&spending, Amount(11)).unwrap_err();
        assert!(refused.to_string().contains("budget of 100 units a month is exhausted"), "{refused}");
        assert!(limits(100).allow(&spending, Amount::MAX).is_err());
        assert!(limits(0).allow(&Spending::default(), Amount(1)).is_err());
        assert!(limits(50).allow(&spending, Amount::ZERO).is_ok(), "what is free needs no budget");
    }

    #[test]
    fn a_month_has_its_epochs() {
        assert_eq!(monthly(rate(5), 86_400), Amount(150));
        assert_eq!(monthly(rate(5), 7 * 86_400), Amount(25), "five weeks begin in a month");
        assert_eq!(first_escrow(rate(5), 30), Amount(300));
    }

    #[test]
    fn terms_last_as_long_as_they_are_paid() {
        let purse = Purse { now: Epoch(7), locked: Amount(105), rate: rate(5) };
        assert_eq!(purse.left(), Amount(100));
        assert_eq!(purse.term(rate(10), 1, 30), Some(10));
        assert_eq!(purse.term(rate(1), 1, 30), Some(30));
        assert_eq!(purse.term(rate(10), 11, 30), None);
        assert_eq!(purse.term(rate(101), 0, 30), None, "not one epoch");
        assert_eq!(purse.term(Rate::ZERO, 1, 30), Some(30));
        assert_eq!(purse.missing(rate(10), 30), Amount(200));
        assert_eq!(purse.missing(rate(1), 30), Amount::ZERO);
    }

    fn account(spent: u128, paid: u128) -> Account {
        let (spent, paid) = (Amount(spent), Amount(paid));
        let trust = Trust { credit: Amount(100), first: Amount(1000) };
        Account {
            spent,
            asked: spent,
            awaited: Amount::ZERO,
            paid,
            prepaid: Amount::ZERO,
            left: Amount::ZERO,
            trust,
        }
    }

    #[test]
    fn vouchers_go_ahead_of_need_and_not_far() {
        assert_eq!(account(49, 0).ahead(), Amount::ZERO);
        assert_eq!(account(50, 0).ahead(), Amount(50), "what was paid ahead before is not known yet");
        assert_eq!(account(50, 100).ahead(), Amount::ZERO, "paid ahead already");
        assert_eq!(account(149, 100).ahead(), Amount::ZERO);
        assert_eq!(account(150, 100).ahead(), Amount(100));
        let free = Trust { credit: Amount::ZERO, first: Amount::ZERO };
        assert_eq!(Account { trust: free, ..account(0, 0) }.ahead(), Amount::ZERO, "what is free");
    }

    #[test]
    fn what_earlier_processes_paid_ahead_is_used_up_first() {
        let account = Account { prepaid: Amount(40), ..account(180, 100) };
        assert_eq!(account.ahead(), Amount::ZERO);
        assert_eq!(Account { spent: Amount(190), ..account }.ahead(), Amount(100));
        // Runs that read 130 each, of a payee that says what they have paid ahead.
        let (mut paid, mut used) = (0u128, 0u128);
        for _ in 0..50 {
            let mut run =
                Account { spent: Amount::ZERO, paid: Amount::ZERO, prepaid: Amount::ZERO, ..account };
            for _ in 0..130 {
                used += 1;
                run.spent = Amount(run.spent.0 + 1);
                let more = run.ahead();
                if more > Amount::ZERO {
                    paid += more.0;
                    run.paid = Amount(run.paid.0 + more.0);
                    let ahead = Amount(paid.saturating_sub(used));
                    run.prepaid = ahead.saturating_sub(run.paid.saturating_sub(run.spent));
                }
            }
            assert!(paid <= used + 100, "{paid} for {used}");
        }
    }

    #[test]
    fn what_earlier_processes_did_not_pay_is_paid_with_the_rest_and_makes_no_more_vouchers() {
        // A payee that gives a credit of 100, and processes that read 75 times 7 each.
        let (mut read, mut paid) = (0u128, 0u128);
        for _ in 0..50 {
            let mut run = account(0, 0);
            let mut vouchers = 0;
            for _ in 0..75 {
                let owed = read.saturating_sub(paid);
                run.asked = Amount(run.asked.0 + 7);
                let needed = (read + 7).saturating_sub(paid + 100);
                let mut more = Amount::ZERO;
                if needed > 0 {
                    run.awaited = Amount(7);
                    run.left = run.left_of(Amount(owed));
                    more = run.demanded(Amount(needed)).expect("it is fair");
                    run.awaited = Amount::ZERO;
                }
                read += 7;
                run.spent = Amount(run.spent.0 + 7);
                more = more.max(run.ahead());
                if more > Amount::ZERO {
                    vouchers += 1;
                    paid += more.0;
                    run.paid = Amount(run.paid.0 + more.0);
                    run.left = run.left_of(Amount(read.saturating_sub(paid)));
                    run.prepaid =
                        Amount(paid.saturating_sub(read)).saturating_sub(run.paid.saturating_sub(run.spent));
                }
            }
            assert!(vouchers <= 6, "{vouchers} vouchers");
            assert!(paid <= read + 100 && read <= paid + 100, "{paid} for {read}");
        }
    }

    #[test]
    fn a_provider_that_says_others_owe_it_gets_what_it_could_demand_and_no_more() {
        let mut account = Account { left: Amount::MAX, ..account(200, 150) };
        assert_eq!(account.ahead(), Amount(150), "200 that came, and a credit");
        account.paid = Amount(300);
        assert_eq!((account.ahead(), account.demanded(Amount(1))), (Amount::ZERO, None));
    }

    #[test]
    fn a_provider_that_sent_nothing_gets_little_whatever_credit_it_offers() {
        // A gibibyte for 1,024 units, a budget of 16 TiB.
        let price = Amount(1024);
        let mut trust = limits(16 << 20).trust(u64::MAX, price).unwrap();
        assert_eq!(trust, Trust { credit: Amount(256), first: Amount(4) }, "{CREDIT_BYTES_MAX} bytes");
        let asked = Amount(2);
        let new = Account { asked, awaited: asked, trust, ..account(0, 0) };
        assert_eq!(new.demanded(Amount(7)), None);
        assert_eq!(new.demanded(Amount(2)), Some(Amount(6)));
        // It goes on asking, and sends nothing: reads that were given up are not paid for without end.
        let mut robbed = new;
        for _ in 0..1000 {
            robbed.asked = Amount(robbed.asked.0 + 2);
            while let Some(paid) = robbed.demanded(Amount(1)) {
                robbed.paid = Amount(robbed.paid.0 + paid.0);
            }
        }
        assert_eq!(robbed.paid, Amount(10), "what waits, and twice as much as is trusted at first");
        trust = limits(160).trust(u64::MAX, price).unwrap();
        assert_eq!(trust.credit, Amount(10), "a sixteenth of the budget");
        assert_eq!(limits(0).trust(u64::MAX, price).unwrap().credit, trust.first);
        assert_eq!(limits(160).trust(1 << 20, price).unwrap().credit, Amount(1), "no more than it offers");
    }

    #[test]
    fn reads_that_were_given_up_are_paid_as_far_as_as_much_came() {
        let account = Account {
            asked: Amount(300),
            trust: Trust { credit: Amount(100), first: Amount(4) },
            ..account(100, 150)
        };
        assert_eq!(account.demanded(Amount(154)), Some(Amount(154)));
        assert_eq!(account.demanded(Amount(155)), None, "204 of what was asked, and the credit");
    }

    #[test]
    fn a_provider_gets_no_more_than_what_can_be_owed() {
        // 20 by our own count, 5 for a read that waits, 100 that others may have used.
        let account = Account { asked: Amount(35), ..account(30, 10) };
        assert_eq!(account.demanded(Amount(125)), Some(Amount(125)));
        assert_eq!(account.demanded(Amount(126)), None);
        assert_eq!(account.demanded(Amount(20)), Some(Amount(70)));
        assert_eq!(account.demanded(Amount(100)), Some(Amount(125)), "never beyond what is fair");
        let waiting = Account { asked: Amount(530), awaited: Amount(500), ..account };
        assert_eq!(waiting.demanded(Amount(20)), Some(Amount(520)), "all that wait are paid for at once");
    }

    #[test]
    fn a_provider_that_asks_again_and_sends_nothing_is_not_paid_again() {
        let mut account = account(0, 0);
        account.asked = Amount(5);
        account.paid = account.demanded(Amount(60)).unwrap();
        assert_eq!(account.paid, Amount(105));
        assert_eq!(account.demanded(Amount(1)), None);
    }

    #[test]
    fn a_lane_is_funded_for_many_reads() {
        let rich = limits(1 << 100);
        assert_eq!(lane_cap(Amount(7), Amount(10), &rich), Ok(Amount(167)));
        assert_eq!(
            lane_cap(Amount(7), Amount(10), &limits(320)),
            Ok(Amount(27)),
            "a sixteenth of the budget"
        );
        assert_eq!(lane_cap(Amount(1), Amount::MAX, &rich), Err(TooDear));
        assert_eq!(deposit_missing(Amount(100), Amount(90), Amount(20), Amount(25)), Amount::ZERO);
        assert_eq!(deposit_missing(Amount(100), Amount(90), Amount(20), Amount(60)), Amount(30));
    }

    proptest! {
        #[test]
        fn what_is_sent_ahead_is_owed_or_within_half_a_credit(
            spent in any::<u64>(), paid in any::<u64>(), credit in any::<u64>(), left in any::<u64>()
        ) {
            let [spent, paid, credit, left] = [spent, paid, credit, left].map(|units| Amount(u128::from(units)));
            let trust = Trust { credit, first: Amount::ZERO };
            let account = Account { trust, ..account(spent.0, paid.0) };
            let after = account.paid.checked_add(account.ahead()).unwrap();
            assert!(account.ahead() == Amount::ZERO || after.0 <= account.spent.0 + account.trust.credit.0 / 2);
            let account = Account { left, ..account };
            let after = account.paid.checked_add(account.ahead()).unwrap();
            assert!(account.ahead() == Amount::ZERO || after.0 <= account.spent.0 + account.trust.credit.0);
        }

        #[test]
        fn deposits_always_cover_the_caps(
            deposit in any::<u64>(), promised in any::<u64>(), cap in any::<u64>(), more in any::<u64>()
        ) {
            let [deposit, promised, cap, more] = [deposit, promised, cap, more].map(|units| Amount(u128::from(units)));
            let new_cap = cap.checked_add(more).unwrap();
            let after = deposit.checked_add(deposit_missing(deposit, promised, cap, new_cap)).unwrap();
            assert!(after >= promised.checked_add(more).unwrap());
        }

        #[test]
        fn terms_are_always_covered(locked in any::<u64>(), old in any::<u64>(), new in any::<u64>(), max in any::<u32>()) {
            let purse = Purse { now: Epoch(1), locked: Amount(u128::from(locked)), rate: rate(u128::from(old)) };
            let new = rate(u128::from(new));
            if let Some(epochs) = purse.term(new, 1, max) {
                assert!(purse.left() >= new.over(epochs));
                assert!(purse.left() == Amount::ZERO || purse.locked.0 >= purse.rate.units());
            }
            assert!(purse.left().checked_add(purse.missing(new, max)).unwrap() >= new.over(max));
        }
    }
}
