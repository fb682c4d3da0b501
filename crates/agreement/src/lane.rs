//! Vouchers of one signer to one payee, from both ends.
//!
//! A lane is (payer, payee, signer), with a cap and a counter of its own in `RetrievalChannels`, so that many processes of a team read
//! from one provider without talking to each other. Amounts are cumulative: the newest voucher stands for all before it, and one
//! that is shown twice is worth nothing the second time.

use crate::address::Address;
use crate::amount::Amount;
use crate::signature::NobodysSignature;
use crate::typed::{Domain, Signed, Typed};
use crate::voucher::Voucher;
use crate::wallet::WalletKey;

/// What the chain says about a lane and its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Cover {
    /// What the channel holds.
    pub deposit: Amount,
    /// The highest cumulative amount that is covered for this signer; nothing if the payer authorised no such signer.
    pub cap: Amount,
    /// What was redeemed in this lane.
    pub redeemed: Amount,
    /// Whether the payer announced that it takes money back.
    pub exit: Exit,
}

/// Whether a payer is leaving a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// No exit was announced.
    #[default]
    None,
    /// One was: redeem what is held, take no new voucher.
    Pending,
}

impl Cover {
    /// The highest cumulative amount that a payee can count on.
    #[must_use]
    pub fn covered_up_to(&self) -> Amount {
        match self.exit {
            // What was promised before the exit can be redeemed until its time; nothing new is sure to be.
            Exit::Pending => self.redeemed,
            // The contract keeps all caps below the deposit. Whoever lent against it checks both.
            Exit::None => self.redeemed.checked_add(self.deposit).map_or(self.cap, |all| all.min(self.cap)),
        }
    }
}

/// One lane as its payee keeps it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lane {
    payer: Address,
    payee: Address,
    signer: Address,
    cover: Cover,
    /// The newest voucher: the one to redeem.
    newest: Option<Signed<Voucher>>,
}

/// Why a payee takes no voucher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    /// It names another payer, payee or signer than the lane's.
    #[error("the voucher is for another lane")]
    OtherLane,
    /// The signer that it names did not sign it, for this contract on this chain.
    #[error("the voucher is not signed by its signer for this chain and contract")]
    Signature,
    /// The payer never authorised this signer here.
    #[error("the signer has no cap at this payee")]
    NoLane,
    /// Not above the newest one: it pays nothing.
    #[error("the voucher is not above {newest}")]
    NotHigher {
        /// What the newest says.
        newest: Amount,
    },
    /// More than the chain covers. Ask the payer to deposit, or for a higher cap.
    #[error("the voucher is covered up to {covered} only")]
    NotCovered {
        /// What is covered.
        covered: Amount,
    },
    /// The payer announced that it takes its money back.
    #[error("the payer is leaving the channel")]
    Exiting,
}

impl Lane {
    /// A lane without a voucher, as the chain has it.
    #[must_use]
    pub fn new(payer: Address, payee: Address, signer: Address, cover: Cover) -> Lane {
        Lane { payer, payee, signer, cover, newest: None }
    }

    /// Takes what the chain says now.
    pub fn set_cover(&mut self, cover: Cover) {
        self.cover = cover;
    }

    /// What the chain said last.
    #[must_use]
    pub fn cover(&self) -> &Cover {
        &self.cover
    }

    /// The voucher to redeem.
    #[must_use]
    pub fn newest(&self) -> Option<&Signed<Voucher>> {
        self.newest.as_ref()
    }

    /// All that was promised so far.
    #[must_use]
    pub fn promised(&self) -> Amount {
        self.newest.as_ref().map_or(Amount::ZERO, |voucher| voucher.message.cumulative)
    }

    /// The highest amount that is no news: what was redeemed is none, even to a payee that lost its vouchers.
    #[must_use]
    pub fn newest_sum(&self) -> Amount {
        self.promised().max(self.cover.redeemed)
    }

    /// What redeeming would bring now.
    #[must_use]
    pub fn redeemable(&self) -> Amount {
        self.promised().min(self.cover.cap).saturating_sub(self.cover.redeemed)
    }

