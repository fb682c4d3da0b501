//! What the provider agrees to. Pure: what the chain and the books say are arguments.
//!
//! It signs only what it can keep and what pays as quoted: the root and the bytes of the set as it computed them itself, the
//! rate that its price makes of them, an epoch that can still be reached, money that is there, and nothing that was promised
//! to somebody before.

use super::books::Terms;
use seedbank_agreement::market::RELEASE_BEFORE;
use seedbank_agreement::price::rate_per_epoch;
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, EpochClock, Fragment, FragmentSet, Proposal, Rate, Revision,
};
use seedbank_formats::{FragmentId, Timestamp};
use seedbank_protocol::payment::{Refusal, RefusalReason, SetSummary};
use seedbank_settlement::Release;
use seedbank_store::CLAIM_CHARGE_MIN;

/// What decides beside the request itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// This provider's wallet.
    pub(crate) provider: Address,
    /// The epoch that the chain is in.
    pub(crate) epoch: Epoch,
    /// The time that the chain is at.
    pub(crate) now: Timestamp,
    pub(crate) clock: EpochClock,
    /// The longest agreement.
    pub(crate) epochs_max: u32,
    /// What an agreement must bring at least.
    pub(crate) pay_min: Amount,
    /// A provider's stake covers this many epochs' pay.
    pub(crate) stake_epochs: u32,
    /// Rents that hold: quoted and not expired.
    pub(crate) rents: Vec<Amount>,
    pub(crate) epochs_min: u32,
}

/// Who signed, and whether it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signer {
    /// The client's wallet.
    Client,
    /// A key that the client authorised on chain, up to a cap and until a time.
    Authorized { cap: Amount, until: Timestamp },
    /// Anybody else, or nobody.
    Stranger,
}

/// The provider's side of the market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stake {
    pub(crate) stake: Amount,
    /// What all agreements may cost an epoch.
    pub(crate) rate_max: Amount,
    /// What that grows by once everything is posted that was signed.
    pub(crate) promised: Amount,
}

/// What the chain says before an agreement is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFacts {
    pub(crate) signer: Signer,
    pub(crate) agreement: Option<AgreementId>,
    pub(crate) free: Amount,
    pub(crate) stake: Stake,
    pub(crate) takes_agreements: bool,
}

/// What the chain says of an open agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) signer: Signer,
    /// Locked, less what was earned before the current terms.
    pub(crate) escrow: Amount,
    /// Of that, what the client announced to take back and may still take.
    pub(crate) released: Amount,
    /// Earned with the current terms in epochs before the present one.
    pub(crate) earned: Amount,
    /// The rate now; none before the first epoch.
    pub(crate) current: Option<Rate>,
    /// The rate that was posted for the next epoch.
    pub(crate) next: Option<Rate>,
    /// What was posted last.
    pub(crate) end: Epoch,
    /// Whether somebody ended it, so that it can't last longer.
    pub(crate) ending: bool,
    pub(crate) retained_bytes: u64,
    pub(crate) retained_until: Epoch,
    pub(crate) stake: Stake,
    pub(crate) presence: Presence,
}

/// Whether the provider goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Stays,
    /// It gave notice: its stake is free once all agreements have ended.
    Leaves,
}

/// Refusals carry a set's summary: on their way through many hands they are a pointer.
fn refused(reason: RefusalReason, message: impl Into<String>) -> Box<Refusal> {
    Box::new(Refusal::new(reason, message))
}

/// A refusal with the provider's side for comparison.
fn compare_with(own: SetSummary, mut refusal: Box<Refusal>) -> Box<Refusal> {
    refusal.own = Some(own);
    refusal
}

const TOO_LONG: &str = "this provider promises its price for a shorter time only";

fn require(holds: bool, reason: RefusalReason, message: &str) -> Result<(), Box<Refusal>> {
    if holds { Ok(()) } else { Err(refused(reason, message)) }
}

