use super::super::books::Terms;
use super::{
    OpenFacts, Own, Presence, Rules, Signer, Stake, Standing, charge, check_proposal, check_revision, room,
    still_to_come,
};
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, EpochClock, Fragment, FragmentSet, Nonce, Proposal, Rate, Revision,
    SetRoot,
};
use seedbank_formats::{FragmentId, Timestamp};
use seedbank_protocol::payment::RefusalReason;
use seedbank_settlement::Release;

const GIB: u64 = 1 << 30;
const PROVIDER: Address = Address([2; 20]);

fn rules() -> Rules {
    Rules {
        provider: PROVIDER,
        epoch: Epoch(10),
        now: Timestamp(1_000),
        clock: EpochClock { genesis: Timestamp(0), epoch_seconds: 86_400 },
        epochs_max: 30,
        pay_min: Amount(200),
        stake_epochs: 14,
        rents: vec![Amount(300), Amount(600)],
        epochs_min: 7,
    }
}

fn leaf(byte: u8, retain_until: u32) -> Fragment {
    Fragment { id: FragmentId([byte; 32]), length: GIB, retain_until: Epoch(retain_until) }
}

fn set(leaves: &[Fragment]) -> FragmentSet {
    FragmentSet::new(leaves.iter().copied()).unwrap()
}

fn rate(units: u128) -> Rate {
    Rate::new(units).unwrap()
}

fn proposal() -> Proposal {
    Proposal {
        client: Address([1; 20]),
        provider: PROVIDER,
        set_root: set(&[leaf(1, 0), leaf(2, 0)]).root(),
        size: 2 * GIB,
        // 2 GiB at 300 a GiB-month of 30 epochs.
        rate_per_epoch: rate(20),
        end_epoch: Epoch(21),
        escrow: Amount(200),
        retained_bytes: 0,
        retained_until: Epoch(0),
        accept_by: Epoch(10),
        nonce: Nonce([5; 32]),
    }
}

fn open_facts() -> OpenFacts {
    OpenFacts {
        signer: Signer::Client,
        agreement: None,
        free: Amount(200),
        stake: Stake { stake: Amount(280), rate_max: Amount(0), promised: Amount(0) },
        takes_agreements: true,
    }
}

fn proposed(change: impl Fn(&mut Proposal, &mut OpenFacts)) -> Result<Amount, RefusalReason> {
    let (mut proposal, mut facts) = (proposal(), open_facts());
    change(&mut proposal, &mut facts);
    let set = set(&[leaf(1, 0), leaf(2, 0)]);
    check_proposal(&proposal, &set, &facts, &rules()).map_err(|refusal| refusal.reason)
}

#[test]
fn offer_at_any_price_that_was_quoted_is_taken() {
    assert_eq!(proposed(|_, _| ()), Ok(Amount(300)));
    let dearer = proposed(|proposal, facts| {
        (proposal.rate_per_epoch, proposal.escrow, facts.free) = (rate(40), Amount(400), Amount(400));
        facts.stake.stake = Amount(560);
    });
    assert_eq!(dearer, Ok(Amount(600)));
}

#[test]
fn offer_that_this_provider_can_not_keep_is_refused_with_the_reason() {
    use RefusalReason as R;
    type Change = dyn Fn(&mut Proposal, &mut OpenFacts);
    let cases: [(R, &Change); 20] = [
        (R::WrongParty, &|proposal, _| proposal.provider = Address([9; 20])),
        (R::Signature, &|_, facts| facts.signer = Signer::Stranger),
        (R::Signature, &|_, facts| {
            facts.signer = Signer::Authorized { cap: Amount(199), until: Timestamp(2_000) };
        }),
        (R::Signature, &|_, facts| {
            facts.signer = Signer::Authorized { cap: Amount(200), until: Timestamp(999) };
        }),
        (R::WrongSet, &|proposal, _| proposal.set_root = SetRoot([0; 32])),
        (R::WrongSet, &|proposal, _| proposal.size += 1),
        (R::WrongSet, &|proposal, _| proposal.retained_bytes = proposal.size + 1),
        (R::WrongRate, &|proposal, _| proposal.rate_per_epoch = rate(19)),
        (R::WrongRate, &|proposal, _| proposal.rate_per_epoch = rate(21)),
        (R::Epochs, &|proposal, _| proposal.accept_by = Epoch(9)),
        (R::Epochs, &|proposal, _| proposal.end_epoch = Epoch(17)),
        (R::Epochs, &|proposal, _| proposal.retained_until = Epoch(22)),
        (R::Exists, &|_, facts| facts.agreement = Some(AgreementId(4))),
        (R::Leaving, &|_, facts| facts.takes_agreements = false),
        (R::Escrow, &|proposal, _| proposal.escrow = Amount(199)),
        (R::Escrow, &|_, facts| facts.free = Amount(199)),
        (R::Stake, &|_, facts| facts.stake.stake = Amount(279)),
        (R::Stake, &|_, facts| facts.stake.promised = Amount(1)),
        // 31 epochs, and nine: 180 units.
        (R::Epochs, &|proposal, facts| {
            (proposal.end_epoch, proposal.escrow, facts.free) = (Epoch(42), Amount(900), Amount(900));
        }),
        (R::Other, &|proposal, _| proposal.end_epoch = Epoch(20)),
    ];
    for (number, (reason, change)) in cases.into_iter().enumerate() {
        assert_eq!(proposed(change), Err(reason), "case {number}");
    }
    let authorized = |_: &mut Proposal, facts: &mut OpenFacts| {
        facts.signer = Signer::Authorized { cap: Amount(200), until: Timestamp(1_000) };
    };
    assert!(proposed(authorized).is_ok());
}