    /// Takes a newer voucher, and says how much more it promises than the last. Write it down before anything is served for it.
    ///
    /// # Errors
    /// [`VoucherError`], and then nothing changed.
    pub fn accept(&mut self, voucher: Signed<Voucher>, channels: &Domain) -> Result<Amount, VoucherError> {
        let Voucher { payer, payee, signer, cumulative } = voucher.message;
        if (payer, payee, signer) != (self.payer, self.payee, self.signer) {
            return Err(VoucherError::OtherLane);
        }
        let signed_by = voucher.signer(channels).map_err(|NobodysSignature| VoucherError::Signature)?;
        if signed_by != signer {
            return Err(VoucherError::Signature);
        }
        if self.cover.cap == Amount::ZERO {
            return Err(VoucherError::NoLane);
        }
        if self.cover.exit == Exit::Pending {
            return Err(VoucherError::Exiting);
        }
        let newest = self.newest_sum();
        let more = cumulative.checked_sub(newest).filter(|more| *more > Amount::ZERO);
        let more = more.ok_or(VoucherError::NotHigher { newest })?;
        let covered = self.cover.covered_up_to();
        if cumulative > covered {
            return Err(VoucherError::NotCovered { covered });
        }
        self.newest = Some(voucher);
        Ok(more)
    }
}

/// One lane as its signer keeps it: what it promised, and what it had for it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Purse {
    payer: Address,
    payee: Address,
    signer: Address,
    cap: Amount,
    promised: Amount,
    /// The price of everything that arrived and was right.
    had: Amount,
}

/// Why a signer promises no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PurseError {
    /// The lane's cap is used up. Raise it, or read elsewhere.
    #[error("the cap of {cap} is used up")]
    Cap {
        /// The cap.
        cap: Amount,
    },
    /// The payee asks for more than it delivered, with what it may be paid ahead. Read elsewhere.
    #[error("{asked} are asked for what is worth {owed}")]
    Overcharged {
        /// What the payee says is owed in all.
        asked: Amount,
        /// What is.
        owed: Amount,
    },
    /// It is promised already: send the last voucher again.
    #[error("that was promised")]
    Promised,
}

impl Purse {
    /// A lane that promised nothing yet.
    #[must_use]
    pub fn new(payer: Address, payee: Address, signer: Address, cap: Amount) -> Purse {
        Purse { payer, payee, signer, cap, promised: Amount::ZERO, had: Amount::ZERO }
    }

    /// Takes up a lane whose record was lost, from what the chain and the payee say was promised. A signer never promises less than
    /// it did: a voucher below the last is worth nothing.
    pub fn resume(&mut self, promised: Amount) {
        let (had, before) = (self.had, self.promised);
        self.promised = before.max(promised);
        self.had = had.checked_add(self.promised.saturating_sub(before)).unwrap_or(Amount::MAX);
    }

    /// The payer raised the cap.
    pub fn raise_cap(&mut self, cap: Amount) {
        self.cap = self.cap.max(cap);
    }

    /// Counts something that arrived and was right.
    pub fn received(&mut self, price: Amount) {
        self.had = self.had.checked_add(price).unwrap_or(Amount::MAX);
    }

    /// What the payee may claim in all.
    #[must_use]
    pub fn owed(&self) -> Amount {
        self.had
    }

    /// All that was promised so far.
    #[must_use]
    pub fn promised(&self) -> Amount {
        self.promised
    }

    /// What can still be promised.
    #[must_use]
    pub fn left(&self) -> Amount {
        self.cap.saturating_sub(self.promised)
    }

    /// Promises `asked` in all, if that is no more than what arrived and what may be paid `ahead` of it. Write the purse down before the
    /// voucher leaves: what was promised can't be taken back.
    ///
    /// # Errors
    /// [`PurseError`], and then nothing was promised.
    pub fn promise(
        &mut self,
        asked: Amount,
        ahead: Amount,
        channels: &Domain,
        key: &WalletKey,
    ) -> Result<Signed<Voucher>, PurseError> {
        let owed = self.had.checked_add(ahead).unwrap_or(Amount::MAX);
        if asked > owed {
            return Err(PurseError::Overcharged { asked, owed });
        }
        if asked <= self.promised {
            return Err(PurseError::Promised);
        }
        if asked > self.cap {
            return Err(PurseError::Cap { cap: self.cap });
        }
        self.promised = asked;
        Ok(self.voucher(channels, key))
    }

