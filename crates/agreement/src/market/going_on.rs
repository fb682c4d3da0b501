//! How open agreements go on: epochs closed, misses slashed, terms begun and ended, money settled.

use super::{Agreement, BASIS, Call, Market, ProofSet, Refusal, Release, Skip, add, count, sub, times};
use crate::address::Address;
use crate::amount::Amount;
use crate::epoch::{AgreementId, Epoch};

/// An announced release can be done from so many epochs later.
const RELEASE_AFTER: u32 = 2;
/// And before so many.
pub const RELEASE_BEFORE: u32 = 4;

impl Market {
    /// Closes a provider's past epochs in order, at most `max` of them. The caller gets the bounties.
    ///
    /// # Errors
    /// [`Refusal::BeforeGenesis`].
    pub fn advance(&mut self, call: &Call, provider: Address, max: u32) -> Result<(), Refusal> {
        self.step(|market| market.go_on(call, provider, max))
    }

    /// Moves agreements on that are due.
    ///
    /// # Errors
    /// [`Refusal::BeforeGenesis`].
    pub fn move_on(&mut self, call: &Call, ids: &[AgreementId]) -> Result<(), Refusal> {
        self.step(|market| {
            market.now(&call.block)?;
            ids.iter().try_for_each(|id| market.move_on_if_due(call, *id))
        })
    }

    /// Adds to what is locked for the caller's agreement.
    ///
    /// # Errors
    /// [`Refusal::NotOpen`], [`Refusal::NotYours`], [`Refusal::Balance`].
    pub fn reserve(&mut self, call: &Call, id: AgreementId, amount: Amount) -> Result<(), Refusal> {
        self.step(|market| {
            market.yours(call, id)?;
            market.debit(call.sender, amount)?;
            let agreement = market.opened(id)?;
            agreement.escrow = add(agreement.escrow, amount)?;
            market.totals.locked = add(market.totals.locked, amount)?;
            Ok(())
        })
    }

    /// Announces that the caller takes back reserve.
    ///
    /// # Errors
    /// [`Refusal::NotOpen`], [`Refusal::NotYours`].
    pub fn announce_release(&mut self, call: &Call, id: AgreementId, amount: Amount) -> Result<(), Refusal> {
        self.yours(call, id)?;
        let announced = self.now(&call.block)?;
        self.releases.insert(id, Release { announced, amount });
        Ok(())
    }

    /// Takes back what was announced, or as much of it as no terms need.
    ///
    /// # Errors
    /// [`Refusal::NotOpen`], [`Refusal::NotYours`], [`Refusal::ReleaseTime`], and what keeps the set from being at the current epoch.
    pub fn release(&mut self, call: &Call, id: AgreementId) -> Result<(), Refusal> {
        self.step(|market| {
            market.yours(call, id)?;
            let now = market.now(&call.block)?;
            let none = Release { announced: Epoch(0), amount: Amount::ZERO };
            let Release { announced, amount } = market.releases.remove(&id).unwrap_or(none);
            let waited = now.0.checked_sub(announced.0).ok_or(Refusal::Overflow)?;
            if amount == Amount::ZERO || !(RELEASE_AFTER..RELEASE_BEFORE).contains(&waited) {
                return Err(Refusal::ReleaseTime(announced));
            }
            let Some(agreement) = market.up_to_date(call, id)? else { return Ok(()) };
            let terms = agreement.next.or(agreement.current).expect("an open agreement has terms");
            let needed = market.needed(&agreement, &terms)?.ok_or(Refusal::Overflow)?;
            let amount = amount.min(sub(agreement.escrow, needed)?);
            let agreement = market.opened(id)?;
            agreement.escrow = sub(agreement.escrow, amount)?;
            market.totals.locked = sub(market.totals.locked, amount)?;
            market.credit(call.sender, amount)
        })
    }

    /// Ends an agreement after the notice.
    ///
    /// # Errors
    /// [`Refusal::NotOpen`], [`Refusal::NotYours`], and what keeps the set from being at the current epoch.
    pub fn terminate(&mut self, call: &Call, id: AgreementId) -> Result<(), Refusal> {
        self.step(|market| {
            let Some(agreement) = market.up_to_date(call, id)? else { return Ok(()) };
            let set = &market.holds(agreement.provider).set;
            let end = set.epoch.next().ok_or(Refusal::Overflow)?;
            let stopped = set.misses != 0;
            let noticed =
                end.0.checked_add(market.parameters.notice_epochs).map(Epoch).ok_or(Refusal::Overflow);
            if call.sender == agreement.client {
                let end = if stopped { end } else { noticed?.max(agreement.retained_until) };
                market.end_at(id, end)?;
            } else if market.acts(&call.sender, &agreement.provider) {
                let end = noticed?;
                if market.end_at(id, end)? && end < agreement.retained_until {
                    market.slash_for(id)?;
                }
            } else {
                return Err(Refusal::NotYours);
            }
            Ok(())
        })
    }