fn last() -> Terms {
    Terms {
        sequence: 3,
        set_root: set(&[leaf(1, 15), leaf(2, 0)]).root(),
        size: 2 * GIB,
        rate: rate(20),
        from: Epoch(5),
        end: Epoch(21),
        retained_bytes: 0,
        retained_until: Epoch(0),
    }
}

/// Adds a third GiB and drops the second.
fn revision() -> Revision {
    Revision {
        agreement: AgreementId(4),
        sequence: 4,
        set_root: set(&[leaf(1, 15), leaf(3, 30)]).root(),
        size: 2 * GIB,
        rate_per_epoch: rate(20),
        from_epoch: Epoch(11),
        end_epoch: Epoch(21),
        retained_bytes: 0,
        retained_until: Epoch(0),
    }
}

fn standing() -> Standing {
    Standing {
        signer: Signer::Client,
        // Five epochs earned, this one, ten to come.
        escrow: Amount(320),
        released: Amount(0),
        earned: Amount(100),
        current: Some(rate(20)),
        next: None,
        end: Epoch(21),
        ending: false,
        retained_bytes: 0,
        retained_until: Epoch(0),
        stake: Stake { stake: Amount(280), rate_max: Amount(20), promised: Amount(0) },
        presence: Presence::Stays,
    }
}

fn revised_to(
    leaves: &[Fragment],
    change: impl Fn(&mut Revision, &mut Standing, &mut Terms),
) -> Result<(), RefusalReason> {
    let (mut revision, mut facts, mut last) = (revision(), standing(), last());
    change(&mut revision, &mut facts, &mut last);
    let own = Own { id: AgreementId(4), last: &last, rent: Amount(300) };
    let sets = (&set(&[leaf(1, 15), leaf(2, 0)]), &set(leaves));
    let rules = Rules { rents: vec![Amount(600)], ..rules() };
    check_revision(&revision, sets, &own, &facts, &rules).map_err(|refusal| refusal.reason)
}

fn revised(change: impl Fn(&mut Revision, &mut Standing, &mut Terms)) -> Result<(), RefusalReason> {
    revised_to(&[leaf(1, 15), leaf(3, 30)], change)
}

#[test]
fn terms_at_the_agreements_own_price_are_signed_as_long_as_it_was_to_last() {
    assert_eq!(revised(|_, _, _| ()), Ok(()));
    assert_eq!(
        revised(|revision, _, _| revision.from_epoch = Epoch(12)),
        Ok(()),
        "to be posted in the next epoch"
    );
    let longer = |revision: &mut Revision, facts: &mut Standing, _: &mut Terms| {
        (revision.end_epoch, facts.escrow) = (Epoch(22), Amount(10_000));
    };
    assert_eq!(revised(longer), Err(RefusalReason::WrongRate), "longer at the old price");
    let at_todays_price = |revision: &mut Revision, facts: &mut Standing, last: &mut Terms| {
        longer(revision, facts, last);
        (revision.rate_per_epoch, facts.stake.stake) = (rate(40), Amount(560));
    };
    assert_eq!(revised(at_todays_price), Ok(()));
}

#[test]
fn terms_that_break_a_promise_or_do_not_pay_are_refused_with_the_reason() {
    use RefusalReason as R;
    type Change = dyn Fn(&mut Revision, &mut Standing, &mut Terms);
    let cases: [(R, &Change); 17] = [
        (R::Signature, &|_, facts, _| facts.signer = Signer::Stranger),
        (R::Signature, &|_, facts, _| {
            facts.signer = Signer::Authorized { cap: Amount(0), until: Timestamp(999) };
        }),
        (R::WrongSet, &|revision, _, _| revision.set_root = last().set_root),
        (R::WrongSet, &|revision, _, _| revision.size = GIB),
        (R::WrongSet, &|revision, _, _| revision.retained_bytes = 2 * GIB + 1),
        (R::WrongRate, &|revision, _, _| revision.rate_per_epoch = rate(19)),
        (R::Epochs, &|revision, _, _| revision.from_epoch = Epoch(10)),
        (R::Epochs, &|revision, _, _| revision.from_epoch = Epoch(13)),
        (R::Epochs, &|revision, _, _| revision.end_epoch = Epoch(11)),
        (R::Epochs, &|revision, _, _| revision.end_epoch = Epoch(20)),
        (R::Epochs, &|revision, facts, _| (facts.ending, facts.end.0) = (true, revision.end_epoch.0 - 1)),
        (R::Epochs, &|revision, _, _| revision.retained_until = Epoch(22)),
        (R::Retained, &|_, facts, _| {
            (facts.retained_bytes, facts.retained_until) = (GIB, Epoch(12));
        }),
        (R::Retained, &|_, _, last| (last.retained_bytes, last.retained_until) = (GIB, Epoch(12))),
        (R::Escrow, &|_, facts, _| facts.escrow = Amount(319)),
        (R::Escrow, &|_, facts, _| facts.earned = Amount(101)),
        (R::Stake, &|revision, facts, last| {
            (revision.rate_per_epoch, facts.escrow) = (rate(40), Amount(10_000));
            (facts.stake.stake, last.end) = (Amount(559), Epoch(21));
        }),
    ];
    for (number, (reason, change)) in cases.into_iter().enumerate() {
        assert_eq!(revised(change), Err(reason), "case {number}");
    }
}

