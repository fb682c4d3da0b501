// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {StorageMarket} from "../src/StorageMarket.sol";
import {IStorageMarket} from "../src/interfaces/IStorageMarket.sol";
import {Fixture} from "./Fixture.sol";
import {vm} from "./Vm.sol";

/// @title Revisions: new terms that both sides signed, and the reserve that they are paid from.
contract RevisionsTest is Fixture {
    uint32 private id;

    function setUp() public override {
        super.setUp();
        IStorageMarket.Proposal memory proposal = proposalOf(anna, pat, 100, 10);
        proposal.escrow += 5000;
        id = activate(proposal);
        nextEpoch();
        proveAs(pat);
    }

    function test_a_revision_holds_from_the_next_epoch_on() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        (revision.setRoot, revision.size) = newSet(7, 5);
        revision.ratePerEpoch = 250;
        vm.expectEmit(address(market));
        emit IStorageMarket.Revised(id, 1, revision);
        revise(revision);
        equal(rateOf(pat), 100, "this epoch's rate stays");
        equal(setOf(pat).rateMax, 250, "stake is needed for the dearer one");
        nextEpoch();
        proveAs(pat);
        equal(market.free(pat), 350, "one epoch at each rate");
        equal(setOf(pat).rateMax, 250, "dearer");
        equal(rateOf(pat), 250, "the new one");
        checkSums();
    }

    /// The root of an epoch is what its seed found: nothing that is posted later changes what must be proven.
    function test_a_revision_does_not_change_what_the_current_epoch_asks() public {
        nextEpoch();
        market.advance(pat, 9);
        (, uint64[] memory before) = market.challengesOf(pat);
        IStorageMarket.Revision memory revision = revisionOf(id);
        (revision.setRoot, revision.size) = newSet(7, 5);
        revise(revision);
        (, uint64[] memory afterwards) = market.challengesOf(pat);
        require(keccak256(abi.encode(before)) == keccak256(abi.encode(afterwards)), "the same bytes");
        market.prove(pat, proofsOf(pat));
    }

    function test_either_side_or_anyone_posts_it() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        vm.prank(STRANGER);
        revise(revision);
        equal(market.getAgreement(id).sequence, 1, "posted");
    }

    function test_the_last_revision_of_an_epoch_wins() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.ratePerEpoch = 200;
        revise(revision);
        revision.sequence = 5;
        revision.ratePerEpoch = 120;
        revision.endEpoch = 30;
        revise(revision);
        equal(setOf(pat).rateMax, 120, "dearer of what holds and what will");
        equal(market.changesIn(pat, 21), 0, "the old end is forgotten");
        equal(market.changesIn(pat, 30), 1, "the new one is not");
        equal(market.changesIn(pat, 12), 1, "one beginning");
        nextEpoch();
        proveAs(pat);
        equal(market.free(pat), 220, "paid");
    }

    function test_an_agreement_goes_on_if_revised_in_its_last_epoch() public {
        for (uint32 epoch = 12; epoch <= 20; ++epoch) {
            nextEpoch();
            proveAs(pat);
        }
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.endEpoch = 25;
        revise(revision);
        nextEpoch();
        proveAs(pat);
        equal(market.free(pat), 1100, "the eleventh epoch");
        equal(market.getAgreement(id).current.end, 25, "end");
    }

    function test_size_and_rate_may_fall_to_nothing_and_rise_again() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        (revision.size, revision.ratePerEpoch) = (0, 0);
        revise(revision);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(rateOf(pat), 0, "rate");
        vm.expectRevert(IStorageMarket.NothingToProve.selector);
        market.prove(pat, new IStorageMarket.Proof[](3));
        nextEpoch();
        market.advance(pat, 9);
        equal(setOf(pat).misses, 0, "nothing was missed");
        revision = revisionOf(id);
        (revision.setRoot, revision.size) = newSet(9, 2);
        revision.ratePerEpoch = 70;
        revise(revision);
        nextEpoch();
        proveAs(pat);
        equal(market.free(pat), 170, "paid");
    }

    /// Challenges fall on pay, so there are none; a question needs no pay.
    function test_a_set_that_earns_nothing_misses_nothing_and_answers_questions() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.ratePerEpoch = 0;
        revise(revision);
        vm.prank(anna);
        market.ask(id);
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        vm.expectRevert(IStorageMarket.NothingToProve.selector);
        market.challengesOf(pat);
        vm.expectRevert(IStorageMarket.NothingToProve.selector);
        market.prove(pat, new IStorageMarket.Proof[](3));
        uint256 before = market.free(pat);
        market.answer(id, answersOf(id));
        equal(market.free(pat), before + 50, "the bond");
        nextEpoch();
        market.advance(pat, 9);
        equal(setOf(pat).misses, 0, "nothing was missed");
        equal(setOf(pat).epoch, market.currentEpoch(), "and it goes on");
    }

    // --- what is passed over ------------------------------------------------------------------------------------------

    function skipped(IStorageMarket.Revision memory revision, IStorageMarket.Skip reason) private {
        skipped(revision, ANNA_KEY, PAT_KEY, reason);
    }

    function skipped(
        IStorageMarket.Revision memory revision,
        uint256 clientKey,
        uint256 providerKey,
        IStorageMarket.Skip reason
    ) private {
        bytes32 before = keccak256(abi.encode(market.getAgreement(id)));
        bytes32 digest = market.revisionDigest(revision);
        bytes memory ofClient = signed(clientKey, digest);
        bytes memory ofProvider = signed(providerKey, digest);
        expectRevisionSkipped(revision, reason);
        revise(revision, ofClient, ofProvider);
        require(before == keccak256(abi.encode(market.getAgreement(id))), "nothing changed");
    }

    function test_both_must_sign() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        skipped(revision, BEN_KEY, PAT_KEY, IStorageMarket.Skip.Signature);
        skipped(revision, ANNA_KEY, QUINN_KEY, IStorageMarket.Skip.Signature);
        skipped(revision, PAT_KEY, ANNA_KEY, IStorageMarket.Skip.Signature);
        skipped(revision, ANNA_KEY, ANNA_KEY, IStorageMarket.Skip.Signature);
        bytes32 digest = market.revisionDigest(revision);
        expectRevisionSkipped(revision, IStorageMarket.Skip.Signature);
        revise(revision, "", signed(PAT_KEY, digest));
        expectRevisionSkipped(revision, IStorageMarket.Skip.Signature);
        revise(revision, signed(ANNA_KEY, digest), "");
        StorageMarket other = new StorageMarket(parameters());
        digest = other.revisionDigest(revision);
        expectRevisionSkipped(revision, IStorageMarket.Skip.Signature);
        revise(revision, signed(ANNA_KEY, digest), signed(PAT_KEY, digest));
    }

    function test_hot_keys_of_both_sides_sign() public {
        vm.prank(anna);
        market.authorize(hot, 0, type(uint64).max);
        vm.prank(pat);
        registry.setOperator(hot);
        revise(revisionOf(id), HOT_KEY, HOT_KEY);
        equal(market.getAgreement(id).sequence, 1, "revised");
        vm.prank(anna);
        market.authorize(hot, 1_000_000, 0);
        skipped(revisionOf(id), HOT_KEY, PAT_KEY, IStorageMarket.Skip.Signature);
        vm.prank(pat);
        registry.setOperator(pat);
        skipped(revisionOf(id), ANNA_KEY, HOT_KEY, IStorageMarket.Skip.Signature);
    }

    function test_a_replayed_or_older_revision_is_stale() public {
        IStorageMarket.Revision memory older = revisionOf(id);
        IStorageMarket.Revision memory newer = revisionOf(id);
        newer.sequence = 2;
        revise(newer);
        skipped(newer, IStorageMarket.Skip.Stale);
        skipped(older, IStorageMarket.Skip.Stale);
    }

    function test_a_revision_is_for_the_epoch_after_its_posting() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.fromEpoch = 11;
        skipped(revision, IStorageMarket.Skip.Epochs);
        revision.fromEpoch = 13;
        skipped(revision, IStorageMarket.Skip.Epochs);
        revision.fromEpoch = 12;
        revision.endEpoch = 12;
        skipped(revision, IStorageMarket.Skip.Epochs);
        revision.endEpoch = 20;
        nextEpoch();
        skipped(revision, IStorageMarket.Skip.Epochs);
    }

    function test_escrow_must_cover_what_was_earned_this_epoch_and_all_that_is_to_come() public {
        // 6,000 locked: 100 for this epoch, 5,900 for 9 epochs.
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.ratePerEpoch = 656;
        skipped(revision, IStorageMarket.Skip.Escrow);
        vm.prank(anna);
        market.reserve(id, 4);
        revise(revision);
        for (uint32 epoch = 12; epoch < 21; ++epoch) {
            nextEpoch();
            proveAs(pat);
        }
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        equal(market.free(pat), 6004, "to the last unit");
        equal(totalLocked(), 0, "nothing is left");
        checkSums();
    }

    function test_a_dearer_revision_needs_stake_and_a_cheaper_one_does_not() public {
        vm.prank(pat);
        registry.withdrawStake(1_000_000 - 1400, pat);
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.ratePerEpoch = 101;
        skipped(revision, IStorageMarket.Skip.Stake);
        // A miss leaves the stake short of 14 epochs.
        toEpoch(12);
        sealEpoch();
        nextEpoch();
        market.advance(pat, 9);
        equal(registry.stakeOf(pat), 1200, "slashed");
        revision = revisionOf(id);
        revision.ratePerEpoch = 80;
        revise(revision);
        equal(market.getAgreement(id).sequence, 1, "cheaper is fine");
    }

    /// Challenges fall on what is paid for, so it must have bytes.
    function test_a_revision_to_nothing_pays_nothing_and_retains_no_more_than_it_has() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.size = 0;
        skipped(revision, IStorageMarket.Skip.Size);
        revision.ratePerEpoch = 1;
        skipped(revision, IStorageMarket.Skip.Size);
        revision.size = 5;
        revision.retainedBytes = 6;
        skipped(revision, IStorageMarket.Skip.Size);
    }

    function test_what_is_to_be_retained_never_falls_before_its_time() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        (revision.retainedBytes, revision.retainedUntil) = (1, 14);
        revise(revision);
        revision.sequence = 2;
        revision.retainedBytes = 0;
        skipped(revision, IStorageMarket.Skip.Retention);
        (revision.retainedBytes, revision.retainedUntil) = (1, 13);
        skipped(revision, IStorageMarket.Skip.Retention);
        (revision.retainedUntil, revision.endEpoch) = (14, 13);
        skipped(revision, IStorageMarket.Skip.Retention);
        (revision.retainedUntil, revision.endEpoch) = (15, 16);
        revise(revision);
        equal(market.getAgreement(id).retainedUntil, 15, "it may rise");
        for (uint32 epoch = 12; epoch <= 15; ++epoch) {
            nextEpoch();
            proveAs(pat);
        }
        revision = revisionOf(id);
        (revision.retainedBytes, revision.retainedUntil) = (0, 0);
        revision.endEpoch = 18;
        revise(revision);
        equal(market.getAgreement(id).retainedUntil, 0, "its time is over");
    }

    function test_no_revision_of_what_is_closed_dead_or_behind() public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.agreement = 77;
        expectRevisionSkipped(revision, IStorageMarket.Skip.NotOpen);
        revise(revision, ANNA_KEY, PAT_KEY);
        open(ben, pat, 10, 5);
        nextEpoch();
        nextEpoch();
        skipped(revisionOf(id), IStorageMarket.Skip.Behind);
        equal(setOf(pat).due, 1, "ben's is due");
        moveAllOn();
        revise(revisionOf(id));
        for (uint256 n = 0; n < 3; ++n) {
            nextEpoch();
            moveAllOn();
            market.advance(pat, 9);
        }
        require(setOf(pat).deadAt != 0, "dead");
        skipped(revisionOf(id), IStorageMarket.Skip.NotOpen);
    }

    function test_one_bad_revision_does_not_stop_a_batch() public {
        uint32 second = open(ben, pat, 10, 5);
        IStorageMarket.Revision[] memory revisions = new IStorageMarket.Revision[](2);
        bytes[] memory ofClients = new bytes[](2);
        bytes[] memory ofProviders = new bytes[](2);
        revisions[0] = revisionOf(id);
        revisions[0].endEpoch = 11;
        revisions[1] = revisionOf(second);
        revisions[1].endEpoch = 13;
        for (uint256 n = 0; n < 2; ++n) {
            bytes32 digest = market.revisionDigest(revisions[n]);
            ofClients[n] = signed(n == 0 ? ANNA_KEY : BEN_KEY, digest);
            ofProviders[n] = signed(PAT_KEY, digest);
        }
        expectRevisionSkipped(revisions[0], IStorageMarket.Skip.Epochs);
        market.revise(revisions, ofClients, ofProviders);
        equal(market.getAgreement(second).sequence, 1, "the second was posted");
    }

    // --- reserve ------------------------------------------------------------------------------------------------------

    function test_only_the_client_reserves_and_releases() public {
        vm.expectRevert(IStorageMarket.NotYours.selector);
        vm.prank(pat);
        market.reserve(id, 1);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        vm.prank(pat);
        market.announceRelease(id, 1);
        vm.expectRevert(IStorageMarket.NotYours.selector);
        vm.prank(ben);
        market.release(id);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotOpen.selector, 77));
        market.reserve(77, 1);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.Balance.selector, 994_001, 994_000));
        vm.prank(anna);
        market.reserve(id, 994_001);
    }

    function test_a_release_waits_two_epochs_and_not_for_ever() public {
        vm.prank(anna);
        market.announceRelease(id, 4000);
        equal(market.getRelease(id).amount, 4000, "announced");
        for (uint32 epoch = 12; epoch <= 15; ++epoch) {
            vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ReleaseTime.selector, 11));
            vm.prank(anna);
            market.release(id);
            nextEpoch();
            proveAs(pat);
            if (epoch == 13) toEpoch(15);
            if (epoch == 13) break;
        }
        // Not waited for in time: the announcement is worth nothing any more, and a new one must be seen by the provider.
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ReleaseTime.selector, 11));
        vm.prank(anna);
        market.release(id);
    }

    function test_a_release_gives_back_what_no_terms_need() public {
        vm.prank(anna);
        market.announceRelease(id, 100_000);
        nextEpoch();
        proveAs(pat);
        nextEpoch();
        vm.prank(anna);
        market.release(id);
        // Two of ten epochs are proven, and eight are to come.
        equal(market.free(anna), 1_000_000 - 1000, "all but the ten epochs");
        equal(market.getRelease(id).amount, 0, "used");
        for (uint32 epoch = 13; epoch < 21; ++epoch) {
            if (epoch > 13) nextEpoch();
            proveAs(pat);
        }
        equal(market.free(pat), 1000, "every epoch is still paid");
        checkSums();
    }

    /// What was promised before the announcement is posted after it, and keeps its money.
    function test_a_revision_posted_in_time_takes_precedence_over_a_release() public {
        vm.prank(anna);
        market.announceRelease(id, 5000);
        nextEpoch();
        proveAs(pat);
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.ratePerEpoch = 700;
        revise(revision);
        nextEpoch();
        // The revision's terms are due: the release must reckon with them, not with those they replace.
        vm.prank(anna);
        market.release(id);
        equal(lockedOf(id), 8 * 700, "every coming epoch at the new rate");
        for (uint32 epoch = 13; epoch < 21; ++epoch) {
            if (epoch > 13) nextEpoch();
            proveAs(pat);
        }
        equal(market.free(pat), 200 + 5600, "paid");
        checkSums();
    }

    function testFuzz_any_revision_leaves_the_sums_right(uint64 size, uint96 rate, uint32 end, uint32 from) public {
        IStorageMarket.Revision memory revision = revisionOf(id);
        revision.size = size;
        revision.ratePerEpoch = rate % 3000;
        revision.endEpoch = end % 40;
        revision.fromEpoch = 10 + from % 4;
        revise(revision);
        checkSums();
        nextEpoch();
        market.advance(pat, 9);
        moveAllOn();
        checkSums();
        equal(setOf(pat).due, 0, "moved on");
    }
}
