//! The money side of a provider: it quotes, signs for the sets that it holds, and lets nobody read beyond its credit.

use super::ledger::{Ledger, place};
use seedbank_agreement::fragment_set::{Fragment, FragmentSet};
use seedbank_agreement::lane::Lane;
use seedbank_agreement::price::{Prices, egress, rate_per_epoch};
use seedbank_agreement::{
    Address, AgreementId, Amount, Binding, Epoch, Quote, Rate, SetRoot, Signature, Typed, WalletKey,
};
use seedbank_client::pay::chain::ProviderEntry;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use seedbank_protocol::payment::{
    PaymentDue, ProposalAnswer, ProposalRequest, QuoteAnswer, Refusal, RefusalReason, RevisionAnswer,
    RevisionRequest, SetLeaf, SetPage, SetSummary, SignedTerms, Standing, TransactionHash, VoucherAnswer,
    VoucherReason, VoucherRefusal, VoucherRequest,
};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// How a provider treats those who pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Fair,
    /// Signs nothing.
    SignsNothing,
    /// Signs with a key that is not its own.
    SignsFalsely,
    /// Does what it is asked, and its answer gets lost.
    LosesAnswers,
    /// Says to whoever wants something signed that the set is another one than its caller's.
    SaysBehind,
    /// Says that it has signed already what it is asked to sign.
    SaysSigned,
    /// Asks for pay, whatever was paid.
    AsksForever,
    /// Asks for more than anybody could have read.
    AsksTooMuch,
    /// Its quotes have expired.
    QuotesThePast,
    /// Wants agreements that bring more than any does.
    WantsMore,
}

#[derive(Default)]
struct Books {
    agreement: Option<AgreementId>,
    sequence: u32,
    signed: Option<SignedTerms>,
    end: Epoch,
    set: BTreeMap<FragmentId, u64>,
    answers: BTreeMap<[u8; 32], Signature>,
    opened: BTreeMap<[u8; 32], AgreementId>,
    lanes: BTreeMap<Address, Lane>,
    owed: Amount,
    prepaid: Amount,
    vouchers: u64,
}

pub(crate) struct Till {
    pub(crate) wallet: WalletKey,
    pub(crate) ledger: Ledger,
    pub(crate) prices: Mutex<Prices>,
    pub(crate) credit_bytes: u64,
    pub(crate) manner: Mutex<Manner>,
    /// What becomes of the pages of its list.
    pub(crate) lie: Mutex<Option<Lie>>,
    books: Mutex<Books>,
}

/// Makes another page of one, for whoever asks what comes after a fragment.
pub(crate) type Lie = Box<dyn Fn(SetPage, Option<FragmentId>) -> SetPage + Send>;