    /// Refunds an agreement of a dead set.
    ///
    /// # Errors
    /// [`Refusal::NotOpen`], [`Refusal::SetAlive`].
    pub fn close_dead(&mut self, call: &Call, id: AgreementId) -> Result<(), Refusal> {
        self.step(|market| {
            let agreement = market.opened(id)?.clone();
            let holdings = market.holds(agreement.provider);
            let dead_at = holdings.set.dead_at.ok_or(Refusal::SetAlive)?;
            let epoch = holdings.set.epoch;
            if agreement.end() > epoch {
                holdings.unplan(agreement.end())?;
            }
            if let Some(next) = agreement.next
                && next.from > epoch
            {
                holdings.unplan(next.from)?;
            }
            market.settle(id, dead_at)?;
            market.close(call, id, dead_at)
        })
    }

    /// Ends an agreement whose question was not answered in its epoch.
    ///
    /// # Errors
    /// [`Refusal::NotOpen`], [`Refusal::NoQuestion`], [`Refusal::QuestionTime`], and what keeps the set from being at the current epoch.
    pub fn fail(&mut self, call: &Call, id: AgreementId) -> Result<(), Refusal> {
        self.step(|market| {
            market.opened(id)?;
            if market.question(id).is_none() {
                return Err(Refusal::NoQuestion);
            }
            let Some(agreement) = market.up_to_date(call, id)? else { return Ok(()) };
            let epoch = market.holds(agreement.provider).set.epoch;
            let asked = market.question(id).ok_or(Refusal::NoQuestion)?.epoch;
            if asked >= epoch {
                return Err(Refusal::QuestionTime(asked));
            }
            if market.judge(call, id)? {
                market.end_at(id, epoch.next().ok_or(Refusal::Overflow)?)?;
            }
            Ok(())
        })
    }

    /// Brings a set to the current epoch, or says why it can't be.
    pub(super) fn catch_up(&mut self, call: &Call, provider: Address) -> Result<Result<(), Skip>, Refusal> {
        self.go_on(call, provider, u32::MAX)?;
        let now = self.now(&call.block)?;
        let set = &self.holds(provider).set;
        if set.dead_at.is_some() {
            return Ok(Err(Skip::NotOpen));
        }
        Ok(if set.epoch == now { Ok(()) } else { Err(Skip::Behind) })
    }

    /// Brings an open agreement and its set to the current epoch, or says why it can't be; `NotOpen` if that closed it.
    pub(super) fn bring_up(&mut self, call: &Call, id: AgreementId) -> Result<Result<(), Skip>, Refusal> {
        let provider = self.opened(id)?.provider;
        if let Err(skip) = self.catch_up(call, provider)? {
            return Ok(Err(skip));
        }
        self.move_on_if_due(call, id)?;
        Ok(if self.agreements.contains_key(&id) { Ok(()) } else { Err(Skip::NotOpen) })
    }

    /// As [`Market::bring_up`], refusing instead of skipping; `None` if that closed the agreement.
    fn up_to_date(&mut self, call: &Call, id: AgreementId) -> Result<Option<Agreement>, Refusal> {
        let provider = self.opened(id)?.provider;
        let caught_up = self.catch_up(call, provider)?;
        self.refuse(call, provider, caught_up)?;
        self.move_on_if_due(call, id)?;
        Ok(self.agreement(id).cloned())
    }

    /// What a skip is where nothing can be skipped.
    pub(super) fn refuse(
        &mut self,
        call: &Call,
        provider: Address,
        skipped: Result<(), Skip>,
    ) -> Result<(), Refusal> {
        match skipped {
            Ok(()) => Ok(()),
            Err(Skip::Behind) => {
                let current = self.now(&call.block)?;
                Err(Refusal::Behind { set: self.holds(provider).set.epoch, current })
            }
            Err(_) => Err(Refusal::SetDead),
        }
    }

