//! Agreements that begin, and new terms of those that are open.

use super::{Agreement, Call, Market, Refusal, Skip, Terms, add, sub};
use crate::address::Address;
use crate::amount::{Amount, Rate};
use crate::epoch::{AgreementId, Epoch};
use crate::proposal::Proposal;
use crate::revision::Revision;
use crate::signature::recover;
use crate::typed::{Signed, Typed};

/// A revision with the signatures of both sides.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SignedRevision {
    /// The terms.
    pub revision: Revision,
    /// The client's, or its hot key's.
    pub of_client: crate::signature::Signature,
    /// The provider's, or its operator's.
    pub of_provider: crate::signature::Signature,
}

impl Market {
    /// Opens agreements from the next epoch on, and says for each what it is or why it isn't.
    ///
    /// # Errors
    /// [`Refusal::NotYours`] if the caller doesn't act for a provider that is named.
    pub fn activate(
        &mut self,
        call: &Call,
        proposals: &[Signed<Proposal>],
    ) -> Result<Vec<Result<AgreementId, Skip>>, Refusal> {
        self.step(|market| {
            let one = |proposal: &Signed<Proposal>| {
                if !market.acts(&call.sender, &proposal.message.provider) {
                    return Err(Refusal::NotYours);
                }
                let digest = proposal.message.digest(&market.domain);
                let signer = recover(&digest, &proposal.signature).ok();
                market.open(call, &proposal.message, digest, signer)
            };
            proposals.iter().map(one).collect()
        })
    }

    /// Posts revisions, and says for each why it doesn't hold, if it doesn't.
    ///
    /// # Errors
    /// [`Refusal::BeforeGenesis`].
    pub fn revise(
        &mut self,
        call: &Call,
        revisions: &[SignedRevision],
    ) -> Result<Vec<Result<(), Skip>>, Refusal> {
        self.step(|market| {
            let one = |signed: &SignedRevision| {
                let digest = signed.revision.digest(&market.domain);
                let of_client = recover(&digest, &signed.of_client).ok();
                let of_provider = recover(&digest, &signed.of_provider).ok();
                market.change(call, &signed.revision, of_client, of_provider)
            };
            revisions.iter().map(one).collect()
        })
    }

    /// The outer result is a revert, the inner one what the event says.
    fn open(
        &mut self,
        call: &Call,
        proposal: &Proposal,
        digest: [u8; 32],
        signer: Option<Address>,
    ) -> Result<Result<AgreementId, Skip>, Refusal> {
        let now = self.now(&call.block)?;
        let from = now.next().ok_or(Refusal::Overflow)?;
        let Proposal { client, provider, escrow, rate_per_epoch, end_epoch, .. } = *proposal;
        let Some(signer) = signer else { return Ok(Err(Skip::Signature)) };
        if self.accepted.contains(&digest) || now > proposal.accept_by {
            return Ok(Err(Skip::Stale));
        }
        if end_epoch <= from {
            return Ok(Err(Skip::Epochs));
        }
        if proposal.size == 0 || proposal.retained_bytes > proposal.size {
            return Ok(Err(Skip::Size));
        }
        if self.agreement_of(&client, &provider).is_some() {
            return Ok(Err(Skip::Exists));
        }
        let set = &mut self.holds(provider).set;
        if set.agreements == 0 {
            set.epoch = now;
        }
        if let Err(skip) = self.catch_up(call, provider)? {
            return Ok(Err(skip));
        }
        let rate_max = self.holds(provider).set.rate_max;
        if self.provider(&provider).is_some_and(|entry| entry.leaving) {
            return Ok(Err(Skip::Leaving));
        }
        if escrow < rate_per_epoch.over(end_epoch.0 - from.0) || self.free(&client) < escrow {
            return Ok(Err(Skip::Escrow));
        }
        let rate_max = add(rate_max, rate_per_epoch.into())?;
        if self.lacks_stake(&provider, rate_max) {
            return Ok(Err(Skip::Stake));
        }
        if signer != client {
            let authority = self.authorities.get_mut(&(client, signer));
            let Some(authority) = authority.filter(|authority| authority.until >= call.block.time) else {
                return Ok(Err(Skip::Signature));
            };
            let Some(left) = authority.cap.checked_sub(escrow) else { return Ok(Err(Skip::Signature)) };
            authority.cap = left;
        }

        self.accepted.insert(digest);
        self.debit(client, escrow)?;
        self.totals.locked = add(self.totals.locked, escrow)?;
        self.last_agreement = self.last_agreement.checked_add(1).ok_or(Refusal::Overflow)?;
        let id = AgreementId(self.last_agreement);
        self.agreement_of.insert((client, provider), id);
        let holdings = self.holds(provider);
        let position = match holdings.free_places.pop() {
            Some(position) => position,
            None => {
                holdings.places.push(None);
                u32::try_from(holdings.places.len() - 1).map_err(|_| Refusal::Overflow)?
            }
        };
        let place = usize::try_from(position).map_err(|_| Refusal::Overflow)?;
        holdings.places[place] = Some((id, Rate::ZERO));
        holdings.set.agreements += 1;
        holdings.set.rate_max = rate_max;
        holdings.plan(from);
        holdings.plan(end_epoch);
        let terms =
            Terms { set_root: proposal.set_root, size: proposal.size, rate_per_epoch, from, end: end_epoch };
        let agreement = Agreement {
            client,
            provider,
            sequence: 0,
            position,
            ending: false,
            retained_bytes: proposal.retained_bytes,
            retained_until: proposal.retained_until,
            escrow,
            current: None,
            next: Some(terms),
        };
        self.agreements.insert(id, agreement);
        Ok(Ok(id))
    }