/// The set in short, at the price that fits the asked rate best.
fn summary(agreement: Option<AgreementId>, sequence: u32, set: &FragmentSet, rate: Rate) -> SetSummary {
    SetSummary { agreement, sequence, set_root: set.root(), size: set.total(), rate_per_epoch: rate }
}

/// The rent of those that hold whose rate was asked; if none is, what the cheapest asks instead.
fn rent_for(rules: &Rules, size: u64, asked: Rate, own: Option<Amount>) -> Result<Amount, Rate> {
    let rents = || rules.rents.iter().copied().chain(own);
    let rate = |rent: Amount| rate_per_epoch(size, rent, rules.clock.epoch_seconds).unwrap_or(Rate::MAX);
    let fitting = rents().find(|rent| rate(*rent) == asked);
    fitting.ok_or_else(|| rents().map(rate).min().unwrap_or(Rate::MAX))
}

fn check_set(
    set: &FragmentSet,
    root: seedbank_agreement::SetRoot,
    size: u64,
    own: SetSummary,
) -> Result<(), Box<Refusal>> {
    if set.root() != root || set.total() != size {
        let refusal = refused(RefusalReason::WrongSet, "root or size are not those of the set");
        return Err(compare_with(own, refusal));
    }
    Ok(())
}

/// Whether this signer may commit so much.
pub(crate) fn check_signer(signer: Signer, commits: Amount, now: Timestamp) -> Result<(), Box<Refusal>> {
    let may = match signer {
        Signer::Client => true,
        Signer::Authorized { cap, until } => until >= now && cap >= commits,
        Signer::Stranger => false,
    };
    require(
        may,
        RefusalReason::Signature,
        "not signed by the client's wallet, nor by a signer that may commit that much",
    )
}

fn check_stake(stake: Stake, rate_max: Option<Amount>, rules: &Rules) -> Result<(), Box<Refusal>> {
    let rate_max = rate_max.and_then(|rate| rate.checked_add(stake.promised));
    let needed = rate_max.and_then(|rate| rate.0.checked_mul(u128::from(rules.stake_epochs)));
    let covered = needed.is_some_and(|needed| needed <= stake.stake.0);
    require(covered, RefusalReason::Stake, "this provider's stake covers no more")
}

/// Whether an offer becomes an agreement, and at which rent.
pub(crate) fn check_proposal(
    proposal: &Proposal,
    set: &FragmentSet,
    facts: &OpenFacts,
    rules: &Rules,
) -> Result<Amount, Box<Refusal>> {
    use RefusalReason as R;
    require(proposal.provider == rules.provider, R::WrongParty, "the offer is to another provider")?;
    check_signer(facts.signer, proposal.escrow, rules.now)?;
    let own = |rate| summary(None, 0, set, rate);
    check_set(set, proposal.set_root, proposal.size, own(proposal.rate_per_epoch))?;
    require(proposal.size > 0, R::WrongSet, "an agreement begins with a fragment at least")?;
    let rent = rent_for(rules, proposal.size, proposal.rate_per_epoch, None);
    let rent = rent.map_err(|rate| {
        compare_with(own(rate), refused(R::WrongRate, "the rate is not the quoted price of the size"))
    })?;
    require(proposal.accept_by >= rules.epoch, R::Epochs, "the time to accept the offer is over")?;
    // It begins with the next epoch, if its transaction gets into this one; if it gets into the one after, it is shorter by one.
    let epochs = proposal.end_epoch.0.saturating_sub(rules.epoch.0.saturating_add(1));
    require(epochs >= rules.epochs_min, R::Epochs, "it is shorter than the quote says")?;
    require(epochs <= rules.epochs_max, R::Epochs, TOO_LONG)?;
    let is_worth_it = proposal.rate_per_epoch.over(epochs) >= rules.pay_min;
    let message = format!("it brings less than the {} units that its transactions cost", rules.pay_min);
    require(is_worth_it, R::Other, &message)?;
    require(proposal.retained_until <= proposal.end_epoch, R::Epochs, "it retains longer than it lasts")?;
    require(proposal.retained_bytes <= proposal.size, R::WrongSet, "it retains more than there is")?;
    if let Some(id) = facts.agreement {
        let own = SetSummary { agreement: Some(id), ..own(proposal.rate_per_epoch) };
        return Err(compare_with(own, refused(R::Exists, "there is an agreement: revise that one")));
    }
    require(facts.takes_agreements, R::Leaving, "this provider takes no new agreements")?;
    let enough = proposal.escrow >= proposal.rate_per_epoch.over(epochs);
    require(enough, R::Escrow, "the escrow does not pay the rate until the end")?;
    require(facts.free >= proposal.escrow, R::Escrow, "the client's free balance is below the escrow")?;
    let rate_max = facts.stake.rate_max.checked_add(Amount::from(proposal.rate_per_epoch));
    check_stake(facts.stake, rate_max, rules)?;
    Ok(rent)
}

