//! What an epoch's seed asks for, whether the chunks shown are that, and what is paid for it.

use super::{Call, Market, Question, Refusal, Terms, add, sub};
use crate::address::Address;
use crate::challenge::{Draw, Seed, Subject};
use crate::chunk_path::{CHUNK_BYTES, ChunkPath};
use crate::epoch::{AgreementId, Epoch};
use crate::fragment_set::SetPath;

/// One challenged chunk: the fragment that holds the challenged byte, and both ways up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The fragment and its way to the set's root.
    pub fragment: SetPath,
    /// The chunk and its way to the fragment's id.
    pub chunk: ChunkPath,
}

impl Proof {
    /// Whether it shows byte `offset` of a set: the check that the contract makes.
    ///
    /// # Errors
    /// The contract's reason; [`Refusal::WrongChunk`] names `number`.
    pub fn check(&self, terms: &Terms, offset: u64, number: usize) -> Result<(), Refusal> {
        let inside = self.fragment.locate(&terms.set_root, terms.size, offset).map_err(Refusal::SetPath)?;
        let fragment = &self.fragment.fragment;
        let root = self.chunk.root(inside / CHUNK_BYTES, fragment.length).map_err(Refusal::ChunkPath)?;
        if root == fragment.id { Ok(()) } else { Err(Refusal::WrongChunk(number)) }
    }
}

impl Market {
    /// Seals the current epoch's seed, as anyone may.
    ///
    /// # Errors
    /// [`Refusal::BeforeGenesis`].
    pub fn seal(&mut self, call: &Call) -> Result<Seed, Refusal> {
        let now = self.now(&call.block)?;
        self.beacon.seal(now, &call.block);
        Ok(*self.beacon.seed(now).expect("it was just sealed"))
    }

    /// Where the epoch's seed asks a provider's whole set: for each challenge the agreement, and the byte in that agreement's set.
    ///
    /// # Errors
    /// [`Refusal::NothingToProve`].
    pub fn challenges(
        &self,
        provider: Address,
        epoch: Epoch,
        seed: &Seed,
    ) -> Result<Vec<(AgreementId, u64)>, Refusal> {
        let holdings = self.holdings.get(&provider).ok_or(Refusal::NothingToProve)?;
        let total = holdings.rate();
        let subject = Subject::Provider(provider);
        let one = |number| {
            let draw = Draw::new(&self.domain, subject, epoch, seed, number);
            let unit = draw.unit(total).ok_or(Refusal::NothingToProve)?;
            let id = holdings.find(unit).expect("the unit is below the total");
            let terms = self.agreements.get(&id).and_then(|agreement| agreement.current);
            let offset = terms.and_then(|terms| draw.byte(terms.size));
            Ok((id, offset.expect("what is paid for has begun and has bytes")))
        };
        (0..self.parameters.challenges).map(one).collect()
    }

    /// Where the seed asks one agreement. Nowhere, if it holds nothing.
    ///
    /// # Errors
    /// [`Refusal::NotOpen`].
    pub fn question_offsets(&self, id: AgreementId, epoch: Epoch, seed: &Seed) -> Result<Vec<u64>, Refusal> {
        let agreement = self.agreement(id).ok_or(Refusal::NotOpen(id))?;
        let size = agreement.current.map_or(0, |terms| terms.size);
        let subject = Subject::Agreement(id);
        let offset = |number| Draw::new(&self.domain, subject, epoch, seed, number).byte(size);
        Ok((0..self.parameters.challenges).filter_map(offset).collect())
    }

    /// Pays a provider for the current epoch, if the proofs show what its seed asks for.
    ///
    /// # Errors
    /// The contract's reason.
    pub fn prove(&mut self, call: &Call, provider: Address, proofs: &[Proof]) -> Result<(), Refusal> {
        self.step(|market| {
            if market.set(&provider).is_none() {
                return Err(Refusal::NothingToProve);
            }
            let caught_up = market.catch_up(call, provider)?;
            market.refuse(call, provider, caught_up)?;
            let holdings = market.holds(provider);
            let (set, rate) = (holdings.set.clone(), holdings.rate());
            if set.due != 0 {
                return Err(Refusal::TermsDue(set.due));
            }
            if market.holds(provider).proven.contains(&set.epoch) {
                return Err(Refusal::AlreadyProven(set.epoch));
            }
            let seed = market.seal(call)?;
            let asked = market.challenges(provider, set.epoch, &seed)?;
            let expected = market.parameters.challenges;
            if proofs.len() != asked.len() {
                return Err(Refusal::ProofCount { expected, actual: proofs.len() });
            }
            for (number, (proof, (id, offset))) in proofs.iter().zip(asked).enumerate() {
                let terms = market.opened(id)?.current.expect("what is asked for has begun");
                proof.check(&terms, offset, number)?;
            }
            let holdings = market.holds(provider);
            holdings.proven.insert(set.epoch);
            holdings.set.misses = 0;
            market.totals.locked = sub(market.totals.locked, rate)?;
            market.credit(provider, rate)
        })
    }

    /// Asks for chunks of the caller's own agreement, which the next epoch's seed chooses.
    ///
    /// # Errors
    /// The contract's reason.
    pub fn ask(&mut self, call: &Call, id: AgreementId) -> Result<(), Refusal> {
        self.step(|market| {
            let agreement = market.yours(call, id)?.clone();
            if market.holds(agreement.provider).set.dead_at.is_some() {
                return Err(Refusal::SetDead);
            }
            if market.question(id).is_some() {
                return Err(Refusal::QuestionOpen);
            }
            let epoch = market.now(&call.block)?.next().ok_or(Refusal::Overflow)?;
            if agreement.end() <= epoch {
                return Err(Refusal::QuestionTime(epoch));
            }
            let bond = market.parameters.question_bond;
            market.debit(call.sender, bond)?;
            market.totals.bonded = add(market.totals.bonded, bond)?;
            market.questions.insert(id, Question { epoch, bond });
            market.holds(agreement.provider).set.questions += 1;
            Ok(())
        })
    }

    /// Answers a question in its epoch.
    ///
    /// # Errors
    /// The contract's reason.
    pub fn answer(&mut self, call: &Call, id: AgreementId, proofs: &[Proof]) -> Result<(), Refusal> {
        self.step(|market| {
            let provider = market.opened(id)?.provider;
            let asked = market.question(id).ok_or(Refusal::NoQuestion)?.epoch;
            if asked != market.now(&call.block)? {
                return Err(Refusal::QuestionTime(asked));
            }
            let brought_up = market.bring_up(call, id)?;
            market.refuse(call, provider, brought_up)?;
            let seed = market.seal(call)?;
            let offsets = market.question_offsets(id, asked, &seed)?;
            if proofs.len() != offsets.len() {
                let expected = if offsets.is_empty() { 0 } else { market.parameters.challenges };
                return Err(Refusal::ProofCount { expected, actual: proofs.len() });
            }
            if let Some(terms) = market.opened(id)?.current {
                for (number, (proof, offset)) in proofs.iter().zip(offsets).enumerate() {
                    proof.check(&terms, offset, number)?;
                }
            }
            market.drop_question(id, provider, provider)
        })
    }
}