#[test]
fn fragment_stays_until_the_epoch_that_was_promised() {
    let without = [leaf(2, 0), leaf(3, 30)];
    assert_eq!(revised_to(&without, |_, _, _| ()), Err(RefusalReason::Retained));
    let sooner = [leaf(1, 14), leaf(3, 30)];
    assert_eq!(revised_to(&sooner, |_, _, _| ()), Err(RefusalReason::Retained));
    let later = [leaf(1, 40), leaf(3, 30)];
    let root = set(&later).root();
    assert_eq!(revised_to(&later, |revision, _, _| revision.set_root = root), Ok(()));
}

#[test]
fn cheaper_terms_are_signed_whatever_the_stake_is() {
    let one = [leaf(1, 15)];
    let root = set(&one).root();
    let smaller = |revision: &mut Revision, facts: &mut Standing, _: &mut Terms| {
        (revision.set_root, revision.size, revision.rate_per_epoch) = (root, GIB, rate(10));
        facts.stake.stake = Amount(0);
    };
    assert_eq!(revised_to(&one, smaller), Ok(()));
}

#[test]
fn provider_that_leaves_signs_nothing_that_would_keep_it() {
    let leaves = |end| {
        move |revision: &mut Revision, facts: &mut Standing, _: &mut Terms| {
            // Notice was given: what was agreed until 21 ends with 15.
            (facts.presence, facts.end) = (Presence::Leaves, Epoch(15));
            revision.end_epoch = Epoch(end);
        }
    };
    assert_eq!(revised(leaves(15)), Ok(()));
    assert_eq!(revised(leaves(16)), Err(RefusalReason::Leaving));
    assert_eq!(revised(leaves(21)), Err(RefusalReason::Leaving), "although it was signed before");
}

#[test]
fn authority_must_last_until_the_terms_begin() {
    let until = |until| {
        move |_: &mut Revision, facts: &mut Standing, _: &mut Terms| {
            facts.signer = Signer::Authorized { cap: Amount(0), until: Timestamp(until) };
        }
    };
    assert_eq!(revised(until(11 * 86_400)), Ok(()));
    assert_eq!(revised(until(11 * 86_400 - 1)), Err(RefusalReason::Signature));
}

#[test]
fn escrow_that_is_being_taken_back_covers_nothing_new() {
    let three = [leaf(1, 15), leaf(2, 0), leaf(3, 30)];
    let root = set(&three).root();
    let more = |released| {
        move |revision: &mut Revision, facts: &mut Standing, _: &mut Terms| {
            (revision.set_root, revision.size, revision.rate_per_epoch) = (root, 3 * GIB, rate(30));
            // 100 earned, this epoch, and ten at 30.
            (facts.escrow, facts.released, facts.stake.stake) = (Amount(500), Amount(released), Amount(420));
        }
    };
    assert_eq!(revised_to(&three, more(80)), Ok(()));
    assert_eq!(revised_to(&three, more(81)), Err(RefusalReason::Escrow));
    // What posted terms need stays whatever was announced.
    assert_eq!(revised(|_, facts, _| facts.released = Amount(320)), Ok(()));
    let at = |epoch| still_to_come(&Release { epoch: Epoch(epoch), sum: Amount(7) }, Epoch(10));
    assert_eq!((at(6), at(7), at(10)), (Amount(0), Amount(7), Amount(7)));
}

#[test]
fn stake_covers_what_was_signed_and_not_posted_too() {
    let dearer = |promised| {
        move |revision: &mut Revision, facts: &mut Standing, _: &mut Terms| {
            (revision.rate_per_epoch, facts.escrow) = (rate(40), Amount(10_000));
            (facts.stake.stake, facts.stake.promised) = (Amount(14 * 45), Amount(promised));
        }
    };
    assert_eq!(revised(dearer(5)), Ok(()));
    assert_eq!(revised(dearer(6)), Err(RefusalReason::Stake));
}

#[test]
fn what_is_kept_for_a_key_is_bounded_by_its_quota_in_sets_and_in_what_they_dropped() {
    assert_eq!(charge(&[leaf(1, 0), Fragment { length: 1, ..leaf(2, 0) }]), GIB + 4_096);
    assert_eq!(room(100, 100, 100), Ok(()));
    assert!(room(101, 0, 100).is_err());
    assert!(room(0, 101, 100).is_err());
}