/// An agreement as the provider keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Own<'a> {
    pub(crate) id: AgreementId,
    /// What both signed last.
    pub(crate) last: &'a Terms,
    /// The rent at which it was opened.
    pub(crate) rent: Amount,
}

/// Whether new terms are signed. `before` and `after` are the set as it is and as it would be.
pub(crate) fn check_revision(
    revision: &Revision,
    (before, after): (&FragmentSet, &FragmentSet),
    own: &Own<'_>,
    facts: &Standing,
    rules: &Rules,
) -> Result<(), Box<Refusal>> {
    use RefusalReason as R;
    check_signer_of(revision, facts.signer, rules)?;
    let summary = |rate| summary(Some(own.id), own.last.sequence, after, rate);
    if let Some(kept) = before.broken_promise(after, rules.epoch) {
        let refusal = refused(R::Retained, "a fragment would go before the time that was agreed");
        return Err(Box::new(Refusal { fragments: vec![kept.id], ..*refusal }));
    }
    check_set(after, revision.set_root, revision.size, summary(revision.rate_per_epoch))?;
    // The price at which it was opened holds for as long as it was to last; to go on, the price of today.
    let old_rent = (revision.end_epoch <= own.last.end).then_some(own.rent);
    rent_for(rules, revision.size, revision.rate_per_epoch, old_rent).map_err(|rate| {
        compare_with(summary(rate), refused(R::WrongRate, "the rate is not the quoted price of the size"))
    })?;
    // What can't be posted in this epoch any more can be in the next.
    let first = rules.epoch.0.saturating_add(1);
    let reachable = (first..=first.saturating_add(1)).contains(&revision.from_epoch.0);
    require(reachable, R::Epochs, "terms begin with the next epoch, or the one after")?;
    require(revision.end_epoch > revision.from_epoch, R::Epochs, "it ends before it begins")?;
    let latest = rules.epoch.0.saturating_add(rules.epochs_max).saturating_add(1);
    let is_short = revision.end_epoch.0 <= latest || revision.end_epoch <= own.last.end;
    require(is_short, R::Epochs, TOO_LONG)?;
    let ends_as_late = revision.end_epoch >= own.last.end.min(facts.end);
    require(ends_as_late, R::Epochs, "to end sooner, terminate the agreement")?;
    let may_last = !facts.ending || revision.end_epoch <= facts.end;
    require(may_last, R::Epochs, "the agreement was ended, and can't last longer")?;
    let ends_in_time = facts.presence == Presence::Stays || revision.end_epoch <= facts.end;
    require(ends_in_time, R::Leaving, "this provider leaves: nothing lasts longer than it does now")?;
    require(revision.retained_bytes <= revision.size, R::WrongSet, "it retains more than there is")?;
    require(revision.retained_until <= revision.end_epoch, R::Epochs, "it retains longer than it lasts")?;
    let floors =
        [(facts.retained_bytes, facts.retained_until), (own.last.retained_bytes, own.last.retained_until)];
    for (bytes, until) in floors {
        let kept =
            rules.epoch >= until || (revision.retained_bytes >= bytes && revision.retained_until >= until);
        require(kept, R::Retained, "the retained bytes would fall before their time")?;
    }
    check_escrow(revision, facts, rules)?;
    let dearer = |a: Option<Rate>, b: Rate| a.map_or(b, |a| a.max(b));
    let now = dearer(facts.current, facts.next.unwrap_or(Rate::ZERO));
    let then = dearer(facts.current, revision.rate_per_epoch);
    let rate_max = facts.stake.rate_max.saturating_sub(now.into()).checked_add(then.into());
    // Less is always covered: what is at stake now was covered when it was agreed.
    if then > now {
        check_stake(facts.stake, rate_max, rules)?;
    }
    Ok(())
}