    /// The newest voucher once more.
    #[must_use]
    pub fn voucher(&self, channels: &Domain, key: &WalletKey) -> Signed<Voucher> {
        let Purse { payer, payee, signer, promised, .. } = *self;
        Voucher { payer, payee, signer, cumulative: promised }.sign(channels, key)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cover, Exit, Lane, Purse, PurseError, VoucherError};
    use crate::address::Address;
    use crate::amount::Amount;
    use crate::typed::{Domain, Signed, Typed};
    use crate::voucher::Voucher;
    use crate::wallet::WalletKey;

    const CHANNELS: Domain = Domain { chain_id: 31_337, contract: Address([9; 20]) };
    const PAYER: Address = Address([1; 20]);
    const PAYEE: Address = Address([2; 20]);

    fn signer() -> WalletKey {
        WalletKey::from_secret(&[3; 32]).unwrap()
    }

    fn cover(deposit: u128, cap: u128, redeemed: u128) -> Cover {
        Cover { deposit: Amount(deposit), cap: Amount(cap), redeemed: Amount(redeemed), exit: Exit::None }
    }

    fn voucher(cumulative: u128) -> Signed<Voucher> {
        let message = Voucher {
            payer: PAYER,
            payee: PAYEE,
            signer: signer().address(),
            cumulative: Amount(cumulative),
        };
        message.sign(&CHANNELS, &signer())
    }

    fn lane(cover: Cover) -> Lane {
        Lane::new(PAYER, PAYEE, signer().address(), cover)
    }

    #[test]
    fn a_higher_voucher_promises_the_difference() {
        let mut lane = lane(cover(100, 100, 0));
        assert_eq!(lane.accept(voucher(30), &CHANNELS), Ok(Amount(30)));
        assert_eq!(lane.accept(voucher(45), &CHANNELS), Ok(Amount(15)));
        assert_eq!(lane.redeemable(), Amount(45));
        assert_eq!(lane.newest(), Some(&voucher(45)));
    }

    #[test]
    fn a_voucher_shown_twice_is_worth_nothing() {
        let mut lane = lane(cover(100, 100, 0));
        lane.accept(voucher(30), &CHANNELS).unwrap();
        for again in [30, 29, 0] {
            let refused = Err(VoucherError::NotHigher { newest: Amount(30) });
            assert_eq!(lane.accept(voucher(again), &CHANNELS), refused);
        }
        assert_eq!(lane.promised(), Amount(30));
    }

    #[test]
    fn a_payee_that_lost_its_vouchers_takes_none_that_was_redeemed() {
        let mut lane = lane(cover(60, 100, 40));
        assert_eq!(lane.accept(voucher(40), &CHANNELS), Err(VoucherError::NotHigher { newest: Amount(40) }));
        assert_eq!(lane.accept(voucher(50), &CHANNELS), Ok(Amount(10)));
        assert_eq!(lane.redeemable(), Amount(10));
    }

    #[test]
    fn nothing_above_cap_or_deposit_less_redeemed_is_taken() {
        let mut at_cap = lane(cover(1_000, 100, 0));
        assert_eq!(
            at_cap.accept(voucher(101), &CHANNELS),
            Err(VoucherError::NotCovered { covered: Amount(100) })
        );
        assert_eq!(at_cap.accept(voucher(100), &CHANNELS), Ok(Amount(100)));
        let mut at_deposit = lane(cover(20, 100, 40));
        assert_eq!(
            at_deposit.accept(voucher(61), &CHANNELS),
            Err(VoucherError::NotCovered { covered: Amount(60) })
        );
        assert_eq!(at_deposit.accept(voucher(60), &CHANNELS), Ok(Amount(20)));
    }