    fn change(
        &mut self,
        call: &Call,
        revision: &Revision,
        of_client: Option<Address>,
        of_provider: Option<Address>,
    ) -> Result<Result<(), Skip>, Refusal> {
        let id = revision.agreement;
        let Some(agreement) = self.agreements.get(&id) else { return Ok(Err(Skip::NotOpen)) };
        let (client, provider, sequence) = (agreement.client, agreement.provider, agreement.sequence);
        let (Some(of_client), Some(of_provider)) = (of_client, of_provider) else {
            return Ok(Err(Skip::Signature));
        };
        let authorised = self
            .authorities
            .get(&(client, of_client))
            .is_some_and(|authority| authority.until >= call.block.time);
        if (of_client != client && !authorised) || !self.acts(&of_provider, &provider) {
            return Ok(Err(Skip::Signature));
        }
        if revision.sequence <= sequence {
            return Ok(Err(Skip::Stale));
        }
        let now = self.now(&call.block)?;
        if Some(revision.from_epoch) != now.next() || revision.end_epoch <= revision.from_epoch {
            return Ok(Err(Skip::Epochs));
        }
        if let Err(skip) = self.bring_up(call, id)? {
            return Ok(Err(skip));
        }
        let agreement = self.opened(id)?.clone();
        if agreement.ending && revision.end_epoch > agreement.end() {
            return Ok(Err(Skip::Epochs));
        }
        let paid_for_nothing = revision.size == 0 && revision.rate_per_epoch.units() != 0;
        if revision.retained_bytes > revision.size || paid_for_nothing {
            return Ok(Err(Skip::Size));
        }
        let sooner = revision.end_epoch < agreement.retained_until && revision.end_epoch < agreement.end();
        let drops = revision.retained_bytes < agreement.retained_bytes
            || revision.retained_until < agreement.retained_until
            || sooner;
        if now < agreement.retained_until && drops {
            return Ok(Err(Skip::Retention));
        }
        let next = Terms {
            set_root: revision.set_root,
            size: revision.size,
            rate_per_epoch: revision.rate_per_epoch,
            from: revision.from_epoch,
            end: revision.end_epoch,
        };
        if self.needed(&agreement, &next)?.is_none_or(|needed| agreement.escrow < needed) {
            return Ok(Err(Skip::Escrow));
        }
        let changed = Agreement { next: Some(next), ..agreement.clone() };
        let before = self.holds(provider).set.rate_max;
        let rate_max = add(sub(before, agreement.dearer().into())?, changed.dearer().into())?;
        if rate_max > before && self.lacks_stake(&provider, rate_max) {
            return Ok(Err(Skip::Stake));
        }

        let holdings = self.holds(provider);
        holdings.set.rate_max = rate_max;
        holdings.unplan(agreement.end())?;
        if agreement.next.is_none() {
            holdings.plan(revision.from_epoch);
        }
        holdings.plan(revision.end_epoch);
        *self.opened(id)? = Agreement {
            sequence: revision.sequence,
            retained_bytes: revision.retained_bytes,
            retained_until: revision.retained_until,
            ..changed
        };
        Ok(Ok(()))
    }

    fn lacks_stake(&self, provider: &Address, rate: Amount) -> bool {
        let needed = rate.checked_mul(self.parameters.stake_epochs);
        needed.is_none_or(|needed| needed > self.stake(provider))
    }

    /// What must be locked so that what was earned, the current epoch and all of `next` can be paid; `None` if that is more than any
    /// escrow. The set is at the current epoch.
    pub(super) fn needed(&mut self, agreement: &Agreement, next: &Terms) -> Result<Option<Amount>, Refusal> {
        let holdings = self.holds(agreement.provider);
        let now = holdings.set.epoch;
        let to_come = next.from > now;
        let epochs = |from: Epoch, end: Epoch| end.0.checked_sub(from.0).ok_or(Refusal::Overflow);
        let of_next =
            if to_come { next.rate_per_epoch.over(epochs(next.from, next.end)?) } else { Amount::ZERO };
        let Some(current) = agreement.current else { return Ok(Some(of_next)) };
        let until = if to_come { next.from } else { next.end };
        let earned = holdings.earned(agreement, now)?;
        let of_current = current.rate_per_epoch.over(epochs(now, until)?);
        Ok(of_next.checked_add(earned).and_then(|sum| sum.checked_add(of_current)))
    }
}