/// Whether what is locked pays the present terms until the new ones begin, and those until their end.
fn check_escrow(revision: &Revision, facts: &Standing, rules: &Rules) -> Result<(), Box<Refusal>> {
    let before = revision.from_epoch.0.saturating_sub(rules.epoch.0);
    let present = facts.current.unwrap_or(Rate::ZERO).over(before);
    let after = revision.rate_per_epoch.over(revision.end_epoch.0 - revision.from_epoch.0);
    let needed = facts.earned.checked_add(present).and_then(|sum| sum.checked_add(after));
    // What no posted terms need may be taken back before these are posted.
    let dearest = facts.current.max(facts.next);
    let is_dearer = Some(revision.rate_per_epoch) > dearest || revision.end_epoch > facts.end;
    let left = if is_dearer { facts.escrow.saturating_sub(facts.released) } else { facts.escrow };
    let covered = needed.is_some_and(|needed| needed <= left);
    require(covered, RefusalReason::Escrow, "what is locked does not pay the new terms until their end")
}

/// Whether this signer may sign these terms: its authority must last until they begin, or the market would refuse them.
pub(crate) fn check_signer_of(
    revision: &Revision,
    signer: Signer,
    rules: &Rules,
) -> Result<(), Box<Refusal>> {
    check_signer(signer, Amount::ZERO, rules.clock.begin(revision.from_epoch).max(rules.now))
}

/// What a client may still take back of what it announced.
pub(crate) fn still_to_come(release: &Release, epoch: Epoch) -> Amount {
    let is_over = epoch.0 >= release.epoch.0.saturating_add(RELEASE_BEFORE);
    if is_over { Amount::ZERO } else { release.sum }
}

/// What fragments cost of a quota.
pub(crate) fn charge(leaves: &[Fragment]) -> u64 {
    leaves.iter().fold(0, |sum: u64, leaf| sum.saturating_add(leaf.length.max(CLAIM_CHARGE_MIN)))
}

/// Whether a key may have sets of this size, and this much that they dropped and that is kept still. Each at most its quota: so what is kept
/// for it and not paid for has an end, and who replaces everything at once finds room.
pub(crate) fn room(of_sets: u64, dropped: u64, quota: u64) -> Result<(), &'static str> {
    if of_sets > quota {
        return Err("the set is larger than the key's quota");
    }
    if dropped > quota {
        return Err("too much that was dropped is kept still: it goes when the chain has the new terms");
    }
    Ok(())
}

/// The refusal of fragments that are not here, not sound, or another's.
pub(crate) fn not_held(mut fragments: Vec<FragmentId>) -> Box<Refusal> {
    let message =
        format!("{} fragments are not here, not sound, or not claimed by this key", fragments.len());
    fragments.truncate(seedbank_protocol::payment::REFUSAL_FRAGMENTS_MAX);
    Box::new(Refusal { fragments, ..*refused(RefusalReason::NotHeld, message) })
}

/// The refusal of a difference that starts elsewhere.
pub(crate) fn behind(id: AgreementId, last: &Terms) -> Box<Refusal> {
    let own = SetSummary {
        agreement: Some(id),
        sequence: last.sequence,
        set_root: last.set_root,
        size: last.size,
        rate_per_epoch: last.rate,
    };
    let message = "the difference starts from another set than this provider's";
    compare_with(own, refused(RefusalReason::Behind, message))
}

#[cfg(test)]
mod tests;