    #[test]
    fn a_signer_without_a_cap_is_not_authorised() {
        assert_eq!(lane(cover(100, 0, 0)).accept(voucher(1), &CHANNELS), Err(VoucherError::NoLane));
    }

    #[test]
    fn nothing_new_is_taken_from_a_payer_that_leaves() {
        let mut lane = lane(cover(100, 100, 0));
        lane.accept(voucher(30), &CHANNELS).unwrap();
        lane.set_cover(Cover { exit: Exit::Pending, ..*lane.cover() });
        assert_eq!(lane.accept(voucher(31), &CHANNELS), Err(VoucherError::Exiting));
        assert_eq!(lane.redeemable(), Amount(30), "what is held is still good");
        lane.set_cover(cover(100, 100, 0));
        assert_eq!(lane.accept(voucher(31), &CHANNELS), Ok(Amount(1)), "it stayed");
    }

    #[test]
    fn forged_and_misdirected_vouchers_are_refused() {
        let mut lane = lane(cover(100, 100, 0));
        let mut raised = voucher(10);
        raised.message.cumulative = Amount(90);
        assert_eq!(lane.accept(raised, &CHANNELS), Err(VoucherError::Signature));
        for elsewhere in
            [Domain { chain_id: 1, ..CHANNELS }, Domain { contract: Address([8; 20]), ..CHANNELS }]
        {
            let message = voucher(10).message;
            assert_eq!(
                lane.accept(message.sign(&elsewhere, &signer()), &CHANNELS),
                Err(VoucherError::Signature)
            );
        }
        let other = WalletKey::from_secret(&[4; 32]).unwrap();
        assert_eq!(
            lane.accept(voucher(10).message.sign(&CHANNELS, &other), &CHANNELS),
            Err(VoucherError::Signature)
        );
        for change in [
            |voucher: &mut Voucher| voucher.payer = PAYEE,
            |voucher: &mut Voucher| voucher.payee = PAYER,
            |voucher: &mut Voucher| voucher.signer = PAYER,
        ] {
            let mut message = voucher(10).message;
            change(&mut message);
            assert_eq!(
                lane.accept(message.sign(&CHANNELS, &signer()), &CHANNELS),
                Err(VoucherError::OtherLane)
            );
        }
        assert_eq!(lane.promised(), Amount::ZERO);
    }

    #[test]
    fn a_purse_promises_what_it_had_and_no_more() {
        let mut purse = Purse::new(PAYER, PAYEE, signer().address(), Amount(100));
        let promise = |purse: &mut Purse, asked: u128| {
            purse
                .promise(Amount(asked), Amount(5), &CHANNELS, &signer())
                .map(|voucher| voucher.message.cumulative)
        };
        let overcharged = PurseError::Overcharged { asked: Amount(6), owed: Amount(5) };
        assert_eq!(promise(&mut purse, 6), Err(overcharged));
        assert_eq!(promise(&mut purse, 5), Ok(Amount(5)), "ahead");
        purse.received(Amount(40));
        assert_eq!(promise(&mut purse, 40), Ok(Amount(40)));
        assert_eq!(promise(&mut purse, 40), Err(PurseError::Promised));
        purse.received(Amount(80));
        assert_eq!(promise(&mut purse, 101), Err(PurseError::Cap { cap: Amount(100) }));
        purse.raise_cap(Amount(120));
        assert_eq!(promise(&mut purse, 101), Ok(Amount(101)));
        assert_eq!(purse.left(), Amount(19));
    }

    #[test]
    fn a_purse_that_was_lost_goes_on_above_its_last_promise() {
        let mut purse = Purse::new(PAYER, PAYEE, signer().address(), Amount(100));
        purse.resume(Amount(30));
        purse.received(Amount(10));
        let voucher = purse.promise(Amount(40), Amount::ZERO, &CHANNELS, &signer()).unwrap();
        assert_eq!(voucher.message.cumulative, Amount(40));
        purse.resume(Amount(20));
        assert_eq!(purse.promised(), Amount(40), "never back");
    }
}