    fn go_on(&mut self, call: &Call, provider: Address, max: u32) -> Result<(), Refusal> {
        let now = self.now(&call.block)?;
        for _ in 0..max {
            let holdings = self.holds(provider);
            let rate = holdings.rate();
            let ProofSet { epoch, due, agreements, dead_at, .. } = holdings.set;
            if agreements == 0 || dead_at.is_some() || epoch >= now {
                return Ok(());
            }
            let mut dies = false;
            if due != 0 {
                if !self.left_lying(call, epoch, now)? {
                    return Ok(());
                }
                dies = true;
            }
            let proven = self.holds(provider).proven.contains(&epoch);
            if rate != Amount::ZERO
                && !proven
                && self.counted(call, epoch)?
                && !self.miss(call, provider, epoch)?
            {
                dies = true;
            }
            let next = epoch.next().ok_or(Refusal::Overflow)?;
            let holdings = self.holds(provider);
            if dies {
                holdings.set.dead_at = Some(next);
                return Ok(());
            }
            holdings.set.epoch = next;
            holdings.set.due = holdings.due_in.remove(&next).unwrap_or(0);
        }
        Ok(())
    }

    /// Whether due agreements kept a set from going on for as many epochs as a set may miss, and all of these counted.
    fn left_lying(&mut self, call: &Call, epoch: Epoch, now: Epoch) -> Result<bool, Refusal> {
        let misses_max = self.parameters.misses_max;
        if now.0 - epoch.0 <= misses_max {
            return Ok(false);
        }
        for past in now.0 - misses_max..now.0 {
            if !self.counted(call, Epoch(past))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn counted(&mut self, call: &Call, epoch: Epoch) -> Result<bool, Refusal> {
        let now = self.now(&call.block)?;
        self.beacon.seal(now, &call.block);
        Ok(self.beacon.counts(epoch, &call.block))
    }

    /// Slashes for a missed epoch. False if that ends the set.
    fn miss(&mut self, call: &Call, provider: Address, epoch: Epoch) -> Result<bool, Refusal> {
        let slashed = times(self.holds(provider).rate(), self.parameters.slash_epochs)?;
        let Some(left) = self.stake(&provider).checked_sub(slashed) else { return Ok(false) };
        let bounty = Amount(times(slashed, self.parameters.bounty_basis_points)?.0 / BASIS);
        self.slash(&provider, slashed)?;
        self.totals.compensation = add(self.totals.compensation, sub(slashed, bounty)?)?;
        self.credit(call.sender, bounty)?;
        let misses_max = self.parameters.misses_max;
        let holdings = self.holds(provider);
        holdings.missed.insert(epoch);
        holdings.set.misses += 1;
        Ok(holdings.set.misses < misses_max && left >= slashed)
    }

    fn move_on_if_due(&mut self, call: &Call, id: AgreementId) -> Result<(), Refusal> {
        let Some(agreement) = self.agreement(id).cloned() else { return Ok(()) };
        let provider = agreement.provider;
        let set = &mut self.holds(provider).set;
        let epoch = set.epoch;
        let changes = match (agreement.next, agreement.current) {
            (Some(next), _) => next.from,
            (None, Some(current)) => current.end,
            (None, None) => return Err(Refusal::Overflow),
        };
        if set.dead_at.is_some() || changes != epoch {
            return Ok(());
        }
        set.due = set.due.checked_sub(1).ok_or(Refusal::Overflow)?;
        self.settle(id, epoch)?;
        let Some(next) = agreement.next else { return self.close(call, id, epoch) };
        let holdings = self.holds(provider);
        let set = &mut holdings.set;
        set.rate_max = add(sub(set.rate_max, agreement.dearer().into())?, next.rate_per_epoch.into())?;
        holdings.places[place(agreement.position)?] = Some((id, next.rate_per_epoch));
        let agreement = self.opened(id)?;
        agreement.current = agreement.next.take();
        Ok(())
    }

    /// Takes from the escrow what the current terms earned before `end`, and gives the client its part of what was slashed.
    fn settle(&mut self, id: AgreementId, end: Epoch) -> Result<(), Refusal> {
        let agreement = self.opened(id)?.clone();
        let Some(terms) = agreement.current else { return Ok(()) };
        let holdings = self.holds(agreement.provider);
        let earned = holdings.earned(&agreement, end)?;
        let misses = count(&holdings.missed, terms.from, end)?;
        let agreement = self.opened(id)?;
        agreement.escrow = sub(agreement.escrow, earned)?;
        let client = agreement.client;
        let slashed = times(terms.rate_per_epoch.into(), self.parameters.slash_epochs)?;
        let share =
            BASIS.checked_sub(u128::from(self.parameters.bounty_basis_points)).ok_or(Refusal::Overflow)?;
        let whole = times(slashed.checked_mul(share).ok_or(Refusal::Overflow)?, misses)?;
        let compensation = Amount(whole.0 / BASIS);
        self.totals.compensation = sub(self.totals.compensation, compensation)?;
        self.credit(client, compensation)
    }

    /// Ends an agreement that is settled up to `epoch`.
    fn close(&mut self, call: &Call, id: AgreementId, epoch: Epoch) -> Result<(), Refusal> {
        let agreement = self.opened(id)?.clone();
        let Agreement { client, provider, .. } = agreement;
        let alive = self.holds(provider).set.dead_at.is_none();
        if let Some(question) = self.question(id).copied() {
            if alive && question.epoch < epoch {
                self.judge(call, id)?;
            } else {
                self.drop_question(id, provider, client)?;
            }
        }
        let refund = self.opened(id)?.escrow;
        let holdings = self.holds(provider);
        let set = &mut holdings.set;
        set.rate_max = sub(set.rate_max, agreement.dearer().into())?;
        set.agreements = set.agreements.checked_sub(1).ok_or(Refusal::Overflow)?;
        if set.agreements == 0 {
            *set = ProofSet::default();
        }
        holdings.places[place(agreement.position)?] = None;
        holdings.free_places.push(agreement.position);
        self.releases.remove(&id);
        self.agreement_of.remove(&(client, provider));
        self.agreements.remove(&id);
        self.totals.locked = sub(self.totals.locked, refund)?;
        self.credit(client, refund)
    }

    /// Moves an agreement's end to an earlier epoch. False if it ends before that anyway.
    fn end_at(&mut self, id: AgreementId, end: Epoch) -> Result<bool, Refusal> {
        let agreement = self.opened(id)?;
        let (provider, before) = (agreement.provider, agreement.end());
        agreement.ending = true;
        // Terms that begin with the next epoch end after it at the earliest.
        let end = match agreement.next {
            Some(next) => end.max(next.from.next().ok_or(Refusal::Overflow)?),
            None => end,
        };
        if end >= before {
            return Ok(false);
        }
        let terms = agreement.next.as_mut().or(agreement.current.as_mut());
        terms.expect("an open agreement has terms").end = end;
        let holdings = self.holds(provider);
        holdings.unplan(before)?;
        holdings.plan(end);
        Ok(true)
    }

    /// Takes from the provider's stake what a miss costs for this agreement alone, and gives it to the client.
    fn slash_for(&mut self, id: AgreementId) -> Result<(), Refusal> {
        let agreement = self.opened(id)?.clone();
        let slashed = times(agreement.dearer().into(), self.parameters.slash_epochs)?;
        let slashed = slashed.min(self.stake(&agreement.provider));
        self.slash(&agreement.provider, slashed)?;
        self.credit(agreement.client, slashed)
    }

    /// Decides about a question whose epoch is over. False if the epoch didn't count.
    fn judge(&mut self, call: &Call, id: AgreementId) -> Result<bool, Refusal> {
        let agreement = self.opened(id)?.clone();
        let asked = self.question(id).ok_or(Refusal::NoQuestion)?.epoch;
        self.drop_question(id, agreement.provider, agreement.client)?;
        let unanswered = self.counted(call, asked)?;
        if unanswered {
            self.slash_for(id)?;
        }
        Ok(unanswered)
    }

    pub(super) fn drop_question(
        &mut self,
        id: AgreementId,
        provider: Address,
        bond_to: Address,
    ) -> Result<(), Refusal> {
        let bond = self.questions.remove(&id).ok_or(Refusal::NoQuestion)?.bond;
        let set = &mut self.holds(provider).set;
        set.questions = set.questions.checked_sub(1).ok_or(Refusal::Overflow)?;
        self.totals.bonded = sub(self.totals.bonded, bond)?;
        self.credit(bond_to, bond)
    }
}

fn place(position: u32) -> Result<usize, Refusal> {
    usize::try_from(position).map_err(|_| Refusal::Overflow)
}