impl Till {
    /// Registers a provider, and opens its till.
    pub(crate) fn open(
        key: &SigningKey,
        nth: u8,
        ledger: &Ledger,
        prices: Prices,
        credit_bytes: u64,
    ) -> Till {
        let wallet = WalletKey::from_secret(&[50 + nth; 32]).unwrap();
        let place = place();
        let binding =
            Binding { chain_id: place.chain_id, contract: place.registry, address: wallet.address() };
        let entry = ProviderEntry {
            endpoint: key.public(),
            binding: binding.sign(key),
            operator: Address::ZERO,
            leaving: false,
        };
        ledger.state().providers.insert(wallet.address(), entry);
        Till {
            wallet,
            ledger: ledger.clone(),
            prices: Mutex::new(prices),
            credit_bytes,
            manner: Mutex::new(Manner::Fair),
            lie: Mutex::default(),
            books: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn manner(&self) -> Manner {
        *self.manner.lock().unwrap()
    }

    pub(crate) fn sequence(&self) -> u32 {
        self.books.lock().unwrap().sequence
    }

    /// What it has signed for.
    pub(crate) fn fragments(&self) -> Vec<FragmentId> {
        self.books.lock().unwrap().set.keys().copied().collect()
    }

    pub(crate) fn agreement(&self) -> Option<AgreementId> {
        self.books.lock().unwrap().agreement
    }

    pub(crate) fn vouchers(&self) -> u64 {
        self.books.lock().unwrap().vouchers
    }

    /// All that it was promised, and what that brings.
    pub(crate) fn promised(&self) -> (Amount, Amount) {
        let books = self.books.lock().unwrap();
        let promised = books.lanes.values().map(Lane::promised).sum();
        (promised, books.lanes.values().map(Lane::redeemable).sum())
    }

    /// What each signer promised it, at most.
    pub(crate) fn promised_by(&self) -> Vec<(Address, Amount)> {
        let books = self.books.lock().unwrap();
        books.lanes.iter().map(|(signer, lane)| (*signer, lane.promised())).collect()
    }

    /// What all its vouchers would bring now.
    pub(crate) fn redeemable(&self) -> Amount {
        let mut books = self.books.lock().unwrap();
        let payee = self.wallet.address();
        books.lanes.iter_mut().for_each(|(signer, lane)| lane.set_cover(self.ledger.cover(payee, *signer)));
        books.lanes.values().map(Lane::redeemable).sum()
    }

    /// Redeems all of them.
    pub(crate) fn redeem(&self) {
        let books = self.books.lock().unwrap();
        for (signer, lane) in &books.lanes {
            self.ledger.redeem(self.wallet.address(), *signer, lane.promised());
        }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.books.lock().unwrap().lanes.len()
    }

    pub(crate) fn quote(&self) -> QuoteAnswer {
        let place = place();
        let quote = Quote {
            provider: self.wallet.address(),
            prices: *self.prices.lock().unwrap(),
            epochs_min: 2,
            expires: Timestamp(if self.manner() == Manner::QuotesThePast { 1 } else { 4_000_000_000 }),
            credit_bytes: self.credit_bytes,
        };
        let quote = quote.sign(&place.market_domain(), &self.wallet);
        let pay_min = if self.manner() == Manner::WantsMore { Amount::MAX } else { Amount(1) };
        QuoteAnswer { chain_id: place.chain_id, directory: place.directory, quote, pay_min }
    }

    fn rate(&self, bytes: u64) -> Rate {
        let rent = self.prices.lock().unwrap().rent_per_gib_month;
        rate_per_epoch(bytes, rent, place().clock.epoch_seconds).unwrap()
    }

    pub(crate) fn propose(
        &self,
        request: &ProposalRequest,
        client: PublicKey,
        holds: impl Fn(&FragmentId) -> bool,
    ) -> Option<ProposalAnswer> {
        let manner = self.manner();
        let place = place();
        let (proposal, digest) =
            (&request.proposal.message, request.proposal.message.digest(&place.market_domain()));
        let refused = |reason| Some(ProposalAnswer::Refused(Refusal::new(reason, format!("{reason:?}"))));
        if manner == Manner::SignsNothing {
            return refused(RefusalReason::Leaving);
        }
        let mut books = self.books.lock().unwrap();
        let accepted =
            |agreement| ProposalAnswer::Accepted { agreement, transaction: TransactionHash([1; 32]) };
        if let Some(id) = books.opened.get(&digest) {
            return Some(accepted(*id));
        }
        let binding =
            Binding { chain_id: place.chain_id, contract: place.registry, address: proposal.client };
        if binding.check(&client, &request.binding).is_err() {
            return refused(RefusalReason::Binding);
        }
        if !self.may_sign(request.proposal.signer(&place.market_domain()).ok(), proposal.client) {
            return refused(RefusalReason::Signature);
        }
        if books.agreement.is_some() {
            return refused(RefusalReason::Exists);
        }
        let set = set_of(&request.added);
        if let Some(missing) = set.keys().find(|id| !holds(id)) {
            let mut refusal = Refusal::new(RefusalReason::NotHeld, "not held");
            refusal.fragments = vec![*missing];
            return Some(ProposalAnswer::Refused(refusal));
        }
        if (proposal.set_root, proposal.size) != root_of(&set) {
            return refused(RefusalReason::WrongSet);
        }
        if proposal.rate_per_epoch != self.rate(proposal.size) {
            return refused(RefusalReason::WrongRate);
        }
        let Ok(id) = self.ledger.activate(proposal) else { return refused(RefusalReason::Escrow) };
        (books.agreement, books.set, books.end) = (Some(id), set, proposal.end_epoch);
        books.opened.insert(digest, id);
        (manner != Manner::LosesAnswers).then(|| accepted(id))
    }

    /// The client's wallet, or whom it authorised.
    fn may_sign(&self, signer: Option<Address>, client: Address) -> bool {
        let Some(signer) = signer else { return false };
        signer == client || self.ledger.state().authorities.contains_key(&signer)
    }

    pub(crate) fn revise(
        &self,
        request: &RevisionRequest,
        holds: impl Fn(&FragmentId) -> bool,
    ) -> Option<RevisionAnswer> {
        let manner = self.manner();
        let domain = place().market_domain();
        let (revision, digest) = (&request.revision.message, request.revision.message.digest(&domain));
        let mut books = self.books.lock().unwrap();
        let refusal = |reason, books: &Books| {
            let mut refusal = Refusal::new(reason, format!("{reason:?}"));
            refusal.own = Some(self.summary(books));
            Some(RevisionAnswer::Refused(refusal))
        };
        if manner == Manner::SignsNothing {
            return refusal(RefusalReason::Other, &books);
        }
        if manner == Manner::SaysBehind {
            return refusal(RefusalReason::Behind, &books);
        }
        if manner == Manner::SaysSigned {
            let mut refusal = Refusal::new(RefusalReason::Behind, "signed before");
            let (sequence, set_root, size) = (revision.sequence, revision.set_root, revision.size);
            refusal.own = Some(SetSummary { sequence, set_root, size, ..self.summary(&books) });
            return Some(RevisionAnswer::Refused(refusal));
        }
        if let Some(signature) = books.answers.get(&digest) {
            return Some(RevisionAnswer::Accepted { signature: *signature });
        }
        if Some(revision.agreement) != books.agreement {
            return refusal(RefusalReason::WrongParty, &books);
        }
        if request.base_sequence != books.sequence {
            return refusal(RefusalReason::Behind, &books);
        }
        if revision.from_epoch != Epoch(self.ledger.state().epoch.0 + 1) || revision.end_epoch < books.end {
            return refusal(RefusalReason::Epochs, &books);
        }
        let mut set = books.set.clone();
        set.extend(set_of(&request.added));
        for removed in &request.removed {
            assert!(set.remove(removed).is_some(), "only what is there goes");
        }
        if let Some(missing) = request.added.iter().map(|leaf| leaf.fragment).find(|id| !holds(id)) {
            let mut refusal = Refusal::new(RefusalReason::NotHeld, "not held");
            refusal.fragments = vec![missing];
            return Some(RevisionAnswer::Refused(refusal));
        }
        if (revision.set_root, revision.size) != root_of(&set) {
            return refusal(RefusalReason::WrongSet, &books);
        }
        if revision.rate_per_epoch != self.rate(revision.size) {
            return refusal(RefusalReason::WrongRate, &books);
        }
        if !self.ledger.covers(revision) {
            return refusal(RefusalReason::Escrow, &books);
        }
        let key = match manner {
            Manner::SignsFalsely => WalletKey::from_secret(&[9; 32]).unwrap(),
            _ => self.wallet.clone(),
        };
        let signature = key.sign(&digest);
        (books.set, books.sequence, books.end) = (set, revision.sequence, revision.end_epoch);
        books.answers.insert(digest, signature);
        books.signed = Some(SignedTerms { revision: request.revision.clone(), provider: signature });
        (manner != Manner::LosesAnswers).then_some(RevisionAnswer::Accepted { signature })
    }

    fn summary(&self, books: &Books) -> SetSummary {
        let (set_root, size) = root_of(&books.set);
        SetSummary {
            agreement: books.agreement,
            sequence: books.sequence,
            set_root,
            size,
            rate_per_epoch: self.rate(size),
        }
    }

    pub(crate) fn page(&self, after: Option<FragmentId>, limit: usize) -> SetPage {
        let books = self.books.lock().unwrap();
        let behind = books.set.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
        let leaf = |(id, length): (&FragmentId, &u64)| SetLeaf {
            fragment: *id,
            length: *length,
            retain_until: Epoch(0),
        };
        let leaves = behind.map(leaf).take(limit).collect();
        let page = SetPage { set: self.summary(&books), signed: books.signed.clone(), leaves };
        match &*self.lie.lock().unwrap() {
            Some(lie) => lie(page, after),
            None => page,
        }
    }

    pub(crate) fn voucher(&self, request: VoucherRequest) -> Option<VoucherAnswer> {
        let manner = self.manner();
        let voucher = request.voucher;
        let (payer, payee, signer) = (voucher.message.payer, voucher.message.payee, voucher.message.signer);
        let cover = self.ledger.cover(payee, signer);
        let mut books = self.books.lock().unwrap();
        let lane = books.lanes.entry(signer).or_insert_with(|| Lane::new(payer, payee, signer, cover));
        lane.set_cover(cover);
        match lane.accept(voucher, &place().channels_domain()) {
            Ok(more) => {
                books.vouchers += 1;
                books.prepaid = books.prepaid.checked_add(more).unwrap();
                let paid = books.prepaid.min(books.owed);
                books.owed = books.owed.checked_sub(paid).unwrap();
                books.prepaid = books.prepaid.checked_sub(paid).unwrap();
                let standing =
                    Standing { owed: books.owed, prepaid: books.prepaid, credit_bytes: self.credit_bytes };
                (manner != Manner::LosesAnswers).then_some(VoucherAnswer::Accepted(standing))
            }
            Err(error) => {
                use seedbank_agreement::lane::VoucherError as E;
                let reason = match error {
                    E::NotHigher { .. } => VoucherReason::Stale,
                    E::NotCovered { .. } | E::NoLane => VoucherReason::Uncovered,
                    E::Exiting => VoucherReason::Exiting,
                    E::OtherLane | E::Signature => VoucherReason::Signature,
                };
                let (cumulative, covered) = (lane.promised(), lane.cover().covered_up_to());
                let message = error.to_string();
                Some(VoucherAnswer::Refused(VoucherRefusal { reason, message, cumulative, covered }))
            }
        }
    }

    /// Counts a read, or says what must be paid for it first.
    pub(crate) fn serve(&self, bytes: u64) -> Result<(), PaymentDue> {
        let price = self.prices.lock().unwrap().egress_per_gib;
        let (cost, credit) = (egress(bytes, price).unwrap(), egress(self.credit_bytes, price).unwrap());
        let mut books = self.books.lock().unwrap();
        let due = |needed, books: &Books| PaymentDue {
            owed: books.owed,
            needed,
            credit_bytes: 0,
            payee: self.wallet.address(),
            egress_per_gib: price,
        };
        match self.manner() {
            Manner::AsksForever => return Err(due(Amount(1), &books)),
            Manner::AsksTooMuch => return Err(due(Amount(u128::from(u64::MAX)), &books)),
            _ => {}
        }
        let after = books.owed.checked_add(cost).unwrap();
        let over = after.saturating_sub(books.prepaid).saturating_sub(credit);
        if over > Amount::ZERO {
            return Err(due(over, &books));
        }
        let paid = books.prepaid.min(after);
        books.owed = after.checked_sub(paid).unwrap();
        books.prepaid = books.prepaid.checked_sub(paid).unwrap();
        Ok(())
    }
}

fn set_of(leaves: &[SetLeaf]) -> BTreeMap<FragmentId, u64> {
    leaves.iter().map(|leaf| (leaf.fragment, leaf.length)).collect()
}

pub(crate) fn root_of(set: &BTreeMap<FragmentId, u64>) -> (SetRoot, u64) {
    let leaf =
        |(id, length): (&FragmentId, &u64)| Fragment { id: *id, length: *length, retain_until: Epoch(0) };
    let set = FragmentSet::new(set.iter().map(leaf)).unwrap();
    (set.root(), set.total())
}
